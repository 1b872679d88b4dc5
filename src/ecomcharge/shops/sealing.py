"""Secrets that are sealed under the master key: reads them, seals them under another master key, replaces them after a loss."""

from __future__ import annotations

from dataclasses import dataclass

from ecomcharge.base.errors import ConfigurationError, RecordNotFound
from ecomcharge.shops import store
from ecomcharge.shops.keys import MasterKey, make_secret_key
from ecomcharge.shops.model import GATEWAY_KEY_PURPOSE, SIGNING_PURPOSE, Credentials, GatewayAccount, validate_shop_id
from ecomcharge.storage.database import Database, Transaction


@dataclass(slots=True)
class Resealed:
    """The secrets that were sealed again, and those that none of the master keys can read.

    ``unreadable`` are the shops with such a key of their own, ``lost_accounts`` the gateway accounts with such a key, each with
    the id of its shop.
    """

    shop_keys: int = 0
    gateway_keys: int = 0
    signing_keys: int = 0
    unreadable: tuple[int, ...] = ()
    lost_accounts: tuple[tuple[int, GatewayAccount], ...] = ()

    def __add__(self, other: Resealed) -> Resealed:
        return Resealed(
            self.shop_keys + other.shop_keys,
            self.gateway_keys + other.gateway_keys,
            self.signing_keys + other.signing_keys,
            (*self.unreadable, *other.unreadable),
            (*self.lost_accounts, *other.lost_accounts),
        )


def gateway_key_of(master_key: MasterKey, shop_id: int, account: GatewayAccount) -> str:
    """The secret key of an account. Raises ``ConfigurationError`` if it was sealed for another address or master key.

    A key that an earlier release sealed is bound to the shop only, until ``reseal`` binds it to the account.
    """
    assert account.sealed_key is not None
    try:
        return master_key.unseal(shop_id, account.sealed_key, account.purpose)
    except ConfigurationError:
        return master_key.unseal(shop_id, account.sealed_key, GATEWAY_KEY_PURPOSE)


async def reseal(database: Database, master_key: MasterKey) -> Resealed:
    """Seal every secret of every shop under the first master key. Servers may run: they accept both forms.

    One transaction for each shop; a call that was interrupted can be repeated. Keys that another process changes at the same
    time are left to it.
    """
    total = Resealed()
    for shop in await store.all_shops(database):
        total += await database.write(lambda tx, shop_id=shop.shop_id: _reseal_shop(tx, master_key, shop_id))  # type: ignore[misc]
    return total


async def _reseal_shop(tx: Transaction, master_key: MasterKey, shop_id: int) -> Resealed:
    done = Resealed()
    try:
        for key_hash, sealed in await store.sealed_keys(tx, shop_id):
            if not master_key.sealed_with_first(shop_id, sealed):
                secret = master_key.unseal(shop_id, sealed)
                new = (master_key.hash(shop_id, secret), master_key.seal(shop_id, secret))
                done.shop_keys += await store.replace_key(tx, shop_id, (key_hash, sealed), new)
        for account in await store.accounts(tx, shop_id):
            if account.sealed_key and not master_key.sealed_with_first(shop_id, account.sealed_key, account.purpose):
                await store.insert_account(tx, shop_id, account)  # an account of the previous release has no row yet
                if not _has_key(master_key, shop_id, account):  # `reset-key` leaves it until its key is entered again
                    done.lost_accounts += ((shop_id, account),)
                    continue
                new_sealed = master_key.seal(shop_id, gateway_key_of(master_key, shop_id, account), account.purpose)
                done.gateway_keys += await store.replace_account_key(tx, shop_id, account, new_sealed)
        await store.forget_account_of_previous_release(tx, shop_id)
        sealed_signing_key = await store.sealed_signing_key(tx, shop_id)
        if sealed_signing_key and not master_key.sealed_with_first(shop_id, sealed_signing_key, SIGNING_PURPOSE):
            secret = master_key.unseal(shop_id, sealed_signing_key, SIGNING_PURPOSE)
            new_key = master_key.seal(shop_id, secret, SIGNING_PURPOSE)
            done.signing_keys += await store.replace_signing_key(tx, shop_id, sealed_signing_key, new_key)
    except ConfigurationError:
        done.unreadable = (shop_id,)
    return done


@dataclass(frozen=True, slots=True)
class ResetKey:
    """The new key of a shop, and the gateway accounts whose secret keys must be entered again."""

    credentials: Credentials
    lost: list[GatewayAccount]


async def reset_key(database: Database, master_key: MasterKey, now: int, *, shop_id: int) -> ResetKey:
    """Replace all keys of a shop whose master key is lost, its key for webhook signatures too.

    Raises ``RecordNotFound`` for an unknown shop, and ``ConfigurationError`` if one of its keys can still be read.
    """
    validate_shop_id(shop_id)
    key = make_secret_key()

    async def unit(tx: Transaction) -> ResetKey:
        if await store.find_shop(tx, shop_id) is None:
            raise RecordNotFound(f"no shop {shop_id}")
        if any(_is_readable(master_key, shop_id, sealed) for _, sealed in await store.sealed_keys(tx, shop_id)):
            raise ConfigurationError(
                f"the keys of shop {shop_id} are those of this master key; use `ecomcharge shops rotate-key {shop_id}`"
            )
        await store.forget_all_keys(tx, shop_id)
        await store.insert_key(tx, shop_id, master_key.hash(shop_id, key), master_key.seal(shop_id, key), now)
        sealed_signing_key = await store.sealed_signing_key(tx, shop_id)
        if sealed_signing_key and not _is_readable(master_key, shop_id, sealed_signing_key, SIGNING_PURPOSE):
            await store.forget_signing_key(tx, shop_id)
        accounts = [one for one in await store.accounts(tx, shop_id) if one.sealed_key is not None]
        return ResetKey(Credentials(shop_id, key), [one for one in accounts if not _has_key(master_key, shop_id, one)])

    return await database.write(unit)


def _is_readable(master_key: MasterKey, shop_id: int, sealed: str, purpose: str = "") -> bool:
    try:
        master_key.unseal(shop_id, sealed, purpose)
    except ConfigurationError:
        return False
    return True


def _has_key(master_key: MasterKey, shop_id: int, account: GatewayAccount) -> bool:
    assert account.sealed_key is not None
    purposes = (account.purpose, GATEWAY_KEY_PURPOSE)
    return any(_is_readable(master_key, shop_id, account.sealed_key, purpose) for purpose in purposes)
