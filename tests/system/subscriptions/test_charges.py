"""What the gateway's books say, what we say, and what the merchant believes: cancels, late answers, lost databases, retries."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import httpx
import msgspec
import pytest

from ecomcharge.base.errors import StillRunning
from ecomcharge.customers.model import CustomerFields
from ecomcharge.gateways import sandbox
from ecomcharge.gateways.base import CardDetails, Order, Result
from ecomcharge.gateways.registry import GatewayRegistry
from ecomcharge.payments import store as payments
from ecomcharge.plans.model import PlanFields, Price
from ecomcharge.runtime.billing_worker import AT_ONCE, BillingWorker
from ecomcharge.sandbox.clock import SandboxClock
from ecomcharge.shops.actions import close_shop, create_shop
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.subscriptions import actions, closed_shops, renewals, store
from ecomcharge.subscriptions.actions import IdGenerators
from ecomcharge.subscriptions.charging import Charging
from ecomcharge.subscriptions.model import EMPTY_OBJECT, Subscription
from ecomcharge.subscriptions.notifications import EventRecorder
from ecomcharge.subscriptions.requests import SubscriptionRequest
from ecomcharge.web.idempotency import idempotency_key_of
from support.billing import set_frozen_clock
from support.postgres import PostgresServer
from support.process import ServerProcess
from support.shops import ENVIRONMENT, Shop, add_shop, with_database
from support.simulation import MovedClock

T = TypeVar("T")

NUMBER_OF = {behaviour: number for number, behaviour in sandbox.TEST_CARDS.items()}
MONTHLY = {"title": "Monthly", "currency": "EUR", "plan": {"amount": 999, "interval": 1, "interval_unit": "month"}}
HOURLY = {**MONTHLY, "plan": {**MONTHLY["plan"], "interval_unit": "hour"}}  # type: ignore[dict-item]
DEADLINE_SECONDS = 60.0


def body(behaviour: str, plan: dict[str, Any] = MONTHLY, **more: Any) -> dict[str, Any]:
    card = {"number": NUMBER_OF[behaviour], "verification_value": "739", "exp_month": 12, "exp_year": 2099}
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
    """The sandbox gateway's own books: status, amount, and whether it was given back."""
    sql = "SELECT status, amount, refunded_at FROM sandbox_charges WHERE shop_id = :shop_id ORDER BY created_at, id"
    return [(status, amount, refunded is not None) for status, amount, refunded in rows_of(url, sql, shop_id=shop_id)]


def event_types(http: httpx.Client, id: str) -> list[str]:
    return [event["type"].partition(".")[0] for event in reversed(http.get(f"/events?object={id}").json())]


