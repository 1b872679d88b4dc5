"""Whole lives of subscriptions that a real gateway charges, through a running server, with a moved clock.

After every story the books of the gateway and ours agree to the cent, and no card number, security code or key of the
gateway is found in the database, the log or an error.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from ecomcharge.base.errors import ConfigurationError
from ecomcharge.payments.store import COLUMNS
from ecomcharge.shops.actions import set_gateway
from ecomcharge.shops.keys import MasterKey, load_master_key
from ecomcharge.storage.database import Database, Row, Transaction
from support import begateway as stand_in
from support.begateway import Account, GatewayServer, nobody_listens
from support.commands import ecomcharge
from support.process import ServerProcess
from support.shops import ENVIRONMENT, add_shop, with_database

NUMBER = "4200000000000000"
CODE = "7391"
A_PERIOD = "43201min"  # thirty days and a minute
CARD = {"number": NUMBER, "verification_value": CODE, "holder": "John Doe", "exp_month": "01", "exp_year": "2060"}
PLAN: dict[str, Any] = {
    "title": "Thirty days",
    "currency": "EUR",
    "test": False,
    "plan": {"amount": 999, "interval": 30, "interval_unit": "day"},
}
TEXTS = (
    *("cards.card", "customers.first_name", "events.data", "idempotency_keys.body", "payments.message", "webhooks.body"),
    *("payments.redirect_url", "subscriptions.card", "subscriptions.last_transaction", "subscriptions.options"),
)


@dataclass
class Story:
    """One shop with an account at the stand-in."""

    http: httpx.Client
    shop_id: int
    account: Account
    server: ServerProcess
    errors: list[str] = field(default_factory=list)
    other_accounts: list[Account] = field(default_factory=list)  # to which the shop moved later

    def subscribe(self, number: str | None = NUMBER, expect: int = 201, **changes: Any) -> dict[str, Any]:
        body: dict[str, Any] = {"plan": PLAN, "customer": {"email": "john@example.com", "ip": "127.0.0.1"}, **changes}
        if number is not None:
            body["card"] = {**CARD, "number": number}
        response = self.http.post("/subscriptions", json=body)
        assert response.status_code == expect, response.text
        return dict(response.json())

    def choose(self, account: Account | None, url: str = "") -> None:
        """Charge new subscriptions at this account, or in the sandbox."""
        known = {"gateway": "sandbox"} if account is None else at_stand_in(account, url)
        if account is not None and account is not self.account and account not in self.other_accounts:
            self.other_accounts.append(account)
        master_key = load_master_key(ENVIRONMENT["ECOMCHARGE_MASTER_KEY"], None, database_file=None)
        with_database(self.server.database, lambda database: set_gateway(database, master_key, 0, shop_id=self.shop_id, **known))

    def read(self, subscription: dict[str, Any]) -> dict[str, Any]:
        return dict(self.http.get(f"/subscriptions/{subscription['id']}").json())

    def advance(self, step: str) -> None:
        response = self.http.post("/sandbox/clock/advance", json={"step": step}, timeout=30)
        assert response.status_code == 200, response.text

    def begin_in_the_morning(self) -> None:
        """At five past ten of the next day, so that nothing of what follows meets a full hour or a night by chance."""
        now = datetime.fromisoformat(self.http.get("/sandbox/clock").json()["now"])
        morning = (now + timedelta(days=1)).replace(hour=10, minute=5, second=0)
        assert self.http.post("/sandbox/clock/set", json={"to": morning.isoformat()}).status_code == 200

    def cancel_everything(self) -> None:
        for subscription in self.http.get("/subscriptions").json():
            self.http.delete(f"/subscriptions/{subscription['id']}")

    def payments(self) -> list[dict[str, Any]]:
        names = COLUMNS.split(", ")

        async def read(database: Database) -> list[Row]:
            sql = f"SELECT {COLUMNS} FROM payments WHERE shop_id = :shop_id ORDER BY created_at, id"
            return list(await database.rows(sql, {"shop_id": self.shop_id}))

        return [dict(zip(names, row, strict=True)) for row in with_database(self.server.database, read)]

    def payments_of(self, subscription: dict[str, Any]) -> list[dict[str, Any]]:
        return [payment for payment in self.payments() if payment["subscription_id"] == subscription["id"]]

    def statuses(self) -> list[tuple[int, str]]:
        return [(payment["period"], payment["status"]) for payment in self.payments()]


@pytest.fixture(scope="module")
def gateway_server() -> Iterator[GatewayServer]:
    with GatewayServer() as server:
        yield server


@pytest.fixture(scope="module")
def gateway_process(new_database_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with a clock that can be moved, a worker beside it, and little patience with gateways."""
    options = ("--sandbox", "--gateway-timeout-seconds", "1", "--failed-logins-per-minute", "0")
    with ServerProcess(new_database_url(), tmp_path_factory.mktemp("server"), *options, environment=ENVIRONMENT) as process:
        yield process


