"""Rows of shops and shop_keys."""

from __future__ import annotations

from collections.abc import Sequence

from ecomcharge.shops.model import Gateway, Shop, ShopKey
from ecomcharge.storage.database import Database, Transaction

INSERT_SHOP = """
INSERT INTO shops (shop_id, name, created_at) VALUES (:shop_id, :name, :created_at)
ON CONFLICT DO NOTHING RETURNING shop_id, name, created_at
"""

FIND_SHOP = "SELECT shop_id, name, created_at, closed_at FROM shops WHERE shop_id = :shop_id"

ALL_SHOPS = "SELECT shop_id, name, created_at, closed_at FROM shops ORDER BY created_at, shop_id"

CLOSE_SHOP = "UPDATE shops SET closed_at = :now WHERE shop_id = :shop_id AND closed_at IS NULL"

INSERT_KEY = """
INSERT INTO shop_keys (shop_id, key_hash, sealed_key, created_at)
VALUES (:shop_id, :key_hash, :sealed_key, :created_at)
ON CONFLICT DO NOTHING RETURNING shop_id, key_hash, sealed_key
"""

KEYS_OF_OPEN_SHOP = """
SELECT shop_keys.key_hash, shop_keys.expires_at
FROM shop_keys JOIN shops ON shops.shop_id = shop_keys.shop_id
WHERE shop_keys.shop_id = :shop_id AND shops.closed_at IS NULL
"""

GATEWAY = "SELECT gateway, gateway_url, gateway_user, sealed_gateway_key FROM shops WHERE shop_id = :shop_id"

SET_GATEWAY = """
UPDATE shops SET gateway = :gateway, gateway_url = :url, gateway_user = :user, sealed_gateway_key = :sealed_key
WHERE shop_id = :shop_id
"""

# The account at another gateway is kept: subscriptions that began there go on there.
SERVE_BY_SANDBOX = "UPDATE shops SET gateway = 'sandbox' WHERE shop_id = :shop_id"

ANY_SEALED_KEY = "SELECT shop_id, sealed_key FROM shop_keys LIMIT 1"

# A key that an earlier rotation already ends sooner keeps its sooner end.
EXPIRE_OTHER_KEYS = """
UPDATE shop_keys SET expires_at = :expires_at
WHERE shop_id = :shop_id AND key_hash <> :key_hash AND (expires_at IS NULL OR expires_at > :expires_at)
"""

FORGET_EXPIRED_KEYS = "DELETE FROM shop_keys WHERE shop_id = :shop_id AND expires_at <= :now"


async def insert_shop(tx: Transaction, shop_id: int, name: str, now: int) -> bool:
    return await tx.insert(INSERT_SHOP, {"shop_id": shop_id, "name": name, "created_at": now})


async def find_shop(tx: Transaction, shop_id: int) -> Shop | None:
    row = await tx.find(FIND_SHOP, {"shop_id": shop_id})
    return Shop(*row) if row else None


async def all_shops(database: Database) -> list[Shop]:
    return [Shop(*row) for row in await database.rows(ALL_SHOPS, {})]


async def close_shop(tx: Transaction, shop_id: int, now: int) -> bool:
    return await tx.run(CLOSE_SHOP, {"shop_id": shop_id, "now": now}) > 0


async def insert_key(tx: Transaction, shop_id: int, key_hash: str, sealed_key: str, now: int) -> bool:
    key = {"shop_id": shop_id, "key_hash": key_hash, "sealed_key": sealed_key, "created_at": now}
    return await tx.insert(INSERT_KEY, key)


async def keys_of_open_shop(database: Database, shop_id: int) -> Sequence[ShopKey]:
    """The keys of a shop, expired ones too; none for a shop that is closed or does not exist."""
    return [ShopKey(*row) for row in await database.rows(KEYS_OF_OPEN_SHOP, {"shop_id": shop_id})]


async def any_sealed_key(database: Database) -> tuple[int, str] | None:
    """Some shop and its sealed key, if there is any."""
    rows = await database.rows(ANY_SEALED_KEY, {})
    return (rows[0][0], rows[0][1]) if rows else None


async def expire_other_keys(tx: Transaction, shop_id: int, key_hash: str, expires_at: int) -> None:
    await tx.run(EXPIRE_OTHER_KEYS, {"shop_id": shop_id, "key_hash": key_hash, "expires_at": expires_at})


async def forget_expired_keys(tx: Transaction, shop_id: int, now: int) -> None:
    await tx.run(FORGET_EXPIRED_KEYS, {"shop_id": shop_id, "now": now})


async def gateway_of(tx: Transaction, shop_id: int) -> str:
    row = await tx.find(GATEWAY, {"shop_id": shop_id})
    assert row is not None
    return str(row[0])


async def gateway_shown(tx: Transaction, shop_id: int) -> Gateway:
    row = await tx.find(GATEWAY, {"shop_id": shop_id})
    assert row is not None
    return Gateway(row[0], row[1], row[2])


async def gateway_account(database: Database, shop_id: int) -> tuple[str, str, str] | None:
    """URL, user and sealed key of the shop's account at its gateway, or ``None`` where it has none."""
    row = await database.find(GATEWAY, {"shop_id": shop_id})
    return (row[1], row[2], row[3]) if row is not None and row[3] is not None else None


async def serve_by_sandbox(tx: Transaction, shop_id: int) -> bool:
    """``False`` if there is no such shop."""
    return await tx.run(SERVE_BY_SANDBOX, {"shop_id": shop_id}) > 0


async def set_gateway(tx: Transaction, shop_id: int, gateway: str, url: str, user: str, sealed_key: str) -> bool:
    """``False`` if there is no such shop."""
    params = {"shop_id": shop_id, "gateway": gateway, "url": url, "user": user, "sealed_key": sealed_key}
    return await tx.run(SET_GATEWAY, params) > 0
