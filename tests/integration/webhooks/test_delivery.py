"""The delivery of due webhooks from the database, on both engines."""

from __future__ import annotations

import asyncio
import time

import pytest

from ecomcharge.base.calendar import iso
from ecomcharge.base.clock import SystemClock
from ecomcharge.sandbox.clock import SandboxClock
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database
from ecomcharge.webhooks import delivery, store
from ecomcharge.webhooks.delivery import Delivery
from support.commands import ecomcharge
from support.receiver import Received, Receiver
from support.shops import ENVIRONMENT, add_shop, with_database
from support.webhooks import DAY, kept_webhooks, put_in_outbox


def test_the_next_attempt_is_scheduled_by_a_clock_set_during_the_attempt(
    database_url: str, receiver: Receiver, master_key: MasterKey
) -> None:
    shop = add_shop(database_url, master_key)
    put_in_outbox(database_url, shop.shop_id, [receiver.url])
    moved_to = SystemClock().now() - DAY * 1000

    def set_clock_and_fail(_: Received) -> int:
        done = ecomcharge(database_url, "clock", "set", iso(moved_to), environment={**ENVIRONMENT, "ECOMCHARGE_SANDBOX": "true"})
        assert done.returncode == 0, done.stderr
        return 500

    async def deliver(database: Database) -> None:
        clock = SandboxClock(database)
        sender = Delivery(database, master_key, clock, allow_private=True)
        assert await sender.round(await clock.read()) == 1
        await sender.wait()
        await sender.close()

    receiver.answer = set_clock_and_fail
    with_database(database_url, deliver)
    [webhook] = kept_webhooks(database_url, shop.shop_id)
    assert (webhook.attempts, webhook.last_status) == (1, 500)
    assert webhook.due_at is not None
    assert 16_000 <= webhook.due_at - moved_to < 600_000


def test_slow_searches_past_a_queue_run_less_often(
    database_url: str, master_key: MasterKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches = 0

    async def slow_search(*_: object) -> list[tuple[int, str]]:
        nonlocal searches
        searches += 1
        await asyncio.sleep(0.15)
        return []

    async def work(database: Database) -> None:
        sender = Delivery(database, master_key, SystemClock(), allow_private=True)
        until = time.monotonic() + 1.6
        while time.monotonic() < until:
            assert await sender.round(SystemClock().now()) == 0
            await asyncio.sleep(0.001)
        await sender.close()

    monkeypatch.setattr(store, "due", slow_search)
    with_database(database_url, work)
    assert 1 < searches <= 1 + 1.6 / 0.15 * delivery.SHARE_OF_SEARCH
