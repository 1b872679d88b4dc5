"""Structured logs: JSON lines, or a readable form on a terminal."""

from __future__ import annotations

import datetime
import logging
import sys
from typing import Any, Final, Literal

import msgspec
import structlog

from ecomcharge.base.text_forms import printable

PLAIN_LINE: Final = "%(asctime)s %(levelname)s %(message)s"
LogFormat = Literal["auto", "json", "console"]


def wants_json(log_format: LogFormat) -> bool:
    return log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())


def configure_logging(log_format: LogFormat) -> None:
    """Write logs to standard error: JSON lines, or a readable form on a terminal."""
    renderers: list[structlog.typing.Processor] = [_printable_values, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    if wants_json(log_format):
        renderers = [
            structlog.processors.JSONRenderer(serializer=lambda event, **_: msgspec.json.encode(event, enc_hook=str).decode())
        ]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            *renderers,
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    _log_what_libraries_report(log_format)


def _printable_values(
    logger: structlog.typing.WrappedLogger, name: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """A text of somebody else must not control the terminal. The renderer itself escapes the other values."""
    for key in ("event", "exception"):
        if isinstance(value := event.get(key), str):
            event[key] = printable(value, keep="\n\t")
    return event


def _log_what_libraries_report(log_format: LogFormat) -> None:
    """Write warnings and the log records of libraries in the same format, such as asyncio's about an exception of a driver."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if wants_json(log_format) else PrintableLines(PLAIN_LINE))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.captureWarnings(True)


class PrintableLines(logging.Formatter):
    """Formats log records of the standard library without characters that control a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), keep="\n\t")


class JsonLines(logging.Formatter):
    """Formats log records of the standard library as the same JSON lines."""

    def format(self, record: logging.LogRecord) -> str:
        time_ = datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds")
        line = {"time": time_, "level": record.levelname.lower(), "event": record.getMessage(), "logger": record.name}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def granian_logging(log_format: LogFormat) -> dict[str, Any]:
    """The logging configuration of granian, in the chosen format."""
    formatter: dict[str, Any] = {"()": "ecomcharge.base.logs.JsonLines"}
    if not wants_json(log_format):
        formatter = {"()": "ecomcharge.base.logs.PrintableLines", "fmt": PLAIN_LINE}
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
