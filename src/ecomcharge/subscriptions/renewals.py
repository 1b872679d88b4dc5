"""Work that became due: renewals, charges without a recorded outcome, expired payment pages, late successes.

The billing worker claims a subscription or a payment and calls this module.
"""

from __future__ import annotations

import contextlib
from typing import Final

import structlog

from ecomcharge.base.errors import ShopClosed
from ecomcharge.gateways import base
from ecomcharge.gateways.base import Result
from ecomcharge.payments import store as payments
from ecomcharge.payments.model import ABSENT, EXPIRED, PENDING, RECHECK_AFTER, REFUNDING, UNSUCCESSFUL, Payment
from ecomcharge.shops import store as shops
from ecomcharge.storage.database import Transaction
from ecomcharge.storage.records import StaleVersion
from ecomcharge.subscriptions import closed_shops, lifecycle, store
from ecomcharge.subscriptions.charging import LOOK_AGAIN_MILLISECONDS, Charging, StartedCharge
from ecomcharge.subscriptions.model import Subscription
from ecomcharge.subscriptions.refunds import LONGEST_WAIT_MILLISECONDS

log = structlog.get_logger()

GIVE_UP_MILLISECONDS: Final = 15 * 60 * 1000  # a charge that the gateway does not know by then was not sent
CHECKS: Final = 7 * 24  # hourly look-ups of an ended payment without a known outcome; after them one each day


async def process_due_subscription(charging: Charging, shop_id: int, subscription_id: str) -> None:
    """Do the due work of a claimed subscription. If another process changed it, the next round does the work."""
    now = charging.clock.now()
    subscription = await store.find(charging.database, shop_id, subscription_id)
    if subscription is None or subscription.billing_state.due_at is None or subscription.billing_state.due_at > now:
        return
    billing_state = subscription.billing_state
    try:
        if await _is_parked(charging, subscription):
            return
        if billing_state.state in lifecycle.UNDER_WAY or billing_state.state == lifecycle.CANCELED:
            await _look_up_outcome(charging, subscription, now)
        elif billing_state.state == lifecycle.REDIRECTING:
            await _expire(charging, subscription, now)
        elif lifecycle.cycles_are_over(billing_state, charging.terms(subscription)):
            await charging.write_transition(subscription, lifecycle.ended(billing_state, now), now)
        else:
            await _renew(charging, subscription, now)
    except StaleVersion:
        return
    except ShopClosed:  # the shop was closed after the check above
        await closed_shops.park(charging.database, shop_id, subscription_id, subscription.version)


async def expire(charging: Charging, subscription: Subscription) -> Subscription:
    """End a subscription whose buyer did not pay in time; return the subscription in its new state."""
    with contextlib.suppress(StaleVersion):
        await _expire(charging, subscription, charging.clock.now())
    return await store.reload(charging.database, subscription)


async def check_payment(charging: Charging, shop_id: int, payment_id: str) -> None:
    """Do the due work of a claimed payment: refund it, or look up once more whether an unsuccessful one succeeded late."""
    payment = await payments.find(charging.database, shop_id, payment_id)
    if payment is None:
        return
    subscription = await store.find(charging.database, shop_id, payment.subscription_id)
    assert subscription is not None
    if payment.status == REFUNDING:
        await charging.refunds.refund(subscription, payment)
    elif payment.status in UNSUCCESSFUL:
        await _look_up_late_success(charging, subscription, payment)
    else:
        await charging.refunds.check_later(shop_id, payment, None)


async def _is_parked(charging: Charging, subscription: Subscription) -> bool:
    """Clear the due date if the shop is closed. A charge in progress is still followed to its outcome."""
    if await shops.is_open(charging.database, subscription.shop_id) or await charging.live_payment(subscription) is not None:
        return False
    return await closed_shops.park(charging.database, subscription.shop_id, subscription.id, subscription.version)


async def _renew(charging: Charging, subscription: Subscription, now: int) -> None:
    billing_state = subscription.billing_state
    charge_at = lifecycle.charge_time(charging.terms(subscription), now)
    if charge_at > now:  # it became due by day, and no worker ran before the night
        await charging.write_state(subscription, lifecycle.waiting(billing_state, charge_at))
        return

    async def unit(tx: Transaction) -> StartedCharge:
        return await charging.write_started(tx, charging.start_charge(subscription, now))

    started = await charging.database.write(unit)
    token = subscription.card_token
    if token is None:  # the gateway accepted the first payment without a token: recurring payments are not set up there
        await charging.record_outcome(started.subscription, started.payment, Result(base.FAILED, base.NO_TOKEN_MESSAGE))
    else:
        await charging.charge(started, token, recurring=billing_state.period > 0)