@pytest.mark.parametrize(
    "url", ["gateway.example.com", "https://", "https://a b", "https://x:99999", "https://x/?y=1", "ftp://x"]
)
def test_an_address_that_no_gateway_can_have_is_refused(url: str, database_url: str, master_key: MasterKey) -> None:
    credentials = add_shop(database_url, master_key)

    async def set_up(database: Database) -> None:
        await set_gateway(
            database, master_key, 0, shop_id=credentials.shop_id, gateway="begateway", url=url, user="1", secret_key="x"
        )

    with pytest.raises(ConfigurationError, match="--url must be"):
        with_database(database_url, set_up)


def at_stand_in(account: Account, url: str) -> dict[str, str]:
    return {"gateway": "begateway", "url": url, "user": account.user, "secret_key": account.secret_key}


def with_gateway(process: ServerProcess, master_key: MasterKey, account: Account, url: str) -> tuple[int, str]:
    credentials = add_shop(process.database, master_key)

    async def set_up(database: Database) -> None:
        await set_gateway(database, master_key, 0, shop_id=credentials.shop_id, **at_stand_in(account, url))

    with_database(process.database, set_up)
    return credentials.shop_id, credentials.secret_key


@pytest.fixture
def story(gateway_process: ServerProcess, gateway_server: GatewayServer, master_key: MasterKey) -> Iterator[Story]:
    account = gateway_server.account()
    shop_id, secret_key = with_gateway(gateway_process, master_key, account, gateway_server.url)
    errors: list[str] = []

    def keep(response: httpx.Response) -> None:
        errors.append(response.read().decode())

    options: dict[str, Any] = {"auth": (str(shop_id), secret_key), "event_hooks": {"response": [keep]}, "timeout": 60}
    with httpx.Client(base_url=gateway_process.url, **options) as http:
        story = Story(http, shop_id, account, gateway_process, errors)
        story.begin_in_the_morning()
        yield story
        story.cancel_everything()
        assert_the_books_agree(story)
        assert_no_secret_is_kept(story)


def assert_the_books_agree(story: Story) -> None:
    ours = [
        (payment["id"], payment["amount"], payment["currency"])
        for payment in story.payments()
        if payment["status"] == "successful" and payment["gateway"] == "begateway" and payment["amount"]
    ]
    accounts = (story.account, *story.other_accounts)
    refunded = {order for account in accounts for order, _ in account.refunded}
    taken = [charge for account in accounts for charge in account.taken if charge[0] not in refunded]
    assert sorted(taken) == sorted(ours)
    assert refunded == {payment["id"] for payment in story.payments() if payment["status"] == "refunded"}
    periods = [
        (payment["subscription_id"], payment["period"]) for payment in story.payments() if payment["status"] == "successful"
    ]
    assert len(periods) == len(set(periods))


def assert_no_secret_is_kept(story: Story) -> None:
    keys = [account.secret_key for account in (story.account, *story.other_accounts)]
    secrets = (NUMBER, f'"{CODE}"', "verification_value", *keys)
    kept = "".join(story.errors) + story.server.log() + texts_of(story.server.database)
    assert not [secret for secret in secrets if secret in kept]
    if story.server.database.startswith("sqlite:///"):
        file = Path(story.server.database.removeprefix("sqlite:///"))
        for part in file.parent.glob(f"{file.name}*"):
            raw = part.read_bytes()
            assert not [secret for secret in secrets if secret.encode() in raw], part


def end_leases(database_url: str) -> None:
    """As the two minutes do that they last."""

    async def end(database: Database) -> None:
        async def unit(tx: Transaction) -> None:
            await tx.run("UPDATE subscriptions SET leased_until = 0", {})

        await database.write(unit)

    with_database(database_url, end)


def texts_of(database_url: str) -> str:
    async def read(database: Database) -> str:
        found = []
        for text in TEXTS:
            table, _, column = text.partition(".")
            found += [str(row[0]) for row in await database.rows(f"SELECT {column} FROM {table}", {})]
        return "\n".join(found)

    return with_database(database_url, read)


