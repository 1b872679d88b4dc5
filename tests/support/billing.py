"""Subscriptions of a sandbox in this process, without a server, with the real billing, stores and sandbox gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

import msgspec

from ecomcharge.base.settings import Settings
from ecomcharge.customers.model import CustomerFields
from ecomcharge.gateways import sandbox
from ecomcharge.gateways.base import CardDetails
from ecomcharge.plans.model import PlanFields, Price, TrialPrice
from ecomcharge.runtime.composition import BillingServices, billing_services
from ecomcharge.sandbox.clock import SandboxClock
from ecomcharge.sandbox.moves import ClockMoves
from ecomcharge.shops.actions import create_shop
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database, Params, Row, Transaction
from ecomcharge.storage.migrate import migrate
from ecomcharge.storage.opening import open_database
from ecomcharge.subscriptions import actions
from ecomcharge.subscriptions.actions import IdGenerators
from ecomcharge.subscriptions.model import EMPTY_OBJECT, to_json
from ecomcharge.subscriptions.requests import SubscriptionRequest
from ecomcharge.web.metrics import Metrics

T = TypeVar("T")

NUMBER_OF: Final = {behaviour: number for number, behaviour in sandbox.TEST_CARDS.items()}
BEGIN: Final = 1_777_629_600_000  # 2026-05-01T10:00:00Z
HOUR: Final = 3_600_000
DAY: Final = 24 * HOUR
CLOSED_PORT_URL: Final = "http://127.0.0.1:9/hook"  # refuses every connection


@dataclass
class BillingShop:
    """One shop on a sandbox whose clock is frozen at ``BEGIN``."""

    database: Database
    services: BillingServices
    clock: SandboxClock
    metrics: Metrics
    shop_id: int
    id_generators: IdGenerators = field(default_factory=IdGenerators)

    async def subscribe(
        self,
        behaviour: str | None = sandbox.SUCCESSFUL,
        *,
        amount: int = 500,
        unit: str = "day",
        currency: str = "EUR",
        cycles: int | None = None,
        trial: TrialPrice | None = None,
        attempts: int = 3,
        notification_url: str | None = None,
    ) -> str:
        """Create a subscription; without a behaviour it has no card yet. Returns its id."""
        plan = PlanFields(
            title="BillingShop",
            currency=currency,
            plan=Price(amount, 1, unit),
            trial=trial,
            language="en",
            infinite=cycles is None,
            billing_cycles=cycles,
            number_payment_attempts=attempts,
            prevent_payments_at_night=False,
            test=True,
            visible_fields=(),
        )
        card = None if behaviour is None else CardDetails(NUMBER_OF[behaviour], "739", "Jane", 12, 2199)
        wanted = SubscriptionRequest(
            plan=plan,
            customer=CustomerFields(email="jane@shop.test") if card else None,
            card=card,
            tracking_id=None,
            device_id=None,
            return_url=None,
            notification_url=notification_url,
            additional_data=EMPTY_OBJECT,
            options=EMPTY_OBJECT,
        )
        answer = await actions.create_subscription(
            self.services.charging,
            self.id_generators,
            self.shop_id,
            wanted,
            None,
            lambda each: msgspec.json.encode(to_json(each, "http://127.0.0.1")),
        )
        return str(msgspec.json.decode(answer.body)["id"])

    async def cancel(self, subscription_id: str) -> None:
        await actions.cancel_subscription(self.services.charging, self.shop_id, subscription_id, "enough")

    async def advance(self, milliseconds: int) -> None:
        await ClockMoves(self.clock, self.services.worker.advance).run(lambda now: now + milliseconds)

    async def pass_time(self, milliseconds: int) -> None:
        """Advance the clock without running due work."""
        await set_frozen_clock(self.clock, self.clock.now() + milliseconds)

    async def rows(self, sql: str, **params: object) -> list[Row]:
        return list(await self.database.rows(sql, {"shop_id": self.shop_id, **params}))

    async def run(self, sql: str, **params: object) -> int:
        values: Params = {"shop_id": self.shop_id, **params}

        async def unit(tx: Transaction) -> int:
            return await tx.run(sql, values)

        return await self.database.write(unit)


async def set_frozen_clock(clock: SandboxClock, moment: int) -> None:
    """Freeze the clock at a time without running due work."""

    async def unit(tx: Transaction) -> None:
        await tx.run("UPDATE sandbox_clock SET frozen_at = :moment WHERE name = 'clock'", {"moment": moment})

    await clock.database.write(unit)
    await clock.refresh()


def with_billing(url: str, master_key: MasterKey, work: Callable[[BillingShop], Awaitable[T]]) -> T:
    """Run ``work`` on a migrated database with a new shop."""

    async def run() -> T:
        database = await open_database(url)
        try:
            await migrate(database)
            clock = SandboxClock(database)
            await clock.freeze()
            await set_frozen_clock(clock, BEGIN)
            credentials = await create_shop(database, master_key, BEGIN, name="BillingShop")
            metrics = Metrics(None)
            services = billing_services(Settings(database=url, sandbox=True), database, master_key, clock, metrics)
            try:
                return await work(BillingShop(database, services, clock, metrics, credentials.shop_id))
            finally:
                await services.close()
        finally:
            await database.close()

    return asyncio.run(run())
