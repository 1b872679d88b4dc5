"""Refunds of payments that succeeded after their subscription stopped waiting for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog

from ecomcharge.base.clock import Clock
from ecomcharge.base.errors import EcomchargeError
from ecomcharge.gateways import base
from ecomcharge.gateways.registry import GatewayRegistry
from ecomcharge.payments import store as payments
from ecomcharge.payments.model import REFUND_FAILED, REFUNDED, Payment
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.storage.records import StaleVersion
from ecomcharge.subscriptions import lifecycle, store
from ecomcharge.subscriptions.changes import after_update, apply_transition
from ecomcharge.subscriptions.lifecycle import Transition
from ecomcharge.subscriptions.model import Subscription
from ecomcharge.subscriptions.notifications import EventRecorder

log = structlog.get_logger()

CHECK_AGAIN_MILLISECONDS: Final = 10 * 60 * 1000  # a check or a refund whose process died is repeated after this time
LONGEST_WAIT_MILLISECONDS: Final = 60 * 60 * 1000  # the longest time between two look-ups of one payment
REFUND_ATTEMPTS: Final = 5  # refusals of a refund; after the last one the operator must refund by hand


class PaymentChanged(Exception):
    """Another process recorded an outcome of the payment since it was read: read it again."""


def ignore_outcome(status: str, is_first: bool) -> None:
    """The ``on_outcome`` of a process that counts nothing."""


@dataclass(frozen=True, slots=True)
class Refunds:
    """Refunds payments and records how the refunds ended.

    ``on_outcome`` is called after each commit with the status of the payment and whether it is a first charge.
    """

    database: Database
    gateways: GatewayRegistry
    event_recorder: EventRecorder
    clock: Clock
    on_outcome: Callable[[str, bool], None] = ignore_outcome

    async def refund_at_once(self, subscription: Subscription, payment: Payment) -> Subscription:
        """Refund a payment that is ``refunding``; return the subscription in its new state.

        Never raises: after a failure the billing worker refunds it.
        """
        try:
            return await self.refund(subscription, payment)
        except Exception as error:
            log_deferred(subscription, payment, error)
            return subscription

    async def refund(self, subscription: Subscription, payment: Payment) -> Subscription:
        """Refund a payment that is ``refunding``; return the subscription in its new state.

        Raises what the database raises.
        """
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
        ids = ids_of(subscription, payment)
        log.warning("refund of a payment that came too late", status=result.status, **ids)
        if result.status == base.SUCCESSFUL:
            return await self._record_refund(subscription, payment, REFUNDED, lifecycle.REFUNDED_EVENT, now)
        if result.status == base.UNKNOWN:
            age = now - (payment.settled_at or now)
            retry_at = now + min(LONGEST_WAIT_MILLISECONDS, max(CHECK_AGAIN_MILLISECONDS, age))
            await self.check_later(subscription.shop_id, payment, retry_at)
            return subscription
        attempts = payment.check_attempts + 1
        if attempts < REFUND_ATTEMPTS:
            await self.check_later(subscription.shop_id, payment, now + LONGEST_WAIT_MILLISECONDS, attempts=attempts)
            return subscription
        log.error("refund failed: the operator must return the money", reason=result.message, **ids)
        return await self._record_refund(subscription, payment, REFUND_FAILED, lifecycle.REFUND_FAILED_EVENT, now)

    async def _record_refund(
        self, subscription: Subscription, payment: Payment, status: str, event: str, now: int
    ) -> Subscription:
        """Record once how a refund ended, with its event."""
        ended = msgspec.structs.replace(payment, status=status, settled_at=now, check_at=None)
        while True:
            changed = apply_transition(subscription, Transition(subscription.billing_state, event), ended)

            async def unit(tx: Transaction, changed: Subscription = changed, earlier_status: str = payment.status) -> None:
                if not await store.update(tx, changed, None):
                    raise StaleVersion
                if not await payments.write_outcome(tx, changed.shop_id, ended, earlier_status):
                    raise PaymentChanged
                await self.event_recorder.record(tx, changed, event, now)

            try:
                await self.database.write(unit)
                self.on_outcome(status, payment.period == 0)
                return after_update(changed)
            except StaleVersion:
                subscription = await store.reload(self.database, subscription)
            except PaymentChanged:
                subscription = await store.reload(self.database, subscription)
                payment = await payments.reload(self.database, subscription.shop_id, payment)
                if (payment.status, status) != (REFUND_FAILED, REFUNDED):
                    return subscription

    async def check_later(self, shop_id: int, payment: Payment, check_at: int | None, attempts: int | None = None) -> None:
        """Store when the payment is checked next (UTC milliseconds; ``None``: never).

        ``attempts`` is the new number of checks without a result, if it changed.
        """
        counted = payment.check_attempts if attempts is None else attempts
        later = msgspec.structs.replace(payment, check_at=check_at, check_attempts=counted)

        async def unit(tx: Transaction) -> None:
            await payments.check_later(tx, shop_id, later)

        await self.database.write(unit)


def ids_of(subscription: Subscription, payment: Payment) -> dict[str, object]:
    """The ids of a log line about a payment."""
    return {"shop": subscription.shop_id, "subscription": subscription.id, "payment": payment.id}


def log_deferred(subscription: Subscription, payment: Payment, error: Exception) -> None:
    """Log that the billing worker finishes what a request could not."""
    if isinstance(error, EcomchargeError):
        log.warning("a charge is left to the billing worker", reason=error.code, **ids_of(subscription, payment))
    else:
        log.exception("a charge is left to the billing worker", **ids_of(subscription, payment))
