"""Money moves here, and nowhere else.

Write down what is about to be done, commit; call the gateway with no transaction open; write down the outcome, commit.
Killed anywhere, the next round finds no payment (and charges), a payment without outcome (and looks it up by our own
id before anything else), or an outcome (and goes on). The index ``payments_once`` has the last word.

No success of the gateway is dropped, however late it is learnt. It counts while the subscription waits for that payment.
Otherwise the subscription is over, or another payment pays the period: then the payment is recorded and refunded.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Final
from zoneinfo import ZoneInfo

import msgspec
import structlog

from ecomcharge.base.clock import Clock, SystemClock
from ecomcharge.base.errors import EcomchargeError, ShopClosed
from ecomcharge.base.ids import uuid_at
from ecomcharge.customers import store as customers
from ecomcharge.gateways import base
from ecomcharge.gateways.base import Card, CardDetails, Gateway, Order, Result
from ecomcharge.gateways.begateway import TIMEOUT_SECONDS
from ecomcharge.gateways.registry import GatewayRegistry
from ecomcharge.payments import model as payments_model
from ecomcharge.payments import store as payments
from ecomcharge.payments.model import ABSENT, LIVE, PENDING, RECHECK_AFTER, REFUNDING, UNSUCCESSFUL, Payment
from ecomcharge.plans.model import Plan, description_of, terms_of
from ecomcharge.plans.terms import Terms
from ecomcharge.shops import store as shops
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.subscriptions import closed_shops, lifecycle, store
from ecomcharge.subscriptions.lifecycle import BillingState, Transition
from ecomcharge.subscriptions.model import Subscription
from ecomcharge.subscriptions.notifications import EventRecorder

log = structlog.get_logger()

LOOK_AGAIN_MILLISECONDS: Final = 60_000
SELDOM_MILLISECONDS: Final = 60 * 60 * 1000  # how far look-ups of one payment come to lie apart
GIVE_UP_MILLISECONDS: Final = 15 * 60 * 1000  # a charge that the gateway does not know after this will not arrive any more
CHECK_AGAIN_MILLISECONDS: Final = 10 * 60 * 1000  # a check or a refund whose process died is done again after this
CHECKS: Final = 7 * 24  # hourly look-ups of a payment that ended and whose outcome the gateway does not tell; then daily ones
REFUND_ATTEMPTS: Final = 5  # refusals of a refund; then the operator has to see to it
MARGIN_MILLISECONDS: Final = 5_000  # between the end of a call of the gateway and the end of the lease, at most
SETTLING_SECONDS: Final = 60.0  # how long a request may take apart from the gateway's calls


class StaleVersion(Exception):
    """Somebody changed the subscription since it was read: read it again."""


class _SettledBefore(Exception):
    """Somebody else wrote down the outcome of this payment since it was read: read it again."""


@dataclass(frozen=True, slots=True)
class StartedCharge:
    """A charge that begins: the subscription and the payment, which are written in one transaction.

    ``leased_until`` (UTC milliseconds of the real clock) is when another process may take the charge for lost. Nothing is
    sent to the gateway afterwards.
    """

    subscription: Subscription
    payment: Payment
    leased_until: int


def _ignore_outcome(outcome: str, first: bool) -> None:
    """For those who count nothing."""


@dataclass(frozen=True, slots=True)
class Charging:
    """Charges subscriptions and writes down what became of it.

    ``zone`` is the time zone of the calendar, of retries and of nights. ``real_clock`` is the one that leases run by, also in
    a sandbox.
    ``time_limit`` ends a call of the gateway after so many seconds with ``TimeoutError``. ``on_outcome`` is called with each
    payment's status once it is committed, and whether it is of a first charge.
    """

    database: Database
    gateways: GatewayRegistry
    event_recorder: EventRecorder
    clock: Clock
    zone: ZoneInfo
    lease_milliseconds: int = 120_000
    real_clock: Clock = SystemClock()  # noqa: RUF009 - it has no state
    gateway_timeout_seconds: float = TIMEOUT_SECONDS
    time_limit: Callable[[float], AbstractAsyncContextManager[object]] = asyncio.timeout
    on_outcome: Callable[[str, bool], None] = _ignore_outcome

    def terms(self, subscription: Subscription) -> Terms:
        return self.terms_of_plan(subscription.plan)

    def terms_of_plan(self, plan: Plan) -> Terms:
        return terms_of(plan, self.zone)

    def lease(self) -> int:
        """Until when what is begun now is nobody else's, in milliseconds of the real clock."""
        return self.real_clock.now() + self.lease_milliseconds

    @property
    def request_milliseconds(self) -> int:
        """How long a request that charges a card may take: its charge, the refund of one that came too late, and the rest."""
        return round((2 * self.gateway_timeout_seconds + SETTLING_SECONDS) * 1000)

    # What is due

    async def work(self, shop_id: int, subscription_id: str) -> None:
        """Do what is due of a subscription that was claimed. Where somebody else changed it, it is left to the next round."""
        now = self.clock.now()
        subscription = await store.find(self.database, shop_id, subscription_id)
        if subscription is None or subscription.billing_state.due_at is None or subscription.billing_state.due_at > now:
            return
        billing_state = subscription.billing_state
        try:
            if await self._is_parked(subscription):
                return
            if billing_state.state in lifecycle.UNDER_WAY or billing_state.state == lifecycle.CANCELED:
                await self._follow_up(subscription, now)
            elif billing_state.state == lifecycle.REDIRECTING:
                await self._expire(subscription, now)
            elif lifecycle.cycles_are_over(billing_state, self.terms(subscription)):
                await self._write(subscription, lifecycle.ended(billing_state, now), now)
            else:
                await self._renew(subscription, now)
        except StaleVersion:
            return
        except ShopClosed:  # since it was looked at
            await closed_shops.park(self.database, shop_id, subscription_id, subscription.version)

    async def _is_parked(self, subscription: Subscription) -> bool:
        """Put the due date aside if the shop is closed. A charge under way is still followed to its outcome."""
        if await shops.is_open(self.database, subscription.shop_id) or await self._live_payment(subscription) is not None:
            return False
        return await closed_shops.park(self.database, subscription.shop_id, subscription.id, subscription.version)

    async def require_open_shop(self, tx: Transaction, shop_id: int) -> None:
        """Raises ``ShopClosed``. Nothing that leads to a charge begins in a closed shop, and none closes before this commits."""
        if not await shops.lock_open_shop(tx, shop_id, self.database.engine):
            raise ShopClosed

    async def _renew(self, subscription: Subscription, now: int) -> None:
        billing_state = subscription.billing_state
        charge_at = lifecycle.charge_time(self.terms(subscription), now)
        if charge_at > now:  # it came due by day, and nobody came before the night
            await self._write_state(subscription, lifecycle.waiting(billing_state, charge_at))
            return

        async def unit(tx: Transaction) -> StartedCharge:
            return await self.write_started(tx, self.start_charge(subscription, now))

        started = await self.database.write(unit)
        token = subscription.card_token
        if token is None:  # the gateway took the first payment and gave no token, as one does that is not set up for it
            await self.record_outcome(started.subscription, started.payment, Result(base.FAILED, base.NO_TOKEN_MESSAGE))
        else:
            await self.charge(started, token, recurring=billing_state.period > 0)

    async def _follow_up(self, subscription: Subscription, now: int) -> None:
        """A charge whose outcome nobody wrote down: ask the gateway before anything else."""
        payment = await self._live_payment(subscription)
        if payment is None:  # only of a canceled one: its charge was settled and nothing is left to do
            await self._write_state(subscription, lifecycle.at_rest(subscription.billing_state))
            return
        result = await self.look_up(subscription.shop_id, payment)
        if result is not None and result.status == base.INCOMPLETE and payment.status == base.INCOMPLETE:
            await self._wait_for_challenge(subscription, payment, now)
        elif result is not None and result.status != base.UNKNOWN:
            await self.record_outcome(subscription, payment, result)
        elif result is not None or now < payment.created_at + GIVE_UP_MILLISECONDS:
            age = now - payment.created_at
            if age >= SELDOM_MILLISECONDS:
                log.warning("outcome still unknown", shop=subscription.shop_id, subscription=subscription.id, payment=payment.id)
            again_at = now + min(SELDOM_MILLISECONDS, max(LOOK_AGAIN_MILLISECONDS, age))
            await self._write_state(
                subscription, lifecycle.unanswered(subscription.billing_state, self.terms(subscription), again_at)
            )
        elif payment.status == PENDING:
            await self.record_outcome(subscription, payment, Result(ABSENT, base.NOT_SENT_MESSAGE))
        else:
            await self.record_outcome(subscription, payment, Result(base.ERROR, base.TIMEOUT_MESSAGE))

    async def _wait_for_challenge(self, subscription: Subscription, payment: Payment, now: int) -> None:
        """The subscription was canceled while its buyer was at the 3-D Secure step: look again until that step is closed."""
        ends_at = payment.created_at + lifecycle.TOKEN_LIVES
        if now >= ends_at:
            await self.record_outcome(subscription, payment, Result(payments_model.EXPIRED, base.EXPIRED_MESSAGE))
        else:
            again_at = min(ends_at, now + SELDOM_MILLISECONDS)
            await self._write_state(subscription, lifecycle.waiting(subscription.billing_state, again_at))

    async def expire(self, subscription: Subscription) -> Subscription:
        """End a subscription whose buyer did not come in time; the subscription as it is then."""
        with contextlib.suppress(StaleVersion):
            await self._expire(subscription, self.clock.now())
        return await self._reload(subscription)

    async def _expire(self, subscription: Subscription, now: int) -> None:
        """The buyer's day is over, unless 3-D Secure was passed at the last moment and nobody told us."""
        payment = await self._live_payment(subscription)
        if payment is not None:
            result = await self.look_up(subscription.shop_id, payment)
            if result is not None and result.status == base.UNKNOWN:
                await self._write_state(
                    subscription, lifecycle.waiting(subscription.billing_state, now + LOOK_AGAIN_MILLISECONDS)
                )
                return
            if result is not None and result.status != base.INCOMPLETE:
                await self.record_outcome(subscription, payment, result)
                return
            await self.record_outcome(subscription, payment, Result(payments_model.EXPIRED, base.EXPIRED_MESSAGE))
            return
        await self._write(subscription, lifecycle.expired(subscription.billing_state), now)

    # A charge, step by step

    def start_charge(self, subscription: Subscription, now: int) -> StartedCharge:
        """The next charge of a subscription, to be written with ``write_started`` and then made with ``charge``."""
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
        return StartedCharge(msgspec.structs.replace(subscription, billing_state=charging), payment, self.lease())

    async def write_started(self, tx: Transaction, started: StartedCharge) -> StartedCharge:
        """Write a charge that begins; the same as it is in the database then.

        Raises ``StaleVersion`` when somebody changed the subscription, or began this charge, since it was read, and ``ShopClosed``.
        """
        await self.require_open_shop(tx, started.subscription.shop_id)
        if not await store.update(tx, started.subscription, started.leased_until):
            raise StaleVersion
        if not await payments.insert(tx, started.subscription.shop_id, started.payment):
            raise StaleVersion
        return replace(started, subscription=as_written(started.subscription))

    async def charge_at_once(self, started: StartedCharge, card: CardDetails | str) -> Subscription:
        """Charge what a request wrote; the subscription as far as it is known then.

        Never raises for what goes wrong after the commit: the money may have moved, so the answer must not say that nothing
        happened. What is not settled here is settled by the billing worker.
        """
        try:
            return await self.charge(started, card, recurring=False)
        except Exception as error:
            self._log_left(started.subscription, started.payment, error)
        try:
            return await self._reload(started.subscription)
        except Exception:  # the database is gone
            return started.subscription

    async def charge(self, started: StartedCharge, card: CardDetails | str, *, recurring: bool) -> Subscription:
        """Charge what was begun and written down; the subscription as it stands then.

        Nothing is sent once the lease is over or the subscription was changed, and the call of the gateway ends before the
        lease does: who takes over finds what there is to find.
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
        return await self.record_outcome(subscription, payment, result)

    async def _seconds_to_charge(self, started: StartedCharge) -> float | None:
        """How long the gateway's call may take, or ``None`` where nothing may be sent.

        Nothing may be sent when the claim is lost, or as good as over, when the shop was closed, or when the night has begun for
        a charge that waits for the day. The clock is read last, with nothing between it and the call that could wait.
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
        """What the gateway knows of a payment; ``None`` if it never had it."""
        gateway = await self.gateways.named(payment.gateway, shop_id, payment.gateway_account)
        return await gateway.look_up(shop_id, payment.id, self.clock.now(), amount=payment.amount, currency=payment.currency)

    async def record_outcome(self, subscription: Subscription, payment: Payment, result: Result) -> Subscription:
        """Write down what became of a payment, and what that makes of the subscription; the subscription as it stands then.

        A payment is settled once. After that only a success changes it, which is never dropped: it counts, or is refunded.
        """
        if result.status == base.INCOMPLETE and payment.period > 0:  # nobody is there to pass 3-D Secure at a renewal
            result = replace(result, status=base.FAILED, message=result.message or base.DECLINE_MESSAGE, redirect_url=None)
        while payment.status in LIVE or (payment.status in UNSUCCESSFUL and result.status == base.SUCCESSFUL):
            now = await self.clock.read()
            before = subscription, payment

            async def unit(
                tx: Transaction, now: int = now, before: tuple[Subscription, Payment] = before
            ) -> tuple[Subscription, Payment, Transition]:
                return await self._write_outcome(tx, *before, result, now)

            try:
                subscription, payment, step = await self.database.write(unit)
            except StaleVersion:
                subscription = await self._reload(subscription)
                continue
            except _SettledBefore:
                subscription = await self._reload(subscription)
                payment = await self._reread(subscription.shop_id, payment)
                continue
            self.on_outcome(payment.status, payment.period == 0)
            if step.skipped:
                log.warning(
                    "periods went by uncharged", shop=subscription.shop_id, subscription=subscription.id, periods=step.skipped
                )
            if payment.status == REFUNDING:
                return await self._refund_at_once(subscription, payment)
            return subscription
        if payment.status in UNSUCCESSFUL and payment.check_at is None and result.status in (base.UNKNOWN, base.INCOMPLETE):
            await self._check_later(subscription.shop_id, payment, self.clock.now() + RECHECK_AFTER)
        return subscription

    async def _write_outcome(
        self, tx: Transaction, subscription: Subscription, payment: Payment, result: Result, now: int
    ) -> tuple[Subscription, Payment, Transition]:
        """Raises ``StaleVersion`` or ``_SettledBefore`` when the subscription or the payment was changed since it was read."""
        is_late = payment.status not in LIVE
        status = result.status
        wanted = lifecycle.is_wanted(subscription.billing_state, payment.period)
        if is_late:  # a live payment has no rival: the index payments_once sees to that
            wanted = wanted and not await payments.has_rival(tx, subscription.shop_id, payment)
        if status == base.SUCCESSFUL and not wanted:
            status = REFUNDING if payment.amount else payments_model.VOIDED
            # After a late success another payment may still be under way, which somebody has to look for.
            ends = subscription.billing_state.state in lifecycle.OVER and not is_late
            step = Transition(lifecycle.at_rest(subscription.billing_state) if ends else subscription.billing_state)
            check_at = now + CHECK_AGAIN_MILLISECONDS if status == REFUNDING else None
        else:
            step = self._step(subscription, payment, result, now)
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
        changed = _after(subscription, step, settled, result.card)
        if not await store.update(tx, changed, None if is_late else 0):
            raise StaleVersion
        if not await payments.write_outcome(tx, changed.shop_id, settled, payment.status):
            raise _SettledBefore
        if step.event is not None:
            await self.event_recorder.record(tx, changed, step.event, now)
        return as_written(changed), settled, step

    def _step(self, subscription: Subscription, payment: Payment, result: Result, now: int) -> Transition:
        billing_state, terms = subscription.billing_state, self.terms(subscription)
        if billing_state.period != payment.period:  # it went on without this payment, which must have been settled before
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

    # What is learnt later

    async def check(self, shop_id: int, payment_id: str) -> None:
        """Do what is due of a payment that was claimed: refund it, or look up once more whether it ended without success."""
        payment = await payments.find(self.database, shop_id, payment_id)
        if payment is None:
            return
        subscription = await store.find(self.database, shop_id, payment.subscription_id)
        assert subscription is not None
        if payment.status == REFUNDING:
            await self.refund(subscription, payment)
        elif payment.status in UNSUCCESSFUL:
            await self._look_once_more(subscription, payment)
        else:
            await self._check_later(shop_id, payment, None)

    async def _look_once_more(self, subscription: Subscription, payment: Payment) -> None:
        now = self.clock.now()
        result = await self.look_up(subscription.shop_id, payment)
        if result is not None and result.status == base.SUCCESSFUL:
            log.warning("a success came late", shop=subscription.shop_id, subscription=subscription.id, payment=payment.id)
            await self.record_outcome(subscription, payment, result)
            return
        is_long = payment.check_attempts >= CHECKS
        again_at = None
        if result is not None and (result.status == base.UNKNOWN or (result.status == base.INCOMPLETE and not is_long)):
            again_at = now + (RECHECK_AFTER if is_long else SELDOM_MILLISECONDS)
            if is_long:
                log.error("outcome still unknown", shop=subscription.shop_id, subscription=subscription.id, payment=payment.id)
        await self._check_later(subscription.shop_id, payment, again_at, attempts=payment.check_attempts + 1)

    async def _refund_at_once(self, subscription: Subscription, payment: Payment) -> Subscription:
        """Never raises for what goes wrong: the billing worker does it again."""
        try:
            return await self.refund(subscription, payment)
        except Exception as error:
            self._log_left(subscription, payment, error)
            return subscription

    async def refund(self, subscription: Subscription, payment: Payment) -> Subscription:
        """Give back a payment that is ``refunding``; the subscription as it stands then."""
        gateway = await self.gateways.named(payment.gateway, subscription.shop_id, payment.gateway_account)
        result = await gateway.refund(
            subscription.shop_id,
            payment.id,
            payment.uid,
            self.clock.now(),
            amount=payment.amount,
            currency=payment.currency,
            attempt=payment.check_attempts + 1,
        )
        now = await self.clock.read()
        about = {"shop": subscription.shop_id, "subscription": subscription.id, "payment": payment.id}
        log.warning("refund of a payment that came too late", status=result.status, **about)
        if result.status == base.SUCCESSFUL:
            return await self._write_refund(subscription, payment, payments_model.REFUNDED, lifecycle.REFUNDED_EVENT, now)
        if result.status == base.UNKNOWN:
            age = now - (payment.settled_at or now)
            again_at = now + min(SELDOM_MILLISECONDS, max(CHECK_AGAIN_MILLISECONDS, age))
            await self._check_later(subscription.shop_id, payment, again_at)
            return subscription
        attempts = payment.check_attempts + 1
        if attempts < REFUND_ATTEMPTS:
            await self._check_later(subscription.shop_id, payment, now + SELDOM_MILLISECONDS, attempts=attempts)
            return subscription
        log.error("refund failed: give the money back by hand", reason=result.message, **about)
        return await self._write_refund(subscription, payment, payments_model.REFUND_FAILED, lifecycle.REFUND_FAILED_EVENT, now)

    async def _write_refund(
        self, subscription: Subscription, payment: Payment, status: str, event: str, now: int
    ) -> Subscription:
        """Write how a refund ended, once, and tell the merchant."""
        ended = msgspec.structs.replace(payment, status=status, settled_at=now, check_at=None)
        while True:
            changed = _after(subscription, Transition(subscription.billing_state, event), ended)

            async def unit(tx: Transaction, changed: Subscription = changed, earlier_status: str = payment.status) -> None:
                if not await store.update(tx, changed, None):
                    raise StaleVersion
                if not await payments.write_outcome(tx, changed.shop_id, ended, earlier_status):
                    raise _SettledBefore
                await self.event_recorder.record(tx, changed, event, now)

            try:
                await self.database.write(unit)
                self.on_outcome(status, payment.period == 0)
                return as_written(changed)
            except StaleVersion:
                subscription = await self._reload(subscription)
            except _SettledBefore:
                subscription = await self._reload(subscription)
                payment = await self._reread(subscription.shop_id, payment)
                if (payment.status, status) != (payments_model.REFUND_FAILED, payments_model.REFUNDED):
                    return subscription

    async def _check_later(self, shop_id: int, payment: Payment, check_at: int | None, attempts: int | None = None) -> None:
        """``attempts`` is how often the check came to nothing, where that has risen."""
        counted = payment.check_attempts if attempts is None else attempts
        later = msgspec.structs.replace(payment, check_at=check_at, check_attempts=counted)

        async def unit(tx: Transaction) -> None:
            await payments.check_later(tx, shop_id, later)

        await self.database.write(unit)

    # The rest

    async def _write(self, subscription: Subscription, step: Transition, now: int) -> Subscription:
        """Raises ``StaleVersion``."""
        changed = _after(subscription, step)

        async def unit(tx: Transaction) -> None:
            if not await store.update(tx, changed):
                raise StaleVersion
            if step.event is not None:
                await self.event_recorder.record(tx, changed, step.event, now)

        await self.database.write(unit)
        return as_written(changed)

    async def _write_state(self, subscription: Subscription, billing_state: BillingState) -> None:
        """Write a standing that tells nobody anything. Raises ``StaleVersion``."""
        await self._write(subscription, Transition(billing_state), 0)

    async def _live_payment(self, subscription: Subscription) -> Payment | None:
        return await payments.live(self.database, subscription.shop_id, subscription.id, subscription.billing_state.period)

    async def _reload(self, subscription: Subscription) -> Subscription:
        found = await store.find(self.database, subscription.shop_id, subscription.id)
        assert found is not None
        return found

    async def _reread(self, shop_id: int, payment: Payment) -> Payment:
        found = await payments.find(self.database, shop_id, payment.id)
        assert found is not None
        return found

    def _log_left(self, subscription: Subscription, payment: Payment, error: Exception) -> None:
        about = {"shop": subscription.shop_id, "subscription": subscription.id, "payment": payment.id}
        if isinstance(error, EcomchargeError):
            log.warning("a charge is left to the billing worker", reason=error.code, **about)
        else:
            log.exception("a charge is left to the billing worker", **about)

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


def _after(
    subscription: Subscription, step: Transition, payment: Payment | None = None, card: Card | None = None
) -> Subscription:
    changed = msgspec.structs.replace(
        subscription, billing_state=step.billing_state, sequence=subscription.sequence + (1 if step.event is not None else 0)
    )
    if payment is not None:
        told = msgspec.json.encode(payments_model.to_json(payment)).decode()
        changed = msgspec.structs.replace(changed, last_transaction=told)
    if card is not None:
        if subscription.checkout_token is not None:  # typed into our page: the merchant does not see these two [P]
            card = msgspec.structs.replace(card, stamp=None, bin=None)
        changed = msgspec.structs.replace(changed, card=msgspec.json.encode(card).decode())
    return changed


def as_written(subscription: Subscription) -> Subscription:
    """As it is in the database after ``store.update``."""
    return msgspec.structs.replace(subscription, version=subscription.version + 1)
