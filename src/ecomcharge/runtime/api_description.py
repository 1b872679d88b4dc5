"""The whole API description, part by part."""

from __future__ import annotations

from ecomcharge.checkout import openapi as checkout
from ecomcharge.customers import openapi as customers
from ecomcharge.events import openapi as events
from ecomcharge.plans import openapi as plans
from ecomcharge.sandbox import openapi as sandbox
from ecomcharge.subscriptions import openapi as subscriptions
from ecomcharge.web import server_openapi
from ecomcharge.web.openapi import document
from ecomcharge.web.wire_forms import Json
from ecomcharge.webhooks import openapi as webhooks


def describe_api(base_url: str = "http://127.0.0.1:8080") -> Json:
    """``base_url`` is where clients find this server."""
    parts = [
        customers.part(subscriptions.customer_operations()),
        plans.part(),
        subscriptions.part(),
        events.part(subscriptions.MESSAGES),
        checkout.part(),
        sandbox.part(),
        webhooks.part(),
        *server_openapi.parts(),
    ]
    return document(parts, base_url)
