"""Limits the connections of clients that send nothing, send slowly or stop reading.

granian waits for such clients and counts their connections in its limit, so that strangers without credentials could use all
of them. This module reads the state of the process's connections from the kernel (TCP_INFO) and closes some. It closes a
connection whose request is in progress only when the client sends the body slowly or stops reading the response. Only on
Linux.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import struct
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import structlog

from ecomcharge.web.rate_limits import ClientAddresses

log = structlog.get_logger()

LOOK_SECONDS: Final = 1.0
BUSY_LOOK_SECONDS: Final = 0.1  # while more than BUSY of the connections are in use
BUSY: Final = 0.5  # of the connections
BUSY_FIRST_BYTE_SECONDS: Final = 0.25  # a client sends its request as soon as it is connected
FULL: Final = 0.75  # of the connections: above it, those that wait for longest are closed
LEAST_IDLE_SECONDS: Final = 0.5  # a connection that had a response and is idle for a shorter time is not closed
STOPPING_SECONDS: Final = 2.0  # instead of ``stall_seconds`` while the server stops
STOPPING_BYTES: Final = 64 * 1024  # that a client must take in this time
STUCK_SECONDS: Final = 3.0  # without a free descriptor, the process ends: granian does not recover
RESERVED_DESCRIPTORS: Final = 0.25  # of the system's limit; more than the kernel's queue of connections
CONNECTIONS_PER_TURN: Final = 256  # the loop serves requests in between; a connection takes about 7 microseconds

_TCP_INFO_BYTES: Final = 148
_STATE: Final = 0
_OPEN_STATES: Final = (1, 8)  # ESTABLISHED, and CLOSE_WAIT: the client has ended its side
_FIELDS: Final = struct.Struct("=24xI 16xI 4xI 64xQ Q 8xI")  # of struct tcp_info in linux/tcp.h
_RESET_AT_CLOSE: Final = struct.pack("ii", 1, 0)  # the kernel need not try to send the rest


@dataclass(frozen=True, slots=True)
class ConnectionRules:
    """The limits of one process. ``most_per_address`` 0 means no limit."""

    port: int
    most: int
    most_per_address: int
    first_byte_seconds: float
    stall_seconds: float
    uses_tls: bool = False


class _Connection(NamedTuple):
    """One connection as the kernel describes it. Times are milliseconds."""

    descriptor: int
    unacknowledged: int  # segments that were sent
    since_sent: int  # since the server sent data last, or since the connection was accepted
    since_received: int
    acknowledged: int  # bytes that the client's system took
    received: int  # bytes
    unsent: int  # bytes that wait until the client's system takes more

    @property
    def is_sending(self) -> bool:
        return bool(self.unsent or self.unacknowledged)


class _Client(NamedTuple):
    host: str
    port: int


class _Progress(NamedTuple):
    acknowledged: int
    since: float  # when that number was first seen


class ClientConnections:
    """Closes connections to the port of one server process. The rules, in this order:

    - data waits on it, of which the client's system took nothing for ``stall_seconds``. ``TCP_USER_TIMEOUT`` is no
      replacement: the kernel also counts the time of a client that reads slowly but steadily, as long as less than the next
      segment fits into its window
    - it is silent: the client has sent no byte for ``first_byte_seconds``, or for ``BUSY_FIRST_BYTE_SECONDS`` while
      more than ``BUSY`` of ``most`` are in use
    - its address has more than ``most_per_address``, or more than ``FULL`` of ``most`` are in use. Of the connections that
      wait for a request or for the end of its headers, those are closed that wait for longest: first those that never had a
      response, until ``BUSY`` are left, then the others, until ``FULL`` are left

    ``ports_in_progress`` returns the clients' ports of the requests in progress.
    """

    def __init__(
        self, rules: ConnectionRules, addresses: ClientAddresses, ports_in_progress: Callable[[], Collection[int]]
    ) -> None:
        self._rules = rules
        self._addresses = addresses
        self._ports_in_progress = ports_in_progress
        self._least_bytes = 1  # that are progress
        self._copy = _Copy()
        self._progress: dict[_Client, _Progress] = {}  # of the connections on which data waits
        self._incomplete: set[_Client] = set()  # those that had sent a part of a request at the last look

    def hurry(self) -> None:
        """The server stops: close a connection sooner, also that of a client that reads slowly."""
        self._rules = replace(self._rules, stall_seconds=min(self._rules.stall_seconds, STOPPING_SECONDS))
        self._least_bytes = STOPPING_BYTES

    async def watch(self) -> None:
        """Look regularly, until canceled."""
        loop = asyncio.get_running_loop()
        looked_at = had_free_at = loop.time()
        while sys.platform == "linux":
            await asyncio.sleep(BUSY_LOOK_SECONDS)
            now = loop.time()
            free = _lowest_free_descriptor()
            set_descriptor_limit(reserve=free is not None and self._rules.uses_tls)
            if free is not None:
                had_free_at = now
            elif now - had_free_at >= STUCK_SECONDS:
                log.error("no file descriptor was free for seconds, so the process ends and is replaced; raise ulimit -Hn")
                os._exit(1)
            if now - looked_at >= LOOK_SECONDS or free is None or free > BUSY * self._rules.most:
                looked_at = now
                await self.look(now)

    async def look(self, now: float) -> None:
        """Close what the rules say. ``now`` is in seconds of the monotonic clock."""
        rules = self._rules
        connections = await _connections()
        self._close_stalled(connections, now)
        is_busy = len(connections) > BUSY * rules.most
        silence = BUSY_FIRST_BYTE_SECONDS if is_busy else rules.first_byte_seconds
        others = []
        for one in connections:
            if one.received or one.since_sent < silence * 1000:
                others.append(one)
            else:
                self._close(one, reset=True)
        if len(others) > min(rules.most_per_address or rules.most, FULL * rules.most):
            self._close_waiting(others)

    def _close_stalled(self, connections: Iterable[_Connection], now: float) -> None:
        before, self._progress = self._progress, {}
        for one in connections:
            client = self._client_of(one) if one.is_sending else None
            if client is None:
                continue
            seen = before.get(client)
            # With a lower number it is another connection from the same port.
            if seen is None or not seen.acknowledged <= one.acknowledged < seen.acknowledged + self._least_bytes:
                seen = _Progress(one.acknowledged, now)
            elif now - seen.since >= self._rules.stall_seconds:
                self._close(one, reset=True)
                continue
            self._progress[client] = seen

    def _close_waiting(self, connections: Iterable[_Connection]) -> None:
        """Apply the limits per address and of all connections."""
        rules = self._rules
        clients = [(one, client) for one in connections if (client := self._client_of(one)) is not None]
        limited = {host: self._addresses.limited(host) for host in {client.host for _, client in clients}}
        per_address = Counter(limited[client.host] for _, client in clients)
        left = len(clients)
        is_full = left > FULL * rules.most
        busy_ports = self._ports_in_progress()
        before, self._incomplete = self._incomplete, set()
        for one, client in sorted(clients, key=lambda pair: (pair[0].acknowledged > 0, -pair[0].since_sent)):
            least_wait = LEAST_IDLE_SECONDS if one.acknowledged else BUSY_FIRST_BYTE_SECONDS
            if one.is_sending or one.since_sent < least_wait * 1000 or client.port in busy_ports:
                continue
            address = limited[client.host]
            has_too_many = address is not None and 0 < rules.most_per_address < per_address[address]
            has_surplus = is_full and left > (FULL if one.acknowledged else BUSY) * rules.most
            if not has_surplus and not has_too_many:
                continue
            per_address[address] -= 1
            left -= 1
            is_complete = bool(one.acknowledged) and one.since_received >= one.since_sent
            if not is_complete:
                self._incomplete.add(client)
            if is_complete or client in before:  # Python may not have seen its request yet: then it is closed at the next look
                self._close(one, reset=not one.acknowledged)

    def _client_of(self, connection: _Connection) -> _Client | None:
        """Address and port of the client; ``None`` for a connection that is closed meanwhile or not a client's."""
        with contextlib.suppress(OSError), self._copy.of(connection.descriptor) as opened:
            if opened.getsockname()[1] == self._rules.port:
                return _Client(*opened.getpeername()[:2])
        return None

    def _close(self, connection: _Connection, *, reset: bool) -> None:
        """End a connection, unless it is not the one that was seen: granian may have closed it meanwhile."""
        with contextlib.suppress(OSError), self._copy.of(connection.descriptor) as opened:
            if opened.getsockname()[1] != self._rules.port:
                return
            now = _read(opened, connection.descriptor)
            if now is None or (now.received, now.acknowledged) != (connection.received, connection.acknowledged):
                return
            if reset:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
            opened.shutdown(socket.SHUT_RDWR)


