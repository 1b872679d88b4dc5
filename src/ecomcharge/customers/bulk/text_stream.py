"""The bytes of a customer file as UTF-8 text with line feeds.

A byte order mark decides the encoding, before ``--encoding`` (as in the WHATWG Encoding Standard); without both a file is
UTF-8. Lines may end with CR, LF or CRLF. Files that are not text are refused with one sentence.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from ecomcharge.base.errors import ConfigurationError
from ecomcharge.customers.bulk.encodings import likely_encoding

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CHUNK_BYTES: Final = 1024 * 1024
_START_BYTES: Final = 64 * 1024  # the kind of line endings must be visible within them
_SAMPLE_LINES: Final = 200  # lines that are not UTF-8, from which the likely encoding is derived

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16: the mark of UTF-16 is its beginning
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

_DECOMPRESS: Final = "compressed ({kind}); decompress it first, for example: {command} FILE | ecomcharge customers import - ..."
_NOT_TEXT: Final = (
    (b"\x1f\x8b", _DECOMPRESS.format(kind="gzip", command="gzip -dc")),
    (b"\x28\xb5\x2f\xfd", _DECOMPRESS.format(kind="zstd", command="zstd -dc")),
    (b"\xfd7zXZ\x00", _DECOMPRESS.format(kind="xz", command="xz -dc")),
    (b"BZh", _DECOMPRESS.format(kind="bzip2", command="bzip2 -dc")),
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook; unpack it, or save the sheet as CSV (UTF-8)"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook; save the sheet as CSV (UTF-8)"),
    (b"%PDF-", "a PDF document; customers are imported from CSV or JSON"),
)

# Undecodable bytes become a lone surrogate, which is not valid UTF-8 either: so only their own line is refused.
_TO_SURROGATE: Final = "ecomcharge-to-surrogate"
codecs.register_error(_TO_SURROGATE, lambda error: ("\udcff", cast(UnicodeDecodeError, error).end))


@dataclass
class TextStream:
    """``stream`` has UTF-8 without a mark and lines that end with LF or CRLF. ``source`` counts the bytes of the file."""

    stream: io.BufferedReader
    source: _Source
    encoding: str


class _Source:
    def __init__(self, stream: BinaryIO) -> None:
        self._stream = cast(io.BufferedIOBase, stream)
        self.bytes_read = 0

    def chunks(self) -> Iterator[bytes]:
        """The bytes as they arrive: a pipe gives what it has."""
        while chunk := self._stream.read1(CHUNK_BYTES):
            self.bytes_read += len(chunk)
            yield chunk


class _ChunkReader(io.RawIOBase):
    """A readable stream over chunks."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        target = memoryview(buffer)
        count = min(len(target), len(self._rest))
        target[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def open_text(stream: BinaryIO, encoding: str | None = None) -> TextStream:
    """Raises ``ConfigurationError`` for a file that is not text, or whose encoding must be named by the operator."""
    if encoding is not None:
        _check_encoding(encoding)
    source = _Source(stream)
    start, chunks = _start_of(source.chunks())
    _refuse_other_files(start)
    mark, found = next((each for each in _MARKS if start.startswith(each[0])), (b"", encoding))
    if found is None:
        _refuse_other_encodings(stream, start)
    found = codecs.lookup(found or "utf-8").name
    chunks = _without_prefix(mark, chunks) if found == "utf-8" else _transcoded(chunks, found)
    start, chunks = _start_of(chunks)
    if _has_only_carriage_returns(start):
        chunks = _with_line_feeds(chunks)
    return TextStream(io.BufferedReader(_ChunkReader(chunks), CHUNK_BYTES), source, found)


def _check_encoding(encoding: str) -> None:
    try:
        "".encode(encoding)
        codecs.getincrementaldecoder(encoding)
    except (LookupError, ValueError) as error:
        raise ConfigurationError(
            f"--encoding: {encoding!r} is not a known encoding; examples: utf-8, utf-16-le, cp1251, cp1252"
        ) from error


def _start_of(chunks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The bytes up to the first LF at least, but no more chunks than ``_START_BYTES`` need; and all chunks, these included."""
    start = b""
    while len(start) < _START_BYTES and b"\n" not in start and (chunk := next(chunks, None)) is not None:
        start += chunk
    return start, _preceded(start, chunks)


def _preceded(start: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    yield start
    yield from chunks


def _without_prefix(prefix: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    yield next(chunks, b"").removeprefix(prefix)
    yield from chunks


def _refuse_other_files(start: bytes) -> None:
    for mark, kind in _NOT_TEXT:
        if start.startswith(mark):
            raise ConfigurationError(f"the file is {kind}")
    if start.lstrip().lower().startswith((b"<!doctype html", b"<html", b"<?xml")):
        raise ConfigurationError("the file is an HTML or XML document; customers are imported from CSV or JSON")


def _refuse_other_encodings(stream: BinaryIO, start: bytes) -> None:
    """Refuse a file without a mark that is not UTF-8. Of a pipe only the start is known.

    A file in which most lines with letters outside ASCII are valid UTF-8 is UTF-8 with a few damaged lines: these are
    refused one by one.
    """
    if (wide := _utf_16_without_mark(start)) is not None:
        raise ConfigurationError(f"the file is probably {wide} without a byte order mark; give --encoding {wide}")
    if stream.seekable():
        position = stream.tell()
        stream.seek(position - len(start))
        is_text = _is_utf_8(iter(lambda: stream.read(CHUNK_BYTES), b""))
        stream.seek(position - len(start))
        damage = None if is_text else _damage(_pieces(stream))
        stream.seek(position)
    else:
        damage = _damage(start[: start.rfind(b"\n") + 1].splitlines())  # a character may be cut after the last line
    if damage is not None:
        line, sample = damage
        likely = likely_encoding(sample)
        raise ConfigurationError(
            f"the file is not UTF-8 (line {line}); it is probably {likely}: give --encoding {likely}"
            " (--encoding utf-8 refuses only the lines that are not UTF-8)"
        )


def _pieces(stream: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: stream.readline(_START_BYTES), b"")


def _is_utf_8(chunks: Iterable[bytes]) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for chunk in chunks:
            decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _damage(lines: Iterable[bytes]) -> tuple[int, list[bytes]] | None:
    """The number of the first line of text that is not UTF-8, and a sample of such lines.

    ``None`` if there is none, or if there are at least as many lines with valid UTF-8 outside ASCII. A line that has hardly
    any ASCII is no text of another encoding: a row always has some.
    """
    first, valid, damaged = 0, 0, 0
    sample: list[bytes] = []
    for number, line in enumerate(lines, 1):
        if line.isascii():
            continue
        try:
            line.decode()
            valid += 1
        except UnicodeDecodeError:
            if sum(byte < 0x80 for byte in line.strip()) < len(line) / 4:
                continue
            first, damaged = first or number, damaged + 1
            if len(sample) < _SAMPLE_LINES:
                sample.append(line)
    return (first, sample) if damaged > valid else None


def _utf_16_without_mark(start: bytes) -> str | None:
    even, odd = (start[first:4096:2].count(0) for first in (0, 1))
    quarter = min(len(start), 4096) / 2 / 4
    if odd > quarter and odd > 4 * even:
        return "utf-16-le"
    return "utf-16-be" if even > quarter and even > 4 * odd else None


def _transcoded(chunks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)(_TO_SURROGATE)
    is_first = True
    for chunk in chunks:
        text = decoder.decode(chunk)
        if is_first and text:
            text, is_first = text.removeprefix("\ufeff"), False
        yield text.encode("utf-8", "surrogatepass")
    yield decoder.decode(b"", final=True).encode("utf-8", "surrogatepass")


def _has_only_carriage_returns(start: bytes) -> bool:
    """Whether the lines of a file end with CR. A cell of such a file may contain LF."""
    first = start.find(b"\r")
    return first >= 0 and b"\r\n" not in start and b"\n" not in start[:first]


def _with_line_feeds(chunks: Iterator[bytes]) -> Iterator[bytes]:
    held = b""  # a CR at the end of a chunk, which LF may follow
    for chunk in chunks:
        text = held + chunk
        held = b"\r" if text.endswith(b"\r") else b""
        text = text.removesuffix(held) if held else text
        yield text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    yield b"\n" if held else b""
