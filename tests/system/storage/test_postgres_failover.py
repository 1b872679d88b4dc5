"""A standby takes over, or connections become silent: the server goes on without a restart."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.postgres.pool import REST_SECONDS
from support.builders import a_card, a_plan
from support.faults import check_everything, line_to, load_on, new_customer_request, until
from support.forwarder import Forwarder
from support.load import Ledger, Line
from support.operations import get
from support.postgres import PostgresServer
from support.process import ServerProcess
from support.renewals import client_of
from support.shops import ENVIRONMENT, add_shop
from support.waiting import eventually

SUBSCRIPTION = {"plan": a_plan(), "customer": {"email": "jane@shop.test"}, "card": a_card()}


@pytest.fixture
def primary() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


def through(forwarder: Forwarder, database: str) -> str:
    return f"postgresql://postgres@127.0.0.1:{forwarder.port}/{database}"


def create_some(line: Line, ledger: Ledger, number: int) -> None:
    for _ in range(number):
        request = new_customer_request()
        ledger.enter(request, line.create(request.body, request.key))


def test_writes_continue_after_a_promotion(primary: PostgresServer, master_key: MasterKey, server_folder: Path) -> None:
    primary.create_database("shop")
    shop = add_shop(primary.url_of("shop"), master_key)
    with PostgresServer(primary=primary) as standby, Forwarder(primary.port) as forwarder:
        options = ("--workers", "2")
        with ServerProcess(through(forwarder, "shop"), server_folder, *options, environment=ENVIRONMENT) as process:
            ledger = Ledger()
            with load_on(process, shop) as load:
                time.sleep(0.5)
                primary.sql("postgres", "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
                assert eventually(lambda: get(process, "/readyz").status_code == 503, 5)
                assert get(process, "/healthz").status_code == 200
                time.sleep(2)
            ledger.add(load.ledger)
            assert load.ledger.refused
            standby.promote()
            forwarder.target = standby.port
            promoted = time.monotonic()
            with line_to(process, shop) as line:
                request = new_customer_request()
                reply = until(functools.partial(line.create, request.body, request.key), 201, 10)
                ledger.enter(request, reply)
                assert reply.status == 201, process.log()[-3000:]
                seconds = time.monotonic() - promoted
                print(f"writes were back {seconds:.2f} s after the promotion")
                assert seconds < 10
                assert eventually(lambda: get(process, "/readyz").status_code == 200, 10)
                create_some(line, ledger, 20)
            assert len(process.worker_pids()) == 2
            check_everything(process, shop, ledger)
            refusals = [each for each in process.log().splitlines() if "the database refuses work" in each]
            assert any("read-only" in each for each in refusals)
            assert "Traceback" not in process.log()


def test_silent_connections_are_replaced_in_seconds(
    own_postgres: PostgresServer, postgres_url: str, master_key: MasterKey, server_folder: Path
) -> None:
    """As after a firewall forgot the connections while nobody used them."""
    shop = add_shop(postgres_url, master_key)
    with Forwarder(own_postgres.port) as forwarder:
        url = through(forwarder, postgres_url.rpartition("/")[2])
        with ServerProcess(url, server_folder, environment=ENVIRONMENT) as process:
            ledger = Ledger()
            with load_on(process, shop) as load:
                time.sleep(0.5)
            ledger.add(load.ledger)
            with line_to(process, shop) as line:
                forwarder.silence()
                time.sleep(REST_SECONDS + 0.5)
                create_some(line, ledger, 6)
                assert ledger.refused == []
                print(f"the slowest request took {ledger.slowest_seconds:.2f} s")
                assert ledger.slowest_seconds < 3
            check_everything(process, shop, ledger)


def test_a_connection_that_becomes_silent_during_use_delays_requests_for_seconds_only(
    own_postgres: PostgresServer, postgres_url: str, master_key: MasterKey, server_folder: Path
) -> None:
    shop = add_shop(postgres_url, master_key)
    with Forwarder(own_postgres.port) as forwarder:
        url = through(forwarder, postgres_url.rpartition("/")[2])
        with ServerProcess(url, server_folder, environment=ENVIRONMENT) as process:
            with load_on(process, shop) as load:
                time.sleep(1)
                forwarder.silence()
                time.sleep(8)
                with line_to(process, shop) as line:
                    create_some(line, load.ledger, 6)
            check_everything(process, shop, load.ledger)
            assert load.ledger.slowest_seconds < 10
            assert len(load.ledger.unknown) <= 16


def test_a_missing_synchronous_standby_delays_an_answer_for_ten_seconds_at_most(
    primary: PostgresServer, master_key: MasterKey, server_folder: Path
) -> None:
    """PostgreSQL then neither commits nor rolls back, so that the outcome stays unknown.

    The charge of a subscription goes on when the COMMIT ends, and a repeated request gets its outcome.
    """
    url = primary.create_database("shop")
    shop = add_shop(url, master_key)
    with ServerProcess(url, server_folder, environment=ENVIRONMENT) as process, line_to(process, shop) as line:
        with client_of(process, shop) as http, ThreadPoolExecutor(1) as pool:
            subscribe = functools.partial(http.post, "/subscriptions", json=SUBSCRIPTION, headers={"Idempotency-Key": "order 1"})
            assert http.get("/subscriptions").json() == []
            primary.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'missing'", "SELECT pg_reload_conf()")
            subscribed = pool.submit(subscribe)
            reply = eventually(lambda: line.create(new_customer_request().body), 30, is_good=lambda reply: reply.status != 201)
            assert reply.status == 504
            assert reply.headers["retry-after"] == "1"
            assert reply.seconds < 10
            unknown = subscribed.result()
            assert unknown.status_code == 504
            assert unknown.elapsed.total_seconds() < 10
            primary.sql("postgres", "ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
            answers = [subscribe()]
            while answers[-1].status_code == 409 and len(answers) < 5:
                time.sleep(int(answers[-1].headers["retry-after"]))
                answers.append(subscribe())
            assert sum(int(each.headers["retry-after"]) for each in answers[:-1]) <= 10
            assert (answers[-1].status_code, answers[-1].json()["state"]) == (201, "active")
            assert [each["id"] for each in http.get("/subscriptions").json()] == [answers[-1].json()["id"]]
        assert primary.sql("shop", "SELECT count(*) FROM sandbox_charges") == "1\n"
        request = new_customer_request()
        assert until(functools.partial(line.create, request.body, request.key), 201).status == 201


def test_the_second_host_of_a_url_is_used_when_the_first_one_freezes(
    primary: PostgresServer, master_key: MasterKey, server_folder: Path
) -> None:
    primary.create_database("shop")
    shop = add_shop(primary.url_of("shop"), master_key)
    with PostgresServer(primary=primary) as standby:
        hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
        url = f"postgresql://postgres@{hosts}/shop?target_session_attrs=read-write"
        with ServerProcess(url, server_folder, environment=ENVIRONMENT) as process:
            ledger = Ledger()
            with line_to(process, shop) as line:
                create_some(line, ledger, 20)
            eventually(standby_has(standby, len(ledger.acknowledged)), 10)
            primary.freeze()
            try:
                [pid] = process.worker_pids()
                os.kill(pid, signal.SIGKILL)
                eventually(lambda: "a worker waits for the database" in process.log(), 20)
                standby.promote()
                promoted = time.monotonic()
                eventually(process.answers, 20)
                with line_to(process, shop) as line:
                    request = new_customer_request()
                    reply = until(functools.partial(line.create, request.body, request.key), 201, 20)
                    assert time.monotonic() - promoted < 10
                    ledger.enter(request, reply)
                    create_some(line, ledger, 6)
                    assert ledger.slowest_seconds < 10
                check_everything(process, shop, ledger)
            finally:
                primary.thaw()


def test_connections_in_use_move_to_the_second_host(primary: PostgresServer, master_key: MasterKey, server_folder: Path) -> None:
    primary.create_database("shop")
    shop = add_shop(primary.url_of("shop"), master_key)
    with PostgresServer(primary=primary) as standby:
        hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
        url = f"postgresql://postgres@{hosts}/shop?target_session_attrs=read-write"
        with ServerProcess(url, server_folder, environment=ENVIRONMENT) as process, line_to(process, shop) as line:
            create_some(line, Ledger(), 5)
            primary.freeze()
            try:
                standby.promote()
                started = time.monotonic()
                request = new_customer_request()
                assert until(functools.partial(line.create, request.body, request.key), 201, 20).status == 201
                assert time.monotonic() - started < 10
            finally:
                primary.thaw()


def standby_has(standby: PostgresServer, customers: int) -> Callable[[], bool]:
    return lambda: int(standby.sql("shop", "SELECT count(*) FROM customers")) >= customers
