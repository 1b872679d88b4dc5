"""Subscriptions, described."""

from __future__ import annotations

from typing import Any, Final

from ecomcharge.base import errors
from ecomcharge.gateways import base
from ecomcharge.plans.model import LANGUAGES
from ecomcharge.subscriptions import lifecycle, requests
from ecomcharge.subscriptions.routes import FILTERS
from ecomcharge.web.openapi import customers, examples, parts, plans
from ecomcharge.web.openapi.parts import AROUND, BLANK, EMPTY, NULL, Json, ref

ID: Final = {"type": "string", "pattern": parts.SUBSCRIPTION_ID, "examples": [parts.SUBSCRIPTION_ID_EXAMPLE]}
_UNKNOWN: Final = (parts.INLINE_PLAN, parts.UNKNOWN_PLAN, parts.UNKNOWN_CUSTOMER, parts.UNKNOWN_TOKEN, parts.MISPLACED_TEST)
_FILTERED_BY: Final = {
    "state": "Only subscriptions in this state.",
    "customer": "Only subscriptions of the customer with this id.",
    "plan": "Only subscriptions to the plan with this id.",
    "tracking_id": "Only subscriptions with exactly this id of the merchant's.",
}


def paths() -> Json:
    return {
        "/subscriptions": {"post": _create(), "get": _list()},
        "/subscriptions/{subscription_id}": {"get": _read(), "delete": _delete()},
        "/subscriptions/{subscription_id}/cancel": {"post": _cancel()},
    }


def schemas() -> Json:
    return {
        "NewSubscription": _new_subscription(),
        "NewCard": _new_card(),
        "CancelSubscription": _cancel_subscription(),
        "Subscription": _subscription(),
        "SubscriptionId": ID,
        "Card": _card(),
        "Transaction": _transaction(),
    }


def _create() -> Json:
    return {
        "operationId": "createSubscription",
        "tags": ["subscriptions"],
        "summary": "Create a subscription",
        "description": (
            "With a card it is charged at once; a card that asks for 3-D Secure, and a subscription without a card, answer "
            "`redirecting` with the `redirect_url` for the buyer's browser. Plan and customer are told by id, or in full and "
            "then created with it. A declined card is no error: the state is `failed`. Outside sandbox mode a shop without a "
            f"chosen gateway takes plans with `test` only: 422. {parts.IDEMPOTENT}"
        ),
        "parameters": parts.creation_headers(),
        "requestBody": parts.json_body(
            "NewSubscription",
            {
                "card": {"summary": "With a card, and a plan and a customer in full", "value": examples.WITH_CARD},
                "hosted": {
                    "summary": "The buyer pays on the hosted page",
                    "value": {**examples.HOSTED, "plan": examples.NEW_PLAN},
                },
            },
        ),
        "responses": {
            "201": parts.answer(
                "The subscription.",
                {
                    "application/json": {
                        "schema": ref("schemas", "Subscription"),
                        "examples": {
                            "charged": {"summary": "Charged, and in its trial", "value": examples.TRIAL},
                            "redirecting": {"summary": "Waits for its buyer", "value": examples.WAITING},
                        },
                    }
                },
                headers=("Location", "Idempotent-Replayed", "X-Ignored-Keys"),
                links={
                    "read": _link("readSubscription"),
                    "cancel": _link("cancelSubscription"),
                    "list": {"operationId": "listSubscriptions", "parameters": {"customer": "$response.body#/customer/id"}},
                },
            ),
            **parts.failures(*parts.OF_CREATE, *_UNKNOWN, *parts.FOR_SHOPS),
        },
    }


def _link(operation: str) -> Json:
    return {"operationId": operation, "parameters": {"subscription_id": "$response.body#/id"}}


