"""Which connections of clients are closed, with real connections in this process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest

from ecomcharge.runtime.client_connections import ClientConnections, ConnectionRules
from ecomcharge.web.rate_limits import ClientAddresses
from support.waiting import eventually

Pair = tuple[socket.socket, socket.socket]  # the client's end and the server's


class _NoExemptions(ClientAddresses):
    def limited(self, host: str) -> str:
        return host


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield listener


@pytest.fixture
def connect(listener: socket.socket) -> Iterator[Callable[..., Pair]]:
    with contextlib.ExitStack() as stack:

        def connect(address: str = "127.0.0.1", first_bytes: bytes = b"") -> Pair:
            client = stack.enter_context(socket.create_connection(listener.getsockname(), source_address=(address, 0)))
            client.sendall(first_bytes)
            server = stack.enter_context(listener.accept()[0])
            return client, server

        yield connect


def _connections(listener: socket.socket, busy: set[int] = frozenset(), **rules: float) -> ClientConnections:  # type: ignore[assignment]
    port = listener.getsockname()[1]
    given = {"most": 1000, "most_per_address": 0, "first_byte_seconds": 60, "stall_seconds": 60, **rules}
    return ClientConnections(ConnectionRules(port=port, **given), _NoExemptions(""), lambda: busy)  # type: ignore[arg-type]


def _is_open(pair: Pair) -> bool:
    client = pair[0]
    client.setblocking(False)
    try:
        return client.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False


def _look(connections: ClientConnections, *moments: float) -> None:
    for moment in moments:
        asyncio.run(connections.look(moment))


def test_a_silent_connection_is_closed_and_one_that_sent_a_byte_is_not(
    listener: socket.socket, connect: Callable[..., Pair]
) -> None:
    silent, started = connect(), connect(first_bytes=b"G")
    connections = _connections(listener, first_byte_seconds=0.2)
    _look(connections, 0)
    assert _is_open(silent)
    time.sleep(0.25)  # the kernel measures it
    _look(connections, 1)

    assert [_is_open(pair) for pair in (silent, started)] == [False, True]


def test_a_client_that_stops_reading_is_closed_and_one_that_waits_for_its_answer_is_not(
    listener: socket.socket, connect: Callable[..., Pair]
) -> None:
    waiting, reading, stalled = (connect(first_bytes=b"GET") for _ in range(3))
    for _, server in (reading, stalled):
        server.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while server.send(bytes(1 << 16)):
                pass
    connections = _connections(listener, stall_seconds=60)
    _look(connections, 0)
    assert eventually(lambda: len(reading[0].recv(1 << 20)) < 1 << 19)
    _look(connections, 30, 61)

    assert _is_open(waiting)
    assert reading[1].send(b"x") == 1
    with pytest.raises(BrokenPipeError):
        stalled[1].send(b"x")


def test_a_connection_from_the_port_of_a_closed_one_is_not_taken_for_it(listener: socket.socket) -> None:
    connections = _connections(listener, stall_seconds=60)
    client, server = _sending_connection(listener, port=0, received=1 << 20)
    _look(connections, 0)
    port = client.getsockname()[1]
    for opened in (client, server):
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # the port is free at once
        opened.close()
    client, server = _sending_connection(listener, port, received=0)
    with client, server, contextlib.suppress(TimeoutError):
        _look(connections, 59, 61)
        server.send(b"x")  # raises BrokenPipeError if it was closed


def _sending_connection(listener: socket.socket, port: int, received: int) -> Pair:
    """A connection from a port of the client, on which data waits after the client received some bytes."""
    client = socket.create_connection(listener.getsockname(), source_address=("127.0.0.1", port))
    server, _ = listener.accept()
    server.settimeout(0.2)
    with contextlib.suppress(TimeoutError):
        server.sendall(bytes(1 << 24))
    while received > 0:
        received -= len(client.recv(1 << 16))
    return client, server


def test_of_too_many_connections_of_an_address_the_idle_ones_are_closed(
    listener: socket.socket, connect: Callable[..., Pair]
) -> None:
    mine = [connect("127.0.1.1", b"GET") for _ in range(6)]
    other = connect("127.0.1.2", b"GET")
    in_progress = {pair[0].getsockname()[1] for pair in mine[:2]}
    time.sleep(0.3)
    connections = _connections(listener, in_progress, most_per_address=3)
    _look(connections, 0)
    assert all(_is_open(pair) for pair in mine)  # a request may have come just now
    _look(connections, 0)

    assert [_is_open(pair) for pair in mine] == [True, True, False, False, False, True]
    assert _is_open(other)


def test_when_connections_run_out_those_without_a_response_are_closed_first(
    listener: socket.socket, connect: Callable[..., Pair]
) -> None:
    idle = [connect(first_bytes=b"GET") for _ in range(4)]
    for client, server in idle:
        server.sendall(b"HTTP")
        client.recv(4)
    time.sleep(0.6)
    partial = [connect(first_bytes=b"GET") for _ in range(4)]
    time.sleep(0.3)
    connections = _connections(listener, most=4)
    _look(connections, 0, 0)

    assert sum(_is_open(pair) for pair in partial) == 0
    assert sum(_is_open(pair) for pair in idle) == 3  # three quarters of four


@pytest.mark.parametrize(
    ("host", "limited"),
    [
        ("127.0.0.1", None),
        ("::1", None),
        ("::ffff:127.0.0.1", None),
        ("10.0.0.5", None),
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2::3", "2001:db8:1:2::/64"),
    ],
)
def test_loopback_addresses_and_trusted_proxies_have_no_limit_of_connections(host: str, limited: str | None) -> None:
    assert ClientAddresses("10.0.0.0/24").limited(host) == limited
