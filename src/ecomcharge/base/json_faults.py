"""Explains why a body is not valid JSON in UTF-8: the reason, and its line and column.

It runs after the decoder refused the body, so it costs valid requests nothing.
"""

from __future__ import annotations

import codecs
import json
import re
from typing import Final

LARGEST: Final = 1024 * 1024  # bytes; a larger body gets no reason, because the search would delay other requests
COSTLY_NUMBERS: Final = 100  # with exponents of three digits, in one body
TOO_MANY_EXPONENTS: Final = f"Body has more than {COSTLY_NUMBERS} numbers with an exponent of three digits"
BYTE_ORDER_MARK: Final = codecs.BOM_UTF8

_PREFIX: Final = "Body is not valid JSON"
_WHITE_SPACE: Final = " \t\n\r"
_CONSTANT: Final = re.compile(r"[+-]?(?:NaN|Infinity|undefined|None|True|False)\b")
_STRING_OR_CONSTANT: Final = re.compile(r'"(?:[^"\\]|\\.)*+"|NaN|-?Infinity', re.DOTALL)
# The group is half of a surrogate pair.
_ESCAPE: Final = re.compile(
    r"\\(?:u[Dd][89ABab][0-9A-Fa-f]{2}\\u[Dd][C-Fc-f][0-9A-Fa-f]{2}|(u[Dd][89A-Fa-f][0-9A-Fa-f]{2})|.)", re.DOTALL
)
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_LONG_EXPONENT: Final = re.compile(rb"[0-9.][eE][+-]?[0-9]{3}")
_QUOTES: Final = "'\u2018\u2019\u201c\u201d`"
_CYRILLIC: Final = 0xC0  # the first letter of Windows-1251


def explain_json(body: bytes) -> str:
    """The message about a body that is UTF-8 and that the decoder refused."""
    encoding = encoding_of(body)
    if encoding is not None:
        return _in_encoding(encoding)
    if not body.strip():
        return f"{_PREFIX}: it is empty"
    if len(body) > LARGEST:
        return _PREFIX
    text = body.decode()
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        return _at(text, *_reason(text, error))
    except _ConstantError as error:
        return _at(text, _place_of_constant(text), f"{error} is not a JSON value")
    except RecursionError:
        return f"{_PREFIX}: it is nested too deeply"
    except ValueError:
        return f"{_PREFIX}: a number has too many digits"
    half = next((escape for escape in _ESCAPE.finditer(text) if escape[1]), None)
    if half is not None:
        return _at(text, half.start(), f"{half[0]} is half of a surrogate pair")
    return f"{_PREFIX}: a number is out of range"


def has_costly_numbers(body: bytes) -> bool:
    """Whether a body has so many numbers near the largest or smallest one (1e308, 1e-308) that decoding them takes long.

    The decoder takes 10 microseconds for each of them, 200 times as long as for another number.
    """
    if len(body) < COSTLY_NUMBERS * len("1e300,") or len(_LONG_EXPONENT.findall(body)) <= COSTLY_NUMBERS:
        return False
    return len(_LONG_EXPONENT.findall(_STRING.sub(b'""', body))) > COSTLY_NUMBERS


def explain_encoding(body: bytes, error: UnicodeDecodeError, content_type: str | None) -> str:
    """The message about a body that is not UTF-8. ``content_type`` may name its encoding."""
    encoding = encoding_of(body)
    if encoding is not None:
        return _in_encoding(encoding)
    before = body[: error.start].decode()
    place = f"Body is not valid UTF-8 (line {_line_of(before)}, column {_column_of(before)})"
    charset = _charset_of(content_type)
    if charset is not None:
        return f"{place}, and {charset} is not supported; send it in UTF-8"
    likely = _likely_encoding(body, error.start)
    return (
        f"{place}; it looks like {likely}, which is not supported. Send it in UTF-8" if likely else f"{place}; send it in UTF-8"
    )


