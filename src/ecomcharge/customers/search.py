"""The terms by which a customer is found, and those that a search looks for.

A term is the id of the shop, a letter for its kind, and folded text: ``7njane`` is a word of a name in shop 7. So the terms
of different shops and kinds differ, in one index for all shops. A stored customer keeps its terms: an index deletes by them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

from ecomcharge.base.errors import BadParameter
from ecomcharge.base.ids import CUSTOMER_ID
from ecomcharge.customers.model import Customer, CustomerFields
from ecomcharge.storage.term_search import Group, Term

NAME: Final = "n"  # a word of the first or last name
EMAIL: Final = "e"
PHONE: Final = "d"  # the digits of the phone number
EXTERNAL_ID: Final = "x"

TERM_MAXIMUM: Final = 500  # characters without the shop and the kind; PostgreSQL's maximum is 2,046 bytes
TEXT_MAXIMUM: Final = 255  # characters of a search
WORDS_MAXIMUM: Final = 10

_SEPARATOR: Final = re.compile(r"[\x00-\x20\x7f]")
_WITHOUT_OTHERS: Final = {number: None for number in range(128) if not chr(number).isdecimal()}
_WORD: Final = re.compile(r"[^\W_]+")


def fold(text: str) -> str:
    """The text without differences of case (Unicode case folding, NFC).

    A blank separates terms, and a control character is one for the index of SQLite, so each becomes a no-break space.
    """
    folded = text.lower() if text.isascii() else _fold_unicode(text)
    if folded.isprintable() and " " not in folded:
        return folded
    return _SEPARATOR.sub("\xa0", " ".join(folded.split()))


def _fold_unicode(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


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
    if text.isascii():
        return text.translate(_WITHOUT_OTHERS)
    return "".join(str(unicodedata.decimal(character, "")) for character in text)


def terms_of(shop_id: int, customer: Customer | CustomerFields) -> str:
    """The terms of a customer, separated by blanks. Each appears once."""
    shop, terms = str(shop_id), []
    for name in (customer.first_name, customer.last_name):
        if name is None:
            continue
        if name.isascii() and name.isalpha():  # the usual name is one word of at most 255 letters
            terms.append(f"{shop}{NAME}{name.lower()}")
        else:
            terms += [_term(shop, NAME, word) for word in words_of(name)]
    if customer.email is not None:
        terms.append(_term(shop, EMAIL, fold(customer.email)))
    if customer.phone is not None and (digits := digits_of(customer.phone)):
        terms.append(f"{shop}{PHONE}{digits}")
    if customer.external_id is not None:
        terms.append(_term(shop, EXTERNAL_ID, fold(customer.external_id)))
    return " ".join(dict.fromkeys(terms))


def _term(shop_id: int | str, kind: str, folded: str) -> str:
    return f"{shop_id}{kind}{folded[:TERM_MAXIMUM]}"


def check_text(text: str) -> None:
    """Raises ``BadParameter`` if a search cannot look for this text."""
    if len(text) > TEXT_MAXIMUM:
        raise BadParameter(f"Q is too long (maximum is {TEXT_MAXIMUM} characters)")
    words = len(text.split())
    if not words:
        raise BadParameter("Q can't be blank")
    if words > WORDS_MAXIMUM:
        raise BadParameter(f"Q has too many words (maximum is {WORDS_MAXIMUM})")


def id_in(text: str) -> str | None:
    """The id that the whole text is, if it is one."""
    folded = fold(text.strip())
    return folded if CUSTOMER_ID.match(folded) else None


def email_terms(shop_id: int, email: str) -> Group:
    """The term of exactly this address, without regard to case."""
    return [Term(_term(shop_id, EMAIL, fold(email)), is_prefix=False)]


def word_terms(shop_id: int, text: str) -> Sequence[Group]:
    """For each word the beginnings of terms that it finds. A phone number or an external id may also be the whole text."""
    words = text.split()
    whole = _terms_of_word(shop_id, text.strip(), PHONE, EXTERNAL_ID) if len(words) > 1 else []
    groups = []
    for word in words:
        terms = _terms_of_word(shop_id, word, NAME, EMAIL, PHONE, EXTERNAL_ID)
        groups.append(list(dict.fromkeys((*terms, *whole))))
    return groups


def _terms_of_word(shop_id: int, word: str, *kinds: str) -> list[Term]:
    """Beginnings of the terms of these kinds. A phone number has digits, and no letters."""
    terms = []
    # With these kinds, one comparison serves them all: a phone number has digits only, so another word is none.
    kind_at = len(str(shop_id)) if {NAME, EMAIL, EXTERNAL_ID} <= set(kinds) else None
    for kind in kinds:
        if kind != PHONE:
            terms.append(Term(_term(shop_id, kind, fold(word)), any_letter_at=kind_at))
        elif not any(map(str.isalpha, word)) and (digits := digits_of(word)):
            terms.append(Term(_term(shop_id, kind, digits), any_letter_at=kind_at if digits == word else None))
    return terms
