"""The access log: one line for each request, without bodies, headers or personal data.

A line has the route instead of the path, because a path contains ids. Of a path without a route it has the shape: the words
that occur in routes, and ``{}`` for each other part.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

import msgspec

from ecomcharge.base.logs import LogFormat, wants_json

FLUSH_SECONDS: Final = 0.1
FLUSH_ENTRIES: Final = 256


class AccessLogEntry(msgspec.Struct, frozen=True, gc=False):  # a named tuple takes four times as long to make
    """One request and its response.

    ``seconds`` is the time from the request's headers to the hand-over of the response to the server program.
    No text contains a character that JSON must escape.
    """

    at: float  # seconds since 1970
    request_id: str
    method: str
    route: str
    status: int
    code: str | None
    shop: int
    seconds: float
    shape: str = ""  # of a path without a route


class AccessLog:
    """Collects entries, and counts and writes many of them at once, at most ``FLUSH_SECONDS`` late.

    Counting and writing each entry at once takes twice as long, because the processor's caches then lose this code and its
    data between two requests.
    """

    def __init__(self, log_format: LogFormat, count: Callable[[Sequence[AccessLogEntry]], None]) -> None:
        """``count`` is called with the entries of each flush."""
        self._line = _json_line if wants_json(log_format) else _readable_line
        self._count = count
        self._entries: list[AccessLogEntry] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, entry: AccessLogEntry) -> None:
        self._entries.append(entry)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)
        elif len(self._entries) >= FLUSH_ENTRIES:
            self.flush()

    def flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        entries, self._entries = self._entries, []
        if entries:
            self._count(entries)
            with contextlib.suppress(OSError, ValueError):  # a full disk costs log lines, not requests
                sys.stderr.write("".join(map(self._line, entries)))
                sys.stderr.flush()


@lru_cache(maxsize=8)  # under load many requests share a millisecond
def _time_of(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:03d}"


@lru_cache(maxsize=4096)
def _fixed_parts(method: str, route: str, status: int, shop: int, code: str | None) -> tuple[str, str, str]:
    """The parts of a line after its time, after its request id, and after its milliseconds."""
    return (
        f'Z","level":"{_level(status)}","event":"request","request_id":"',
        f'","method":"{method}","route":"{route}","status":{status},"ms":',
        (f',"shop":{shop}' if shop else "") + (f',"code":"{code}"}}\n' if code else "}\n"),
    )


def _json_line(entry: AccessLogEntry) -> str:
    first, second, last = _fixed_parts(entry.method, entry.shape or entry.route, entry.status, entry.shop, entry.code)
    return f'{{"time":"{_time_of(int(entry.at * 1000))}{first}{entry.request_id}{second}{entry.seconds * 1000:.3f}{last}'


def _readable_line(entry: AccessLogEntry) -> str:
    time_of_day, path = _time_of(int(entry.at * 1000))[11:], entry.shape or entry.route
    details = (f" shop={entry.shop}" if entry.shop else "") + (f" {entry.code}" if entry.code else "")
    return f"{time_of_day} {entry.status} {entry.method} {path} {entry.seconds * 1000:.1f} ms{details} {entry.request_id}\n"


def _level(status: int) -> str:
    return "error" if status >= 500 else "info"
