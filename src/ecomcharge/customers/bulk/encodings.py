"""The likely encoding of text that is not UTF-8, for a message."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

# In order of preference: the first of equally good ones wins.
_CANDIDATES: Final = ("cp1252", "cp1251", "cp1250", "cp1253", "koi8-r", "cp866", "mac-roman")

_WORD: Final = re.compile(r"[^\W\d_]+")
_ASCII: Final = re.compile(r"[A-Za-z]")


def likely_encoding(lines: Iterable[bytes]) -> str:
    """The encoding in which the letters outside ASCII form the most plausible words."""
    sample = b"".join(lines)[:65_536]
    return max(_CANDIDATES, key=lambda candidate: _score(sample, candidate))


def _score(sample: bytes, encoding: str) -> float:
    """The share of characters outside ASCII that are part of a plausible word."""
    text = sample.decode(encoding, errors="replace")
    outside = sum(not character.isascii() for character in text)
    plausible = sum(_letters_outside_ascii(word) for word in _WORD.findall(text) if _is_plausible(word))
    return plausible / max(outside, 1)


def _letters_outside_ascii(word: str) -> int:
    return sum(not character.isascii() for character in word)


def _is_plausible(word: str) -> bool:
    """Capitals only at the beginning or everywhere; not Cyrillic or Greek letters beside Latin ones; no run of accents."""
    if not (word.islower() or word.isupper() or (word[0].isupper() and (len(word) == 1 or word[1:].islower()))):
        return False
    is_latin = [character < "\u0370" for character in word]
    if not all(is_latin):
        return not any(is_latin)
    # Words of Latin letters have ASCII letters too; a run of accented letters is another script.
    return len(word) == 1 or _ASCII.search(word) is not None