async def _look_up_outcome(charging: Charging, subscription: Subscription, now: int) -> None:
    """Ask the gateway for the outcome of a charge that no process recorded."""
    payment = await charging.live_payment(subscription)
    if payment is None:  # only of a canceled subscription: the outcome is recorded and nothing is left to do
        await charging.write_state(subscription, lifecycle.at_rest(subscription.billing_state))
        return
    result = await charging.look_up(subscription.shop_id, payment)
    if result is not None and result.status == base.INCOMPLETE and payment.status == base.INCOMPLETE:
        await _wait_for_challenge(charging, subscription, payment, now)
    elif result is not None and result.status != base.UNKNOWN:
        await charging.record_outcome(subscription, payment, result)
    elif result is not None or now < payment.created_at + GIVE_UP_MILLISECONDS:
        age = now - payment.created_at
        if age >= LONGEST_WAIT_MILLISECONDS:
            log.warning("outcome still unknown", shop=subscription.shop_id, subscription=subscription.id, payment=payment.id)
        look_at = now + min(LONGEST_WAIT_MILLISECONDS, max(LOOK_AGAIN_MILLISECONDS, age))
        unanswered = lifecycle.unanswered(subscription.billing_state, charging.terms(subscription), look_at)
        await charging.write_state(subscription, unanswered)
    elif payment.status == PENDING:
        await charging.record_outcome(subscription, payment, Result(ABSENT, base.NOT_SENT_MESSAGE))
    else:
        await charging.record_outcome(subscription, payment, Result(base.ERROR, base.TIMEOUT_MESSAGE))


async def _wait_for_challenge(charging: Charging, subscription: Subscription, payment: Payment, now: int) -> None:
    """For a subscription that was canceled during its 3-D Secure step: plan the next look-up, or expire the payment."""
    ends_at = payment.created_at + lifecycle.TOKEN_LIVES
    if now >= ends_at:
        await charging.record_outcome(subscription, payment, Result(EXPIRED, base.EXPIRED_MESSAGE))
    else:
        look_at = min(ends_at, now + LONGEST_WAIT_MILLISECONDS)
        await charging.write_state(subscription, lifecycle.waiting(subscription.billing_state, look_at))


async def _expire(charging: Charging, subscription: Subscription, now: int) -> None:
    """Expire a subscription, unless its 3-D Secure step succeeded and the outcome is not recorded yet."""
    payment = await charging.live_payment(subscription)
    if payment is None:
        await charging.write_transition(subscription, lifecycle.expired(subscription.billing_state), now)
        return
    result = await charging.look_up(subscription.shop_id, payment)
    if result is not None and result.status == base.UNKNOWN:
        await charging.write_state(subscription, lifecycle.waiting(subscription.billing_state, now + LOOK_AGAIN_MILLISECONDS))
    elif result is not None and result.status != base.INCOMPLETE:
        await charging.record_outcome(subscription, payment, result)
    else:
        await charging.record_outcome(subscription, payment, Result(EXPIRED, base.EXPIRED_MESSAGE))


async def _look_up_late_success(charging: Charging, subscription: Subscription, payment: Payment) -> None:
    """Look up a payment that ended without success. Record a late success, or plan the next look-up if one is needed."""
    now = charging.clock.now()
    result = await charging.look_up(subscription.shop_id, payment)
    if result is not None and result.status == base.SUCCESSFUL:
        log.warning("a success came late", shop=subscription.shop_id, subscription=subscription.id, payment=payment.id)
        await charging.record_outcome(subscription, payment, result)
        return
    is_long = payment.check_attempts >= CHECKS
    look_at = None
    if result is not None and (result.status == base.UNKNOWN or (result.status == base.INCOMPLETE and not is_long)):
        look_at = now + (RECHECK_AFTER if is_long else LONGEST_WAIT_MILLISECONDS)
        if is_long:
            log.error("outcome still unknown", shop=subscription.shop_id, subscription=subscription.id, payment=payment.id)
    await charging.refunds.check_later(subscription.shop_id, payment, look_at, attempts=payment.check_attempts + 1)
