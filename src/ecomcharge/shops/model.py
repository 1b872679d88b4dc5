"""Shops and their keys: nouns and rules."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

from ecomcharge.errors import Unusable

SHOP_ID_MAXIMUM: Final = 2**53 - 1  # every JSON reader holds it exactly
NAME_MAXIMUM: Final = 255
GATEWAYS: Final = ("sandbox", "begateway")
GATEWAY_KEY_PURPOSE: Final = "gateway"
OVERLAP_MAXIMUM_SECONDS: Final = 366 * 24 * 60 * 60


@dataclass(frozen=True, slots=True)
class Shop:
    shop_id: int
    name: str
    created_at: int
    closed_at: int | None


@dataclass(frozen=True, slots=True)
class Gateway:
    """Where the cards of a shop's plans are charged, but for those of plans that are tests."""

    name: str
    url: str | None
    user: str | None


@dataclass(frozen=True, slots=True)
class ShopKey:
    """One key of an open shop: its keyed hash, and when it stops being good (UTC milliseconds), if ever."""

    key_hash: str
    expires_at: int | None

    def good_at(self, now: int) -> bool:
        return self.expires_at is None or now < self.expires_at


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a shop's developer gets to see once."""

    shop_id: int
    secret_key: str


def random_shop_id() -> int:
    """Nine digits: there is no counter that all machines would have to share."""
    return 100_000_000 + secrets.randbelow(900_000_000)


def checked_shop_id(shop_id: int) -> int:
    if not 1 <= shop_id <= SHOP_ID_MAXIMUM:
        raise Unusable(f"shop id must be between 1 and {SHOP_ID_MAXIMUM}")
    return shop_id


def checked_name(name: str) -> str:
    name = name.strip()
    if not name or len(name) > NAME_MAXIMUM or not name.isprintable():
        raise Unusable(f"shop name must be 1 to {NAME_MAXIMUM} printable characters")
    return name
