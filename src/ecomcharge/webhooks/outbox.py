"""Actions on webhooks that send nothing. ``delivery`` sends."""

from __future__ import annotations

import itertools

import structlog

from ecomcharge.base.errors import ConfigurationError, RecordNotFound
from ecomcharge.shops import store as shops
from ecomcharge.shops.keys import MasterKey
from ecomcharge.shops.model import SIGNING_PURPOSE
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.webhooks import store
from ecomcharge.webhooks.model import SigningKey, Webhook, skip_webhook, standard_webhooks_key

log = structlog.get_logger()


async def newest(database: Database, shop_id: int | None, limit: int, state: str | None = None) -> list[Webhook]:
    """The last webhooks of one shop or of all shops, newest first. Raises ``RecordNotFound`` for an unknown shop."""
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


async def skip(database: Database, shop_id: int, webhook_id: str, now: int) -> Webhook:
    """Give up a pending webhook now, so that later ones of its subscription are sent. Returns it as it was before.

    ``now`` is the real time, in UTC milliseconds. Raises ``RecordNotFound``, and ``ConfigurationError`` if it is not pending.
    """

    async def unit(tx: Transaction) -> Webhook:
        webhook = await store.find(tx, shop_id, webhook_id)
        if webhook is None:
            raise RecordNotFound(f"shop {shop_id} has no webhook {webhook_id}")
        if not await store.skip(tx, skip_webhook(webhook, now)):
            raise ConfigurationError(f"webhook {webhook_id} is {webhook.state}; only a pending webhook can be skipped")
        return webhook

    webhook = await database.write(unit)
    log.warning(
        "webhook skipped by an operator",
        shop=shop_id,
        webhook=webhook_id,
        subscription=webhook.subscription_id,
        attempts=webhook.attempts,
        status=webhook.last_status,
    )
    return webhook


async def signing_key_of(database: Database, master_key: MasterKey, shop_id: int) -> SigningKey:
    """The key that signs a shop's webhooks, created at the first call. Raises ``ConfigurationError`` for an unknown shop."""
    while True:
        kept = await store.signing_key(database, shop_id)
        if kept is None:
            raise ConfigurationError(f"no shop {shop_id}")
        if kept[0] is not None:
            return SigningKey.of_text(master_key.unseal(shop_id, kept[0], SIGNING_PURPOSE))
        key = SigningKey.new()
        sealed = master_key.seal(shop_id, key.as_text(), SIGNING_PURPOSE)

        async def unit(tx: Transaction, sealed: str = sealed, public: str = key.public_text()) -> None:
            await store.keep_signing_key(tx, shop_id, sealed, public)

        await database.write(unit)


async def webhook_key_of(database: Database, master_key: MasterKey, shop_id: int, now: int) -> str:
    """The key of the shop's ``webhook-signature``, in the form of Standard Webhooks. It contains the newest secret key.

    ``now`` is the real time, in UTC milliseconds. Raises ``ConfigurationError`` if the shop has no valid key.
    """
    sealed = await store.newest_sealed_key(database, shop_id, now)
    if sealed is None:
        raise ConfigurationError(f"shop {shop_id} has no key to sign with")
    return standard_webhooks_key(master_key.unseal(shop_id, sealed))
