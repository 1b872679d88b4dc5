"""The audit accepts consistent records of every kind of subscription, and finds each kind of disagreement."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ecomcharge.audit.audit import audit
from ecomcharge.audit.model import Disagreement
from ecomcharge.gateways import base, sandbox
from ecomcharge.gateways.base import Result
from ecomcharge.payments import store as payments
from ecomcharge.plans.model import TrialPrice
from ecomcharge.shops.actions import set_gateway
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database
from ecomcharge.subscriptions import buyer_actions
from support.billing import CLOSED_PORT_URL, DAY, HOUR, BillingShop, with_billing
from support.commands import ecomcharge
from support.shops import ENVIRONMENT, with_database

Subscriptions = dict[str, str]  # subscription ids by name


async def make_subscriptions(billing: BillingShop) -> Subscriptions:
    """Create one subscription of every kind and run it for some days."""
    made = {
        "renewed": await billing.subscribe(notification_url=CLOSED_PORT_URL),
        "trial": await billing.subscribe(trial=TrialPrice(0, 1, "day", True)),
        "finite": await billing.subscribe(cycles=2, currency="JPY"),
        "failed": await billing.subscribe(sandbox.FAILED, notification_url=CLOSED_PORT_URL),
        "error": await billing.subscribe(sandbox.ERROR),
        "absent": await billing.subscribe(sandbox.TIMEOUT_ABSENT),
        "looked up": await billing.subscribe(sandbox.TIMEOUT_CHARGED),
        "renewal looked up": await billing.subscribe(sandbox.RENEWAL_TIMEOUT),
        "failed once": await billing.subscribe(sandbox.RENEWAL_FAILS_ONCE),
        "given up": await billing.subscribe(sandbox.RENEWALS_FAIL, attempts=2),
        "rescued": await billing.subscribe(sandbox.RENEWAL_ERRS_ONCE),
        "expired": await billing.subscribe(sandbox.CHALLENGE, notification_url=CLOSED_PORT_URL),
        "page expired": await billing.subscribe(None),
        "canceled": await billing.subscribe(),
        "passed": await billing.subscribe(sandbox.CHALLENGE),
    }
    await pass_challenge(billing, made["passed"])
    await billing.cancel(made["canceled"])
    await billing.advance(3 * DAY + HOUR)
    made["waiting"] = await billing.subscribe(sandbox.CHALLENGE)
    made["page"] = await billing.subscribe(None)
    made["unknown"] = await billing.subscribe(sandbox.TIMEOUT_CHARGED)
    return made


async def pass_challenge(billing: BillingShop, subscription_id: str) -> None:
    [payment] = await payments.of_subscription(billing.database, billing.shop_id, subscription_id)
    await buyer_actions.answer_challenge(billing.services.charging, billing.shop_id, payment, accepted=True)


async def check(billing: BillingShop) -> list[Disagreement]:
    return await audit(billing.database, billing.services.gateways, billing.clock, shop_id=billing.shop_id, recheck_seconds=0.05)


@pytest.fixture(scope="module")
def url(new_database_url: Callable[[], str]) -> str:
    """One database for this module; each test uses a separate shop."""
    return new_database_url()


def audited(url: str, shop_id: int | None, *options: str) -> tuple[int, list[str], str]:
    """Run ``ecomcharge audit``. Returns its exit code, lines and errors."""
    chosen = () if shop_id is None else ("--shop-id", str(shop_id))
    ended = ecomcharge(url, "audit", *chosen, "--sandbox", "--recheck-seconds", "0.05", *options, environment={**ENVIRONMENT})
    return ended.returncode, ended.stdout.splitlines(), ended.stderr


def test_audit_of_healthy_records_reports_nothing(url: str, master_key: MasterKey) -> None:
    async def work(billing: BillingShop) -> tuple[int, int, int]:
        await make_subscriptions(billing)
        assert await check(billing) == []
        await billing.advance(35 * DAY)  # the first events and webhooks are older than the retention time
        assert await check(billing) == []
        await billing.run(
            "DELETE FROM events WHERE shop_id = :shop_id AND created_at < :oldest", oldest=billing.clock.now() - 30 * DAY
        )
        await billing.run(
            "DELETE FROM webhooks WHERE shop_id = :shop_id AND created_at < :oldest", oldest=billing.clock.now() - 30 * DAY
        )
        assert await check(billing) == []
        [(subscriptions,)] = await billing.rows("SELECT COUNT(*) FROM subscriptions WHERE shop_id = :shop_id")
        [(payment_count,)] = await billing.rows("SELECT COUNT(*) FROM payments WHERE shop_id = :shop_id")
        return billing.shop_id, subscriptions, payment_count

    shop_id, subscriptions, payment_count = with_billing(url, master_key, work)

    code, lines, errors = audited(url, shop_id)
    assert (code, errors) == (0, "")
    assert lines[-1] == f"{subscriptions} subscriptions, {payment_count} payments: 0 disagreements, 0 not checked"
    code, lines, _ = audited(url, shop_id, "--json")
    summary = json.loads(lines[-1])
    assert (code, len(lines)) == (0, 1)
    assert (summary["kind"], summary["disagreements"], summary["not_checked"]) == ("summary", 0, 0)
    assert all(one["ours"] == one["gateways"] > 0 for one in summary["taken"])
    assert [one["currency"] for one in summary["taken"]] == ["EUR", "JPY"]


OF = "shop_id = :shop_id AND subscription_id = :id"
PAID = f"shop_id = :shop_id AND id = (SELECT MAX(id) FROM payments WHERE {OF})"
ITSELF = "shop_id = :shop_id AND id = :id"

# The changed subscription, the statement, the kind of disagreement, and a part of the sentence.
DISAGREEMENTS: dict[str, tuple[str, str, str, str]] = {
    "one cycle too many": (
        "renewed",
        f"UPDATE subscriptions SET paid_billing_cycles = paid_billing_cycles + 1 WHERE {ITSELF}",
        "paid_cycles",
        "paid_billing_cycles is 5, and 4 payments are successful",
    ),
    "more cycles than the plan has": (
        "renewed",
        "UPDATE plans SET infinite = 0, billing_cycles = 3 WHERE shop_id = :shop_id AND id ="
        f" (SELECT plan_id FROM subscriptions WHERE {ITSELF})",
        "too_many_cycles",
        "4 payments are successful, and the plan has 3 billing cycles",
    ),
    "nothing due": (
        "renewed",
        f"UPDATE subscriptions SET due_at = NULL WHERE {ITSELF}",
        "forgotten",
        "state is active, and nothing will ever become due",
    ),
    "an outcome without a scheduled lookup": (
        "failed",
        f"UPDATE payments SET status = 'unknown', settled_at = NULL WHERE {OF}",
        "never_looked_up",
        "is unknown, and no look-up of its outcome is scheduled",
    ),
    "an old payment without outcome": (
        "waiting",
        f"UPDATE payments SET created_at = created_at - 90000001 WHERE {OF}",
        "unsettled_too_long",
        "is incomplete since 2026-05-03T",
    ),
    "an old refund that was not made": (
        "failed",
        f"UPDATE payments SET status = 'refunding', created_at = created_at - 90000001 WHERE {OF}",
        "unsettled_too_long",
        "is refunding since",
    ),
    "an unknown status": (
        "failed",
        f"UPDATE payments SET status = 'lost' WHERE {OF}",
        "unknown_status",
        "has the unknown status lost",
    ),
    "a different last transaction": (
        "renewed",
        f"UPDATE subscriptions SET last_transaction = :last_transaction WHERE {ITSELF}",
        "last_transaction",
        "last_transaction is x None, and the last payment",
    ),
    "no last transaction": (
        "renewed",
        f"UPDATE subscriptions SET last_transaction = '{{}}' WHERE {ITSELF}",
        "last_transaction",
        "last_transaction is empty, and the last payment",
    ),
    "a missing event in the middle": (
        "renewed",
        "DELETE FROM events WHERE shop_id = :shop_id AND object_id = :id AND sequence = 2",
        "event_missing",
        "events end at 4, and one before 3 is missing",
    ),
    "a missing first event": (
        "renewed",
        "DELETE FROM events WHERE shop_id = :shop_id AND object_id = :id AND sequence = 1",
        "event_missing",
        "events end at 4, and one before 2 is missing",
    ),
    "a missing last event": (
        "renewed",
        "DELETE FROM events WHERE shop_id = :shop_id AND object_id = :id AND sequence = 4",
        "event_missing",
        "events end at 4, and one before 5 is missing",
    ),
    "a payment without an event": (
        "renewed",
        "UPDATE events SET type = 'other.subscription' WHERE shop_id = :shop_id AND object_id = :id AND sequence = 2",
        "paid_events",
        "3 events say created or renewed, and 4 payments are successful",
    ),
    "two creations": (
        "renewed",
        "UPDATE events SET type = 'created.subscription' WHERE shop_id = :shop_id AND object_id = :id AND sequence = 2",
        "paid_events",
        "more than one event says created",
    ),
    "a refund without an event": (
        "canceled",
        f"UPDATE payments SET status = 'refunded' WHERE {OF}",
        "refund_events",
        "0 events say refunded, and 1 payments are",
    ),
    "a failed refund without an event": (
        "canceled",
        f"UPDATE payments SET status = 'refund_failed' WHERE {OF}",
        "refund_events",
        "0 events say refund_failed, and 1 payments are",
    ),
    "an end without an event": (
        "renewed",
        f"UPDATE subscriptions SET state = 'canceled', due_at = NULL WHERE {ITSELF}",
        "end_events",
        "state is canceled, and no event says that it ended",
    ),
    "an event after the end": (
        "finite",
        f"UPDATE subscriptions SET state = 'active', due_at = 4000000000000 WHERE {ITSELF}",
        "end_events",
        "state is active, and the last event says that it ended",
    ),
    "two ends": (
        "given up",
        "INSERT INTO events (shop_id, id, type, object_id, sequence, created_at, data) SELECT shop_id, id || '0', type,"
        " object_id, sequence + 1, created_at, data FROM events WHERE shop_id = :shop_id AND object_id = :id"
        " AND type = 'failed.subscription'",
        "end_events",
        "two events say that it ended, and nothing was paid between them",
    ),
    "a missing webhook": (
        "renewed",
        f"DELETE FROM webhooks WHERE {OF} AND sequence = 3",
        "webhook_missing",
        "event 3 (renewed.subscription) of 2026-05-03T",
    ),
    "a charge that the gateway refused": (
        "renewed",
        f"UPDATE sandbox_charges SET status = 'failed' WHERE {PAID}",
        "gateway_status",
        "we say successful, the gateway says failed (500 EUR)",
    ),
    "a charge unknown to the gateway": (
        "renewed",
        f"DELETE FROM sandbox_charges WHERE {PAID}",
        "gateway_status",
        "we say successful, the gateway says no record (500 EUR)",
    ),
    "a successful charge that is not recorded": (
        "failed",
        f"UPDATE sandbox_charges SET status = 'successful' WHERE {PAID}",
        "gateway_status",
        "we say failed, the gateway says successful (500 EUR)",
    ),
    "a successful charge after the page expired": (
        "expired",
        f"UPDATE sandbox_charges SET status = 'successful' WHERE {PAID}",
        "gateway_status",
        "we say expired, the gateway says successful (500 EUR)",
    ),
    "a charge recorded as never sent": (
        "absent",
        "INSERT INTO sandbox_charges (shop_id, id, token, amount, currency, status, message, created_at)"
        f" SELECT shop_id, id, 'x', amount, currency, 'successful', '', created_at FROM payments WHERE {OF}",
        "gateway_status",
        "the gateway says successful (500 EUR)",
    ),
    "a different amount": (
        "renewed",
        f"UPDATE sandbox_charges SET amount = 501 WHERE {PAID}",
        "gateway_amount",
        "we say 500 EUR, the gateway says 501 EUR",
    ),
    "a different currency": (
        "renewed",
        f"UPDATE sandbox_charges SET currency = 'USD' WHERE {PAID}",
        "gateway_amount",
        "we say 500 EUR, the gateway says 500 USD",
    ),
    "a wrong total": (
        "renewed",
        f"UPDATE sandbox_charges SET amount = 501 WHERE {PAID}",
        "total",
        "total of sandbox: our payments took",
    ),
    "a charge without a payment": (
        "renewed",
        "INSERT INTO sandbox_charges (shop_id, id, token, amount, currency, status, message, created_at)"
        " SELECT shop_id, SUBSTR(id, 1, 24) || '000000000000', token, 777, currency, status, message, created_at"
        f" FROM sandbox_charges WHERE {PAID}",
        "charge_without_payment",
        "the gateway says successful (777 EUR), and there is no payment",
    ),
}


@pytest.mark.parametrize("name", DISAGREEMENTS)
def test_each_kind_of_disagreement_is_found(name: str, url: str, master_key: MasterKey) -> None:
    whose, sql, kind, sentence = DISAGREEMENTS[name]

    async def work(billing: BillingShop) -> int:
        made = await make_subscriptions(billing)
        assert await billing.run(sql, id=made[whose], last_transaction='{"uid": "x"}') > 0
        return billing.shop_id

    shop_id = with_billing(url, master_key, work)

    code, lines, errors = audited(url, shop_id)
    assert (code, errors) == (1, "")
    assert any(line.startswith(f"disagrees: shop {shop_id}: ") and sentence in line for line in lines), lines
    code, lines, _ = audited(url, shop_id, "--json")
    found = [json.loads(line) for line in lines]
    assert code == 1
    assert any(one["kind"] == kind and sentence in one["message"] for one in found)
    assert found[-1]["disagreements"] == len(found) - 1


def test_two_payments_of_one_period_are_found(database_url: str, master_key: MasterKey) -> None:
    async def work(billing: BillingShop) -> list[Disagreement]:
        id = await billing.subscribe()
        await billing.database.write(lambda tx: tx.rows("DROP INDEX payments_once", {}))
        for table in ("payments", "sandbox_charges"):
            columns = {"payments": "period, attempt, gateway, settled_at, uid", "sandbox_charges": "token, message"}[table]
            names = f"amount, currency, status, created_at, {columns}" + (", subscription_id" if table == "payments" else "")
            await billing.run(
                f"INSERT INTO {table} (shop_id, id, {names}) SELECT shop_id, SUBSTR(id, 1, 24) || 'ffffffffffff', {names}"
                f" FROM {table} WHERE shop_id = :shop_id"
            )
        await billing.run(f"UPDATE subscriptions SET paid_billing_cycles = 2 WHERE {ITSELF}", id=id)
        return await check(billing)

    found = with_billing(database_url, master_key, work)

    assert "paid_twice" in [one.kind for one in found]
    assert any("period 0 has 2 successful payments" in one.message for one in found)


def test_a_closed_shop_has_nothing_due_and_agrees(database_url: str, master_key: MasterKey) -> None:
    async def work(billing: BillingShop) -> None:
        await billing.subscribe()
        await billing.subscribe(sandbox.CHALLENGE)
        await billing.run("UPDATE subscriptions SET due_at = NULL WHERE shop_id = :shop_id")
        assert {one.kind for one in await check(billing)} == {"forgotten", "never_looked_up"}
        await billing.run("UPDATE shops SET closed_at = 1 WHERE shop_id = :shop_id")
        assert await check(billing) == []

    with_billing(database_url, master_key, work)


def test_the_audit_ignores_records_before_the_given_date(database_url: str, master_key: MasterKey) -> None:
    async def work(billing: BillingShop) -> int:
        earlier = await billing.subscribe()
        await billing.advance(2 * DAY)
        await billing.subscribe()
        await billing.run(f"UPDATE subscriptions SET due_at = NULL WHERE {ITSELF}", id=earlier)
        await billing.run(
            "UPDATE sandbox_charges SET status = 'failed' WHERE shop_id = :shop_id AND id ="
            f" (SELECT MIN(id) FROM payments WHERE {OF})",
            id=earlier,
        )
        return billing.shop_id

    shop_id = with_billing(database_url, master_key, work)

    assert audited(database_url, shop_id)[0] == 1
    code, lines, _ = audited(database_url, shop_id, "--since", "2026-05-03T09:00:00Z")
    assert (code, lines[-1]) == (0, "1 subscriptions, 2 payments: 0 disagreements, 0 not checked")
    code, _, errors = audited(database_url, shop_id, "--since", "yesterday")
    assert (code, errors.count("\n")) == (1, 1)
    assert "--since must be a moment" in errors


def test_an_unreachable_gateway_is_reported_as_not_checked(database_url: str, master_key: MasterKey) -> None:
    async def work(billing: BillingShop) -> int:
        await billing.subscribe()
        key = {"url": "http://127.0.0.1:9", "user": "361", "secret_key": "secret"}
        await set_gateway(billing.database, master_key, 0, shop_id=billing.shop_id, gateway="begateway", **key)
        await billing.run("UPDATE payments SET gateway = 'begateway' WHERE shop_id = :shop_id")
        await billing.run("DELETE FROM sandbox_charges WHERE shop_id = :shop_id")
        return billing.shop_id

    shop_id = with_billing(database_url, master_key, work)

    code, lines, errors = audited(database_url, shop_id)
    assert (code, errors) == (2, "")
    assert lines[0].startswith(f"not checked: shop {shop_id}: payment ")
    assert lines[-1] == "1 subscriptions, 1 payments: 0 disagreements, 1 not checked"


class OtherGateway:
    """A gateway that returns the same result for every lookup."""

    name = "begateway"

    def __init__(self, result: Result | None) -> None:
        self.result = result

    async def look_up(self, shop_id: int, order_id: str, now: int, *, amount: int, currency: str) -> Result | None:
        return self.result


@pytest.mark.parametrize(
    ("result", "kinds"),
    [
        (Result(base.SUCCESSFUL, ""), []),
        (Result(base.FAILED, ""), ["gateway_status", "total"]),
        (None, ["gateway_status", "total"]),
    ],
)
def test_the_audit_looks_up_each_payment_at_a_real_gateway(
    result: Result | None, kinds: list[str], database_url: str, master_key: MasterKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(billing: BillingShop) -> list[str]:
        await billing.subscribe()
        await billing.run("UPDATE payments SET gateway = 'begateway' WHERE shop_id = :shop_id")
        await billing.run("DELETE FROM sandbox_charges WHERE shop_id = :shop_id")

        async def named(name: str, shop_id: int, account: str | None) -> Any:
            return OtherGateway(result)

        monkeypatch.setattr(billing.services.gateways, "named", named)
        return [one.kind for one in await check(billing)]

    assert with_billing(database_url, master_key, work) == kinds


def test_an_audit_during_charges_reports_nothing(database_url: str, master_key: MasterKey) -> None:
    async def work(billing: BillingShop) -> None:
        for _ in range(8):
            await billing.subscribe(unit="hour")
        charging = asyncio.create_task(billing.advance(DAY))
        audits, found = 0, []
        while not charging.done():
            found += await check(billing)
            audits += 1
            await asyncio.sleep(0)
        await charging
        assert audits > 1
        assert found == []
        assert await check(billing) == []

    with_billing(database_url, master_key, work)


def test_the_audit_writes_nothing_to_the_database(tmp_path: Path, master_key: MasterKey) -> None:
    url = f"sqlite:///{tmp_path}/test.db"

    async def work(billing: BillingShop) -> int:
        await make_subscriptions(billing)
        return billing.shop_id

    async def dump(database: Database) -> list[Any]:
        tables = ("subscriptions", "payments", "events", "webhooks", "sandbox_charges", "sandbox_clock", "shops")
        return [[tuple(row) for row in await database.rows(f"SELECT * FROM {table}", {})] for table in tables]

    with_billing(url, master_key, work)
    before = with_database(url, dump)
    assert audited(url, None)[0] == 0
    assert with_database(url, dump) == before


def test_an_audit_that_cannot_run_prints_one_sentence(tmp_path: Path, database_url: str) -> None:
    code, lines, errors = audited(database_url, None)
    assert (code, lines) == (1, [])
    assert errors == (
        "ecomcharge: the database does not have this program's schema; run `ecomcharge migrate`, or audit with its release\n"
    )

    async def nothing(database: Database) -> None:
        """Migrate the database and do nothing else."""

    with_database(database_url, nothing)
    code, lines, errors = audited(database_url, 424242)
    assert (code, lines, errors) == (1, [], "ecomcharge: no shop 424242\n")
