"""Renewals while servers and workers are killed and the database goes away: every period is charged once, and counted once."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from ecomcharge.base.settings import Settings
from ecomcharge.runtime import billing_worker
from ecomcharge.runtime.composition import billing_services
from ecomcharge.runtime.processes import run_until_signalled
from ecomcharge.sandbox.clock import SandboxClock
from ecomcharge.shops.keys import MasterKey
from ecomcharge.shops.model import Credentials
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.storage.migrate import migrate
from ecomcharge.storage.opening import open_database
from ecomcharge.subscriptions import renewals
from ecomcharge.subscriptions.charging import Charging
from support.postgres import PostgresServer
from support.process import ServerProcess
from support.shops import ENVIRONMENT, add_shop, with_database

SUBSCRIPTIONS = 100
PATIENCE_SECONDS = 60.0
OPTIONS = ("--sandbox", "--worker", "--lease-seconds", "1")
CARD = {"number": "4200000000000000", "exp_month": 12, "exp_year": 2099}
DAILY = {"title": "Daily", "currency": "EUR", "plan": {"amount": 7, "interval": 1, "interval_unit": "day"}}


def client_of(process: ServerProcess, shop: Credentials) -> httpx.Client:
    return httpx.Client(base_url=process.url, auth=(str(shop.shop_id), shop.secret_key), timeout=60)


def subscribe(process: ServerProcess, shop: Credentials, count: int) -> None:
    with client_of(process, shop) as http, ThreadPoolExecutor(8) as pool:
        http.post("/sandbox/clock/freeze")
        http.post("/sandbox/clock/set", json={"to": "2026-05-01T10:00:00Z"})
        plan = {"id": http.post("/plans", json=DAILY).json()["id"]}
        wanted = {"plan": plan, "customer": {"email": "jane@shop.test"}, "card": CARD}
        made = list(pool.map(lambda _: http.post("/subscriptions", json=wanted).json()["state"], range(count)))
    assert Counter(made) == {"active": count}


def jump(url: str, moment: int) -> None:
    """Set the frozen clock, and leave what is due to the workers."""

    async def work(database: Database) -> None:
        async def unit(tx: Any) -> None:
            await tx.run("UPDATE sandbox_clock SET frozen_at = :moment WHERE name = 'clock'", {"moment": moment})

        await database.write(unit)

    with_database(url, work)


def rows_of(url: str, sql: str, **params: object) -> list[Any]:
    async def work(database: Database) -> list[Any]:
        return [tuple(row) for row in await database.rows(sql, params)]

    return with_database(url, work)


def workers_of(process: ServerProcess) -> list[psutil.Process]:
    assert process.process is not None
    children = psutil.Process(process.process.pid).children()
    return [child for child in children if "ecomcharge.runtime.worker_process" in child.cmdline()]


def wait_until_paid(url: str, shop: Credentials, cycles: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    sql = "SELECT paid_billing_cycles, COUNT(*) FROM subscriptions WHERE shop_id = :shop_id GROUP BY paid_billing_cycles"
    while (found := dict(rows_of(url, sql, shop_id=shop.shop_id))) != {cycles: SUBSCRIPTIONS}:
        assert time.monotonic() < deadline, found
        time.sleep(0.5)


def check_books(url: str, shop: Credentials, periods: int) -> None:
    """The gateway's own books and ours say the same: each period of each subscription once."""
    booked = rows_of(
        url,
        "SELECT payments.subscription_id, payments.period, COUNT(*) FROM sandbox_charges AS charge"
        " JOIN payments ON payments.shop_id = charge.shop_id AND payments.id = charge.id"
        " WHERE charge.shop_id = :shop_id AND charge.status = 'successful' AND payments.status = 'successful'"
        " GROUP BY payments.subscription_id, payments.period",
        shop_id=shop.shop_id,
    )
    assert Counter(times for _, _, times in booked) == {1: SUBSCRIPTIONS * periods}
    [(charges, taken)] = rows_of(
        url, "SELECT COUNT(*), SUM(amount) FROM sandbox_charges WHERE shop_id = :shop_id", shop_id=shop.shop_id
    )
    assert (charges, taken) == (SUBSCRIPTIONS * periods, SUBSCRIPTIONS * periods * 7)
    [(events,)] = rows_of(
        url, "SELECT COUNT(*) FROM events WHERE shop_id = :shop_id AND type = 'renewed.subscription'", shop_id=shop.shop_id
    )
    assert events == SUBSCRIPTIONS * (periods - 1)