def _list() -> Json:
    return {
        "operationId": "listSubscriptions",
        "tags": ["subscriptions"],
        "summary": "List subscriptions",
        "description": parts.paging_told("subscription", "subscriptions"),
        "parameters": [
            *(parts.query(name, _FILTERED_BY[name], {"type": "string"}) for name in FILTERS),
            *parts.paging("subscription", parts.SUBSCRIPTION_ID),
        ],
        "responses": {
            "200": parts.answer(
                "An array of subscriptions, `[]` when there are none.",
                parts.list_of("Subscription", examples.ACTIVE),
                headers=("Link",),
            ),
            **parts.failures(errors.BadParameter.code, *parts.FOR_SHOPS),
        },
    }


def _of_one(*more: Json) -> list[Json]:
    return [parts.path_parameter("subscription_id", ref("schemas", "SubscriptionId")), *more, parts.request_id_header()]


def _read() -> Json:
    return {
        "operationId": "readSubscription",
        "tags": ["subscriptions"],
        "summary": "Read a subscription",
        "parameters": _of_one(),
        "responses": {
            "200": parts.answer(
                "The subscription.", parts.json_of("Subscription", examples.ACTIVE), headers=("X-Next-Attempt-At",)
            ),
            **parts.failures(*parts.OF_AN_ID, *parts.FOR_SHOPS),
        },
    }


def _cancel() -> Json:
    return {
        "operationId": "cancelSubscription",
        "tags": ["subscriptions"],
        "summary": "Cancel a subscription",
        "description": "No further charge; what is paid stays paid. A second time changes nothing and answers the same.",
        "parameters": _of_one(),
        "requestBody": parts.json_body(
            "CancelSubscription", {"reason": {"summary": "Why", "value": {"cancel_reason": requests.CANCEL_REASON.example}}}
        ),
        "responses": {
            "200": parts.answer("The subscription.", parts.json_of("Subscription", examples.CANCELED)),
            **parts.failures(*parts.OF_JSON, *parts.OF_A_WRITE, *parts.OF_AN_ID, parts.NO_REASON, parts.OVER, *parts.FOR_SHOPS),
        },
    }


def _delete() -> Json:
    return {
        "operationId": "deleteSubscription",
        "tags": ["subscriptions"],
        "summary": "Cancel a subscription, without a reason",
        "description": "It can be read afterwards: only its charges end.",
        "parameters": _of_one(),
        "responses": {
            "200": parts.answer("The subscription.", parts.json_of("Subscription", examples.CANCELED)),
            **parts.failures(*parts.OF_A_WRITE, *parts.OF_AN_ID, parts.OVER, *parts.FOR_SHOPS),
        },
    }


def _new_subscription() -> Json:
    anything = {"description": "Passed on to the gateway, and never an error."}
    return {
        "type": "object",
        "description": "Blank and null mean absent. Unknown keys are ignored, misplaced ones too: `X-Ignored-Keys` names them.",
        "required": ["plan"],
        "properties": {
            "customer": {
                "description": "Known, or new and then created with the subscription. Required with a card.",
                "anyOf": [_known("a customer", parts.CUSTOMER_ID), customers.details(), EMPTY, NULL],
            },
            "plan": {
                "description": "Known, or new and then created with the subscription.",
                "anyOf": [_known("a plan", parts.PLAN_ID), _inline_plan()],
            },
            "tracking_id": parts.optional_text(requests.TRACKING_ID),
            "device_id": parts.optional_text(requests.DEVICE_ID),
            "return_url": parts.web_address(requests.RETURN_URL),
            "notification_url": parts.web_address(requests.NOTIFICATION_URL),
            "additional_data": _any_object("The merchant's own; echoed.", examples.HOSTED["additional_data"]),
            "dynamic_billing_descriptor": parts.optional_text(requests.DESCRIPTOR),
            "receipt_text": {"description": "Lines for the receipt.", "anyOf": [{"type": "array"}, NULL]},
            "avs_cvc_verification": anything,
            "settings": _any_object(
                "Of the hosted page: `language`, and under `customer_fields.visible` the names of the customer's fields that it "
                "asks for besides the e-mail address.",
                {"language": "en", "customer_fields": {"visible": ["first_name", "last_name"]}},
            ),
            "language": {
                "description": f"Of the hosted page; wins over `settings.language`, and an unknown one is no error. Known: "
                f"{', '.join(LANGUAGES)}.",
                "examples": ["en"],
            },
            "card": {
                "description": "Charged at once. Without it the buyer types one into the hosted page.",
                "anyOf": [ref("schemas", "NewCard"), _card_by_token(), {"const": {}, "title": "empty"}, EMPTY, NULL],
            },
        },
        "if": {"required": ["card"], "properties": {"card": {"type": "object", "minProperties": 1}}},
        "then": {
            "required": ["customer"],
            "properties": {"customer": {"type": "object", "not": {"additionalProperties": {"enum": ["", None]}}}},
        },
        "examples": [examples.WITH_CARD, examples.HOSTED],
    }


