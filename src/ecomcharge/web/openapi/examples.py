"""One life of a subscription, shown as the code shows it: the examples of the description."""

from __future__ import annotations

import json
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

from ecomcharge.base import calendar
from ecomcharge.base.validation import ValidationErrors
from ecomcharge.customers import model as customers
from ecomcharge.customers.model import Customer
from ecomcharge.events import model as events
from ecomcharge.events.model import CUSTOMER_CREATED, Event
from ecomcharge.gateways import base
from ecomcharge.gateways.base import Card
from ecomcharge.payments import model as payments
from ecomcharge.payments.model import REFUND_FAILED, REFUNDED, Payment
from ecomcharge.plans import model as plans
from ecomcharge.plans.model import Plan, PlanBody
from ecomcharge.subscriptions import lifecycle, model, requests
from ecomcharge.subscriptions.model import EMPTY_OBJECT, Subscription
from ecomcharge.subscriptions.notifications import checkout_object
from ecomcharge.web.openapi import parts

Json = dict[str, Any]

SHOP_ID: Final = 361
NOW: Final = 1_767_258_000_000  # 2026-01-01T09:00:00Z
BASE_URL: Final = "https://pay.example"

NEW_CUSTOMER: Final[Json] = {field.name: field.example for field in customers.FIELDS if field is not customers.EXTERNAL_ID}
CUSTOMER: Final[Json] = {"id": parts.CUSTOMER_ID_EXAMPLE, **NEW_CUSTOMER, customers.EXTERNAL_ID.name: None}

NEW_PLAN: Final[Json] = {
    "title": plans.TITLE.example,
    "currency": plans.CURRENCY.example,
    "plan": {"amount": 999, "interval": 1, "interval_unit": "month"},
    "trial": {"amount": 499, "interval": 7, "interval_unit": "day", "as_first_payment": True},
    "language": plans.DEFAULT_LANGUAGE,
    "infinite": False,
    "billing_cycles": 12,
    "number_payment_attempts": plans.DEFAULT_ATTEMPTS,
    "prevent_payments_at_night": True,
    "test": True,
}
LEAST_PLAN: Final[Json] = {name: NEW_PLAN[name] for name in ("title", "currency", "plan")}

NEW_CARD: Final[Json] = {
    requests.NUMBER.name: requests.NUMBER.example,
    requests.VERIFICATION_VALUE.name: requests.VERIFICATION_VALUE.example,
    requests.HOLDER.name: requests.HOLDER.example,
    "exp_month": "01",
    "exp_year": "2030",
}
HOSTED: Final[Json] = {
    "plan": {"id": parts.PLAN_ID_EXAMPLE},
    "tracking_id": requests.TRACKING_ID.example,
    "return_url": requests.RETURN_URL.example,
    "notification_url": requests.NOTIFICATION_URL.example,
    "additional_data": {"seats": 3},
}
WITH_CARD: Final[Json] = {**HOSTED, "plan": NEW_PLAN, "customer": NEW_CUSTOMER, "card": NEW_CARD}


def _plan() -> Plan:
    made = plans.validate(msgspec.convert(NEW_PLAN, PlanBody), ValidationErrors())
    assert made is not None
    return Plan(**msgspec.structs.asdict(made), id=parts.PLAN_ID_EXAMPLE, created_at=NOW, updated_at=NOW)


_PLAN: Final = _plan()
PLAN: Final[Json] = plans.to_json(_PLAN, SHOP_ID, BASE_URL)
_TERMS: Final = plans.terms_of(_PLAN, ZoneInfo("UTC"))
_CARD: Final = Card(
    holder=requests.HOLDER.example,
    stamp="3f" * 32,
    brand="visa",
    last_4="0000",
    first_1="4",
    bin="420000",
    issuer_country=None,
    issuer_name=None,
    product=None,
    token="5fd27da7-d1c3-4b3f-9b6b-0c3a7f6c1f11",  # noqa: S106 - of the example
    token_provider=None,
    exp_month=1,
    exp_year=2030,
)
_PAYMENT: Final = Payment(
    id=parts.UUID_EXAMPLE,
    subscription_id=parts.SUBSCRIPTION_ID_EXAMPLE,
    period=0,
    attempt=1,
    amount=499,
    currency="EUR",
    gateway="sandbox",
    status=base.SUCCESSFUL,
    created_at=NOW,
    message=base.SUCCESS_MESSAGE,
)

