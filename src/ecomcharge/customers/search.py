"""The terms by which a customer is found.

A term is the id of the shop, a letter for its kind, and folded text: ``7njane`` is a word of a name in shop 7. So the terms
of different shops and kinds differ, in one index for all shops. A stored customer keeps its terms: an index deletes by them.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from ecomcharge.customers.model import Customer, CustomerFields

NAME: Final = "n"  # a word of the first or last name
EMAIL: Final = "e"
PHONE: Final = "d"  # the digits of the phone number
EXTERNAL_ID: Final = "x"

_NOT_A_DIGIT: Final = re.compile(r"[^0-9]+")
_WORD: Final = re.compile(r"[^\W_]+")


def fold(text: str) -> str:
    """The text without differences of case (Unicode case folding, NFC), and without blanks, which separate terms."""
    if text.isascii():
        folded = text.lower()
        return folded.replace(" ", "\xa0") if " " in folded else folded
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())
    return "\xa0".join(folded.split())


def words_of(name: str) -> list[str]:
    """The folded words of a name, separated by blanks; of ``O'Neil-Smith`` also each part."""
    words = []
    for word in name.split():
        folded = fold(word)
        words.append(folded)
        if not folded.isalnum():
            words += _WORD.findall(folded)
    return words


def digits_of(text: str) -> str:
    """The digits of a phone number: full-width and other decimal digits count as digits."""
    if not text.isascii():
        text = "".join(str(unicodedata.decimal(character, "")) for character in text)
    return _NOT_A_DIGIT.sub("", text)


def terms_of(shop_id: int, customer: Customer | CustomerFields) -> str:
    """The terms of a customer, separated by blanks. Each appears once."""
    terms: dict[str, None] = {}
    for name in (customer.first_name, customer.last_name):
        if name is not None:
            for word in words_of(name):
                terms[f"{shop_id}{NAME}{word}"] = None
    if customer.email is not None:
        terms[f"{shop_id}{EMAIL}{fold(customer.email)}"] = None
    if customer.phone is not None and (digits := digits_of(customer.phone)):
        terms[f"{shop_id}{PHONE}{digits}"] = None
    if customer.external_id is not None:
        terms[f"{shop_id}{EXTERNAL_ID}{fold(customer.external_id)}"] = None
    return " ".join(terms)
