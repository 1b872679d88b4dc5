"""The API description of webhooks: requests that this server sends to a shop."""

from __future__ import annotations

from typing import Final

from ecomcharge.base.ids import WEBHOOK_ID
from ecomcharge.web.openapi import Part, json_content, parameter
from ecomcharge.web.wire_forms import Json, matching
from ecomcharge.webhooks.model import RETRIES, SUCCESS

_DESCRIPTION: Final = (
    "Sent to the subscription's `notification_url`. The events of one subscription come in order, the next when the one before "
    f"was accepted, given up or skipped by the operator. Only status {SUCCESS} accepts it, not 201, 202 or 204; otherwise it is "
    f"sent again up to {RETRIES} times."
)
_SIGNATURE: Final = (
    "Standard Webhooks: `v1,` and base64 of HMAC-SHA256 over `{webhook-id}.{webhook-timestamp}.{body}`, keyed with the bytes of "
    "the shop's secret key as it is written. `whsec_` and base64 of these bytes is the key for libraries."
)
_RSA: Final = "Base64 of the RSA-SHA256 signature (PKCS#1 v1.5) of the raw body, made with the shop's signing key."
_HEADERS: Final = {
    "Authorization": ("`Basic`, with the shop's id and its secret key.", {"type": "string", "pattern": "^Basic "}),
    "Content-Signature": (_RSA, None),
    "webhook-id": ("Standard Webhooks: the same in every attempt.", matching(WEBHOOK_ID)),
    "webhook-timestamp": ("Standard Webhooks: seconds since 1970, of this attempt.", {"type": "string", "pattern": "^[0-9]+$"}),
    "webhook-signature": (_SIGNATURE, {"type": "string", "pattern": "^v1,"}),
}


def part() -> Part:
    return Part("webhooks", "Messages that the server sends to a shop.")


def message(event: str, happened: str, schema: str, example: Json) -> Json:
    """The webhook of one event. ``schema`` is the schema of its body."""
    operation = {
        "operationId": event.replace(".", "_"),
        "tags": ["webhooks"],
        "summary": happened,
        "description": _DESCRIPTION,
        "security": [],
        "parameters": [parameter("header", name, *about, required=True) for name, about in _HEADERS.items()],
        "requestBody": {"required": True, "content": json_content(schema, example)},
        "responses": {str(SUCCESS): {"description": "Accepted. The body is not read."}},
    }
    return {"post": operation}