def test_a_card_is_charged_and_renewed_by_its_token(story: Story) -> None:
    subscription = story.subscribe()
    assert (subscription["state"], subscription["paid_billing_cycles"]) == ("active", 1)
    assert subscription["last_transaction"]["uid"] == story.account.transactions[0].uid
    assert (subscription["card"]["last_4"], subscription["card"]["bin"]) == ("0000", "420000")
    for _ in range(3):
        story.advance(A_PERIOD)
    read = story.read(subscription)
    assert (read["state"], read["paid_billing_cycles"]) == ("active", 4)
    assert story.statuses() == [(0, "successful"), (1, "successful"), (2, "successful"), (3, "successful")]
    cards = [seen.body["request"]["credit_card"] for seen in story.account.charges]
    assert all("token" in card for card in cards[1:])


def test_a_free_trial_verifies_the_card_and_the_first_renewal_pays(story: Story) -> None:
    trial = {"amount": 0, "interval": 7, "interval_unit": "day"}
    subscription = story.subscribe(plan={**PLAN, "trial": trial})
    assert subscription["state"] == "trial"
    assert story.account.taken == []
    story.advance("8d")
    assert story.read(subscription)["state"] == "active"
    assert [amount for _, amount, _ in story.account.taken] == [999]


def test_a_declined_card_fails(story: Story) -> None:
    subscription = story.subscribe(stand_in.DECLINED[0])
    assert (subscription["state"], subscription["last_transaction"]["message"]) == ("failed", "Payment was declined")
    assert story.account.taken == []


def test_a_declined_renewal_is_tried_again_and_succeeds(story: Story) -> None:
    subscription = story.subscribe()
    story.account.declines = True
    story.advance(A_PERIOD)
    read = story.read(subscription)
    assert (read["state"], read["number_failed_payment_attempts"]) == ("failed_attempt", 1)
    story.account.declines = False
    story.advance("2d")
    assert story.read(subscription)["state"] == "active"
    assert story.statuses() == [(0, "successful"), (1, "failed"), (1, "successful")]


def test_a_renewal_that_asks_for_3_d_secure_counts_as_declined_and_is_tried_again(story: Story) -> None:
    subscription = story.subscribe()
    story.account.challenges = True
    story.advance(A_PERIOD)
    read = story.read(subscription)
    assert (read["state"], read["number_failed_payment_attempts"]) == ("failed_attempt", 1)
    assert "redirect_url" not in read["last_transaction"]
    story.account.challenges = False
    story.advance("2d")
    read = story.read(subscription)
    assert (read["state"], read["paid_billing_cycles"]) == ("active", 2)
    assert story.statuses() == [(0, "successful"), (1, "failed"), (1, "successful")]


@pytest.mark.parametrize(("answer", "state"), [("accept", "active"), ("refuse", "failed")])
def test_the_buyer_passes_3_d_secure_or_not_and_comes_back(story: Story, answer: str, state: str) -> None:
    subscription = story.subscribe(stand_in.CHALLENGED[0], return_url="https://shop.example/thanks?a=1")
    assert (subscription["state"], subscription["last_transaction"]["status"]) == ("redirecting", "incomplete")
    redirect_url = subscription["redirect_url"]
    assert redirect_url == subscription["last_transaction"]["redirect_url"]
    back = httpx.get(f"{redirect_url}&answer={answer}").headers["location"]
    assert back == f"{story.server.url}/process/{story.payments()[0]['id']}"
    for _ in range(2):
        arrived = httpx.get(back)
        assert (arrived.status_code, arrived.headers["location"]) == (
            303,
            f"https://shop.example/thanks?a=1&id={subscription['id']}",
        )
    assert story.read(subscription)["state"] == state


def test_whoever_comes_back_before_passing_is_still_awaited(story: Story) -> None:
    subscription = story.subscribe(stand_in.CHALLENGED[0])
    assert httpx.get(f"{story.server.url}/process/{story.payments()[0]['id']}").status_code == 200
    assert story.read(subscription)["state"] == "redirecting"
    httpx.get(f"{subscription['redirect_url']}&answer=accept")
    story.advance("25h")  # the buyer closed the browser: it is found at the end of the day
    assert story.read(subscription)["state"] == "active"


def test_an_abandoned_3_d_secure_step_expires(story: Story) -> None:
    subscription = story.subscribe(stand_in.CHALLENGED[0])
    story.advance("25h")
    assert story.read(subscription)["state"] == "expired"
    assert story.statuses() == [(0, "expired")]


