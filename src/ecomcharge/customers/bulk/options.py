"""The options of an import that decide what its records mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from ecomcharge.base.errors import ConfigurationError, ValidationFailed
from ecomcharge.base.ids import CUSTOMER_ID
from ecomcharge.base.validation import message_of
from ecomcharge.customers.model import MAY_LACK, CustomerFields, IdentifiedBody, validate_with_id

ForeignIds = Literal["refuse", "external"]

TWO_IDS: Final = "cannot become the external id, because the line has another one"

_DELIMITERS: Final[Mapping[str, str]] = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "pipe": "|"}


@dataclass(frozen=True)
class Rules:
    """The rules of validation, in addition to those of the API.

    ``foreign_ids``: ``external`` stores an ``id`` of another system as ``external_id``. ``allow_missing``: the fields that
    a record may lack although the API requires them.
    """

    foreign_ids: ForeignIds = "refuse"
    allow_missing: frozenset[str] = frozenset()

    @property
    def signature(self) -> bytes:
        """Different for rules that give different customers; empty for the default."""
        if self == AS_THE_API:
            return b""
        return json.dumps(["rules", self.foreign_ids, sorted(self.allow_missing)]).encode() + b"\n"

    def validate(self, body: IdentifiedBody) -> tuple[str | None, CustomerFields]:
        """The id, if the record has one, and the fields. Raises ``ValidationFailed``."""
        if self.foreign_ids == "external" and _is_foreign(body.id):
            _move_id(body)
        return validate_with_id(body, self.allow_missing)


AS_THE_API: Final = Rules()


def _is_foreign(id: object) -> bool:
    if isinstance(id, bool) or not isinstance(id, str | int):
        return False
    return isinstance(id, int) or (id.strip() != "" and CUSTOMER_ID.match(id.strip()) is None)


def _move_id(body: IdentifiedBody) -> None:
    if body.external_id not in (None, "") and str(body.external_id).strip() != str(body.id).strip():
        errors = {"id": [TWO_IDS]}
        raise ValidationFailed(message_of(errors), errors)
    body.external_id, body.id = body.id, None


@dataclass(frozen=True)
class ReadingOptions:
    """How a file is read.

    ``mapping``: the target of columns (CSV) or keys (JSON), by the name in the file. ``delimiter``: of CSV, ``None`` means
    that the header decides. ``encoding``: ``None`` means UTF-8, or what the byte order mark says.
    """

    delimiter: str | None = None
    encoding: str | None = None
    mapping: Mapping[str, str] = field(default_factory=dict)


AS_IT_IS: Final = ReadingOptions()


def parse_delimiter(text: str | None) -> str | None:
    """One ASCII character, or its name. Raises ``ConfigurationError``."""
    if text is None:
        return None
    delimiter = _DELIMITERS.get(text.lower(), text)
    if not is_delimiter(delimiter):
        raise ConfigurationError(f"--delimiter: {text!r} is not one character, or one of {', '.join(_DELIMITERS)}")
    return delimiter


def is_delimiter(text: str) -> bool:
    return len(text) == 1 and text.isascii() and not text.isalnum() and text not in '"\r\n\0 '


def parse_allow_missing(names: list[str]) -> frozenset[str]:
    """Names, also several in one text, separated by commas. Raises ``ConfigurationError``."""
    given = {name.strip().lower() for text in names for name in text.split(",")} - {""}
    if unknown := sorted(given - MAY_LACK):
        raise ConfigurationError(f"--allow-missing: {', '.join(unknown)} is not one of {', '.join(sorted(MAY_LACK))}")
    return frozenset(given)
