"""Customers as CSV with a header (RFC 4180)."""

from __future__ import annotations

import csv
import functools
import io
import itertools
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import BinaryIO, Final

import msgspec

from ecomcharge.base.addresses import accept_email, accept_ip
from ecomcharge.base.errors import ConfigurationError
from ecomcharge.base.ids import CUSTOMER_ID
from ecomcharge.customers.bulk.files import LINE_MAXIMUM_BYTES, NOT_UTF_8, CustomerFile, Read, UnreadableLine, check_length
from ecomcharge.customers.model import FIELD_NAMES, REQUIRED_NAMES, Customer, IdentifiedBody

NOT_CSV: Final = "Line is not valid CSV"
WRONG_CELL_COUNT: Final = "Line has {cells} cells where the header has {names}"

COLUMNS: Final = ("id", *FIELD_NAMES)

_QUOTE: Final = ord('"')  # an integer: `in` finds it in bytes about ten times as fast as b'"'

# A row of one line in which every quote opens or closes a cell. The csv module decides about rows that do not match.
# Atomic groups, not possessive ones: Python before 3.11.5 resumes in the middle of a possessive group that failed.
_is_whole_row: Final = re.compile(
    rb'(?>(?:"[^"]*+",)*)'  # nearly all of a row whose cells are all quoted
    rb'(?>(?:[^"]*+(?<![^,])"[^"]*+(?>(?:""[^"]*+)*)"(?=[,\r\n]))*)[^"]*+'
).fullmatch

# A valid value in one of these columns distinguishes the row of a customer from a line of text.
_IDENTIFYING: Final[Mapping[str, Callable[[str], object]]] = {"id": CUSTOMER_ID.match, "email": accept_email, "ip": accept_ip}


class CsvFile(CustomerFile):
    """The names in the header identify the columns. Unknown columns are ignored; an empty cell is an absent field.

    The constructor raises ``ConfigurationError`` if the first line does not name the required columns.
    """

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream)
        self._names: list[str] = []
        _, self.heading = next(self.records(), (0, b""))
        try:
            names = [name.strip().lower() for name in _cells(self.heading)]
        except UnreadableLine:
            names = []
        missing = [name for name in REQUIRED_NAMES if name not in names]
        if missing:
            raise ConfigurationError(f"the first line of a CSV file must name its columns; {' and '.join(missing)} not found")
        if len(set(names)) < len(names):
            raise ConfigurationError("the first line of a CSV file must name each column once")
        self._names = [name if name in COLUMNS else "" for name in names]

    @property
    def read(self) -> Read:
        return functools.partial(read_csv, self._names)

    def records(self) -> Iterator[tuple[int, bytes]]:
        """A row is one line, or several lines if a quoted cell contains line breaks.

        A line with misplaced quotes is a record by itself, which ``read`` rejects; the next line begins a new row.
        """
        for line in self._lines:
            if _QUOTE in line and not _is_whole_row(line):
                yield from self._records_from(line)
            elif not line.isspace():
                yield self._line, line

    def _records_from(self, line: bytes) -> Iterator[tuple[int, bytes]]:
        """The records that begin on this line, and on the lines that were read ahead to find the end of its row."""
        ahead = deque([(self._line, line)])
        while ahead:
            number, line = ahead.popleft()
            if _QUOTE in line and not _is_whole_row(line):
                continued = self._continuation(line, ahead)
                line = b"".join([line, *(ahead.popleft()[1] for _ in range(continued))])
            if not line.isspace():
                yield number, line

    def _continuation(self, line: bytes, ahead: deque[tuple[int, bytes]]) -> int:
        """The number of lines in ``ahead`` that belong to the row of ``line``. Reads more lines into ``ahead`` if needed.

        0 if the row is not valid CSV, does not end within ``LINE_MAXIMUM_BYTES``, or would contain another row.
        """
        row = [line]
        try:
            cells = next(csv.reader(self._decoded(row, ahead), strict=True), [])
        except csv.Error:
            return 0
        return 0 if self._contains_another_row(row, cells) else len(row) - 1

    def _decoded(self, row: list[bytes], ahead: deque[tuple[int, bytes]]) -> Iterator[str]:
        """The line in ``row``, then the lines after it as long as they can belong to it. Each of them is added to ``row``."""
        yield row[0].decode(errors="replace")
        length, closing = len(row[0]), 0
        for nth in itertools.count():
            if nth == len(ahead):
                if (following := next(self._lines, None)) is None:
                    return
                ahead.append((self._line, following))
            _, following = ahead[nth]
            length += len(following)
            # A quote that is not doubled ends a cell. Without this limit the search would take quadratic time.
            closing += _QUOTE in following.replace(b'""', b"")
            if length > LINE_MAXIMUM_BYTES + len(b"\n") or (self._names and closing > len(self._names)):
                return
            row.append(following)
            yield following.decode(errors="replace")

    def _contains_another_row(self, row: Sequence[bytes], cells: Sequence[str]) -> bool:
        """Whether a line inside a quoted cell is the row of a customer. Then the opening quote of the cell was a mistake."""
        cell_of_break = [place for place, cell in enumerate(cells) for _ in range(cell.count("\n"))]
        for nth, (line, place) in enumerate(zip(row[1:], cell_of_break, strict=True), 1):
            is_inside = nth < len(cell_of_break) and cell_of_break[nth] == place
            # On the last line of the cell, the columns after the cell are valid in any case.
            columns = self._names if is_inside or len(cells) != len(self._names) else self._names[:place]
            if self._is_a_row(line, columns):
                return True
        return False

    def _is_a_row(self, line: bytes, columns: Sequence[str]) -> bool:
        """Whether the line has as many cells as the header, and a valid id, email or ip in one of the ``columns``."""
        try:
            cells = _cells(line)
        except UnreadableLine:
            return False
        return len(cells) == len(self._names) and any(map(_identifies, columns, cells))


def _identifies(name: str, cell: str) -> bool:
    return name in _IDENTIFYING and bool(_IDENTIFYING[name](cell.strip()))


def read_csv(names: Sequence[str], record: bytes) -> IdentifiedBody:
    """Parse a row into a body; ``names`` are the columns. Raises ``UnreadableLine``."""
    cells = _cells(record)
    if len(cells) != len(names):
        raise UnreadableLine(WRONG_CELL_COUNT.format(cells=len(cells), names=len(names)))
    body = IdentifiedBody()
    for name, cell in zip(names, cells, strict=True):
        if cell and name:
            setattr(body, name, cell)
    return body


def _cells(record: bytes) -> list[str]:
    check_length(record)
    try:
        return next(csv.reader([record.decode()], strict=True), [])
    except UnicodeDecodeError as error:
        raise UnreadableLine(NOT_UTF_8) from error
    except csv.Error as error:
        raise UnreadableLine(NOT_CSV) from error


def csv_header() -> bytes:
    return _csv_line(COLUMNS)


def csv_line(customer: Customer) -> bytes:
    return _csv_line(msgspec.structs.astuple(customer)[: len(COLUMNS)])


def _csv_line(cells: Sequence[str | None]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()
