"""The life of a subscription, written by the code itself: examples for the API description."""

from __future__ import annotations

import json
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

from ecomcharge.base.calendar import HOUR
from ecomcharge.customers.model import Customer
from ecomcharge.customers.openapi import CUSTOMER, NEW_CUSTOMER
from ecomcharge.gateways import base
from ecomcharge.gateways.base import Card
from ecomcharge.payments import model as payments
from ecomcharge.payments.model import REFUND_FAILED, REFUNDED, Payment
from ecomcharge.plans import model as plans
from ecomcharge.plans.openapi import BASE_URL, NEW_PLAN, NOW, PLAN, SHOP_ID, STORED_PLAN
from ecomcharge.subscriptions import lifecycle, model, requests
from ecomcharge.subscriptions.lifecycle import BillingState
from ecomcharge.subscriptions.model import EMPTY_OBJECT, Subscription
from ecomcharge.subscriptions.notifications import checkout_object

Json = dict[str, Any]

NEW_CARD: Final[Json] = {
    **{field.name: field.example for field in (requests.NUMBER, requests.VERIFICATION_VALUE, requests.HOLDER)},
    "exp_month": "01",
    "exp_year": "2030",
}
HOSTED: Final[Json] = {
    "plan": {"id": PLAN["id"]},
    **{field.name: field.example for field in (requests.TRACKING_ID, requests.RETURN_URL, requests.NOTIFICATION_URL)},
    "additional_data": {"seats": 3},
}
WITH_CARD: Final[Json] = {**HOSTED, "plan": NEW_PLAN, "customer": NEW_CUSTOMER, "card": NEW_CARD}

_TERMS: Final = plans.terms_of(STORED_PLAN, ZoneInfo("UTC"))
_CARD: Final = Card(
    *(requests.HOLDER.example, "3f" * 32, "visa", "0000", "4", "420000", None, None, None),
    *("5fd27da7-d1c3-4b3f-9b6b-0c3a7f6c1f11", None, 1, 2030),
)
_PAYMENT: Final = Payment(
    *("019b3d6e-7c00-7abc-8def-0123456789ab", "sbs_7aee5afb954c7ef9", 0, 1, 499, "EUR", "sandbox"),
    status=base.SUCCESSFUL,
    created_at=NOW,
)
_REDIRECTED: Final = Subscription(
    *(SHOP_ID, _PAYMENT.subscription_id, 0, 0, STORED_PLAN, lifecycle.redirected(NOW)),
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
    checkout_token="c7" * 32,
)


def _paid(billing_state: BillingState, status: str = base.SUCCESSFUL, message: str = base.SUCCESS_MESSAGE) -> Subscription:
    """With a card, a customer, and the transaction that its charge became."""
    payment = msgspec.structs.replace(_PAYMENT, status=status, message=message)
    return msgspec.structs.replace(
        _REDIRECTED,
        billing_state=billing_state,
        customer_id=CUSTOMER["id"],
        checkout_token=None,
        card=msgspec.json.encode(_CARD).decode(),
        last_transaction=msgspec.json.encode(payments.to_json(payment)).decode(),
    )


def _json(subscription: Subscription, event: str | None = None) -> Json:
    shown: Json = json.loads(msgspec.json.encode(model.to_json(subscription, BASE_URL, event)))
    return shown


_REASON: Final = requests.CANCEL_REASON.example
_started: Final = lifecycle.charging(lifecycle.redirected(NOW), _TERMS, NOW)
_in_trial: Final = lifecycle.succeeded(_started, _TERMS, NOW).billing_state
_renewed: Final = lifecycle.succeeded(_in_trial, _TERMS, NOW + 7 * 24 * HOUR).billing_state
_canceled: Final = lifecycle.canceled(_renewed, _REASON, NOW + 8 * 24 * HOUR).billing_state
_failed: Final = lifecycle.declined(_started, _TERMS, NOW).billing_state
_too_late: Final = lifecycle.at_rest(lifecycle.canceled(_started, _REASON, NOW).billing_state)  # its first charge succeeded then

WAITING: Final = _json(_REDIRECTED)
TRIAL: Final = _json(_paid(_in_trial))
ACTIVE: Final = _json(_paid(_renewed))
CANCELED: Final = _json(_paid(_canceled))

# The bodies of webhooks, by event.
MESSAGES: Final[dict[str, Json]] = {
    **{
        event: _json(subscription, event)
        for event, subscription in (
            (lifecycle.CREATED_EVENT, _paid(_in_trial)),
            (lifecycle.RENEWED_EVENT, _paid(_renewed)),
            (lifecycle.CANCELED_EVENT, _paid(_canceled)),
            (lifecycle.FAILED_EVENT, _paid(_failed, base.FAILED, base.DECLINE_MESSAGE)),
            (lifecycle.REFUNDED_EVENT, _paid(_too_late, REFUNDED)),
            (lifecycle.REFUND_FAILED_EVENT, _paid(_too_late, REFUND_FAILED)),
        )
    },
    lifecycle.EXPIRED_EVENT: dict(checkout_object(_REDIRECTED, Customer(**CUSTOMER))),
}