def wait_for(condition: Callable[[], T]) -> T:
    """Poll until it holds."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)
    return found


def charge_is_under_way(http: httpx.Client) -> str | None:
    for each in http.get("/subscriptions").json():
        if each["state"] in ("processing", "trial_processing"):
            return str(each["id"])
    return None


# A cancel meets a charge


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
                id = wait_for(lambda: charge_is_under_way(merchant))
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


# The sandbox's 3-D Secure step has a day


def test_3_d_secure_is_not_passed_after_its_day_though_no_worker_came(
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


def test_a_card_past_its_month_neither_renews_nor_starts_a_subscription(http: httpx.Client, shop: Shop) -> None:
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
    assert (created["state"], created["last_transaction"], created["card"]["token"]) == ("pending", {}, token)
    http.post("/sandbox/clock/advance", json={"step": "8h"})
    assert http.get(f"/subscriptions/{created['id']}").json()["state"] == "pending"
    http.post("/sandbox/clock/advance", json={"step": "11min"})
    read = http.get(f"/subscriptions/{created['id']}").json()
    assert (read["state"], read["active_to"]) == ("active", "2027-06-16T08:00:00.000Z")


def test_a_renewal_that_is_late_does_not_come_at_night(http: httpx.Client, shop: Shop) -> None:
    http.post("/sandbox/clock/freeze")
    http.post("/sandbox/clock/set", json={"to": "2027-05-15T10:00:00Z"})
    created = http.post("/subscriptions", json=body(sandbox.SUCCESSFUL, {**MONTHLY, "prevent_payments_at_night": True})).json()
    jump(shop.process.database, 1_813_103_340_000)  # 2027-06-15T23:49:00Z, as after an outage
    wait_for(lambda: due_at(shop.process.database, created["id"]) == 1_813_132_800_000)  # 2027-06-16T08:00:00Z
    assert http.get(f"/subscriptions/{created['id']}").json()["paid_billing_cycles"] == 1
    http.post("/sandbox/clock/advance", json={"step": "9h"})
    assert http.get(f"/subscriptions/{created['id']}").json()["paid_billing_cycles"] == 2


def jump(url: str, moment: int) -> None:
    """Set the frozen clock, and leave what is due to the workers."""
    with_database(url, lambda database: set_frozen_clock(SandboxClock(database), moment))


def due_at(url: str, id: str) -> int | None:
    [(moment,)] = rows_of(url, "SELECT due_at FROM subscriptions WHERE id = :id", id=id)
    return int(moment) if moment is not None else None


# A charge that outlives its claim


def test_a_slow_charge_with_a_short_lease_is_not_made_twice(
    new_database_url: Callable[[], str], master_key: MasterKey, tmp_path: Path
) -> None:
    """Two servers, a lease of a second, a card that takes three, and the clock moved on while it is charged."""
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
            wait_for(lambda: charge_is_under_way(other))
            for _ in range(3):
                assert other.post("/sandbox/clock/advance", json={"step": "1h"}).status_code == 200
            answers = [each.result() for each in creating]
            assert {answer.status_code for answer in answers} == {201}
            other.post("/sandbox/clock/advance", json={"step": "25h"})
            assert_books_agree(url, credentials.shop_id)


def assert_books_agree(url: str, shop_id: int) -> None:
    """Each success of the gateway is a payment that counts once for its period, or went back."""
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


# The database goes away after the charge


def test_a_write_lock_held_from_outside_while_a_card_is_charged_hides_no_charge(
    master_key: MasterKey, server_folder: Path
) -> None:
    url = f"sqlite:///{server_folder}/locked.db"
    credentials = add_shop(url, master_key)
    with ServerProcess(url, server_folder, "--sandbox", environment=ENVIRONMENT) as process:
        shop = Shop(process.url, credentials.shop_id, credentials.secret_key, process)
        with shop.client() as http, shop.client() as other, ThreadPoolExecutor(1) as pool:
            headers = {"Idempotency-Key": "once"}
            creating = pool.submit(http.post, "/subscriptions", json=body(sandbox.SLOW), headers=headers)
            wait_for(lambda: charge_is_under_way(other))
            blocker = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
            blocker.execute("BEGIN IMMEDIATE")
            answer = creating.result()
            blocker.execute("ROLLBACK")
            blocker.close()
            assert (answer.status_code, answer.json()["state"]) == (201, "processing")
            repeated = other.post("/subscriptions", json=body(sandbox.SLOW), headers=headers)
            assert repeated.status_code == 409
            wait_for(lambda: leases_are_over(url))
            other.post("/sandbox/clock/advance", json={"step": "20min"})
            assert len(other.get("/subscriptions").json()) == 1
            assert_books_agree(url, credentials.shop_id)


def leases_are_over(url: str) -> bool:
    """End them, as the two minutes do that they last."""

    async def work(database: Database) -> None:
        async def unit(tx: Transaction) -> None:
            await tx.run("UPDATE subscriptions SET leased_until = 0", {})

        await database.write(unit)

    with_database(url, work)
    return True


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


def test_no_503_follows_a_charge_while_postgresql_is_restarted(
    own_postgres: PostgresServer, master_key: MasterKey, server_folder: Path
) -> None:
    """Six immediate restarts under load: what was answered 503 was neither written nor charged."""
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
            wait_for(lambda before=before: len(answers) > before + 20)  # type: ignore[misc]
            own_postgres.stop(signal.SIGQUIT)
            own_postgres.start()
        running = False
        for client in clients:
            client.result()
        wait_for(lambda: leases_are_over(url))
        with shop.client() as http:
            assert http.post("/sandbox/clock/advance", json={"step": "20min"}, timeout=120).status_code == 200
    written = dict(
        rows_of(url, "SELECT tracking_id, state FROM subscriptions WHERE shop_id = :shop_id", shop_id=credentials.shop_id)
    )
    assert Counter(answers.values())[503] > 0
    assert [id for id, status in answers.items() if status == 503 and id in written] == []
    assert [id for id, status in answers.items() if status == 201 and id not in written] == []
    assert set(answers.values()) <= {201, 503, 504}
    assert_books_agree(url, credentials.shop_id)


# Every step of a charge, one after the other


class Gateway(sandbox.SandboxGateway):
    """The sandbox's gateway, which stops before and after it books a charge."""

    stop: Callable[[], Awaitable[None]]

    async def charge(self, order: Order, card: CardDetails | str, now: int) -> Result:
        await self.stop()
        result = await super().charge(order, card, now)
        await self.stop()
        return result


