"""Shops, their keys and their gateway accounts: types and rules."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from ecomcharge.base.errors import ConfigurationError

SHOP_ID_MAXIMUM: Final = 2**53 - 1  # exact in every JSON reader
NAME_MAXIMUM: Final = 255
SANDBOX: Final = "sandbox"  # the gateway that moves no money
GATEWAYS: Final = (SANDBOX, "begateway")
GATEWAY_KEY_PURPOSE: Final = "gateway"  # of a key that an earlier release sealed
SIGNING_PURPOSE: Final = "webhooks"
FIRST_ACCOUNT: Final = "1"  # also the account of rows without one
LOOPBACK: Final = frozenset(("127.0.0.1", "localhost", "::1"))
OVERLAP_MAXIMUM_SECONDS: Final = 366 * 24 * 60 * 60


@dataclass(frozen=True, slots=True)
class Shop:
    shop_id: int
    name: str
    created_at: int
    closed_at: int | None


@dataclass(frozen=True, slots=True)
class GatewayChoice:
    """Where a shop's new subscriptions are charged, except those of plans that are tests."""

    gateway: str
    account: str | None  # at a gateway other than the sandbox
    chosen_at: int | None  # UTC milliseconds

    @property
    def was_made(self) -> bool:
        """``False`` for a shop that uses the sandbox because no gateway was chosen for it."""
        return self.gateway != "sandbox" or self.chosen_at is not None


@dataclass(frozen=True, slots=True)
class GatewayAccount:
    """An account of a shop at a gateway. Without ``sealed_key`` its key was deleted."""

    id: str
    gateway: str
    url: str
    user: str
    sealed_key: str | None = field(repr=False)
    created_at: int  # UTC milliseconds

    @property
    def purpose(self) -> str:
        """The purpose under which its key is sealed, so that nobody can use the key at another address by a write to the row."""
        return f"gateway {self.url} {self.user}"

    def is_same(self, gateway: str, url: str, user: str) -> bool:
        """Whether address and user name this account. Its key may have changed."""
        return (self.gateway, _address(self.url), self.user) == (gateway, _address(url), user)


@dataclass(frozen=True, slots=True)
class AccountUse:
    """The use of an account: subscriptions that have not ended, and payments without a known outcome."""

    subscriptions: int = 0
    unsettled_payments: int = 0

    @property
    def is_needed(self) -> bool:
        return bool(self.subscriptions or self.unsettled_payments)

    def __str__(self) -> str:
        """Such as ``12 subscriptions renew there, 1 payment is not settled``."""
        renewing = _counted(self.subscriptions, "subscription renews", "subscriptions renew")
        return f"{renewing} there, {_counted(self.unsettled_payments, 'payment is', 'payments are')} not settled"


@dataclass(frozen=True, slots=True)
class AccountInUse:
    """``is_current``: new subscriptions of the shop are charged at this account."""

    account: GatewayAccount
    use: AccountUse
    is_current: bool

    def __str__(self) -> str:
        return f"account {self.account.id} ({self.account.url}, as {self.account.user})"


@dataclass(frozen=True, slots=True)
class ShopKey:
    """One key of an open shop: its keyed hash, and when it expires (UTC milliseconds; ``None``: never)."""

    key_hash: str
    expires_at: int | None

    def good_at(self, now: int) -> bool:
        return self.expires_at is None or now < self.expires_at


@dataclass(frozen=True, slots=True)
class Credentials:
    """The credentials of a shop, printed once."""

    shop_id: int
    secret_key: str


def is_loopback(url: str) -> bool:
    """Whether the address is on this machine: a stand-in for tests, not a real gateway."""
    return urlsplit(url).hostname in LOOPBACK


def _counted(count: int, one: str, several: str) -> str:
    return f"{count} {one if count == 1 else several}"


def _address(url: str) -> tuple[str, str | None, int | None, str]:
    parts = urlsplit(url)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    return parts.scheme, parts.hostname, port, parts.path.rstrip("/")


def random_shop_id() -> int:
    """A random id of nine digits, so machines need no shared counter."""
    return 100_000_000 + secrets.randbelow(900_000_000)


def validate_shop_id(shop_id: int) -> int:
    if not 1 <= shop_id <= SHOP_ID_MAXIMUM:
        raise ConfigurationError(f"shop id must be between 1 and {SHOP_ID_MAXIMUM}")
    return shop_id


def validate_name(name: str) -> str:
    name = name.strip()
    if not name or len(name) > NAME_MAXIMUM or not name.isprintable():
        raise ConfigurationError(f"shop name must be 1 to {NAME_MAXIMUM} printable characters")
    return name
