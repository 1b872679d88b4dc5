"""The metrics of charges and of the backlog are correct, bounded and documented."""

from __future__ import annotations

import re

import pytest

from ecomcharge.gateways import sandbox
from ecomcharge.runtime import backlog
from ecomcharge.runtime.backlog import read_backlog
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import DatabaseStats, Transaction
from ecomcharge.web.metrics import OUTCOMES, Unsettled
from support.billing import CLOSED_PORT_URL, DAY, HOUR, BillingShop, with_billing
from support.metrics import samples


def test_outcomes_of_charges_are_counted_by_kind(database_url: str, master_key: MasterKey) -> None:
    async def work(billing: BillingShop) -> str:
        await billing.subscribe()
        await billing.subscribe(sandbox.FAILED)
        await billing.subscribe(sandbox.ERROR)
        await billing.subscribe(sandbox.CHALLENGE)
        await billing.subscribe(sandbox.TIMEOUT_CHARGED)
        await billing.subscribe(sandbox.RENEWAL_FAILS_ONCE, attempts=1)
        await billing.advance(DAY)
        return billing.metrics.exposition(DatabaseStats()).decode()

    counted = samples(with_billing(database_url, master_key, work))

    charges = {name: value for name, value in counted.items() if name.startswith("ecomcharge_charges_total")}
    assert len(charges) == 2 * len(OUTCOMES)  # Prometheus does not count an increase for a series that begins at 1
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


def test_the_backlog_counts_due_rows_in_the_database(database_url: str, master_key: MasterKey) -> None:
    async def work(billing: BillingShop) -> None:
        empty = await read_backlog(billing.database, billing.clock.now())
        assert (empty.renewals_due, empty.renewals_lag_seconds) == (0, 0)
        assert (empty.webhooks_pending, empty.webhooks_oldest_seconds, empty.webhooks_failed) == (0, 0, 0)
        assert empty.payments == dict.fromkeys(("pending", "unknown", "incomplete", "refunding"), Unsettled(0, 0))

        await billing.subscribe(notification_url=CLOSED_PORT_URL)
        await billing.subscribe()
        await billing.subscribe(sandbox.CHALLENGE)
        await billing.pass_time(HOUR // 2)
        await billing.subscribe(sandbox.CHALLENGE)
        await billing.subscribe(sandbox.TIMEOUT_CHARGED)
        await billing.pass_time(HOUR // 2)
        now = await read_backlog(billing.database, billing.clock.now())
        assert (now.renewals_due, now.renewals_lag_seconds) == (1, 29 * 60)  # the lookup is due a minute later
        assert now.payments["incomplete"] == Unsettled(2, 3600)
        assert now.payments["unknown"] == Unsettled(1, 1800)
        assert (now.webhooks_pending, now.webhooks_lag_seconds, now.webhooks_oldest_seconds) == (1, 3600, 3600)

        await billing.pass_time(DAY)
        later = await read_backlog(billing.database, billing.clock.now())
        assert (later.renewals_due, later.renewals_lag_seconds) == (5, DAY / 1000 + 29 * 60)

        await billing.run("UPDATE webhooks SET state = 'failed', due_at = NULL WHERE shop_id = :shop_id")
        failed = await read_backlog(billing.database, billing.clock.now())
        assert (failed.webhooks_pending, failed.webhooks_lag_seconds, failed.webhooks_failed) == (0, 0, 1)

        await billing.run("UPDATE shops SET closed_at = 1 WHERE shop_id = :shop_id")
        closed = await read_backlog(billing.database, billing.clock.now())
        assert (closed.renewals_due, closed.renewals_lag_seconds) == (0, 0)

    with_billing(database_url, master_key, work)


def test_a_webhook_queued_behind_an_earlier_one_does_not_count_as_late(database_url: str, master_key: MasterKey) -> None:
    async def work(billing: BillingShop) -> None:
        await billing.subscribe(notification_url=CLOSED_PORT_URL)
        await billing.services.worker.do_everything_due()  # refused, and due again in some seconds
        await billing.run("UPDATE webhooks SET due_at = due_at + 3600000 WHERE shop_id = :shop_id")
        await billing.pass_time(HOUR // 2)
        await billing.run(
            "INSERT INTO webhooks (shop_id, id, subscription_id, sequence, event, url, body, state, attempts, created_at, due_at,"
            " leased_until) SELECT shop_id, id || 'f', subscription_id, sequence + 1, event, url, body, 'pending', 0, created_at,"
            " created_at, 0 FROM webhooks WHERE shop_id = :shop_id"
        )
        found = await read_backlog(billing.database, billing.clock.now())
        assert (found.webhooks_pending, found.webhooks_lag_seconds, found.webhooks_oldest_seconds) == (2, 0, 0)

    with_billing(database_url, master_key, work)


STATEMENTS = {
    "subscriptions_due": backlog.DUE_SUBSCRIPTIONS,
    "payments_unsettled": backlog.UNSETTLED_PAYMENTS,
    "webhooks_due": backlog.PENDING_WEBHOOKS,
    "webhooks_in_order": backlog.SENDABLE_WEBHOOKS,
    "webhooks_failed": backlog.FAILED_WEBHOOKS,
}


@pytest.mark.parametrize("index", STATEMENTS)
def test_every_backlog_statement_reads_only_indexes(index: str, engine: str, database_url: str, master_key: MasterKey) -> None:
    async def work(billing: BillingShop) -> list[str]:
        explain = "EXPLAIN QUERY PLAN " if engine == "sqlite" else "EXPLAIN "

        async def unit(tx: Transaction) -> list[str]:
            if engine == "postgresql":
                await tx.rows("SELECT set_config('enable_seqscan', 'off', true)", {})  # the tables are nearly empty
            return [str(row[-1]) for row in await tx.rows(explain + STATEMENTS[index], {"now": 1, "most": 10_000})]

        return await billing.database.write(unit)

    plan = with_billing(database_url, master_key, work)

    indexes = (index, "webhooks_in_order") if index == "webhooks_due" else (index,)  # PostgreSQL takes the smaller one
    assert any(index in line for line in plan for index in indexes), plan
    table = index.partition("_")[0]
    scans = [line for line in plan if re.search(rf"(SCAN|Seq Scan on) {table}\b", line) and "INDEX" not in line]
    assert scans == [], plan
