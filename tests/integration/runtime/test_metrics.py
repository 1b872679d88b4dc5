"""What ``/metrics`` says about charges and about what waits: true, bounded, and described in the documents."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import httpx
import pytest

from ecomcharge.gateways import sandbox
from ecomcharge.runtime import backlog
from ecomcharge.runtime.backlog import read_backlog
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database, Load, Transaction
from ecomcharge.web.metrics import OUTCOMES, Unsettled
from support.billing import CLOSED_PORT_URL, DAY, HOUR, NUMBER_OF, Books, with_books
from support.commands import WorkerProcess
from support.postgres import free_port
from support.process import ServerProcess
from support.shops import ENVIRONMENT, add_shop, with_database
from support.waiting import eventually

DOCUMENT = Path(__file__).parents[3] / "docs" / "operations.md"
SAMPLE = re.compile(r"^(ecomcharge_\w+)(?:\{([^}]*)\})? (\S+)$", re.MULTILINE)


def samples(text: str) -> dict[str, float]:
    """By name and labels, as they are written."""
    return {f"{name}{{{labels}}}" if labels else name: float(value) for name, labels, value in SAMPLE.findall(text)}


def test_outcomes_of_charges_are_counted_by_kind(database_url: str, master_key: MasterKey) -> None:
    async def work(books: Books) -> str:
        await books.subscribe()
        await books.subscribe(sandbox.FAILED)
        await books.subscribe(sandbox.ERROR)
        await books.subscribe(sandbox.CHALLENGE)
        await books.subscribe(sandbox.TIMEOUT_CHARGED)
        await books.subscribe(sandbox.RENEWAL_FAILS_ONCE, attempts=1)
        await books.advance(DAY)
        return books.metrics.exposition(Load()).decode()

    counted = samples(with_books(database_url, master_key, work))

    charges = {name: value for name, value in counted.items() if name.startswith("ecomcharge_charges_total")}
    assert len(charges) == 2 * len(OUTCOMES)  # Prometheus sees no increase of a series that begins at 1
    assert {name: value for name, value in charges.items() if value} == {
        'ecomcharge_charges_total{kind="first",outcome="successful"}': 3,
        'ecomcharge_charges_total{kind="first",outcome="failed"}': 1,
        'ecomcharge_charges_total{kind="first",outcome="error"}': 1,
        'ecomcharge_charges_total{kind="first",outcome="incomplete"}': 1,
        'ecomcharge_charges_total{kind="first",outcome="unknown"}': 1,
        'ecomcharge_charges_total{kind="first",outcome="expired"}': 1,
        'ecomcharge_charges_total{kind="renewal",outcome="successful"}': 1,  # the looked-up one began a minute later
        'ecomcharge_charges_total{kind="renewal",outcome="failed"}': 1,
    }


def test_the_backlog_is_what_waits_in_the_database(database_url: str, master_key: MasterKey) -> None:
    async def work(books: Books) -> None:
        empty = await read_backlog(books.database, books.clock.now())
        assert (empty.renewals_due, empty.renewals_lag_seconds) == (0, 0)
        assert (empty.webhooks_pending, empty.webhooks_oldest_seconds, empty.webhooks_failed) == (0, 0, 0)
        assert empty.payments == dict.fromkeys(("pending", "unknown", "incomplete", "refunding"), Unsettled(0, 0))

        await books.subscribe(notification_url=CLOSED_PORT_URL)
        await books.subscribe()
        await books.subscribe(sandbox.CHALLENGE)
        await books.pass_time(HOUR // 2)
        await books.subscribe(sandbox.CHALLENGE)
        await books.subscribe(sandbox.TIMEOUT_CHARGED)
        await books.pass_time(HOUR // 2)
        now = await read_backlog(books.database, books.clock.now())
        assert (now.renewals_due, now.renewals_lag_seconds) == (1, 29 * 60)  # the one to be looked up a minute later
        assert now.payments["incomplete"] == Unsettled(2, 3600)
        assert now.payments["unknown"] == Unsettled(1, 1800)
        assert (now.webhooks_pending, now.webhooks_lag_seconds, now.webhooks_oldest_seconds) == (1, 3600, 3600)

        await books.pass_time(DAY)
        later = await read_backlog(books.database, books.clock.now())
        assert (later.renewals_due, later.renewals_lag_seconds) == (5, DAY / 1000 + 29 * 60)

        await books.run("UPDATE webhooks SET state = 'failed', due_at = NULL WHERE shop_id = :shop_id")
        failed = await read_backlog(books.database, books.clock.now())
        assert (failed.webhooks_pending, failed.webhooks_lag_seconds, failed.webhooks_failed) == (0, 0, 1)

        await books.run("UPDATE shops SET closed_at = 1 WHERE shop_id = :shop_id")
        closed = await read_backlog(books.database, books.clock.now())
        assert (closed.renewals_due, closed.renewals_lag_seconds) == (0, 0)

    with_books(database_url, master_key, work)


def test_a_webhook_behind_an_earlier_one_of_its_subscription_does_not_lag(database_url: str, master_key: MasterKey) -> None:
    async def work(books: Books) -> None:
        await books.subscribe(notification_url=CLOSED_PORT_URL)
        await books.services.worker.do_everything_due()  # refused, and due again in some seconds
        await books.run("UPDATE webhooks SET due_at = due_at + 3600000 WHERE shop_id = :shop_id")
        await books.pass_time(HOUR // 2)
        await books.run(
            "INSERT INTO webhooks (shop_id, id, subscription_id, sequence, event, url, body, state, attempts, created_at, due_at,"
            " leased_until) SELECT shop_id, id || 'f', subscription_id, sequence + 1, event, url, body, 'pending', 0, created_at,"
            " created_at, 0 FROM webhooks WHERE shop_id = :shop_id"
        )
        found = await read_backlog(books.database, books.clock.now())
        assert (found.webhooks_pending, found.webhooks_lag_seconds, found.webhooks_oldest_seconds) == (2, 0, 0)

    with_books(database_url, master_key, work)


STATEMENTS = {
    "subscriptions_due": backlog.DUE_SUBSCRIPTIONS,
    "payments_unsettled": backlog.UNSETTLED_PAYMENTS,
    "webhooks_due": backlog.PENDING_WEBHOOKS,
    "webhooks_in_order": backlog.SENDABLE_WEBHOOKS,
    "webhooks_failed": backlog.FAILED_WEBHOOKS,
}


@pytest.mark.parametrize("index", STATEMENTS)
def test_every_statement_reads_an_index_and_no_table(index: str, engine: str, database_url: str, master_key: MasterKey) -> None:
    async def work(books: Books) -> list[str]:
        explain = "EXPLAIN QUERY PLAN " if engine == "sqlite" else "EXPLAIN "

        async def unit(tx: Transaction) -> list[str]:
            if engine == "postgresql":
                await tx.rows("SELECT set_config('enable_seqscan', 'off', true)", {})  # the tables are nearly empty
            return [str(row[-1]) for row in await tx.rows(explain + STATEMENTS[index], {"now": 1, "most": 10_000})]

        return await books.database.write(unit)

    plan = with_books(database_url, master_key, work)

    indexes = (index, "webhooks_in_order") if index == "webhooks_due" else (index,)  # PostgreSQL takes the smaller one
    assert any(index in line for line in plan for index in indexes), plan
    table = index.partition("_")[0]
    scans = [line for line in plan if re.search(rf"(SCAN|Seq Scan on) {table}\b", line) and "INDEX" not in line]
    assert scans == [], plan


def test_server_and_worker_beside_it_count_together_and_the_backlog_is_shown(
    database_url: str, master_key: MasterKey, tmp_path: Path
) -> None:
    shop = add_shop(database_url, master_key)
    with ServerProcess(database_url, tmp_path, "--sandbox", "--worker", "--workers", "2", environment=ENVIRONMENT) as process:
        auth = (str(shop.shop_id), shop.secret_key)
        plan = {"title": "Hourly", "currency": "EUR", "plan": {"amount": 5, "interval": 1, "interval_unit": "hour"}, "test": True}
        card = {"number": NUMBER_OF[sandbox.SUCCESSFUL], "exp_month": 12, "exp_year": 2099}
        with httpx.Client(base_url=process.url, auth=auth, timeout=30) as http:
            http.post("/sandbox/clock/freeze")
            wanted = {"plan": plan, "customer": {"email": "jane@shop.test"}, "card": card}
            assert http.post("/subscriptions", json=wanted).status_code == 201

            def counted(kind: str) -> float:
                text = http.get("/metrics").text
                return samples(text).get(f'ecomcharge_charges_total{{kind="{kind}",outcome="successful"}}', 0)

            assert eventually(lambda: counted("first") == 1)
            # The clock is moved behind the servers' back, so that the worker beside them makes the charge.
            with_clock_moved(database_url, HOUR + 1)
            assert eventually(lambda: counted("renewal") == 1)
            assert eventually(lambda: "ecomcharge_renewals_due 0.0" in http.get("/metrics").text)
            assert counted("first") == 1


def with_clock_moved(url: str, milliseconds: int) -> None:
    async def work(database: Database) -> None:
        async def unit(tx: Transaction) -> None:
            await tx.run("UPDATE sandbox_clock SET frozen_at = frozen_at + :by WHERE name = 'clock'", {"by": milliseconds})

        await database.write(unit)

    with_database(url, work)


def test_a_server_without_a_worker_shows_the_backlog(start_url: str, tmp_path: Path) -> None:
    with ServerProcess(start_url, tmp_path, environment=ENVIRONMENT) as process:
        assert eventually(lambda: "ecomcharge_renewals_due 0.0" in httpx.get(f"{process.url}/metrics").text)


@pytest.fixture
def start_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/test.db"


def test_a_worker_of_its_own_answers_on_its_metrics_port(start_url: str, tmp_path: Path) -> None:
    port = free_port()
    with WorkerProcess(start_url, tmp_path, "--metrics-port", str(port), environment=ENVIRONMENT) as worker:

        def answers() -> bool:
            try:
                return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=5).text == '{"status":"ok"}'
            except httpx.TransportError:
                return False

        assert eventually(answers), worker.log()
        assert eventually(lambda: "ecomcharge_webhooks_pending 0.0" in httpx.get(f"http://127.0.0.1:{port}/metrics").text)
        assert httpx.get(f"http://127.0.0.1:{port}/metrics").headers["content-type"].startswith("text/plain")
        assert httpx.get(f"http://127.0.0.1:{port}/customers").status_code == 404
        assert httpx.post(f"http://127.0.0.1:{port}/metrics").status_code == 405
        with socket.create_connection(("127.0.0.1", port)) as silent:  # holds nobody up, neither now nor at the end
            assert answers()
            assert worker.stop() == 0
            silent.close()


def test_a_worker_whose_metrics_port_is_taken_says_so(start_url: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with WorkerProcess(start_url, tmp_path, "--metrics-port", str(port), environment=ENVIRONMENT) as worker:
            assert worker.process.wait(30) == 1
    assert worker.log().splitlines()[-1].startswith(f"ecomcharge: --metrics-port: cannot listen on 127.0.0.1:{port}:")


def test_the_document_names_every_metric_and_an_alert_for_each(start_url: str, tmp_path: Path) -> None:
    with ServerProcess(start_url, tmp_path, environment=ENVIRONMENT) as process:
        assert eventually(lambda: "ecomcharge_renewals_due" in httpx.get(f"{process.url}/metrics").text)
        text = httpx.get(f"{process.url}/metrics").text
    exposed = set(re.findall(r"^# TYPE (ecomcharge_\w+) (?:counter|gauge|histogram)$", text, re.MULTILINE))
    section = DOCUMENT.read_text().partition("\n## Metrics\n")[2].partition("\n## ")[0]
    table = set(re.findall(r"^\| `(ecomcharge_\w+)`", section, re.MULTILINE))
    alerts = "\n".join(re.findall(r"```yaml\n(.*?)```", section, re.DOTALL))

    assert table == exposed
    for name in exposed - {"ecomcharge_database_work_total"}:  # which says how busy it is, not that anything is wrong
        assert name in alerts, f"no alert uses {name}"
    assert set(re.findall(r"ecomcharge_\w+?(?=_bucket|_count|\b)", alerts)) <= exposed
