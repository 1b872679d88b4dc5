"""Charges of a running server: cancels, late responses, expired cards, night hours, database outages."""

from __future__ import annotations

import signal
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from ecomcharge.gateways import sandbox
from ecomcharge.sandbox.clock import SandboxClock
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database, Transaction
from support.billing import set_frozen_clock
from support.builders import a_card, a_plan
from support.postgres import PostgresServer
from support.process import ServerProcess
from support.shops import ENVIRONMENT, Shop, add_shop, with_database
from support.waiting import eventually

T = TypeVar("T")
NUMBER_OF = {behaviour: number for number, behaviour in sandbox.TEST_CARDS.items()}
MONTHLY = a_plan(999, title="Monthly")
HOURLY = {**MONTHLY, "plan": {**MONTHLY["plan"], "interval_unit": "hour"}}
DEADLINE_SECONDS = 60.0


def body(behaviour: str, plan: dict[str, Any] = MONTHLY, **more: Any) -> dict[str, Any]:
    card = a_card(NUMBER_OF[behaviour], verification_value="739")
    return {"plan": plan, "customer": {"email": "jane@shop.test"}, "card": card, **more}


@pytest.fixture(scope="module")
def money_process(new_database_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    options = ("--sandbox", "--worker", "--lease-seconds", "1", "--failed-logins-per-minute", "0")
    with ServerProcess(new_database_url(), tmp_path_factory.mktemp("money"), *options, environment=ENVIRONMENT) as process:
        yield process


@pytest.fixture
def shop(money_process: ServerProcess, master_key: MasterKey) -> Shop:
    credentials = add_shop(money_process.database, master_key)
    return Shop(money_process.url, credentials.shop_id, credentials.secret_key, money_process)


@pytest.fixture
def http(shop: Shop) -> Iterator[httpx.Client]:
    with shop.client() as client:
        yield client
        for each in client.get("/subscriptions").json():
            client.delete(f"/subscriptions/{each['id']}")


def rows_of(url: str, sql: str, **params: object) -> list[tuple[Any, ...]]:
    async def work(database: Database) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await database.rows(sql, params)]

    return with_database(url, work)


def ledger(url: str, shop_id: int) -> list[tuple[str, int, bool]]:
    """The charges recorded by the sandbox gateway: status, amount, and whether they were refunded."""
    sql = "SELECT status, amount, refunded_at FROM sandbox_charges WHERE shop_id = :shop_id ORDER BY created_at, id"
    return [(status, amount, refunded is not None) for status, amount, refunded in rows_of(url, sql, shop_id=shop_id)]


def event_types(http: httpx.Client, id: str) -> list[str]:
    return [event["type"].partition(".")[0] for event in reversed(http.get(f"/events?object={id}").json())]


def charge_is_under_way(http: httpx.Client) -> str | None:
    for each in http.get("/subscriptions").json():
        if each["state"] in ("processing", "trial_processing"):
            return str(each["id"])
    return None


def test_a_slow_first_charge_of_a_canceled_subscription_is_refunded(
    new_database_url: Callable[[], str], master_key: MasterKey, server_folder: Path
) -> None:
    url = new_database_url()
    credentials = add_shop(url, master_key)
    with ServerProcess(url, server_folder, "--sandbox", environment=ENVIRONMENT) as process:
        shop = Shop(process.url, credentials.shop_id, credentials.secret_key, process)
        with shop.client() as http, ThreadPoolExecutor(1) as pool:
            creating = pool.submit(http.post, "/subscriptions", json=body(sandbox.SLOW))
            with shop.client() as merchant:
                id = eventually(lambda: charge_is_under_way(merchant), DEADLINE_SECONDS)
                assert merchant.delete(f"/subscriptions/{id}").json()["state"] == "canceled"
            answer = creating.result()
            assert (answer.status_code, answer.json()["state"]) == (201, "canceled")
            assert answer.json()["paid_billing_cycles"] == 0
            assert answer.json()["last_transaction"]["message"] == "Payment was not needed any more and was refunded"
            assert ledger(url, shop.shop_id) == [("successful", 999, True)]
            assert event_types(http, str(id)) == ["canceled", "refunded"]


