"""The actions of a merchant on subscriptions: one function for each request."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec
import structlog

from ecomcharge.base.errors import EcomchargeError, OutcomeUnknown, RecordNotFound
from ecomcharge.base.ids import CUSTOMER_ID, CUSTOMER_PREFIX, PLAN_ID, PLAN_PREFIX, SUBSCRIPTION_PREFIX, IdGenerator
from ecomcharge.customers import store as customers
from ecomcharge.customers.model import Customer, CustomerFields
from ecomcharge.gateways import sandbox
from ecomcharge.gateways.base import CardDetails
from ecomcharge.payments import store as payments
from ecomcharge.plans import actions as plan_actions
from ecomcharge.plans import model as plan_model
from ecomcharge.plans import store as plans
from ecomcharge.plans.model import Plan, PlanFields
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.storage.records import IdCollision, StaleVersion, retry_on_id_collision
from ecomcharge.subscriptions import lifecycle, requests, store
from ecomcharge.subscriptions.changes import after_update
from ecomcharge.subscriptions.charging import EXTRA_SECONDS, Charging, StartedCharge
from ecomcharge.subscriptions.model import EMPTY_OBJECT, Subscription
from ecomcharge.subscriptions.requests import SubscriptionRequest
from ecomcharge.web.idempotency import IdempotencyKey, StoredResponse, claim_or_replay, earlier_response, finish

log = structlog.get_logger()

PATH: Final = "/subscriptions"
KEEPING_SECONDS: Final = 5.0  # how long an answer waits until it is stored, so that a repeated request finds it

Encode = Callable[[Subscription], bytes]


@dataclass(frozen=True, slots=True)
class IdGenerators:
    subscription: IdGenerator = field(default_factory=lambda: IdGenerator(SUBSCRIPTION_PREFIX))
    customer: IdGenerator = field(default_factory=lambda: IdGenerator(CUSTOMER_PREFIX))
    plan: IdGenerator = field(default_factory=lambda: IdGenerator(PLAN_PREFIX))


@dataclass(frozen=True, slots=True)
class PreparedSubscription:
    subscription: Subscription
    started: StartedCharge | None = None  # its first charge


async def create_subscription(
    charging: Charging,
    id_generators: IdGenerators,
    shop_id: int,
    requested: SubscriptionRequest,
    idempotency_key: IdempotencyKey | None,
    encode: Encode,
) -> StoredResponse:
    """Create a subscription, with its plan and customer if the request contains them, and charge its card if it has one.

    Raises ``ValidationFailed`` for an id or a token that the shop does not have, and ``IdempotencyKeyReused`` or
    ``StillRunning`` for the idempotency key. After ``OutcomeUnknown`` the charge of a request with an idempotency key goes on
    as soon as the database reports that the subscription was written.
    """
    now = charging.clock.now()
    last: PreparedSubscription | None = None  # the unit may run several times

    async def unit(tx: Transaction) -> PreparedSubscription | StoredResponse:
        nonlocal last
        last = None
        if idempotency_key is not None:  # first, so that a later change of the shop does not change a stored answer
            earlier = await earlier_response(tx, shop_id, idempotency_key, now, charging.real_clock.now())
            if earlier is not None:
                return earlier
        created = await prepare(tx, charging, id_generators, shop_id, requested, now)
        if idempotency_key is not None:
            answer = _answer(created.subscription, encode)
            running_until = charging.real_clock.now() + charging.request_milliseconds if created.started is not None else None
            earlier = await claim_or_replay(tx, shop_id, idempotency_key, answer, now, charging.real_clock.now(), running_until)
            if earlier is not None:
                return earlier
        _refuse_misplaced_test(created.subscription, requested)
        await write_prepared(tx, charging, created, requested)
        last = created
        return created

    try:
        created = await retry_on_id_collision(charging.database, unit)
    except OutcomeUnknown:
        if idempotency_key is not None and last is not None and last.started is not None:
            assert requested.card is not None
            charging.unfinished.start(_finish_later(charging, last.started, requested.card, idempotency_key, encode))
        raise
    if isinstance(created, StoredResponse):
        return await _replayed(charging, shop_id, created, encode)
    if created.started is None:
        return _answer(created.subscription, encode)
    assert requested.card is not None
    charged = await charging.charge_at_once(created.started, requested.card)
    answer = _answer(charged, encode)
    if idempotency_key is not None:
        keeping = charging.unfinished.start(keep_answer(charging, charged, idempotency_key, answer, encode))
        is_recorded = charged.billing_state.state not in lifecycle.UNDER_WAY  # otherwise the database may have failed
        await asyncio.wait([keeping], timeout=KEEPING_SECONDS if is_recorded else EXTRA_SECONDS)
    return answer


async def _finish_later(
    charging: Charging, started: StartedCharge, card: CardDetails | str, key: IdempotencyKey, encode: Encode
) -> None:
    """Finish a request whose first COMMIT was in doubt: a repeated one then gets the outcome."""
    charged = await charging.charge_when_written(started, card)
    if charged is not None:
        await keep_answer(charging, charged, key, _answer(charged, encode), encode)


async def keep_answer(
    charging: Charging, subscription: Subscription, idempotency_key: IdempotencyKey, answer: StoredResponse, encode: Encode
) -> None:
    """Store the final answer of a request, when the database is back if it is unavailable.

    If that fails, a repeated request gets the subscription in its current state. If the customer was erased since the outcome
    of the charge, the answer is stored without personal data.
    """
    shop_id = subscription.shop_id

    async def unit(tx: Transaction) -> None:
        await finish(tx, shop_id, idempotency_key, answer)  # first: an erasure from now on waits, and then clears the answer
        current = await store.find(tx, shop_id, subscription.id)
        if current is not None and current.erased_customer_id is not None:
            await finish(tx, shop_id, idempotency_key, msgspec.structs.replace(answer, body=encode(current)))

    gives_up_at = charging.real_clock.now() + charging.request_milliseconds
    while True:
        try:
            await charging.database.write(unit)
            return
        except Exception as error:
            is_outage = isinstance(error, EcomchargeError) and charging.real_clock.now() < gives_up_at
            if not is_outage or not await charging.unfinished.pause():
                reason = getattr(error, "code", type(error).__name__)
                log.warning("the answer of a request could not be kept", shop=shop_id, reason=reason)
                return


async def _replayed(charging: Charging, shop_id: int, earlier: StoredResponse, encode: Encode) -> StoredResponse:
    """The stored response of an earlier request; with the current subscription if that is not final."""
    if earlier.final:
        return earlier
    assert earlier.location is not None
    subscription = await read_subscription(charging, shop_id, earlier.location.removeprefix(f"{PATH}/"))
    return msgspec.structs.replace(earlier, body=encode(subscription))


async def prepare(
    reader: Database | Transaction,
    charging: Charging,
    id_generators: IdGenerators,
    shop_id: int,
    requested: SubscriptionRequest,
    now: int,
) -> PreparedSubscription:
    """The subscription to be written, and its first charge if the request has a card. Writes nothing."""
    plan = await _plan(reader, id_generators, shop_id, requested.plan, now)
    customer_id = await _customer_id(reader, id_generators, shop_id, requested.customer, now)
    assigned = await charging.gateways.assign(reader, shop_id, test=plan.test)
    if isinstance(requested.card, str):
        await _check_token(reader, shop_id, requested.card, assigned.gateway)
    waits = requested.card is None
    terms, card = charging.terms_of_plan(plan), EMPTY_OBJECT
    billing_state = (
        lifecycle.redirected(now) if waits else lifecycle.first_charge(terms, now, by_token=isinstance(requested.card, str))
    )
    if isinstance(requested.card, str) and billing_state.state == lifecycle.PENDING:
        card = await _card_of_token(reader, shop_id, requested.card)
    subscription = Subscription(
        shop_id=shop_id,
        id=id_generators.subscription.generate(now),
        version=0,
        sequence=0,
        plan=plan,
        billing_state=billing_state,
        customer_id=customer_id,
        tracking_id=requested.tracking_id,
        device_id=requested.device_id,
        created_at=now,
        gateway=assigned.gateway,
        card=card,
        additional_data=requested.additional_data,
        options=requested.options,
        last_transaction=EMPTY_OBJECT,
        return_url=requested.return_url,
        notification_url=requested.notification_url,
        checkout_token=secrets.token_hex(32) if waits else None,
        gateway_account=assigned.account,
    )
    if billing_state.state != lifecycle.PROCESSING:
        return PreparedSubscription(subscription)
    started = charging.start_charge(subscription, now)
    return PreparedSubscription(started.subscription, started)


async def write_prepared(
    tx: Transaction, charging: Charging, created: PreparedSubscription, requested: SubscriptionRequest
) -> None:
    """Customer, plan, subscription and payment, in one transaction. Raises ``IdCollision``, or ``ShopClosed``."""
    subscription, shop_id = created.subscription, created.subscription.shop_id
    await charging.require_open_shop(tx, shop_id)
    if isinstance(requested.plan, PlanFields) and not await plans.insert(tx, shop_id, subscription.plan):
        raise IdCollision
    if isinstance(requested.customer, CustomerFields):
        assert subscription.customer_id is not None
        customer = Customer(subscription.customer_id, *msgspec.structs.astuple(requested.customer))
        if not await customers.insert(tx, shop_id, customer):
            raise IdCollision
    if not await store.insert(tx, subscription, created.started.leased_until if created.started else 0):
        raise IdCollision
    if created.started is not None and not await payments.insert(tx, shop_id, created.started.payment):
        raise IdCollision


def _refuse_misplaced_test(subscription: Subscription, requested: SubscriptionRequest) -> None:
    """Refuse a request that asks for a test at a wrong place, if a real gateway would charge. Raises ``ValidationFailed``."""
    if requested.misplaced_test and subscription.gateway != sandbox.NAME:
        raise plan_model.misplaced_test("plan.test")


async def _plan(
    reader: Database | Transaction, id_generators: IdGenerators, shop_id: int, requested: str | PlanFields, now: int
) -> Plan:
    if isinstance(requested, PlanFields):
        return plan_actions.made(id_generators.plan, now, requested)
    plan = await plans.find(reader, shop_id, requested) if PLAN_ID.match(requested) else None
    if plan is None:
        raise requests.unknown_plan()
    return plan


async def _customer_id(
    reader: Database | Transaction,
    id_generators: IdGenerators,
    shop_id: int,
    requested: str | CustomerFields | None,
    now: int,
) -> str | None:
    if isinstance(requested, CustomerFields):
        return id_generators.customer.generate(now)
    if requested is not None and not (CUSTOMER_ID.match(requested) and await customers.has(reader, shop_id, requested)):
        raise requests.unknown_customer()
    return requested


async def _check_token(reader: Database | Transaction, shop_id: int, token: str, gateway: str) -> None:
    """Raises ``ValidationFailed`` for an unknown token of the sandbox. A real gateway checks its tokens itself."""
    if gateway == sandbox.NAME and await reader.find(sandbox.FIND_CARD, (shop_id, token)) is None:
        raise requests.unknown_card_token()


async def _card_of_token(reader: Database | Transaction, shop_id: int, token: str) -> str:
    """The card of a token as a JSON object; only the token if only the gateway knows the card."""
    row = await reader.find(sandbox.FIND_CARD, (shop_id, token))
    return str(row[0]) if row is not None else msgspec.json.encode({"token": token}).decode()


def _answer(subscription: Subscription, encode: Encode) -> StoredResponse:
    return StoredResponse(201, f"{PATH}/{subscription.id}", encode(subscription))


async def read_subscription(charging: Charging, shop_id: int, subscription_id: str) -> Subscription:
    """Read a subscription of a shop. Raises ``RecordNotFound`` for an id that this shop does not have."""
    subscription = await store.find(charging.database, shop_id, subscription_id)
    if subscription is None:
        raise RecordNotFound
    return subscription


async def cancel_subscription(charging: Charging, shop_id: int, subscription_id: str, reason: str | None) -> Subscription:
    """Cancel a subscription: no further charge. A second call changes nothing [D].

    Raises ``RecordNotFound``, and ``ValidationFailed`` for a subscription that ended in another way.
    """
    now = charging.clock.now()

    async def unit(tx: Transaction) -> Subscription:
        subscription = await store.find(tx, shop_id, subscription_id)
        if subscription is None:
            raise RecordNotFound
        if subscription.billing_state.state == lifecycle.CANCELED:
            return subscription
        if subscription.billing_state.state in lifecycle.OVER:
            raise requests.is_over()
        step = lifecycle.canceled(subscription.billing_state, reason, now)
        changed = msgspec.structs.replace(subscription, billing_state=step.billing_state, sequence=subscription.sequence + 1)
        if not await store.update(tx, changed, None):  # a charge in progress keeps its lease
            raise StaleVersion
        await charging.event_recorder.record(tx, changed, lifecycle.CANCELED_EVENT, now)
        return after_update(changed)

    while True:
        try:
            return await charging.database.write(unit)
        except StaleVersion:
            continue
