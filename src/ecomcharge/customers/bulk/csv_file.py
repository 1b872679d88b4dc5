"""Customers as CSV with a header (RFC 4180), with any delimiter. The metadata are JSON text."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import itertools
import operator
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from ecomcharge.base.addresses import accept_email, accept_ip
from ecomcharge.base.errors import ConfigurationError
from ecomcharge.base.ids import CUSTOMER_ID
from ecomcharge.customers.bulk.columns import COLUMNS, FULL_NAME, SECOND_LINE, Columns, columns_of, known_columns
from ecomcharge.customers.bulk.files import (
    LINE_MAXIMUM_BYTES,
    CustomerFile,
    Read,
    ReadBody,
    UnreadableLine,
    check_length,
)
from ecomcharge.customers.bulk.options import AS_IT_IS, ReadingOptions, is_delimiter
from ecomcharge.customers.bulk.text_stream import TextStream
from ecomcharge.customers.model import REQUIRED_NAMES, Customer, IdentifiedBody

_PARTS: Final = (FULL_NAME, SECOND_LINE)
_BODY_FIELDS: Final = (*IdentifiedBody.__struct_fields__, *_PARTS)

NOT_CSV: Final = "Line is not valid CSV"
WRONG_CELL_COUNT: Final = "Line has {cells} cells where the header has {names}"
SPREADSHEET_NUMBER: Final = "was changed to a rounded number by a spreadsheet; format the column as text and export it again"

DELIMITERS: Final = (",", ";", "\t", "|")  # that the header can decide for

_QUOTE: Final = ord('"')  # an integer: `in` finds it in bytes about ten times as fast as b'"'
_BLANK: Final = b" \t\r\n\x0b\x0c"

# The first line of some spreadsheet programs.
_DELIMITER_LINE: Final = re.compile(rb'\s*"?sep=([^\r\n])"?[,;|\s]*\Z', re.IGNORECASE)

# A valid value in one of these columns distinguishes the row of a customer from a line of text.
_IDENTIFYING: Final[Mapping[str, Callable[[str], object]]] = {"id": CUSTOMER_ID.match, "email": accept_email, "ip": accept_ip}


class CsvFile(CustomerFile):
    """The names in the header identify the columns. Columns without a meaning are passed over; an empty cell is absent.

    The constructor raises ``ConfigurationError`` if the first line does not name the required columns, except those of
    ``allow_missing``.
    """

    def __init__(self, text: TextStream, options: ReadingOptions = AS_IT_IS, allow_missing: frozenset[str] = frozenset()) -> None:
        super().__init__(text)
        self._delimiter = self._find_delimiter(options)
        self._is_whole_row = _whole_row(self._delimiter)
        self._blank_rows = _BlankRows(self._delimiter)
        self._targets: tuple[str, ...] = ()
        _, header = next(self.records(), (0, b""))
        self._columns = self._read_header(header, options)
        missing = [name for name in REQUIRED_NAMES if name not in self._columns.targets and name not in allow_missing]
        if missing:
            raise ConfigurationError(_missing(missing, header))
        self._targets = self._columns.targets
        self.add_unused(self._columns.unused)
        self.heading = header + self._signature()

    def _find_delimiter(self, options: ReadingOptions) -> str:
        """The delimiter of the options, of a line ``sep=``, or the one with which the header has the most known names.

        Passes over the line ``sep=``. The header stays the next line.
        """
        declared = None
        line = next(self._lines, b"")
        if found := _DELIMITER_LINE.match(line):
            declared = found[1].decode("latin-1")
            line = next(self._lines, b"")
        while line.isspace():
            line = next(self._lines, b"")
        self._lines = itertools.chain([line] if line else [], self._lines)
        if options.delimiter is not None:
            return options.delimiter
        if declared is not None and is_delimiter(declared):
            return declared

        def fitness(delimiter: str) -> tuple[int, int]:
            headings = next(csv.reader([line.decode(errors="replace")], delimiter=delimiter), [])
            return known_columns(headings, options.mapping), len(headings)

        try:
            return max(DELIMITERS, key=fitness)
        except csv.Error:
            return ","

    def _read_header(self, header: bytes, options: ReadingOptions) -> Columns:
        if not header:
            raise ConfigurationError("the file is empty; the first line of a CSV file must name its columns")
        try:
            return columns_of(cells_of(header, self._delimiter, self._not_text), options.mapping)
        except UnreadableLine:
            return columns_of([], {})

    def _signature(self) -> bytes:
        """Different for headers with the same text that are read differently; empty if the text alone decides."""
        if self._columns.is_plain and self._delimiter == ",":
            return b""
        return msgspec.json.encode(["columns", self._delimiter, self._targets]) + b"\n"

    @property
    def renamed(self) -> dict[str, str]:
        return self._columns.renamed

    @property
    def read(self) -> Read:
        return functools.partial(read_csv, layout_of(self._targets, self._delimiter, self._not_text))

    def records(self) -> Iterator[tuple[int, bytes]]:
        """A row is one line, or several lines if a quoted cell contains line breaks. A row of empty cells is blank.

        A line with misplaced quotes is a record by itself, which ``read`` rejects; the next line begins a new row.
        """
        first_of_blank, is_whole_row = self._blank_rows.first, self._is_whole_row
        for line in self._lines:
            if _QUOTE in line and not is_whole_row(line):
                yield from self._records_from(line)
            elif line[0] not in first_of_blank or not self._blank_rows.has(line):
                yield self._line, line

    def _records_from(self, line: bytes) -> Iterator[tuple[int, bytes]]:
        """The records that begin on this line, and on the lines that were read ahead to find the end of its row."""
        ahead = deque([(self._line, line)])
        while ahead:
            number, line = ahead.popleft()
            if _QUOTE in line and not self._is_whole_row(line):
                continued = self._continuation(line, ahead)
                line = b"".join([line, *(ahead.popleft()[1] for _ in range(continued))])
            if not self._blank_rows.has(line):
                yield number, line

    def _continuation(self, line: bytes, ahead: deque[tuple[int, bytes]]) -> int:
        """The number of lines in ``ahead`` that belong to the row of ``line``. Reads more lines into ``ahead`` if needed.

        0 if the row is not valid CSV, does not end within ``LINE_MAXIMUM_BYTES``, or would contain another row.
        """
        row = [line]
        try:
            cells = next(csv.reader(self._decoded(row, ahead), strict=True, delimiter=self._delimiter), [])
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
            if length > LINE_MAXIMUM_BYTES + len(b"\n") or (self._targets and closing > len(self._targets)):
                return
            row.append(following)
            yield following.decode(errors="replace")

    def _contains_another_row(self, row: Sequence[bytes], cells: Sequence[str]) -> bool:
        """Whether a line inside a quoted cell is the row of a customer. Then the opening quote of the cell was a mistake."""
        cell_of_break = [place for place, cell in enumerate(cells) for _ in range(cell.count("\n"))]
        for nth, (line, place) in enumerate(zip(row[1:], cell_of_break, strict=True), 1):
            is_inside = nth < len(cell_of_break) and cell_of_break[nth] == place
            # On the last line of the cell, the columns after the cell are valid in any case.
            columns = self._targets if is_inside or len(cells) != len(self._targets) else self._targets[:place]
            if self._is_a_row(line, columns):
                return True
        return False

    def _is_a_row(self, line: bytes, columns: Sequence[str]) -> bool:
        """Whether the line has as many cells as the header, and a valid id, email or ip in one of the ``columns``."""
        try:
            cells = cells_of(line, self._delimiter, "")
        except UnreadableLine:
            return False
        return len(cells) == len(self._targets) and any(map(_identifies, columns, cells))


def _whole_row(delimiter: str) -> Callable[[bytes], object]:
    """Matches a row of one line in which every quote opens or closes a cell. The csv module decides about other rows.

    Atomic groups, not possessive ones: Python before 3.11.5 resumes in the middle of a possessive group that failed.
    """
    d = re.escape(delimiter.encode())
    return re.compile(
        rb'(?>(?:"[^"]*+"%b)*)'  # nearly all of a row whose cells are all quoted
        rb'(?>(?:[^"]*+(?<![^%b])"[^"]*+(?>(?:""[^"]*+)*)"(?=[%b\r\n]))*)[^"]*+' % (d, d, d)
    ).fullmatch


class _BlankRows:
    """Recognises rows without text in any cell. ``first`` are the bytes with which such a row can begin."""

    _EMPTY_CELLS: Final = re.compile(rb'(?:"")?(?:,(?:"")?)*').fullmatch

    def __init__(self, delimiter: str) -> None:
        self._delimiter = delimiter.encode()
        self._signs = _BLANK + self._delimiter + b'"'
        self.first = frozenset(self._signs)

    def has(self, line: bytes) -> bool:
        # The byte in the middle spares nearly all rows that begin with a quote or an empty cell the search for another one.
        if line[len(line) // 2] not in self.first or line.strip(self._signs):
            return False
        return self._EMPTY_CELLS(line.replace(self._delimiter, b",").translate(None, _BLANK)) is not None


def _missing(names: Sequence[str], header: bytes) -> str:
    if header.lstrip()[:1] in (b"{", b"["):
        return "the file looks like JSON, not CSV: give --format jsonl"
    missing = f"the first line of a CSV file must name its columns; {' and '.join(names)} not found"
    return f"{missing}: use --map COLUMN={names[0]} for a column with another name, --allow-missing {','.join(names)} without one"


def _identifies(name: str, cell: str) -> bool:
    return name in _IDENTIFYING and bool(_IDENTIFYING[name](cell.strip()))


@dataclass(frozen=True)
class CsvLayout:
    """How the rows of a file are read. ``select`` takes the cells in the order of ``_BODY_FIELDS`` out of a row.

    An empty cell stands behind the cells of the row, for fields without a column. ``not_text`` is the message for a row that
    is not valid in the encoding of the file.
    """

    columns: int
    select: Callable[[Sequence[str]], tuple[Any, ...]]
    has_parts: bool
    delimiter: str
    not_text: str


def layout_of(targets: Sequence[str], delimiter: str, not_text: str) -> CsvLayout:
    places = [targets.index(name) if name in targets else -1 for name in _BODY_FIELDS]
    has_parts = FULL_NAME in targets or SECOND_LINE in targets
    return CsvLayout(len(targets), operator.itemgetter(*places), has_parts, delimiter, not_text)


def read_csv(layout: CsvLayout, record: bytes) -> IdentifiedBody:
    """Parse a row into a body. Raises ``UnreadableLine``."""
    cells = cells_of(record, layout.delimiter, layout.not_text)
    if len(cells) != layout.columns:
        if len(cells) < layout.columns or any(map(str.strip, cells[layout.columns :])):
            raise UnreadableLine(WRONG_CELL_COUNT.format(cells=len(cells), names=layout.columns))
        del cells[layout.columns :]
    cells.append("")
    body = _body_of(layout, cells, record)
    if body.metadata:
        with contextlib.suppress(msgspec.DecodeError, RecursionError):  # what is no JSON object is refused by the validation
            body.metadata = msgspec.json.decode(body.metadata)
    return body


def _body_of(layout: CsvLayout, cells: Sequence[str], record: bytes) -> IdentifiedBody:
    if not layout.has_parts and not _may_need_correction(record, layout.delimiter):
        return IdentifiedBody(*layout.select(cells)[: -len(_PARTS)])
    body = ReadBody(*layout.select(cells))
    _correct(body)
    body.merge_parts()
    return body


def cells_of(record: bytes, delimiter: str, not_text: str) -> list[str]:
    """The cells of a row. Raises ``UnreadableLine``; ``not_text`` is its message for bytes that are not UTF-8."""
    check_length(record)
    try:
        text = record.decode().rstrip("\r\n")
        if _QUOTE not in record:
            return text.split(delimiter)
        if text[0] == text[-1] == '"':
            cells = text[1:-1].split(f'"{delimiter}"')
            if text.count('"') == 2 * len(cells):  # every quote opens or closes a cell, and all cells have them
                return cells
        return next(csv.reader([text], strict=True, delimiter=delimiter), [])
    except UnicodeDecodeError as error:
        raise UnreadableLine(not_text) from error
    except csv.Error as error:
        raise UnreadableLine(NOT_CSV) from error


def _may_need_correction(record: bytes, delimiter: str) -> bool:
    """``False`` for nearly all rows, in a fraction of the time of the correction."""
    return (
        b"'" in record
        or b'="' in record
        or b' "' in record
        or b"E+" in record
        or b"e+" in record
        or (b"\t" in record and delimiter != "\t")
        or b"\x0b" in record
        or b"\x0c" in record
        or record.count(b"\n") > 1
        or record.count(b"\r") > record.endswith(b"\r\n")
        or (delimiter == "\t" and _QUOTE in record)
    )


_BREAK: Final = re.compile(r" *[\t\n\r\x0b\x0c]+ *")
_QUOTED_AFTER_BLANKS: Final = re.compile(r' +"([^"]*)" *')  # the quotes of a cell stand directly at its delimiters
_FORMULA_TEXT: Final = re.compile(r'="((?:[^"]|"")*)"')  # so spreadsheets are prevented from changing a number
# A spreadsheet takes a cell that begins like this for a formula; an apostrophe before it prevents that. A text that begins
# with such an apostrophe itself gets another one, so that the import removes what the export added.
_FORMULA_OR_ESCAPED: Final = re.compile(r"[=+\-@\t\r]|'[=+\-@\t\r']")
_ESCAPED: Final = re.compile(r"'[=+\-@\t\r']")
_NUMBER: Final = re.compile(r"[-+]?\d(?:[.,]\d+)?[Ee]\+\d{2,3}")
_CODE_NAMES: Final = ("phone", "zip", "external_id", "id")  # digits that are no number


def _correct(body: ReadBody) -> None:
    """Undo what spreadsheet programs do to texts, and fold line breaks and tabs inside a text into one space.

    A row with an id of this program is from our own export, whose texts are kept as they are, without the apostrophe that
    the export adds.
    """
    ours = isinstance(body.id, str) and CUSTOMER_ID.match(body.id.strip()) is not None
    for name in _BODY_FIELDS:
        cell = getattr(body, name)
        quoted = _QUOTED_AFTER_BLANKS.fullmatch(cell)
        text = _BREAK.sub(" ", (quoted[1] if quoted else cell).strip())
        if ours:
            text = text[1:] if _ESCAPED.match(text) else text
        else:
            text = _without_protection(name, text)
            if name in _CODE_NAMES and _NUMBER.fullmatch(text):
                body.errors = {**(body.errors or {}), name: [SPREADSHEET_NUMBER]}
                text = ""
        if text != cell:
            setattr(body, name, text)


def _without_protection(name: str, text: str) -> str:
    """``="02139"`` and ``'+37120000000`` are ways to keep a spreadsheet from changing digits."""
    if found := _FORMULA_TEXT.fullmatch(text):
        return found[1].replace('""', '"').strip()
    if name in _CODE_NAMES and text[:1] == "'" and text[1:2] in tuple("+0123456789"):
        return text[1:]
    return text


def csv_header() -> bytes:
    return _csv_line(COLUMNS)


def csv_line(customer: Customer, *, raw: bool = False) -> bytes:
    *texts, metadata = msgspec.structs.astuple(customer)
    needs_apostrophe = (_ESCAPED if raw else _FORMULA_OR_ESCAPED).match
    cells = [f"'{text}" if text and needs_apostrophe(text) else text for text in texts]
    return _csv_line([*cells, None if metadata is None else bytes(metadata).decode()])


def _csv_line(cells: Sequence[str | None]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()
