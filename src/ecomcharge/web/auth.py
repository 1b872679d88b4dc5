"""Who is calling: HTTP Basic by shop, and the limits that go with it.

Credentials that were right are remembered for a few seconds, so that a busy shop costs one look-up per request,
while a key that was revoked, rotated or closed stops working everywhere within five seconds whatever is
remembered. The look-up tells nothing by its time: Python compares texts only after their 64-bit hashes, which are
keyed with a secret of the process, were found equal.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import math
import re
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from ecomcharge.clock import Clock
from ecomcharge.errors import TooManyRequests, Unauthorized, Unusable
from ecomcharge.keys import MasterKey, same_hash
from ecomcharge.shops import store
from ecomcharge.shops.model import SHOP_ID_MAXIMUM, ShopKey
from ecomcharge.storage.database import Database
from ecomcharge.web.wire import Request

REMEMBERED_SECONDS: Final = 4.0  # a change of keys must be felt within five
DOUBTED_SECONDS: Final = 0.5  # when nothing matches, keys are read again, but strangers cannot make us read all the time
MOST_REMEMBERED: Final = 10_000
WINDOW_SECONDS: Final = 60

_SHOP_ID: Final = re.compile(r"[0-9]{1,16}\Z")
_NOBODY: Final = ShopKey("0" * 64, expires_at=0)
_ADDRESS_AND_PORT: Final = re.compile(r"([0-9.]+|\[[0-9a-fA-F:.]+\]):[0-9]+\Z")


class Authenticator:
    """Tells which shop a request is from. One per process."""

    def __init__(
        self,
        database: Database,
        master_key: MasterKey,
        clock: Clock,
        failed_logins: PerAddress,
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


def trusted_networks(trusted_proxies: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Raises ``Unusable`` for what is neither an address nor a network."""
    try:
        return [ipaddress.ip_network(part.strip(), strict=False) for part in trusted_proxies.split(",") if part.strip()]
    except ValueError as error:
        raise Unusable(f"--trusted-proxies: {error}") from error


class PerAddress:
    """Counts what strangers do, per client address in windows of a minute: failed logins, visits of pay links, cards tried.

    ``policy`` names the limit in the answer; ``per_minute`` 0 means that there is none.
    """

    def __init__(
        self, policy: str, per_minute: int, trusted_proxies: str, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._policy = policy
        self._per_minute = per_minute
        self._trusted = trusted_networks(trusted_proxies)
        self._monotonic = monotonic
        self._counts: dict[str, tuple[float, int]] = {}  # address -> start of the window, how many in it

    def count(self, request: Request) -> None:
        """Count one. Raises ``TooManyRequests`` when there were too many."""
        if not self._per_minute:
            return
        address = self.client_of(request)
        now = self._monotonic()
        started, count = self._counts.get(address, (now, 0))
        if now - started >= WINDOW_SECONDS:
            started, count = now, 0
        if address not in self._counts:
            _make_room(self._counts)
        self._counts[address] = (started, count + 1)
        if count >= self._per_minute:
            wait = math.ceil(started + WINDOW_SECONDS - now)
            raise TooManyRequests(self._policy, self._per_minute, WINDOW_SECONDS, wait)

    def client_of(self, request: Request) -> str:
        """Who to count: the nearest address that is not a trusted proxy's; of IPv6 the /64."""
        address = request.peer()
        forwarded = [part.strip() for part in request.forwarded_for().split(",")]
        while forwarded and self._is_trusted(address):
            address = forwarded.pop() or address
        parsed = _parsed(address)
        if parsed is None:
            return "unknown"
        if isinstance(parsed, ipaddress.IPv6Address):
            return str(ipaddress.ip_network((parsed.packed[:8] + bytes(8), 64)))
        return str(parsed)

    def _is_trusted(self, address: str) -> bool:
        parsed = _parsed(address)
        return parsed is not None and any(parsed in network for network in self._trusted)


def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address, with or without a port. IPv4 stays IPv4 when it comes by a socket that speaks both."""
    if with_port := _ADDRESS_AND_PORT.match(text):
        text = with_port[1]
    try:
        address = ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


class RequestRate:
    """At most so many requests a second for each shop, by a bucket that holds one second's worth."""

    def __init__(self, per_second: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._capacity = max(1.0, per_second)
        self._monotonic = monotonic
        self._buckets: dict[int, tuple[float, float]] = {}  # shop -> tokens, counted at

    def take(self, shop_id: int) -> None:
        """Count one request. Raises ``TooManyRequests`` when the shop has had its share."""
        if not self._per_second:
            return
        now = self._monotonic()
        tokens, counted_at = self._buckets.get(shop_id, (self._capacity, now))
        tokens = min(self._capacity, tokens + (now - counted_at) * self._per_second)
        if tokens < 1:
            self._buckets[shop_id] = (tokens, now)
            wait = math.ceil((1 - tokens) / self._per_second)
            raise TooManyRequests("shop", math.floor(self._capacity), 1, wait)
        if shop_id not in self._buckets:
            _make_room(self._buckets)
        self._buckets[shop_id] = (tokens - 1, now)


def _make_room(remembered: dict[Any, Any]) -> None:
    """Keep what strangers can make large small: forget the oldest half when it is full."""
    if len(remembered) >= MOST_REMEMBERED:
        for key in list(remembered)[: MOST_REMEMBERED // 2]:
            del remembered[key]