class _Copy:
    """Copies one descriptor at a time, also when the process has no free descriptor: its copy always has the same number.

    A copy keeps a connection open that granian closes meanwhile, so that another one cannot take its number.
    """

    def __init__(self) -> None:
        self._nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._number = os.dup(self._nothing)

    @contextlib.contextmanager
    def of(self, descriptor: int) -> Iterator[socket.socket]:
        """Raises ``OSError`` if it is not the descriptor of a socket."""
        os.dup2(descriptor, self._number, inheritable=False)
        try:
            with _borrowed(self._number) as opened:
                yield opened
        finally:
            os.dup2(self._nothing, self._number, inheritable=False)


@contextlib.contextmanager
def _borrowed(descriptor: int) -> Iterator[socket.socket]:
    """A socket object that does not close the descriptor. The size of ``AF_INET6`` holds both kinds of address."""
    opened = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 0, descriptor)
    try:
        yield opened
    finally:
        opened.detach()


def _descriptors() -> Iterable[int]:
    try:
        return map(int, os.listdir("/proc/self/fd"))
    except OSError:  # none is free for the folder: all are open
        return range(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def set_descriptor_limit(*, reserve: bool) -> int:
    """Set the limit of open files to the limit of the system, or below it to have a reserve. Returns the limit.

    With TLS, granian's limit counts a connection after its handshake only, so that handshakes can take all descriptors. Then
    granian's accept fails again and again, and it serves no handshake and closes no connection until accept succeeds.
    """
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = most - int(most * RESERVED_DESCRIPTORS) if reserve else most
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
    return limit


def _lowest_free_descriptor() -> int | None:
    """At most the number of open descriptors; ``None`` if none is free. That takes less time than to count connections."""
    try:
        descriptor = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    os.close(descriptor)
    return descriptor


async def _connections() -> list[_Connection]:
    """The open TCP connections of this process, those to databases and gateways too."""
    found = []
    for number, descriptor in enumerate(_descriptors(), 1):
        if not number % CONNECTIONS_PER_TURN:
            await asyncio.sleep(0)
        with contextlib.suppress(OSError):  # closed meanwhile, or no socket
            with _borrowed(descriptor) as opened:  # not a copy, which takes twice as long
                connection = _read(opened, descriptor)
            if connection is not None:
                found.append(connection)
    return found


def _read(opened: socket.socket, descriptor: int) -> _Connection | None:
    """The state of an open TCP connection; ``None`` in another state. Raises ``OSError`` if it is no TCP socket."""
    info = opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    if len(info) < _TCP_INFO_BYTES or info[_STATE] not in _OPEN_STATES:
        return None
    return _Connection(descriptor, *_FIELDS.unpack_from(info))
