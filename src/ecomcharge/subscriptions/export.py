"""Everything that is stored about one customer, as one JSON document (for a subject access request)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec

from ecomcharge.base.calendar import iso
from ecomcharge.base.ids import moment_of
from ecomcharge.customers.model import StoredCustomer
from ecomcharge.events import store as events
from ecomcharge.events.model import to_json
from ecomcharge.payments import store as payments
from ecomcharge.payments.model import Payment
from ecomcharge.storage.database import Reader
from ecomcharge.storage.records import chunks_of
from ecomcharge.subscriptions import model, store
from ecomcharge.subscriptions.model import Subscription
from ecomcharge.subscriptions.store import Filter
from ecomcharge.webhooks import store as webhooks
from ecomcharge.webhooks.model import Webhook

PARTS: Final = ("subscriptions", "payments", "events", "webhooks")


async def export_customer(database: Reader, shop_id: int, stored: StoredCustomer, base_url: str) -> AsyncIterator[bytes]:
    """The document in chunks. It reads a few records at a time, so it is not a snapshot of one moment.

    Keys: ``customer`` (the customer object), ``created_at``, ``updated_at``, then one array for each of ``PARTS``.
    """
    customer = stored.customer
    head = {"customer": customer, "created_at": iso(moment_of(customer.id)), "updated_at": iso(stored.changed_at)}
    yield msgspec.json.encode(head)[:-1]
    subscriptions = store.Subscriptions(database, shop_id, Filter(customer_id=customer.id))
    ids = []
    yield b',"subscriptions":['
    separator = b""
    async for chunk in chunks_of(subscriptions):
        for subscription in chunk:
            ids.append(subscription.id)
            yield separator + msgspec.json.encode(_subscription(subscription, base_url))
            separator = b","
    yield b'],"payments":['
    async for part in _arrays(database, shop_id, customer.id, ids):
        yield part
    yield b"]}"


async def _arrays(database: Reader, shop_id: int, customer_id: str, subscription_ids: list[str]) -> AsyncIterator[bytes]:
    separator = b""
    for subscription_id in subscription_ids:
        for payment in await payments.of_subscription(database, shop_id, subscription_id):
            yield separator + msgspec.json.encode(_payment(payment))
            separator = b","
    yield b'],"events":['
    separator = b""
    for object_id in (customer_id, *subscription_ids):
        for event in await events.of_object(database, shop_id, object_id):
            yield separator + msgspec.json.encode(to_json(event))
            separator = b","
    yield b'],"webhooks":['
    separator = b""
    for subscription_id in subscription_ids:
        for webhook in await webhooks.of_subscription(database, shop_id, subscription_id):
            yield separator + msgspec.json.encode(_webhook(webhook))
            separator = b","


def _subscription(subscription: Subscription, base_url: str) -> dict[str, Any]:
    """The subscription object, and what is stored with it but is not in the object."""
    stored = {
        "gateway": subscription.gateway,
        "return_url": subscription.return_url,
        "notification_url": subscription.notification_url,
        **msgspec.json.decode(subscription.options),
    }
    return {**model.to_json(subscription, base_url), "stored": stored}


def _payment(payment: Payment) -> dict[str, Any]:
    return {
        "id": payment.id,
        "uid": payment.uid,
        "subscription_id": payment.subscription_id,
        "amount": payment.amount,
        "currency": payment.currency,
        "gateway": payment.gateway,
        "status": payment.status,
        "message": payment.message,
        "created_at": iso(payment.created_at),
        "settled_at": None if payment.settled_at is None else iso(payment.settled_at),
    }


def _webhook(webhook: Webhook) -> dict[str, Any]:
    return {
        "id": webhook.id,
        "subscription_id": webhook.subscription_id,
        "event": webhook.event,
        "url": webhook.url,
        "state": webhook.state,
        "created_at": iso(webhook.created_at),
        "body": msgspec.Raw(webhook.body.encode()),
    }
