"""The options of an import that decide what its records mean."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Final, Literal

from ecomcharge.base.errors import ConfigurationError, ValidationFailed
from ecomcharge.base.ids import CUSTOMER_ID
from ecomcharge.base.postal import state_is_required
from ecomcharge.base.validation import message_of
from ecomcharge.customers.model import MAY_LACK, STATE, CustomerFields, IdentifiedBody, validate_with_id

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
    def accepts(self) -> frozenset[str]:
        """The exceptions that the rules make: names of missing fields, and ``id`` for an id of another system."""
        return self.allow_missing | ({"id"} if self.foreign_ids == "external" else set())

    def validate(self, body: IdentifiedBody) -> tuple[str | None, CustomerFields, Sequence[str]]:
        """The id, if the record has one, the fields, and the exceptions that it needs. Raises ``ValidationFailed``."""
        is_foreign = self.foreign_ids == "external" and _is_foreign(body.id)
        if is_foreign:
            _move_id(body)
        id, fields = validate_with_id(body, self.allow_missing)
        if id is not None or not (is_foreign or self.allow_missing):
            return id, fields, ()
        lacking = [name for name in sorted(self.allow_missing) if _lacks(fields, name)]
        return id, fields, ["id", *lacking] if is_foreign else lacking


AS_THE_API: Final = Rules()

ALL_ACCEPTS: Final = tuple(
    frozenset(names) for count in range(len(MAY_LACK) + 2) for names in itertools.combinations(sorted(MAY_LACK | {"id"}), count)
)


def digest_under(accepts: Set[str], digest: str) -> str:
    """The digest of a checkpoint of an import with such exceptions; without any it is the digest of the file itself."""
    return hashlib.sha256(f"{digest} {' '.join(sorted(accepts))}".encode()).hexdigest() if accepts else digest


def _lacks(fields: CustomerFields, name: str) -> bool:
    return getattr(fields, name) is None and (name != STATE.name or state_is_required(fields.country))


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
