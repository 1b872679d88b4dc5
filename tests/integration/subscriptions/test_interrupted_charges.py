"""Charges that are interrupted at each of their steps."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import apsw
import msgspec
import pytest

from ecomcharge.base.clock import Clock, SystemClock
from ecomcharge.base.errors import StillRunning, Unavailable
from ecomcharge.customers.model import CustomerFields
from ecomcharge.gateways import sandbox
from ecomcharge.gateways.base import CardDetails, Order, Result
from ecomcharge.gateways.registry import GatewayRegistry
from ecomcharge.payments import store as payments
from ecomcharge.plans.model import PlanFields, Price
from ecomcharge.runtime.billing_worker import AT_ONCE, BillingWorker
from ecomcharge.shops.actions import close_shop, create_shop
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database
from ecomcharge.storage.migrate import migrate
from ecomcharge.storage.opening import open_database
from ecomcharge.storage.postgres import database as postgres_database
from ecomcharge.storage.postgres.connecting import TimeLimits
from ecomcharge.storage.sqlite import connection as sqlite_connection
from ecomcharge.storage.sqlite import writer as sqlite_writer
from ecomcharge.subscriptions import actions, buyer_actions, closed_shops, renewals, store
from ecomcharge.subscriptions.actions import IdGenerators
from ecomcharge.subscriptions.charging import Charging
from ecomcharge.subscriptions.model import EMPTY_OBJECT, Subscription
from ecomcharge.subscriptions.notifications import EventRecorder
from ecomcharge.subscriptions.requests import SubscriptionRequest
from ecomcharge.web.idempotency import idempotency_key_of
from support.postgres import PostgresServer
from support.shops import with_database
from support.simulation.faults import MovedClock

NUMBER_OF = {behaviour: number for number, behaviour in sandbox.TEST_CARDS.items()}


class Gateway(sandbox.SandboxGateway):
    """The sandbox gateway with an interruption before and after it records a charge."""

    stop: Callable[[], Awaitable[None]]

    async def charge(self, order: Order, card: CardDetails | str, now: int) -> Result:
        await self.stop()
        result = await super().charge(order, card, now)
        await self.stop()
        return result


class StoppingDatabase:
    """A database that runs ``at_interruption`` at its nth step before it continues."""

    def __init__(self, inner: Database, at_step: int, at_interruption: Callable[[], Awaitable[None]]) -> None:
        self._inner = inner
        self._at_step = at_step
        self._at_interruption = at_interruption
        self.steps = 0

    async def stop(self) -> None:
        self.steps += 1
        if self.steps == self._at_step:
            await self._at_interruption()

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
    database: Database, master_key: MasterKey, clock: Clock, real_clock: Clock, stopping: StoppingDatabase | None = None
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
    found = await store.Subscriptions(database, shop_id, store.Filter()).select(10)
    return found[0] if found else None


HOUR = 60 * 60 * 1000


async def work_until_settled(
    charging: Charging, clock: MovedClock, real_clock: MovedClock, shop_id: int, milliseconds: int = 48 * HOUR
) -> Subscription:
    """Run the worker for two days: every five minutes at first, then every hour."""
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
def test_a_charge_interrupted_at_any_step_leaves_consistent_records(
    database_url: str, master_key: MasterKey, what: str, renewal: bool
) -> None:
    """The interruption is a cancel, or a pause of a day in which another process continues the charge."""

    async def one(database: Database, at_step: int) -> int:
        clock, real_clock = MovedClock(), MovedClock()
        credentials = await _new_shop(database, master_key)
        other = await billing_of(database, master_key, clock, real_clock)

        async def at_interruption() -> None:
            subscription = await only_subscription(database, credentials)
            if subscription is None:
                return
            if what == "cancel":
                await actions.cancel_subscription(other, credentials, subscription.id, "enough")
            else:
                await work_until_settled(other, clock, real_clock, credentials)

        stopping = StoppingDatabase(database, at_step, at_interruption)
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
    """Create a subscription to a plan that is charged by day only, with the token of a card used before."""
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
def test_an_unsent_first_charge_by_token_is_sent_later(database_url: str, master_key: MasterKey, what: str) -> None:
    async def work(database: Database) -> None:
        clock, real_clock = MovedClock(), MovedClock()
        shop_id = await _new_shop(database, master_key)
        charging = await billing_of(database, master_key, clock, real_clock)
        clock.moment += 3 * HOUR  # 03:00
        by_token = await _by_token(database, charging, shop_id)
        await actions.create_subscription(charging, IdGenerators(), shop_id, by_token, None, lambda each: each.id.encode())
        [waiting] = await store.Subscriptions(database, shop_id, store.Filter(state="pending")).select(10)

        async def at_interruption() -> None:
            if what == "killed":
                raise asyncio.CancelledError
            if what == "closed":
                await close_shop(database, clock.now(), shop_id=shop_id)
            else:
                clock.moment += 13 * HOUR

        clock.moment += 5 * HOUR
        stopping = StoppingDatabase(database, 5, at_interruption)  # after the charge was written
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


def test_an_expired_page_refuses_cards_before_a_worker_has_run(database_url: str, master_key: MasterKey) -> None:
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
        assert await buyer_actions.pay(charging, IdGenerators(), subscription.checkout_token, card, {}) is None
        assert [row async for row in _charges(database, shop_id)] == []
        await charging.gateways.close()

    with_database(database_url, work)


def test_a_refund_does_not_wait_for_hanging_charges(
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


def test_an_idempotency_key_is_in_progress_for_the_gateways_time_limit(database_url: str, master_key: MasterKey) -> None:
    """With a gateway limit of 90 seconds, a retry after 61 gets 409. A retry after the process died gets the outcome."""

    async def work(database: Database) -> None:
        clock, real_clock = MovedClock(), MovedClock()
        shop_id = await _new_shop(database, master_key)
        charging = await billing_of(database, master_key, clock, real_clock)
        object.__setattr__(charging, "gateway_timeout_seconds", 90)
        attempt = idempotency_key_of("key", "POST /subscriptions", b"{}", master_key.fingerprints)
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
        clock.moment += 50 * HOUR  # the clock is moved during the charge
        with pytest.raises(StillRunning):
            await create()
        clock.moment -= 50 * HOUR
        first.cancel()  # simulates the death of the process
        await asyncio.gather(first, return_exceptions=True)
        real_clock.moment += 600_000
        assert await create() == b'"processing"'
        gateway.stop = _nothing
        await work_until_settled(charging, clock, real_clock, shop_id, HOUR)
        assert await create() == b'"failed"'
        await charging.gateways.close()

    with_database(database_url, work)


def test_an_answer_does_not_wait_for_a_database_that_fails_during_the_charge(
    engine: str, database_url: str, request: pytest.FixtureRequest, master_key: MasterKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to a repeated request is stored when the database is back."""
    limits = TimeLimits(statement_seconds=1.0, list_seconds=1.0, recovery_seconds=0.8)
    monkeypatch.setattr(postgres_database, "OF_REQUESTS", limits)
    monkeypatch.setattr(sqlite_writer, "BUSY_TIMEOUT_MILLISECONDS", 1000)
    monkeypatch.setattr(sqlite_connection, "BUSY_TIMEOUT_MILLISECONDS", 1000)

    @contextlib.contextmanager
    def outage() -> Iterator[None]:
        if engine == "postgresql":
            server: PostgresServer = request.getfixturevalue("postgres")
            server.freeze()
            yield
            server.thaw()
        else:
            with contextlib.closing(apsw.Connection(database_url.removeprefix("sqlite:///"))) as other:
                other.execute("BEGIN IMMEDIATE")
                yield

    async def work() -> None:
        database = await open_database(database_url, for_requests=True)
        await migrate(database)
        shop_id = await _new_shop(database, master_key)
        charging = await billing_of(database, master_key, SystemClock(), SystemClock())
        key = idempotency_key_of("key", "POST /subscriptions", b"{}", master_key.fingerprints)
        encode: Callable[[Subscription], bytes] = lambda each: f'"{each.billing_state.state}"'.encode()  # noqa: E731
        ids, requested = IdGenerators(), wanted(sandbox.SUCCESSFUL)
        create = functools.partial(actions.create_subscription, charging, ids, shop_id, requested, key, encode)
        gateway: Any = charging.gateways.sandbox
        called = 0

        async def fail_after_the_charge() -> None:
            nonlocal called
            called += 1
            if called == 2:
                failure.enter_context(outage())

        gateway.stop = fail_after_the_charge
        with contextlib.ExitStack() as failure:
            started = time.monotonic()
            first = await create()
            seconds = time.monotonic() - started
        assert (first.status, first.body, first.replayed) == (201, b'"processing"', False)
        assert seconds < 2.5
        async with asyncio.timeout(10):
            while True:
                try:
                    second = await create()
                    break
                except (StillRunning, Unavailable) as error:
                    await asyncio.sleep(error.retry_after_seconds)
        assert (second.status, second.body, second.replayed, second.final) == (201, b'"processing"', True, True)
        assert called == 2
        await charging.unfinished.close()
        await charging.gateways.close()
        await database.close()

    asyncio.run(work())
