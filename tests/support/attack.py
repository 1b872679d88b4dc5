"""Connections of an attacker."""

from __future__ import annotations

import contextlib
import itertools
import resource
import socket
from collections.abc import Iterator

CLIENT_ADDRESSES = 50  # 127.0.1.1 and so on: the loopback network has many addresses


def allow_many_descriptors() -> None:
    """Raise the limit of open files of this process to the limit of the system."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)


@contextlib.contextmanager
def connections(port: int, number: int, first_bytes: bytes = b"") -> Iterator[list[socket.socket]]:
    """Connect ``number`` times from many addresses without waiting for the server, and send only ``first_bytes``."""
    allow_many_descriptors()
    addresses = itertools.cycle(f"127.0.1.{number + 1}" for number in range(CLIENT_ADDRESSES))
    with contextlib.ExitStack() as stack:
        opened = []
        for address in itertools.islice(addresses, number):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
            client.bind((address, 0))
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
            if first_bytes:
                with contextlib.suppress(BlockingIOError):
                    client.send(first_bytes)
            opened.append(client)
        yield opened
