"""Complete and incomplete request bodies get documented responses."""

from __future__ import annotations

import time

import pytest

from support.caller import BODY_LIMIT, GOOD, JOHN, JSON, Caller, assert_is_our_error
from support.wire import chunked, head

NOT_AN_OBJECT = {"message": "Body must be a JSON object"}
MALFORMED = {
    "nothing": b"",
    "white space": b" \r\n\t",
    "a bracket": b"{",
    "half an object": GOOD[:-4],
    "an object and a letter": GOOD + b"x",
    "two objects": GOOD + GOOD,
    "a comma too many": b'{"email":"a@b.co",}',
    "no colon": b'{"email" "a@b.co"}',
    "single quotes": b"{'email':'a@b.co'}",
    "a number for a key": b"{1:2}",
    "a comment": b'{/* */"email":"a@b.co"}',
    "NaN": b'{"email":NaN}',
    "a leading zero": b'{"phone":01}',
    "half a word": b"nul",
    "an unknown escape": b'{"email":"\\x41"}',
    "half an escape": b'{"email":"\\u12"}',
    "an open string": b'{"email":"a@b.co',
    "a bare line end in a string": b'{"email":"a\nb"}',
    "a bare NUL in a string": b'{"first_name":"\0","email":"a@b.co","ip":"127.0.0.1"}',
    "a bare NUL": b"\0",
    "two byte order marks": b"\xef\xbb\xbf" * 2 + GOOD,
    "a byte order mark after a blank": b" \xef\xbb\xbf" + GOOD,
    "UTF-16": GOOD.decode().encode("utf-16"),
    "UTF-32": GOOD.decode().encode("utf-32-be"),
    "Latin-1": '{"first_name":"J\xf6rg","email":"a@b.co","ip":"127.0.0.1"}'.encode("latin-1"),
    "bytes that are never UTF-8": b'{"first_name":"\xff\xfe","email":"a@b.co","ip":"127.0.0.1"}',
    "an overlong NUL": b'{"first_name":"\xc0\x80","email":"a@b.co","ip":"127.0.0.1"}',
    "a surrogate in UTF-8": b'{"first_name":"\xed\xa0\x80","email":"a@b.co","ip":"127.0.0.1"}',
    "bad UTF-8 in a field that is ignored": b'{"x":"\xff","email":"a@b.co","ip":"127.0.0.1"}',
    "an escaped lone surrogate": b'{"first_name":"\\ud800","email":"a@b.co","ip":"127.0.0.1"}',
    "escaped surrogates in the wrong order": b'{"first_name":"\\udc00\\ud800","email":"a@b.co","ip":"127.0.0.1"}',
    "a form": b"email=john%40example.com&ip=127.0.0.1",
    "XML": b"<customer/>",
    "arrays too deep": b'{"x":' + b"[" * 2000 + b"]" * 2000 + b"}",
    "arrays too deep that never end": b'{"x":' + b"[" * 4000,
    "objects too deep": b'{"x":' * 600 + b"{",
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_body_that_is_not_json_gets_400_and_creates_nothing(caller: Caller, body: bytes) -> None:
    answer = caller.create(body)

    assert_is_our_error(answer, 400)
    assert answer.json()["message"].startswith(("Body is not valid JSON", "Body is not valid UTF-8", "Body is in UTF-"))
    assert caller.customers() == 0


@pytest.mark.parametrize("body", [b"[1]", b"[{}]", b"[[]]", b'"text"', b"1", b"1.5", b"true", b"null", b"[" * 900 + b"]" * 900])
def test_json_that_is_not_an_object_gets_422(caller: Caller, body: bytes) -> None:
    answer = caller.create(body)

    assert_is_our_error(answer, 422)
    assert answer.json() == NOT_AN_OBJECT
    assert caller.customers() == 0


def test_an_escaped_nul_is_an_error_of_its_field(caller: Caller) -> None:
    answer = caller.create(b'{"first_name":"J\\u0000","email":"a@b.co","ip":"127.0.0.1"}')

    assert_is_our_error(answer, 422)
    assert answer.json()["errors"] == {"first_name": ["is invalid"]}
    assert caller.customers() == 0


@pytest.mark.parametrize("ignored", [b"1e400", b"-1e400", b"9" * 3000, b"1e-400", b'"\\u0000"', b"[" * 400 + b"]" * 400])
@pytest.mark.parametrize("key", ["", "Idempotency-Key"])
def test_an_unknown_field_may_hold_any_json(caller: Caller, ignored: bytes, key: str) -> None:
    named = [(key, "attempt-1")] if key else []

    answer = caller.create(GOOD[:-1] + b',"unknown":' + ignored + b"}", *named)

    assert (answer.status, answer.body[:4]) == (201, b'{"id')


def test_a_content_length_over_the_limit_gets_413_and_closes_the_connection(caller: Caller) -> None:
    with caller.connect() as wire:
        wire.send(head("POST", "/customers", caller.login, JSON, ("Content-Length", str(BODY_LIMIT + 1))))
        answer = wire.answer()
        assert_is_our_error(answer, 413)
        assert answer.json() == {"message": "Body is too large"}
        assert answer.header("connection") == "close"
        assert wire.ended_within(5)
    assert caller.customers() == 0


def test_a_body_over_the_limit_gets_413(caller: Caller) -> None:
    assert_is_our_error(caller.create(GOOD[:-1] + b" " * BODY_LIMIT + b"}"), 413)
    assert caller.customers() == 0


def test_a_chunked_body_over_the_limit_gets_413_and_closes_the_connection(caller: Caller) -> None:
    with caller.connect() as wire:
        wire.send(head("POST", "/customers", caller.login, JSON, ("Transfer-Encoding", "chunked")))
        wire.send(chunked([GOOD, *[b" " * 1000] * 5]))
        assert_is_our_error(wire.answer(), 413)
        assert wire.ended_within(5)
    assert caller.customers() == 0


def test_a_body_of_exactly_the_limit_is_accepted(caller: Caller) -> None:
    assert caller.create(GOOD + b" " * (BODY_LIMIT - len(GOOD))).status == 201


def test_a_chunked_body_within_the_limit_is_accepted(caller: Caller) -> None:
    answer = caller.ask(
        head("POST", "/customers", caller.login, JSON, ("Transfer-Encoding", "chunked"))
        + chunked([GOOD[:3], GOOD[3:20], GOOD[20:]])
    )

    assert answer.status == 201
    assert answer.json()["email"] == JOHN["email"]


@pytest.mark.parametrize(
    "framing", [("Content-Length", str(len(GOOD))), ("Transfer-Encoding", "chunked")], ids=["announced", "chunked"]
)
@pytest.mark.parametrize("leaving", ["half", "whole connection"])
def test_a_client_that_disconnects_during_its_body_creates_nothing(
    caller: Caller, framing: tuple[str, str], leaving: str
) -> None:
    sent = GOOD[: len(GOOD) // 2]
    if framing[1] == "chunked":
        sent = f"{len(GOOD):x}\r\n".encode() + sent

    with caller.connect() as wire:
        wire.send(head("POST", "/customers", caller.login, JSON, framing) + sent)
        if leaving == "half":
            wire.finish_sending()
            assert wire.ended_within(5)

    assert caller.customers() == 0
    assert caller.create(GOOD).status == 201


def test_a_malformed_chunked_body_creates_nothing(caller: Caller) -> None:
    broken = f"{len(GOOD) - 1:x}\r\n".encode() + GOOD[:-1] + b"\r\nzz\r\n}\r\n0\r\n\r\n"

    answer = caller.ask(head("POST", "/customers", caller.login, JSON, ("Transfer-Encoding", "chunked")) + broken)

    assert answer.status == 400
    assert caller.customers() == 0


@pytest.mark.parametrize(
    ("framing", "sent"),
    [(("Content-Length", str(len(GOOD))), GOOD[:9]), (("Transfer-Encoding", "chunked"), b"9\r\n{")],
    ids=["announced", "chunked"],
)
def test_a_slow_body_gets_408_and_closes_the_connection(caller: Caller, framing: tuple[str, str], sent: bytes) -> None:
    with caller.connect() as wire:
        wire.send(head("POST", "/customers", caller.login, JSON, framing) + sent)
        answer = wire.answer()
        assert_is_our_error(answer, 408)
        assert answer.json() == {"message": "Body did not arrive in time"}
        assert wire.ended_within(5)
    assert caller.customers() == 0


def test_slow_bytes_do_not_extend_the_body_deadline(caller: Caller) -> None:
    with caller.connect(timeout_seconds=0.2) as wire:
        wire.send(head("POST", "/customers", caller.login, JSON, ("Content-Length", str(len(GOOD)))))
        started = time.monotonic()
        for byte in GOOD:
            try:
                wire.send(bytes([byte]))
                answered = wire.read()
            except (TimeoutError, BrokenPipeError):
                continue
            break
        assert answered.startswith(b"HTTP/1.1 408")
        assert time.monotonic() - started < 4
