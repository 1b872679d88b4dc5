"""The API description of subscriptions, and of the webhooks that report on them."""

from __future__ import annotations

from typing import Final

from ecomcharge.base import errors, ids
from ecomcharge.base.validation import BASE, INVALID, human_name
from ecomcharge.customers.openapi import NEW_CUSTOMER
from ecomcharge.gateways.base import Card
from ecomcharge.payments.model import TransactionObject
from ecomcharge.plans import model as plans
from ecomcharge.plans.openapi import NEW_PLAN, PLAN
from ecomcharge.subscriptions import app_links, lifecycle, requests
from ecomcharge.subscriptions.export import PARTS
from ecomcharge.subscriptions.model import SubscriptionObject
from ecomcharge.subscriptions.notifications import ExpiredCheckoutObject
from ecomcharge.web import openapi
from ecomcharge.web.wire_forms import (
    ABSENT,
    AROUND,
    EMPTY,
    EMPTY_ARRAY,
    NULL,
    Json,
    matching,
    of_field,
    ref,
    text_field,
    trimmed,
    web_address,
    when,
    whole_number,
)
from ecomcharge.webhooks.openapi import message

EVENTS: Final = {
    lifecycle.CREATED_EVENT: "The first charge succeeded: the state is `trial` or `active`.",
    lifecycle.RENEWED_EVENT: "A later charge succeeded.",
    lifecycle.CANCELED_EVENT: "The subscription was canceled, or the last cycle of a finite plan ended.",
    lifecycle.FAILED_EVENT: "The first charge was declined or in error, or all attempts of a later one failed.",
    lifecycle.REFUNDED_EVENT: "A payment succeeded that the subscription did not need any more, and was refunded.",
    lifecycle.REFUND_FAILED_EVENT: "The gateway refuses that refund: the operator has to give the money back.",
    lifecycle.EXPIRED_EVENT: "The buyer did not come within a day. The body is the checkout object.",
}
# Bodies of webhooks by event, and objects by state.
_EXAMPLES: Final[dict[str, Json]] = openapi.read_json("ecomcharge.subscriptions", "examples.json")
MESSAGES: Final = {name: {**_EXAMPLES[name], **({} if name == lifecycle.EXPIRED_EVENT else {"plan": PLAN})} for name in EVENTS}
TRIAL, ACTIVE, CANCELED, REDIRECTING = (
    {**_EXAMPLES[state], "plan": PLAN} for state in (lifecycle.TRIAL, lifecycle.ACTIVE, lifecycle.CANCELED, lifecycle.REDIRECTING)
)
_FIELDS: Final = (requests.TRACKING_ID, requests.RETURN_URL, requests.NOTIFICATION_URL)
_HOSTED: Final[Json] = {
    "plan": {"id": PLAN["id"]},
    **{field.name: field.example for field in _FIELDS},
    "additional_data": {"seats": 3},
}
_CARD: Final = {
    **{field.name: field.example for field in (requests.NUMBER, requests.VERIFICATION_VALUE, requests.HOLDER)},
    "exp_month": "01",
    "exp_year": "2030",
}
_WITH_CARD: Final = {**_HOSTED, "plan": NEW_PLAN, "customer": NEW_CUSTOMER, "card": _CARD}
_FILTERS: Final = {
    "state": "in this state",
    "customer": "of the customer with this id",
    "plan": "to the plan with this id",
    "tracking_id": "with exactly this id of the merchant's",
}
_SUBSCRIPTIONS: Final = openapi.Resource("subscription", ids.SUBSCRIPTION_ID, ACTIVE, headers=["X-Next-Attempt-At"])
_REASON: Final = requests.CANCEL_REASON
_OVER: Final = openapi.failure(requests.is_over(), "subscription_is_over")
_REFUSED: Final = (
    openapi.invalid("invalid_inline_plan", {BASE: [f"{human_name(plans.CURRENCY.name)} {INVALID}"]}),
    openapi.failure(requests.unknown_plan(), "unknown_plan"),
    openapi.failure(requests.unknown_customer(), "unknown_customer"),
    openapi.failure(requests.unknown_card_token(), "unknown_card_token"),
    openapi.failure(plans.misplaced_test("plan.test"), "misplaced_test"),
)
_NUMBER: Final = trimmed("[ -]*(?:[0-9][ -]*){12,19}")
_YEAR: Final = trimmed("0{0,16}(?:[1-9][0-9]?|2[01][0-9]{2})", title="as text")
_YEAR_MEANS: Final = "Year; of two digits it is one of 2000 to 2099."
_MONTH: Final = whole_number("Month, 1 to 12.", above=0, most=12, example=1)


