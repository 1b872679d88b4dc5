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
_PIECE_BYTES: Final = len(_BYTE_ORDER_MARK) + LINE_MAXIMUM_BYTES + len(b"\r\n")  # what is longer is overlong
_DECODER: Final = msgspec.json.Decoder(IdentifiedBody)


Read = Callable[[bytes], IdentifiedBody]


class UnreadableLine(Exception):
    """A line that holds no customer at all; its text is for the report."""


class CustomerFile:
    """The records of a stream, one after the other. Knows how far it has come.

    ``heading`` is what stands before them and tells what they mean.
    """

    heading = b""

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

        All end with a line feed, also the last one of a file that does not. Of an overlong one only the beginning is told.
        """
        for line in self._lines:
            if not line.isspace():
                yield self._line, line

    def _ended_lines(self) -> Iterator[bytes]:
        while line := self._stream.readline(_PIECE_BYTES):
            self._line += 1
            self.bytes_read += len(line)
            if not line.endswith(b"\n"):
                self._pass_over_the_rest(line)
                line += b"\n"
            yield line.removeprefix(_BYTE_ORDER_MARK) if self._line == 1 else line

    def _pass_over_the_rest(self, piece: bytes) -> None:
        while len(piece) == _PIECE_BYTES and not piece.endswith(b"\n"):
            piece = self._stream.readline(_PIECE_BYTES)
            self.bytes_read += len(piece)


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
        _, self.heading = next(self.records(), (0, b""))
        try:
            names = [name.strip().lower() for name in _cells(self.heading)]
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
    if len(line) > LINE_MAXIMUM_BYTES + len(b"\n"):
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
