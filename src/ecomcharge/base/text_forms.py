"""Forms of a text that have one obvious meaning: line breaks in a field of one line, and full-width characters."""

from __future__ import annotations

import re
from typing import Final

# NEL (U+0085) is none of them: in Windows-1252 the same byte is an ellipsis, so its meaning is not obvious.
_LINE_BREAK: Final = re.compile(r"[\n\r\v\f\u2028\u2029]")
_TABS: Final = re.compile(r" *\t[\t ]*")
_FOLDED: Final = re.compile(r"[\t\n\r\v\f\u2028\u2029]")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_TO_ASCII: Final = {0x3000: " ", **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}}


def fold_lines(text: str) -> str:
    """Write the lines of a text in one line: ``, `` between lines, one space for tabs [W].

    A line that ends with a comma gets no second one. ``text`` is trimmed.
    """
    if not _FOLDED.search(text):
        return text
    lines = [line for line in (_TABS.sub(" ", part).strip() for part in _LINE_BREAK.split(text)) if line]
    return ", ".join([line.rstrip(", ") for line in lines[:-1]] + lines[-1:])


def printable(text: str, keep: str = "") -> str:
    """A text without characters that control a terminal or the direction of writing: ESC becomes ``\\x1b``.

    ``keep``: characters that stay, such as line feeds.
    """
    if text.isprintable():
        return text
    return _CONTROL.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def half_width(text: str) -> str:
    """Replace full-width characters, as East Asian keyboards write digits, by their ASCII forms: U+FF11 becomes ``1``."""
    return text if text.isascii() else text.translate(_TO_ASCII)
