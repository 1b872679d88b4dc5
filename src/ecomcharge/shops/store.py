"""SQL of shops, shop keys and gateway accounts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from typing import Final

from ecomcharge.shops.model import FIRST_ACCOUNT, AccountUse, GatewayAccount, GatewayChoice, Shop, ShopKey
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.storage.statements import Insert, PointRead

INSERT_SHOP = Insert("shops", ("shop_id", "name", "created_at"), key=("shop_id", "name", "created_at"))

FIND_SHOP = PointRead("shops", ("shop_id", "name", "created_at", "closed_at"), key=("shop_id",))

ALL_SHOPS = "SELECT shop_id, name, created_at, closed_at FROM shops ORDER BY created_at, shop_id"

CLOSE_SHOP = "UPDATE shops SET closed_at = :now WHERE shop_id = :shop_id AND closed_at IS NULL"

OPEN_SHOP = "UPDATE shops SET closed_at = NULL WHERE shop_id = :shop_id AND closed_at IS NOT NULL"

FIND_OPEN_SHOP = PointRead("shops", ("shop_id",), key=("shop_id",), suffix="AND closed_at IS NULL")

_LOCK_OPEN_SHOP = "SELECT 1 FROM shops WHERE shop_id = :shop_id AND closed_at IS NULL"

# PostgreSQL must lock the shop, so that nobody closes or opens it before this transaction commits. SQLite has one writer.
LOCK_OPEN_SHOP = {"sqlite": _LOCK_OPEN_SHOP, "postgresql": f"{_LOCK_OPEN_SHOP} FOR SHARE"}

INSERT_KEY = Insert("shop_keys", ("shop_id", "key_hash", "sealed_key", "created_at"), key=("shop_id", "key_hash", "sealed_key"))

KEYS_OF_OPEN_SHOP = """
SELECT shop_keys.key_hash, shop_keys.expires_at
FROM shop_keys JOIN shops ON shops.shop_id = shop_keys.shop_id
WHERE shop_keys.shop_id = :shop_id AND shops.closed_at IS NULL
"""

GATEWAY_CHOICE = PointRead("shops", ("gateway", "gateway_account", "gateway_chosen_at"), key=("shop_id",))

# The three columns after gateway_account are the account's own, for the previous release.
CHOOSE_ACCOUNT = """
UPDATE shops SET
    gateway = :gateway, gateway_account = :id, gateway_url = :url, gateway_user = :user, sealed_gateway_key = :sealed_key,
    gateway_chosen_at = :now
WHERE shop_id = :shop_id
"""

# The columns of the account are kept: its subscriptions are charged there.
CHOOSE_SANDBOX = "UPDATE shops SET gateway = 'sandbox', gateway_chosen_at = :now WHERE shop_id = :shop_id"

_ACCOUNT: Final = ("id", "gateway", "url", "gateway_user", "sealed_key", "created_at")

ACCOUNTS = f"SELECT {', '.join(_ACCOUNT)} FROM gateway_accounts WHERE shop_id = :shop_id"

FIND_ACCOUNT = PointRead("gateway_accounts", _ACCOUNT, key=("shop_id", "id"))

INSERT_ACCOUNT = Insert("gateway_accounts", ("shop_id", *_ACCOUNT), key=("shop_id", "id", "sealed_key"))

# An account that the previous release set up on this schema.
ACCOUNT_OF_PREVIOUS_RELEASE = """
SELECT '1', 'begateway', gateway_url, gateway_user, sealed_gateway_key, created_at FROM shops
WHERE shop_id = :shop_id AND gateway_account IS NULL AND sealed_gateway_key IS NOT NULL
"""

SET_ACCOUNT_KEY = "UPDATE gateway_accounts SET sealed_key = :sealed_key WHERE shop_id = :shop_id AND id = :id"

REPLACE_ACCOUNT_KEY = f"{SET_ACCOUNT_KEY} AND sealed_key = :sealed"

FORGET_ACCOUNT = "UPDATE gateway_accounts SET sealed_key = NULL WHERE shop_id = :shop_id AND id = :id"

FORGET_ACCOUNT_OF_PREVIOUS_RELEASE = """
UPDATE shops SET gateway_url = NULL, gateway_user = NULL, sealed_gateway_key = NULL
WHERE shop_id = :shop_id AND COALESCE(gateway_account, '1') = :id
"""

CLEAR_PREVIOUS_RELEASE = """
UPDATE shops SET
    gateway_account = COALESCE(gateway_account, '1'), gateway_url = NULL, gateway_user = NULL, sealed_gateway_key = NULL