def encoding_of(body: bytes) -> str | None:
    """UTF-16 or UTF-32, by the byte order mark or by the zero bytes beside the first character; otherwise ``None``."""
    if body.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "UTF-32"
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    zeros = [byte == 0 for byte in body[:4]]
    if zeros in ([True, True, True, False], [False, True, True, True]):
        return "UTF-32"
    if zeros in ([True, False, True, False], [False, True, False, True]):
        return "UTF-16"
    return None


def _in_encoding(encoding: str) -> str:
    return f"Body is in {encoding}, which is not supported; send it in UTF-8"


def _charset_of(content_type: str | None) -> str | None:
    """The encoding that a Content-Type names, unless it is UTF-8 or unknown."""
    match = re.search(r'charset="?([A-Za-z0-9._-]{1,40})', content_type or "", re.IGNORECASE)
    if match is None:
        return None
    try:
        return None if codecs.lookup(match[1]).name in ("utf-8", "utf-8-sig") else match[1]
    except LookupError:
        return None


def _likely_encoding(body: bytes, place: int) -> str | None:
    """Latin text has single letters above ASCII, Cyrillic text has many in a row."""
    following = body[place + 1 : place + 2]
    if following.isascii():
        return "Windows-1252"
    return "Windows-1251" if following[0] >= _CYRILLIC else None


class _ConstantError(Exception):
    """The text has a constant that Python knows and JSON does not."""


def _refuse_constant(name: str) -> None:
    raise _ConstantError(name)


def _place_of_constant(text: str) -> int:
    return next(match.start() for match in _STRING_OR_CONSTANT.finditer(text) if match[0][0] != '"')


def _reason(text: str, error: json.JSONDecodeError) -> tuple[int, str]:
    """The place of a fault in the text, and its reason."""
    for message, reason in _IN_A_STRING.items():
        if error.msg.startswith(message):
            return error.pos, reason
    place = error.pos
    while place < len(text) and text[place] in _WHITE_SPACE:
        place += 1
    if place >= len(text):
        return len(text), "it ends too early"
    found, before = text[place], text[:place].rstrip(_WHITE_SPACE)
    if before.endswith(",") and found in "}]":
        return len(before) - 1, f"remove the trailing comma before {found}"
    if before.endswith(",") and found == ",":
        return place, "a value is missing between two commas"
    if error.msg == "Extra data":
        return place, "there is text after the end of the JSON value"
    if text.startswith(("//", "/*", "#"), place):
        return place, "comments are not allowed"
    constant = _CONSTANT.match(text, place)
    if constant is not None:
        return place, f"{constant[0]} is not a JSON value"
    if found in _QUOTES:
        return place, 'keys and strings must be in double quotes (")'
    if found in "+-." or (text[max(place - 1, 0) : place].isdigit() and found in "0123456789.Ee"):
        return place, "a number is malformed"
    return place, _EXPECTED.get(error.msg, "a value is expected")


_IN_A_STRING: Final = {  # the beginning of Python's message, and the reason
    "Unterminated string": "a string has no closing quote",
    "Invalid control character": "a string has a control character; write it as an escape such as \\n",
    "Invalid \\escape": "a string has an invalid escape; a backslash is written as \\\\",
    "Invalid \\uXXXX escape": "a string has an invalid escape; \\u is followed by four hexadecimal digits",
}
_EXPECTED: Final = {
    "Expecting property name enclosed in double quotes": 'a key in double quotes (") is expected',
    "Expecting ',' delimiter": "a comma or the closing bracket is expected",
    "Expecting ':' delimiter": "a colon is expected after the key",
}


def _at(text: str, place: int, reason: str) -> str:
    before = text[:place]
    return f"{_PREFIX} (line {_line_of(before)}, column {_column_of(before)}): {reason}"


def _line_of(before: str) -> int:
    return before.count("\n") + before.count("\r") - before.count("\r\n") + 1


def _column_of(before: str) -> int:
    return len(before) - max(before.rfind("\n"), before.rfind("\r"))
