"""The actions of a buyer: follow a pay link, pay on the payment page, return from 3-D Secure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import structlog

from ecomcharge.base.errors import EcomchargeError, OutcomeUnknown
from ecomcharge.customers import store as customers
from ecomcharge.customers.changes import write_change
from ecomcharge.customers.model import Customer, CustomerFields, change_of
from ecomcharge.gateways import base, sandbox
from ecomcharge.gateways.base import CardDetails
from ecomcharge.payments import store as payments
from ecomcharge.payments.model import UNSUCCESSFUL, Payment
from ecomcharge.plans.model import Plan
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.storage.records import IdCollision, StaleVersion, retry_on_id_collision
from ecomcharge.subscriptions import lifecycle, renewals, store
from ecomcharge.subscriptions.actions import (
    PATH,
    IdGenerators,
    PreparedSubscription,
    prepare,
    read_subscription,
    write_prepared,
)
from ecomcharge.subscriptions.charging import Charging, StartedCharge
from ecomcharge.subscriptions.model import EMPTY_OBJECT, Subscription
from ecomcharge.subscriptions.requests import SubscriptionRequest
from ecomcharge.web.idempotency import CREATED, IdempotencyKey, StoredResponse, claim_or_replay

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class LinkedPlan:
    """The page of one visit of a plan's pay link. Its subscription gets this ``token`` when the buyer submits the form."""

    shop_id: int
    plan: Plan
    return_url: str | None
    token: str


async def subscribe_by_link(
    charging: Charging, id_generators: IdGenerators, shop_id: int, plan: Plan, return_url: str | None
) -> Subscription:
    """Create a subscription to a plan by a POST to its pay link [P]."""
    requested = _requested(plan, return_url)
    now = charging.clock.now()

    async def unit(tx: Transaction) -> PreparedSubscription:
        created = await prepare(tx, charging, id_generators, shop_id, requested, now)
        await write_prepared(tx, charging, created, requested)
        return created

    return (await retry_on_id_collision(charging.database, unit)).subscription


async def preview(charging: Charging, id_generators: IdGenerators, link: LinkedPlan) -> Subscription:
    """The subscription that the page of a pay link would create now. Writes nothing.

    Raises ``ValidationFailed`` if the shop has no gateway for it.
    """
    return await _prepare_linked(charging.database, charging, id_generators, link, charging.clock.now())


async def _create_linked(
    tx: Transaction, charging: Charging, id_generators: IdGenerators, link: LinkedPlan, now: int
) -> Subscription:
    """Create the subscription of a page. Raises ``StaleVersion`` if another submission of the form creates it.

    The claim on the token is an idempotency key, because the token has no unique index. It contains a character that no key of
    a client may contain.
    """
    subscription = await _prepare_linked(tx, charging, id_generators, link, now)
    form_key = IdempotencyKey(f"pay link\t{link.token}", link.token)
    created = StoredResponse(CREATED, f"{PATH}/{subscription.id}", b"")
    if await claim_or_replay(tx, link.shop_id, form_key, created, now) is not None:
        raise StaleVersion
    await write_prepared(tx, charging, PreparedSubscription(subscription), _requested(link.plan, link.return_url))
    return subscription


async def _prepare_linked(
    reader: Database | Transaction, charging: Charging, id_generators: IdGenerators, link: LinkedPlan, now: int
) -> Subscription:
    prepared = await prepare(reader, charging, id_generators, link.shop_id, _requested(link.plan, link.return_url), now)
    return msgspec.structs.replace(prepared.subscription, checkout_token=link.token)


def _requested(plan: Plan, return_url: str | None) -> SubscriptionRequest:
    return SubscriptionRequest(
        plan=plan.id,
        customer=None,
        card=None,
        tracking_id=None,
        device_id=None,
        return_url=return_url,
        notification_url=None,
        additional_data=EMPTY_OBJECT,
        options=EMPTY_OBJECT,
    )


