"""Errors of fields for programs: a stable code, the rule of the field and a value that it accepts [D].

The documented errors have texts only. A fault has the same text, and what a program needs to correct the request.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

REQUIRED: Final = "required"
INVALID_FORMAT: Final = "invalid_format"
TOO_LONG: Final = "too_long"
UNKNOWN_COUNTRY: Final = "unknown_country"
UNKNOWN_STATE: Final = "unknown_state"
UNKNOWN_CURRENCY: Final = "unknown_currency"
UNKNOWN_LANGUAGE: Final = "unknown_language"
UNKNOWN_INTERVAL_UNIT: Final = "unknown_interval_unit"
UNKNOWN_ID: Final = "unknown_id"
UNKNOWN_CARD_TOKEN: Final = "unknown_card_token"  # noqa: S105 - a code
MISPLACED: Final = "misplaced"
SUBSCRIPTION_OVER: Final = "subscription_over"
GATEWAY_NOT_CHOSEN: Final = "gateway_not_chosen"

# The codes of texts that always have the same one, by the beginning of the text.
_CODES_BY_TEXT: Final[Mapping[str, str]] = {
    "can't be blank": REQUIRED,
    "is too long": TOO_LONG,
    "has too many": "too_many",
    "must have at most ": "too_many",
    "must not contain a card number": "card_number",
    "must have keys ": "invalid_key",
    "must be a string": "not_a_string",
    "must be the one in the path": "different_from_path",
    "must be an array of strings": "not_an_array_of_strings",
    "must be an array": "not_an_array",
    "must be an object": "not_an_object",
    "must be an integer": "not_an_integer",
    "must be true or false": "not_a_boolean",
    "must be greater than ": "too_small",
    "must be less than or equal to ": "too_large",
    "is not a number": "not_a_number",
}
# In alphabetical order, as the documentation lists them.
CODES: Final = tuple(
    sorted(
        {
            *_CODES_BY_TEXT.values(),
            *(INVALID_FORMAT, UNKNOWN_COUNTRY, UNKNOWN_STATE, UNKNOWN_CURRENCY, UNKNOWN_LANGUAGE, UNKNOWN_INTERVAL_UNIT),
            *(UNKNOWN_ID, UNKNOWN_CARD_TOKEN, MISPLACED, SUBSCRIPTION_OVER, GATEWAY_NOT_CHOSEN),
        }
    )
)


class Rule(Protocol):
    """What a field accepts. ``code`` is that of a value that the rule refuses."""

    @property
    def description(self) -> str: ...
    @property
    def example(self) -> Any: ...
    @property
    def code(self) -> str: ...


@dataclass(frozen=True, slots=True)
class ValueRule:
    """The rule of a value that is no text. ``example`` is a JSON value that is accepted."""

    description: str
    example: Any
    code: str = INVALID_FORMAT


@dataclass(frozen=True, slots=True)
class Fault:
    """One error. ``path`` has the names from the body to the field; ``text`` is as in the documented errors.

    ``own_code`` is needed if the text does not begin as the texts of the code do.
    """

    path: tuple[str, ...]
    text: str
    rule: Rule | None = None
    own_code: str = ""

    @property
    def code(self) -> str:
        if self.own_code:
            return self.own_code
        of_text = next((code for text, code in _CODES_BY_TEXT.items() if self.text.startswith(text)), None)
        if of_text is not None:
            return of_text
        return INVALID_FORMAT if self.rule is None else self.rule.code

    @property
    def pointer(self) -> str:
        """The JSON pointer (RFC 6901) of the field."""
        return "".join(f"/{name.replace('~', '~0').replace('/', '~1')}" for name in self.path)


def faults_of(errors: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[Fault]:
    """The faults of errors that have no rules: texts by field, nested like the objects. ``base`` is the object itself."""
    for name, texts in errors.items():
        place = path if name == "base" else (*path, name)
        if isinstance(texts, Mapping):
            yield from faults_of(texts, place)
        else:
            yield from (Fault(place, text) for text in texts)
