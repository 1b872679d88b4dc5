"""Authentication of shops by HTTP Basic.

Valid credentials are cached for a few seconds, so that most requests of a busy shop need no query. A key that is revoked or
expires, and the keys of a closed shop, stop working in all processes within five seconds.

Guesses are counted before they are verified, for the address of the client and, unless the key has the form of a generated
one, for the shop. Above a limit nothing is verified. Credentials that this process has verified before are no guess: they are
not counted, so that the guesses of strangers cannot lock out a shop in use. A generated key cannot be guessed, so that its
first use depends on the limit of its address only.

The time of a cache look-up reveals nothing about other credentials: Python compares two texts only if their 64-bit hashes are
equal, and these depend on a secret of the process.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import math
import re
import time
from collections.abc import Callable, Sequence
from typing import Final

from ecomcharge.base.clock import Clock
from ecomcharge.base.errors import Unauthorized
from ecomcharge.shops import store
from ecomcharge.shops.keys import MasterKey, is_made_key, same_hash
from ecomcharge.shops.model import SHOP_ID_MAXIMUM, ShopKey
from ecomcharge.storage.database import Database
from ecomcharge.web.messages import Request
from ecomcharge.web.rate_limits import MOST_ENTRIES, AddressRateLimiter, EventLimiter, make_room

CACHE_SECONDS: Final = 4.0  # a changed key must take effect within five
REFRESH_SECONDS: Final = 0.5  # if no key matches, they are read again, but not for each of many wrong requests
HEADER_MAXIMUM: Final = 512  # characters of a header that is remembered; the usual spelling of the longest key has 369

_SHOP_ID: Final = re.compile(r"[0-9]{1,16}\Z")
_NO_KEY: Final = ShopKey("0" * 64, expires_at=0)


class _Login:
    """Credentials that were verified. ``header`` is their last spelling in a request."""

    __slots__ = ("header", "shop_id", "valid_until")

    def __init__(self, shop_id: int) -> None:
        self.shop_id = shop_id
        self.valid_until = -math.inf
        self.header = ""


class Authenticator:
    """Finds the shop of a request. One per process.

    ``guesses`` limits the addresses, ``guesses_of_shop`` the shops.
    """

    def __init__(
        self,
        database: Database,
        master_key: MasterKey,
        clock: Clock,
        guesses: AddressRateLimiter,
        guesses_of_shop: EventLimiter,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._master_key = master_key
        self._clock = clock
        self._guesses = guesses
        self._guesses_of_shop = guesses_of_shop
        self._monotonic = monotonic
        self._running: dict[str, asyncio.Task[_Login]] = {}  # verifications of guesses, by the same hash as the logins
        self._logins: dict[str, _Login] = {}  # by the hash of shop and key, under the first master key
        self._by_header: dict[str, _Login] = {}  # one header of each login, as the parsing of a header takes longer
        self._keys: dict[int, tuple[Sequence[ShopKey], float]] = {}  # shop id -> its keys, valid until
        self._without_keys: dict[int, tuple[Sequence[ShopKey], float]] = {}  # apart, because strangers choose these ids

    def known_shop_of(self, request: Request) -> int:
        """The id of the shop whose credentials the request has, if they were verified before; otherwise 0."""
        known = self._by_header.get(request.header("authorization") or "")
        return known.shop_id if known is not None and self._monotonic() < known.valid_until else 0

    async def shop_of(self, request: Request) -> int:
        """The id of the shop whose credentials the request has.

        Raises ``Unauthorized``, ``TooManyRequests`` after too many guesses, or ``Unavailable`` when the keys cannot be read.
        """
        header = request.header("authorization")
        if header is None:
            raise Unauthorized
        if known := self.known_shop_of(request):
            return known
        credentials = credentials_of(header)
        if credentials is None:
            self._guesses.count(request)
            raise Unauthorized
        shop_id, secret_key = credentials
        offered = self._master_key.hashes(shop_id, secret_key)
        login = self._logins.get(offered[0])
        if login is None:
            login = await self._guess(request, shop_id, secret_key, offered)
        elif self._monotonic() >= login.valid_until:
            await self._verify(login, offered)
        if header != login.header and len(header) <= HEADER_MAXIMUM and self._logins.get(offered[0]) is login:
            self._by_header.pop(login.header, None)
            login.header = header
            self._by_header[header] = login
        return shop_id

    async def _guess(self, request: Request, shop_id: int, secret_key: str, offered: Sequence[str]) -> _Login:
        """Verify credentials that are not known. Raises ``TooManyRequests``, and as ``_verify``.

        Concurrent requests with the same valid credentials are one guess: a shop sends many when the process has just started.
        """
        counts_for_shop = not is_made_key(secret_key)
        running = self._running.get(offered[0])
        if running is None:
            self._count(request, shop_id if counts_for_shop else None)
            running = asyncio.create_task(self._verify_guess(request, shop_id, offered, counts_for_shop=counts_for_shop))
            self._running[offered[0]] = running
            running.add_done_callback(lambda _: self._running.pop(offered[0]))
            return await asyncio.shield(running)  # a client that leaves does not end it for the others
        try:
            return await asyncio.shield(running)
        except Unauthorized:
            self._count(request, shop_id if counts_for_shop else None)
            raise

    async def _verify_guess(self, request: Request, shop_id: int, offered: Sequence[str], *, counts_for_shop: bool) -> _Login:
        """Verify a guess that was counted; undo its count unless it is wrong."""
        login = _Login(shop_id)
        try:
            await self._verify(login, offered)
        except Unauthorized:
            raise
        except BaseException:
            self._take_back(request, shop_id if counts_for_shop else None)
            raise
        self._take_back(request, shop_id if counts_for_shop else None)
        if len(self._logins) >= MOST_ENTRIES:
            for oldest in list(self._logins)[: MOST_ENTRIES // 2]:
                self._forget(oldest)
        return self._logins.setdefault(offered[0], login)  # another request may have verified it meanwhile

    def _count(self, request: Request, shop_id: int | None) -> None:
        self._guesses.count(request)
        if shop_id is not None:
            self._guesses_of_shop.count(shop_id)

    def _take_back(self, request: Request, shop_id: int | None) -> None:
        self._guesses.take_back(request)
        if shop_id is not None:
            self._guesses_of_shop.take_back(shop_id)

    async def _verify(self, login: _Login, offered: Sequence[str]) -> None:
        """Set how long a login is valid. Raises ``Unauthorized``, and forgets it, if the shop has no such key any more."""
        now = self._clock.now()
        keys, valid_until = await self._keys_of(login.shop_id, CACHE_SECONDS)
        matched = _matching(keys, offered, now)
        if not matched:  # the key may be newer than the cached ones
            keys, valid_until = await self._keys_of(login.shop_id, REFRESH_SECONDS)
            matched = _matching(keys, offered, now)
        if not matched:
            self._forget(offered[0])
            raise Unauthorized
        for key in matched:
            if key.expires_at is not None:
                valid_until = min(valid_until, self._monotonic() + (key.expires_at - now) / 1000)
        login.valid_until = valid_until

    def _forget(self, key_hash: str) -> None:
        login = self._logins.pop(key_hash, None)
        if login is not None:
            self._by_header.pop(login.header, None)

    async def _keys_of(self, shop_id: int, age_seconds: float) -> tuple[Sequence[ShopKey], float]:
        """The shop's keys, read at most ``age_seconds`` ago, and the end of their time in the cache."""
        cached = self._keys.get(shop_id) or self._without_keys.get(shop_id)
        read_at = self._monotonic()
        if cached is not None and read_at < cached[1] - CACHE_SECONDS + age_seconds:
            return cached
        keys = await store.keys_of_open_shop(self._database, shop_id)
        fresh = (keys, read_at + CACHE_SECONDS)
        cache, other = (self._keys, self._without_keys) if keys else (self._without_keys, self._keys)
        other.pop(shop_id, None)
        make_room(cache)
        cache[shop_id] = fresh
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
