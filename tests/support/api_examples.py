"""The examples of the API description, produced by the code: all states of one subscription.

``PYTHONPATH=tests python -m support.api_examples`` writes them to the files that the program reads.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

import ecomcharge
from ecomcharge.base.calendar import HOUR
from ecomcharge.base.validation import ValidationErrors
from ecomcharge.customers.model import Customer
from ecomcharge.customers.openapi import CUSTOMER
from ecomcharge.gateways import base
from ecomcharge.gateways.base import Card
from ecomcharge.payments import model as payments
from ecomcharge.payments.model import REFUND_FAILED, REFUNDED, Payment
from ecomcharge.plans import model as plans
from ecomcharge.plans.model import Plan, PlanBody
from ecomcharge.plans.openapi import NEW_PLAN
from ecomcharge.subscriptions import lifecycle, model, requests
from ecomcharge.subscriptions.lifecycle import BillingState
from ecomcharge.subscriptions.model import EMPTY_OBJECT, Subscription
from ecomcharge.subscriptions.notifications import checkout_object

Json = dict[str, Any]

SOURCE: Final = Path(ecomcharge.__file__).parent
SHOP_ID: Final = 361
NOW: Final = 1_767_258_000_000  # 2026-01-01T09:00:00Z
BASE_URL: Final = "https://pay.example"


def _stored_plan() -> Plan:
    fields = plans.validate(msgspec.convert(NEW_PLAN, PlanBody), ValidationErrors())
    assert fields is not None
    return Plan(**msgspec.structs.asdict(fields), id="pln_7aee5afb954c7ef8", created_at=NOW, updated_at=NOW)


STORED_PLAN: Final = _stored_plan()
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
    """A subscription with a card, a customer, and the transaction of its charge."""
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
    decoded: Json = json.loads(msgspec.json.encode(model.to_json(subscription, BASE_URL, event)))
    return decoded


_REASON: Final = requests.CANCEL_REASON.example
_started: Final = lifecycle.charging(lifecycle.redirected(NOW), _TERMS, NOW)
_in_trial: Final = lifecycle.succeeded(_started, _TERMS, NOW).billing_state
_renewed: Final = lifecycle.succeeded(_in_trial, _TERMS, NOW + 7 * 24 * HOUR).billing_state
_canceled: Final = lifecycle.canceled(_renewed, _REASON, NOW + 8 * 24 * HOUR).billing_state
_failed: Final = lifecycle.declined(_started, _TERMS, NOW).billing_state
_too_late: Final = lifecycle.at_rest(
    lifecycle.canceled(_started, _REASON, NOW).billing_state
)  # the time of its first successful charge


_TRIAL: Final = _paid(_in_trial)
_ACTIVE: Final = _paid(_renewed)
_CANCELED: Final = _paid(_canceled)


def plan_example() -> Json:
    return dict(plans.to_json(STORED_PLAN, SHOP_ID, BASE_URL))


def subscription_examples() -> Json:
    """Objects by state, and webhook bodies by event. The plan is omitted, because it is always the one above."""
    by_state = {each.billing_state.state: _json(each) for each in (_REDIRECTED, _TRIAL, _ACTIVE, _CANCELED)}
    by_event = {
        event: _json(subscription, event)
        for event, subscription in (
            (lifecycle.CREATED_EVENT, _TRIAL),
            (lifecycle.RENEWED_EVENT, _ACTIVE),
            (lifecycle.CANCELED_EVENT, _CANCELED),
            (lifecycle.FAILED_EVENT, _paid(_failed, base.FAILED, base.DECLINE_MESSAGE)),
            (lifecycle.REFUNDED_EVENT, _paid(_too_late, REFUNDED)),
            (lifecycle.REFUND_FAILED_EVENT, _paid(_too_late, REFUND_FAILED)),
        )
    }
    expired = {lifecycle.EXPIRED_EVENT: dict(checkout_object(_REDIRECTED, Customer(**CUSTOMER)))}
    return {name: {**example, "plan": None} for name, example in (by_state | by_event).items()} | expired


def text_of(examples: Json) -> str:
    """Writes each example on its own line."""
    lines = (f"  {json.dumps(name)}: {json.dumps(example, ensure_ascii=False)}" for name, example in examples.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


FILES: Final = {
    SOURCE / "plans" / "examples.json": {"plan": plan_example()},
    SOURCE / "subscriptions" / "examples.json": subscription_examples(),
}

if __name__ == "__main__":
    for path, examples in FILES.items():
        path.write_text(text_of(examples), "utf-8")
