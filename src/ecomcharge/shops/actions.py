"""The actions of an operator on shops. Only the action that creates a key returns it in clear text."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit

from ecomcharge.base.errors import ConfigurationError, RecordNotFound
from ecomcharge.shops import store
from ecomcharge.shops.keys import MasterKey, make_secret_key, own_key_fault
from ecomcharge.shops.model import (
    FIRST_ACCOUNT,
    GATEWAYS,
    LOOPBACK,
    OVERLAP_MAXIMUM_SECONDS,
    AccountInUse,
    AccountUse,
    Credentials,
    GatewayAccount,
    GatewayChoice,
    Shop,
    is_loopback,
    random_shop_id,
    validate_name,
    validate_shop_id,
)
from ecomcharge.storage.database import Database, Transaction

KEYS_CHECKED: Final = 100  # the newest ones, among which is the one of the last shop that got a new key


async def create_shop(
    database: Database,
    master_key: MasterKey,
    now: int,
    *,
    name: str,
    shop_id: int | None = None,
    secret_key: str | None = None,
    sandbox: bool = False,
) -> Credentials:
    """Create a shop, with a generated key unless one is given: in a sandbox it may be short.

    Raises ``ConfigurationError`` for an invalid id, name or key.
    """
    name = validate_name(name)
    wanted = None if shop_id is None else validate_shop_id(shop_id)
    key = _own_or_made(secret_key, sandbox=sandbox)

    async def unit(tx: Transaction) -> Credentials:
        chosen = random_shop_id() if wanted is None else wanted
        while not await store.insert_shop(tx, chosen, name, now):
            if wanted is not None:
                raise ConfigurationError(f"shop {wanted} already exists")
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
    sandbox: bool = False,
    overlap_seconds: int = 0,
) -> Credentials:
    """Create a new key for a shop; its older keys stay valid for ``overlap_seconds``."""
    if not 0 <= overlap_seconds <= OVERLAP_MAXIMUM_SECONDS:
        raise ConfigurationError(f"overlap must be between 0 and {OVERLAP_MAXIMUM_SECONDS} seconds")
    validate_shop_id(shop_id)
    key = _own_or_made(secret_key, sandbox=sandbox)

    async def unit(tx: Transaction) -> Credentials:
        shop = await store.find_shop(tx, shop_id)
        if shop is None or shop.closed_at is not None:
            raise RecordNotFound(f"no open shop {shop_id}")
        await store.forget_expired_keys(tx, shop_id, now)
        key_hash = master_key.hash(shop_id, key)
        if not await store.insert_key(tx, shop_id, key_hash, master_key.seal(shop_id, key), now):
            raise ConfigurationError("that is a key of this shop already")
        await store.expire_other_keys(tx, shop_id, key_hash, now + overlap_seconds * 1000)
        return Credentials(shop_id, key)

    return await database.write(unit)


async def check_master_key(database: Database, master_key: MasterKey) -> None:
    """Raises ``ConfigurationError`` if the keys in the database were encrypted with another master key.

    After a loss of the master key, shops get new keys one by one: one shop with a readable key is enough.
    """
    refused: ConfigurationError | None = None
    for shop_id, sealed in await store.newest_sealed_keys(database, KEYS_CHECKED):
        try:
            master_key.unseal(shop_id, sealed)
            return
        except ConfigurationError as error:
            refused = refused or error
    if refused is not None:
        raise refused


@dataclass(frozen=True, slots=True)
class ShopDetails:
    shop: Shop
    choice: GatewayChoice
    accounts: list[AccountInUse]  # without those whose key was deleted

    @property
    def current(self) -> GatewayAccount | None:
        """The account at which new subscriptions are charged; ``None`` with the sandbox."""
        return next((one.account for one in self.accounts if one.is_current), None)


async def set_gateway(
    database: Database,
    master_key: MasterKey,
    now: int,
    *,
    shop_id: int,
    gateway: str,
    url: str | None = None,
    user: str | None = None,
    secret_key: str | None = None,
) -> None:
    """Choose the gateway that charges a shop's new subscriptions, except those of plans that are tests.

    The same address and user is the same account with a new key. Subscriptions of another account stay at that account.
    Raises ``ConfigurationError`` for an invalid address, user or key, and ``RecordNotFound``.
    """
    validate_shop_id(shop_id)
    if gateway not in GATEWAYS:
        raise ConfigurationError(f"gateway must be one of {', '.join(GATEWAYS)}")

    async def to_sandbox(tx: Transaction) -> None:
        if not await store.choose_sandbox(tx, shop_id, now):
            raise RecordNotFound(f"no shop {shop_id}")

    if gateway == "sandbox":
        await database.write(to_sandbox)
        return
    if not (url and user and secret_key):
        raise ConfigurationError("begateway needs --url, --user and ECOMCHARGE_GATEWAY_SECRET_KEY")
    if not _is_gateway_address(url):
        raise ConfigurationError(
            "--url must be https:// with a host, such as https://gateway.example.com; http:// only on this machine"
        )
    wanted = GatewayAccount("", gateway, url, user, None, now)

    async def to_account(tx: Transaction) -> None:
        if await store.find_shop(tx, shop_id) is None:
            raise RecordNotFound(f"no shop {shop_id}")
        account = await _stored_account(tx, shop_id, wanted)
        account = replace(account, sealed_key=master_key.seal(shop_id, secret_key, account.purpose))
        await store.set_account_key(tx, shop_id, account)
        await store.choose_account(tx, shop_id, account, now)

    await database.write(to_account)


async def _stored_account(tx: Transaction, shop_id: int, wanted: GatewayAccount) -> GatewayAccount:
    """The shop's account with this address and user, created if it does not exist."""
    known = await store.accounts(tx, shop_id)
    for account in known:  # an account of the previous release has no row yet
        await store.insert_account(tx, shop_id, account)
    same = next((one for one in known if one.is_same(wanted.gateway, wanted.url, wanted.user)), None)
    if same is not None:
        return same
    made = replace(wanted, id=str(max((int(one.id) for one in known), default=0) + 1))
    if not await store.insert_account(tx, shop_id, made):
        raise ConfigurationError(f"the accounts of shop {shop_id} were changed at the same time; run the command again")
    return made


