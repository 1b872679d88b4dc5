"""Output of commands: tables and times for people, JSON for scripts."""

from __future__ import annotations

import datetime
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Final, TextIO

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ecomcharge.base.text_forms import printable

PIPE_WIDTH: Final = 200

AsJson = Annotated[bool, Parameter(negative="")]


_CONTROL_IN_JSON: Final = re.compile(r"[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def print_json(value: object) -> None:
    print(json_text(msgspec.json.encode(value)))


def json_text(json: bytes) -> str:
    """JSON without characters that control a terminal: they occur in its texts only, where an escape has the same meaning."""
    return _CONTROL_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", json.decode())


def print_text(text: str, file: TextIO | None = None) -> None:
    """Print a sentence that may contain texts of other people."""
    print(printable(text), file=file or sys.stdout)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table. Long cells are wrapped, not cut, so that ids can be copied."""
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(printable(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)


def print_facts(facts: Mapping[str, str]) -> None:
    """Print one fact per line, with the names in a column. Empty facts are left out."""
    width = max(len(name) for name in facts) + 2
    print("\n".join(f"{name + ':':<{width}}{printable(text)}" for name, text in facts.items() if text))


def moment(milliseconds: int | None) -> str:
    """UTC in seconds; empty for ``None``."""
    if milliseconds is None:
        return ""
    return datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC).strftime("%Y-%m-%d %H:%M:%SZ")
