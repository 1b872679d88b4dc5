"""When PostgreSQL stops or ends connections, requests are refused or unknown, and no acknowledged write is lost."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import time
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

import asyncpg
import pytest

from ecomcharge.shops.keys import MasterKey
from support.faults import DEADLINE_SECONDS, UNDER_LOAD_SECONDS, check_everything, line_to, load_on, new_customer_request, until
from support.load import Ledger, Line, Reply, is_plain_refusal
from support.postgres import PostgresServer
from support.process import ServerProcess
from support.shops import ENVIRONMENT, add_shop
from support.waiting import eventually


def again_if_closed(asked: Callable[[], Reply]) -> Reply:
    """The server may have closed an idle connection; then the request is sent on a new one."""
    try:
        return asked()
    except (OSError, HTTPException):
        return asked()


def test_a_worker_killed_while_postgresql_is_down_waits_for_it(
    own_postgres: PostgresServer, postgres_url: str, master_key: MasterKey, server_folder: Path
) -> None:
    shop = add_shop(postgres_url, master_key)
    with ServerProcess(postgres_url, server_folder, environment=ENVIRONMENT) as process, line_to(process, shop) as line:
        own_postgres.stop(signal.SIGQUIT)
        try:
            for pid in process.worker_pids():
                os.kill(pid, signal.SIGKILL)
            eventually(lambda: "a worker waits for the database" in process.log(), DEADLINE_SECONDS)
        finally:
            own_postgres.start()
        eventually(process.answers, DEADLINE_SECONDS)
        customer_request = new_customer_request()
        assert until(functools.partial(line.create, customer_request.body, customer_request.key), 201).status == 201
        assert process.stop() == 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["fast", "immediate"])
def test_while_postgresql_is_stopped_requests_are_refused_and_acknowledged_writes_remain(
    own_postgres: PostgresServer, postgres_url: str, master_key: MasterKey, server_folder: Path, how: signal.Signals
) -> None:
    shop = add_shop(postgres_url, master_key)
    ledger = Ledger()
    with (
        ServerProcess(postgres_url, server_folder, "--workers", "2", environment=ENVIRONMENT) as process,
        line_to(process, shop) as line,
    ):
        for _ in range(2):
            with load_on(process, shop) as load:
                time.sleep(UNDER_LOAD_SECONDS)
                own_postgres.stop(how)
                try:
                    _check_the_outage(line, load.ledger)
                finally:
                    own_postgres.start()
                customer_request = new_customer_request()
                load.ledger.enter(
                    customer_request, until(functools.partial(line.create, customer_request.body, customer_request.key), 201)
                )
                assert until(functools.partial(line.ask, "GET", "/readyz"), 200).status == 200
                time.sleep(0.3)
            ledger.add(load.ledger)
            check_everything(process, shop, ledger)
    print(how.name, ledger)
    assert len(ledger.acknowledged) > 100
    assert ledger.refused


def _check_the_outage(line: Line, ledger: Ledger) -> None:
    for _ in range(5):
        customer_request = new_customer_request()
        reply = again_if_closed(functools.partial(line.create, customer_request.body, customer_request.key))
        ledger.enter(customer_request, reply)
        assert reply.status == 503
        assert is_plain_refusal(reply)
        assert reply.seconds < 3
        ready = again_if_closed(functools.partial(line.ask, "GET", "/readyz"))
        assert ready.status == 503
        assert is_plain_refusal(ready)
        assert again_if_closed(functools.partial(line.ask, "GET", "/healthz")).status == 200
        time.sleep(0.1)


def test_terminated_backends_lose_and_duplicate_nothing(postgres_url: str, master_key: MasterKey, server_folder: Path) -> None:
    shop = add_shop(postgres_url, master_key)
    terminated = 0
    with ServerProcess(postgres_url, server_folder, environment=ENVIRONMENT) as process:
        with load_on(process, shop) as load:
            for _ in range(20):
                time.sleep(0.1)
                terminated += asyncio.run(_terminate_backends(postgres_url))
        check_everything(process, shop, load.ledger)
    print(f"{terminated} terminated,", load.ledger)
    assert terminated > 20
    assert load.ledger.unknown == []
    assert load.ledger.slowest_seconds < 5


async def _terminate_backends(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        terminated: int = await connection.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return terminated
    finally:
        await connection.close()