async def shop_details(database: Database, shop_id: int) -> ShopDetails:
    """Raises ``RecordNotFound``."""
    validate_shop_id(shop_id)

    async def unit(tx: Transaction) -> ShopDetails:
        shop = await store.find_shop(tx, shop_id)
        if shop is None:
            raise RecordNotFound(f"no shop {shop_id}")
        choice = await store.gateway_choice(tx, shop_id)
        return ShopDetails(shop, choice, await _accounts_in_use(tx, shop_id, choice))

    return await database.write(unit)


async def forget_account(database: Database, *, shop_id: int, account_id: str) -> None:
    """Delete the key of an account. Raises ``ConfigurationError`` while the account is in use, and ``RecordNotFound``."""
    validate_shop_id(shop_id)

    async def unit(tx: Transaction) -> None:
        if await store.find_shop(tx, shop_id) is None:
            raise RecordNotFound(f"no shop {shop_id}")
        accounts = await _accounts_in_use(tx, shop_id, await store.gateway_choice(tx, shop_id))
        found = next((one for one in accounts if one.account.id == account_id), None)
        if found is None:
            raise RecordNotFound(
                f"shop {shop_id} has no account {account_id}; `ecomcharge shops show {shop_id}` lists its accounts"
            )
        if found.is_current:
            raise ConfigurationError(f"{found} charges the new subscriptions of shop {shop_id}: choose another gateway first")
        if found.use.is_needed:
            raise ConfigurationError(f"{found} is still needed: {found.use}")
        await store.insert_account(tx, shop_id, found.account)  # an account of the previous release has no row yet
        await store.forget_account(tx, shop_id, account_id)

    await database.write(unit)


async def _accounts_in_use(tx: Transaction, shop_id: int, choice: GatewayChoice) -> list[AccountInUse]:
    uses = await store.uses_of_accounts(tx, shop_id)
    current = None if choice.gateway == "sandbox" else choice.account or FIRST_ACCOUNT
    return [
        AccountInUse(account, uses.get(account.id, AccountUse()), account.id == current)
        for account in await store.accounts(tx, shop_id)
        if account.sealed_key is not None
    ]


async def check_no_real_gateway(database: Database) -> None:
    """Raises ``ConfigurationError`` if an open shop has an account on another machine. For processes in sandbox mode."""
    for shop_id, account_id, url in await store.accounts_of_open_shops(database):
        if not is_loopback(url):
            raise ConfigurationError(
                f"shop {shop_id} has a real gateway (account {account_id}, {url}), which a sandbox must not charge:"
                " leave out --sandbox, use another --database, or close the shop with"
                f" `ecomcharge shops close {shop_id}`"
            )


async def close_shop(database: Database, now: int, *, shop_id: int) -> None:
    """Refuse all requests of the shop; its data is kept. A second call changes nothing."""
    validate_shop_id(shop_id)

    async def unit(tx: Transaction) -> None:
        if await store.find_shop(tx, shop_id) is None:
            raise RecordNotFound(f"no shop {shop_id}")
        await store.close_shop(tx, shop_id, now)

    await database.write(unit)


def _is_gateway_address(text: str) -> bool:
    """Card numbers are sent there, so it must be HTTPS or an address of this machine."""
    try:
        parts = urlsplit(text)
        if parts.scheme == "http" and parts.hostname not in LOOPBACK:
            return False
        whole = bool(parts.hostname) and parts.port != 0 and not (parts.query or parts.fragment or parts.username)
        return parts.scheme in ("https", "http") and whole and text.isprintable() and " " not in text
    except ValueError:
        return False


def _own_or_made(secret_key: str | None, *, sandbox: bool) -> str:
    """The key that a person chose, or a generated one. Raises ``ConfigurationError`` for an invalid key."""
    if secret_key is None:
        return make_secret_key()
    fault = own_key_fault(secret_key, sandbox=sandbox)
    if fault:
        raise ConfigurationError(f"secret key {fault}")
    return secret_key