def test_money_of_a_canceled_3_d_secure_step_is_refunded_at_the_next_look(story: Story) -> None:
    subscription = story.subscribe(stand_in.CHALLENGED[0])
    story.http.post(f"/subscriptions/{subscription['id']}/cancel", json={"cancel_reason": "Too late"})
    httpx.get(f"{subscription['redirect_url']}&answer=accept")
    story.advance("1h")  # the buyer closed the browser
    assert_refunded(story, subscription, "canceled")


def assert_refunded(story: Story, subscription: dict[str, Any], state: str) -> None:
    """The money went back, the subscription says so, and an event with its webhook tells it."""
    read = story.read(subscription)
    assert (read["state"], read["paid_billing_cycles"], read["renew_at"]) == (state, 0, None)
    assert read["last_transaction"]["status"] == "successful"
    assert read["last_transaction"]["message"] == "Payment was not needed any more and was refunded"
    assert "redirect_url" not in read["last_transaction"]
    assert story.statuses() == [(0, "refunded")]
    [payment] = story.payments()
    assert story.account.refunded == [(payment["id"], 999)]
    types = [event["type"] for event in story.http.get(f"/events?object={subscription['id']}").json()]
    assert types[0] == "refunded.subscription"
    assert "created.subscription" not in types


def test_money_of_a_canceled_3_d_secure_step_is_refunded_when_the_buyer_comes_back(story: Story) -> None:
    subscription = story.subscribe(stand_in.CHALLENGED[0], return_url="https://shop.example/thanks")
    story.http.post(f"/subscriptions/{subscription['id']}/cancel", json={"cancel_reason": "Too late"})
    back = httpx.get(f"{subscription['redirect_url']}&answer=accept").headers["location"]
    for _ in range(2):
        assert httpx.get(back).status_code == 303
    assert_refunded(story, subscription, "canceled")


def test_3_d_secure_that_is_passed_after_its_day_is_refunded_when_the_buyer_comes_back(story: Story) -> None:
    subscription = story.subscribe(stand_in.CHALLENGED[0])
    story.advance("25h")
    assert story.read(subscription)["state"] == "expired"
    back = httpx.get(f"{subscription['redirect_url']}&answer=accept").headers["location"]
    httpx.get(back)
    assert_refunded(story, subscription, "expired")


def test_3_d_secure_that_is_passed_after_its_day_is_found_a_day_later(story: Story) -> None:
    subscription = story.subscribe(stand_in.CHALLENGED[0])
    story.advance("25h")
    httpx.get(f"{subscription['redirect_url']}&answer=accept")  # and the browser is closed
    story.advance("25h")
    assert_refunded(story, subscription, "expired")


def test_a_charge_that_was_given_up_and_shows_later_is_refunded(story: Story) -> None:
    story.account.fail(stand_in.SILENT_AFTER)
    subscription = story.subscribe()
    [transaction] = story.account.transactions
    transaction.order, order = "hidden", transaction.order  # the gateway does not find it for an hour
    story.advance("20min")
    assert story.read(subscription)["state"] == "failed"
    transaction.order = order
    story.advance("25h")
    assert_refunded(story, subscription, "failed")


def test_a_renewal_that_was_given_up_and_shows_before_the_next_attempt_counts(story: Story) -> None:
    subscription = story.subscribe(plan={**PLAN, "number_payment_attempts": 10})
    story.account.fail(stand_in.SILENT_AFTER)
    story.account.declines = True
    story.advance("43200min")  # it is charged, and looked up a minute later
    transaction = story.account.transactions[-1]
    transaction.status, transaction.order, order = "successful", "hidden", transaction.order
    story.advance("20min")
    assert story.read(subscription)["state"] == "rescuing"
    story.advance("1h")  # declined: the next attempts are at 03:00 of the following days
    assert story.read(subscription)["state"] == "failed_attempt"
    transaction.order = order
    story.advance("24h")
    read = story.read(subscription)
    assert story.account.refunded == []
    assert (read["state"], read["paid_billing_cycles"]) == ("active", 2)


@pytest.mark.parametrize("fault", [stand_in.SILENT_AFTER, stand_in.FAULT_500_AFTER, stand_in.DROPPED_UNREAD])
def test_a_refund_whose_answer_is_lost_is_made_once(story: Story, fault: str) -> None:
    subscription = canceled_and_paid(story)
    story.account.fail(fault)
    story.advance("1h")
    assert story.statuses() == [(0, "refunding")]
    assert story.read(subscription)["last_transaction"]["message"] == "Payment is not needed any more and is being refunded"
    story.advance("20min")
    assert_refunded(story, subscription, "canceled")