def part() -> openapi.Part:
    expired = lifecycle.EXPIRED_EVENT
    bodies = {event: "ExpiredCheckout" if event == expired else "Subscription" for event in EVENTS}
    return openapi.Part(
        "subscriptions",
        "The customers who are charged, and by which plan.",
        [_create(), _SUBSCRIPTIONS.list(_FILTERS), _SUBSCRIPTIONS.read("Its state, its plan and its last charge."), *_ends()],
        types=[SubscriptionObject, Card, TransactionObject, ExpiredCheckoutObject],
        schemas={
            "SubscriptionId": _SUBSCRIPTIONS.id_schema(),
            "Nothing": {"type": "object", "maxProperties": 0, "description": "`{}`: there is none.", "examples": [{}]},
            "NewSubscription": _new_subscription(),
            "InlinePlan": {"allOf": [ref("NewPlan"), {"type": "object", "properties": {"id": ABSENT}}]},
            "NewCard": _new_card(),
            "CardByToken": {
                "type": "object",
                "description": "A card that was charged before: the `card.token` of a subscription.",
                "required": ["token"],
                "properties": {"token": matching(ids.PAYMENT_ID, examples=[ACTIVE["card"]["token"]])},
            },
            "CancelSubscription": {
                "type": "object",
                "required": [_REASON.name],
                "properties": {_REASON.name: text_field(_REASON)},
                "examples": [{_REASON.name: _REASON.example}],
            },
            "Subscription": {
                "properties": {
                    "id": ref("SubscriptionId"),
                    "card": {"anyOf": [ref("Card"), ref("Nothing")]},
                    "customer": {"anyOf": [ref("CustomerById"), ref("Nothing")]},
                    "additional_data": {"type": "object"},
                    "last_transaction": {"anyOf": [ref("Transaction"), {"type": "null"}]},
                    "event": {"enum": list(EVENTS)},
                },
                "examples": [ACTIVE],
            },
            "CustomerExport": {
                "type": "object",
                "description": "A customer and everything that is stored about it.",
                "required": ["customer", "created_at", "updated_at", *PARTS],
                "properties": {
                    "customer": ref("Customer"),
                    "created_at": {"type": "string", "format": "date-time"},
                    "updated_at": {"type": "string", "format": "date-time"},
                    **{name: {"type": "array", "items": {"type": "object"}} for name in PARTS},
                },
            },
            "Card": {"examples": [ACTIVE["card"]]},
            "Transaction": {"examples": [ACTIVE["last_transaction"]]},
            "ExpiredCheckout": {"examples": [MESSAGES[expired]]},
        },
        webhooks={event: message(event, EVENTS[event], body, MESSAGES[event]) for event, body in bodies.items()},
    )