WHERE shop_id = :shop_id AND sealed_gateway_key IS NOT NULL
"""

SUBSCRIPTIONS_BY_ACCOUNT = """
SELECT COALESCE(gateway_account, '1'), COUNT(*) FROM subscriptions
WHERE shop_id = :shop_id AND gateway <> 'sandbox' AND state NOT IN ('failed', 'error', 'expired', 'canceled')
GROUP BY COALESCE(gateway_account, '1')
"""

UNSETTLED_PAYMENTS_BY_ACCOUNT = """
SELECT COALESCE(gateway_account, '1'), COUNT(*) FROM payments
WHERE shop_id = :shop_id AND gateway <> 'sandbox' AND (
    status IN ('pending', 'unknown', 'incomplete') OR check_at IS NOT NULL
)
GROUP BY COALESCE(gateway_account, '1')
"""

ACCOUNTS_OF_OPEN_SHOPS = """
SELECT shops.shop_id, gateway_accounts.id, gateway_accounts.url
FROM gateway_accounts JOIN shops ON shops.shop_id = gateway_accounts.shop_id
WHERE shops.closed_at IS NULL AND gateway_accounts.sealed_key IS NOT NULL
UNION
SELECT shop_id, '1', gateway_url FROM shops
WHERE closed_at IS NULL AND gateway_account IS NULL AND sealed_gateway_key IS NOT NULL
ORDER BY 1, 2
"""

NEWEST_SEALED_KEYS = "SELECT shop_id, sealed_key FROM shop_keys ORDER BY created_at DESC LIMIT :limit"

SEALED_KEYS = "SELECT key_hash, sealed_key FROM shop_keys WHERE shop_id = :shop_id"

REPLACE_KEY = """
UPDATE shop_keys SET key_hash = :new_hash, sealed_key = :new_sealed
WHERE shop_id = :shop_id AND key_hash = :key_hash AND sealed_key = :sealed_key
"""

FORGET_ALL_KEYS = "DELETE FROM shop_keys WHERE shop_id = :shop_id"

SEALED_SIGNING_KEY = PointRead("shops", ("sealed_signing_key",), key=("shop_id",))

REPLACE_SIGNING_KEY = """
UPDATE shops SET sealed_signing_key = :new WHERE shop_id = :shop_id AND sealed_signing_key = :sealed
"""

FORGET_SIGNING_KEY = "UPDATE shops SET sealed_signing_key = NULL, public_key = NULL WHERE shop_id = :shop_id"

# A key that an earlier rotation ends sooner keeps that time.
EXPIRE_OTHER_KEYS = """
UPDATE shop_keys SET expires_at = :expires_at
WHERE shop_id = :shop_id AND key_hash <> :key_hash AND (expires_at IS NULL OR expires_at > :expires_at)
"""

FORGET_EXPIRED_KEYS = "DELETE FROM shop_keys WHERE shop_id = :shop_id AND expires_at <= :now"


async def insert_shop(tx: Transaction, shop_id: int, name: str, now: int) -> bool:
    return await tx.insert(INSERT_SHOP, (shop_id, name, now))


async def find_shop(reader: Database | Transaction, shop_id: int) -> Shop | None:
    row = await reader.find(FIND_SHOP, (shop_id,))
    return Shop(*row) if row else None


async def all_shops(database: Database) -> list[Shop]:
    return [Shop(*row) for row in await database.rows(ALL_SHOPS, {})]


async def close_shop(tx: Transaction, shop_id: int, now: int) -> bool:
    return await tx.run(CLOSE_SHOP, {"shop_id": shop_id, "now": now}) > 0


async def open_shop(tx: Transaction, shop_id: int) -> bool:
    """``False`` if the shop was open."""
    return await tx.run(OPEN_SHOP, {"shop_id": shop_id}) > 0


async def is_open(database: Database, shop_id: int) -> bool:
    return await database.find(FIND_OPEN_SHOP, (shop_id,)) is not None


async def lock_open_shop(tx: Transaction, shop_id: int, engine: str) -> bool:
    """Whether the shop is open. It stays open until the transaction ends."""
    return bool(await tx.rows(LOCK_OPEN_SHOP[engine], {"shop_id": shop_id}))


async def insert_key(tx: Transaction, shop_id: int, key_hash: str, sealed_key: str, now: int) -> bool:
    return await tx.insert(INSERT_KEY, (shop_id, key_hash, sealed_key, now))


async def keys_of_open_shop(database: Database, shop_id: int) -> Sequence[ShopKey]:
    """The keys of a shop, expired ones too; none for a shop that is closed or does not exist."""
    return [ShopKey(*row) for row in await database.rows(KEYS_OF_OPEN_SHOP, {"shop_id": shop_id})]


async def newest_sealed_keys(database: Database, limit: int) -> list[tuple[int, str]]:
    """Shop ids with an encrypted key, the newest keys first."""
    return [(row[0], row[1]) for row in await database.rows(NEWEST_SEALED_KEYS, {"limit": limit})]


async def sealed_keys(tx: Transaction, shop_id: int) -> list[tuple[str, str]]:
    """Hash and encrypted form of every key of a shop."""
    return [(row[0], row[1]) for row in await tx.rows(SEALED_KEYS, {"shop_id": shop_id})]


async def replace_key(tx: Transaction, shop_id: int, old: tuple[str, str], new: tuple[str, str]) -> int:
    """Store another hash and encrypted form of a key. Returns 0 if the key was changed or deleted meanwhile."""
    hashes = {"key_hash": old[0], "sealed_key": old[1], "new_hash": new[0], "new_sealed": new[1]}
    return await tx.run(REPLACE_KEY, {"shop_id": shop_id, **hashes})


async def forget_all_keys(tx: Transaction, shop_id: int) -> None:
    await tx.run(FORGET_ALL_KEYS, {"shop_id": shop_id})


async def sealed_signing_key(tx: Transaction, shop_id: int) -> str | None:
    """The encrypted private key that signs a shop's webhooks; ``None`` before the first one."""
    row = await tx.find(SEALED_SIGNING_KEY, (shop_id,))
    return None if row is None else row[0]