def _known(noun: str, pattern: str) -> Json:
    return {
        "title": f"{noun} of this shop",
        "type": "object",
        "required": ["id"],
        "properties": {"id": {"type": "string", "pattern": pattern}},
    }


def _inline_plan() -> Json:
    described = plans.new_plan()
    described["properties"]["id"] = {"enum": ["", None], "description": "Absent."}
    return {**described, "title": "plan"}


def _any_object(description: str, example: Json) -> Json:
    return {"description": description, "anyOf": [{"type": "object"}, EMPTY, NULL], "examples": [example]}


def _new_card() -> Json:
    digits = {"type": "string", "pattern": f"^{AROUND}[ -]*(?:[0-9][ -]*){{12,19}}{AROUND}$", "maxLength": 255}
    code = {"type": "string", "pattern": f"^{AROUND}[0-9]{{3,4}}{AROUND}$"}
    year = "Year; of two digits it is one of 2000 to 2099."
    years = {"title": "as text", "type": "string", "pattern": f"^{AROUND}0{{0,16}}(?:[1-9][0-9]?|2[01][0-9]{{2}}){AROUND}$"}
    return {
        "title": "card",
        "type": "object",
        "description": "A card as its holder knows it. Number and code are never kept.",
        "required": ["number", "exp_month", "exp_year"],
        "properties": {
            "number": parts.told(requests.NUMBER)
            | {"anyOf": [digits, {"type": "integer", "minimum": 10**11, "exclusiveMaximum": 10**19}]},
            "verification_value": parts.told(requests.VERIFICATION_VALUE)
            | {"anyOf": [code, {"type": "integer", "minimum": 100, "maximum": 9_999}, BLANK, NULL]},
            "holder": parts.optional_text(requests.HOLDER),
            "exp_month": parts.whole_number("Month, 1 to 12.", above=0, most=12, example=1),
            "exp_year": {
                "description": year,
                "examples": [2030],
                "anyOf": [
                    {"type": "integer", "minimum": 1, "maximum": 99},
                    {"type": "integer", "minimum": 2_000, "maximum": 2_199},
                    years,
                ],
            },
            "token": {"enum": ["", None], "description": "Absent."},
        },
    }


def _card_by_token() -> Json:
    return {
        "title": "card by token",
        "type": "object",
        "description": "A card that was charged before: the `card.token` of a subscription.",
        "required": ["token"],
        "properties": {"token": {"type": "string", "pattern": parts.UUID, "examples": [parts.UUID_EXAMPLE]}},
    }


def _cancel_subscription() -> Json:
    reason = parts.required_text(requests.CANCEL_REASON)
    return {
        "type": "object",
        "required": [requests.CANCEL_REASON.name],
        "properties": {requests.CANCEL_REASON.name: reason},
        "examples": [{"cancel_reason": requests.CANCEL_REASON.example}],
    }


