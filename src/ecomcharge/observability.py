"""What an operator sees: one line per request, counters for Prometheus, and structured logs for the rest.

Nothing here ever gets to see a body, a header or personal data: a line holds the request id, the shop, the
route (not the path, which holds ids), the status and the milliseconds.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec
import prometheus_client
import structlog
from prometheus_client import CollectorRegistry, multiprocess

from ecomcharge.storage.database import Load

FLUSH_SECONDS: Final = 0.1
FLUSH_LINES: Final = 500
BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

LogFormat = Literal["auto", "json", "console"]


def wants_json(log_format: LogFormat) -> bool:
    return log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())


def configure_logging(log_format: LogFormat) -> None:
    """Logs go to standard error: JSON lines, or a readable form on a terminal."""
    renderer: structlog.typing.Processor = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    if wants_json(log_format):
        renderer = structlog.processors.JSONRenderer(
            serializer=lambda event, **_: msgspec.json.encode(event, enc_hook=str).decode()
        )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def _as_json(event: object, **_: object) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()


class JsonLines(logging.Formatter):
    """Lines of libraries that use the standard logging, in the same shape as ours."""

    def format(self, record: logging.LogRecord) -> str:
        time_ = datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds")
        line = {"time": time_, "level": record.levelname.lower(), "event": record.getMessage(), "logger": record.name}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def granian_logging(log_format: LogFormat) -> dict[str, Any]:
    """What granian says of its workers, in the chosen format."""
    formatter: dict[str, Any] = {"()": "ecomcharge.observability.JsonLines"}
    if not wants_json(log_format):
        formatter = {"format": "%(asctime)s %(levelname)s %(message)s"}
    handler = {"class": "logging.StreamHandler", "stream": "ext://sys.stderr", "formatter": "lines"}
    logger = {"handlers": ["stderr"], "level": "WARNING", "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"lines": formatter},
        "handlers": {"stderr": handler},
        "loggers": {"_granian": logger, "granian": logger, "granian.access": logger},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
    }


class AccessLine(msgspec.Struct, omit_defaults=True):
    """One request. ``ms`` is from the arrival of its headers to the hand-over of its answer."""

    time: str
    level: str
    event: str
    request_id: str
    method: str
    route: str
    status: int
    ms: float
    shop: int = 0
    code: str | None = None


class AccessLog:
    """Writes access lines to standard error, many at a time: at most ``FLUSH_SECONDS`` after the request."""

    def __init__(self, log_format: LogFormat) -> None:
        self._json = wants_json(log_format)
        self._encode = msgspec.json.Encoder().encode
        self._lines: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._second = (0, "")

    def write(self, request_id: str, method: str, route: str, status: int, seconds: float, shop: int, code: str | None) -> None:
        milliseconds = round(seconds * 1000, 3)
        level = "error" if status >= 500 else "info"
        line = AccessLine(self._now(), level, "request", request_id, method, route, status, milliseconds, shop, code)
        self._lines.append(self._encode(line) if self._json else _readable(line))
        if len(self._lines) >= FLUSH_LINES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lines:
            text = b"\n".join(self._lines) + b"\n"
            self._lines.clear()
            sys.stderr.buffer.write(text)
            sys.stderr.buffer.flush()

    def _now(self) -> str:
        now = time.time()
        second = int(now)
        if second != self._second[0]:
            self._second = (second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)))
        return f"{self._second[1]}.{int((now - second) * 1000):03d}Z"


def _readable(line: AccessLine) -> bytes:
    shop = f" shop={line.shop}" if line.shop else ""
    code = f" {line.code}" if line.code else ""
    return f"{line.time[11:23]} {line.status} {line.method} {line.route} {line.ms:.1f} ms{shop}{code} {line.request_id}".encode()


class Metrics:
    """Counters for Prometheus. With several workers each writes its own files and a scrape adds them up.

    ``directory`` holds those files; without it the numbers are this process's alone.
    """

    def __init__(self, directory: str | None) -> None:
        self._directory = directory
        self._registry = prometheus_client.REGISTRY if directory else CollectorRegistry()
        self._requests = prometheus_client.Histogram(
            "ecomcharge_request_duration_seconds",
            "Requests by route, method and status, and how long they took",
            ["route", "method", "status"],
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._work = prometheus_client.Counter(
            "ecomcharge_database_work",
            "Units of work, the commits that they shared, point reads, and the statements that those shared",
            ["kind"],
            registry=self._registry,
        )
        self._children: dict[tuple[str, str, int], prometheus_client.Histogram] = {}
        self._told = Load()

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        labels = (route, method, status)
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = self._requests.labels(route, method, str(status))
        child.observe(seconds)

    def take_over(self, load: Load) -> None:
        """Add what the database did since the last call."""
        for kind in ("commits", "units", "finds", "find_statements"):
            done = getattr(load, kind)
            self._work.labels(kind).inc(done - getattr(self._told, kind))
            setattr(self._told, kind, done)

    def exposition(self) -> bytes:
        """The numbers of all workers in Prometheus' text format."""
        if self._directory is None:
            return prometheus_client.generate_latest(self._registry)
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry, path=self._directory)  # type: ignore[no-untyped-call]
        return prometheus_client.generate_latest(registry)


def metrics_directory() -> str | None:
    """Where the workers of this server keep their counters, as the server told them."""
    return os.environ.get("PROMETHEUS_MULTIPROC_DIR")


CONTENT_TYPE: Final = prometheus_client.CONTENT_TYPE_LATEST

__all__: Sequence[str] = ("CONTENT_TYPE", "AccessLog", "Metrics", "configure_logging", "metrics_directory", "wants_json")