async def replace_signing_key(tx: Transaction, shop_id: int, sealed: str, new: str) -> int:
    """Store another encrypted form. Returns 0 if it was changed meanwhile."""
    return await tx.run(REPLACE_SIGNING_KEY, {"shop_id": shop_id, "sealed": sealed, "new": new})


async def forget_signing_key(tx: Transaction, shop_id: int) -> None:
    """Delete the key, so that the next webhook creates another one."""
    await tx.run(FORGET_SIGNING_KEY, {"shop_id": shop_id})


async def expire_other_keys(tx: Transaction, shop_id: int, key_hash: str, expires_at: int) -> None:
    await tx.run(EXPIRE_OTHER_KEYS, {"shop_id": shop_id, "key_hash": key_hash, "expires_at": expires_at})


async def forget_expired_keys(tx: Transaction, shop_id: int, now: int) -> None:
    await tx.run(FORGET_EXPIRED_KEYS, {"shop_id": shop_id, "now": now})


async def gateway_choice(reader: Database | Transaction, shop_id: int) -> GatewayChoice:
    row = await reader.find(GATEWAY_CHOICE, (shop_id,))
    assert row is not None
    return GatewayChoice(*row)


async def choose_sandbox(tx: Transaction, shop_id: int, now: int) -> bool:
    """``False`` for an unknown shop."""
    return await tx.run(CHOOSE_SANDBOX, {"shop_id": shop_id, "now": now}) > 0