def test_a_refund_that_the_gateway_refuses_is_reported(story: Story) -> None:
    story.account.refuses_refunds = True
    subscription = story.subscribe(stand_in.CHALLENGED[0])
    story.http.post(f"/subscriptions/{subscription['id']}/cancel", json={"cancel_reason": "Too late"})
    httpx.get(f"{subscription['redirect_url']}&answer=accept")
    story.advance("6h")
    assert story.statuses() == [(0, "refund_failed")]
    types = [event["type"] for event in story.http.get(f"/events?object={subscription['id']}").json()]
    assert types[0] == "refund_failed.subscription"
    message = story.read(subscription)["last_transaction"]["message"]
    assert message == "Payment is not needed any more and could not be refunded"
    assert "give the money back by hand" in story.server.log()
    deadline = time.monotonic() + 20
    while not re.search(r'charges_total\{kind="first",outcome="refund_failed"\} [1-9]', story.http.get("/metrics").text):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    story.account.transactions.clear()  # what is compared at the end: the operator gave it back


def canceled_and_paid(story: Story) -> dict[str, Any]:
    """A subscription whose buyer passes 3-D Secure after the cancel."""
    subscription = story.subscribe(stand_in.CHALLENGED[0])
    story.http.post(f"/subscriptions/{subscription['id']}/cancel", json={"cancel_reason": "Too late"})
    httpx.get(f"{subscription['redirect_url']}&answer=accept")
    return subscription


def test_a_refund_that_ends_in_error_is_made_again(story: Story) -> None:
    story.account.refund_statuses.extend(["error", "failed"])
    subscription = canceled_and_paid(story)
    story.advance("4h")
    assert_refunded(story, subscription, "canceled")


def test_of_a_payment_that_was_refunded_in_part_the_rest_is_refunded(story: Story) -> None:
    subscription = canceled_and_paid(story)
    [payment] = story.account.transactions
    request = {"parent_uid": payment.uid, "amount": 100, "reason": "by the back office", "tracking_id": payment.order}
    story.account.refund(request, "back-office")
    story.advance("1h")
    assert story.statuses() == [(0, "refunded")]
    assert story.account.refunded == [(payment.order, 100), (payment.order, 899)]
    assert story.read(subscription)["state"] == "canceled"


def test_an_answer_that_is_no_refund_is_not_taken_for_one(story: Story) -> None:
    story.account.shows_payment_for_refund = True
    subscription = canceled_and_paid(story)
    story.advance("1h")
    assert story.statuses() == [(0, "refunding")]
    story.advance("20min")  # it is found
    assert_refunded(story, subscription, "canceled")


def test_a_payment_that_the_gateway_tells_nothing_of_for_a_week_is_still_looked_for(story: Story) -> None:
    subscription = story.subscribe(stand_in.CHALLENGED[0])
    story.advance("25h")
    httpx.get(f"{subscription['redirect_url']}&answer=accept")
    story.account.fail(*[stand_in.UNAUTHORIZED] * 175, look_up=True)
    story.advance("10d")
    assert story.statuses() == [(0, "expired")]
    story.advance("10d")
    assert story.statuses() == [(0, "refunded")]


def test_what_was_answered_once_is_answered_again_after_the_shop_moved(story: Story, master_key: MasterKey) -> None:
    token = story.subscribe()["card"]["token"]
    body = {"plan": PLAN, "customer": {"email": "john@example.com"}, "card": {"token": token}}
    headers = {"Idempotency-Key": "by token"}
    first = story.http.post("/subscriptions", json=body, headers=headers)
    with_database(
        story.server.database, lambda database: set_gateway(database, master_key, 0, shop_id=story.shop_id, gateway="sandbox")
    )
    again = story.http.post("/subscriptions", json=body, headers=headers)
    assert (again.status_code, again.json()) == (201, first.json())
    assert len(story.account.charges) == 2


@pytest.mark.parametrize(
    "fault", [stand_in.SILENT_AFTER, stand_in.FAULT_502_AFTER, stand_in.DROPPED_HALFWAY, stand_in.OTHER_AMOUNT, stand_in.LATE]
)
def test_a_first_charge_whose_answer_was_lost_is_found_and_counted_once(story: Story, fault: str) -> None:
    story.account.fail(fault)
    subscription = story.subscribe()
    assert (subscription["state"], subscription["last_transaction"]["status"]) == ("getting_status", "incomplete")
    story.advance("2min")
    read = story.read(subscription)
    assert (read["state"], read["paid_billing_cycles"]) == ("active", 1)
    story.advance(A_PERIOD)
    assert story.statuses() == [(0, "successful"), (1, "successful")]