async def pay(
    charging: Charging,
    id_generators: IdGenerators,
    token: str,
    card: CardDetails,
    customer: Mapping[str, str | None],
    link: LinkedPlan | None = None,
) -> Subscription | None:
    """Charge the card that a buyer entered on the page with this token; return the subscription in its new state.

    The page of a pay link has no subscription before: the first call creates it from ``link``. Repeated calls charge once:
    ``None`` if the subscription does not wait for its buyer. ``customer`` contains validated fields that the merchant did not
    send. Raises ``ShopClosed``, and ``ValidationFailed`` if the shop has no gateway for a new subscription. After
    ``OutcomeUnknown`` the charge goes on as soon as the database reports that it was written: the page shows its outcome then.
    """
    now = charging.clock.now()
    last: StartedCharge | None = None  # the unit may run several times

    async def unit(tx: Transaction) -> StartedCharge | None:
        nonlocal last
        last = None
        subscription = await store.by_token(tx, token)
        if subscription is None and link is not None:
            subscription = await _create_linked(tx, charging, id_generators, link, now)
        if subscription is None or not lifecycle.waits_for_buyer(subscription.billing_state, now):
            return None
        if await payments.live(tx, subscription.shop_id, subscription.id, subscription.billing_state.period) is not None:
            return None
        subscription = await _add_customer(tx, charging, id_generators, subscription, customer, now)
        last = await charging.write_started(tx, charging.start_charge(subscription, now))
        return last

    while True:
        try:
            started = await retry_on_id_collision(charging.database, unit)
            break
        except StaleVersion:
            continue
        except OutcomeUnknown:
            if last is not None:
                charging.unfinished.start(charging.charge_when_written(last, card))
            raise
    if started is None:
        return None
    return await charging.charge_at_once(started, card)


async def _add_customer(
    tx: Transaction,
    charging: Charging,
    id_generators: IdGenerators,
    subscription: Subscription,
    given: Mapping[str, str | None],
    now: int,
) -> Subscription:
    """Store the fields that the buyer added: in a new customer, or in the missing fields of the merchant's customer."""
    if subscription.customer_id is None:
        fields = msgspec.structs.astuple(msgspec.structs.replace(CustomerFields(), **given))
        customer = Customer(id_generators.customer.generate(now), *fields)
        if not await customers.insert(tx, subscription.shop_id, customer):
            raise IdCollision
        return msgspec.structs.replace(subscription, customer_id=customer.id)
    known = await customers.find_stored(tx, subscription.shop_id, subscription.customer_id)
    if known is None:  # erased since the subscription was read
        raise StaleVersion
    missing = {name: value for name, value in given.items() if value and getattr(known.customer, name) is None}
    change = change_of(known, msgspec.structs.replace(known.customer, **missing), now)
    await write_change(tx, charging.event_recorder.of_customers, subscription.shop_id, change)
    return subscription


async def answer_challenge(charging: Charging, shop_id: int, payment: Payment, *, accepted: bool | None) -> Subscription:
    """Record the result when the buyer returns from 3-D Secure. ``accepted`` is the answer in the sandbox, else ``None``.

    Returns the subscription after the gateway was asked. The sandbox accepts no answer after the end of the subscription or
    of its day. The answer of a real gateway always counts: it may have charged.
    """
    subscription = await read_subscription(charging, shop_id, payment.subscription_id)
    if payment.status not in (base.INCOMPLETE, *UNSUCCESSFUL):
        return subscription
    if payment.gateway == sandbox.NAME:
        if subscription.billing_state.state != lifecycle.REDIRECTING or payment.status != base.INCOMPLETE:
            return subscription
        due_at = subscription.billing_state.due_at
        if due_at is not None and due_at <= charging.clock.now():
            return await renewals.expire(charging, subscription)
        if accepted is not None:
            await charging.gateways.sandbox.answer_challenge(shop_id, payment.id, accepted=accepted)
    try:
        result = await charging.look_up(shop_id, payment)
        if result is None or result.status in (base.UNKNOWN, base.INCOMPLETE):
            return subscription
        return await charging.record_outcome(subscription, payment, result)
    except EcomchargeError as error:  # the gateway has recorded the answer: the billing worker or the next visit finds it
        log.warning("a 3-D Secure step is not settled", shop=shop_id, payment=payment.id, reason=error.code)
        return subscription
