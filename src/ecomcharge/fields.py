"""What a field of a request may hold: the rules, the texts of their errors, and their words for OpenAPI.

A ``Field`` is written once per field and read three times: by validation, by the OpenAPI document and by the
API reference. Sources: [S] the eComCharge page "Customers", [P] the sister brand's newer page, [D] our choice.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import email_validator
import pycountry

from ecomcharge.errors import Invalid

BLANK: Final = "can't be blank"  # [S]
INVALID: Final = "is invalid"  # [S][P]
INVALID_IP: Final = "address is invalid"  # [S]
NOT_A_STRING: Final = "must be a string"  # [D]
TOO_LONG: Final = "is too long (maximum is {maximum} characters)"  # [D]

MAXIMUM_LENGTH: Final = 255

# Unicode white space, without the four ASCII separators (U+001C to U+001F) that are control characters first.
_WHITE_SPACE: Final = (
    " \t\n\r\x0b\x0c\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
_REFUSED_CHARACTER: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

# Sandboxes write to jane@shop.test, so no name is reserved here [D]. The library asks for this list to be
# edited in place: it offers no parameter for it.
email_validator.SPECIAL_USE_DOMAIN_NAMES.clear()

_ATOM: Final = r"[a-zA-Z0-9_!#$%&'*+\-/=?^`{|}~]+"
_LABEL: Final = r"[a-zA-Z0-9](?:[a-zA-Z0-9\-]{0,61}[a-zA-Z0-9])?"
_PLAIN_EMAIL: Final = re.compile(
    rf"(?=.{{3,254}}\Z)(?=[^@]{{1,64}}@){_ATOM}(?:\.{_ATOM})*@(?:{_LABEL}\.)+{_LABEL}(?<=[a-zA-Z])\Z"
)

COUNTRIES: Final = frozenset(country.alpha_2 for country in pycountry.countries)


def _two_letter_subdivisions(country: str) -> frozenset[str]:
    parts = pycountry.subdivisions.get(country_code=country)  # type: ignore[no-untyped-call]
    return frozenset(part.code.partition("-")[2] for part in parts)


# ISO 3166-2 lists the outlying areas under US; the military "states" are the postal service's own.
STATES: Final[Mapping[str, frozenset[str]]] = {
    "US": _two_letter_subdivisions("US") | {"AA", "AE", "AP"},
    "CA": _two_letter_subdivisions("CA"),
}
ZIP_OF_COUNTRY: Final = {"US": re.compile(r"[0-9]{5}(?:-[0-9]{4})?\Z")}


class Faults:
    """Collects what is wrong with a body, so that all of it can be told at once."""

    __slots__ = ("_texts",)

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}

    def add(self, name: str, text: str) -> None:
        self._texts.setdefault(name, []).append(text)

    def about(self, name: str) -> bool:
        return name in self._texts

    def raise_if_any(self, order: Iterable[str]) -> None:
        """Raise ``Invalid`` if there is anything to tell, with the fields in the given order."""
        if self._texts:
            errors = {name: self._texts[name] for name in order if name in self._texts}
            raise Invalid(message_of(errors), errors)


def message_of(errors: Mapping[str, Iterable[str]]) -> str:
    """``{"ip": ["can't be blank"]}`` becomes ``Ip can't be blank`` [S]; several are joined by ``. `` [S][P]."""
    return ". ".join(f"{human_name(name)} {text}" for name, texts in errors.items() for text in texts)


def human_name(name: str) -> str:
    """``first_name`` becomes ``First name`` and ``ip`` becomes ``Ip`` [S]."""
    return name.replace("_", " ").capitalize()


@dataclass(frozen=True, slots=True)
class Field:
    """One text field of a request.

    ``accept`` takes the trimmed text and gives back the text to store, or ``None`` to refuse it with ``refusal``.
    ``blank`` holds the texts told when a required field is absent; it is empty for an optional one.
    """

    name: str
    description: str
    source: str
    example: str | None = None
    maximum: int = MAXIMUM_LENGTH
    blank: tuple[str, ...] = ()
    accept: Callable[[str], str | None] | None = None
    refusal: str = INVALID
    overlong: str = TOO_LONG

    @property
    def required(self) -> bool:
        return bool(self.blank)

    def read(self, value: object, faults: Faults) -> str | None:
        """The text to store, or ``None`` when it is absent or at fault (and then ``faults`` knows)."""
        printable = False
        if value is None:
            text = ""
        elif isinstance(value, str):
            printable = value.isprintable()  # then a space is its only white space, and it holds nothing refused
            text = value.strip(" " if printable else _WHITE_SPACE)
        elif isinstance(value, int) and not isinstance(value, bool):
            text = str(value) if abs(value) < 10**self.maximum else "9" * (self.maximum + 1)
        else:
            faults.add(self.name, NOT_A_STRING)
            return None
        if not text:
            for fault in self.blank:
                faults.add(self.name, fault)
            return None
        if len(text) > self.maximum:
            faults.add(self.name, self.overlong.format(maximum=self.maximum))
            return None
        if not printable and _REFUSED_CHARACTER.search(text):
            faults.add(self.name, self.refusal)
            return None
        if self.accept is None:
            return text
        accepted = self.accept(text)
        if accepted is None:
            faults.add(self.name, self.refusal)
        return accepted


def accept_country(text: str) -> str | None:
    """ISO 3166-1 alpha-2 [S]; lower case is taken and stored in capitals [D]."""
    code = _capitals(text)
    return code if code in COUNTRIES else None


def accept_email(text: str) -> str | None:
    """RFC 5321 and 5322 without quoting and address literals, international addresses included [D].

    Kept exactly as sent. A plain ASCII address is decided by one expression, about fifty times as fast as the
    library and with the same verdict, as a property in the tests shows; two hyphens side by side in the domain
    may be Punycode, which the library decides.
    """
    if _PLAIN_EMAIL.match(text) and "--" not in text:
        return text
    try:
        email_validator.validate_email(
            text, strict=True, check_deliverability=False, allow_quoted_local=False, allow_domain_literal=False
        )
    except email_validator.EmailNotValidError:
        return None
    return text


def accept_ip(text: str) -> str | None:
    """IPv4 or IPv6 [S], without a zone; the canonical text form is what is stored [D].

    The four decimal numbers that ``inet_pton`` takes (no leading zeros) are their own canonical form.
    """
    try:
        socket.inet_pton(socket.AF_INET, text)
    except (OSError, ValueError):
        return _accept_ipv6(text)
    return text


def _accept_ipv6(text: str) -> str | None:
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        return None
    if address.scope_id is not None:
        return None
    return f"::ffff:{address.ipv4_mapped}" if address.ipv4_mapped else str(address)  # RFC 5952, sections 4 and 5


def zip_fits(country: str | None, text: str) -> bool:
    """``NNNNN`` or ``NNNNN-NNNN`` in the US, anything elsewhere [S]."""
    pattern = ZIP_OF_COUNTRY.get(country or "")
    return pattern is None or pattern.match(text) is not None


def state_of(country: str | None, text: str) -> str | None:
    """In the US and Canada one of the country's two-letter codes [S], stored in capitals; elsewhere any text [D].

    ``None`` means that the country has no such state.
    """
    states = STATES.get(country or "")
    if states is None:
        return text
    code = _capitals(text)
    return code if code in states else None


def _capitals(text: str) -> str:
    """Of ASCII letters only: the capitals of ``ß`` are ``SS``, and that is a country."""
    return text.upper() if text.isascii() else text


def state_is_required(country: str | None) -> bool:
    """In the US and Canada [S]."""
    return country in STATES