def customer_operations() -> list[openapi.Operation]:
    """Erasure and export of a customer, which concern its subscriptions too."""
    cancel = openapi.query(
        "subscriptions",
        "`cancel`: cancel the subscriptions that can still charge. Without it they refuse the erasure.",
        {"enum": ["cancel", ""]},
    )
    place = openapi.path_parameter("customer_id", "The id of the customer.", ref("CustomerId"))
    erased = (
        "Removes all personal data. Ids, amounts, dates, states and the last digits of cards are kept. A second call changes "
        "nothing."
    )
    failures = (errors.CustomerHasSubscriptions, errors.PreconditionFailed, errors.BadParameter, *openapi.OF_AN_ID)
    document = openapi.answer("The document.", {"application/json": {"schema": ref("CustomerExport")}}, "Preference-Applied")
    path = "/customers/{customer_id}"
    return [
        openapi.Operation(
            "DELETE",
            path,
            "eraseCustomer",
            "Erase a customer",
            erased,
            {204: openapi.answer("It is erased.")},
            failures,
            [place, cancel, openapi.IF_MATCH],
        ),
        openapi.Operation(
            *("GET", f"{path}/export", "exportCustomer", "Export everything about a customer"),
            "One JSON document with everything that is stored about the customer, for a subject access request.",
            *({200: document}, (errors.CustomerErased, *openapi.OF_AN_ID), [place, openapi.PREFER]),
        ),
    ]


def _create() -> openapi.Operation:
    created = openapi.answer(
        "The subscription.",
        openapi.json_content(
            "Subscription", charged=("Charged, and in its trial", TRIAL), redirecting=("Waits for its buyer", REDIRECTING)
        ),
        *("Location", "Idempotent-Replayed", "X-Ignored-Keys"),
        links={
            "read": openapi.link("readSubscription", "subscription_id"),
            "cancel": openapi.link("cancelSubscription", "subscription_id"),
            "list": openapi.link("listSubscriptions", "customer", "$response.body#/customer/id"),
        },
    )
    body = openapi.json_body(
        "NewSubscription",
        card=("With a card, and a plan and a customer in full", _WITH_CARD),
        hosted=("The buyer pays on the hosted page", {**_HOSTED, "plan": NEW_PLAN}),
    )
    description = (
        "With a card it is charged at once. A card that asks for 3-D Secure, and a subscription without a card, get the state "
        "`redirecting`, with the `redirect_url` for the buyer's browser. Plan and customer are given by id, or in full and "
        "then created with it. A declined card is not an error: the state is `failed`. Outside sandbox mode a shop without a "
        "chosen gateway accepts only plans with `test`: 422."
    )
    return _SUBSCRIPTIONS.create(description, body, created, *_REFUSED)


def _ends() -> list[openapi.Operation]:
    """Two ways to cancel."""
    path, place = "/subscriptions/{subscription_id}", [_SUBSCRIPTIONS.place()]
    canceled = {200: openapi.answer("The subscription.", openapi.json_content("Subscription", CANCELED))}
    no_reason = openapi.invalid("cancel_reason_missing", {_REASON.name: list(_REASON.blank)})
    body = openapi.json_body("CancelSubscription", reason=("The reason", {_REASON.name: _REASON.example}))
    failures = (*openapi.OF_AN_ID, errors.OutcomeUnknown, _OVER)
    without = ("DELETE", path, "deleteSubscription", "Cancel a subscription, without a reason")
    with_one = ("POST", f"{path}/cancel", "cancelSubscription", "Cancel a subscription")
    stays = "It can be read afterwards: only its charges end."
    twice = "No further charge; paid periods stay paid. A second request changes nothing and gets the same answer."
    return [
        openapi.Operation(*without, stays, canceled, failures, place),
        openapi.Operation(*with_one, twice, canceled, (*failures, no_reason), place, body),
    ]


