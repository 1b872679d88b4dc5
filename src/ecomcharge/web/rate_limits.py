"""Rate limits for each client address, for each shop, and for other keys."""

from __future__ import annotations

import ipaddress
import math
import re
import time
from array import array
from collections.abc import Callable
from typing import Any, Final

import structlog

from ecomcharge.base.errors import ConfigurationError, TooManyRequests
from ecomcharge.web.messages import Request

log = structlog.get_logger()

MOST_ENTRIES: Final = 10_000
WINDOW_SECONDS: Final = 60
SITE_FACTOR: Final = 10  # a /48 network has 65,536 /64 networks, and usually one owner

_ADDRESS_AND_PORT: Final = re.compile(r"([0-9.]+|\[[0-9a-fA-F:.]+\]):[0-9]+\Z")


def trusted_networks(trusted_proxies: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Addresses and networks of a comma-separated list. Raises ``ConfigurationError`` for any other text in it."""
    try:
        return [ipaddress.ip_network(part.strip(), strict=False) for part in trusted_proxies.split(",") if part.strip()]
    except ValueError as error:
        raise ConfigurationError(f"--trusted-proxies: {error}") from error


class ClientAddresses:
    """Finds the address of the client of a request behind trusted proxies. One per process."""

    def __init__(self, trusted_proxies: str) -> None:
        self._trusted = trusted_networks(trusted_proxies)
        self._warned = False

    def of(self, request: Request) -> str:
        """The address to count: the nearest one that is not a trusted proxy; for IPv6 its /64 network."""
        address = request.peer()
        forwarded = [part.strip() for part in request.forwarded_for().split(",")]
        if not self._warned and forwarded != [""] and not self._is_trusted(address):
            self._warned = True
            _warn_of_untrusted_proxy(address)
        while forwarded and self._is_trusted(address):
            address = forwarded.pop() or address
        return _network_of(_parsed(address))

    def limited(self, host: str) -> str | None:
        """The address to count for a connection from ``host``; ``None`` for a loopback address or a trusted proxy."""
        parsed = _parsed(host)
        return None if parsed is None or parsed.is_loopback or self._is_trusted(host) else _network_of(parsed)

    def _is_trusted(self, address: str) -> bool:
        parsed = _parsed(address)
        return parsed is not None and any(parsed in network for network in self._trusted)


def _network_of(address: ipaddress.IPv4Address | ipaddress.IPv6Address | None) -> str:
    """The address, or for IPv6 its /64 network."""
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address.packed[:8] + bytes(8), 64)))
    return "unknown" if address is None else str(address)


def _warn_of_untrusted_proxy(address: str) -> None:
    """Name the missing setting. A public address is left out, because it may be the address of a person."""
    parsed = _parsed(address)
    proxy = str(parsed) if parsed is not None and not parsed.is_global else None
    log.warning(
        "a request with X-Forwarded-For came from an address that --trusted-proxies does not name: the rate limits count all"
        " clients behind it as one; if it is your proxy, set --trusted-proxies",
        proxy=proxy,
    )


class EventCounts:
    """Counts events per key in a fixed amount of memory (a count-min sketch).

    A count is never too low, so that other keys cannot push out the count of a key. It is too high only if other keys share
    all four cells of a key: 300,000 events of other keys add about 9. The cells depend on a secret of the process.
    """

    _WIDTH: Final = 2**15
    _EMPTY: Final = bytes(4 * 4 * _WIDTH)

    def __init__(self) -> None:
        self._cells = array("i", self._EMPTY)

    def of(self, key: str | int) -> int:
        return min(self._cells[cell] for cell in self._cells_of(key))

    def add(self, key: str | int, number: int) -> None:
        for cell in self._cells_of(key):
            self._cells[cell] += number

    def _cells_of(self, key: str | int) -> tuple[int, int, int, int]:
        hashed, most, width = hash(str(key)), self._WIDTH - 1, self._WIDTH  # Python hashes a str with a secret
        return hashed & most, width + (hashed >> 15 & most), 2 * width + (hashed >> 30 & most), 3 * width + (hashed >> 45 & most)


class EventLimiter:
    """Limits events per key in windows of ``window_seconds``. One per process; ``most`` 0 means no limit.

    ``policy`` names the limit in the response. Its memory does not depend on the number of keys, which clients choose.
    """

    def __init__(
        self, policy: str, most: int, window_seconds: int = WINDOW_SECONDS, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._policy = policy
        self.most = most
        self._window_seconds = window_seconds
        self._monotonic = monotonic
        self._ends_at = -math.inf  # of the window
        self._counts: EventCounts

    def count(self, key: str | int) -> None:
        """Count one event. Raises ``TooManyRequests`` above the limit."""
        if not self.most:
            return
        now = self._monotonic()
        if now >= self._ends_at:
            self._ends_at, self._counts = now + self._window_seconds, EventCounts()
        if self._counts.of(key) >= self.most:
            raise TooManyRequests(self._policy, self.most, self._window_seconds, math.ceil(self._ends_at - now))
        self._counts.add(key, 1)

    def take_back(self, key: str | int) -> None:
        """Undo the last ``count`` of the key, unless its window is over."""
        if self.most and self._monotonic() < self._ends_at and self._counts.of(key):
            self._counts.add(key, -1)


class AddressRateLimiter:
    """Limits events per client address and minute: failed logins, POSTs to pay links, cards that were tried.

    For IPv6 it limits each /64 network, and each /48 network to ten times as many.
    """

    def __init__(self, policy: str, per_minute: int, addresses: ClientAddresses) -> None:
        self._events = EventLimiter(policy, per_minute)
        self._sites = EventLimiter(policy, SITE_FACTOR * per_minute)
        self._addresses = addresses

    def count(self, request: Request) -> None:
        """Count one event. Raises ``TooManyRequests`` above the limit."""
        if self._events.most:
            address = self._addresses.of(request)
            if site := _site_of(address):
                self._sites.count(site)
            self._events.count(address)

    def take_back(self, request: Request) -> None:
        """Undo ``count``."""
        if self._events.most:
            address = self._addresses.of(request)
            if site := _site_of(address):
                self._sites.take_back(site)
            self._events.take_back(address)


def _site_of(address: str) -> str | None:
    """The /48 network of a /64 network; ``None`` for another address."""
    if not address.endswith("/64"):
        return None
    return str(ipaddress.IPv6Network(address).supernet(new_prefix=48))


def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address, with or without a port. An IPv4-mapped IPv6 address becomes an IPv4 address."""
    if with_port := _ADDRESS_AND_PORT.match(text):
        text = with_port[1]
    try:
        address = ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


class TokenBucket:
    """Limits requests per second for each shop; a bucket holds the tokens of one second, at least one. 0: no limit."""

    def __init__(self, per_second: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._capacity = max(1.0, per_second)
        self._monotonic = monotonic
        self._buckets: dict[int, tuple[float, float]] = {}  # shop id -> tokens, time of the last change

    def take(self, shop_id: int) -> None:
        """Take the token for one request. Raises ``TooManyRequests`` if there is none."""
        if not self._per_second:
            return
        now = self._monotonic()
        tokens, changed_at = self._buckets.get(shop_id, (self._capacity, now))
        tokens = min(self._capacity, tokens + (now - changed_at) * self._per_second)
        if tokens < 1:
            self._buckets[shop_id] = (tokens, now)
            wait = math.ceil((1 - tokens) / self._per_second)
            raise TooManyRequests("shop", math.floor(self._capacity), 1, wait)
        if shop_id not in self._buckets:
            make_room(self._buckets)
        self._buckets[shop_id] = (tokens - 1, now)


def make_room(entries: dict[Any, Any]) -> None:
    """Delete the older half of a full dictionary, because clients choose its keys and could fill the memory."""
    if len(entries) >= MOST_ENTRIES:
        for key in list(entries)[: MOST_ENTRIES // 2]:
            del entries[key]
