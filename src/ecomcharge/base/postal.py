"""Countries, states and postal codes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from ecomcharge.base import iso_codes

COUNTRIES: Final = iso_codes.COUNTRIES | {"XK"}  # Kosovo has no code of ISO 3166-1; the EU, the CLDR and shops use this one

STATES: Final[Mapping[str, frozenset[str]]] = {
    # Codes of the postal service, which are not in ISO 3166-2: of the military, and of states that use US ZIP codes
    "US": iso_codes.STATES_OF_US | {"AA", "AE", "AP", "FM", "MH", "PW"},
    "CA": iso_codes.STATES_OF_CANADA,
}
ZIP_OF_COUNTRY: Final = {"US": re.compile(r"[0-9]{5}(?:-[0-9]{4})?\Z")}


def accept_country(text: str) -> str | None:
    """ISO 3166-1 alpha-2 [S], or XK; lower case is accepted and stored in upper case [D]."""
    code = text if text in COUNTRIES else _capitals(text)
    return code if code in COUNTRIES else None


def zip_fits(country: str | None, text: str) -> bool:
    """``NNNNN`` or ``NNNNN-NNNN`` in the US, anything elsewhere [S]."""
    pattern = ZIP_OF_COUNTRY.get(country or "")
    return pattern is None or pattern.match(text) is not None


def state_of(country: str | None, text: str) -> str | None:
    """The state to store: in the US and Canada a two-letter code of the country [S] in upper case, elsewhere any text [D].

    ``None`` means that the country has no such state.
    """
    states = STATES.get(country or "")
    if states is None:
        return text
    code = text if text in states else _capitals(text)
    return code if code in states else None


def _capitals(text: str) -> str:
    """Upper case of ASCII letters only: the upper case of ``ß`` is ``SS``, the code of a country."""
    return text.upper() if text.isascii() else text


def state_is_required(country: str | None) -> bool:
    """Whether a customer of the country needs a state: in the US and Canada [S]."""
    return country in STATES
