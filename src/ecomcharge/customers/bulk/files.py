"""Customers in files: JSON lines, and CSV with a header (RFC 4180).

Reading keeps at most twice ``LINE_MAXIMUM_BYTES`` in memory, writing one customer. Blank lines are passed over. Both
formats are UTF-8, with or without a byte order mark.
"""

from __future__ import annotations

import csv
import functools
import io
import itertools
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import BinaryIO, Final, Literal

import msgspec

from ecomcharge.base.addresses import accept_email, accept_ip
from ecomcharge.base.errors import ConfigurationError, EcomchargeError
from ecomcharge.base.ids import CUSTOMER_ID
from ecomcharge.base.validation import decode_body
from ecomcharge.customers.model import FIELD_NAMES, REQUIRED_NAMES, Customer, IdentifiedBody

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

_QUOTE: Final = ord('"')  # an integer: `in` finds it in bytes about ten times as fast as b'"'

# A row of one line whose quotes all open and close cells. Some whole rows do not match; the csv module decides those.
# Atomic groups and not possessive ones: Python 3.11 before 3.11.5 goes on in the middle of a possessive group that failed.
_is_whole_row: Final = re.compile(
    rb'(?>(?:"[^"]*+",)*)'  # nearly all of a row whose cells are all quoted
    rb'(?>(?:[^"]*+(?<![^,])"[^"]*+(?>(?:""[^"]*+)*)"(?=[,\r\n]))*)[^"]*+'
).fullmatch

# What tells a customer's row from a line of text.
_IDENTIFYING: Final[Mapping[str, Callable[[str], object]]] = {"id": CUSTOMER_ID.match, "email": accept_email, "ip": accept_ip}

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
        return decode_body(line, _DECODER)
    except UnicodeDecodeError as error:
        raise UnreadableLine(NOT_UTF_8) from error
    except EcomchargeError as error:
        raise UnreadableLine(error.message) from error


class CsvFile(CustomerFile):
    """Columns are found by the names in the header, unknown ones passed over; an empty cell is an absent field.

    Making one raises ``ConfigurationError`` where the first line does not name what a customer needs.
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
        """A row is a line, or several where a quoted cell holds line breaks.

        A line whose quotes cannot be read is a record of its own, which ``read`` refuses; the next line begins a new row.
        """
        for line in self._lines:
            if _QUOTE in line and not _is_whole_row(line):
                yield from self._records_from(line)
            elif not line.isspace():
                yield self._line, line

    def _records_from(self, line: bytes) -> Iterator[tuple[int, bytes]]:
        """The records that begin on this line and on those that were read ahead to find where its row ends."""
        ahead = deque([(self._line, line)])
        while ahead:
            number, line = ahead.popleft()
            if _QUOTE in line and not _is_whole_row(line):
                continued = self._continuation(line, ahead)
                line = b"".join([line, *(ahead.popleft()[1] for _ in range(continued))])
            if not line.isspace():
                yield number, line

    def _continuation(self, line: bytes, ahead: deque[tuple[int, bytes]]) -> int:
        """How many of the lines ``ahead`` belong to this one's row. Reads as many of them as it needs.

        None where the row is no valid CSV, does not end within ``LINE_MAXIMUM_BYTES``, or would hold another row.
        """
        row = [line]
        try:
            cells = next(csv.reader(self._decoded(row, ahead), strict=True), [])
        except csv.Error:
            return 0
        return 0 if self._holds_another_row(row, cells) else len(row) - 1

    def _decoded(self, row: list[bytes], ahead: deque[tuple[int, bytes]]) -> Iterator[str]:
        """The line in ``row``, then the lines behind it, which are added to ``row``, for as long as they can belong to it."""
        yield row[0].decode(errors="replace")
        length, closing = len(row[0]), 0
        for nth in itertools.count():
            if nth == len(ahead):
                if (following := next(self._lines, None)) is None:
                    return
                ahead.append((self._line, following))
            _, following = ahead[nth]
            length += len(following)
            # Outside of pairs a quote ends a cell. Rows with more ends than columns would make the search quadratic.
            closing += _QUOTE in following.replace(b'""', b"")
            if length > LINE_MAXIMUM_BYTES + len(b"\n") or (self._names and closing > len(self._names)):
                return
            row.append(following)
            yield following.decode(errors="replace")

    def _holds_another_row(self, row: Sequence[bytes], cells: Sequence[str]) -> bool:
        """Whether a line inside a quoted cell is a customer's row: then the quote that opened the cell was a stray one."""
        cell_of_break = [place for place, cell in enumerate(cells) for _ in range(cell.count("\n"))]
        for nth, (line, place) in enumerate(zip(row[1:], cell_of_break, strict=True), 1):
            is_inside = nth < len(cell_of_break) and cell_of_break[nth] == place
            # On the line that ends the cell, the columns behind it are right anyway.
            columns = self._names if is_inside or len(cells) != len(self._names) else self._names[:place]
            if self._is_a_row(line, columns):
                return True
        return False

    def _is_a_row(self, line: bytes, columns: Sequence[str]) -> bool:
        """Whether it has as many cells as the header, and under one of the ``columns`` a valid id, email or ip."""
        try:
            cells = _cells(line)
        except UnreadableLine:
            return False
        return len(cells) == len(self._names) and any(map(_identifies, columns, cells))


def _identifies(name: str, cell: str) -> bool:
    return name in _IDENTIFYING and bool(_IDENTIFYING[name](cell.strip()))


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
