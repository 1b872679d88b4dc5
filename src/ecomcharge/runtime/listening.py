"""A socket that listens on both loopback addresses, as browsers and programs try either for ``localhost``."""

from __future__ import annotations

import socket
import sys
from typing import Final

LOCALHOST: Final = "localhost"


def listen_on_both_loopback_addresses(port: int) -> socket.socket:
    """A bound socket for 127.0.0.1 and ::1: of all addresses, but of the loopback device only. Raises ``OSError``.

    granian takes one socket, and the program cannot listen on two addresses in another way. Only on Linux.
    """
    if sys.platform != "linux":
        raise OSError("not on this system")
    opened = socket.socket(socket.AF_INET6)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        opened.bind(("::", port))
    except OSError:
        opened.close()
        raise
    return opened


def can_listen_on_both_loopback_addresses() -> bool:
    try:
        with listen_on_both_loopback_addresses(0), socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
