"""The forms in which a request may write a value, as JSON Schema: the wire accepts more than one form of most values.

Texts may have blank space around them, numbers and truth values may be text, and blank means absent [W]. The patterns
mean the same in ECMA 262 and in Python.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from ecomcharge.base.addresses import PORT_MAXIMUM
from ecomcharge.base.validation import MAXIMUM_LENGTH, Field

Json = dict[str, Any]

# Blank space around a text is trimmed. Inside it, line breaks and tabs are folded, and control characters are refused.
_SPACE: Final = r"\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
AROUND: Final = rf"[\t-\r \x85\xa0{_SPACE}]*"
_EDGE: Final = rf"[^\x00-\x20\x7f-\xa0{_SPACE}]"
_INNER: Final = r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]"
_FOLDED: Final = r"[^\x00-\x08\x0e-\x1f\x7f-\x9f]"  # with line breaks and tabs

BLANK: Final = {"type": "string", "pattern": f"^{AROUND}$", "title": "blank", "description": "The same as absent."}
NULL: Final = {"type": "null", "description": "The same as absent."}
EMPTY: Final = {"const": "", "title": "empty", "description": "The same as absent."}
EMPTY_ARRAY: Final = {
    "type": "array",
    "items": {},
    "maxItems": 0,
    "title": "empty array",
    "description": "An empty object, as PHP writes it.",
}
ABSENT: Final = {"enum": ["", None], "description": "Absent."}


def ref(name: str, kind: str = "schemas") -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


def matching(pattern: re.Pattern[str], **rules: Any) -> Json:
    """A string that one of the program's own patterns matches as a whole."""
    return {"type": "string", "pattern": f"^{pattern.pattern.removesuffix(chr(92) + 'Z')}$", **rules}


def trimmed(pattern: str, **rules: Any) -> Json:
    """A string that the pattern matches, with blank space around it or without."""
    return {"type": "string", "pattern": f"^{AROUND}{pattern}{AROUND}$", **rules}


def of_field(field: Field, *forms: Json, **schema: Any) -> Json:
    """A field's own description and example, and the forms that it accepts."""
    examples = {} if field.example is None else {"examples": [field.example]}
    choices = {"anyOf": [*forms, *_absent(field.required)]} if forms else {}
    return {"description": field.description, **examples, **choices, **schema}


def text(maximum: int = MAXIMUM_LENGTH) -> Json:
    description = (
        f"At most {maximum} characters, none of them a control character; blank is the same as absent. Line breaks are stored "
        "as a comma and a space, tabs as a space."
    )
    return trimmed(f"(?:{_inside(maximum)})?", description=description)