def test_a_renewal_whose_answer_was_lost_is_found_and_counted_once(story: Story) -> None:
    subscription = story.subscribe()
    story.account.fail(stand_in.SILENT_AFTER, stand_in.FAULT_500_AFTER)
    story.account.fail(stand_in.SILENT_BEFORE, stand_in.FAULT_502_BEFORE, stand_in.NO_JSON, look_up=True)
    story.advance(A_PERIOD)
    story.advance("1h")
    assert story.read(subscription)["state"] == "active"
    story.advance(A_PERIOD)
    story.advance("1h")
    assert story.read(subscription)["paid_billing_cycles"] == 3
    assert len(story.account.charges) == 3


def test_a_gateway_that_gives_no_token_is_paid_once_and_its_renewals_fail(story: Story) -> None:
    story.account.fail(stand_in.NO_TOKEN)
    story.account.fail(stand_in.NO_TOKEN, look_up=True)
    subscription = story.subscribe(plan={**PLAN, "number_payment_attempts": 1})
    story.advance("2min")
    assert (story.read(subscription)["state"], story.read(subscription)["card"]) == ("active", {})
    story.advance(A_PERIOD)
    read = story.read(subscription)
    assert (read["state"], read["last_transaction"]["status"]) == ("failed", "failed")
    assert "no token" in read["last_transaction"]["message"]
    assert len(story.account.charges) == 1


def test_a_first_charge_that_never_arrived_ends_as_an_error(story: Story) -> None:
    story.account.fail(stand_in.SILENT_BEFORE)
    subscription = story.subscribe()
    assert subscription["state"] == "getting_status"
    story.advance("10min")
    assert story.read(subscription)["state"] == "getting_status"
    story.advance("10min")
    read = story.read(subscription)
    assert (read["state"], read["last_transaction"]["status"]) == ("failed", "error")


def test_a_renewal_that_never_arrived_is_tried_again(story: Story) -> None:
    subscription = story.subscribe()
    story.account.fail(stand_in.DROPPED_UNREAD)
    story.advance(A_PERIOD)
    story.advance("20min")
    read = story.read(subscription)
    assert (read["state"], read["number_failed_payment_attempts"]) == ("rescuing", 1)
    story.advance("2h")
    read = story.read(subscription)
    assert (read["state"], read["paid_billing_cycles"]) == ("active", 2)
    assert story.statuses() == [(0, "successful"), (1, "error"), (1, "successful")]


def test_a_gateway_that_took_another_amount_is_never_believed(story: Story) -> None:
    story.account.fail(stand_in.OTHER_AMOUNT)
    story.account.fail(*[stand_in.OTHER_AMOUNT] * 10, look_up=True)
    subscription = story.subscribe()
    story.advance("30min")
    assert story.read(subscription)["state"] == "getting_status"
    assert story.statuses() == [(0, "unknown")]
    story.advance("1d")  # the gateway has come to its senses
    assert story.read(subscription)["state"] == "active"


def test_many_who_come_back_at_once_count_one_payment(story: Story) -> None:
    subscription = story.subscribe(stand_in.CHALLENGED[0])
    httpx.get(f"{subscription['redirect_url']}&answer=accept")
    back = f"{story.server.url}/process/{story.payments()[0]['id']}"
    with ThreadPoolExecutor(8) as pool:
        assert {response.status_code for response in pool.map(httpx.get, [back] * 16)} == {200}
    read = story.read(subscription)
    assert (read["state"], read["paid_billing_cycles"]) == ("active", 1)


