"""Events of subscriptions, and the webhooks that report them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypedDict

import msgspec
from msgspec import Meta

from ecomcharge.base.ids import EVENT_PREFIX, WEBHOOK_PREFIX, IdGenerator
from ecomcharge.base.wire_types import NaturalNumber
from ecomcharge.customers import store as customers
from ecomcharge.customers.model import Customer
from ecomcharge.events.model import Event
from ecomcharge.events.recorder import TRIES, CustomerEventRecorder, insert_event
from ecomcharge.plans.model import description_of
from ecomcharge.storage.database import Transaction
from ecomcharge.subscriptions.lifecycle import EXPIRED_EVENT
from ecomcharge.subscriptions.model import Subscription, to_json
from ecomcharge.webhooks import store
from ecomcharge.webhooks.model import PENDING, Webhook


@dataclass(frozen=True, slots=True)
class EventRecorder:
    """Records the events of subscriptions, for ``GET /events`` and for the merchant's webhooks."""

    base_url: str
    event_ids: IdGenerator = field(default_factory=lambda: IdGenerator(EVENT_PREFIX))
    webhook_ids: IdGenerator = field(default_factory=lambda: IdGenerator(WEBHOOK_PREFIX))

    @property
    def of_customers(self) -> CustomerEventRecorder:
        """The recorder of the events of customers."""
        return CustomerEventRecorder(self.event_ids)

    async def record(self, tx: Transaction, subscription: Subscription, event: str, now: int) -> None:
        """Record an event in the transaction that changes the subscription, with the changed subscription.

        The sequence of the subscription becomes the sequence of the event. The webhook has the digits of the event's id, so
        that lists of webhooks have the same order.
        """
        object_ = msgspec.json.encode(to_json(subscription, self.base_url, event))
        row = Event("", event, subscription.id, subscription.sequence, now, msgspec.Raw(object_))
        event_id = await insert_event(tx, subscription.shop_id, self.event_ids, row)
        if subscription.notification_url is None:
            return
        body = object_
        if event == EXPIRED_EVENT:
            customer = None
            if subscription.customer_id:
                customer = await customers.find(tx, subscription.shop_id, subscription.customer_id)
            body = msgspec.json.encode(checkout_object(subscription, customer))
        webhook = Webhook(
            shop_id=subscription.shop_id,
            id=WEBHOOK_PREFIX + event_id.removeprefix(EVENT_PREFIX),
            subscription_id=subscription.id,
            sequence=subscription.sequence,
            event=event,
            url=subscription.notification_url,
            body=body.decode(),
            state=PENDING,
            attempts=0,
            created_at=now,
            due_at=now,
        )
        for _ in range(TRIES):
            if await store.insert(tx, webhook):
                return
            webhook = msgspec.structs.replace(webhook, id=self.webhook_ids.generate_after(webhook.id, now))
        raise RuntimeError(f"no id is free for a webhook of {subscription.id}")


class CheckoutOrderObject(TypedDict):
    """The order: amount, currency and description of the first charge."""

    amount: Annotated[NaturalNumber, Meta(description="The first charge, in minor units.")]
    currency: str
    description: str
    tracking_id: str | None


class CheckoutSettingsObject(TypedDict):
    """The settings of the page."""

    return_url: str | None
    notification_url: str | None
    language: str


class ExpiredCheckoutObject(TypedDict):
    """The checkout object of a payment page that expired without a payment."""

    token: Annotated[str | None, Meta(description="Of the hosted page; `null` if there was none.")]
    shop_id: int
    finished: Literal[False]
    expired: Literal[True]
    status: Literal["error"]
    message: Literal["Token is expired."]
    order: CheckoutOrderObject
    settings: CheckoutSettingsObject
    customer: Annotated[dict[str, Any], Meta(description="The customer; `{}` if there is none.")]
    test: bool


def checkout_object(subscription: Subscription, customer: Customer | None) -> ExpiredCheckoutObject:
    """The body of the webhook of an expired payment page: the checkout object instead of the subscription object [P]."""
    plan = subscription.plan
    trial_or_plan = plan.trial or plan.plan
    return {
        "token": subscription.checkout_token,
        "shop_id": subscription.shop_id,
        "finished": False,
        "expired": True,
        "status": "error",
        "message": "Token is expired.",
        "order": {
            "amount": trial_or_plan.amount,
            "currency": plan.currency,
            "description": description_of(plan),
            "tracking_id": subscription.tracking_id,
        },
        "settings": {
            "return_url": subscription.return_url,
            "notification_url": subscription.notification_url,
            "language": subscription.language,
        },
        "customer": msgspec.to_builtins(customer) if customer else {},
        "test": plan.test,
    }
