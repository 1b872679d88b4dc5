"""A closed shop charges nothing until it is opened again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from ecomcharge.checkout.translations import LANGUAGES, translation_for
from ecomcharge.shops.actions import close_shop, set_gateway
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database, Row
from support.begateway import GatewayServer
from support.builders import a_card, a_plan, a_price
from support.commands import ecomcharge
from support.process import ServerProcess
from support.receiver import Receiver
from support.shops import ENVIRONMENT, Shop, add_shop, with_database

GOOD_CARD = "4200000000000000"
CHALLENGE_CARD = "4012000000001097"
TIMEOUT_CARD = "4111110000000021"  # charged; the lookup a minute later finds it
MONTHLY = a_price(999)
A_PLAN: dict[str, Any] = a_plan(title="Monthly", plan=MONTHLY)
START = "2026-12-01T10:00:00Z"


@pytest.fixture(scope="module")
def sandbox_process(new_database_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    options = ("--sandbox", "--worker", "--failed-logins-per-minute", "0")
    with ServerProcess(new_database_url(), tmp_path_factory.mktemp("server"), *options, environment=ENVIRONMENT) as process:
        yield process


class Trial:
    """A shop to close and open, and another shop that moves the clock."""

    def __init__(self, process: ServerProcess, master_key: MasterKey) -> None:
        self.process = process
        shops = [add_shop(process.database, master_key) for _ in range(2)]
        self.shop, self.keeper = (Shop(process.url, each.shop_id, each.secret_key, process) for each in shops)
        self.http, self.clock = self.shop.client(), self.keeper.client()
        for what, body in (("freeze", {}), ("set", {"to": START})):
            assert self.clock.post(f"/sandbox/clock/{what}", json=body).status_code == 200

    def advance(self, step: str) -> None:
        answer = self.clock.post("/sandbox/clock/advance", json={"step": step})
        assert answer.status_code == 200, answer.text

    def close(self) -> None:
        self._command("close")

    def open(self) -> None:
        self._command("open")

    def _command(self, name: str) -> None:
        done = ecomcharge(self.process.database, "shops", name, str(self.shop.shop_id), environment=ENVIRONMENT)
        assert done.returncode == 0, done.stderr

    def subscribe(self, card: str | None = GOOD_CARD, **more: Any) -> dict[str, Any]:
        body: dict[str, Any] = {"plan": A_PLAN, "customer": {"email": "jane@shop.test"}, **more}
        if card is not None:
            body["card"] = a_card(card)
        answer = self.http.post("/subscriptions", json=body)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def rows(self, sql: str) -> list[Row]:
        async def read(database: Database) -> list[Row]:
            return list(await database.rows(sql, {"shop_id": self.shop.shop_id}))

        return with_database(self.process.database, read)

    def charges(self) -> int:
        return len(self.rows("SELECT 1 FROM sandbox_charges WHERE shop_id = :shop_id"))

    def payments(self) -> list[str]:
        return [row[0] for row in self.rows("SELECT status FROM payments WHERE shop_id = :shop_id ORDER BY created_at, id")]

    def events(self) -> list[str]:
        sql = "SELECT type FROM events WHERE shop_id = :shop_id AND type <> 'customer.created' ORDER BY id"
        return [row[0].partition(".")[0] for row in self.rows(sql)]

    def billing_state(self) -> tuple[str, bool, bool]:
        """The state of the subscription, whether it has a due date, and whether its due date is suspended."""
        [row] = self.rows("SELECT state, due_at, parked_at FROM subscriptions WHERE shop_id = :shop_id")
        return row[0], row[1] is not None, row[2] is not None

    def pay(self, page: str, card: str = GOOD_CARD) -> httpx.Response:
        return httpx.post(page, data={**form_of(httpx.get(page).text), **typed(card)}, timeout=30)


def form_of(page: str) -> dict[str, str]:
    found = re.search(r'name="form_token" value="([0-9a-f]+)"', page)
    assert found is not None, page
    return {"form_token": found[1]}


def typed(card: str = GOOD_CARD) -> dict[str, str]:
    return {"email": "jane@shop.test", "number": card, "exp_month": "12", "exp_year": "39", "verification_value": "123"}


def assert_says_closed(answer: httpx.Response, language: str = "en") -> None:
    assert answer.status_code == 410, answer.text
    assert f"<h1>{translation_for(language).gettext('This shop is closed')}</h1>" in answer.text
    assert "text/html" in answer.headers["content-type"]


@pytest.fixture
def trial(sandbox_process: ServerProcess, master_key: MasterKey) -> Iterator[Trial]:
    made = Trial(sandbox_process, master_key)
    yield made
    with_database(sandbox_process.database, lambda database: close_shop(database, 1, shop_id=made.shop.shop_id))
    made.http.close()
    made.clock.close()


def test_reopening_a_shop_resumes_renewals_with_one_charge(trial: Trial) -> None:
    trial.subscribe()
    trial.close()
    trial.advance("95d")
    assert (trial.charges(), trial.events(), trial.billing_state()) == (1, ["created"], ("active", False, True))
    trial.open()
    trial.advance("1min")
    assert (trial.charges(), trial.events(), trial.billing_state()) == (2, ["created", "renewed"], ("active", True, False))
    trial.advance("31d")
    assert (trial.charges(), trial.payments()) == (3, ["successful"] * 3)


def test_a_shop_reopened_before_a_due_date_misses_no_renewal(trial: Trial) -> None:
    trial.subscribe()
    trial.close()
    trial.close()
    trial.advance("10d")
    trial.open()
    trial.open()
    trial.advance("22d")
    assert (trial.charges(), trial.events()) == (2, ["created", "renewed"])


def test_a_trial_that_ends_in_a_closed_shop_is_not_charged(trial: Trial) -> None:
    trial.subscribe(plan={**A_PLAN, "trial": a_price(0, interval=7, unit="day")})
    trial.close()
    trial.advance("8d")
    assert (trial.charges(), trial.events(), trial.billing_state()) == (1, ["created"], ("trial", False, True))
    trial.open()
    trial.advance("1min")
    assert (trial.charges(), trial.billing_state()) == (2, ("active", True, False))


def test_the_last_cycle_ends_when_the_shop_is_open(trial: Trial) -> None:
    trial.subscribe(plan={**A_PLAN, "infinite": False, "billing_cycles": 1})
    trial.close()
    trial.advance("40d")
    assert trial.events() == ["created"]
    trial.open()
    trial.advance("1min")
    assert (trial.events(), trial.billing_state()) == (["created", "canceled"], ("canceled", False, False))


def test_a_payment_page_of_a_closed_shop_refuses_payment_and_expires_later(trial: Trial) -> None:
    page = trial.subscribe(card=None)["redirect_url"]
    form = {**form_of(httpx.get(page).text), **typed()}
    trial.close()
    assert_says_closed(httpx.get(page))
    assert_says_closed(httpx.post(page, data=form))
    trial.advance("2d")
    assert (trial.charges(), trial.events(), trial.billing_state()) == (0, [], ("redirecting", False, True))
    trial.open()
    trial.advance("1min")
    assert (trial.charges(), trial.events(), trial.billing_state()) == (0, ["expired"], ("expired", False, False))


def test_a_payment_page_works_again_after_the_shop_is_reopened(trial: Trial) -> None:
    page = trial.subscribe(card=None)["redirect_url"]
    trial.close()
    assert_says_closed(httpx.get(page))
    trial.open()
    assert trial.pay(page).status_code == 303
    assert (trial.charges(), trial.events()) == (1, ["created"])


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_closed_shop_message_is_in_the_buyers_language(trial: Trial, language: str) -> None:
    page = trial.subscribe(card=None, language=language)["redirect_url"]
    trial.close()
    assert_says_closed(httpx.get(page), language)


def test_pay_links_of_a_closed_shop_create_no_subscription(trial: Trial) -> None:
    plan = trial.http.post("/plans", json={**A_PLAN, "language": "de"}).json()
    page = httpx.get(plan["pay_url"]).headers["location"]
    form = form_of(httpx.get(page).text)
    trial.close()
    assert_says_closed(httpx.get(page), "de")
    assert_says_closed(httpx.post(page, data={**form, **typed()}), "de")
    for link in ("pay_url", "confirm_url"):
        assert_says_closed(httpx.get(plan[link]), "de")
        assert_says_closed(httpx.post(plan[link]), "de")
        assert httpx.head(plan[link]).status_code == 410
    assert trial.rows("SELECT 1 FROM subscriptions WHERE shop_id = :shop_id") == []
    trial.open()
    assert httpx.get(plan["pay_url"]).status_code == 302
    assert trial.pay(page).status_code == 303


def test_the_sandboxs_3d_secure_step_of_a_closed_shop_charges_nothing(trial: Trial) -> None:
    step = trial.subscribe(CHALLENGE_CARD)["redirect_url"]
    answer = {**form_of(httpx.get(step).text), "answer": "accept"}
    trial.close()
    assert_says_closed(httpx.get(step))
    assert_says_closed(httpx.post(step, data=answer))
    assert (trial.payments(), trial.events()) == (["incomplete"], [])
    trial.open()
    assert httpx.post(step, data=answer).status_code in (200, 303)
    assert (trial.payments(), trial.events()) == (["successful"], ["created"])


def test_a_charge_with_unknown_outcome_is_looked_up_in_a_closed_shop(trial: Trial) -> None:
    assert trial.subscribe(TIMEOUT_CARD)["state"] == "getting_status"
    trial.close()
    trial.advance("5min")
    assert (trial.payments(), trial.events()) == (["successful"], ["created"])
    trial.advance("40d")
    assert (trial.charges(), trial.billing_state()) == (1, ("active", False, True))


def test_canceled_subscriptions_stay_canceled_after_reopening(trial: Trial) -> None:
    made = trial.subscribe()
    assert trial.http.delete(f"/subscriptions/{made['id']}").status_code == 200
    trial.close()
    trial.advance("40d")
    trial.open()
    trial.advance("1min")
    assert (trial.charges(), trial.events(), trial.billing_state()) == (1, ["created", "canceled"], ("canceled", False, False))


def test_queued_webhooks_of_a_closed_shop_are_delivered(trial: Trial) -> None:
    with Receiver(500) as receiver:
        trial.subscribe(notification_url=f"http://127.0.0.1:{receiver.port}/")
        receiver.wait_for(1)
        trial.close()
        receiver.answer = 200
        trial.advance("1h")
        assert json.loads(receiver.bodies[-1])["event"] == "created.subscription"
    assert [row[0] for row in trial.rows("SELECT state FROM webhooks WHERE shop_id = :shop_id")] == ["delivered"]


def test_a_shop_that_does_not_exist_cannot_be_opened(sandbox_process: ServerProcess) -> None:
    done = ecomcharge(sandbox_process.database, "shops", "open", "987654321", environment=ENVIRONMENT)
    assert (done.returncode != 0, "no shop 987654321" in done.stderr) == (True, True)


def test_3_d_secure_passed_while_the_shop_is_closed_is_charged_and_the_page_reports_the_closing(
    trial: Trial, master_key: MasterKey
) -> None:
    with GatewayServer() as gateway:
        account = gateway.account()

        async def set_up(database: Database) -> None:
            await set_gateway(
                database,
                master_key,
                0,
                shop_id=trial.shop.shop_id,
                gateway="begateway",
                url=gateway.url,
                user=account.user,
                secret_key=account.secret_key,
            )

        with_database(trial.process.database, set_up)
        bank = trial.subscribe(CHALLENGE_CARD)["redirect_url"]
        trial.close()
        back = httpx.get(f"{bank}&answer=accept").headers["location"]
        assert_says_closed(httpx.get(back))
        assert (len(account.taken), trial.payments(), trial.events()) == (1, ["successful"], ["created"])
        trial.advance("40d")
        assert len(account.charges) == 1
