"""Every body that the decoder refuses gets a message that names one reason."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecomcharge.base.errors import MalformedBody, NotAnObject
from ecomcharge.base.json_faults import LARGEST
from ecomcharge.base.validation import decode_body

ANY: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Any)
A_BODY = json.dumps({"first_name": "Zoë 😀", "x": [1, -2.5e3, {"y": None}], "z": 'a\\"\n'}, ensure_ascii=False, indent=1)


def refused(body: bytes) -> str:
    with pytest.raises(MalformedBody) as raised:
        decode_body(body, ANY)
    return raised.value.message


@given(st.integers(0, len(A_BODY) - 1), st.text(max_size=2))
def test_any_damage_of_a_body_is_explained(place: int, replacement: str) -> None:
    body = (A_BODY[:place] + replacement + A_BODY[place + 1 :]).encode("utf-8", "replace")
    message = "Body is not valid JSON: not at all"
    try:
        decode_body(body, ANY)
    except MalformedBody as error:
        message = error.message
    assert message.startswith(("Body is not valid JSON", "Body is in UTF-"))
    assert message != MalformedBody.message
    assert message.isprintable()


@given(st.integers(1, len(A_BODY) - 1))
def test_a_body_that_is_cut_off_ends_too_early(end: int) -> None:
    message = refused(A_BODY[:end].encode())
    reasons = (
        "it ends too early",
        "a string has no closing quote",
        "a value is expected",
        "a number is malformed",
        "an invalid escape",
    )
    assert any(reason in message for reason in reasons), message
    assert f"line {A_BODY[:end].count(chr(10)) + 1}," in message or "no closing quote" in message or "a value" in message


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"x":' * 100_000, b"[" * 2_000 + b"]" * 2_000])
def test_a_body_that_is_nested_too_deeply_is_explained(body: bytes) -> None:
    assert refused(body) == "Body is not valid JSON: it is nested too deeply"


def test_a_very_large_body_gets_no_reason() -> None:
    assert refused(b" " * LARGEST + b"{]") == "Body is not valid JSON"


def test_only_an_empty_array_is_an_empty_object() -> None:
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(msgspec.defstruct("Empty", [("x", Any, None)]))
    assert decode_body(b" [ \r\n]\t", decoder) == decode_body(b"{}", decoder)
    for body in (b"[1]", b"[[]]", b"[{}]", b"null", b'""'):
        with pytest.raises(NotAnObject):
            decode_body(body, decoder)
