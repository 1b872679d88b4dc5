"""Card numbers in texts that are stored: they are refused [D].

A card number has a prefix and a length that issuers use, and a valid check digit (ISO/IEC 7812-1, annex B). Numbers of other
kinds that meet this by chance are kept apart: UUIDs, hashes and IBANs, and lengths that no issuer prints today (Visa cards of
13 and 19 digits), which identifiers, barcodes and telephone numbers have.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any, Final

from ecomcharge.base.faults import Fault, ValueRule
from ecomcharge.base.validation import ValidationErrors

CARD_NUMBER: Final = "must not contain a card number"  # [D]
RULE: Final = ValueRule("A text without the number of a card.", None)

SHORTEST: Final = 14
LONGEST: Final = 19
PLACES_MAXIMUM: Final = 50  # errors of one value
PHONE_SHORTEST: Final = 16  # a telephone number has at most 15 digits (E.164), so a shorter number may be one

# The prefixes and lengths that issuers use.
_ISSUED: Final = re.compile(
    r"4[0-9]{15}"  # Visa
    r"|(?:5[1-5][0-9]{2}|222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}"  # Mastercard
    r"|3[47][0-9]{13}"  # American Express
    r"|(?:30[0-59]|3[689][0-9])[0-9]{11}"  # Diners Club
    r"|(?:6011|64[4-9][0-9]|65[0-9]{2}|352[89]|35[3-8][0-9]|220[0-4]|9112)[0-9]{12}"  # Discover, JCB, Mir, Belkart
    r"|62[0-9]{14}(?:[0-9]{3})?"  # UnionPay
    r"|(?:50|5[6-9]|6[0-9])[0-9]{14}"  # Maestro
    r"|(?:5018|5020|5038|5893|6304|6759|676[1-3])[0-9]{14,15}"  # Maestro
)
_DOUBLED: Final = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)

_BLANKS: Final = "\t\xa0\u2007\u2009\u202f\u3000"
_HYPHENS: Final = "\u2010\u2011\u2012\u2013\u2014\u2212\uff0d"
_TO_PLAIN: Final = {
    **dict.fromkeys(map(ord, _BLANKS), " "),
    **dict.fromkeys(map(ord, _HYPHENS), "-"),
    **{0xFF10 + digit: str(digit) for digit in range(10)},
}
# Digits of one number may be in groups. Each has three digits or more, but for the last one: a list of small numbers is none.
_GROUPS: Final = re.compile(r"[0-9]+(?:[ -]{1,3}[0-9]+)*")
_SEPARATORS: Final = re.compile(r"[ -]+")
_GROUP_SHORTEST: Final = 3
GROUPS_MAXIMUM: Final = 1_000  # of one text: with more, the time would be long, and the text is a table of numbers

_OPAQUE: Final = re.compile(
    r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"  # a UUID
    r"|(?<![0-9A-Za-z])(?=[0-9]*[a-fA-F])[0-9a-fA-F]{20,}(?![0-9A-Za-z])"  # a hash, or another long id
)
_IBAN: Final = re.compile(r"(?<![0-9A-Za-z])[A-Z]{2}[0-9]{2}(?: ?[0-9A-Z]{4}){2,7}(?: ?[0-9A-Z]{1,3})?(?![0-9A-Za-z])")
_CARD_KEY: Final = re.compile(r"card|(?<![a-z])(?:pan|cc)(?![a-z])", re.IGNORECASE)

# For `may_contain`: digits become zeros; what may separate them is deleted, as UTF-8.
_ZEROS: Final = bytes.maketrans(b"123456789", b"000000000")
_DELETED: Final = bytes({*b" -\t", *"".join((_BLANKS, _HYPHENS)).encode()} - {0xEF})
_RUN: Final = b"0" * SHORTEST
_FULL_WIDTH: Final = "\uff10".encode()[:2]
_BACKSLASH: Final = ord("\\")
_ESCAPES: Final = re.compile(rb"\\(?:t|u(?:00[023aA]|2[02]|3000|[fF]{2}[01]))")  # of digits and separators in JSON


def may_contain(json: bytes) -> bool:
    """Whether a text of a JSON document may contain a card number. ``False`` for nearly all, in less than a microsecond."""
    return (
        json.translate(_ZEROS, _DELETED).find(_RUN) >= 0  # `find`, and `in` with an integer: half the time of `in` with bytes
        or (_BACKSLASH in json and _ESCAPES.search(json) is not None)
        or (not json.isascii() and _FULL_WIDTH in json)
    )


def has_card_number(text: str, shortest: int = SHORTEST) -> bool:
    """Whether a text contains a card number of at least ``shortest`` digits, which may be in groups."""
    if len(text) < shortest or not may_contain(text.encode("utf-8", "surrogatepass")):
        return False
    text = _IBAN.sub(_without_iban, _OPAQUE.sub("x", text.translate(_TO_PLAIN)))
    return any(_is_in_groups(found[0], shortest) for found in _GROUPS.finditer(text) if found.end() - found.start() >= shortest)


def _is_in_groups(text: str, shortest: int) -> bool:
    groups = _SEPARATORS.split(text, GROUPS_MAXIMUM)[:GROUPS_MAXIMUM]
    for start in range(len(groups)):
        digits = ""
        for group in groups[start:]:
            digits += group
            if len(digits) > LONGEST:
                break
            if len(digits) >= shortest and is_card_number(digits):
                return True
            if len(group) < _GROUP_SHORTEST:
                break
    return False


def is_card_number(digits: str) -> bool:
    return _ISSUED.fullmatch(digits) is not None and has_valid_check_digit(digits)


def has_valid_check_digit(digits: str) -> bool:
    """The check digit of a card number (ISO/IEC 7812-1, annex B)."""
    values = list(map(int, reversed(digits)))
    return (sum(values[::2]) + sum(_DOUBLED[value] for value in values[1::2])) % 10 == 0


def _without_iban(found: re.Match[str]) -> str:
    """Nothing if the text is an IBAN (ISO 13616), otherwise the text."""
    plain = found[0].replace(" ", "")
    number = int("".join(str(int(character, 36)) for character in plain[4:] + plain[:4]))
    return "x" if number % 97 == 1 else found[0]


def paths_in(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The places of card numbers in a JSON value: in texts, in keys, and in numbers under a key such as ``card`` or ``pan``.

    Other numbers are not checked: order numbers are sent as numbers, and card numbers hardly ever.
    """
    match value:
        case str():
            if has_card_number(value):
                yield path
        case bool() | None:
            return
        case int() | float():
            if any(map(_CARD_KEY.search, path[-2:])) and has_card_number(f"{value:.0f}"):
                yield path
        case dict():
            for key, inner in value.items():
                if has_card_number(key):
                    yield path  # not the key itself: the answer would repeat it
                else:
                    yield from paths_in(inner, (*path, key))
        case list():
            for place, inner in enumerate(value):
                yield from paths_in(inner, (*path, str(place)))


def refuse(name: str, value: object, errors: ValidationErrors, shortest: int = SHORTEST) -> None:
    """Add an error if a text, or a number in place of a text, contains a card number."""
    if isinstance(value, int) and 0 < value < 10**LONGEST:
        value = str(value)
    if isinstance(value, str) and has_card_number(value, shortest):
        errors.add(name, CARD_NUMBER, RULE)


def refuse_in(name: str, value: object, errors: ValidationErrors) -> None:
    """Add an error for each place of a JSON value with a card number, the first ``PLACES_MAXIMUM`` of them."""
    for path in itertools.islice(paths_in(value), PLACES_MAXIMUM):
        errors.add_fault(name, Fault((name, *path), CARD_NUMBER, RULE))
