"""A subscription: the stored object and the subscription object of the API.

Sources: [P] the platform's page on subscriptions, [C] captured traffic, [W] clients that are in use, [D] our choice.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, NotRequired, TypedDict, cast

import msgspec
from msgspec import Meta

from ecomcharge.base.calendar import iso
from ecomcharge.base.wire_types import Hash, Moment, NaturalNumber, WebAddress
from ecomcharge.plans import model as plans
from ecomcharge.plans.model import Plan, PlanObject
from ecomcharge.subscriptions import lifecycle
from ecomcharge.subscriptions.lifecycle import BillingState
from ecomcharge.subscriptions.requests import DEVICE_ID, TRACKING_ID

EMPTY_OBJECT: Final = "{}"


class Subscription(msgspec.Struct, frozen=True):
    """A stored subscription with its plan. ``card``, ``additional_data``, ``options`` and ``last_transaction`` are JSON texts."""

    shop_id: int
    id: str
    version: int
    sequence: int
    plan: Plan
    billing_state: BillingState
    customer_id: str | None
    tracking_id: str | None
    device_id: str | None
    created_at: int  # UTC milliseconds
    gateway: str
    card: str
    additional_data: str
    options: str
    last_transaction: str
    return_url: str | None
    notification_url: str | None
    checkout_token: str | None
    gateway_account: str | None = None  # None: the shop's first one; the sandbox has none
    erased_customer_id: str | None = None  # of a customer that was erased; customer_id is None then

    @property
    def card_token(self) -> str | None:
        token: str | None = msgspec.json.decode(self.card).get("token")
        return token

    @property
    def language(self) -> str:
        """The language of the payment page: of the subscription, or else of its plan."""
        return msgspec.json.decode(self.options).get("language") or self.plan.language


class SubscriptionObject(TypedDict):
    """A subscription. More keys may follow these."""

    id: str
    state: Annotated[str, Meta(description="The state.", extra_json_schema={"enum": list(lifecycle.STATES)})]
    tracking_id: Annotated[str | None, Meta(description=TRACKING_ID.description)]
    device_id: Annotated[str | None, Meta(description=DEVICE_ID.description)]
    created_at: Annotated[Moment, Meta(description="When it was created. UTC.")]
    renew_at: Annotated[
        Moment | None,
        Meta(
            description="When the next period begins and its charge is due. In `failed_attempt` and `rescuing` the past date "
            "since which the period is unpaid; `X-Next-Attempt-At` says when the charge is tried again. In the last cycle of "
            "a finite plan, when that cycle ends. UTC."
        ),
    ]
    active_to: Annotated[Moment | None, Meta(description="Until when it is paid. UTC.")]
    card: Annotated[Any, Meta(description="`{}` until it is known.")]
    customer: Annotated[Any, Meta(description="`{}` until there is one.")]
    paid_billing_cycles: Annotated[NaturalNumber, Meta(description="Cycles that were paid, the trial's included.")]
    number_failed_payment_attempts: Annotated[NaturalNumber, Meta(description="Failed attempts of the present charge.")]
    additional_data: Annotated[Any, Meta(description="As it was sent; `{}` when nothing was.")]
    cancel_reason: NotRequired[Annotated[str | None, Meta(description="Why it was canceled. Present once it is.")]]
    cancelled_at: NotRequired[Annotated[Moment, Meta(description="When it was canceled. Present once it is. UTC.")]]
    plan: PlanObject
    last_transaction: Annotated[Any, Meta(description="`null` before the first charge.")]
    redirect_url: NotRequired[Annotated[WebAddress, Meta(description="Where to send the buyer. While `redirecting`.")]]
    token: NotRequired[Annotated[Hash, Meta(description="Of the hosted page. While `redirecting` to it.")]]
    event: NotRequired[Annotated[str, Meta(description="The event. In webhooks and events only.")]]


def to_json(subscription: Subscription, base_url: str, event: str | None = None) -> SubscriptionObject:
    """The subscription object, keys in the documented order [P]. ``base_url`` is the address of this server for browsers."""
    billing_state = subscription.billing_state
    customer_id = subscription.customer_id or subscription.erased_customer_id
    body: dict[str, Any] = {
        "id": subscription.id,
        "state": billing_state.state,
        "tracking_id": subscription.tracking_id,
        "device_id": subscription.device_id,
        "created_at": iso(subscription.created_at),
        "renew_at": _iso(billing_state.renew_at),
        "active_to": _iso(billing_state.active_to),
        "card": _raw(subscription.card),
        "customer": {"id": customer_id} if customer_id else {},
        "paid_billing_cycles": billing_state.paid_billing_cycles,
        "number_failed_payment_attempts": billing_state.number_failed_payment_attempts,
        "additional_data": _raw(subscription.additional_data),
    }
    if billing_state.cancelled_at is not None:
        body["cancel_reason"] = billing_state.cancel_reason
        body["cancelled_at"] = iso(billing_state.cancelled_at)
    body["plan"] = plans.to_json(subscription.plan, subscription.shop_id, base_url)
    last_transaction = subscription.last_transaction
    body["last_transaction"] = None if last_transaction == EMPTY_OBJECT else _raw(last_transaction)
    if billing_state.state == lifecycle.REDIRECTING:
        body.update(_where_to(subscription, base_url))
    if event is not None:
        body["event"] = event
    return cast(SubscriptionObject, body)  # its keys have a documented order, with optional ones between others


def checkout_url(token: str, base_url: str) -> str:
    return f"{base_url}/v2/checkout?token={token}"


def _where_to(subscription: Subscription, base_url: str) -> dict[str, str]:
    """The address for the buyer: the 3-D Secure step in progress, otherwise the payment page [P][W]."""
    challenge = msgspec.json.decode(subscription.last_transaction).get("redirect_url")
    token = subscription.checkout_token
    where = {}
    if challenge or token:
        where["redirect_url"] = challenge or checkout_url(token or "", base_url)
    if token:
        where["token"] = token
    return where


def _iso(moment: int | None) -> str | None:
    return None if moment is None else iso(moment)


def _raw(json: str) -> msgspec.Raw:
    return msgspec.Raw(json.encode())


def visible_customer_fields(subscription: Subscription) -> list[str]:
    """The customer fields that the merchant wants on the payment page [P]."""
    settings = msgspec.json.decode(subscription.options).get("settings", {})
    given = settings.get("customer_fields") if isinstance(settings, dict) else None
    visible = given.get("visible") if isinstance(given, dict) else given
    return [str(name) for name in visible] if isinstance(visible, list) else []


def receipt_lines(subscription: Subscription) -> list[str]:
    """The lines for the receipt [P]. Earlier releases stored any JSON value."""
    lines = msgspec.json.decode(subscription.options).get("receipt_text")
    return [line for line in lines if isinstance(line, str)] if isinstance(lines, list) else []