NOON = 1_777_629_600_000  # 2026-05-01T10:00:00Z
DAY = 86_400_000
QUARTER = 16 * 60_000


def test_two_servers_whose_workers_are_killed_charge_every_period_once(
    database_url: str, master_key: MasterKey, server_folder: Path
) -> None:
    shop = add_shop(database_url, master_key)
    with (
        ServerProcess(database_url, server_folder, *OPTIONS, environment=ENVIRONMENT) as first,
        ServerProcess(database_url, server_folder, *OPTIONS, environment=ENVIRONMENT) as second,
    ):
        subscribe(first, shop, SUBSCRIPTIONS)
        killed = 0
        for day in range(1, 4):
            jump(database_url, NOON + day * DAY)
            time.sleep(0.55)  # a worker looks twice a second
            for process in (first, second):
                for worker in workers_of(process):
                    worker.kill()
                    killed += 1
            if day == 2:
                first.kill()
                first.start()
            # What a killed worker had begun and not sent is found absent at the gateway a quarter of an hour later.
            jump(database_url, NOON + day * DAY + QUARTER)
            wait_until_paid(database_url, shop, day + 1)
        assert killed >= 4
    check_books(database_url, shop, 4)


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_a_database_that_goes_away_and_comes_back_loses_no_charge(
    own_postgres: PostgresServer, how: signal.Signals, master_key: MasterKey, server_folder: Path
) -> None:
    url = own_postgres.create_database(f"billing_{how}")
    shop = add_shop(url, master_key)
    with ServerProcess(url, server_folder, *OPTIONS, environment=ENVIRONMENT) as process:
        subscribe(process, shop, SUBSCRIPTIONS)
        [worker] = workers_of(process)
        jump(url, NOON + DAY)
        time.sleep(0.6)
        own_postgres.stop(how)
        time.sleep(1)
        own_postgres.start()
        jump(url, NOON + DAY + QUARTER)
        wait_until_paid(url, shop, 2)
        assert [each.pid for each in workers_of(process)] == [worker.pid]
    check_books(url, shop, 2)


def test_a_worker_that_is_told_to_end_finishes_what_it_began(
    database_url: str, master_key: MasterKey, server_folder: Path
) -> None:
    shop = add_shop(database_url, master_key)
    with ServerProcess(database_url, server_folder, *OPTIONS, environment=ENVIRONMENT) as process:
        subscribe(process, shop, SUBSCRIPTIONS)
        jump(database_url, NOON + DAY)
        time.sleep(0.6)
        os.kill(workers_of(process)[0].pid, signal.SIGTERM)
        assert process.stop() == 0
    under_way = rows_of(
        database_url, "SELECT status FROM payments WHERE shop_id = :shop_id AND status = 'pending'", shop_id=shop.shop_id
    )
    assert under_way == []


def staggered() -> Callable[[Charging, int, str], Awaitable[None]]:
    """``process_due_subscription`` with charges that end one after another, as at a slow gateway."""
    process, count = renewals.process_due_subscription, itertools.count(1)

    async def process_later(charging: Charging, shop_id: int, subscription_id: str) -> None:
        await asyncio.sleep(0.01 * next(count))
        await process(charging, shop_id, subscription_id)

    return process_later


def test_a_worker_with_room_for_more_charges_does_not_wait_for_its_next_look(
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
        async with asyncio.timeout(PATIENCE_SECONDS):
            while services.worker.done < 24:
                await asyncio.sleep(0.05)
        stopped.set()
        await running
        await services.close()

    with_database(database_url, work)


def test_a_worker_offers_the_processor_after_every_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    offered: list[None] = []
    monkeypatch.setattr(os, "sched_yield", lambda: offered.append(None))

    async def work(_: asyncio.Event) -> None:
        database = await open_database(f"sqlite:///{tmp_path}/courteous.db", commit_in_thread=False)
        await migrate(database)
        before = len(offered)
        await asyncio.gather(*(database.write(_nothing) for _ in range(50)))
        assert len(offered) >= before + 200  # each unit; the step that asks for it, that learns its outcome, that tells it
        await database.close()

    run_until_signalled(work)


async def _nothing(_: Transaction) -> None:
    pass
