"""Authentication of shops by HTTP Basic.

Valid credentials are cached for a few seconds, so that most requests of a busy shop need no query. A key that is revoked or
expires, and the keys of a closed shop, stop working in all processes within five seconds.
The time of a cache look-up reveals nothing about other credentials: Python compares two texts only if their 64-bit hashes are
equal, and these depend on a secret of the process.
"""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Callable, Sequence
from typing import Final

from ecomcharge.base.clock import Clock
from ecomcharge.base.errors import Unauthorized
from ecomcharge.shops import store
from ecomcharge.shops.keys import MasterKey, same_hash
from ecomcharge.shops.model import SHOP_ID_MAXIMUM, ShopKey
from ecomcharge.storage.database import Database
from ecomcharge.web.messages import Request
from ecomcharge.web.rate_limits import AddressRateLimiter, make_room

CACHE_SECONDS: Final = 4.0  # a changed key must take effect within five
REFRESH_SECONDS: Final = 0.5  # if no key matches, they are read again, but not for each of many wrong requests

_SHOP_ID: Final = re.compile(r"[0-9]{1,16}\Z")
_NO_KEY: Final = ShopKey("0" * 64, expires_at=0)


class Authenticator:
    """Finds the shop of a request. One per process."""

    def __init__(
        self,
        database: Database,
        master_key: MasterKey,
        clock: Clock,
        failed_logins: AddressRateLimiter,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._master_key = master_key
        self._clock = clock
        self._failed_logins = failed_logins
        self._monotonic = monotonic
        self._logins: dict[str, tuple[int, float]] = {}  # header -> shop id, valid until
        self._keys: dict[int, tuple[Sequence[ShopKey], float]] = {}  # shop id -> its keys, valid until

    def known_shop_of(self, request: Request) -> int:
        """The id of the shop whose credentials the request has, if they were verified before; otherwise 0."""
        known = self._logins.get(request.header("authorization") or "")
        return known[0] if known is not None and self._monotonic() < known[1] else 0

    async def shop_of(self, request: Request) -> int:
        """The id of the shop whose credentials the request has.

        Raises ``Unauthorized``, ``TooManyRequests`` after too many failed logins from its address, or ``Unavailable`` when
        the keys cannot be read.
        """
        header = request.header("authorization")
        if header is None:
            raise Unauthorized
        if known := self.known_shop_of(request):
            return known
        shop_id = await self._verified(header)
        if shop_id is None:
            self._failed_logins.count(request)
            raise Unauthorized
        return shop_id

    async def _verified(self, header: str) -> int | None:
        credentials = credentials_of(header)
        if credentials is None:
            return None
        shop_id, secret_key = credentials
        offered = self._master_key.hashes(shop_id, secret_key)
        now = self._clock.now()
        keys, valid_until = await self._keys_of(shop_id, CACHE_SECONDS)
        matched = _matching(keys, offered, now)
        if not matched:  # the key may be newer than the cached ones
            keys, valid_until = await self._keys_of(shop_id, REFRESH_SECONDS)
            matched = _matching(keys, offered, now)
        if not matched:
            return None
        for key in matched:
            if key.expires_at is not None:
                valid_until = min(valid_until, self._monotonic() + (key.expires_at - now) / 1000)
        make_room(self._logins)
        self._logins[header] = (shop_id, valid_until)
        return shop_id

    async def _keys_of(self, shop_id: int, age_seconds: float) -> tuple[Sequence[ShopKey], float]:
        """The shop's keys, read at most ``age_seconds`` ago, and the end of their time in the cache."""
        cached = self._keys.get(shop_id)
        read_at = self._monotonic()
        if cached is not None and read_at < cached[1] - CACHE_SECONDS + age_seconds:
            return cached
        keys = await store.keys_of_open_shop(self._database, shop_id)
        make_room(self._keys)
        fresh = self._keys[shop_id] = (keys, read_at + CACHE_SECONDS)
        return fresh


def _matching(keys: Sequence[ShopKey], offered: Sequence[str], now: int) -> list[ShopKey]:
    """The valid keys that have one of the hashes. A shop without keys takes as long as a shop with one key."""
    return [key for key in keys or (_NO_KEY,) for key_hash in offered if same_hash(key.key_hash, key_hash) and key.good_at(now)]


def credentials_of(header: str) -> tuple[int, str] | None:
    """Shop id and secret key of an ``Authorization: Basic`` header (RFC 7617), or ``None`` if it is not one."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, secret_key = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    if not colon or not _SHOP_ID.match(user) or int(user) > SHOP_ID_MAXIMUM:
        return None
    return int(user), secret_key
