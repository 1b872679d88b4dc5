"""During kills of servers and workers and database outages, every period is charged once and counted once."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from ecomcharge.shops.keys import MasterKey
from ecomcharge.shops.model import Credentials
from ecomcharge.storage.database import Database
from support.postgres import PostgresServer
from support.process import ServerProcess
from support.renewals import DAY, DEADLINE_SECONDS, NOON, jump, subscribe
from support.shops import ENVIRONMENT, add_shop, with_database
from support.waiting import eventually

SUBSCRIPTIONS = 100
OUTAGE_SECONDS = 1
OPTIONS = ("--sandbox", "--worker", "--lease-seconds", "1")


def rows_of(url: str, sql: str, **params: object) -> list[Any]:
    async def work(database: Database) -> list[Any]:
        return [tuple(row) for row in await database.rows(sql, params)]

    return with_database(url, work)


def workers_of(process: ServerProcess) -> list[psutil.Process]:
    assert process.process is not None
    children = psutil.Process(process.process.pid).children()
    return [child for child in children if "ecomcharge.runtime.worker_process" in child.cmdline()]


def wait_until_paid(url: str, shop: Credentials, cycles: int) -> None:
    sql = "SELECT paid_billing_cycles, COUNT(*) FROM subscriptions WHERE shop_id = :shop_id GROUP BY paid_billing_cycles"
    eventually(
        lambda: dict(rows_of(url, sql, shop_id=shop.shop_id)),
        DEADLINE_SECONDS,
        is_good=lambda found: found == {cycles: SUBSCRIPTIONS},
    )


def wait_until_charging(url: str, shop: Credentials, period: int) -> None:
    """Return when a worker has begun to charge this period."""
    sql = "SELECT 1 FROM payments WHERE shop_id = :shop_id AND period = :period LIMIT 1"
    eventually(lambda: rows_of(url, sql, shop_id=shop.shop_id, period=period), DEADLINE_SECONDS)


def check_records(url: str, shop: Credentials, periods: int) -> None:
    """Check that the gateway and the database both have one charge for each period of each subscription."""
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
            wait_until_charging(database_url, shop, day)
            for process in (first, second):
                for worker in workers_of(process):
                    worker.kill()
                    killed += 1
            if day == 2:
                first.kill()
                first.start()
            # A charge that a killed worker started but did not send is declared absent 15 minutes later.
            jump(database_url, NOON + day * DAY + QUARTER)
            wait_until_paid(database_url, shop, day + 1)
        assert killed >= 4
    check_records(database_url, shop, 4)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_a_database_restart_loses_no_charge(
    own_postgres: PostgresServer, how: signal.Signals, master_key: MasterKey, server_folder: Path
) -> None:
    url = own_postgres.create_database(f"billing_{how}")
    shop = add_shop(url, master_key)
    with ServerProcess(url, server_folder, *OPTIONS, environment=ENVIRONMENT) as process:
        subscribe(process, shop, SUBSCRIPTIONS)
        [worker] = workers_of(process)
        jump(url, NOON + DAY)
        wait_until_charging(url, shop, 1)
        own_postgres.stop(how)
        time.sleep(OUTAGE_SECONDS)
        own_postgres.start()
        jump(url, NOON + DAY + QUARTER)
        wait_until_paid(url, shop, 2)
        assert [each.pid for each in workers_of(process)] == [worker.pid]
    check_records(url, shop, 2)


def test_a_worker_finishes_started_charges_on_sigterm(database_url: str, master_key: MasterKey, server_folder: Path) -> None:
    shop = add_shop(database_url, master_key)
    with ServerProcess(database_url, server_folder, *OPTIONS, environment=ENVIRONMENT) as process:
        subscribe(process, shop, SUBSCRIPTIONS)
        jump(database_url, NOON + DAY)
        wait_until_charging(database_url, shop, 1)
        os.kill(workers_of(process)[0].pid, signal.SIGTERM)
        assert process.stop() == 0
    under_way = rows_of(
        database_url, "SELECT status FROM payments WHERE shop_id = :shop_id AND status = 'pending'", shop_id=shop.shop_id
    )
    assert under_way == []
