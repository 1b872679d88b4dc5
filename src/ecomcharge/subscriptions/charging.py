"""Charges of subscriptions. Only this module and ``refunds`` ask a gateway to move money.

A charge has three steps: record the attempt and commit; call the gateway with no transaction open; record the outcome and
commit. A process can die between any two steps. The billing worker then finds no payment (and charges), a payment without
an outcome (and asks the gateway for it by our own id first), or an outcome (and goes on). The unique index
``payments_once`` refuses a second payment of a period.

No success of the gateway is dropped, however late it is known. It counts while the subscription waits for that payment.
Otherwise the subscription has ended, or another payment pays the period: the payment is recorded and refunded.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Final
from zoneinfo import ZoneInfo

import msgspec
import structlog

from ecomcharge.base.clock import Clock, SystemClock
from ecomcharge.base.errors import EcomchargeError, ShopClosed
from ecomcharge.base.ids import uuid_at
from ecomcharge.customers import store as customers
from ecomcharge.gateways import base, sandbox
from ecomcharge.gateways.base import CardDetails, Gateway, Order, Result
from ecomcharge.gateways.registry import GatewayRegistry
from ecomcharge.payments import model as payments_model
from ecomcharge.payments import store as payments
from ecomcharge.payments.model import ABSENT, LIVE, PENDING, RECHECK_AFTER, REFUNDING, UNSUCCESSFUL, Payment
from ecomcharge.plans.model import Plan, description_of, terms_of
from ecomcharge.plans.terms import Terms
from ecomcharge.shops import store as shops
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.storage.records import StaleVersion
from ecomcharge.subscriptions import lifecycle, store
from ecomcharge.subscriptions.changes import after_update, apply_transition
from ecomcharge.subscriptions.lifecycle import BillingState, Transition
from ecomcharge.subscriptions.model import Subscription
from ecomcharge.subscriptions.notifications import EventRecorder
from ecomcharge.subscriptions.personal_data import message_of_status
from ecomcharge.subscriptions.refunds import (
    CHECK_AGAIN_MILLISECONDS,
    PaymentChanged,
    Refunds,
    ignore_outcome,
    log_deferred,
)
from ecomcharge.subscriptions.unfinished import UnfinishedRequests

log = structlog.get_logger()

LOOK_AGAIN_MILLISECONDS: Final = 60_000
MARGIN_MILLISECONDS: Final = 5_000  # longest time between the deadline of a gateway call and the end of the lease
SETTLING_SECONDS: Final = 60.0  # longest time of a request outside the calls of the gateway
# How long an answer waits for each thing that it could do without. One failed COMMIT alone takes nine of its ten seconds.
EXTRA_SECONDS: Final = 0.4


@dataclass(frozen=True, slots=True)
class StartedCharge:
    """A charge that starts: the subscription and the payment, which one transaction writes.

    Until ``leased_until`` (UTC milliseconds of the real clock) no other process takes the charge over, and after it
    nothing is sent to the gateway.
    """

    subscription: Subscription
    payment: Payment
    leased_until: int


@dataclass(frozen=True, slots=True)
class Charging:
    """Charges subscriptions and records the outcomes.

    ``zone`` is the time zone of the calendar, of retries and of nights. ``real_clock`` measures leases, also in a sandbox.
    ``time_limit`` ends a call of the gateway with ``TimeoutError`` after the given seconds. ``on_outcome`` is called after
    each commit with the status of the payment and whether it is a first charge. ``unfinished`` has the work of requests that
    were answered while the database failed.
    """

    database: Database
    gateways: GatewayRegistry
    event_recorder: EventRecorder
    clock: Clock
    zone: ZoneInfo
    lease_milliseconds: int = 120_000
    real_clock: Clock = SystemClock()  # noqa: RUF009 - it has no state
    gateway_timeout_seconds: float = base.TIMEOUT_SECONDS
    time_limit: Callable[[float], AbstractAsyncContextManager[object]] = asyncio.timeout
    on_outcome: Callable[[str, bool], None] = ignore_outcome
    unfinished: UnfinishedRequests = field(default_factory=UnfinishedRequests)

    @property
    def refunds(self) -> Refunds:
        return Refunds(self.database, self.gateways, self.event_recorder, self.clock, self.on_outcome)

    def terms(self, subscription: Subscription) -> Terms:
        return self.terms_of_plan(subscription.plan)

    def terms_of_plan(self, plan: Plan) -> Terms:
        return terms_of(plan, self.zone)

    def new_lease(self) -> int:
        """When a lease that starts now ends, in milliseconds of the real clock."""
        return self.real_clock.now() + self.lease_milliseconds

    @property
    def request_milliseconds(self) -> int:
        """The longest time of a request that charges a card: the charge, the refund of a late success, and the rest."""
        return round((2 * self.gateway_timeout_seconds + SETTLING_SECONDS) * 1000)

    async def require_open_shop(self, tx: Transaction, shop_id: int) -> None:
        """Raise ``ShopClosed`` if the shop is closed, and keep it open until this transaction commits."""
        if not await shops.lock_open_shop(tx, shop_id, self.database.engine):
            raise ShopClosed

    # The steps of a charge

    def start_charge(self, subscription: Subscription, now: int) -> StartedCharge:
        """The next charge of a subscription, for ``write_started`` and then ``charge``."""
        terms, billing_state = self.terms(subscription), subscription.billing_state
        payment = Payment(
            id=uuid_at(now),
            subscription_id=subscription.id,
            period=billing_state.period,
            attempt=billing_state.number_failed_payment_attempts + 1,
            amount=lifecycle.amount_due(billing_state, terms),
            currency=subscription.plan.currency,
            gateway=subscription.gateway,
            status=PENDING,
            created_at=now,
            gateway_account=subscription.gateway_account,
        )
        charging = lifecycle.charging(billing_state, terms, now + LOOK_AGAIN_MILLISECONDS)
        return StartedCharge(msgspec.structs.replace(subscription, billing_state=charging), payment, self.new_lease())

    async def write_started(self, tx: Transaction, started: StartedCharge) -> StartedCharge:
        """Write a charge that starts; return it with the subscription as the database then has it.

        Raises ``StaleVersion`` if another process changed the subscription or started this charge, and ``ShopClosed``.
        """
        await self.require_open_shop(tx, started.subscription.shop_id)
        if not await store.update(tx, started.subscription, started.leased_until):
            raise StaleVersion
        if not await payments.insert(tx, started.subscription.shop_id, started.payment):
            raise StaleVersion
        return replace(started, subscription=after_update(started.subscription))

    async def charge_at_once(self, started: StartedCharge, card: CardDetails | str) -> Subscription:
        """Make the charge that a request started; return the subscription as far as its state is known.

        Never raises after the commit: the money may have moved, so the answer must not say that nothing happened. The
        billing worker finishes what fails here.
        """
        try:
            return await self.charge(started, card, recurring=False)
        except Exception as error:
            log_deferred(started.subscription, started.payment, error)
        try:
            async with asyncio.timeout(EXTRA_SECONDS):
                return await store.reload(self.database, started.subscription)
        except Exception:  # the database is unavailable
            return started.subscription

    async def charge_when_written(self, started: StartedCharge, card: CardDetails | str) -> Subscription | None:
        """Make a charge whose COMMIT was in doubt; ``None`` if the database does not report it as committed in time.

        The response asked the client to repeat its request. No other process takes the charge over before the end of its lease,
        and after that end this process sends nothing.
        """
        while self.real_clock.now() < started.leased_until and await self.unfinished.pause():
            with contextlib.suppress(EcomchargeError):  # the database is unavailable
                if await payments.find(self.database, started.subscription.shop_id, started.payment.id) is not None:
                    return await self.charge_at_once(started, card)
        return None

    async def charge(self, started: StartedCharge, card: CardDetails | str, *, recurring: bool) -> Subscription:
        """Make a charge that was started and committed; return the subscription in its new state.

        Sends nothing after the end of the lease, or if the subscription changed. The call of the gateway ends before the
        lease, so the process that takes over finds every charge that was sent.
        """
        subscription, payment = started.subscription, started.payment
        gateway = await self.gateways.named(payment.gateway, subscription.shop_id, payment.gateway_account)
        order = await self._order(subscription, payment, gateway, recurring=recurring)
        seconds = await self._seconds_to_charge(started)
        if seconds is None:
            return await self.record_outcome(subscription, payment, Result(ABSENT, base.NOT_SENT_MESSAGE))
        try:
            async with self.time_limit(seconds):
                result = await gateway.charge(order, card, self.clock.now())
        except TimeoutError:
            result = Result(base.UNKNOWN, base.TIMEOUT_MESSAGE)
        finally:
            if isinstance(card, CardDetails):
                card.forget()
        return await self.record_outcome(subscription, payment, result)

    async def _seconds_to_charge(self, started: StartedCharge) -> float | None:
        """The deadline of the gateway's call in seconds; ``None`` if nothing may be sent.

        Nothing may be sent when the lease has ended or is about to, when the shop was closed, or at night for a charge that
        waits for the day. The clock is read last: nothing between it and the call can wait.
        """
        subscription = started.subscription
        version = await store.chargeable_version(self.database, subscription.shop_id, subscription.id)
        if version != subscription.version:
            return None
        waits_for_day = subscription.card_token is not None and started.payment.amount > 0
        now = self.clock.now()
        if waits_for_day and lifecycle.charge_time(self.terms(subscription), now) > now:
            return None
        left = started.leased_until - self.real_clock.now()
        left -= min(MARGIN_MILLISECONDS, self.lease_milliseconds // 4)
        return min(self.gateway_timeout_seconds + 1, left / 1000) if left > 0 else None

    async def look_up(self, shop_id: int, payment: Payment) -> Result | None:
        """The outcome of a payment at the gateway; ``None`` if the gateway never received it."""
        gateway = await self.gateways.named(payment.gateway, shop_id, payment.gateway_account)
        return await gateway.look_up(shop_id, payment.id, self.clock.now(), amount=payment.amount, currency=payment.currency)

    async def record_outcome(self, subscription: Subscription, payment: Payment, result: Result) -> Subscription:
        """Record the outcome of a payment and the transition that follows; return the subscription in its new state.

        The outcome of a payment is recorded once. After that only a success changes it: it counts, or it is refunded.
        """
        if result.status == base.INCOMPLETE and payment.period > 0:  # at a renewal no buyer is present to pass 3-D Secure
            result = replace(result, status=base.FAILED, message=result.message or base.DECLINE_MESSAGE, redirect_url=None)
        while payment.status in LIVE or (payment.status in UNSUCCESSFUL and result.status == base.SUCCESSFUL):
            now = await self.clock.read()
            before = subscription, payment

            async def unit(
                tx: Transaction, now: int = now, before: tuple[Subscription, Payment] = before
            ) -> tuple[Subscription, Payment, Transition]:
                return await self._write_outcome(tx, *before, result, now)

            try:
                subscription, payment, transition = await self.database.write(unit)
            except StaleVersion:
                subscription = await store.reload(self.database, subscription)
                continue
            except PaymentChanged:
                subscription = await store.reload(self.database, subscription)
                payment = await payments.reload(self.database, subscription.shop_id, payment)
                continue
            self.on_outcome(payment.status, payment.period == 0)
            if transition.skipped:
                log.warning(
                    "periods are not charged, because the charge is late",
                    shop=subscription.shop_id,
                    subscription=subscription.id,
                    periods=transition.skipped,
                )
            if payment.status == REFUNDING:
                return await self.refunds.refund_at_once(subscription, payment)
            return subscription
        if payment.status in UNSUCCESSFUL and payment.check_at is None and result.status in (base.UNKNOWN, base.INCOMPLETE):
            await self.refunds.check_later(subscription.shop_id, payment, self.clock.now() + RECHECK_AFTER)
        return subscription

    async def _write_outcome(
        self, tx: Transaction, subscription: Subscription, payment: Payment, result: Result, now: int
    ) -> tuple[Subscription, Payment, Transition]:
        """Write the outcome, the transition, and the event if there is one; return the new records and the transition.

        Raises ``StaleVersion`` or ``PaymentChanged`` if the subscription or the payment changed since it was read.
        """
        is_late = payment.status not in LIVE
        status = result.status
        if subscription.erased_customer_id is not None:  # the gateway's own text may name a person
            result = replace(result, message=message_of_status(status) or result.message, redirect_url=None)
        wanted = lifecycle.is_wanted(subscription.billing_state, payment.period)
        if is_late:  # while the payment is in progress, payments_once prevents another one of the period
            wanted = wanted and not await payments.has_rival(tx, subscription.shop_id, payment)
        if status == base.SUCCESSFUL and not wanted:
            status = REFUNDING if payment.amount else payments_model.VOIDED
            # After a late success another payment may still be in progress, and the billing worker must look it up.
            ends = subscription.billing_state.state in lifecycle.OVER and not is_late
            transition = Transition(lifecycle.at_rest(subscription.billing_state) if ends else subscription.billing_state)
            check_at = now + CHECK_AGAIN_MILLISECONDS if status == REFUNDING else None
        else:
            transition = self._transition(subscription, payment, result, now)
            check_at = now + RECHECK_AFTER if status in UNSUCCESSFUL else None
        settled = msgspec.structs.replace(
            payment,
            status=status,
            uid=result.uid or payment.uid,
            message=result.message,
            redirect_url=result.redirect_url,
            settled_at=None if status in LIVE else now,
            check_at=check_at,
            check_attempts=0,
        )
        changed = apply_transition(subscription, transition, settled, result.card)
        if not await store.update(tx, changed, None if is_late else 0):
            raise StaleVersion
        if not await payments.write_outcome(tx, changed.shop_id, settled, payment.status):
            raise PaymentChanged
        if subscription.erased_customer_id is not None:  # the sandbox may have stored the card after the erasure
            await sandbox.clear_cards(tx, subscription.shop_id, [payment.id])
        if transition.event is not None:
            await self.event_recorder.record(tx, changed, transition.event, now)
        return after_update(changed), settled, transition

    def _transition(self, subscription: Subscription, payment: Payment, result: Result, now: int) -> Transition:
        billing_state, terms = subscription.billing_state, self.terms(subscription)
        if billing_state.period != payment.period:  # the subscription went on, so the outcome was recorded before
            return Transition(billing_state)
        match result.status:
            case base.SUCCESSFUL:
                return lifecycle.succeeded(billing_state, terms, now)
            case base.INCOMPLETE:
                return Transition(lifecycle.challenged(billing_state, now))
            case base.FAILED:
                return lifecycle.declined(billing_state, terms, now)
            case base.ERROR:
                return lifecycle.errored(billing_state, terms, now)
            case payments_model.EXPIRED:
                return lifecycle.expired(billing_state)
            case payments_model.ABSENT:
                return lifecycle.forgotten(billing_state, terms, now, has_token=subscription.card_token is not None)
        return Transition(lifecycle.unanswered(billing_state, terms, now + LOOK_AGAIN_MILLISECONDS))

    # Changes without a charge

    async def write_transition(self, subscription: Subscription, transition: Transition, now: int) -> Subscription:
        """Write a transition and its event; return the subscription in its new state. Raises ``StaleVersion``."""
        changed = apply_transition(subscription, transition)

        async def unit(tx: Transaction) -> None:
            if not await store.update(tx, changed):
                raise StaleVersion
            if transition.event is not None:
                await self.event_recorder.record(tx, changed, transition.event, now)

        await self.database.write(unit)
        return after_update(changed)

    async def write_state(self, subscription: Subscription, billing_state: BillingState) -> None:
        """Write a billing state that has no event. Raises ``StaleVersion``."""
        await self.write_transition(subscription, Transition(billing_state), 0)

    async def live_payment(self, subscription: Subscription) -> Payment | None:
        """The payment of the current period that is in progress or successful."""
        return await payments.live(self.database, subscription.shop_id, subscription.id, subscription.billing_state.period)

    async def _order(self, subscription: Subscription, payment: Payment, gateway: Gateway, *, recurring: bool) -> Order:
        customer: dict[str, str | None] = {}
        if subscription.customer_id and gateway is not self.gateways.sandbox:
            found = await customers.find(self.database, subscription.shop_id, subscription.customer_id)
            customer = msgspec.structs.asdict(found) if found else {}
        return Order(
            id=payment.id,
            shop_id=subscription.shop_id,
            amount=payment.amount,
            currency=payment.currency,
            description=description_of(subscription.plan),
            test=subscription.plan.test,
            language=subscription.language,
            return_url=f"{self.event_recorder.base_url}/process/{payment.id}",
            customer=customer,
            descriptor=msgspec.json.decode(subscription.options).get("dynamic_billing_descriptor"),
            recurring=recurring,
        )
