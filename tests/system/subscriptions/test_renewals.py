"""Subscriptions from the first charge to the end, over HTTP, on a sandbox whose clock is moved."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ecomcharge.gateways import sandbox
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database
from support.builders import a_card, a_plan, a_price
from support.postgres import PostgresServer
from support.process import ServerProcess
from support.raw_files import contents, files_below
from support.shops import ENVIRONMENT, Shop, add_shop, with_database
from support.waiting import eventually

NUMBER_OF = {behaviour: number for number, behaviour in sandbox.TEST_CARDS.items()}
CODE = "739"
HOURLY = a_price(500, unit="hour")
MONTHLY = a_price(999)


@pytest.fixture(scope="session")
def sandbox_process(new_database_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One running sandbox per session and engine; its time zone is not UTC."""
    options = ("--sandbox", "--worker", "--time-zone", "Europe/Warsaw", "--failed-logins-per-minute", "0")
    with ServerProcess(new_database_url(), tmp_path_factory.mktemp("sandbox"), *options, environment=ENVIRONMENT) as process:
        yield process


class Merchant:
    """A shop on a sandbox, and the requests of the tests."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.http = shop.client()

    def at(self, moment: str) -> None:
        """Freeze the clock at a time."""
        self._ask("freeze", {})
        self._ask("set", {"to": moment})

    def advance(self, step: str) -> str:
        return str(self._ask("advance", {"step": step})["now"])

    def _ask(self, what: str, body: dict[str, str]) -> dict[str, Any]:
        answer = self.http.post(f"/sandbox/clock/{what}", json=body)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def subscribe(self, behaviour: str | None = sandbox.SUCCESSFUL, *, price: dict[str, Any] = MONTHLY, **plan: Any) -> str:
        """Create a subscription; without a behaviour it has no card yet. Returns its id."""
        wanted: dict[str, Any] = {"plan": {"title": "Merchant", "currency": "EUR", "plan": price, **plan}}
        if behaviour is not None:
            number = NUMBER_OF[behaviour]
            card = a_card(number, verification_value=CODE, holder="Jane")
            wanted |= {"card": card, "customer": {"email": "jane@shop.test"}}
        answer = self.http.post("/subscriptions", json=wanted)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def now(self, id: str) -> dict[str, Any]:
        return dict(self.http.get(f"/subscriptions/{id}").json())

    def state(self, id: str) -> tuple[str, int, int]:
        subscription = self.now(id)
        return subscription["state"], subscription["paid_billing_cycles"], subscription["number_failed_payment_attempts"]

    def after_creation(self, id: str) -> list[tuple[str, str]]:
        """Events without the creation, because it may be older than the retention of thirty days."""
        return [event for event in self.events(id) if event[1] != "created"]

    def events(self, id: str) -> list[tuple[str, str]]:
        """Time and type of each event, oldest first."""
        found = self.http.get(f"/events?object={id}&limit=1000").json()
        return [(event["created_at"][:16], event["type"].partition(".")[0]) for event in reversed(found)]


@pytest.fixture
def merchant(sandbox_process: ServerProcess, master_key: MasterKey) -> Iterator[Merchant]:
    credentials = add_shop(sandbox_process.database, master_key)
    merchant = Merchant(Shop(sandbox_process.url, credentials.shop_id, credentials.secret_key, sandbox_process))
    yield merchant
    for each in merchant.http.get("/subscriptions").json():  # so that it is not renewed during another test
        merchant.http.delete(f"/subscriptions/{each['id']}")
    merchant.http.close()


def test_renewals_keep_the_end_of_the_month_and_the_local_time(merchant: Merchant) -> None:
    merchant.at("2026-01-31T10:00:00Z")  # 11:00 in Warsaw
    id = merchant.subscribe()
    assert merchant.now(id)["renew_at"] == "2026-02-28T10:00:00.000Z"
    assert merchant.advance("28d") == "2026-02-28T10:00:00.000Z"
    assert (merchant.events(id)[-1], merchant.now(id)["renew_at"]) == (
        ("2026-02-28T10:00", "renewed"),
        "2026-03-31T09:00:00.000Z",
    )
    assert merchant.advance("31d") == "2026-03-31T09:00:00.000Z"  # summer time began on the 29th
    assert (merchant.events(id)[-1], merchant.now(id)["renew_at"]) == (
        ("2026-03-31T09:00", "renewed"),
        "2026-04-30T09:00:00.000Z",
    )
    merchant.advance("3y")
    assert (merchant.state(id), merchant.now(id)["renew_at"]) == (("active", 39, 0), "2029-04-30T09:00:00.000Z")


def test_a_trial_of_a_month_keeps_the_end_of_the_month(merchant: Merchant) -> None:
    merchant.at("2027-01-31T12:00:00Z")
    id = merchant.subscribe(trial=a_price(0))
    assert (merchant.state(id), merchant.now(id)["renew_at"]) == (("trial", 1, 0), "2027-02-28T12:00:00.000Z")
    merchant.advance("1mo")
    assert (merchant.state(id), merchant.now(id)["renew_at"]) == (("active", 2, 0), "2027-03-31T11:00:00.000Z")
    merchant.advance("31d")
    assert (merchant.state(id), merchant.now(id)["renew_at"]) == (("active", 3, 0), "2027-04-30T11:00:00.000Z")


def test_a_day_lasts_23_to_25_hours_at_a_clock_change(merchant: Merchant) -> None:
    merchant.at("2026-10-24T00:30:00Z")  # 02:30 in Warsaw; on the 25th clocks go from 03:00 back to 02:00
    daily, hourly = (
        merchant.subscribe(price={**MONTHLY, "interval_unit": "day"}),
        merchant.subscribe(price={**HOURLY, "interval": 24}),
    )
    assert merchant.now(daily)["renew_at"] == merchant.now(hourly)["renew_at"] == "2026-10-25T00:30:00.000Z"  # the first 02:30
    assert merchant.advance("1d") == "2026-10-25T00:30:00.000Z"
    assert merchant.now(daily)["renew_at"] == "2026-10-26T01:30:00.000Z"
    assert merchant.now(hourly)["renew_at"] == "2026-10-26T00:30:00.000Z"
    assert merchant.advance("24h") == "2026-10-26T00:30:00.000Z"
    assert (merchant.state(daily), merchant.state(hourly)) == (("active", 2, 0), ("active", 3, 0))
    merchant.advance("1h")
    assert (merchant.state(daily), merchant.now(daily)["renew_at"]) == (("active", 3, 0), "2026-10-27T01:30:00.000Z")


def test_a_row_of_the_previous_release_keeps_its_next_date(merchant: Merchant) -> None:
    merchant.at("2027-03-01T00:30:00+01:00")
    id = merchant.subscribe()
    assert merchant.now(id)["renew_at"] == "2027-03-31T22:30:00.000Z"

    async def as_previous_release(database: Database) -> None:
        """That release counted months in UTC and did not write the new columns."""
        sql = """
        UPDATE subscriptions SET renew_at = :then, active_to = :then, due_at = :then,
            billing_cycle_anchor = NULL, anchor_period = NULL, anchor_day = NULL
        WHERE shop_id = :shop_id AND id = :id
        """

        async def unit(tx: Any) -> None:
            await tx.run(sql, {"then": 1_806_276_600_000, "shop_id": merchant.shop.shop_id, "id": id})

        await database.write(unit)

    with_database(merchant.shop.process.database, as_previous_release)
    assert merchant.now(id)["renew_at"] == "2027-03-28T23:30:00.000Z"
    merchant.advance("28d")
    assert (merchant.state(id), merchant.now(id)["renew_at"]) == (("active", 1, 0), "2027-03-28T23:30:00.000Z")
    merchant.advance("1h")
    assert (merchant.state(id), merchant.now(id)["renew_at"]) == (("active", 2, 0), "2027-04-28T23:30:00.000Z")
    merchant.advance("1mo")
    assert (merchant.state(id), merchant.now(id)["renew_at"]) == (("active", 3, 0), "2027-05-28T23:30:00.000Z")


def test_a_trial_becomes_active_with_its_first_renewal(merchant: Merchant) -> None:
    merchant.at("2026-05-01T10:00:00Z")
    id = merchant.subscribe(trial=a_price(0, interval=7, unit="day"))
    assert merchant.state(id) == ("trial", 1, 0)
    assert merchant.now(id)["renew_at"] == merchant.now(id)["active_to"] == "2026-05-08T10:00:00.000Z"
    merchant.advance("7d")
    assert (merchant.state(id), merchant.now(id)["renew_at"]) == (("active", 2, 0), "2026-06-08T10:00:00.000Z")


def test_the_charge_after_a_trial_is_retried_only_if_the_trial_is_a_first_payment(merchant: Merchant) -> None:
    merchant.at("2026-05-01T10:00:00Z")
    trial = a_price(unit="day")
    alone = merchant.subscribe(sandbox.RENEWALS_FAIL, trial=trial)
    first = merchant.subscribe(sandbox.RENEWALS_FAIL, trial={**trial, "as_first_payment": True})
    merchant.advance("1d")
    assert (merchant.state(alone), merchant.state(first)) == (("failed", 1, 1), ("failed_attempt", 1, 1))


def test_a_declined_renewal_is_retried_twice_at_three_and_then_fails(merchant: Merchant) -> None:
    merchant.at("2026-03-27T10:00:00Z")  # clocks go forward in Warsaw on the 29th
    id = merchant.subscribe(sandbox.RENEWALS_FAIL, price={**HOURLY, "interval": 4})
    merchant.advance("4h")
    assert (merchant.state(id), merchant.after_creation(id)) == (("failed_attempt", 1, 1), [])
    assert merchant.now(id)["last_transaction"]["message"] == "Payment was declined"
    merchant.advance("11h")  # 01:00 UTC is 02:00 in Warsaw
    assert merchant.state(id) == ("failed_attempt", 1, 1)
    merchant.advance("1h")
    assert merchant.state(id) == ("failed_attempt", 1, 2)
    merchant.advance("22h")  # 00:00 UTC is 01:00 in Warsaw, an hour before the hour that is skipped that night
    assert merchant.state(id) == ("failed_attempt", 1, 2)
    merchant.advance("1h")
    assert merchant.state(id) == ("failed", 1, 3)
    assert merchant.events(id) == [("2026-03-27T10:00", "created"), ("2026-03-29T01:00", "failed")]
    subscription = merchant.now(id)
    assert (subscription["renew_at"], subscription["active_to"]) == (None, "2026-03-27T14:00:00.000Z")


def test_a_retry_that_succeeds_keeps_the_anchor(merchant: Merchant) -> None:
    merchant.at("2026-05-01T10:00:00Z")
    id = merchant.subscribe(sandbox.RENEWAL_FAILS_ONCE)
    merchant.advance("31d")
    assert merchant.state(id) == ("failed_attempt", 1, 1)
    merchant.advance("1d")
    assert merchant.after_creation(id) == [("2026-06-02T01:00", "renewed")]  # 03:00 in Warsaw
    assert (merchant.state(id), merchant.now(id)["renew_at"]) == (("active", 2, 0), "2026-07-01T10:00:00.000Z")


def test_a_header_has_the_next_attempt_and_renew_at_has_the_missed_date(merchant: Merchant) -> None:
    merchant.at("2026-06-10T09:30:00Z")
    daily = a_price(500, unit="day")
    declined = merchant.subscribe(sandbox.RENEWALS_FAIL, price=daily)
    erring = merchant.subscribe(sandbox.RENEWALS_ERR, price=daily)
    active = merchant.subscribe(price=daily)

    def status_of(id: str) -> tuple[str, str, str | None]:
        answer = merchant.http.get(f"/subscriptions/{id}")
        return answer.json()["state"], answer.json()["renew_at"], answer.headers.get("x-next-attempt-at")

    merchant.advance("1d")
    assert status_of(declined) == ("failed_attempt", "2026-06-11T09:30:00.000Z", "2026-06-12T01:00:00.000Z")  # 03:00 in Warsaw
    assert status_of(erring) == ("rescuing", "2026-06-11T09:30:00.000Z", "2026-06-11T10:00:00.000Z")
    assert status_of(active) == ("active", "2026-06-12T09:30:00.000Z", None)
    merchant.advance("30min")
    assert status_of(erring) == ("rescuing", "2026-06-11T09:30:00.000Z", "2026-06-11T11:00:00.000Z")
    canceled = merchant.http.post(f"/subscriptions/{declined}/cancel", json={"cancel_reason": "enough"})
    assert (canceled.json()["state"], canceled.headers.get("x-next-attempt-at")) == ("canceled", None)
    assert status_of(declined)[2] is None


def test_an_error_is_retried_at_the_next_full_hour(merchant: Merchant) -> None:
    merchant.at("2026-05-01T10:20:00Z")
    id = merchant.subscribe(sandbox.RENEWAL_ERRS_ONCE)
    merchant.advance("31d")
    assert merchant.state(id) == ("rescuing", 1, 1)
    assert merchant.now(id)["last_transaction"]["status"] == "error"
    merchant.advance("1h")
    assert (merchant.state(id), merchant.after_creation(id)) == (("active", 2, 0), [("2026-06-01T11:00", "renewed")])


def test_hourly_errors_use_up_the_attempts(merchant: Merchant) -> None:
    merchant.at("2026-05-01T10:20:00Z")
    id = merchant.subscribe(sandbox.RENEWALS_ERR, number_payment_attempts=4)
    merchant.advance("31d")
    seen = [merchant.state(id)]
    for _ in range(3):
        merchant.advance("1h")
        seen.append(merchant.state(id))
    assert seen == [("rescuing", 1, 1), ("rescuing", 1, 2), ("rescuing", 1, 3), ("error", 1, 4)]
    assert merchant.after_creation(id) == [("2026-06-01T13:00", "failed")]


def test_a_plan_charged_by_day_is_not_charged_at_night(merchant: Merchant) -> None:
    merchant.at("2026-05-01T20:30:00Z")  # 22:30 in Warsaw; the buyer makes the first charge at any time
    daily = a_price(1, unit="day")
    kept = merchant.subscribe(price=daily, prevent_payments_at_night=True)
    erring = merchant.subscribe(sandbox.RENEWAL_ERRS_ONCE, price=daily, prevent_payments_at_night=True)
    declined = merchant.subscribe(sandbox.RENEWAL_FAILS_ONCE, price=daily, prevent_payments_at_night=True)
    assert merchant.state(kept) == ("active", 1, 0)
    merchant.advance("58h")
    assert merchant.after_creation(kept) == [("2026-05-03T06:00", "renewed"), ("2026-05-04T06:00", "renewed")]  # 08:00 in Warsaw
    assert merchant.after_creation(erring)[0] == ("2026-05-03T07:00", "renewed")
    assert merchant.after_creation(declined)[0] == ("2026-05-04T06:00", "renewed")


def test_a_finite_plan_ends_with_its_last_cycle(merchant: Merchant) -> None:
    merchant.at("2026-05-01T10:00:00Z")
    id = merchant.subscribe(infinite=False, billing_cycles=2)
    merchant.advance("60d")
    assert merchant.state(id) == ("active", 2, 0)
    merchant.advance("1d")
    subscription = merchant.now(id)
    assert (subscription["state"], subscription["cancelled_at"]) == ("canceled", "2026-07-01T10:00:00.000Z")
    assert (subscription["renew_at"], subscription["active_to"]) == (None, "2026-07-01T10:00:00.000Z")
    assert [what for _, what in merchant.after_creation(id)] == ["renewed", "canceled"]


def test_a_trial_that_is_canceled_is_never_charged(merchant: Merchant) -> None:
    merchant.at("2026-05-01T10:00:00Z")
    id = merchant.subscribe(trial=a_price(0, interval=7, unit="day"))
    merchant.http.post(f"/subscriptions/{id}/cancel", json={"cancel_reason": "no"})
    merchant.advance("60d")
    assert "renewed" not in [what for _, what in merchant.events(id)]
    assert merchant.state(id) == ("canceled", 1, 0)


def test_an_unused_payment_page_expires_after_a_day(merchant: Merchant) -> None:
    merchant.at("2026-05-01T10:00:00Z")
    id, page = merchant.subscribe(None), ""
    page = merchant.now(id)["redirect_url"]
    merchant.advance("23h")
    assert merchant.state(id)[0] == "redirecting"
    merchant.advance("1h")
    subscription = merchant.now(id)
    assert (subscription["state"], subscription["renew_at"]) == ("expired", None)
    assert "redirect_url" not in subscription
    assert [what for _, what in merchant.events(id)] == ["expired"]
    assert httpx.post(page, data={"number": NUMBER_OF[sandbox.SUCCESSFUL]}).status_code == 303
    assert merchant.state(id) == ("expired", 0, 0)


def test_an_unfinished_3d_secure_step_expires(merchant: Merchant) -> None:
    merchant.at("2026-05-01T10:00:00Z")
    id = merchant.subscribe(sandbox.CHALLENGE)
    step = merchant.now(id)["redirect_url"]
    assert merchant.state(id) == ("redirecting", 0, 0)
    merchant.advance("1d")
    assert merchant.state(id) == ("expired", 0, 0)
    token = re.findall(r"form_token", httpx.get(step, follow_redirects=True).text)
    assert token == []


def test_a_successful_charge_that_timed_out_is_found_and_counted_once(merchant: Merchant) -> None:
    merchant.at("2026-05-01T10:00:00Z")
    id = merchant.subscribe(sandbox.TIMEOUT_CHARGED)
    assert merchant.state(id) == ("getting_status", 0, 0)
    merchant.advance("2min")
    assert (merchant.state(id), [what for _, what in merchant.events(id)]) == (("active", 1, 0), ["created"])


def test_a_charge_that_never_arrived_is_abandoned_after_15_minutes(merchant: Merchant) -> None:
    merchant.at("2026-05-01T10:00:00Z")
    id = merchant.subscribe(sandbox.TIMEOUT_ABSENT, trial=a_price(1, unit="day"))
    assert merchant.state(id) == ("trial_get_status", 0, 0)
    merchant.advance("14min")
    assert merchant.state(id) == ("trial_get_status", 0, 0)
    merchant.advance("2min")
    assert merchant.state(id) == ("failed", 0, 0)


def test_a_successful_renewal_that_timed_out_is_not_charged_again(merchant: Merchant) -> None:
    merchant.at("2026-05-01T10:00:00Z")
    id = merchant.subscribe(sandbox.RENEWAL_TIMEOUT)
    merchant.advance("31d")
    assert merchant.state(id) == ("getting_status", 1, 0)
    merchant.advance("2min")
    assert (merchant.state(id), merchant.now(id)["renew_at"]) == (("active", 2, 0), "2026-07-01T10:00:00.000Z")
    assert gateway_charges_of(merchant) == [("successful", 999), ("successful", 999)]


def gateway_charges_of(merchant: Merchant) -> list[tuple[str, int]]:
    """The charges of the shop recorded by the sandbox gateway."""

    async def work(database: Database) -> list[tuple[str, int]]:
        sql = "SELECT status, amount FROM sandbox_charges WHERE shop_id = :shop_id ORDER BY created_at"
        return [(row[0], row[1]) for row in await database.rows(sql, {"shop_id": merchant.shop.shop_id})]

    return with_database(merchant.shop.process.database, work)


def test_a_first_charge_that_ends_in_error_fails_the_subscription(merchant: Merchant) -> None:
    id = merchant.subscribe(sandbox.ERROR)
    assert (merchant.state(id), merchant.now(id)["renew_at"]) == (("failed", 0, 0), None)


def test_an_unknown_card_is_declined(merchant: Merchant) -> None:
    card = a_card("4111111111111111", exp_month=1)
    plan = a_plan(title="x", plan=MONTHLY)
    answer = merchant.http.post("/subscriptions", json={"plan": plan, "customer": {"email": "j@shop.test"}, "card": card})
    assert answer.json()["state"] == "failed"


def test_the_clock_is_read_frozen_set_and_resumed(merchant: Merchant) -> None:
    merchant.at("2026-05-01T10:00:00Z")
    assert merchant.http.get("/sandbox/clock").json() == {"now": "2026-05-01T10:00:00.000Z", "frozen": True}
    assert merchant.advance("1mo") == "2026-06-01T10:00:00.000Z"
    resumed = merchant.http.post("/sandbox/clock/resume").json()
    assert resumed["frozen"] is False
    assert abs(time.time() - time.mktime(time.strptime(resumed["now"][:19], "%Y-%m-%dT%H:%M:%S")) + time.timezone) < 30
    for body in (
        {"step": "1 fortnight"},
        {"step": "99999d"},
        {"step": "999999w"},
        {"step": "999999y"},
        {"step": "121mo"},
        {},
        {"step": -1},
    ):
        assert merchant.http.post("/sandbox/clock/advance", json=body).status_code == 400
    for body in ({"to": "tomorrow"}, {"to": "1969-01-01T00:00:00Z"}, {"to": "2110-01-01"}):
        assert merchant.http.post("/sandbox/clock/set", json=body).status_code == 400


def test_a_late_worker_charges_once_and_logs_the_skipped_periods(merchant: Merchant) -> None:
    merchant.at("2026-05-01T10:00:00Z")
    id = merchant.subscribe(price=HOURLY)

    async def jump(database: Database) -> None:
        """Move the clock as if no worker had run for three days."""

        async def unit(tx: Any) -> None:
            await tx.run("UPDATE sandbox_clock SET frozen_at = :now WHERE name = 'clock'", {"now": 1_777_888_800_000})

        await database.write(unit)

    with_database(merchant.shop.process.database, jump)  # 2026-05-04T10:00:00Z
    eventually(lambda: merchant.state(id) == ("active", 2, 0))
    assert (merchant.state(id), merchant.now(id)["renew_at"]) == (("active", 2, 0), "2026-05-04T11:00:00.000Z")
    [log_line] = [line for line in merchant.shop.process.log().splitlines() if id in line]
    assert '"periods":71' in log_line


def test_no_card_number_or_code_is_stored_or_logged(
    merchant: Merchant, engine: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Search the raw bytes of the database files and of the log after a charge of every kind of card."""
    for behaviour in NUMBER_OF:
        merchant.subscribe(behaviour if behaviour != sandbox.SLOW else sandbox.SUCCESSFUL)
    plan = a_plan(title="x", plan=MONTHLY)
    invalid_card: dict[str, Any] = a_card("4111119876543210", verification_value=CODE, exp_month=13)
    for headers in ({}, {"RequestID": "with-a-card"}):
        body = {"plan": plan, "customer": {"email": "j@shop.test"}, "card": invalid_card}
        refused = merchant.http.post("/subscriptions", json=body, headers=headers)
        assert refused.status_code == 422
        assert invalid_card["number"] not in refused.text
        good = {**body, "card": {**invalid_card, "exp_month": 12}}
        assert merchant.http.post("/subscriptions", json=good, headers=headers).status_code == 201
    process = merchant.shop.process
    files = [process.log_file]
    if engine == "sqlite":
        path = Path(process.database.removeprefix("sqlite:///"))
        files += list(path.parent.glob(f"{path.name}*"))
        assert sqlite3.connect(path).execute("SELECT COUNT(*) FROM cards").fetchone()[0] > 5
    else:
        postgres: PostgresServer = request.getfixturevalue("postgres")
        postgres.client("psql", "postgres", "-c", "CHECKPOINT")
        files += files_below(postgres.data)
    wanted = [*NUMBER_OF.values(), str(invalid_card["number"])]
    secrets = [number.encode() for number in wanted] + [f'"{CODE}"'.encode(), f"verification_value={CODE}".encode()]
    for file, content in contents(files):
        assert [secret for secret in secrets if secret in content] == [], file
