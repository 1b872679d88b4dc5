"""Metrics for Prometheus: requests, database work, charges, and the backlog."""

from __future__ import annotations

import contextlib
import os
import time
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Final

import msgspec

from ecomcharge.storage.database import DatabaseStats
from ecomcharge.web.access_log import AccessLogEntry

SNAPSHOT_SECONDS: Final = 0.5
BACKLOG_KEPT_SECONDS: Final = 60.0  # an older backlog is not exposed: the database was not readable since then
BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

OUTCOMES: Final = (  # the payment statuses that are counted
    *("successful", "failed", "error", "incomplete", "unknown", "expired", "absent"),
    *("refunding", "refunded", "refund_failed", "voided"),
)


class Unsettled(msgspec.Struct, frozen=True):
    """Number of payments of one status that have no final outcome, and the age of the oldest one."""

    count: int
    age_seconds: float


class Backlog(msgspec.Struct, frozen=True):
    """Due work in the database. ``payments`` is by status."""

    renewals_due: int
    renewals_lag_seconds: float
    payments: dict[str, Unsettled]
    webhooks_pending: int
    webhooks_lag_seconds: float
    webhooks_oldest_seconds: float
    webhooks_failed: int


class Metrics:
    """Counters of all processes of a server.

    Each process counts in memory and writes its counters to its own file in ``directory``; a scrape adds the files up.
    (The library's multi-process mode keeps each counter in a mapped file and costs a request six times as much.) Counts of
    other processes are at most ``SNAPSHOT_SECONDS`` late. The file of a process that ended remains, so that no counter
    decreases. Without a directory, only this process is counted.
    ``adopted_pid`` is a process that died and that this one replaces: this process continues its file, so that the number of
    files does not grow. The backlog is the same for all processes: one of them reads it from the database from time to time
    and writes it to a file for the others.
    """

    def __init__(self, directory: str | None, adopted_pid: int | None = None) -> None:
        self._file = _file_of(Path(directory), adopted_pid) if directory else None
        self._backlog_file = Path(directory, "backlog") if directory else None
        self._backlog: Backlog | None = None
        self._backlog_read_at = 0.0  # seconds since 1970
        self._counts = Counts({}, {})
        self._requests: dict[tuple[str, str, int], list[float]] = {}
        self._work_before: dict[str, int] = {}
        if adopted_pid is not None and self._file is not None and self._file.exists():
            self._adopt(self._file)

    def _adopt(self, file: Path) -> None:
        self._counts = msgspec.json.decode(file.read_bytes(), type=Counts)
        self._work_before = dict(self._counts.work)
        for labels, histogram in self._counts.requests.items():
            route, method, status = labels.split(" ")
            self._requests[route, method, int(status)] = histogram

    def count(self, entries: Iterable[AccessLogEntry]) -> None:
        for entry in entries:
            labels = (entry.route, entry.method, entry.status)
            histogram = self._requests.get(labels)
            if histogram is None:
                histogram = self._requests[labels] = [0.0] * (len(BUCKETS) + 2)
                self._counts.requests[f"{entry.route} {entry.method} {entry.status}"] = histogram
            histogram[bisect_left(BUCKETS, entry.seconds)] += 1
            histogram[-1] += entry.seconds

    def count_charge(self, outcome: str, first: bool) -> None:
        """Count a recorded outcome of a charge. ``first``: of a subscription's first charge rather than a renewal."""
        labels = f"{outcome} {'first' if first else 'renewal'}"
        self._counts.charges[labels] = self._counts.charges.get(labels, 0) + 1

    def write(self, load: DatabaseStats | None = None) -> None:
        """Write the counters for the other processes. Without ``load``, the database work stays as it was."""
        if load is not None:
            for kind, count in asdict(load).items():
                self._counts.work[kind] = self._work_before.get(kind, 0) + count
        if self._file is not None:
            _write_whole(self._file, msgspec.json.encode(self._counts))

    def keep_backlog(self, backlog: Backlog) -> None:
        """Store the backlog for all processes of the server."""
        self._backlog, self._backlog_read_at = backlog, time.time()
        if self._backlog_file is not None:
            _write_whole(self._backlog_file, msgspec.json.encode(backlog))

    def backlog_age_seconds(self) -> float:
        """The time since any process of the server read the backlog; very large if none did."""
        read_at = self._backlog_read_at
        if self._backlog_file is not None:
            with contextlib.suppress(OSError):
                read_at = self._backlog_file.stat().st_mtime
        return time.time() - read_at

    def _latest_backlog(self) -> Backlog | None:
        if self.backlog_age_seconds() > BACKLOG_KEPT_SECONDS:
            return None
        if self._backlog_file is not None:
            with contextlib.suppress(OSError):
                return msgspec.json.decode(self._backlog_file.read_bytes(), type=Backlog)
        return self._backlog

    def exposition(self, load: DatabaseStats) -> bytes:
        """The metrics of all processes in Prometheus' text format; of this one only if the files cannot be used.

        The client library is imported at the first scrape: it takes 5 MiB.
        """
        from ecomcharge.web.exposition import exposition_of

        try:
            self.write(load)
            processes = self._counts_of_all()
        except OSError:
            processes = [self._counts]
        return exposition_of(processes, self._latest_backlog())

    def _counts_of_all(self) -> list[Counts]:
        if self._file is None:
            return [self._counts]
        return [msgspec.json.decode(file.read_bytes(), type=Counts) for file in self._file.parent.glob("*.json")]


class Counts(msgspec.Struct):
    """Counters of one process.

    ``requests`` maps ``route method status`` to the number of requests in each bucket, the last one without an
    upper bound, and the sum of their seconds; ``work`` is the database's ``DatabaseStats``; ``charges`` maps
    ``outcome kind`` to the number of charges.
    """

    requests: dict[str, list[float]]
    work: dict[str, int]
    charges: dict[str, int] = {}


def _file_of(directory: Path, adopted_pid: int | None) -> Path:
    """The file of this process, or of the one that it replaces. Its name has a time, because process ids are reused."""
    new = directory / f"{adopted_pid or os.getpid()}-{time.time_ns()}.json"
    return new if adopted_pid is None else next(directory.glob(f"{adopted_pid}-*.json"), new)


def _write_whole(file: Path, content: bytes) -> None:
    """Replace a file in one step: readers see the old content or the new one."""
    draft = file.with_name(f"{file.name}.{os.getpid()}.new")
    draft.write_bytes(content)
    draft.replace(file)