def test_a_server_killed_while_it_charges_finds_the_charge_afterwards(
    story: Story, new_database_url: Callable[[], str], tmp_path: Path, master_key: MasterKey, gateway_server: GatewayServer
) -> None:
    account = gateway_server.account()
    options = ("--sandbox", "--gateway-timeout-seconds", "5")
    with ServerProcess(new_database_url(), tmp_path, *options, environment=ENVIRONMENT) as process:
        shop_id, secret_key = with_gateway(process, master_key, account, gateway_server.url)
        account.fail(stand_in.SILENT_AFTER)
        with (
            httpx.Client(base_url=process.url, auth=(str(shop_id), secret_key), timeout=60) as http,
            ThreadPoolExecutor(1) as pool,
        ):
            here = Story(http, shop_id, account, process)
            lost = pool.submit(here.subscribe)
            while not account.taken:
                time.sleep(0.02)
            process.kill()
            with pytest.raises(httpx.TransportError):
                lost.result()
            process.start()
            (payment,) = here.payments()
            assert payment["status"] == "pending"
            end_leases(process.database)
            here.advance("5min")
            read = here.read({"id": payment["subscription_id"]})
            assert (read["state"], read["paid_billing_cycles"]) == ("active", 1)
            assert_the_books_agree(here)
            assert_no_secret_is_kept(here)


def test_the_clock_waits_for_a_charge_that_somebody_else_has_begun(story: Story) -> None:
    story.account.fail(stand_in.SILENT_AFTER)
    with ThreadPoolExecutor(1) as pool:
        subscribing = pool.submit(story.subscribe)
        while not story.account.taken:
            time.sleep(0.02)
        assert story.statuses() == [(0, "pending")]
        story.advance("1s")
        assert story.statuses() == [(0, "unknown")]
        assert subscribing.result()["state"] == "getting_status"
    story.advance("5min")
    assert story.statuses() == [(0, "successful")]


def test_a_plan_of_tests_goes_to_the_sandbox(story: Story) -> None:
    subscription = story.subscribe(plan={**PLAN, "test": True})
    assert subscription["state"] == "active"
    assert story.account.seen == []
    assert [payment["gateway"] for payment in story.payments()] == ["sandbox"]


def test_a_gateway_that_refuses_connections_is_an_error_and_renewals_wait_for_it(
    story: Story, master_key: MasterKey, gateway_server: GatewayServer
) -> None:
    subscription = story.subscribe()

    async def move(url: str) -> None:
        async def set_url(database: Database) -> None:
            async def unit(tx: Transaction) -> None:  # no command does this: another address is another account
                await tx.run(
                    "UPDATE gateway_accounts SET url = :url WHERE shop_id = :shop_id", {"url": url, "shop_id": story.shop_id}
                )

            await database.write(unit)

        await asyncio.to_thread(with_database, story.server.database, set_url)
        await asyncio.sleep(5)  # a changed setting is felt within five seconds

    with nobody_listens() as url:
        asyncio.run(move(url))
        assert story.subscribe()["state"] == "failed"
        story.advance(A_PERIOD)
        assert story.read(subscription)["state"] == "rescuing"
    asyncio.run(move(gateway_server.url))
    story.advance("2h")
    assert story.read(subscription)["state"] == "active"
    assert story.statuses() == [(0, "successful"), (0, "error"), (1, "error"), (1, "successful")]


# Another account of the same shop


def test_a_charge_without_outcome_is_looked_up_at_the_account_that_took_it(story: Story, gateway_server: GatewayServer) -> None:
    story.account.fail(stand_in.SILENT_AFTER)
    subscription = story.subscribe()
    assert subscription["state"] == "getting_status"
    moved_to = gateway_server.account()
    story.choose(moved_to, gateway_server.url)
    time.sleep(5)  # a changed setting is felt within five seconds
    story.advance("20min")
    assert story.read(subscription)["state"] == "active"
    assert story.statuses() == [(0, "successful")]
    assert len(story.account.taken) == 1
    assert moved_to.seen == []


def test_each_subscription_renews_at_the_account_that_it_was_made_with(story: Story, gateway_server: GatewayServer) -> None:
    first = story.subscribe()
    moved_to = gateway_server.account()
    story.choose(moved_to, gateway_server.url)
    second = story.subscribe()
    story.choose(None)
    third = story.subscribe()
    time.sleep(5)  # a changed setting is felt within five seconds
    story.advance(A_PERIOD)
    read = [story.read(subscription) for subscription in (first, second, third)]
    assert [(one["state"], one["paid_billing_cycles"]) for one in read] == [("active", 2)] * 3
    assert (len(story.account.taken), len(moved_to.taken)) == (2, 2)
    made = [{(one["gateway"], one["gateway_account"]) for one in story.payments_of(made)} for made in (first, second, third)]
    assert made == [{("begateway", "1")}, {("begateway", "2")}, {("sandbox", None)}]


