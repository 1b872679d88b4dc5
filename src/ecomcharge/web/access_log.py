"""The access log: one line for each request, without bodies, headers or personal data."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from functools import lru_cache
from typing import Final

from ecomcharge.base.logs import LogFormat, wants_json
from ecomcharge.web.messages import AccessLogEntry
from ecomcharge.web.metrics import Metrics

FLUSH_SECONDS: Final = 0.1


FLUSH_NOTES: Final = 256


class AccessLog:
    """What was answered: noted in passing, and a moment later counted and written, many at a time.

    Done one by one between requests, the same work takes twice as long: its code and data have to be fetched
    into the processor's caches again each time. Lines are at most ``FLUSH_SECONDS`` late.
    """

    def __init__(self, log_format: LogFormat, metrics: Metrics) -> None:
        self._line = _json_line if wants_json(log_format) else _readable_line
        self._metrics = metrics
        self._notes: list[AccessLogEntry] = []
        self._timer: asyncio.TimerHandle | None = None

    def note(self, note: AccessLogEntry) -> None:
        self._notes.append(note)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)
        elif len(self._notes) >= FLUSH_NOTES:
            self.flush()

    def flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        notes, self._notes = self._notes, []
        if notes:
            self._metrics.count(notes)
            with contextlib.suppress(OSError, ValueError):  # a full disk takes the log, not the service
                sys.stderr.write("".join(map(self._line, notes)))
                sys.stderr.flush()


@lru_cache(maxsize=8)  # under load many requests share a millisecond
def _moment(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:03d}"


@lru_cache(maxsize=4096)
def _around(method: str, route: str, status: int, shop: int, code: str | None) -> tuple[str, str, str]:
    """What stands in a line between its moment, its request id and its milliseconds, and behind them."""
    return (
        f'Z","level":"{_level(status)}","event":"request","request_id":"',
        f'","method":"{method}","route":"{route}","status":{status},"ms":',
        (f',"shop":{shop}' if shop else "") + (f',"code":"{code}"}}\n' if code else "}\n"),
    )


def _json_line(note: AccessLogEntry) -> str:
    at, request_id, method, route, status, code, shop, seconds = note
    first, second, last = _around(method, route, status, shop, code)
    return f'{{"time":"{_moment(int(at * 1000))}{first}{request_id}{second}{seconds * 1000:.3f}{last}'


def _readable_line(note: AccessLogEntry) -> str:
    about = (f" shop={note.shop}" if note.shop else "") + (f" {note.code}" if note.code else "")
    return (
        f"{_moment(int(note.at * 1000))[11:]} {note.status} {note.method} {note.route} {note.seconds * 1000:.1f} ms{about}"
        f" {note.request_id}\n"
    )


def _level(status: int) -> str:
    return "error" if status >= 500 else "info"
