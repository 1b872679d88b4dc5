"""What an operator does with shops. A key is returned in the clear exactly once, by the action that made it."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from ecomcharge.errors import RecordNotFound, Unusable
from ecomcharge.keys import MasterKey, make_secret_key, own_key_fault
from ecomcharge.shops import store
from ecomcharge.shops.model import (
    GATEWAY_KEY_PURPOSE,
    GATEWAYS,
    OVERLAP_MAXIMUM_SECONDS,
    Credentials,
    Gateway,
    Shop,
    checked_name,
    checked_shop_id,
    random_shop_id,
)
from ecomcharge.storage.database import Database, Transaction

LOOPBACK: Final = frozenset(("127.0.0.1", "localhost", "::1"))


async def create_shop(
    database: Database,
    master_key: MasterKey,
    now: int,
    *,
    name: str,
    shop_id: int | None = None,
    secret_key: str | None = None,
) -> Credentials:
    """A new shop, with a made key unless one is given. Raises ``Unusable`` when id, name or key cannot be used."""
    name = checked_name(name)
    wanted = None if shop_id is None else checked_shop_id(shop_id)
    key = _own_or_made(secret_key)

    async def unit(tx: Transaction) -> Credentials:
        chosen = random_shop_id() if wanted is None else wanted
        while not await store.insert_shop(tx, chosen, name, now):
            if wanted is not None:
                raise Unusable(f"shop {wanted} already exists")
            chosen = random_shop_id()
        await store.insert_key(tx, chosen, master_key.hash(chosen, key), master_key.seal(chosen, key), now)
        return Credentials(chosen, key)

    return await database.write(unit)


async def rotate_key(
    database: Database,
    master_key: MasterKey,
    now: int,
    *,
    shop_id: int,
    secret_key: str | None = None,
    overlap_seconds: int = 0,
) -> Credentials:
    """A new key for a shop; its older keys stay good for ``overlap_seconds``."""
    if not 0 <= overlap_seconds <= OVERLAP_MAXIMUM_SECONDS:
        raise Unusable(f"overlap must be between 0 and {OVERLAP_MAXIMUM_SECONDS} seconds")
    checked_shop_id(shop_id)
    key = _own_or_made(secret_key)

    async def unit(tx: Transaction) -> Credentials:
        shop = await store.find_shop(tx, shop_id)
        if shop is None or shop.closed_at is not None:
            raise RecordNotFound(f"no open shop {shop_id}")
        await store.forget_expired_keys(tx, shop_id, now)
        key_hash = master_key.hash(shop_id, key)
        if not await store.insert_key(tx, shop_id, key_hash, master_key.seal(shop_id, key), now):
            raise Unusable("that is a key of this shop already")
        await store.expire_other_keys(tx, shop_id, key_hash, now + overlap_seconds * 1000)
        return Credentials(shop_id, key)

    return await database.write(unit)


async def check_master_key(database: Database, master_key: MasterKey) -> None:
    """Raises ``Unusable`` when the keys in the database were sealed under another master key."""
    sealed = await store.any_sealed_key(database)
    if sealed is not None:
        master_key.unseal(*sealed)


async def set_gateway(
    database: Database,
    master_key: MasterKey,
    *,
    shop_id: int,
    gateway: str,
    url: str | None = None,
    user: str | None = None,
    secret_key: str | None = None,
) -> None:
    """Which gateway charges the cards of a shop's plans that are no tests. Raises ``Unusable`` for what cannot be used."""
    checked_shop_id(shop_id)
    if gateway not in GATEWAYS:
        raise Unusable(f"gateway must be one of {', '.join(GATEWAYS)}")

    async def to_sandbox(tx: Transaction) -> None:
        if not await store.serve_by_sandbox(tx, shop_id):
            raise RecordNotFound(f"no shop {shop_id}")

    if gateway == "sandbox":
        await database.write(to_sandbox)
        return
    if not (url and user and secret_key):
        raise Unusable("begateway needs --url, --user and ECOMCHARGE_GATEWAY_SECRET_KEY")
    if not _is_gateway_address(url):
        raise Unusable("--url must be https:// with a host, such as https://gateway.example.com; http:// only on this machine")
    account = (url, user, master_key.seal(shop_id, secret_key, GATEWAY_KEY_PURPOSE))

    async def to_account(tx: Transaction) -> None:
        if not await store.set_gateway(tx, shop_id, gateway, *account):
            raise RecordNotFound(f"no shop {shop_id}")

    await database.write(to_account)


async def shop_and_gateway(database: Database, shop_id: int) -> tuple[Shop, Gateway]:
    """Raises ``RecordNotFound``."""
    checked_shop_id(shop_id)

    async def unit(tx: Transaction) -> tuple[Shop, Gateway]:
        shop = await store.find_shop(tx, shop_id)
        if shop is None:
            raise RecordNotFound(f"no shop {shop_id}")
        return shop, await store.gateway_shown(tx, shop_id)

    return await database.write(unit)


async def close_shop(database: Database, now: int, *, shop_id: int) -> None:
    """Nobody gets in any more; the data stays. Closing twice changes nothing."""
    checked_shop_id(shop_id)

    async def unit(tx: Transaction) -> None:
        if await store.find_shop(tx, shop_id) is None:
            raise RecordNotFound(f"no shop {shop_id}")
        await store.close_shop(tx, shop_id, now)

    await database.write(unit)


def _is_gateway_address(text: str) -> bool:
    """Card numbers go there, so it is HTTPS, or nowhere but to this machine."""
    try:
        parts = urlsplit(text)
        if parts.scheme == "http" and parts.hostname not in LOOPBACK:
            return False
        whole = bool(parts.hostname) and parts.port != 0 and not (parts.query or parts.fragment or parts.username)
        return parts.scheme in ("https", "http") and whole and text.isprintable() and " " not in text
    except ValueError:
        return False


def _own_or_made(secret_key: str | None) -> str:
    if secret_key is None:
        return make_secret_key()
    fault = own_key_fault(secret_key)
    if fault:
        raise Unusable(f"secret key {fault}")
    return secret_key
