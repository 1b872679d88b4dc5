"""Customers in files: JSON lines, and CSV with a header (RFC 4180). Reading holds one line, writing one customer.

Blank lines are passed over. Both formats are UTF-8, with or without a byte order mark.
"""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, Final, Literal

import msgspec

from ecomcharge.customers.model import FIELD_NAMES, REQUIRED_NAMES, Customer, IdentifiedBody
from ecomcharge.errors import EcomchargeError, Unusable
from ecomcharge.fields import body_of

Format = Literal["jsonl", "csv"]

LINE_MAXIMUM_BYTES: Final = 64 * 1024
TOO_LONG: Final = f"Line is too long (maximum is {LINE_MAXIMUM_BYTES} bytes)"
NOT_UTF_8: Final = "Line is not valid UTF-8"
NOT_CSV: Final = "Line is not valid CSV"
ODD_CELLS: Final = "Line has {cells} cells where the header has {names}"

COLUMNS: Final = ("id", *FIELD_NAMES)

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_DECODER: Final = msgspec.json.Decoder(IdentifiedBody)


Read = Callable[[bytes], IdentifiedBody]


class UnreadableLine(Exception):
    """A line that holds no customer at all; its text is for the report."""


class CustomerFile:
    """The records of a stream, one after the other. Knows how far it has come."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lines = self._ended_lines()
        self._line = 0
        self.bytes_read = 0

    @property
    def read(self) -> Read:
        """What makes a customer of a record, or raises ``UnreadableLine``. Another process may do it."""
        raise NotImplementedError

    def records(self) -> Iterator[tuple[int, bytes]]:
        """Each record that is not blank, behind the number of the line on which it begins.

        Each is ended, as the last line of a file may not be. An overlong one is cut off.
        """
        for line in self._lines:
            if not line.isspace():
                yield self._line, line

    def _ended_lines(self) -> Iterator[bytes]:
        readline = self._stream.readline
        line = readline(LINE_MAXIMUM_BYTES + 1).removeprefix(_BYTE_ORDER_MARK)
        while line:
            self._line += 1
            self.bytes_read += len(line)
            yield line if line.endswith(b"\n") else self._ended(line)
            line = readline(LINE_MAXIMUM_BYTES + 1)

    def _ended(self, line: bytes) -> bytes:
        rest = line
        while len(rest) > LINE_MAXIMUM_BYTES and not rest.endswith(b"\n"):
            rest = self._stream.readline(LINE_MAXIMUM_BYTES + 1)
            self.bytes_read += len(rest)
        return line + b"\n"


class JsonLines(CustomerFile):
    @property
    def read(self) -> Read:
        return read_json


def read_json(line: bytes) -> IdentifiedBody:
    _refuse_overlong(line)
    try:
        if not line.isascii():
            line.decode()
        return body_of(line, _DECODER)
    except UnicodeDecodeError as error:
        raise UnreadableLine(NOT_UTF_8) from error
    except EcomchargeError as error:
        raise UnreadableLine(error.message) from error


class CsvFile(CustomerFile):
    """Columns are found by the names in the header, unknown ones passed over; an empty cell is an absent field.

    Making one raises ``Unusable`` where the first line does not name what a customer needs.
    """

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream)
        try:
            names = [name.strip().lower() for name in _cells(next(self.records(), (0, b""))[1])]
        except UnreadableLine:
            names = []
        missing = [name for name in REQUIRED_NAMES if name not in names]
        if missing:
            raise Unusable(f"the first line of a CSV file must name its columns; {' and '.join(missing)} not found")
        if len(set(names)) < len(names):
            raise Unusable("the first line of a CSV file must name each column once")
        self._names = [name if name in COLUMNS else "" for name in names]

    @property
    def read(self) -> Read:
        return functools.partial(read_csv, self._names)

    def records(self) -> Iterator[tuple[int, bytes]]:
        """As a rule a line is a record; while quotes are open, the next one belongs to it."""
        for number, record in super().records():
            while record.count(b'"') % 2 and len(record) <= LINE_MAXIMUM_BYTES and (more := next(self._lines, b"")):
                record += more
            yield number, record


def read_csv(names: Sequence[str], record: bytes) -> IdentifiedBody:
    cells = _cells(record)
    if len(cells) != len(names):
        raise UnreadableLine(ODD_CELLS.format(cells=len(cells), names=len(names)))
    body = IdentifiedBody()
    for name, cell in zip(names, cells, strict=True):
        if cell and name:
            setattr(body, name, cell)
    return body


def _cells(record: bytes) -> list[str]:
    _refuse_overlong(record)
    try:
        return next(csv.reader([record.decode()], strict=True), [])
    except UnicodeDecodeError as error:
        raise UnreadableLine(NOT_UTF_8) from error
    except csv.Error as error:
        raise UnreadableLine(NOT_CSV) from error


def _refuse_overlong(line: bytes) -> None:
    if len(line) > LINE_MAXIMUM_BYTES:
        raise UnreadableLine(TOO_LONG)


def open_customers(stream: BinaryIO, format: Format) -> CustomerFile:
    return JsonLines(stream) if format == "jsonl" else CsvFile(stream)


def header_of(format: Format) -> bytes:
    return _csv_line(COLUMNS) if format == "csv" else b""


def line_of(customer: Customer, format: Format) -> bytes:
    if format == "jsonl":
        return msgspec.json.encode(customer) + b"\n"
    return _csv_line(msgspec.structs.astuple(customer))


def _csv_line(cells: Sequence[str | None]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()