def test_a_buyer_of_a_canceled_subscription_is_not_sent_to_the_bank(http: httpx.Client, shop: Shop) -> None:
    created = http.post("/subscriptions", json=body(sandbox.CHALLENGE)).json()
    canceled = http.delete(f"/subscriptions/{created['id']}").json()
    assert "redirect_url" not in canceled
    page = httpx.get(created["redirect_url"])
    assert "form_token" not in page.text
    assert ledger(shop.process.database, shop.shop_id) == [("incomplete", 999, False)]
    http.post("/sandbox/clock/advance", json={"step": "25h"})
    assert rows_of(shop.process.database, "SELECT status FROM payments WHERE shop_id = :id", id=shop.shop_id) == [("expired",)]


def test_3_d_secure_expires_before_a_worker_has_run(
    new_database_url: Callable[[], str], master_key: MasterKey, server_folder: Path
) -> None:
    url = new_database_url()
    credentials = add_shop(url, master_key)
    with ServerProcess(url, server_folder, "--sandbox", "--no-worker", environment=ENVIRONMENT) as process:
        shop = Shop(process.url, credentials.shop_id, credentials.secret_key, process)
        with shop.client() as http:
            http.post("/sandbox/clock/freeze")
            created = http.post("/subscriptions", json=body(sandbox.CHALLENGE)).json()
            step = httpx.get(created["redirect_url"]).text
            token = step.partition('name="form_token" value="')[2].partition('"')[0]
            assert token

            async def a_day_later(database: Database) -> None:
                clock = SandboxClock(database)
                await clock.refresh()
                await set_frozen_clock(clock, clock.now() + 24 * HOUR)

            with_database(url, a_day_later)
            httpx.post(created["redirect_url"], data={"form_token": token, "answer": "accept"})
            assert http.get(f"/subscriptions/{created['id']}").json()["state"] == "expired"
            assert ledger(url, shop.shop_id) == [("incomplete", 999, False)]


def test_an_expired_card_neither_renews_nor_starts_a_subscription(http: httpx.Client, shop: Shop) -> None:
    http.post("/sandbox/clock/freeze")
    http.post("/sandbox/clock/set", json={"to": "2027-05-15T10:00:00Z"})
    wanted = body(sandbox.SUCCESSFUL)
    wanted["card"] |= {"exp_month": 6, "exp_year": 2027}
    created = http.post("/subscriptions", json=wanted).json()
    assert created["state"] == "active"
    http.post("/sandbox/clock/advance", json={"step": "1mo"})
    assert http.get(f"/subscriptions/{created['id']}").json()["paid_billing_cycles"] == 2
    http.post("/sandbox/clock/advance", json={"step": "1mo"})
    read = http.get(f"/subscriptions/{created['id']}").json()
    assert (read["state"], read["paid_billing_cycles"]) == ("failed_attempt", 2)
    again = http.post("/subscriptions", json={**wanted, "card": {"token": created["card"]["token"]}}).json()
    assert again["state"] == "failed"


def test_a_first_charge_by_token_waits_for_the_morning(http: httpx.Client, shop: Shop) -> None:
    http.post("/sandbox/clock/freeze")
    http.post("/sandbox/clock/set", json={"to": "2027-05-15T10:00:00Z"})
    by_day = {**MONTHLY, "prevent_payments_at_night": True}
    token = http.post("/subscriptions", json=body(sandbox.SUCCESSFUL, by_day)).json()["card"]["token"]
    http.post("/sandbox/clock/set", json={"to": "2027-05-15T23:49:00Z"})
    created = http.post("/subscriptions", json={**body(sandbox.SUCCESSFUL, by_day), "card": {"token": token}}).json()
    assert (created["state"], created["last_transaction"], created["card"]["token"]) == ("pending", None, token)
    http.post("/sandbox/clock/advance", json={"step": "8h"})
    assert http.get(f"/subscriptions/{created['id']}").json()["state"] == "pending"
    http.post("/sandbox/clock/advance", json={"step": "11min"})
    read = http.get(f"/subscriptions/{created['id']}").json()
    assert (read["state"], read["active_to"]) == ("active", "2027-06-16T08:00:00.000Z")


