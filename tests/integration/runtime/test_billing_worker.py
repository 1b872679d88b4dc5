"""The billing worker in one process."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ecomcharge.base.settings import Settings
from ecomcharge.runtime import billing_worker
from ecomcharge.runtime.composition import billing_services
from ecomcharge.sandbox.clock import SandboxClock
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database
from ecomcharge.subscriptions import renewals
from ecomcharge.subscriptions.charging import Charging
from support.process import ServerProcess
from support.renewals import DAY, DEADLINE_SECONDS, NOON, jump, subscribe
from support.shops import ENVIRONMENT, add_shop, with_database


def staggered() -> Callable[[Charging, int, str], Awaitable[None]]:
    """``process_due_subscription`` with charges that end one after another, as at a slow gateway."""
    process, count = renewals.process_due_subscription, itertools.count(1)

    async def process_later(charging: Charging, shop_id: int, subscription_id: str) -> None:
        await asyncio.sleep(0.01 * next(count))
        await process(charging, shop_id, subscription_id)

    return process_later


def test_a_worker_with_free_capacity_starts_due_charges_without_waiting(
    database_url: str, master_key: MasterKey, server_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(billing_worker, "AT_ONCE", 8)
    monkeypatch.setattr(billing_worker, "POLL_SECONDS", 3600)
    monkeypatch.setattr(renewals, "process_due_subscription", staggered())
    shop = add_shop(database_url, master_key)
    with ServerProcess(database_url, server_folder, "--sandbox", environment=ENVIRONMENT) as process:
        subscribe(process, shop, 24)
    jump(database_url, NOON + DAY)

    async def work(database: Database) -> None:
        clock = SandboxClock(database)
        services = billing_services(Settings(database=database_url, sandbox=True), database, master_key, clock)
        stopped = asyncio.Event()
        running = asyncio.create_task(services.worker.run(stopped))
        async with asyncio.timeout(DEADLINE_SECONDS):
            while services.worker.done < 24:
                await asyncio.sleep(0.05)
        stopped.set()
        await running
        await services.close()

    with_database(database_url, work)
