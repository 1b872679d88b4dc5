"""The records of a customer file, read as a stream.

Reading keeps at most twice ``LINE_MAXIMUM_BYTES`` and the buffer of the file in memory. Blank lines are skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from ecomcharge.customers.bulk.text_stream import TextStream
from ecomcharge.customers.model import IdentifiedBody

LINE_MAXIMUM_BYTES: Final = 64 * 1024
TOO_LONG: Final = f"Line is too long (maximum is {LINE_MAXIMUM_BYTES} bytes)"
NOT_TEXT: Final = "Line is not valid {encoding}"

UNUSED_MAXIMUM: Final = 100  # names that are listed at the end of an import
_NAME_MAXIMUM: Final = 60  # characters of each

_PIECE_BYTES: Final = LINE_MAXIMUM_BYTES + len(b"\r\n")  # a line that is longer is too long

Read = Callable[[bytes], IdentifiedBody]


class UnreadableLine(Exception):
    """The line is not a customer at all. The text of the exception is written to the report."""


class ReadBody(IdentifiedBody):
    """A body with what its reading found: errors by field, and the names of values that have no field.

    ``name`` and ``address_2`` are parts that ``merge_parts`` puts into the fields.
    """

    name: Any = None
    address_2: Any = None
    errors: dict[str, list[str]] | None = None
    unused: Sequence[str] = ()

    def merge_parts(self) -> None:
        if isinstance(self.name, str) and not self.first_name and not self.last_name:
            self.first_name, _, self.last_name = self.name.strip().partition(" ")
        if isinstance(self.address_2, str) and (second := self.address_2.strip()):
            first = self.address.strip() if isinstance(self.address, str) else ""
            self.address = f"{first}, {second}" if first else second


class CustomerFile:
    """The records of a stream in order.

    ``heading`` is what decides the meaning of the records: the header, if the format has one, and how it is read. Files
    with equal headings and equal records have the same customers.
    """

    heading = b""

    def __init__(self, text: TextStream) -> None:
        self._stream = text.stream
        self._source = text.source
        self._not_text = NOT_TEXT.format(encoding=text.encoding.upper())
        self._lines = self._ended_lines()
        self._line = 0
        self._unused: dict[str, None] = {}

    @property
    def bytes_read(self) -> int:
        return self._source.bytes_read

    @property
    def read(self) -> Read:
        """The function that parses a record, and raises ``UnreadableLine``. It can be sent to another process."""
        raise NotImplementedError

    @property
    def unused(self) -> Sequence[str]:
        """The names of columns or keys that had no field so far, at most ``UNUSED_MAXIMUM``."""
        return list(self._unused)

    @property
    def renamed(self) -> dict[str, str]:
        """The fields of columns that have another name."""
        return {}

    def add_unused(self, names: Iterable[str]) -> None:
        for name in names:
            if len(self._unused) < UNUSED_MAXIMUM:
                self._unused.setdefault(name[:_NAME_MAXIMUM])

    def records(self) -> Iterator[tuple[int, bytes]]:
        """Each record that is not blank, with the number of its first line.

        Every record ends with a line feed, also the last one of a file that ends without. A record that is too long is cut.
        """
        for line in self._lines:
            if not line.isspace():
                yield self._line, line

    def _ended_lines(self) -> Iterator[bytes]:
        while line := self._stream.readline(_PIECE_BYTES):
            self._line += 1
            if not line.endswith(b"\n"):
                self._skip_rest_of_line(line)
                line += b"\n"
            yield line

    def _skip_rest_of_line(self, piece: bytes) -> None:
        while len(piece) == _PIECE_BYTES and not piece.endswith(b"\n"):
            piece = self._stream.readline(_PIECE_BYTES)


def check_length(line: bytes) -> None:
    """Raise ``UnreadableLine`` if the line is too long."""
    if len(line) > LINE_MAXIMUM_BYTES + len(b"\n"):
        raise UnreadableLine(TOO_LONG)
