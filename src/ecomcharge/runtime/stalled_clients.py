"""Closes the connections of clients that stop reading a response."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import struct
import sys
import time
from typing import Final, NamedTuple

LOOKS: Final = 4  # in the time after which a connection is closed
TCP_INFO_BYTES: Final = 144
ACKNOWLEDGED: Final = slice(120, 128)  # tcpi_bytes_acked
RESET_AT_CLOSE: Final = struct.pack("ii", 1, 0)  # the kernel need not try to send the rest
NOT_SENT: Final = slice(140, 144)  # tcpi_notsent_bytes


class _Progress(NamedTuple):
    acknowledged: int  # bytes that the client's system took since the connection was opened
    since: float  # when that number was first seen


class StalledClients:
    """Closes the connections to ``port`` on which data waits and of which the client's system took nothing for ``seconds``.

    granian itself would wait without a limit. ``TCP_USER_TIMEOUT`` is no replacement: the kernel also counts the time of a
    client that reads slowly but steadily, as long as less than the next segment fits into its window. Only on Linux.
    """

    def __init__(self, port: int, seconds: float) -> None:
        self._port = port
        self._seconds = seconds
        self._progress: dict[int, _Progress] = {}  # by inode, of the connections on which data waits

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look now and again, while the loop runs."""
        if sys.platform == "linux":
            self.look(time.monotonic())
            loop.call_later(self._seconds / LOOKS, self.watch, loop)

    def look(self, now: float) -> None:
        before, self._progress = self._progress, {}
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):  # closed meanwhile, or no TCP connection
                if stat.S_ISSOCK(os.stat(int(name)).st_mode):
                    self._look_at(int(name), before, now)

    def _look_at(self, descriptor: int, before: dict[int, _Progress], now: float) -> None:
        with socket.socket(fileno=os.dup(descriptor)) as connection:  # a copy, as granian may close its own at any time
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
            if not int.from_bytes(info[NOT_SENT], sys.byteorder) or connection.getsockname()[1] != self._port:
                return
            inode = os.fstat(connection.fileno()).st_ino
            acknowledged = int.from_bytes(info[ACKNOWLEDGED], sys.byteorder)
            seen = before.get(inode)
            if seen is None or seen.acknowledged != acknowledged:
                seen = _Progress(acknowledged, now)
            elif now - seen.since >= self._seconds:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
                connection.shutdown(socket.SHUT_RDWR)
            self._progress[inode] = seen
