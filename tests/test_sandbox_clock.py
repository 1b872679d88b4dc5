"""The sandbox clock, as several processes read it and move it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import msgspec
import pytest

from conftest import ENVIRONMENT, MASTER_KEY, Shop, add_shop, with_database
from ecomcharge.app import App
from ecomcharge.events import store as events
from ecomcharge.events.model import Event
from ecomcharge.ids import EVENT_PREFIX, IdMint
from ecomcharge.keys import MasterKey
from ecomcharge.sandbox.clock import SandboxClock
from ecomcharge.settings import Settings
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.subscriptions.schedule import iso
from support.process import ServerProcess

DAY = 24 * 60 * 60 * 1000
DEADLINE_SECONDS = 30
PLAN = {"title": "Basic", "currency": "EUR", "plan": {"amount": 100, "interval": 1, "interval_unit": "month"}}
CARD = {"number": "4200000000000000", "verification_value": "123", "holder": "John Doe", "exp_month": "01", "exp_year": "2099"}


def shop_on(process: ServerProcess, master_key: MasterKey) -> Shop:
    credentials = add_shop(process.database, master_key)
    return Shop(process.url, credentials.shop_id, credentials.secret_key, process)


def subscribe(http: httpx.Client, url: str | None = None, **plan: object) -> str:
    body = {"plan": {**PLAN, **plan}, "customer": {"email": "john@example.com"}, "card": CARD, "notification_url": url}
    created = http.post("/subscriptions", json=body)
    assert created.status_code == 201, created.text
    return str(created.json()["id"])


def event_types(shop: Shop) -> list[str]:
    with shop.client() as http:
        return [event["type"] for event in http.get("/events").json()]


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await is_so():
            await asyncio.sleep(0.02)


# Reading it


def test_a_clock_whose_setting_was_not_read_tells_no_time(database_url: str) -> None:
    async def work(database: Database) -> None:
        clock = SandboxClock(database)
        with pytest.raises(RuntimeError, match="before its setting was read"):
            clock.now()
        assert abs(await clock.read() - time.time() * 1000) < 10_000

    with_database(database_url, work)


@pytest.mark.parametrize("idle", [True, False])
def test_housekeeping_keeps_fresh_events_after_the_clock_was_set_back(
    database_url: str, master_key: MasterKey, tmp_path: Path, idle: bool
) -> None:
    """In a server that got no request since before the clock was set back, and in one that was started after it."""
    a_year_ago = int(time.time()) * 1000 - 365 * DAY
    settings = Settings(database=database_url, master_key=MASTER_KEY, sandbox=True)

    def create_events(shop: Shop) -> list[str]:
        with shop.client() as http:
            assert http.post("/sandbox/clock/set", json={"to": iso(a_year_ago)}).status_code == 200
            subscribe(http)
            return event_types(shop)

    async def wait_for_housekeeping(database: Database, shop_id: int) -> None:
        """An event of forty days before that moment is deleted."""
        moment = a_year_ago - 40 * DAY
        event = Event(IdMint(EVENT_PREFIX).mint(moment), "created.subscription", "sbs_0", 1, moment, msgspec.Raw(b"{}"))

        async def add(tx: Transaction) -> None:
            assert await events.insert(tx, shop_id, event)

        async def is_deleted() -> bool:
            found = await events.newest(database, shop_id, moment, before="", limit=9, object_id="sbs_0")
            return found == []

        await database.write(add)
        await until(is_deleted)

    with ServerProcess(database_url, tmp_path, "--sandbox", environment=ENVIRONMENT) as process:
        shop = shop_on(process, master_key)

        async def work() -> list[str]:
            if not idle:
                created = create_events(shop)
            app = App(settings, housekeeping_seconds=0.05)
            await app.start()
            try:
                if idle:
                    created = create_events(shop)
                await wait_for_housekeeping(app.database, shop.shop_id)
            finally:
                await app.stop()
            return created

        assert asyncio.run(work()) == event_types(shop) == ["created.subscription", "customer.created"]
