"""Events and webhooks, described."""

from __future__ import annotations

from typing import Any, Final

from ecomcharge.base import errors
from ecomcharge.events.model import CUSTOMER_CREATED
from ecomcharge.subscriptions import lifecycle
from ecomcharge.web.listing import DEFAULT_LIMIT, MAXIMUM_LIMIT
from ecomcharge.web.openapi import examples, parts
from ecomcharge.web.openapi.parts import Json, ref
from ecomcharge.webhooks import model as webhooks

_HAPPENED: Final = {
    lifecycle.CREATED_EVENT: "The first charge took the money: the state is `trial` or `active`.",
    lifecycle.RENEWED_EVENT: "A later charge took the money.",
    lifecycle.CANCELED_EVENT: "It was canceled, or the last cycle of a finite plan is over.",
    lifecycle.FAILED_EVENT: "The first charge was declined or in error, or the attempts of a later one are used up.",
    lifecycle.REFUNDED_EVENT: "A payment succeeded that the subscription does not need any more, and the money went back.",
    lifecycle.REFUND_FAILED_EVENT: "The gateway refuses that refund: the operator has to give the money back.",
    lifecycle.EXPIRED_EVENT: "The buyer did not come within a day. The body is the checkout object.",
}
assert _HAPPENED.keys() == examples.TOLD.keys()


def paths() -> Json:
    return {"/events": {"get": _list()}}


def schemas() -> Json:
    return {
        "Event": _event(),
        "EventId": {"type": "string", "pattern": parts.EVENT_ID, "examples": [parts.EVENT_ID_EXAMPLE]},
        "ExpiredCheckout": _expired_checkout(),
    }


def webhooks_told() -> Json:
    return {event: {"post": _webhook(event, happened)} for event, happened in _HAPPENED.items()}


def _list() -> Json:
    cursor = {"type": "string", "pattern": f"^(?:{parts.EVENT_ID[1:-1]})?$"}
    return {
        "operationId": "listEvents",
        "tags": ["events"],
        "summary": "List events",
        "description": "What happened in the last thirty days, newest first.",
        "parameters": [
            parts.query("limit", f"How many at most, {DEFAULT_LIMIT} unless given.", parts.count(MAXIMUM_LIMIT)),
            parts.query("before", "Only events before this one. Empty: from the newest.", cursor),
            parts.query("object", "Only events of the object with this id.", {"type": "string"}),
            parts.query("type", "Only events of this type.", {"type": "string"}),
            parts.request_id_header(),
        ],
        "responses": {
            "200": parts.answer(
                "An array of events, `[]` when there are none.",
                parts.list_of("Event", examples.CREATED_EVENT),
                headers=("Link",),
            ),
            **parts.failures(errors.BadParameter.code, *parts.FOR_SHOPS),
        },
    }


def _event() -> Json:
    properties: dict[str, Any] = {
        "id": ref("schemas", "EventId"),
        "type": {"enum": [CUSTOMER_CREATED, *_HAPPENED], "description": "What happened."},
        "object_id": parts.shown_text("The id of the customer or subscription."),
        "sequence": parts.shown_number("Counts the events of one object from 1.", minimum=1),
        "created_at": parts.moment("When it happened."),
        "data": {
            "description": "The object as it was then; a customer as it is.",
            "anyOf": [ref("schemas", "Subscription"), ref("schemas", "Customer")],
        },
    }
    return parts.shown_object("An event. More keys may follow these.", properties, example=examples.CREATED_EVENT)


def _webhook(event: str, happened: str) -> Json:
    expired = event == lifecycle.EXPIRED_EVENT
    return {
        "operationId": event.replace(".", "_"),
        "tags": ["webhooks"],
        "summary": happened,
        "description": (
            "Sent to the subscription's `notification_url`. The events of one subscription come in order, the next when the one "
            f"before was taken or given up. Only status {webhooks.SUCCESS} takes it; else it is sent again up to "
            f"{webhooks.RETRIES} times."
        ),
        "security": [],
        "parameters": _headers(),
        "requestBody": {
            "required": True,
            "content": parts.json_of("ExpiredCheckout" if expired else "Subscription", examples.TOLD[event]),
        },
        "responses": {str(webhooks.SUCCESS): {"description": "Taken. The body is not read."}},
    }


def _headers() -> list[Json]:
    def always(name: str, description: str, **schema: str) -> Json:
        return {**parts.header(name, description, {"type": "string", **schema}), "required": True}

    return [
        always("Authorization", "`Basic`, with the shop's id and its secret key.", pattern="^Basic "),
        always(
            "Content-Signature", "Base64 of the RSA-SHA256 signature (PKCS#1 v1.5) of the raw body, by the shop's signing key."
        ),
        always("webhook-id", "Standard Webhooks: the same in every attempt.", pattern="^whk_[0-9a-f]{16}$"),
        always("webhook-timestamp", "Standard Webhooks: seconds since 1970, of this attempt.", pattern="^[0-9]+$"),
        always(
            "webhook-signature",
            "Standard Webhooks: `v1,` and base64 of HMAC-SHA256 over `{webhook-id}.{webhook-timestamp}.{body}`, keyed with the "
            "bytes of the shop's secret key as it is written.",
            pattern="^v1,",
        ),
    ]


def _expired_checkout() -> Json:
    text: Json = {"type": ["string", "null"]}
    order = {
        "amount": parts.shown_number("What would have been charged first, in minor units."),
        "currency": {"type": "string"},
        "description": {"type": "string"},
        "tracking_id": text,
    }
    settings = {"return_url": text, "notification_url": text, "language": {"type": "string"}}
    properties: dict[str, Any] = {
        "token": parts.shown_text("Of the hosted page; `null` where there was none.", nullable=True),
        "shop_id": {"type": "integer"},
        "finished": {"const": False},
        "expired": {"const": True},
        "status": {"const": "error"},
        "message": {"const": "Token is expired."},
        "order": parts.shown_object("What was to be paid.", order),
        "settings": parts.shown_object("Of the page.", settings),
        "customer": {"type": "object", "description": "The customer; `{}` where there is none."},
        "test": {"type": "boolean"},
    }
    example = examples.TOLD[lifecycle.EXPIRED_EVENT]
    return parts.shown_object("A hosted page that the buyer did not come to.", properties, example=example)