def test_a_late_renewal_is_not_charged_at_night(http: httpx.Client, shop: Shop) -> None:
    http.post("/sandbox/clock/freeze")
    http.post("/sandbox/clock/set", json={"to": "2027-05-15T10:00:00Z"})
    created = http.post("/subscriptions", json=body(sandbox.SUCCESSFUL, {**MONTHLY, "prevent_payments_at_night": True})).json()
    jump(shop.process.database, 1_813_103_340_000)  # 2027-06-15T23:49:00Z, as after an outage
    eventually(
        lambda: due_at(shop.process.database, created["id"]) == 1_813_132_800_000, DEADLINE_SECONDS
    )  # 2027-06-16T08:00:00Z
    assert http.get(f"/subscriptions/{created['id']}").json()["paid_billing_cycles"] == 1
    http.post("/sandbox/clock/advance", json={"step": "9h"})
    assert http.get(f"/subscriptions/{created['id']}").json()["paid_billing_cycles"] == 2


def jump(url: str, moment: int) -> None:
    """Set the frozen clock; the workers process the due work."""
    with_database(url, lambda database: set_frozen_clock(SandboxClock(database), moment))


def due_at(url: str, id: str) -> int | None:
    [(moment,)] = rows_of(url, "SELECT due_at FROM subscriptions WHERE id = :id", id=id)
    return int(moment) if moment is not None else None


def test_a_slow_charge_with_a_short_lease_is_not_made_twice(
    new_database_url: Callable[[], str], master_key: MasterKey, tmp_path: Path
) -> None:
    """Two servers, a lease of one second, a charge of three seconds, and a clock moved during the charge."""
    url = new_database_url()
    credentials = add_shop(url, master_key)
    options = ("--sandbox", "--worker", "--lease-seconds", "1")
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
    with (
        ServerProcess(url, tmp_path / "first", *options, environment=ENVIRONMENT) as first,
        ServerProcess(url, tmp_path / "second", *options, environment=ENVIRONMENT) as second,
        ThreadPoolExecutor(4) as pool,
    ):
        one, two = (Shop(each.url, credentials.shop_id, credentials.secret_key, each) for each in (first, second))
        with one.client() as http, two.client() as other:
            creating = [pool.submit(http.post, "/subscriptions", json=body(sandbox.SLOW, HOURLY)) for _ in range(4)]
            eventually(lambda: charge_is_under_way(other), DEADLINE_SECONDS)
            for _ in range(3):
                assert other.post("/sandbox/clock/advance", json={"step": "1h"}).status_code == 200
            answers = [each.result() for each in creating]
            assert {answer.status_code for answer in answers} == {201}
            other.post("/sandbox/clock/advance", json={"step": "25h"})
            assert_records_agree(url, credentials.shop_id)


def assert_records_agree(url: str, shop_id: int) -> None:
    """Check that each successful charge is a payment that counts once for its period or was refunded."""
    sql = (
        "SELECT charge.status, charge.refunded_at, payments.status, payments.subscription_id, payments.period"
        " FROM sandbox_charges AS charge JOIN payments ON payments.shop_id = charge.shop_id AND payments.id = charge.id"
        " WHERE charge.shop_id = :shop_id"
    )
    found = rows_of(url, sql, shop_id=shop_id)
    [(charges,)] = rows_of(url, "SELECT COUNT(*) FROM sandbox_charges WHERE shop_id = :shop_id", shop_id=shop_id)
    assert len(found) == charges
    for charged, refunded_at, recorded, _, _ in found:
        if charged == "successful":
            assert recorded == ("successful" if refunded_at is None else "refunded")
        else:
            assert recorded != "successful"
    paid = Counter((id, period) for _, _, recorded, id, period in found if recorded == "successful")
    assert set(paid.values()) <= {1}
    cycles = dict(rows_of(url, "SELECT id, paid_billing_cycles FROM subscriptions WHERE shop_id = :shop_id", shop_id=shop_id))
    assert {id: count for id, count in cycles.items() if count} == dict(Counter(id for id, _ in paid))


