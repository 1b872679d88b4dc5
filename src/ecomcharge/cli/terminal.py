"""Output of commands: tables and times for people, JSON for scripts."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Final

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

PIPE_WIDTH: Final = 200

AsJson = Annotated[bool, Parameter(negative="")]


def print_json(value: object) -> None:
    print(msgspec.json.encode(value).decode())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table. Long cells are wrapped, not cut, so that ids can be copied."""
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)


def print_facts(facts: Mapping[str, str]) -> None:
    """Print one fact per line, with the names in a column. Empty facts are left out."""
    width = max(len(name) for name in facts) + 2
    print("\n".join(f"{name + ':':<{width}}{text}" for name, text in facts.items() if text))


def moment(milliseconds: int | None) -> str:
    """UTC in seconds; empty for ``None``."""
    if milliseconds is None:
        return ""
    return datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC).strftime("%Y-%m-%d %H:%M:%SZ")