def _new_subscription() -> Json:
    settings = (
        "Of the hosted page: `language`, and under `customer_fields.visible` the names of the customer's fields that it "
        "asks for besides the e-mail address."
    )
    language = "Of the hosted page; wins over `settings.language`, and an unknown one is not an error. Known: "
    known_or_new = "Known, or new and then created with the subscription."
    customer = {"type": "object", "not": {"additionalProperties": ABSENT}}
    return {
        "type": "object",
        "description": "Blank and null mean absent. Unknown keys are ignored, misplaced ones too: `X-Ignored-Keys` names them.",
        "required": ["plan"],
        "properties": {
            "customer": {
                "description": f"{known_or_new} Required with a card.",
                "anyOf": [ref("CustomerById"), ref("CustomerDetails"), EMPTY_ARRAY, EMPTY, NULL],
            },
            "plan": {"description": known_or_new, "anyOf": [ref("PlanById"), ref("InlinePlan")]},
            "tracking_id": text_field(requests.TRACKING_ID),
            "device_id": text_field(requests.DEVICE_ID),
            "return_url": web_address(requests.RETURN_URL, app_links.SCHEME),
            "notification_url": web_address(requests.NOTIFICATION_URL),
            "additional_data": _any_object("The merchant's own data; echoed.", _HOSTED["additional_data"]),
            "dynamic_billing_descriptor": text_field(requests.DESCRIPTOR),
            "receipt_text": {
                "description": "Lines of the receipt. The result page shows them after the payment.",
                "anyOf": [{"type": "array", "maxItems": requests.RECEIPT_LINES_MAXIMUM, "items": ref("Text")}, NULL],
                "examples": [[requests.RECEIPT_LINE.example]],
            },
            "avs_cvc_verification": {"description": "Passed on to the gateway; not validated."},
            "settings": _any_object(settings, {"language": "en", "customer_fields": {"visible": ["first_name", "last_name"]}}),
            "language": {"description": f"{language}{', '.join(plans.LANGUAGES)}.", "examples": ["en"]},
            "card": {
                "description": "Charged at once. Without it the buyer types one into the hosted page.",
                "anyOf": [ref("NewCard"), ref("CardByToken"), ref("Nothing"), EMPTY_ARRAY, EMPTY, NULL],
            },
        },
        **when("card", {"type": "object", "minProperties": 1}, required=["customer"], properties={"customer": customer}),
        "examples": [_WITH_CARD, _HOSTED],
    }


def _any_object(description: str, example: Json) -> Json:
    return {"description": description, "anyOf": [{"type": "object"}, EMPTY_ARRAY, EMPTY, NULL], "examples": [example]}


def _new_card() -> Json:
    number = {"type": "integer", "minimum": 10**11, "exclusiveMaximum": 10**19}
    code = {"type": "integer", "minimum": 100, "maximum": 9_999}
    years = [{"type": "integer", "minimum": least, "maximum": most} for least, most in ((1, 99), (2_000, 2_199))]
    return {
        "type": "object",
        "description": "A card in full. Its number and security code are never stored.",
        "required": ["number", "exp_month", "exp_year"],
        "properties": {
            "number": of_field(requests.NUMBER, {**_NUMBER, "maxLength": requests.NUMBER.maximum}, number),
            "verification_value": of_field(requests.VERIFICATION_VALUE, trimmed("[0-9]{3,4}"), code),
            "holder": text_field(requests.HOLDER),
            "exp_month": _MONTH,
            "exp_year": {"description": _YEAR_MEANS, "examples": [2030], "anyOf": [*years, _YEAR]},
            "token": ABSENT,
        },
    }


def typed_card() -> Json:
    """The fields of a card in the form of the hosted page: texts only."""
    code = {"type": "string", "pattern": f"^(?:{AROUND}[0-9]{{3,4}})?{AROUND}$"}
    return {
        "number": of_field(requests.NUMBER, **_NUMBER),
        "exp_month": {**_MONTH["anyOf"][1], "description": _MONTH["description"], "examples": ["01"]},
        "exp_year": {**_YEAR, "description": _YEAR_MEANS, "examples": ["2030"]},
        "verification_value": of_field(requests.VERIFICATION_VALUE, **code),
        "holder": {**text_field(requests.HOLDER)["anyOf"][0], "examples": [requests.HOLDER.example]},
    }
