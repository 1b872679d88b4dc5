"""Validation of request fields: the rules, the texts of their errors, and their descriptions for OpenAPI.

A ``Field`` is defined once and used by validation, by the OpenAPI document and by the API reference. Sources: [S] the
eComCharge page "Customers", [P] the sister brand's newer page, [D] our choice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import msgspec

from ecomcharge.base.errors import MalformedBody, NotAnObject, ValidationFailed
from ecomcharge.base.faults import INVALID_FORMAT, Fault, Rule, ValueRule
from ecomcharge.base.json_faults import explain_json
from ecomcharge.base.text_forms import fold_lines, half_width

B = TypeVar("B")

BLANK: Final = "can't be blank"  # [S]
INVALID: Final = "is invalid"  # [S][P]
INVALID_IP: Final = "address is invalid"  # [S]
NOT_A_STRING: Final = "must be a string"  # [D]
TOO_LONG: Final = "is too long (maximum is {maximum} characters)"  # [D]
NOT_A_NUMBER: Final = "is not a number"  # [D], as are the rest
NOT_AN_INTEGER: Final = "must be an integer"
TOO_SMALL: Final = "must be greater than {bound}"
TOO_LARGE: Final = "must be less than or equal to {bound}"
NOT_A_BOOLEAN: Final = "must be true or false"
NOT_AN_OBJECT: Final = "must be an object"
NOT_AN_ARRAY: Final = "must be an array"
NOT_STRINGS: Final = "must be an array of strings"
TOO_MANY: Final = "has too many entries (maximum is {maximum})"
BASE: Final = "base"  # errors about an object as a whole: their texts have no field name [P]

MAXIMUM_LENGTH: Final = 255
BOOLEAN: Final = ValueRule("`true` or `false`.", True)
OBJECT: Final = ValueRule("A JSON object.", {})
BOOLEANS: Final = {"true": True, "1": True, "false": False, "0": False}  # in any case

# Unicode white space, without the four ASCII separators (U+001C to U+001F) that are control characters first.
_WHITE_SPACE: Final = (
    " \t\n\r\x0b\x0c\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
_EMPTY_ARRAY: Final = re.compile(rb"[ \t\n\r]*\[[ \t\n\r]*\][ \t\n\r]*\Z")
_REFUSED_CHARACTER: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class ValidationErrors:
    """Collects all validation errors of a body. Errors of nested objects keep their nesting [P]."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: dict[str, list[Fault] | ValidationErrors] = {}

    def add(self, name: str, text: str, rule: Rule | None = None) -> None:
        self.add_fault(name, Fault(() if name == BASE else (name,), text, rule))

    def add_fault(self, name: str, fault: Fault) -> None:
        """``name`` is the field at which the text stands; the path of the fault is the exact place in this object."""
        entries = self._entries.setdefault(name, [])
        assert isinstance(entries, list)
        entries.append(fault)

    def nested(self, name: str) -> ValidationErrors:
        """The errors of the nested object with that name."""
        inner = self._entries.get(name)
        if not isinstance(inner, ValidationErrors):
            inner = self._entries[name] = ValidationErrors()
        return inner

    def has(self, name: str) -> bool:
        return name in self._entries

    def to_dict(self, order: Iterable[str] | None = None) -> dict[str, Any]:
        """The texts by field, nested like the objects; in the given order, or in the order in which they were found."""
        errors_by_field: dict[str, Any] = {}
        for name in self._names(order):
            entries = self._entries[name]
            if isinstance(entries, ValidationErrors):
                inner: Any = entries.to_dict()
            else:
                inner = list(dict.fromkeys(fault.text for fault in entries))
            if inner:
                errors_by_field[name] = inner
        return errors_by_field

    def faults(self, order: Iterable[str] | None = None, path: tuple[str, ...] = ()) -> Iterator[Fault]:
        """The same errors with their rules. ``path`` has the names from the body to this object."""
        for name in self._names(order):
            entries = self._entries[name]
            if isinstance(entries, ValidationErrors):
                yield from entries.faults(path=(*path, name))
            else:
                yield from (replace(fault, path=(*path, *fault.path)) for fault in entries)

    def _names(self, order: Iterable[str] | None) -> list[str]:
        return list(self._entries) if order is None else [name for name in order if name in self._entries]

    def raise_if_any(self, order: Sequence[str] | None = None, *, errors_first: bool = False) -> None:
        """Raise ``ValidationFailed`` if there is any error, with the fields in the given order."""
        if self._entries and (errors := self.to_dict(order)):
            raise ValidationFailed(message_of(errors), errors, tuple(self.faults(order)), errors_first=errors_first)


def message_of(errors: Mapping[str, Any]) -> str:
    """``{"ip": ["can't be blank"]}`` becomes ``Ip can't be blank`` [S]; several are joined by ``. `` [S][P].

    Of nested objects only the innermost name appears, and texts under ``base`` have no name [P].
    """
    return ". ".join(sentences_of(errors))


def sentences_of(errors: Mapping[str, Any]) -> Iterator[str]:
    """Each text after the human form of its field's name."""
    for name, texts in errors.items():
        if isinstance(texts, Mapping):
            yield from sentences_of(texts)
        elif name == BASE:
            yield from texts
        else:
            yield from (f"{human_name(name)} {text}" for text in texts)


def human_name(name: str) -> str:
    """``first_name`` becomes ``First name`` and ``ip`` becomes ``Ip`` [S]."""
    return name.replace("_", " ").capitalize()