def test_an_external_write_lock_during_a_charge_loses_no_charge(master_key: MasterKey, server_folder: Path) -> None:
    url = f"sqlite:///{server_folder}/locked.db"
    credentials = add_shop(url, master_key)
    with ServerProcess(url, server_folder, "--sandbox", environment=ENVIRONMENT) as process:
        shop = Shop(process.url, credentials.shop_id, credentials.secret_key, process)
        with shop.client() as http, shop.client() as other, ThreadPoolExecutor(1) as pool:
            headers = {"Idempotency-Key": "once"}
            creating = pool.submit(http.post, "/subscriptions", json=body(sandbox.SLOW), headers=headers)
            eventually(lambda: charge_is_under_way(other), DEADLINE_SECONDS)
            blocker = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
            blocker.execute("BEGIN IMMEDIATE")
            answer = creating.result()
            blocker.execute("ROLLBACK")
            blocker.close()
            assert (answer.status_code, answer.json()["state"]) == (201, "processing")
            repeated = other.post("/subscriptions", json=body(sandbox.SLOW), headers=headers)
            assert repeated.status_code == 409
            eventually(lambda: leases_are_over(url), DEADLINE_SECONDS)
            other.post("/sandbox/clock/advance", json={"step": "20min"})
            assert len(other.get("/subscriptions").json()) == 1
            assert_records_agree(url, credentials.shop_id)


def leases_are_over(url: str) -> bool:
    """Expire the leases, as two minutes of time would."""

    async def work(database: Database) -> None:
        async def unit(tx: Transaction) -> None:
            await tx.run("UPDATE subscriptions SET leased_until = 0", {})

        await database.write(unit)

    with_database(url, work)
    return True


def test_no_charge_is_answered_with_503_during_postgresql_restarts(
    own_postgres: PostgresServer, master_key: MasterKey, server_folder: Path
) -> None:
    """Six immediate restarts under load: a request answered with 503 was neither written nor charged."""
    url = own_postgres.create_database("restarts")
    credentials = add_shop(url, master_key)
    answers: dict[str, int] = {}
    with (
        ServerProcess(url, server_folder, "--sandbox", "--worker", environment=ENVIRONMENT) as process,
        ThreadPoolExecutor(8) as pool,
    ):
        shop = Shop(process.url, credentials.shop_id, credentials.secret_key, process)
        running = True

        def subscribe(number: int) -> None:
            with shop.client() as http:
                count = 0
                while running:
                    count += 1
                    tracking_id = f"{number}-{count}"
                    answer = http.post("/subscriptions", json=body(sandbox.SUCCESSFUL, tracking_id=tracking_id))
                    answers[tracking_id] = answer.status_code

        clients: list[Future[None]] = [pool.submit(subscribe, number) for number in range(8)]
        for _ in range(6):
            before = len(answers)
            eventually(lambda before=before: len(answers) > before + 20, DEADLINE_SECONDS)  # type: ignore[misc]
            own_postgres.stop(signal.SIGQUIT)
            own_postgres.start()
        running = False
        for client in clients:
            client.result()
        eventually(lambda: leases_are_over(url), DEADLINE_SECONDS)
        with shop.client() as http:
            assert http.post("/sandbox/clock/advance", json={"step": "20min"}, timeout=120).status_code == 200
    written = dict(
        rows_of(url, "SELECT tracking_id, state FROM subscriptions WHERE shop_id = :shop_id", shop_id=credentials.shop_id)
    )
    assert Counter(answers.values())[503] > 0
    assert [id for id, status in answers.items() if status == 503 and id in written] == []
    assert [id for id, status in answers.items() if status == 201 and id not in written] == []
    assert set(answers.values()) <= {201, 503, 504}
    assert_records_agree(url, credentials.shop_id)


HOUR = 60 * 60 * 1000