class StoppingDatabase:
    """Stops at its nth step until it is told to go on, and does meanwhile what a test wants."""

    def __init__(self, inner: Database, at_step: int, meanwhile: Callable[[], Awaitable[None]]) -> None:
        self._inner = inner
        self._at_step = at_step
        self._meanwhile = meanwhile
        self.steps = 0

    async def stop(self) -> None:
        self.steps += 1
        if self.steps == self._at_step:
            await self._meanwhile()

    async def write(self, unit: Any) -> Any:
        await self.stop()
        result = await self._inner.write(unit)
        await self.stop()
        return result

    async def find(self, read: Any, key: Any) -> Any:
        await self.stop()
        return await self._inner.find(read, key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


STEPS = 20


async def billing_of(
    database: Database, master_key: MasterKey, clock: MovedClock, real_clock: MovedClock, stopping: StoppingDatabase | None = None
) -> Charging:
    used: Any = stopping if stopping is not None else database
    gateways = GatewayRegistry(database, master_key, "https://pay.example", sandbox_mode=True)
    gateway = Gateway(database, master_key, "https://pay.example")
    gateway.stop = stopping.stop if stopping is not None else _nothing
    gateways.sandbox = gateway
    return Charging(used, gateways, EventRecorder("https://pay.example"), clock, ZoneInfo("UTC"), 120_000, real_clock)


async def _nothing() -> None:
    pass


def wanted(behaviour: str) -> SubscriptionRequest:
    return SubscriptionRequest(
        plan=PlanFields(
            title="Monthly",
            currency="EUR",
            plan=Price(999, 1, "month"),
            trial=None,
            language="en",
            infinite=True,
            billing_cycles=None,
            number_payment_attempts=3,
            prevent_payments_at_night=False,
            test=True,
            visible_fields=(),
        ),
        customer=CustomerFields(email="jane@shop.test"),
        card=CardDetails(NUMBER_OF[behaviour], "123", None, 12, 2199),
        tracking_id=None,
        device_id=None,
        return_url=None,
        notification_url=None,
        additional_data=EMPTY_OBJECT,
        options=EMPTY_OBJECT,
    )


async def only_subscription(database: Database, shop_id: int) -> Subscription | None:
    found = await store.Subscriptions(database, shop_id, store.Filter()).after("", 10)
    return found[0] if found else None


HOUR = 60 * 60 * 1000


async def work_until_settled(
    charging: Charging, clock: MovedClock, real_clock: MovedClock, shop_id: int, milliseconds: int = 48 * HOUR
) -> Subscription:
    """As workers do, for two days: every five minutes at first, then every hour."""
    real_clock.moment += 1_000_000
    until = clock.moment + milliseconds
    while clock.moment < until:
        subscription = await only_subscription(charging.database, shop_id)
        assert subscription is not None
        clock.moment += 5 * 60_000 if clock.moment < until - milliseconds + HOUR else HOUR
        await renewals.process_due_subscription(charging, shop_id, subscription.id)
        for each in await payments.of_subscription(charging.database, shop_id, subscription.id):
            if each.check_at is not None and each.check_at <= clock.moment:
                await renewals.check_payment(charging, shop_id, each.id)
    found = await only_subscription(charging.database, shop_id)
    assert found is not None
    return found


@pytest.mark.parametrize("renewal", [False, True], ids=["first charge", "renewal"])
@pytest.mark.parametrize("what", ["cancel", "long pause"])
def test_whatever_meets_a_charge_at_any_of_its_steps_the_books_agree(
    database_url: str, master_key: MasterKey, what: str, renewal: bool
) -> None:
    """Cancel, or a pause of a day in which another process takes over, between any two steps of a charge."""

    async def one(database: Database, at_step: int) -> int:
        clock, real_clock = MovedClock(), MovedClock()
        credentials = await _new_shop(database, master_key)
        other = await billing_of(database, master_key, clock, real_clock)

        async def meanwhile() -> None:
            subscription = await only_subscription(database, credentials)
            if subscription is None:
                return
            if what == "cancel":
                await actions.cancel_subscription(other, credentials, subscription.id, "enough")
            else:
                await work_until_settled(other, clock, real_clock, credentials)

        stopping = StoppingDatabase(database, at_step, meanwhile)
        stopped = await billing_of(database, master_key, clock, real_clock, stopping)
        creating = stopped if not renewal else other
        await actions.create_subscription(
            creating, IdGenerators(), credentials, wanted(sandbox.SUCCESSFUL), None, lambda each: each.id.encode()
        )
        subscription = await only_subscription(database, credentials)
        assert subscription is not None
        if renewal and subscription.billing_state.due_at is not None:
            clock.moment = subscription.billing_state.due_at
            await renewals.process_due_subscription(stopped, credentials, subscription.id)
        subscription = await work_until_settled(other, clock, real_clock, credentials)
        rows = await database.rows(
            "SELECT charge.refunded_at, payments.status, payments.period FROM sandbox_charges AS charge"
            " JOIN payments ON payments.shop_id = charge.shop_id AND payments.id = charge.id WHERE charge.shop_id = :id",
            {"id": credentials},
        )
        for refunded_at, status, _ in rows:
            assert status == ("refunded" if refunded_at is not None else "successful"), f"step {at_step}"
        periods = [period for _, status, period in rows if status == "successful"]
        assert len(periods) == len(set(periods)) == subscription.billing_state.paid_billing_cycles, f"step {at_step}"
        unsettled = await database.rows(
            "SELECT id FROM payments WHERE shop_id = :id AND (check_at IS NOT NULL OR status IN ('pending', 'unknown'))",
            {"id": credentials},
        )
        assert not unsettled, f"step {at_step}"
        await other.gateways.close()
        await stopped.gateways.close()
        return stopping.steps

    async def work(database: Database) -> None:
        most = 0
        for at_step in range(1, STEPS + 1):
            most = max(most, await one(database, at_step))
        assert 5 <= most <= STEPS

    with_database(database_url, work)


async def _new_shop(database: Database, master_key: MasterKey) -> int:
    return (await create_shop(database, master_key, 0, name="Steps")).shop_id


async def _by_token(database: Database, charging: Charging, shop_id: int) -> SubscriptionRequest:
    """A subscription by the token of a card that was used before, to a plan that is charged by day only."""
    await actions.create_subscription(
        charging, IdGenerators(), shop_id, wanted(sandbox.SUCCESSFUL), None, lambda each: each.id.encode()
    )
    first = await only_subscription(database, shop_id)
    assert first is not None
    await actions.cancel_subscription(charging, shop_id, first.id, None)
    by_card = wanted(sandbox.SUCCESSFUL)
    assert isinstance(by_card.plan, PlanFields)
    plan = msgspec.structs.replace(by_card.plan, prevent_payments_at_night=True)
    return msgspec.structs.replace(by_card, plan=plan, card=first.card_token)


@pytest.mark.parametrize("what", ["killed", "closed", "night"])
def test_a_first_charge_by_token_that_was_not_sent_is_made_later(database_url: str, master_key: MasterKey, what: str) -> None:
    async def work(database: Database) -> None:
        clock, real_clock = MovedClock(), MovedClock()
        shop_id = await _new_shop(database, master_key)
        charging = await billing_of(database, master_key, clock, real_clock)
        clock.moment += 3 * HOUR  # 03:00
        by_token = await _by_token(database, charging, shop_id)
        await actions.create_subscription(charging, IdGenerators(), shop_id, by_token, None, lambda each: each.id.encode())
        [waiting] = await store.Subscriptions(database, shop_id, store.Filter(state="pending")).after("", 10)

        async def meanwhile() -> None:
            if what == "killed":
                raise asyncio.CancelledError
            if what == "closed":
                await close_shop(database, clock.now(), shop_id=shop_id)
            else:
                clock.moment += 13 * HOUR

        clock.moment += 5 * HOUR
        stopping = StoppingDatabase(database, 5, meanwhile)  # after the charge was written
        stopped = await billing_of(database, master_key, clock, real_clock, stopping)
        with contextlib.suppress(asyncio.CancelledError):
            await renewals.process_due_subscription(stopped, shop_id, waiting.id)
        assert [row async for row in _charges(database, shop_id)] == [999]
        await closed_shops.open_shop(database, shop_id=shop_id)
        real_clock.moment += 1_000_000
        for _ in range(30):
            clock.moment += HOUR
            await renewals.process_due_subscription(charging, shop_id, waiting.id)
        settled = await store.find(database, shop_id, waiting.id)
        assert settled is not None
        assert (settled.billing_state.state, settled.billing_state.paid_billing_cycles) == ("active", 1)
        assert [row async for row in _charges(database, shop_id)] == [999, 999]
        statuses = {each.status for each in await payments.of_subscription(database, shop_id, waiting.id)}
        assert statuses == {"absent", "successful"}
        rows = await database.rows("SELECT created_at FROM sandbox_charges WHERE shop_id = :id", {"id": shop_id})
        assert all(8 <= (row[0] // HOUR) % 24 < 20 for row in rows[1:])
        await charging.gateways.close()
        await stopped.gateways.close()

    with_database(database_url, work)


async def _charges(database: Database, shop_id: int) -> AsyncIterator[int]:
    for (amount,) in await database.rows("SELECT amount FROM sandbox_charges WHERE shop_id = :id", {"id": shop_id}):
        yield amount


def test_a_page_takes_no_card_after_its_day_though_no_worker_came(database_url: str, master_key: MasterKey) -> None:
    async def work(database: Database) -> None:
        clock = MovedClock()
        shop_id = await _new_shop(database, master_key)
        charging = await billing_of(database, master_key, clock, MovedClock())
        on_page = msgspec.structs.replace(wanted(sandbox.SUCCESSFUL), card=None)
        await actions.create_subscription(charging, IdGenerators(), shop_id, on_page, None, lambda each: each.id.encode())
        subscription = await only_subscription(database, shop_id)
        assert subscription is not None
        assert subscription.checkout_token is not None
        clock.moment += 24 * HOUR
        card = CardDetails(NUMBER_OF[sandbox.SUCCESSFUL], "123", None, 12, 2199)
        assert await actions.pay(charging, IdGenerators(), subscription.checkout_token, card, {}) is None
        assert [row async for row in _charges(database, shop_id)] == []
        await charging.gateways.close()

    with_database(database_url, work)


def test_a_refund_does_not_wait_behind_charges_that_hang(
    database_url: str, master_key: MasterKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(database: Database) -> None:
        checked, released = asyncio.Event(), asyncio.Event()

        async def hang(charging: Charging, shop_id: int, subscription_id: str) -> None:
            await released.wait()

        async def check(charging: Charging, shop_id: int, payment_id: str) -> None:
            checked.set()

        monkeypatch.setattr(renewals, "process_due_subscription", hang)
        monkeypatch.setattr(renewals, "check_payment", check)
        clock = MovedClock()
        shop_id = await _new_shop(database, master_key)
        charging = await billing_of(database, master_key, clock, MovedClock())
        for _ in range(AT_ONCE + 10):
            await actions.create_subscription(
                charging, IdGenerators(), shop_id, wanted(sandbox.SUCCESSFUL), None, lambda each: each.id.encode()
            )
        clock.moment += 40 * 24 * HOUR
        delivery: Any = SimpleNamespace(backoff_seconds=lambda: 0.0, wait=_nothing, is_idle=True)
        worker = BillingWorker(database, replace(charging, lease_milliseconds=10**13), delivery, clock)
        await worker.round(clock.now())
        await worker.round(clock.now())
        await database.write(lambda tx: tx.run("UPDATE payments SET check_at = 1 WHERE shop_id = :id", {"id": shop_id}))
        await worker.round(clock.now())
        async with asyncio.timeout(10):
            await checked.wait()
        released.set()
        await worker.finish()
        await charging.gateways.close()

    with_database(database_url, work)


# Idempotency


def test_a_key_is_running_for_as_long_as_its_gateway_may_take(database_url: str, master_key: MasterKey) -> None:
    """With a gateway that may take 90 seconds, a retry at 61 is still 409; and a dead attempt shows what became of it."""

    async def work(database: Database) -> None:
        clock, real_clock = MovedClock(), MovedClock()
        shop_id = await _new_shop(database, master_key)
        charging = await billing_of(database, master_key, clock, real_clock)
        object.__setattr__(charging, "gateway_timeout_seconds", 90)
        attempt = idempotency_key_of("key", "POST /subscriptions", b"{}", master_key.fingerprint)
        gate = asyncio.Event()
        gateway: Any = charging.gateways.sandbox
        gateway.stop = gate.wait
        encode: Callable[[Subscription], bytes] = lambda each: f'"{each.billing_state.state}"'.encode()  # noqa: E731

        async def create() -> bytes:
            answer = await actions.create_subscription(
                charging, IdGenerators(), shop_id, wanted(sandbox.SUCCESSFUL), attempt, encode
            )
            return answer.body

        first = asyncio.create_task(create())
        while await only_subscription(database, shop_id) is None:
            await asyncio.sleep(0.01)
        for seconds in (1, 61, 90):
            real_clock.moment += seconds * 1000 - (real_clock.moment - MovedClock().moment)
            with pytest.raises(StillRunning):
                await create()
        clock.moment += 50 * HOUR  # the clock is moved meanwhile
        with pytest.raises(StillRunning):
            await create()
        clock.moment -= 50 * HOUR
        first.cancel()  # as if the process had died
        await asyncio.gather(first, return_exceptions=True)
        real_clock.moment += 600_000
        assert await create() == b'"processing"'
        gateway.stop = _nothing
        await work_until_settled(charging, clock, real_clock, shop_id, HOUR)
        assert await create() == b'"failed"'
        await charging.gateways.close()

    with_database(database_url, work)