@dataclass(frozen=True, slots=True)
class Field:
    """One text field of a request.

    ``accept`` takes the trimmed text and returns the text to store, or ``None`` to refuse it with ``refusal``; ``code`` is the
    code of this refusal. ``blank`` holds the error texts of an absent required field; it is empty for an optional field.
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
    code: str = INVALID_FORMAT

    @property
    def required(self) -> bool:
        return bool(self.blank)

    def read(self, value: object, errors: ValidationErrors) -> str | None:
        """The text to store, or ``None`` if it is absent or invalid; ``errors`` then has its errors."""
        if isinstance(value, str):
            if value.isprintable():  # such a text has no white space but the space, and no refused character
                text = value.strip(" ")
            else:
                text = fold_lines(value.strip(_WHITE_SPACE))
                if len(text) <= self.maximum and _REFUSED_CHARACTER.search(text):
                    errors.add(self.name, self.refusal, self)
                    return None
        elif value is None:
            text = ""  # absent
        elif isinstance(value, int) and not isinstance(value, bool):
            text = str(value) if abs(value) < 10**self.maximum else "9" * (self.maximum + 1)
        else:
            errors.add(self.name, NOT_A_STRING, self)
            return None
        if not text:
            for text in self.blank:
                errors.add(self.name, text, self)
            return None
        if len(text) > self.maximum:
            errors.add(self.name, self.overlong.format(maximum=self.maximum), self)
            return None
        accept = self.accept
        if accept is None:
            return text
        accepted = accept(text)
        if accepted is None:
            errors.add(self.name, self.refusal, self)
        return accepted


class TextFields:
    """Reads the text fields of one object. One for each kind of object."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self._fields = tuple(fields)
        self._maximum = min(field.maximum for field in fields)
        self._checked = [
            (at, field.accept or str, field.required) for at, field in enumerate(fields) if field.accept or field.blank
        ]

    def read(self, values: Sequence[object], errors: ValidationErrors) -> list[Any]:
        """The texts to store, as ``Field.read`` returns them. The first ``values`` are those of the fields, in their order."""
        return self._read_plain(values) or [field.read(value, errors) for field, value in zip(self._fields, values, strict=False)]

    def _read_plain(self, values: Sequence[object]) -> list[Any] | None:
        """The same texts, if all are valid and none has anything to trim or to fold; ``None`` if that is not certain.

        All texts are examined together.
        """
        texts: list[Any] = list(values[: len(self._fields)])
        try:
            together = "|".join(["", *[text for text in texts if text is not None], ""])
        except TypeError:
            return None
        if (
            not together.isprintable()
            or len(together) > self._maximum
            or "||" in together
            or "| " in together
            or " |" in together
        ):
            return None
        for at, accept, required in self._checked:
            given = texts[at]
            texts[at] = accepted = None if given is None else accept(given)
            if accepted is None and (required or given is not None):
                return None
        return texts


def read_integer(
    name: str,
    value: object,
    errors: ValidationErrors,
    *,
    above: int,
    most: int,
    required: bool = True,
    default: int | None = None,
    example: int | None = None,
) -> int | None:
    """A whole number, also as ``5.0`` or ``"5"`` [W]; ``None`` if it is absent or invalid; ``errors`` then has its errors."""
    number = None
    if is_blank(value):
        if default is not None or not required:
            return default
        text = BLANK
    elif (number := _whole(value)) is None:
        text = NOT_AN_INTEGER if isinstance(value, float) else NOT_A_NUMBER
    elif number <= above:
        text = TOO_SMALL.format(bound=above)
    elif number > most:
        text = TOO_LARGE.format(bound=most)
    else:
        return number
    rule = ValueRule(f"A whole number from {above + 1} to {most}.", above + 1 if example is None else example)
    errors.add(name, text, rule)
    return None


def is_blank(value: object) -> bool:
    """Whether a value means that the field is absent: ``null`` or blank text."""
    return value is None or (isinstance(value, str) and not value.strip(_WHITE_SPACE))


def _whole(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str):
        text = half_width(value).strip(_WHITE_SPACE)
        return int(text) if text.isascii() and text.removeprefix("-").isdecimal() and len(text) <= 20 else None
    return value if isinstance(value, int) else None


def read_boolean(name: str, value: object, errors: ValidationErrors, *, default: bool) -> bool:
    """``true`` or ``false``, also 1 or 0, and each as text, because forms send text [D]."""
    if is_blank(value):
        return default
    known = BOOLEANS.get(value.strip(_WHITE_SPACE).lower()) if isinstance(value, str) else None
    if isinstance(value, int | float) and value in (0, 1):
        known = bool(value)
    if known is None:
        errors.add(name, NOT_A_BOOLEAN, BOOLEAN)
        return default
    return known


def read_object(name: str, value: object, errors: ValidationErrors) -> dict[str, Any]:
    """A JSON object; an empty one if it is absent, an empty array (of PHP [W]) or invalid; ``errors`` then has its errors."""
    if value is None or value == "" or value == []:
        return {}
    if not isinstance(value, dict):
        errors.add(name, NOT_AN_OBJECT, OBJECT)
        return {}
    return value


def decode_body(json: bytes, decoder: msgspec.json.Decoder[B]) -> B:
    """Raises ``MalformedBody``, or ``NotAnObject`` for JSON of another kind. An empty array is an empty object [W]."""
    try:
        return decoder.decode(json)
    except msgspec.ValidationError as error:
        if not str(error).startswith("Expected `object`"):
            raise MalformedBody(explain_json(json)) from error
        if _EMPTY_ARRAY.match(json):
            return decoder.decode(b"{}")
        raise NotAnObject from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedBody(explain_json(json)) from error
