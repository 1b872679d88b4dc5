"""A shop is closed while charges begin."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from ecomcharge.base.clock import SystemClock
from ecomcharge.base.errors import ShopClosed
from ecomcharge.base.settings import Settings
from ecomcharge.runtime.composition import billing_services
from ecomcharge.shops.actions import close_shop
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.storage.opening import open_database
from ecomcharge.subscriptions import actions, closed_shops, renewals, requests
from ecomcharge.subscriptions import store as subscriptions
from ecomcharge.subscriptions.actions import IdGenerators
from support.builders import a_card, a_plan, a_price
from support.postgres import PostgresServer
from support.shops import MASTER_KEY, add_shop, with_database

GOOD_CARD = "4200000000000000"
MONTHLY = a_price(999)
A_PLAN: dict[str, Any] = a_plan(title="Monthly", plan=MONTHLY)


def test_no_charge_begins_after_the_closing_is_committed(database_url: str, master_key: MasterKey) -> None:
    """Renewals and creations run while the shop is closed: each begins before the closing or not at all."""
    shop_id = add_shop(database_url, master_key).shop_id
    settings = Settings(database=database_url, master_key=MASTER_KEY)
    card = a_card(GOOD_CARD)
    body = {"plan": {**A_PLAN, "plan": {**MONTHLY, "interval_unit": "hour"}}, "customer": {"email": "a@shop.test"}, "card": card}
    wanted = requests.validate(requests.BODY.decode(json.dumps(body).encode()))

    class LaterClock:
        ahead = 0

        def now(self) -> int:
            return SystemClock().now() + self.ahead

        async def read(self) -> int:
            return self.now()

    async def race(database: Database) -> None:
        clock = LaterClock()
        services = billing_services(settings, database, master_key, clock)
        other = await open_database(database_url)  # as in the command
        try:
            id_generators = IdGenerators()

            async def create() -> bool:
                try:
                    await actions.create_subscription(services.charging, id_generators, shop_id, wanted, None, lambda made: b"{}")
                except ShopClosed:
                    return False
                return True

            assert all(await asyncio.gather(*(create() for _ in range(40))))
            clock.ahead = 2 * 60 * 60 * 1000
            rows = await database.rows("SELECT id FROM subscriptions WHERE shop_id = :shop_id", {"shop_id": shop_id})
            charged_at_closing: list[int] = []

            async def close() -> None:
                await asyncio.sleep(0.005)
                await close_shop(other, clock.now(), shop_id=shop_id)
                charged_at_closing.append(await count(other))

            async def renew(id: str, delay: float) -> None:
                await asyncio.sleep(delay)
                await renewals.process_due_subscription(services.charging, shop_id, id)

            async def create_later(delay: float) -> bool:
                await asyncio.sleep(delay)
                return await create()

            renewing = [renew(row[0], number * 0.0005) for number, row in enumerate(rows)]
            creations = [create_later(number * 0.001) for number in range(20)]
            await asyncio.gather(close(), *renewing, *creations)
            assert await count(other) == charged_at_closing[0]
            assert not await create()
            for row in rows:  # open subscriptions are suspended, and a closed shop has no due work
                await renewals.process_due_subscription(services.charging, shop_id, row[0])
            assert await count(other) == charged_at_closing[0]
            due = await subscriptions.next_due(other)
            assert due is None or due > clock.now()
            await closed_shops.open_shop(other, shop_id=shop_id)
            assert await other.rows("SELECT 1 FROM subscriptions WHERE parked_at IS NOT NULL", {}) == []
        finally:
            await other.close()
            await services.close()

    async def count(database: Database) -> int:
        [row] = await database.rows("SELECT COUNT(*) FROM payments WHERE shop_id = :shop_id", {"shop_id": shop_id})
        return int(row[0])

    with_database(database_url, race)


def test_closing_a_shop_waits_for_charges_that_begin(postgres: PostgresServer, master_key: MasterKey) -> None:
    """Otherwise PostgreSQL would let a charge commit after the closing, because it read the open state before.

    SQLite has one writer at a time.
    """
    database_url = postgres.create_database("closing")
    shop_id = add_shop(database_url, master_key).shop_id
    order: list[str] = []

    async def race(database: Database) -> None:
        charging = billing_services(Settings(database=database_url), database, master_key, SystemClock()).charging
        other = await open_database(database_url)

        async def begin(tx: Transaction) -> None:
            await charging.require_open_shop(tx, shop_id)
            await tx.rows("SELECT pg_sleep(2)", {})
            order.append("charge")  # before its commit, which ends the lock that the closing waits for

        async def close() -> None:
            sleeping = "SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(2)' AND state = 'active'"
            async with asyncio.timeout(30):
                while not await other.rows(sleeping, {}):
                    await asyncio.sleep(0.05)
            await close_shop(other, 1, shop_id=shop_id)
            order.append("closing")

        try:
            await asyncio.gather(database.write(begin), close())
            with pytest.raises(ShopClosed):
                await database.write(begin)
        finally:
            await other.close()

    with_database(database_url, race)
    assert order == ["charge", "closing"]
