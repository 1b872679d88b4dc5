"""Connections: header limits, timeouts, transfer codings, pipelining and bytes that are not HTTP."""

from __future__ import annotations

import contextlib

import pytest

from support.caller import BODY_LIMIT, GOOD, JSON, Caller, assert_is_our_error
from support.wire import ConnectionEnded, chunked, head, request


def test_slow_headers_close_the_connection(caller: Caller) -> None:
    with caller.connect() as wire:
        wire.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-")
        assert wire.ended_within(5)


def test_a_silent_connection_is_closed(caller: Caller) -> None:
    with caller.connect() as wire:
        assert wire.ended_within(5)


@pytest.mark.parametrize(
    ("version", "hosts", "status"),
    [
        ("1.1", ["a"], 200),
        ("1.1", [], 400),
        ("1.1", ["a", "a"], 400),
        ("1.0", [], 200),
        ("1.0", ["a", "b"], 400),
        ("1.1", ["é"], 400),
    ],
)
def test_a_request_without_exactly_one_host_gets_400(caller: Caller, version: str, hosts: list[str], status: int) -> None:
    lines = [f"GET /healthz HTTP/{version}", *(f"Host: {host}" for host in hosts), "", ""]
    answer = caller.ask("\r\n".join(lines).encode())

    assert answer.status == status
    if status == 400:
        assert answer.json() == {"message": "Host must be sent exactly once"}


def test_too_large_headers_get_431(caller: Caller) -> None:
    assert caller.get("/healthz", ("X-Long", "x" * 9000)).status == 431


def test_too_many_headers_get_431(caller: Caller) -> None:
    assert caller.get("/healthz", *[(f"X-{number}", "x") for number in range(200)]).status == 431


def test_ninety_headers_are_accepted(caller: Caller) -> None:
    assert caller.get("/customers", *[(f"X-{number}", "x") for number in range(90)]).status == 200


def test_expect_100_continue_is_answered(caller: Caller) -> None:
    with caller.connect() as wire:
        expecting = ("Expect", "100-continue")
        wire.send(head("POST", "/customers", caller.login, JSON, expecting, ("Content-Length", str(len(GOOD)))))
        assert wire.answer().status == 100
        wire.send(GOOD)
        assert wire.answer().status == 201


def test_expect_100_continue_with_a_too_large_body_is_refused_before_the_body(caller: Caller) -> None:
    answer = caller.ask(
        head("POST", "/customers", caller.login, JSON, ("Expect", "100-continue"), ("Content-Length", str(BODY_LIMIT + 1)))
    )

    assert_is_our_error(answer, 413)


@pytest.mark.parametrize(
    "lengths", [["2", "3"], ["2, 3"], ["x"], ["-2"], ["+2"], [""], ["0x2"], ["99999999999999999999999"], ["2 2"], ["²"]], ids=str
)
def test_invalid_content_lengths_get_400_and_close_the_connection(caller: Caller, lengths: list[str]) -> None:
    with caller.connect() as wire:
        wire.send(head("POST", "/customers", caller.login, JSON, *[("Content-Length", length) for length in lengths]) + GOOD)
        assert wire.answer().status == 400
        assert wire.ended_within(5)
    assert caller.customers() == 0


def test_a_content_length_of_a_chunked_body_is_ignored_and_the_connection_closes(caller: Caller) -> None:
    """RFC 9112, 6.3: it may be an attempt at request smuggling."""
    with caller.connect() as wire:
        framing = (("Content-Length", "2"), ("Transfer-Encoding", "chunked"))
        wire.send(head("POST", "/customers", caller.login, JSON, *framing) + chunked([GOOD]))
        assert wire.answer().status == 201
        assert wire.ended_within(5)
    assert caller.customers() == 1


@pytest.mark.parametrize("coding", ["gzip", "chunked, gzip", "identity", "xchunked"])
def test_an_unknown_transfer_coding_gets_400_and_creates_nothing(caller: Caller, coding: str) -> None:
    answer = caller.ask(head("POST", "/customers", caller.login, JSON, ("Transfer-Encoding", coding)) + chunked([GOOD]))

    assert answer.status == 400
    assert caller.customers() == 0


@pytest.mark.parametrize(
    "garbage",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"\0" * 100,
        b"GET /healthz\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nname : value\r\n\r\n",
        b"GET /caf\xe9 HTTP/1.1\r\n\r\n",
        b"GET  /healthz  HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\xff" * 20_000,
    ],
    ids=range(11),
)
def test_bytes_that_are_not_http_are_refused_and_the_server_continues(caller: Caller, garbage: bytes) -> None:
    with caller.connect() as wire:
        wire.send(garbage)
        with contextlib.suppress(ConnectionEnded):
            assert 400 <= wire.answer().status < 500
        assert wire.ended_within(5)
    assert caller.get("/healthz").status == 200


def test_one_connection_serves_many_requests_errors_included(caller: Caller) -> None:
    with caller.connect() as wire:
        for raw, status in [
            (request("POST", "/customers", caller.login, JSON, body=GOOD), 201),
            (request("POST", "/customers", caller.login, JSON, body=b"{"), 400),
            (request("POST", "/customers", JSON, body=GOOD), 401),
            (request("POST", "/nope", JSON, body=b"x" * 3000), 404),
            (request("GET", "/healthz", body=GOOD), 200),
            (request("GET", "/customers", caller.login), 200),
        ]:
            wire.send(raw)
            assert wire.answer().status == status


def test_pipelined_requests_are_answered_in_order(caller: Caller) -> None:
    create = request("POST", "/customers", caller.login, JSON, body=GOOD)
    with caller.connect() as wire:
        wire.send(
            create
            + request("GET", "/nope")
            + request("POST", "/customers", JSON, body=GOOD)
            + create
            + request("GET", "/healthz")
        )
        assert [wire.answer().status for _ in range(5)] == [201, 404, 401, 201, 200]
    assert caller.customers() == 2


def test_connection_close_is_honoured(caller: Caller) -> None:
    with caller.connect() as wire:
        wire.send(request("GET", "/healthz", ("Connection", "close")))
        assert wire.answer().status == 200
        assert wire.ended_within(5)


def test_an_http_1_0_request_is_answered_and_the_connection_closes(caller: Caller) -> None:
    with caller.connect() as wire:
        wire.send(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert wire.answer().status == 200
        assert wire.ended_within(5)


def test_no_connection_is_upgraded_to_another_protocol(caller: Caller) -> None:
    websocket = (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="))

    assert caller.get("/customers", ("Connection", "Upgrade"), *websocket).status == 200
    assert caller.get("/customers", ("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c")).status == 200
