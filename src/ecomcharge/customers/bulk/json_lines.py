"""Customers as JSON: one object per line, or an array of objects.

An array is read as a stream. What is not valid JSON is refused as one record, and reading continues at the next object.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from ecomcharge.base.errors import EcomchargeError
from ecomcharge.base.validation import decode_body
from ecomcharge.customers.bulk.files import (
    LINE_MAXIMUM_BYTES,
    CustomerFile,
    Read,
    ReadBody,
    UnreadableLine,
    check_length,
)
from ecomcharge.customers.bulk.options import AS_IT_IS, ReadingOptions
from ecomcharge.customers.bulk.text_stream import CHUNK_BYTES, TextStream
from ecomcharge.customers.model import Customer, IdentifiedBody

NOT_CLOSED: Final = "The array is not closed: the file is incomplete"


class _KnownKeys(IdentifiedBody, forbid_unknown_fields=True):
    """A body without unknown keys: its decoding is as fast as any other, and the exception shows which bodies have some."""


_DECODER: Final = msgspec.json.Decoder(IdentifiedBody)
_KNOWN_KEYS: Final = msgspec.json.Decoder(_KnownKeys)
_SYNTAX: Final = msgspec.json.Decoder(msgspec.Raw)


class JsonLines(CustomerFile):
    def __init__(self, text: TextStream, options: ReadingOptions = AS_IT_IS) -> None:
        super().__init__(text)
        self._mapping = dict(options.mapping)
        if self._mapping:
            self.heading = msgspec.json.encode(["keys", sorted(self._mapping.items())]) + b"\n"

    @property
    def read(self) -> Read:
        if self._mapping:
            return functools.partial(read_mapped_json, self._mapping, self._not_text)
        return functools.partial(read_json, self._not_text)


class JsonArray(JsonLines):
    """The objects of an array, or of several values one after the other. The number of a record is its place, from 1."""

    def records(self) -> Iterator[tuple[int, bytes]]:
        for number, value in enumerate(_Values(self._stream.read1).all(), 1):
            yield number, value + b"\n"


def is_array(text: TextStream) -> bool:
    """Whether the text is an array, or has objects that take several lines each."""
    start = text.stream.peek(1).lstrip()
    return start.startswith(b"[") or start.partition(b"\n")[0].strip() == b"{"


# Without control characters, so a string ends on its line.
_TEXT: Final = rb'(?>[^"\\\x00-\x1f]*(?>(?:\\.[^"\\\x00-\x1f]*)*))'
_STRING: Final = rb'"%b"' % _TEXT
_PLAIN: Final = rb'[^"{}\[\]]+|' + _STRING
# An object with values that are no arrays or objects, except objects of such values.
_FLAT_OBJECT: Final = re.compile(rb"\{(?>(?:%b|\{(?>(?:%b)*)\})*)\}" % (_PLAIN, _PLAIN))
_TOKEN: Final = re.compile(rb'[{}\[\]]|%b|"' % _STRING)
_BETWEEN: Final = re.compile(rb"[\s,\[\]]*")
_OTHER_VALUE: Final = re.compile(rb'(?:%b|[^\s,\[\]{}"]+)(?=\s*(?:[,\]]|\Z))' % _STRING)
_SIGN: Final = re.compile(rb"[,\[\]{}]")
_NEXT_OBJECT: Final = re.compile(rb"\}\s*,?\s*\{")


class _Values:
    """The values of a stream of JSON. The buffer has at least ``LINE_MAXIMUM_BYTES`` from the position, or all the rest."""

    def __init__(self, read: Any) -> None:
        self._read = read
        self._buffer = b""
        self._position = 0
        self._is_complete = False
        self._open = 0  # arrays

    def all(self) -> Iterator[bytes]:
        while self._find_value():
            yield self._object() if self._buffer[self._position] == ord("{") else self._other_value()
        if self._open > 0:
            yield b"["

    def _find_value(self) -> bool:
        """Move the position to the next value. ``False`` at the end of the stream."""
        while True:
            self._fill()
            found = _BETWEEN.match(self._buffer, self._position)
            assert found is not None
            self._open += found[0].count(b"[") - found[0].count(b"]")
            self._position = found.end()
            if self._position < len(self._buffer):
                self._fill()
                return True
            if self._is_complete:
                return False

    def _fill(self) -> None:
        while not self._is_complete and len(self._buffer) - self._position <= LINE_MAXIMUM_BYTES + 1:
            piece = self._read(CHUNK_BYTES)
            self._is_complete = not piece
            self._buffer = self._buffer[self._position :] + piece
            self._position = 0

    def _other_value(self) -> bytes:
        """A value that is no object, or what is left of a broken one."""
        start, limit = self._position, self._position + LINE_MAXIMUM_BYTES
        if found := _OTHER_VALUE.match(self._buffer, start, limit):
            return self._take(found.end())
        if following := _NEXT_OBJECT.search(self._buffer, start, limit):
            return self._take(following.start() + 1)
        sign = _SIGN.search(self._buffer, start + 1, limit)
        return self._take(sign.start() if sign else min(limit, len(self._buffer)))

    def _object(self) -> bytes:
        start = self._position
        found = _FLAT_OBJECT.match(self._buffer, start)
        end = found.end() if found is not None else self._end_of_object()
        if end is not None and end - start <= LINE_MAXIMUM_BYTES and _is_json(self._buffer[start:end]):
            return self._take(end)
        # Misplaced quotes may have joined several objects to one: the next object begins after the next }, {
        limit = min(end or len(self._buffer), start + LINE_MAXIMUM_BYTES)
        if following := _NEXT_OBJECT.search(self._buffer, start, limit):
            return self._take(following.start() + 1)
        if end is not None:
            return self._take(end)
        return self._skip_object()

    def _end_of_object(self) -> int | None:
        """``None`` if the object does not end within the limit, or a text in it does not end on its line."""
        depth = 0
        for token in _TOKEN.finditer(self._buffer, self._position, self._position + LINE_MAXIMUM_BYTES + 1):
            match token[0]:
                case b"{" | b"[":
                    depth += 1
                case b"}" | b"]":
                    depth -= 1
                    if depth == 0:
                        return token.end()
                case b'"':
                    return None
        return None

    def _skip_object(self) -> bytes:
        """The beginning of an object that is too long or not complete. The position moves to the next object."""
        start = self._take(min(len(self._buffer), self._position + LINE_MAXIMUM_BYTES + 2))
        while (found := _NEXT_OBJECT.search(self._buffer, self._position)) is None:
            self._position = max(self._position, len(self._buffer) - 64)  # the end of the object may be among the last bytes
            if self._is_complete:
                if len(start) > LINE_MAXIMUM_BYTES or start.rstrip().endswith(b"]"):
                    self._open = 0  # the end of the array was skipped too
                self._position = len(self._buffer)
                return start
            self._fill()
        self._position = found.end() - 1
        return start

    def _take(self, end: int) -> bytes:
        value = self._buffer[self._position : end]
        self._position = end
        return value


def _is_json(value: bytes) -> bool:
    try:
        _SYNTAX.decode(value)
    except msgspec.DecodeError:
        return False
    return True


def read_json(not_text: str, line: bytes) -> IdentifiedBody:
    """Raises ``UnreadableLine``."""
    check_length(line)
    try:
        if not line.isascii():
            line.decode()
        return _KNOWN_KEYS.decode(line)
    except UnicodeDecodeError as error:
        raise UnreadableLine(not_text) from error
    except (msgspec.DecodeError, RecursionError):
        return _read_unusual(line)


def _read_unusual(line: bytes) -> IdentifiedBody:
    """A line with unknown keys, or without a body."""
    try:
        body = decode_body(line, _DECODER)
    except EcomchargeError as error:
        raise UnreadableLine(NOT_CLOSED if line == b"[\n" else error.message) from error
    unknown = _object_of(line).keys() - set(IdentifiedBody.__struct_fields__)
    return ReadBody(**msgspec.structs.asdict(body), unused=sorted(unknown))


def _object_of(line: bytes) -> dict[str, Any]:
    """The object of a line that ``read_json`` accepted; it is empty if an empty array stands for it."""
    value = msgspec.json.decode(line)
    return value if isinstance(value, dict) else {}


def read_mapped_json(mapping: Mapping[str, str], not_text: str, line: bytes) -> IdentifiedBody:
    """Like ``read_json``, with the keys of ``mapping`` as other names of fields. Raises ``UnreadableLine``."""
    read_json(not_text, line)
    given = _object_of(line)
    body, unused = ReadBody(), []
    mapped = {key for key, target in mapping.items() if target}
    taken = {mapping[key] for key in mapped & given.keys()}
    for key, value in given.items():
        target = mapping.get(key, key if key in IdentifiedBody.__struct_fields__ and key not in taken else "")
        if target:
            setattr(body, target, value)
        else:
            unused.append(key)
    body.merge_parts()
    body.unused = unused
    return body


def json_line(customer: Customer) -> bytes:
    return msgspec.json.encode(customer) + b"\n"
