"""Money moves here, and nowhere else.

Write down what is about to be done, commit; call the gateway with no transaction open; write down the outcome, commit.
Killed anywhere, the next round finds no payment (and charges), a payment without outcome (and looks it up by our own
id before anything else), or an outcome (and goes on). The index ``payments_once`` has the last word.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final
from zoneinfo import ZoneInfo

import msgspec
import structlog

from ecomcharge.clock import Clock, SystemClock
from ecomcharge.customers import store as customers
from ecomcharge.gateways import base
from ecomcharge.gateways.base import Card, CardDetails, Gateway, Order, Result
from ecomcharge.gateways.directory import Gateways
from ecomcharge.ids import uuid_at
from ecomcharge.payments import model as payments_model
from ecomcharge.payments import store as payments
from ecomcharge.payments.model import ABSENT, PENDING, Payment
from ecomcharge.plans.model import description_of, terms_of
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.subscriptions import lifecycle, store
from ecomcharge.subscriptions.lifecycle import Standing, Step, Terms
from ecomcharge.subscriptions.model import Subscription
from ecomcharge.webhooks.actions import Teller

log = structlog.get_logger()

LOOK_AGAIN_MILLISECONDS: Final = 60_000
SELDOM_MILLISECONDS: Final = 60 * 60 * 1000  # how far look-ups of one payment come to lie apart
GIVE_UP_MILLISECONDS: Final = 15 * 60 * 1000  # a charge that the gateway does not know after this will not arrive any more


class Changed(Exception):
    """Somebody changed the subscription since it was read: read it again."""


class _SettledBefore(Exception):
    """Somebody else wrote down the outcome of this payment."""


@dataclass(frozen=True, slots=True)
class Billing:
    """Charges subscriptions and writes down what became of it.

    ``zone`` is the time zone of retries and nights. ``real_clock`` is the one that leases run by, also in a sandbox.
    """

    database: Database
    gateways: Gateways
    teller: Teller
    clock: Clock
    zone: ZoneInfo
    lease_milliseconds: int = 120_000
    real_clock: Clock = SystemClock()  # noqa: RUF009 - it has no state

    def terms(self, subscription: Subscription) -> Terms:
        return terms_of(subscription.plan, self.zone)

    def lease(self) -> int:
        """Until when what is begun now is nobody else's, in milliseconds of the real clock."""
        return self.real_clock.now() + self.lease_milliseconds

    # What is due

    async def work(self, shop_id: int, subscription_id: str) -> None:
        """Do what is due of a subscription that was claimed. Where somebody else changed it, it is left to the next round."""
        now = self.clock.now()
        subscription = await store.find(self.database, shop_id, subscription_id)
        if subscription is None or subscription.standing.due_at is None or subscription.standing.due_at > now:
            return
        standing = subscription.standing
        try:
            if standing.state in lifecycle.UNDER_WAY or standing.state == lifecycle.CANCELED:
                await self._follow_up(subscription, now)
            elif standing.state == lifecycle.REDIRECTING:
                await self._expire(subscription, now)
            elif lifecycle.cycles_are_over(standing, self.terms(subscription)):
                await self._write(subscription, lifecycle.ended(standing, now), now)
            else:
                await self._renew(subscription, now)
        except Changed:
            return

    async def _renew(self, subscription: Subscription, now: int) -> None:
        begun, payment = self.begin(subscription, now)

        async def unit(tx: Transaction) -> None:
            await self.write_begun(tx, begun, payment)

        await self.database.write(unit)
        token = subscription.card_token
        if token is None:  # the gateway took the first payment and gave no token, as one does that is not set up for it
            await self.settle(as_written(begun), payment, Result(base.FAILED, base.NO_TOKEN_MESSAGE))
        else:
            await self.carry_out(as_written(begun), payment, token, recurring=True)

    async def _follow_up(self, subscription: Subscription, now: int) -> None:
        """A charge whose outcome nobody wrote down: ask the gateway before anything else."""
        payment = await self._live_payment(subscription)
        if payment is None:  # only of a canceled one: its charge was settled and nothing is left to do
            await self._stand(subscription, lifecycle.at_rest(subscription.standing))
            return
        result = await self.look_up(subscription.shop_id, payment)
        if result is not None and result.status != base.UNKNOWN:
            await self.settle(subscription, payment, result)
        elif result is not None or now < payment.created_at + GIVE_UP_MILLISECONDS:
            age = now - payment.created_at
            if age >= SELDOM_MILLISECONDS:
                log.warning("outcome still unknown", shop=subscription.shop_id, subscription=subscription.id, payment=payment.id)
            again_at = now + min(SELDOM_MILLISECONDS, max(LOOK_AGAIN_MILLISECONDS, age))
            await self._stand(subscription, lifecycle.unanswered(subscription.standing, self.terms(subscription), again_at))
        elif payment.status == PENDING:
            await self.settle(subscription, payment, Result(ABSENT, base.TIMEOUT_MESSAGE))
        else:
            await self.settle(subscription, payment, Result(base.ERROR, base.TIMEOUT_MESSAGE))

    async def _expire(self, subscription: Subscription, now: int) -> None:
        """The buyer's day is over, unless 3-D Secure was passed at the last moment and nobody told us."""
        payment = await self._live_payment(subscription)
        if payment is not None:
            result = await self.look_up(subscription.shop_id, payment)
            if result is not None and result.status == base.UNKNOWN:
                await self._stand(subscription, lifecycle.waiting(subscription.standing, now + LOOK_AGAIN_MILLISECONDS))
                return
            if result is not None and result.status != base.INCOMPLETE:
                await self.settle(subscription, payment, result)
                return
            await self.settle(subscription, payment, Result(payments_model.EXPIRED, base.EXPIRED_MESSAGE))
            return
        await self._write(subscription, lifecycle.expired(subscription.standing), now)

    # A charge, step by step

    def begin(self, subscription: Subscription, now: int) -> tuple[Subscription, Payment]:
        """The subscription as its next charge begins, and the payment that is to be written down with it."""
        terms, standing = self.terms(subscription), subscription.standing
        payment = Payment(
            id=uuid_at(now),
            subscription_id=subscription.id,
            period=standing.period,
            attempt=standing.number_failed_payment_attempts + 1,
            amount=lifecycle.amount_due(standing, terms),
            currency=subscription.plan.currency,
            gateway=subscription.gateway,
            status=PENDING,
            created_at=now,
        )
        charging = lifecycle.charging(standing, terms, now + LOOK_AGAIN_MILLISECONDS)
        return msgspec.structs.replace(subscription, standing=charging), payment

    async def write_begun(self, tx: Transaction, subscription: Subscription, payment: Payment) -> None:
        """Raises ``Changed`` when somebody changed the subscription, or began this charge, since it was read."""
        if not await store.update(tx, subscription, self.lease()):
            raise Changed
        if not await payments.insert(tx, subscription.shop_id, payment):
            raise Changed

    async def carry_out(
        self,
        subscription: Subscription,
        payment: Payment,
        card: CardDetails | str,
        *,
        recurring: bool,
    ) -> Subscription:
        """Charge what was begun and written down; the subscription as it stands then."""
        gateway = await self.gateways.named(payment.gateway, subscription.shop_id)
        order = await self._order(subscription, payment, gateway, recurring=recurring)
        result = await gateway.charge(order, card, self.clock.now())
        return await self.settle(subscription, payment, result)

    async def look_up(self, shop_id: int, payment: Payment) -> Result | None:
        """What the gateway knows of a payment; ``None`` if it never had it."""
        gateway = await self.gateways.named(payment.gateway, shop_id)
        return await gateway.look_up(shop_id, payment.id, self.clock.now(), amount=payment.amount, currency=payment.currency)

    async def settle(self, subscription: Subscription, payment: Payment, result: Result) -> Subscription:
        """Write down what became of a payment, once, and what that makes of the subscription, as it stands then."""
        if result.status == base.INCOMPLETE and payment.period > 0:  # nobody is there to pass 3-D Secure at a renewal
            result = replace(result, status=base.FAILED, message=result.message or base.DECLINE_MESSAGE, redirect_url=None)
        while True:
            now = self.clock.now()
            step = self._step(subscription, payment, result, now)
            settled = msgspec.structs.replace(
                payment,
                status=result.status,
                uid=result.uid or payment.uid,
                message=result.message,
                redirect_url=result.redirect_url,
                settled_at=None if result.status in payments_model.LIVE else now,
            )
            changed = _after(subscription, step, settled, result.card)

            async def unit(
                tx: Transaction, changed: Subscription = changed, settled: Payment = settled, step: Step = step, now: int = now
            ) -> None:
                if not await store.update(tx, changed):
                    raise Changed
                if not await payments.settle(tx, changed.shop_id, settled):
                    raise _SettledBefore
                if step.event is not None:
                    await self.teller.tell(tx, changed, step.event, now)

            try:
                await self.database.write(unit)
            except Changed:
                subscription = await self._again(subscription)
                continue
            except _SettledBefore:
                return await self._again(subscription)
            if step.skipped:
                log.warning("periods went by uncharged", shop=changed.shop_id, subscription=changed.id, periods=step.skipped)
            return as_written(changed)

    def _step(self, subscription: Subscription, payment: Payment, result: Result, now: int) -> Step:
        standing, terms = subscription.standing, self.terms(subscription)
        if standing.period != payment.period:  # it went on without this payment, which must have been settled before
            return Step(standing)
        match result.status:
            case base.SUCCESSFUL:
                return lifecycle.succeeded(standing, terms, now)
            case base.INCOMPLETE:
                return Step(lifecycle.challenged(standing, now))
            case base.FAILED:
                return lifecycle.declined(standing, terms, now)
            case base.ERROR:
                return lifecycle.errored(standing, terms, now)
            case payments_model.EXPIRED:
                return lifecycle.expired(standing)
            case payments_model.ABSENT:
                return lifecycle.forgotten(standing, terms, now)
        return Step(lifecycle.unanswered(standing, terms, now + LOOK_AGAIN_MILLISECONDS))

    # The rest

    async def _write(self, subscription: Subscription, step: Step, now: int) -> Subscription:
        """Raises ``Changed``."""
        changed = _after(subscription, step)

        async def unit(tx: Transaction) -> None:
            if not await store.update(tx, changed):
                raise Changed
            if step.event is not None:
                await self.teller.tell(tx, changed, step.event, now)

        await self.database.write(unit)
        return as_written(changed)

    async def _stand(self, subscription: Subscription, standing: Standing) -> None:
        """Write a standing that tells nobody anything. Raises ``Changed``."""
        await self._write(subscription, Step(standing), 0)

    async def _live_payment(self, subscription: Subscription) -> Payment | None:
        return await payments.live(self.database, subscription.shop_id, subscription.id, subscription.standing.period)

    async def _again(self, subscription: Subscription) -> Subscription:
        found = await store.find(self.database, subscription.shop_id, subscription.id)
        assert found is not None
        return found

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
            return_url=f"{self.teller.base_url}/process/{payment.id}",
            customer=customer,
            descriptor=msgspec.json.decode(subscription.options).get("dynamic_billing_descriptor"),
            recurring=recurring,
        )


def _after(subscription: Subscription, step: Step, payment: Payment | None = None, card: Card | None = None) -> Subscription:
    changed = msgspec.structs.replace(
        subscription, standing=step.standing, sequence=subscription.sequence + (1 if step.event is not None else 0)
    )
    if payment is not None:
        told = msgspec.json.encode(payments_model.shown(payment)).decode()
        changed = msgspec.structs.replace(changed, last_transaction=told)
    if card is not None:
        if subscription.checkout_token is not None:  # typed into our page: the merchant does not see these two [P]
            card = msgspec.structs.replace(card, stamp=None, bin=None)
        changed = msgspec.structs.replace(changed, card=msgspec.json.encode(card).decode())
    return changed


def as_written(subscription: Subscription) -> Subscription:
    """As it is in the database after ``store.update``."""
    return msgspec.structs.replace(subscription, version=subscription.version + 1)