def _subscription() -> Json:
    nothing = {"title": "none yet", "type": "object", "maxProperties": 0}
    url: Json = {"pattern": "^https?://"}
    customer = parts.shown_object("The customer.", {"id": ref("schemas", "CustomerId")})
    properties: dict[str, Any] = {
        "id": ref("schemas", "SubscriptionId"),
        "state": {"enum": list(lifecycle.STATES), "description": "Where it stands."},
        "tracking_id": parts.shown_text(requests.TRACKING_ID.description, nullable=True),
        "device_id": parts.shown_text(requests.DEVICE_ID.description, nullable=True),
        "created_at": parts.moment("When it was created."),
        "renew_at": parts.moment(
            "When the next period begins and its charge is due. In `failed_attempt` and `rescuing` the past date since which "
            "the period is unpaid; `X-Next-Attempt-At` says when the charge is tried again. Of a finite plan's last cycle "
            "when it ends.",
            nullable=True,
        ),
        "active_to": parts.moment("Until when it is paid.", nullable=True),
        "card": {"description": "`{}` until it is known.", "anyOf": [ref("schemas", "Card"), nothing]},
        "customer": {"description": "`{}` until there is one.", "anyOf": [customer, nothing]},
        "paid_billing_cycles": parts.shown_number("Cycles that were paid, the trial's included."),
        "number_failed_payment_attempts": parts.shown_number("Attempts of the present charge that came to nothing."),
        "additional_data": {"type": "object", "description": "As it was sent; `{}` when nothing was."},
        "cancel_reason": parts.shown_text("Why it was canceled. Once it is.", nullable=True),
        "cancelled_at": parts.moment("When it was canceled. Once it is."),
        "plan": ref("schemas", "Plan"),
        "last_transaction": {"description": "`{}` until there is one.", "anyOf": [ref("schemas", "Transaction"), nothing]},
        "redirect_url": parts.shown_text("Where to send the buyer's browser. While `redirecting`.", **url),
        "token": parts.shown_text("Of the hosted page. While `redirecting` on it.", pattern=parts.TOKEN),
        "event": {"enum": list(examples.TOLD), "description": "What happened. In webhooks and events."},
    }
    optional = ("cancel_reason", "cancelled_at", "redirect_url", "token", "event")
    return parts.shown_object(
        "A subscription. More keys may follow these.", properties, optional=optional, example=examples.ACTIVE
    )


def _card() -> Json:
    hosted = "`null` of a card that was typed into the hosted page."
    properties: dict[str, Any] = {
        "holder": parts.shown_text(requests.HOLDER.description, nullable=True),
        "stamp": parts.shown_text(f"The same for the same number. {hosted}", nullable=True, pattern=parts.TOKEN),
        "brand": parts.shown_text("Such as `visa` or `master`."),
        "last_4": parts.shown_text("Last digits of the number."),
        "first_1": parts.shown_text("First digit of the number."),
        "bin": parts.shown_text(f"First digits of the number. {hosted}", nullable=True),
        "issuer_country": parts.shown_text("Country of the bank, where the gateway tells.", nullable=True),
        "issuer_name": parts.shown_text("Name of the bank, where the gateway tells.", nullable=True),
        "product": parts.shown_text("Kind of card, where the gateway tells.", nullable=True),
        "token": parts.shown_text("Charges the card again."),
        "token_provider": parts.shown_text("Whose token it is, where the gateway tells.", nullable=True),
        "exp_month": parts.shown_number("Month.", minimum=1),
        "exp_year": parts.shown_number("Year.", minimum=1),
        "sub_brand": parts.shown_text("Where the gateway tells.", nullable=True),
    }
    return parts.shown_object(
        "A card, without what would let anybody else charge it.", properties, example=examples.ACTIVE["card"]
    )


def _transaction() -> Json:
    properties: dict[str, Any] = {
        "uid": parts.shown_text("The gateway's id of it."),
        "status": {"enum": [base.SUCCESSFUL, base.FAILED, base.ERROR, base.INCOMPLETE], "description": "What became of it."},
        "message": parts.shown_text("The same in words."),
        "created_at": parts.moment("When it began."),
        "redirect_url": parts.shown_text("The 3-D Secure step, while it is to be passed.", pattern="^https?://"),
    }
    example = examples.ACTIVE["last_transaction"]
    return parts.shown_object("The last charge.", properties, optional=("redirect_url",), example=example)
