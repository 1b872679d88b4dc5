"""Who is calling: HTTP Basic by shop, and the limits that go with it.

Credentials that were right are remembered for a few seconds, so that a busy shop costs one look-up per request,
while a key that was revoked, rotated or closed stops working everywhere within five seconds whatever is
remembered. The look-up tells nothing by its time: Python compares texts only after their 64-bit hashes, which are
keyed with a secret of the process, were found equal.
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
from ecomcharge.web.rate_limits import AddressRateLimiter, _make_room

REMEMBERED_SECONDS: Final = 4.0  # a change of keys must be felt within five
DOUBTED_SECONDS: Final = 0.5  # when nothing matches, keys are read again, but strangers cannot make us read all the time

_SHOP_ID: Final = re.compile(r"[0-9]{1,16}\Z")
_NOBODY: Final = ShopKey("0" * 64, expires_at=0)


class Authenticator:
    """Tells which shop a request is from. One per process."""

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
        self._known: dict[str, tuple[int, float]] = {}  # header -> shop, good until
        self._keys: dict[int, tuple[Sequence[ShopKey], float]] = {}  # shop -> its keys, good until

    async def shop_of(self, request: Request) -> int:
        """The shop whose credentials the request carries.

        Raises ``Unauthorized``, or ``TooManyRequests`` when its address has failed too often, or
        ``Unavailable`` when the keys cannot be read.
        """
        header = request.header("authorization")
        if header is None:
            raise Unauthorized
        known = self._known.get(header)
        if known is not None and self._monotonic() < known[1]:
            return known[0]
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
        offered = self._master_key.hash(shop_id, secret_key)
        now = self._clock.now()
        keys, good_until = await self._keys_of(shop_id, REMEMBERED_SECONDS)
        matched = _matching(keys, offered, now)
        if not matched:  # a key made a moment ago is not among those remembered
            keys, good_until = await self._keys_of(shop_id, DOUBTED_SECONDS)
            matched = _matching(keys, offered, now)
        if not matched:
            return None
        for key in matched:
            if key.expires_at is not None:
                good_until = min(good_until, self._monotonic() + (key.expires_at - now) / 1000)
        _make_room(self._known)
        self._known[header] = (shop_id, good_until)
        return shop_id

    async def _keys_of(self, shop_id: int, age_seconds: float) -> tuple[Sequence[ShopKey], float]:
        """The shop's keys as they are in the database or were at most ``age_seconds`` ago, and until when they are good."""
        remembered = self._keys.get(shop_id)
        asked_at = self._monotonic()
        if remembered is not None and asked_at < remembered[1] - REMEMBERED_SECONDS + age_seconds:
            return remembered
        keys = await store.keys_of_open_shop(self._database, shop_id)
        _make_room(self._keys)
        fresh = self._keys[shop_id] = (keys, asked_at + REMEMBERED_SECONDS)
        return fresh


def _matching(keys: Sequence[ShopKey], offered: str, now: int) -> list[ShopKey]:
    """The good keys whose hash was offered. A shop without keys takes as long as one with a key."""
    return [key for key in keys or (_NOBODY,) if same_hash(key.key_hash, offered) and key.good_at(now)]


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
