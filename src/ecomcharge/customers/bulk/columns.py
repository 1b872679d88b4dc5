"""The meaning of the columns of a customer file.

A heading names a field by its name (``First Name`` is ``first_name``), by ``--map``, or because it is known from the exports
of Stripe, Shopify and WooCommerce [D].
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ecomcharge.base.errors import ConfigurationError
from ecomcharge.customers.model import FIELD_NAMES, METADATA

COLUMNS: Final = ("id", *FIELD_NAMES, METADATA)  # of our own export

FULL_NAME: Final = "name"  # the first word becomes first_name, the rest last_name
SECOND_LINE: Final = "address_2"  # joined to address
TARGETS: Final = (*COLUMNS, FULL_NAME, SECOND_LINE)
_PARTS: Final = {FULL_NAME: "first_name and last_name", SECOND_LINE: "a part of address"}

UNNAMED: Final = "(no name)"

# By field, the preferred heading first. The name of the field itself precedes all of them.
_KNOWN_HEADINGS: Final[Mapping[str, Sequence[str]]] = {
    "first_name": ("firstname", "given_name", "billing_first_name"),
    "last_name": ("lastname", "surname", "family_name", "billing_last_name"),
    FULL_NAME: ("full_name", "customer_name", "card_name"),
    "address": (
        "address1",
        "address_1",
        "address_line1",
        "address_line_1",
        "street",
        "street_address",
        "default_address_address1",
        "billing_address_1",
        "card_address_line1",
    ),
    "country": (
        "country_code",
        "country_region",
        "address_country",
        "default_address_country_code",
        "billing_country",
        "card_address_country",
    ),
    "city": ("town", "address_city", "default_address_city", "billing_city", "card_address_city"),
    "zip": (
        "zip_code",
        "zipcode",
        "postal_code",
        "postcode",
        "address_zip",
        "address_postal_code",
        "default_address_zip",
        "billing_postcode",
        "card_address_zip",
    ),
    "state": (
        "province_code",
        "province",
        "region",
        "address_state",
        "default_address_province_code",
        "billing_state",
        "card_address_state",
    ),
    "phone": ("phone_number", "telephone", "billing_phone", "default_address_phone"),
    "email": ("e_mail", "email_address", "user_email", "billing_email", "customer_email"),
    "ip": ("ip_address", "customer_ip_address", "customer_ip", "client_ip"),
    "external_id": ("customer_id",),
}
_CODES: Final = {"country": "country_code", "state": "province_code"}


@dataclass(frozen=True)
class Columns:
    """The columns of a file. ``targets`` has one of ``TARGETS`` for each column, or an empty text for one passed over."""

    headings: Sequence[str]
    targets: tuple[str, ...]

    @property
    def unused(self) -> list[str]:
        """The headings of the columns that are passed over."""
        return [heading or UNNAMED for heading, target in zip(self.headings, self.targets, strict=True) if not target]

    @property
    def renamed(self) -> dict[str, str]:
        """The fields of headings that are not the name of the field."""
        pairs = zip(self.headings, self.targets, strict=True)
        return {heading: _PARTS.get(target, target) for heading, target in pairs if target and heading.lower() not in COLUMNS}

    @property
    def is_plain(self) -> bool:
        """Whether every heading has the meaning that a bare name has, so that the heading alone determines the reading."""
        names = [heading.strip().lower() for heading in self.headings]
        return self.targets == tuple(name if name in COLUMNS else "" for name in names)


def columns_of(headings: Sequence[str], mapping: Mapping[str, str]) -> Columns:
    """Raises ``ConfigurationError`` if two columns have the same target, or a column of ``mapping`` is missing."""
    headings = [heading.strip(' \t\r\n\ufeff"') for heading in headings]
    keys = [_key(heading) for heading in headings]
    mapped = {_key(heading): target for heading, target in mapping.items()}
    if missing := [heading for heading in mapping if _key(heading) not in keys]:
        raise ConfigurationError(f"--map: the file has no column {missing[0]!r}")
    heading_of = {target: key for key, target in mapped.items() if target}
    for target in (each for each in TARGETS if each not in heading_of):
        key = next((each for each in _candidates(target, keys, heading_of) if each in keys and each not in mapped), None)
        if key is not None:
            heading_of[target] = key
    if "first_name" in heading_of or "last_name" in heading_of:
        heading_of = {target: key for target, key in heading_of.items() if target != FULL_NAME or key in mapped}
    target_of = {key: target for target, key in heading_of.items()}
    targets = tuple(target_of.get(key, "") for key in keys)
    twice = [target for target, count in Counter(targets).items() if target and count > 1]
    if twice:
        raise ConfigurationError(f"the first line of a CSV file must name each column once; twice: {', '.join(twice)}")
    return Columns(headings, targets)


def _candidates(target: str, keys: Sequence[str], heading_of: Mapping[str, str]) -> Sequence[str]:
    """The headings that can name the target, the preferred first."""
    if target == SECOND_LINE:  # the one beside the first line
        first = heading_of.get("address", "")
        return (f"{first.removesuffix('1')}2", f"{first}_2", f"{first}_line2", f"{first}_line_2") if first else ()
    names = (target, *_KNOWN_HEADINGS.get(target, ()))
    if target in _CODES and all(code in keys for code in _CODES.values()):
        return (_CODES[target], *names)  # beside codes, an export has the names of countries
    return names


def known_columns(headings: Sequence[str], mapping: Mapping[str, str]) -> int:
    """How many of the headings have a meaning."""
    known = {*TARGETS, *(name for names in _KNOWN_HEADINGS.values() for name in names), *map(_key, mapping)}
    return sum(_key(heading) in known for heading in headings)


def parse_mapping(texts: Sequence[str]) -> dict[str, str]:
    """``First Name=first_name`` for each column; an empty target passes the column over. Raises ``ConfigurationError``."""
    mapping: dict[str, str] = {}
    for text in texts:
        heading, equals, target = text.rpartition("=")
        heading, target = heading.strip(), target.strip().lower()
        if not equals or not heading:
            raise ConfigurationError(f"--map: {text!r} is not COLUMN=FIELD")
        if target and target not in TARGETS:
            raise ConfigurationError(f"--map: there is no field {target!r}; fields: {', '.join(TARGETS)}")
        if _key(heading) in map(_key, mapping):
            raise ConfigurationError(f"--map: the column {heading!r} is given twice")
        if target and target in mapping.values():
            raise ConfigurationError(f"--map: two columns are given for {target}")
        mapping[heading] = target
    return mapping


def _key(heading: str) -> str:
    """The words of a heading: ``E-Mail`` becomes ``e_mail``."""
    return re.sub(r"[\W_]+", "_", heading.casefold()).strip("_") or heading
