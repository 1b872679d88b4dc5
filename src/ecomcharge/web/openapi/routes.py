"""``GET /openapi.json``: the whole description, room by room."""

from __future__ import annotations

import json
from importlib import metadata

from ecomcharge.base.validation import MAXIMUM_LENGTH
from ecomcharge.web.messages import Request, Response, json_response
from ecomcharge.web.openapi import checkout, customers, events, parts, plans, sandbox, server, subscriptions
from ecomcharge.web.openapi.parts import Json
from ecomcharge.web.router import Route


class OpenApiRoutes:
    def __init__(self) -> None:
        self._document = json.dumps(document(), ensure_ascii=False).encode()

    def routes(self) -> list[Route]:
        return [Route("GET", "/openapi.json", self.read, needs_shop=False)]

    async def read(self, request: Request) -> Response:
        return json_response(200, self._document)


def document() -> Json:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "eComCharge API",
            "version": metadata.version("ecomcharge"),
            "summary": "Customers, plans and subscriptions of a shop.",
            "description": (
                "Log in with HTTP Basic: the shop's id is the user, its secret key the password. A shop sees its own "
                "data only. What a buyer's browser opens asks for no credentials.\n\n"
                "Bodies are UTF-8 JSON. Unknown keys, headers and query parameters are ignored. Every answer of 400 "
                "and above is an object with a `message` and, where fields are at fault, `errors`; a buyer gets a page.\n\n"
                "Where `GET` is described, `HEAD` works too."
            ),
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"basic": []}],
        "tags": [
            {"name": "customers", "description": "The people and companies that buy from a shop."},
            {"name": "plans", "description": "How often and how much is charged."},
            {"name": "subscriptions", "description": "Who is charged by which plan."},
            {"name": "events", "description": "What happened."},
            {"name": "checkout", "description": "What a buyer's browser opens."},
            {"name": "sandbox", "description": "Time travel, in sandbox mode only."},
            {"name": "webhooks", "description": "What the server sends to a shop."},
            {"name": "operations", "description": "What machines ask about the server itself."},
            {"name": "documentation", "description": "What you are reading."},
        ],
        "paths": {
            **customers.paths(),
            **plans.paths(),
            **subscriptions.paths(),
            **events.paths(),
            **checkout.paths(),
            **sandbox.paths(),
            **server.paths(),
        },
        "webhooks": events.webhooks_told(),
        "components": {
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic", "description": "User: the shop's id. Password: its secret key."}
            },
            "schemas": {
                **customers.schemas(),
                **plans.schemas(),
                **subscriptions.schemas(),
                **events.schemas(),
                **sandbox.schemas(),
                "Text": parts.text(MAXIMUM_LENGTH),
                "Error": parts.error(),
                "Errors": parts.nested_errors(),
            },
            "examples": parts.examples(),
            "headers": dict(parts.HEADERS),
        },
    }
