"""The records of a customer file, read as a stream.

Reading keeps at most twice ``LINE_MAXIMUM_BYTES`` in memory. Blank lines are skipped. Files are UTF-8, with or without a
byte order mark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO, Final

from ecomcharge.customers.model import IdentifiedBody

LINE_MAXIMUM_BYTES: Final = 64 * 1024
TOO_LONG: Final = f"Line is too long (maximum is {LINE_MAXIMUM_BYTES} bytes)"
NOT_UTF_8: Final = "Line is not valid UTF-8"

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_PIECE_BYTES: Final = len(_BYTE_ORDER_MARK) + LINE_MAXIMUM_BYTES + len(b"\r\n")  # a line that is longer is too long

Read = Callable[[bytes], IdentifiedBody]


class UnreadableLine(Exception):
    """The line is not a customer at all. The text of the exception is written to the report."""


class CustomerFile:
    """The records of a stream in order. ``heading`` is the header before the records, empty if the format has none."""

    heading = b""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lines = self._ended_lines()
        self._line = 0
        self.bytes_read = 0

    @property
    def read(self) -> Read:
        """The function that parses a record, and raises ``UnreadableLine``. It can be sent to another process."""
        raise NotImplementedError

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
            self.bytes_read += len(line)
            if not line.endswith(b"\n"):
                self._skip_rest_of_line(line)
                line += b"\n"
            yield line.removeprefix(_BYTE_ORDER_MARK) if self._line == 1 else line

    def _skip_rest_of_line(self, piece: bytes) -> None:
        while len(piece) == _PIECE_BYTES and not piece.endswith(b"\n"):
            piece = self._stream.readline(_PIECE_BYTES)
            self.bytes_read += len(piece)


def check_length(line: bytes) -> None:
    """Raise ``UnreadableLine`` if the line is too long."""
    if len(line) > LINE_MAXIMUM_BYTES + len(b"\n"):
        raise UnreadableLine(TOO_LONG)
