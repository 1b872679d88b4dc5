"""Rate limits for each client address, for each shop, and for other keys."""

from __future__ import annotations

import ipaddress
import math
import re
import time
from collections.abc import Callable, Hashable
from typing import Any, Final

import structlog

from ecomcharge.base.errors import ConfigurationError, TooManyRequests
from ecomcharge.web.messages import Request

log = structlog.get_logger()

MOST_ENTRIES: Final = 10_000
WINDOW_SECONDS: Final = 60

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


class EventLimiter:
    """Limits events per key in windows of ``window_seconds``. One per process; ``most`` 0 means no limit.

    ``policy`` names the limit in the response. The number of keys in memory is limited, because clients choose them.
    """

    def __init__(
        self, policy: str, most: int, window_seconds: int = WINDOW_SECONDS, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._policy = policy
        self.most = most
        self._window_seconds = window_seconds
        self._monotonic = monotonic
        self._counts: dict[Hashable, tuple[float, int]] = {}  # key -> start of its window, events in it

    def count(self, key: Hashable) -> None:
        """Count one event. Raises ``TooManyRequests`` above the limit."""
        if not self.most:
            return
        now = self._monotonic()
        started, count = self._counts.get(key, (now, 0))
        if now - started >= self._window_seconds:
            started, count = now, 0
        if key not in self._counts:
            make_room(self._counts)
        self._counts[key] = (started, count + 1)
        if count >= self.most:
            wait = math.ceil(started + self._window_seconds - now)
            raise TooManyRequests(self._policy, self.most, self._window_seconds, wait)


class AddressRateLimiter:
    """Limits events per client address and minute: failed logins, POSTs to pay links, cards that were tried."""

    def __init__(self, policy: str, per_minute: int, addresses: ClientAddresses) -> None:
        self._events = EventLimiter(policy, per_minute)
        self._addresses = addresses

    def count(self, request: Request) -> None:
        """Count one event. Raises ``TooManyRequests`` above the limit."""
        if self._events.most:
            self._events.count(self._addresses.of(request))


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