def text_field(field: Field) -> Json:
    """Text, or a whole number in its place."""
    if field.required:
        return of_field(field, trimmed(_inside(field.maximum)), {"type": "integer"})
    if field.maximum == MAXIMUM_LENGTH:
        return of_field(field, anyOf=[ref("Text"), {"type": "integer"}, NULL])
    number: Json = {"type": "integer"}
    if field.maximum < MAXIMUM_LENGTH:  # a larger limit is no number for most readers of the schema
        most = 10**field.maximum
        number |= {"exclusiveMinimum": -(most // 10), "exclusiveMaximum": most}
    return of_field(field, anyOf=[text(field.maximum), number, NULL])


def web_address(field: Field, other_scheme: str | None = None) -> Json:
    """``other_scheme`` is a regular expression of the schemes that are accepted beside ``http`` and ``https``."""
    description = f"An absolute address with `http` or `https` and a host, of {field.maximum} characters at most."
    rest = rf"://[^\x00-\x20\x7f-\xa0{_SPACE}/?#][^\x00-\x20\x7f-\xa0{_SPACE}]*"
    forms = [trimmed(f"[Hh][Tt][Tt][Pp][Ss]?{rest}", description=description, maxLength=field.maximum)]
    if other_scheme is not None:
        description = "The same with a scheme of an app. Schemes that browsers and operating systems use themselves are refused."
        forms.append(trimmed(f"{other_scheme}{rest}", description=description, maxLength=field.maximum))
    return of_field(field, *forms)


def choice(field: Field, codes: str, pattern: str) -> Json:
    """One of some codes. The schema ``codes`` lists them as they are stored, ``pattern`` matches them as they are accepted."""
    return of_field(field, ref(codes), trimmed(f"(?:{pattern})", title="as text with blank space"))


def any_case(codes: Iterable[str]) -> str:
    """Two-letter codes in capitals and small letters: ``["CA", "CO"]`` becomes ``[Cc][AOao]``."""
    seconds: dict[str, str] = {}
    for code in sorted(codes):
        seconds[code[0]] = seconds.get(code[0], "") + code[1]
    return "|".join(f"[{first}{first.lower()}][{rest}{rest.lower()}]" for first, rest in seconds.items())


def whole_number(description: str, *, above: int, most: int, example: int | None = None, required: bool = True) -> Json:
    number = {"type": "integer", "minimum": above + 1, "maximum": most}
    examples = {} if example is None else {"examples": [example]}
    return {"description": description, **examples, "anyOf": [number, decimal(above, most), *_absent(required)]}


def decimal(above: int, most: int) -> Json:
    """A whole number as decimal text of at most 20 digits."""
    zero = "|-?0" if above < 0 else ""
    return trimmed(f"0{{0,{20 - len(str(most))}}}(?:{decimal_up_to(most)}{zero})", title="as text")


def decimal_up_to(most: int) -> str:
    """Numbers from 1 on, without zeros before them: ``12`` becomes ``12|[1-9]|1[0-1]``."""
    digits = str(most)
    forms = [digits]
    if len(digits) > 1:
        forms.append(f"[1-9][0-9]{{0,{len(digits) - 2}}}")
    for place, digit in enumerate(digits):
        least = 0 if place else 1
        if int(digit) > least:
            forms.append(f"{digits[:place]}[{least}-{int(digit) - 1}][0-9]{{{len(digits) - place - 1}}}")
    return "|".join(forms)


def boolean(description: str, *, default: bool) -> Json:
    as_text = trimmed("(?:[Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee]|[01])", title="as text")
    as_number = {"enum": [0, 1], "title": "as a number"}
    forms = [{"type": "boolean"}, as_number, as_text, BLANK, NULL]
    return {"description": f"{description} `{str(default).lower()}` unless given.", "anyOf": forms}


def ip_addresses() -> list[Json]:
    """An IP address alone, or at the beginning of a proxy's list, with or without a port."""
    octet, group = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])", "[0-9A-Fa-f]{1,4}"
    short = [f"{':'.join([group] * before)}::(?:{group}(?::{group}){{0,{6 - before}}})?" for before in range(7)]
    ipv4, ipv6 = rf"{octet}(?:\.{octet}){{3}}", "|".join([f"{group}(?::{group}){{7}}", f"(?:{group}:){{7}}:", *short])
    port = f"(?::(?:{decimal_up_to(PORT_MAXIMUM)}))?"
    first = trimmed(
        rf"(?:{ipv4}{port}|\[(?:{ipv6})\]{port}|(?:{ipv6}))(?: *,{_INNER}*)?",
        maxLength=MAXIMUM_LENGTH,
        title="of a proxy's list",
        description="The first address of a list, without port and brackets, is stored.",
    )
    return [{"type": "string", "format": "ipv4"}, {"type": "string", "format": "ipv6"}, first]


def when(name: str, accepted: Json, **then: Any) -> Json:
    """``then`` holds if the property is given and accepted. Other properties are free in both: some linters want that written."""
    condition = {"required": [name], "properties": {name: accepted}, "unevaluatedProperties": True}
    return {"if": condition, "then": {**then, "unevaluatedProperties": True}}


def _inside(maximum: int) -> str:
    """A trimmed text. A line break may count twice, so the second form is half as long."""
    return f"{_EDGE}(?:(?:{_INNER}{{0,{maximum - 2}}}|{_FOLDED}{{0,{(maximum - 2) // 2}}}){_EDGE})?"


def _absent(required: bool) -> list[Json]:
    return [] if required else [BLANK, NULL]