def test_another_secret_key_is_the_same_account_and_is_used_for_what_it_charged_before(
    story: Story, gateway_server: GatewayServer
) -> None:
    subscription = story.subscribe()
    story.account.secret_key = f"gw-secret-{uuid.uuid4().hex}"
    story.choose(story.account, f"{gateway_server.url}/")
    time.sleep(5)  # a changed setting is felt within five seconds
    story.advance(A_PERIOD)
    assert story.read(subscription)["paid_billing_cycles"] == 2
    assert {payment["gateway_account"] for payment in story.payments()} == {"1"}


def test_the_commands_say_what_needs_an_account_and_forget_none_that_is_needed(
    story: Story, gateway_server: GatewayServer
) -> None:
    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return ecomcharge(story.server.database, "shops", *arguments, environment={**ENVIRONMENT, **environment})

    def accounts() -> list[tuple[Any, ...]]:
        shown = json.loads(run("show", shop, "--json").stdout)["gateway_accounts"]
        return [(one["id"], one["user"], one["current"], one["subscriptions"], one["unsettled_payments"]) for one in shown]

    shop, first, second = str(story.shop_id), story.account, gateway_server.account()
    story.other_accounts.append(second)
    renewing = story.subscribe()
    first.fail(stand_in.SILENT_AFTER)
    waiting = story.subscribe()
    assert accounts() == [("1", first.user, True, 2, 1)]
    assert "charges the new subscriptions" in run("forget-account", shop, "1").stderr

    done = run(
        *("gateway", shop, "begateway", "--url", gateway_server.url, "--user", second.user),
        ECOMCHARGE_GATEWAY_SECRET_KEY=second.secret_key,
    )
    kept = f"account 1 ({gateway_server.url}, as {first.user})"
    needed = "2 subscriptions renew there, 1 payment is not settled"
    assert f"{kept} is kept: {needed}\n" in done.stdout
    assert accounts() == [("1", first.user, False, 2, 1), ("2", second.user, True, 0, 0)]
    assert needed in run("show", shop).stdout
    refused = run("forget-account", shop, "1")
    assert (refused.returncode, refused.stderr) == (1, f"ecomcharge: {kept} is still needed: {needed}\n")

    story.advance("5min")
    for subscription in (renewing, waiting):
        assert story.read(subscription)["state"] == "active"
        story.http.delete(f"/subscriptions/{subscription['id']}")
    assert accounts()[0] == ("1", first.user, False, 0, 0)
    assert run("forget-account", shop, "1").returncode == 0
    assert accounts() == [("2", second.user, True, 0, 0)]
    assert "has no account 1" in run("forget-account", shop, "1").stderr
    third = gateway_server.account()  # the id is not used again
    story.choose(third, gateway_server.url)
    assert [account[0] for account in accounts()] == ["2", "3"]


def test_a_refused_number_is_repeated_nowhere(story: Story) -> None:
    story.account.fail(stand_in.TALKATIVE)
    subscription = story.subscribe()
    assert (subscription["state"], subscription["last_transaction"]["message"]) == ("failed", "Number … is invalid")
    story.subscribe(expect=422, card={**CARD, "exp_month": "13"}, number=None)


def test_the_payment_page_charges_and_hides_stamp_and_bin(story: Story) -> None:
    subscription = story.subscribe(None)
    form = page(subscription["redirect_url"], {**CARD})
    assert form.status_code == 303
    read = story.read(subscription)
    assert (read["state"], read["card"]["last_4"]) == ("active", "0000")
    assert (read["card"]["stamp"], read["card"]["bin"]) == (None, None)
    story.advance(A_PERIOD)
    card = story.read(subscription)["card"]
    assert (card["stamp"], card["bin"]) == (None, None)


def test_the_payment_page_sends_the_buyer_to_3_d_secure_and_back(story: Story) -> None:
    subscription = story.subscribe(None)
    form = page(subscription["redirect_url"], {**CARD, "number": stand_in.CHALLENGED[0]})
    assert form.headers["location"].endswith(story.account.transactions[0].to_json("")["redirect_url"])
    back = httpx.get(f"{form.headers['location']}&answer=accept").headers["location"]
    assert httpx.get(back).status_code == 303
    assert story.read(subscription)["state"] == "active"


def page(url: str, card: dict[str, str]) -> httpx.Response:
    """Fill in the form of a payment page and send it."""
    shown = httpx.get(url).text
    hidden = re.search(r"<input[^>]*form_token[^>]*>", shown)
    assert hidden is not None
    form_token = re.findall(r"[0-9a-f]{32,}", hidden[0])[0]
    return httpx.post(url, data={**card, "form_token": form_token, "email": "john@example.com"})