async def choose_account(tx: Transaction, shop_id: int, account: GatewayAccount, now: int) -> None:
    """Charge the shop's new subscriptions at this account."""
    await tx.run(CHOOSE_ACCOUNT, {**_account_params(shop_id, account), "now": now})


async def accounts(reader: Database | Transaction, shop_id: int) -> list[GatewayAccount]:
    """Every account that the shop has or had, in order of creation."""
    params = {"shop_id": shop_id}
    rows = [*await reader.rows(ACCOUNTS, params), *await reader.rows(ACCOUNT_OF_PREVIOUS_RELEASE, params)]
    return sorted((GatewayAccount(*row) for row in rows), key=lambda account: int(account.id))


async def find_account(database: Database, shop_id: int, account_id: str) -> GatewayAccount | None:
    row = await database.find(FIND_ACCOUNT, (shop_id, account_id))
    if row is None and account_id == FIRST_ACCOUNT:
        row = next(iter(await database.rows(ACCOUNT_OF_PREVIOUS_RELEASE, {"shop_id": shop_id})), None)
    return GatewayAccount(*row) if row is not None else None


async def insert_account(tx: Transaction, shop_id: int, account: GatewayAccount) -> bool:
    """``False`` if the id is taken."""
    return await tx.insert(INSERT_ACCOUNT, (shop_id, *astuple(account)))


async def set_account_key(tx: Transaction, shop_id: int, account: GatewayAccount) -> None:
    await tx.run(SET_ACCOUNT_KEY, {"shop_id": shop_id, "id": account.id, "sealed_key": account.sealed_key})


async def replace_account_key(tx: Transaction, shop_id: int, account: GatewayAccount, new: str) -> int:
    """Store another encrypted form of the key of an account. Returns 0 if it was changed or deleted meanwhile."""
    params = {"shop_id": shop_id, "id": account.id, "sealed": account.sealed_key, "sealed_key": new}
    return await tx.run(REPLACE_ACCOUNT_KEY, params)


async def forget_account(tx: Transaction, shop_id: int, account_id: str) -> None:
    """Delete its key; its row stays, so that its id is not used again."""
    for sql in (FORGET_ACCOUNT, FORGET_ACCOUNT_OF_PREVIOUS_RELEASE):
        await tx.run(sql, {"shop_id": shop_id, "id": account_id})


async def forget_account_of_previous_release(tx: Transaction, shop_id: int) -> None:
    """Delete the copy of an account in the columns that the previous release reads."""
    await tx.run(CLEAR_PREVIOUS_RELEASE, {"shop_id": shop_id})


async def uses_of_accounts(reader: Database | Transaction, shop_id: int) -> dict[str, AccountUse]:
    """The uses by account; an account without a use is left out."""
    params = {"shop_id": shop_id}
    subscriptions = {row[0]: row[1] for row in await reader.rows(SUBSCRIPTIONS_BY_ACCOUNT, params)}
    payments = {row[0]: row[1] for row in await reader.rows(UNSETTLED_PAYMENTS_BY_ACCOUNT, params)}
    return {id_: AccountUse(subscriptions.get(id_, 0), payments.get(id_, 0)) for id_ in {*subscriptions, *payments}}


async def accounts_of_open_shops(database: Database) -> list[tuple[int, str, str]]:
    """Shop, account and address of every account that may still be charged."""
    return [(row[0], row[1], row[2]) for row in await database.rows(ACCOUNTS_OF_OPEN_SHOPS, {})]


def _account_params(shop_id: int, account: GatewayAccount) -> dict[str, object]:
    return {
        "shop_id": shop_id,
        "id": account.id,
        "gateway": account.gateway,
        "url": account.url,
        "user": account.user,
        "sealed_key": account.sealed_key,
    }
