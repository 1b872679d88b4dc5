"""What is done with subscriptions at somebody's request. One function each."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec
import structlog

from ecomcharge.customers import store as customers
from ecomcharge.customers.model import Customer, CustomerFields
from ecomcharge.errors import EcomchargeError, Invalid, RecordNotFound
from ecomcharge.fields import BASE
from ecomcharge.gateways import base, sandbox
from ecomcharge.gateways.base import CardDetails
from ecomcharge.idempotency import Answer, Attempt, answer_once, earlier_answer, finish
from ecomcharge.ids import CUSTOMER_ID, CUSTOMER_PREFIX, PLAN_ID, PLAN_PREFIX, SUBSCRIPTION_PREFIX, IdMint
from ecomcharge.payments import store as payments
from ecomcharge.payments.model import UNSUCCESSFUL, Payment
from ecomcharge.plans import actions as plan_actions
from ecomcharge.plans import model as plan_model
from ecomcharge.plans import store as plans
from ecomcharge.plans.model import Plan, PlanFields
from ecomcharge.storage.database import Transaction
from ecomcharge.storage.records import IdTaken, write_under_free_ids
from ecomcharge.subscriptions import lifecycle, model, store
from ecomcharge.subscriptions.billing import Billing, Changed, StartedCharge, as_written
from ecomcharge.subscriptions.model import EMPTY_OBJECT, Subscription, Wanted

log = structlog.get_logger()

PATH: Final = "/subscriptions"

Encode = Callable[[Subscription], bytes]


@dataclass(frozen=True, slots=True)
class Mints:
    subscription: IdMint = field(default_factory=lambda: IdMint(SUBSCRIPTION_PREFIX))
    customer: IdMint = field(default_factory=lambda: IdMint(CUSTOMER_PREFIX))
    plan: IdMint = field(default_factory=lambda: IdMint(PLAN_PREFIX))


@dataclass(frozen=True, slots=True)
class _Created:
    subscription: Subscription
    begun: StartedCharge | None = None  # its first charge


async def create_subscription(
    billing: Billing, mints: Mints, shop_id: int, wanted: Wanted, attempt: Attempt | None, encode: Encode
) -> Answer:
    """Create a subscription, and with it the plan and the customer that came in full; charge its card, if it brought one.

    Raises ``Invalid`` for an id or a token that the shop does not have, ``IdempotencyKeyReused`` or ``StillRunning``
    from the attempt's key.
    """
    now = billing.clock.now()

    async def unit(tx: Transaction) -> _Created | Answer:
        if attempt is not None:  # first: what was answered once is answered again, whatever the shop's settings are by now
            earlier = await earlier_answer(tx, shop_id, attempt, now, billing.real_clock.now())
            if earlier is not None:
                return earlier
        created = await _drawn_up(tx, billing, mints, shop_id, wanted, now)
        if attempt is not None:
            answer = _answer(created.subscription, encode)
            running_until = billing.real_clock.now() + billing.request_milliseconds if created.begun is not None else None
            earlier = await answer_once(tx, shop_id, attempt, answer, now, billing.real_clock.now(), running_until)
            if earlier is not None:
                return earlier
        _refuse_misplaced_test(created.subscription, wanted)
        await _write(tx, billing, created, wanted)
        return created

    created = await write_under_free_ids(billing.database, unit)
    if isinstance(created, Answer):
        return await _replayed(billing, shop_id, created, encode)
    if created.begun is None:
        return _answer(created.subscription, encode)
    assert wanted.card is not None
    answer = _answer(await billing.charge_at_once(created.begun, wanted.card), encode)
    if attempt is not None:
        await _finish(billing, shop_id, attempt, answer)
    return answer


async def _finish(billing: Billing, shop_id: int, attempt: Attempt, answer: Answer) -> None:
    """Keep the last word on an attempt. Should that fail, a repeated request is answered with the subscription as it is then."""

    async def last_word(tx: Transaction) -> None:
        await finish(tx, shop_id, attempt, answer)

    try:
        await billing.database.write(last_word)
    except Exception as error:
        log.warning(
            "the answer of a request could not be kept", shop=shop_id, reason=getattr(error, "code", type(error).__name__)
        )


async def _replayed(billing: Billing, shop_id: int, earlier: Answer, encode: Encode) -> Answer:
    """What an earlier attempt was answered. Of one that died before its last word, the subscription as it is now."""
    if earlier.final:
        return earlier
    assert earlier.location is not None
    subscription = await read_subscription(billing, shop_id, earlier.location.removeprefix(f"{PATH}/"))
    return replace(earlier, body=encode(subscription))


async def _drawn_up(tx: Transaction, billing: Billing, mints: Mints, shop_id: int, wanted: Wanted, now: int) -> _Created:
    """The subscription as it will be written, and its first payment where it brings a card."""
    plan = await _plan(tx, mints, shop_id, wanted.plan, now)
    customer_id = await _customer_id(tx, mints, shop_id, wanted.customer, now)
    assigned = await billing.gateways.assign(tx, shop_id, test=plan.test)
    if isinstance(wanted.card, str):
        await _check_token(tx, shop_id, wanted.card, assigned.gateway)
    waits = wanted.card is None
    terms, card = billing.terms_of_plan(plan), EMPTY_OBJECT
    standing = lifecycle.redirected(now) if waits else lifecycle.first_charge(terms, now, by_token=isinstance(wanted.card, str))
    if isinstance(wanted.card, str) and standing.state == lifecycle.PENDING:
        card = await _card_of_token(tx, shop_id, wanted.card)
    subscription = Subscription(
        shop_id=shop_id,
        id=mints.subscription.mint(now),
        version=0,
        sequence=0,
        plan=plan,
        standing=standing,
        customer_id=customer_id,
        tracking_id=wanted.tracking_id,
        device_id=wanted.device_id,
        created_at=now,
        gateway=assigned.gateway,
        card=card,
        additional_data=wanted.additional_data,
        options=wanted.options,
        last_transaction=EMPTY_OBJECT,
        return_url=wanted.return_url,
        notification_url=wanted.notification_url,
        checkout_token=secrets.token_hex(32) if waits else None,
        gateway_account=assigned.account,
    )
    if standing.state != lifecycle.PROCESSING:
        return _Created(subscription)
    begun = billing.begin(subscription, now)
    return _Created(begun.subscription, begun)


async def _write(tx: Transaction, billing: Billing, created: _Created, wanted: Wanted) -> None:
    """Customer, plan, subscription and payment, in one transaction. Raises ``IdTaken``, or ``ShopClosed``."""
    subscription, shop_id = created.subscription, created.subscription.shop_id
    await billing.require_open_shop(tx, shop_id)
    if isinstance(wanted.plan, PlanFields) and not await plans.insert(tx, shop_id, subscription.plan):
        raise IdTaken
    if isinstance(wanted.customer, CustomerFields):
        assert subscription.customer_id is not None
        customer = Customer(subscription.customer_id, *msgspec.structs.astuple(wanted.customer))
        if not await customers.insert(tx, shop_id, customer):
            raise IdTaken
    if not await store.insert(tx, subscription, created.begun.leased_until if created.begun else 0):
        raise IdTaken
    if created.begun is not None and not await payments.insert(tx, shop_id, created.begun.payment):
        raise IdTaken


def _refuse_misplaced_test(subscription: Subscription, wanted: Wanted) -> None:
    """Raises ``Invalid`` where somebody asked for a test in the wrong place and a real gateway would charge."""
    if wanted.misplaced_test and subscription.gateway != sandbox.NAME:
        raise plan_model.misplaced_test("plan.test")


async def _plan(tx: Transaction, mints: Mints, shop_id: int, wanted: str | PlanFields, now: int) -> Plan:
    if isinstance(wanted, PlanFields):
        return plan_actions.made(mints.plan, now, wanted)
    plan = await plans.find(tx, shop_id, wanted) if PLAN_ID.match(wanted) else None
    if plan is None:
        raise model.refused("plan", model.NO_SUCH.format(noun="plan"))
    return plan


async def _customer_id(tx: Transaction, mints: Mints, shop_id: int, wanted: str | CustomerFields | None, now: int) -> str | None:
    if isinstance(wanted, CustomerFields):
        return mints.customer.mint(now)
    if wanted is not None and not (CUSTOMER_ID.match(wanted) and await customers.has(tx, shop_id, wanted)):
        raise model.refused("customer", model.NO_SUCH.format(noun="customer"))
    return wanted


async def _check_token(tx: Transaction, shop_id: int, token: str, gateway: str) -> None:
    """The sandbox knows its tokens; whether a real gateway knows one, it says itself."""
    if gateway == sandbox.NAME and await tx.find(sandbox.FIND_CARD, {"shop_id": shop_id, "token": token}) is None:
        raise model.refused("card", model.NO_SUCH_TOKEN)


async def _card_of_token(tx: Transaction, shop_id: int, token: str) -> str:
    """The card that a token stands for, as a JSON object; the token alone where only the gateway knows the card."""
    row = await tx.find(sandbox.FIND_CARD, {"shop_id": shop_id, "token": token})
    return str(row[0]) if row is not None else msgspec.json.encode({"token": token}).decode()


def _answer(subscription: Subscription, encode: Encode) -> Answer:
    return Answer(201, f"{PATH}/{subscription.id}", encode(subscription))


async def read_subscription(billing: Billing, shop_id: int, subscription_id: str) -> Subscription:
    """Raises ``RecordNotFound`` for an id that this shop does not have."""
    subscription = await store.find(billing.database, shop_id, subscription_id)
    if subscription is None:
        raise RecordNotFound
    return subscription


async def cancel_subscription(billing: Billing, shop_id: int, subscription_id: str, reason: str | None) -> Subscription:
    """No further charge. Canceling a second time changes nothing [D].

    Raises ``RecordNotFound``, or ``Invalid`` for a subscription that came to another end.
    """
    now = billing.clock.now()

    async def unit(tx: Transaction) -> Subscription:
        subscription = await store.find(tx, shop_id, subscription_id)
        if subscription is None:
            raise RecordNotFound
        if subscription.standing.state == lifecycle.CANCELED:
            return subscription
        if subscription.standing.state in lifecycle.OVER:
            raise Invalid(model.OVER_ALREADY, {BASE: [model.OVER_ALREADY]}, errors_first=True)
        step = lifecycle.canceled(subscription.standing, reason, now)
        changed = msgspec.structs.replace(subscription, standing=step.standing, sequence=subscription.sequence + 1)
        if not await store.update(tx, changed, None):  # a charge under way keeps its lease
            raise Changed
        await billing.teller.tell(tx, changed, lifecycle.CANCELED_EVENT, now)
        return as_written(changed)

    while True:
        try:
            return await billing.database.write(unit)
        except Changed:
            continue


# What a buyer does on the hosted page


async def subscribe_by_link(billing: Billing, mints: Mints, shop_id: int, plan: Plan, return_url: str | None) -> Subscription:
    """A new subscription to a plan, by its pay link [P]."""
    wanted = Wanted(
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
    now = billing.clock.now()

    async def unit(tx: Transaction) -> _Created:
        created = await _drawn_up(tx, billing, mints, shop_id, wanted, now)
        await _write(tx, billing, created, wanted)
        return created

    return (await write_under_free_ids(billing.database, unit)).subscription


async def pay(
    billing: Billing, mints: Mints, token: str, card: CardDetails, customer: Mapping[str, str | None]
) -> Subscription | None:
    """Charge the card that a buyer typed on the page with this token; the subscription as it stands then.

    Once, however often it is asked: ``None`` when the subscription does not wait for its buyer, or no longer.
    ``customer`` holds checked fields that the merchant did not send.
    """
    now = billing.clock.now()

    async def unit(tx: Transaction) -> StartedCharge | None:
        subscription = await store.by_token(tx, token)
        if subscription is None or not lifecycle.waits_for_buyer(subscription.standing, now):
            return None
        if await payments.live(tx, subscription.shop_id, subscription.id, subscription.standing.period) is not None:
            return None
        subscription = await _with_customer(tx, mints, subscription, customer, now)
        return await billing.write_begun(tx, billing.begin(subscription, now))

    while True:
        try:
            begun = await write_under_free_ids(billing.database, unit)
            break
        except Changed:
            continue
    if begun is None:
        return None
    return await billing.charge_at_once(begun, card)


async def _with_customer(
    tx: Transaction, mints: Mints, subscription: Subscription, given: Mapping[str, str | None], now: int
) -> Subscription:
    """With what the buyer added: a customer of the subscription's own, or the fields that the merchant's one lacks."""
    if subscription.customer_id is None:
        blank = dict.fromkeys(CustomerFields.__struct_fields__)
        customer = Customer(mints.customer.mint(now), **{**blank, **given})
        if not await customers.insert(tx, subscription.shop_id, customer):
            raise IdTaken
        return msgspec.structs.replace(subscription, customer_id=customer.id)
    known = await customers.find(tx, subscription.shop_id, subscription.customer_id)
    assert known is not None
    missing = {name: value for name, value in given.items() if value and getattr(known, name) is None}
    if missing:
        await customers.update(tx, subscription.shop_id, msgspec.structs.replace(known, **missing))
    return subscription


async def answer_challenge(billing: Billing, shop_id: int, payment: Payment, *, accepted: bool | None) -> Subscription:
    """The buyer comes from 3-D Secure: in the sandbox with an answer, from a real gateway with ``None``.

    The subscription as it stands after the gateway was asked. The sandbox takes no answer once the subscription is over or
    its day has passed. What a real gateway says counts always: it may have taken the money.
    """
    subscription = await read_subscription(billing, shop_id, payment.subscription_id)
    if payment.status not in (base.INCOMPLETE, *UNSUCCESSFUL):
        return subscription
    if payment.gateway == sandbox.NAME:
        if subscription.standing.state != lifecycle.REDIRECTING or payment.status != base.INCOMPLETE:
            return subscription
        due_at = subscription.standing.due_at
        if due_at is not None and due_at <= billing.clock.now():
            return await billing.expire(subscription)
        if accepted is not None:
            await billing.gateways.sandbox.answer_challenge(shop_id, payment.id, accepted=accepted)
    try:
        result = await billing.look_up(shop_id, payment)
        if result is None or result.status in (base.UNKNOWN, base.INCOMPLETE):
            return subscription
        return await billing.settle(subscription, payment, result)
    except EcomchargeError as error:  # the answer is in the gateway's books: the billing worker, or the next visit, finds it
        log.warning("a 3-D Secure step is not settled", shop=shop_id, payment=payment.id, reason=error.code)
        return subscription