_WAITING: Final = Subscription(
    shop_id=SHOP_ID,
    id=parts.SUBSCRIPTION_ID_EXAMPLE,
    version=0,
    sequence=0,
    plan=_PLAN,
    billing_state=lifecycle.redirected(NOW),
    customer_id=None,
    tracking_id=requests.TRACKING_ID.example,
    device_id=None,
    created_at=NOW,
    gateway="sandbox",
    card=EMPTY_OBJECT,
    additional_data='{"seats":3}',
    options=EMPTY_OBJECT,
    last_transaction=EMPTY_OBJECT,
    return_url=requests.RETURN_URL.example,
    notification_url=requests.NOTIFICATION_URL.example,
    checkout_token=parts.TOKEN_EXAMPLE,
)


def _paid(status: str, message: str) -> Subscription:
    """With a card, a customer, and the transaction that became of it."""
    payment = msgspec.structs.replace(_PAYMENT, status=status, message=message)
    return msgspec.structs.replace(
        _WAITING,
        customer_id=parts.CUSTOMER_ID_EXAMPLE,
        checkout_token=None,
        card=msgspec.json.encode(_CARD).decode(),
        last_transaction=msgspec.json.encode(payments.to_json(payment)).decode(),
    )


def _shown(subscription: Subscription, event: str | None = None) -> Json:
    told: Json = json.loads(msgspec.json.encode(model.to_json(subscription, BASE_URL, event)))
    return told


_started: Final = lifecycle.charging(lifecycle.redirected(NOW), _TERMS, NOW)
_in_trial: Final = lifecycle.succeeded(_started, _TERMS, NOW).billing_state
_renewed: Final = lifecycle.succeeded(_in_trial, _TERMS, NOW + 7 * 24 * calendar.HOUR).billing_state
_over: Final = lifecycle.canceled(_renewed, requests.CANCEL_REASON.example, NOW + 8 * 24 * calendar.HOUR).billing_state
_declined: Final = lifecycle.declined(_started, _TERMS, NOW).billing_state
_good: Final = _paid(base.SUCCESSFUL, base.SUCCESS_MESSAGE)
_bad: Final = _paid(base.FAILED, base.DECLINE_MESSAGE)

_TRIAL: Final = msgspec.structs.replace(_good, billing_state=_in_trial)
_RENEWED: Final = msgspec.structs.replace(_good, billing_state=_renewed)
_CANCELED: Final = msgspec.structs.replace(_good, billing_state=_over)
_FAILED: Final = msgspec.structs.replace(_bad, billing_state=_declined)


def _too_late(status: str) -> Subscription:
    """Canceled while its first charge was under way, which then succeeded."""
    over = lifecycle.canceled(_started, requests.CANCEL_REASON.example, NOW).billing_state
    return msgspec.structs.replace(_paid(status, base.SUCCESS_MESSAGE), billing_state=lifecycle.at_rest(over))


WAITING: Final = _shown(_WAITING)
TRIAL: Final = _shown(_TRIAL)
ACTIVE: Final = _shown(_RENEWED)
CANCELED: Final = _shown(_CANCELED)

# What webhooks carry, by event.
TOLD: Final[dict[str, Json]] = {
    lifecycle.CREATED_EVENT: _shown(_TRIAL, lifecycle.CREATED_EVENT),
    lifecycle.RENEWED_EVENT: _shown(_RENEWED, lifecycle.RENEWED_EVENT),
    lifecycle.CANCELED_EVENT: _shown(_CANCELED, lifecycle.CANCELED_EVENT),
    lifecycle.FAILED_EVENT: _shown(_FAILED, lifecycle.FAILED_EVENT),
    lifecycle.REFUNDED_EVENT: _shown(_too_late(REFUNDED), lifecycle.REFUNDED_EVENT),
    lifecycle.REFUND_FAILED_EVENT: _shown(_too_late(REFUND_FAILED), lifecycle.REFUND_FAILED_EVENT),
    lifecycle.EXPIRED_EVENT: checkout_object(_WAITING, Customer(**CUSTOMER)),
}


def _event(type: str, object_id: str, data: Json) -> Json:
    raw = msgspec.Raw(msgspec.json.encode(data))
    told: Json = json.loads(msgspec.json.encode(events.to_json(Event(parts.EVENT_ID_EXAMPLE, type, object_id, 1, NOW, raw))))
    return told


CREATED_EVENT: Final = _event(lifecycle.CREATED_EVENT, parts.SUBSCRIPTION_ID_EXAMPLE, TOLD[lifecycle.CREATED_EVENT])
CUSTOMER_EVENT: Final = _event(CUSTOMER_CREATED, parts.CUSTOMER_ID_EXAMPLE, CUSTOMER)
