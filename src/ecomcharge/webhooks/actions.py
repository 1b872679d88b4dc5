"""What is done with webhooks, without sending any: that is ``delivery``'s."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import msgspec

from ecomcharge.customers import store as customers
from ecomcharge.errors import RecordNotFound, Unusable
from ecomcharge.events import store as events
from ecomcharge.events.model import Event
from ecomcharge.ids import EVENT_PREFIX, WEBHOOK_PREFIX, IdMint
from ecomcharge.keys import MasterKey
from ecomcharge.shops import store as shops
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.subscriptions.lifecycle import EXPIRED_EVENT
from ecomcharge.subscriptions.model import Subscription, shown
from ecomcharge.webhooks import store
from ecomcharge.webhooks.model import PENDING, SigningKey, Webhook, checkout_object

SIGNING_PURPOSE = "webhooks"
TRIES = 10  # of ids: another process may mint the same one in the same millisecond


@dataclass(frozen=True, slots=True)
class Teller:
    """Writes down what happened to subscriptions, for ``GET /events`` and for the merchant's webhook."""

    base_url: str
    event_ids: IdMint = field(default_factory=lambda: IdMint(EVENT_PREFIX))
    webhook_ids: IdMint = field(default_factory=lambda: IdMint(WEBHOOK_PREFIX))

    async def tell(self, tx: Transaction, subscription: Subscription, event: str, now: int) -> None:
        """To be called with the subscription as it is now, in the transaction that made it so. Its sequence is the event's.

        The id of the event sorts after the id of the subscription's event before it, whichever process and clock that was
        minted by. The webhook has the digits of the event's id, so that lists of webhooks have the same order.
        """
        object_ = msgspec.json.encode(shown(subscription, self.base_url, event))
        row = Event("", event, subscription.id, subscription.sequence, now, msgspec.Raw(object_))
        previous = await self._previous_event_id(tx, subscription)
        for _ in range(TRIES):
            event_id = self.event_ids.mint_after(previous, now)
            if await events.insert(tx, subscription.shop_id, msgspec.structs.replace(row, id=event_id)):
                break
        else:
            raise RuntimeError(f"event {subscription.sequence} of {subscription.id} is there already")
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
            webhook = msgspec.structs.replace(webhook, id=self.webhook_ids.mint_after(webhook.id, now))
        raise RuntimeError(f"no id is free for a webhook of {subscription.id}")

    async def _previous_event_id(self, tx: Transaction, subscription: Subscription) -> str:
        """Of the subscription's event before this one; empty, which every id sorts after, if there is none."""
        if subscription.sequence <= 1:
            return ""
        return await events.id_of(tx, subscription.shop_id, subscription.id, subscription.sequence - 1) or ""


async def newest(database: Database, shop_id: int | None, limit: int, state: str | None = None) -> list[Webhook]:
    """The last webhooks of a shop, or of all, newest first. Raises ``RecordNotFound`` where there is no such shop."""
    known = [shop.shop_id for shop in await shops.all_shops(database)]
    if shop_id is not None and shop_id not in known:
        raise RecordNotFound(f"no shop {shop_id}")
    found = [await store.newest(database, each, limit, state) for each in (known if shop_id is None else [shop_id])]
    return sorted(itertools.chain(*found), key=lambda webhook: webhook.id, reverse=True)[:limit]


async def redeliver(database: Database, shop_id: int, webhook_id: str, now: int) -> None:
    """Send a webhook again, with all its retries. Raises ``RecordNotFound``."""

    async def unit(tx: Transaction) -> None:
        if not await store.redeliver(tx, shop_id, webhook_id, now):
            raise RecordNotFound(f"shop {shop_id} has no webhook {webhook_id}")

    await database.write(unit)


async def signing_key_of(database: Database, master_key: MasterKey, shop_id: int) -> SigningKey:
    """The key that signs a shop's webhooks, made at first need. Raises ``Unusable`` where there is no such shop."""
    while True:
        kept = await store.signing_key(database, shop_id)
        if kept is None:
            raise Unusable(f"no shop {shop_id}")
        if kept[0] is not None:
            return SigningKey.of_text(master_key.unseal(shop_id, kept[0], SIGNING_PURPOSE))
        key = SigningKey.new()
        sealed = master_key.seal(shop_id, key.as_text(), SIGNING_PURPOSE)

        async def unit(tx: Transaction, sealed: str = sealed, public: str = key.public_text()) -> None:
            await store.keep_signing_key(tx, shop_id, sealed, public)

        await database.write(unit)
