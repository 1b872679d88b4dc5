"""The doors: whatever a client sends, it gets a documented answer and the server lives on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from conftest import ENVIRONMENT, MASTER_KEY, add_shop, with_database
from ecomcharge.base.settings import Settings
from ecomcharge.customers import store
from ecomcharge.customers.model import Customer
from ecomcharge.runtime.composition import App
from ecomcharge.shops.keys import MasterKey
from ecomcharge.shops.model import Credentials
from ecomcharge.storage.database import Database, Transaction
from support.process import ServerProcess
from support.waiting import eventually
from support.wire import Answer, ConnectionEnded, Wire, basic, chunked, head, request

T = TypeVar("T")

BODY_LIMIT = 4096
STALL_SECONDS = 2
MANY = 3000
LIST_BYTES = MANY * 11 * 255 * 4  # eleven long fields of four-byte characters

JSON = ("Content-Type", "application/json")
JOHN = {"email": "john@example.com", "ip": "127.0.0.1"}
GOOD = json.dumps(JOHN).encode()
NOT_JSON = {"message": "Body is not valid JSON"}
NOT_AN_OBJECT = {"message": "Body must be a JSON object"}
CHALLENGE = 'Basic realm="ecomcharge"'


class Caller:
    """One shop on the server with tight limits, and requests made by hand."""

    def __init__(self, process: ServerProcess, credentials: Credentials) -> None:
        self.process = process
        self.credentials = credentials
        self.login = ("Authorization", basic(credentials.shop_id, credentials.secret_key))

    def connect(self, **options: Any) -> Wire:
        return Wire(self.process.port, **options)

    def ask(self, raw: bytes) -> Answer:
        with self.connect() as wire:
            wire.send(raw)
            return wire.answer(to_head=raw.startswith(b"HEAD"))

    def get(self, target: str, *headers: tuple[str, str | bytes]) -> Answer:
        return self.ask(request("GET", target, self.login, *headers))

    def create(self, body: bytes, *headers: tuple[str, str | bytes]) -> Answer:
        return self.ask(request("POST", "/customers", self.login, JSON, *headers, body=body))

    def customers(self) -> int:
        return len(self.get("/customers").json())


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with tight limits and one worker."""
    folder = tmp_path_factory.mktemp("narrow")
    options = {
        "--max-body-bytes": BODY_LIMIT,
        "--max-header-bytes": 8192,
        "--body-timeout-seconds": 1,
        "--header-timeout-seconds": 1,
        "--stall-timeout-seconds": STALL_SECONDS,
        "--failed-logins-per-minute": 0,
    }
    words = [str(word) for option in options.items() for word in option]
    with ServerProcess(f"sqlite:///{folder}/test.db", folder, *words, environment=ENVIRONMENT) as process:
        yield process


@pytest.fixture(scope="module")
def new_caller(narrow: ServerProcess, master_key: MasterKey) -> Callable[[], Caller]:
    return lambda: Caller(narrow, add_shop(narrow.database, master_key))


@pytest.fixture
def caller(new_caller: Callable[[], Caller]) -> Caller:
    return new_caller()


@pytest.fixture(scope="module")
def fuzzed(new_caller: Callable[[], Caller]) -> Caller:
    return new_caller()


@pytest.fixture(scope="module")
def crowd(new_caller: Callable[[], Caller]) -> Caller:
    """A shop with so many customers, and such long ones, that no socket buffer holds their list."""
    caller = new_caller()
    fields = ["\N{SLIGHTLY SMILING FACE}" * 255] * 11

    async def work(database: Database) -> None:
        async def unit(tx: Transaction) -> None:
            for number in range(MANY):
                customer = Customer(f"cst_{number:016x}", *fields)
                await store.insert(tx, caller.credentials.shop_id, customer)

        await database.write(unit)

    with_database(caller.process.database, work)
    return caller


def assert_is_our_error(answer: Answer, status: int) -> None:
    assert answer.status == status
    assert answer.header("content-type") == "application/json; charset=utf-8"
    assert answer.header("x-request-id")
    assert isinstance(answer.json(), dict)
    assert answer.json()["message"]


# Bodies


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
    "a byte order mark": b"\xef\xbb\xbf" + GOOD,
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
def test_a_body_that_is_not_json_answers_400_and_creates_nothing(caller: Caller, body: bytes) -> None:
    answer = caller.create(body)

    assert_is_our_error(answer, 400)
    assert answer.json() == NOT_JSON
    assert caller.customers() == 0


@pytest.mark.parametrize("body", [b"[]", b"[{}]", b'"text"', b"1", b"1.5", b"true", b"null", b"[" * 900 + b"]" * 900])
def test_json_that_is_no_object_answers_422(caller: Caller, body: bytes) -> None:
    answer = caller.create(body)

    assert_is_our_error(answer, 422)
    assert answer.json() == NOT_AN_OBJECT
    assert caller.customers() == 0


def test_an_escaped_nul_is_a_fault_of_its_field(caller: Caller) -> None:
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


# Sizes and times of bodies


def test_an_announced_body_over_the_limit_answers_413_and_closes(caller: Caller) -> None:
    with caller.connect() as wire:
        wire.send(head("POST", "/customers", caller.login, JSON, ("Content-Length", str(BODY_LIMIT + 1))))
        answer = wire.answer()
        assert_is_our_error(answer, 413)
        assert answer.json() == {"message": "Body is too large"}
        assert answer.header("connection") == "close"
        assert wire.ended_within(5)
    assert caller.customers() == 0


def test_a_sent_body_over_the_limit_answers_413(caller: Caller) -> None:
    assert_is_our_error(caller.create(GOOD[:-1] + b" " * BODY_LIMIT + b"}"), 413)
    assert caller.customers() == 0


def test_a_chunked_body_over_the_limit_answers_413_and_closes(caller: Caller) -> None:
    with caller.connect() as wire:
        wire.send(head("POST", "/customers", caller.login, JSON, ("Transfer-Encoding", "chunked")))
        wire.send(chunked([GOOD, *[b" " * 1000] * 5]))
        assert_is_our_error(wire.answer(), 413)
        assert wire.ended_within(5)
    assert caller.customers() == 0


def test_a_body_of_exactly_the_limit_is_taken(caller: Caller) -> None:
    assert caller.create(GOOD + b" " * (BODY_LIMIT - len(GOOD))).status == 201


def test_a_chunked_body_within_the_limit_is_taken(caller: Caller) -> None:
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
def test_a_client_that_leaves_halfway_creates_nothing(caller: Caller, framing: tuple[str, str], leaving: str) -> None:
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


def test_a_chunked_body_that_breaks_creates_nothing(caller: Caller) -> None:
    broken = f"{len(GOOD) - 1:x}\r\n".encode() + GOOD[:-1] + b"\r\nzz\r\n}\r\n0\r\n\r\n"

    answer = caller.ask(head("POST", "/customers", caller.login, JSON, ("Transfer-Encoding", "chunked")) + broken)

    assert answer.status == 400
    assert caller.customers() == 0


@pytest.mark.parametrize(
    ("framing", "sent"),
    [(("Content-Length", str(len(GOOD))), GOOD[:9]), (("Transfer-Encoding", "chunked"), b"9\r\n{")],
    ids=["announced", "chunked"],
)
def test_a_body_that_is_too_slow_answers_408_and_closes(caller: Caller, framing: tuple[str, str], sent: bytes) -> None:
    with caller.connect() as wire:
        wire.send(head("POST", "/customers", caller.login, JSON, framing) + sent)
        answer = wire.answer()
        assert_is_our_error(answer, 408)
        assert answer.json() == {"message": "Body did not arrive in time"}
        assert wire.ended_within(5)
    assert caller.customers() == 0


def test_a_trickle_of_bytes_does_not_buy_a_body_more_time(caller: Caller) -> None:
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


# Request lines and headers


def test_slow_headers_are_cut_off(caller: Caller) -> None:
    with caller.connect() as wire:
        wire.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-")
        assert wire.ended_within(5)


def test_a_connection_that_says_nothing_is_cut_off(caller: Caller) -> None:
    with caller.connect() as wire:
        assert wire.ended_within(5)


def test_headers_that_are_too_large_answer_431(caller: Caller) -> None:
    assert caller.get("/healthz", ("X-Long", "x" * 9000)).status == 431


def test_too_many_headers_answer_431(caller: Caller) -> None:
    assert caller.get("/healthz", *[(f"X-{number}", "x") for number in range(200)]).status == 431


def test_ninety_headers_are_fine(caller: Caller) -> None:
    assert caller.get("/customers", *[(f"X-{number}", "x") for number in range(90)]).status == 200


def test_a_client_that_waits_for_100_continue_is_told_to_go_on(caller: Caller) -> None:
    with caller.connect() as wire:
        expecting = ("Expect", "100-continue")
        wire.send(head("POST", "/customers", caller.login, JSON, expecting, ("Content-Length", str(len(GOOD)))))
        assert wire.answer().status == 100
        wire.send(GOOD)
        assert wire.answer().status == 201


def test_a_client_that_waits_for_100_continue_with_too_much_is_refused_before_it_sends(caller: Caller) -> None:
    answer = caller.ask(
        head("POST", "/customers", caller.login, JSON, ("Expect", "100-continue"), ("Content-Length", str(BODY_LIMIT + 1)))
    )

    assert_is_our_error(answer, 413)


@pytest.mark.parametrize(
    "lengths", [["2", "3"], ["2, 3"], ["x"], ["-2"], ["+2"], [""], ["0x2"], ["99999999999999999999999"], ["2 2"], ["²"]], ids=str
)
def test_content_lengths_that_make_no_sense_answer_400_and_close(caller: Caller, lengths: list[str]) -> None:
    with caller.connect() as wire:
        wire.send(head("POST", "/customers", caller.login, JSON, *[("Content-Length", length) for length in lengths]) + GOOD)
        assert wire.answer().status == 400
        assert wire.ended_within(5)
    assert caller.customers() == 0


def test_a_length_beside_chunks_is_ignored_and_the_connection_closed(caller: Caller) -> None:
    """RFC 9112, 6.3: it might be an attempt to smuggle a second request past a proxy."""
    with caller.connect() as wire:
        framing = (("Content-Length", "2"), ("Transfer-Encoding", "chunked"))
        wire.send(head("POST", "/customers", caller.login, JSON, *framing) + chunked([GOOD]))
        assert wire.answer().status == 201
        assert wire.ended_within(5)
    assert caller.customers() == 1


@pytest.mark.parametrize("coding", ["gzip", "chunked, gzip", "identity", "xchunked"])
def test_an_unknown_transfer_coding_answers_400_and_creates_nothing(caller: Caller, coding: str) -> None:
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
def test_what_is_not_http_is_refused_and_the_server_lives_on(caller: Caller, garbage: bytes) -> None:
    with caller.connect() as wire:
        wire.send(garbage)
        with contextlib.suppress(ConnectionEnded):
            assert 400 <= wire.answer().status < 500
        assert wire.ended_within(5)
    assert caller.get("/healthz").status == 200


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        "APPLICATION/JSON",
        "text/json",
        "application/vnd.ecomcharge+json",
        None,
    ],
)
def test_json_content_types_and_none_are_taken(caller: Caller, content_type: str | None) -> None:
    headers = [] if content_type is None else [("Content-Type", content_type)]

    assert caller.ask(request("POST", "/customers", caller.login, *headers, body=GOOD)).status == 201


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain",
        "application/xml",
        "json",
        "+json",
        "",
    ],
)
def test_other_content_types_answer_415(caller: Caller, content_type: str) -> None:
    answer = caller.ask(request("POST", "/customers", caller.login, ("Content-Type", content_type), body=GOOD))

    assert_is_our_error(answer, 415)
    assert answer.json() == {"message": "Content-Type must be application/json"}
    assert caller.customers() == 0


def test_a_content_type_is_no_matter_on_get(caller: Caller) -> None:
    assert caller.get("/customers", ("Content-Type", "application/json")).status == 200
    assert caller.get("/customers", ("Content-Type", "text/plain")).status == 200


# Routes


@pytest.mark.parametrize(
    "target",
    [
        *("/", "/nope", "/customer", "/Customers", "//customers", "/customers/a/b", "/customers/../healthz", "/customers;x"),
        *("/caf\xc3\xa9", "/caf%C3%A9", "/%00", "/customers%00", "/%2e%2e/customers"),
    ],
)
def test_an_unknown_route_answers_404(caller: Caller, target: str) -> None:
    answer = caller.get(target)

    assert_is_our_error(answer, 404)
    assert answer.json() == {"message": "Route not found"}


def test_an_unknown_route_needs_no_credentials_to_be_unknown(caller: Caller) -> None:
    assert caller.ask(request("GET", "/nope")).status == 404


@pytest.mark.parametrize(
    ("method", "target", "allow"),
    [
        ("PUT", "/customers", "GET, HEAD, POST"),
        ("DELETE", "/customers", "GET, HEAD, POST"),
        ("PATCH", "/customers/", "GET, HEAD, POST"),
        ("OPTIONS", "/customers", "GET, HEAD, POST"),
        ("TRACE", "/customers", "GET, HEAD, POST"),
        ("BREW", "/customers", "GET, HEAD, POST"),
        ("POST", "/customers/cst_0000000000000000", "GET, HEAD"),
        ("DELETE", "/customers/cst_0000000000000000", "GET, HEAD"),
        ("POST", "/healthz", "GET, HEAD"),
    ],
)
def test_another_method_answers_405_and_names_those_that_are_allowed(
    caller: Caller, method: str, target: str, allow: str
) -> None:
    answer = caller.ask(request(method, target, caller.login, JSON, body=GOOD))

    assert_is_our_error(answer, 405)
    assert answer.header("allow") == allow
    assert caller.customers() == 0


@pytest.mark.parametrize("target", ["/customers", "/customers/{id}", "/customers/cst_0000000000000000", "/healthz", "/readyz"])
def test_head_answers_as_get_does_without_the_body(caller: Caller, target: str) -> None:
    target = target.replace("{id}", caller.create(GOOD).json()["id"])
    get = caller.get(target)

    with caller.connect() as wire:
        wire.send(request("HEAD", target, caller.login) + request("GET", "/healthz"))
        head_ = wire.answer(to_head=True)
        assert wire.answer().json() == {"status": "ok"}  # so no body was sent before it

    assert head_.status == get.status
    assert head_.header("content-length") == str(len(get.body))
    assert head_.header("content-type") == get.header("content-type")


def test_head_of_a_long_list_sends_no_body_and_no_wrong_length(crowd: Caller) -> None:
    with crowd.connect() as wire:
        wire.send(request("HEAD", "/customers", crowd.login) + request("GET", "/healthz"))
        answer = wire.answer(to_head=True)
        assert wire.answer().json() == {"status": "ok"}

    assert answer.status == 200
    assert answer.header("content-length") is None  # RFC 9110, 8.6: the length of what GET would send, or none


@pytest.mark.parametrize("spelling", ["/customers/", "/%63ustomers", "/customers?", "http://localhost/customers"])
def test_other_spellings_of_a_path_find_its_route(caller: Caller, spelling: str) -> None:
    assert caller.get(spelling).body == b"[]"


def test_a_percent_encoded_id_finds_its_customer(caller: Caller) -> None:
    customer_id = caller.create(GOOD).json()["id"]

    assert caller.get(f"/customers/%63{customer_id[1:]}").json()["id"] == customer_id
    assert caller.get(f"/customers/{customer_id}/").json()["id"] == customer_id


@pytest.mark.parametrize(
    "customer_id",
    [
        "1",
        "cst_",
        "cst_000000000000000G",
        "cst_00000000000000000",
        "%00",
        "%ff",
        "%zz",
        "%",
        "%0d%0aX:y",
        "%2e%2e",
        "x" * 6000,
        "{}",
        "'--",
    ],
)
def test_what_is_no_customer_id_answers_as_an_unknown_one(caller: Caller, customer_id: str) -> None:
    answer = caller.get(f"/customers/{customer_id}")

    assert_is_our_error(answer, 404)
    assert answer.json() == {"message": "Record not found"}


@pytest.mark.parametrize(
    "query",
    ["x" * 6000, "email=%00", "email=%ff", "email=%ed%a0%80", "email=%", "email=%zz", "&&&", "=", "email[]=a", "email=\xc3\xa9"],
)
def test_a_strange_query_finds_nobody_or_everybody_but_breaks_nothing(caller: Caller, query: str) -> None:
    assert caller.get(f"/customers?{query}").body == b"[]"


def test_very_many_query_parameters_answer_400(caller: Caller) -> None:
    assert_is_our_error(caller.get("/customers?" + "a=1&" * 500), 400)


# Credentials


def _encoded(user_and_key: bytes) -> bytes:
    return b"Basic " + httpx.BasicAuth(b"", user_and_key)._auth_header.encode()[6:]


def _wrong_credentials() -> dict[str, bytes]:
    right = b"1:12345678"
    return {
        "nothing": b"",
        "the scheme alone": b"Basic",
        "the scheme and a space": b"Basic ",
        "no base64": b"Basic !!!",
        "padding alone": b"Basic ====",
        "half a base64": b"Basic MTI",
        "base64 of bytes that are no UTF-8": b"Basic /zpY/w==",
        "a key that is no UTF-8": b"Basic MTr/",
        "no colon": b"Basic MTIz",
        "another scheme": b"Bearer abcdef",
        "digest": b'Digest username="1", realm="x", nonce="y"',
        "no scheme": b"MTpYWFhYWFhYWA==",
        "latin-1": b"Basic \xff\xfe\xe9",
        "UTF-8": "Basic café".encode(),
        "a bare byte": b"\xff",
        "tabs": b"Basic\tMTpYWFhYWFhYWA==",
        "two": b"Basic MTpYWFhYWFhYWA==, Basic MTpYWFhYWFhYWA==",
        "long": b"Basic " + b"QUFB" * 1500,
        "an id beyond every integer": _encoded(b"9" * 400 + b":x"),
        "an id just beyond": _encoded(b"9007199254740992:x"),
        "a negative id": _encoded(b"-1:x"),
        "a signed id": _encoded(b"+1:x"),
        "an id in Arabic digits": _encoded("١:x".encode()),
        "an id with a space": _encoded(b" 1:x"),
        "an id with a line end": _encoded(b"1\n:x"),
        "an id with a NUL": _encoded(b"1\0:x"),
        "a float": _encoded(b"1.0:x"),
        "SQL": _encoded(b"1 OR 1=1:x"),
        "no id": _encoded(b":x"),
        "no key": _encoded(b"1:"),
        "nothing but a colon": _encoded(b":"),
        "an unknown shop": _encoded(right),
    }


@pytest.mark.parametrize("value", _wrong_credentials().values(), ids=_wrong_credentials().keys())
def test_credentials_that_are_not_right_answer_401(caller: Caller, value: bytes) -> None:
    answer = caller.ask(request("GET", "/customers", ("Authorization", value)))

    assert_is_our_error(answer, 401)
    assert answer.json() == {"message": "Unauthorized"}
    assert answer.header("www-authenticate") == CHALLENGE


def test_no_credentials_answer_401(caller: Caller) -> None:
    answer = caller.ask(request("POST", "/customers", JSON, body=GOOD))

    assert_is_our_error(answer, 401)
    assert answer.header("www-authenticate") == CHALLENGE


@pytest.mark.parametrize("addition", ["\0", " ", "x", "\u00e9"])
def test_the_right_key_with_something_added_answers_401(caller: Caller, addition: str) -> None:
    shop = caller.credentials
    wrong = basic(shop.shop_id, shop.secret_key + addition)

    assert caller.ask(request("GET", "/customers", ("Authorization", wrong))).status == 401


def test_the_scheme_is_read_whatever_its_case_and_spaces(caller: Caller) -> None:
    encoded = caller.login[1][6:]

    for value in (f"basic {encoded}", f"BASIC {encoded}", f"Basic  {encoded} "):
        assert caller.ask(request("GET", "/customers", ("Authorization", value))).status == 200


# Request ids, errors, connections


@pytest.mark.parametrize("given_id", ["a", "order-1_2.3:4/5+6=", "x" * 128])
def test_a_sane_request_id_comes_back(caller: Caller, given_id: str) -> None:
    assert caller.get("/customers", ("X-Request-Id", given_id)).header("x-request-id") == given_id
    assert caller.get("/nope", ("X-Request-Id", given_id)).header("x-request-id") == given_id


@pytest.mark.parametrize("given_id", [b"", b"a b", b"x" * 129, b"\xff", "é".encode(), b"<script>", b'"', b"a\tb"])
def test_a_request_id_that_is_not_sane_is_replaced(caller: Caller, given_id: bytes) -> None:
    answered = caller.get("/customers", ("X-Request-Id", given_id)).header("x-request-id")

    assert answered is not None
    assert answered.startswith("req_")


def test_every_request_gets_another_id(caller: Caller) -> None:
    assert len({caller.get("/healthz").header("x-request-id") for _ in range(20)}) == 20


@pytest.mark.parametrize("name", ["Idempotency-Key", "RequestID"])
@pytest.mark.parametrize("key", [b"", b'""', b"\xff", "clé".encode(), b"a\tb", b"x" * 256], ids=repr)
def test_an_idempotency_key_that_cannot_be_kept_answers_400_and_creates_nothing(caller: Caller, name: str, key: bytes) -> None:
    """Ignoring it would let a client that repeats its request create twice."""
    assert_is_our_error(caller.create(GOOD, (name, key)), 400)
    assert caller.customers() == 0


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


def test_requests_sent_at_once_are_answered_in_order(caller: Caller) -> None:
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


def test_a_client_that_asks_to_close_is_obeyed(caller: Caller) -> None:
    with caller.connect() as wire:
        wire.send(request("GET", "/healthz", ("Connection", "close")))
        assert wire.answer().status == 200
        assert wire.ended_within(5)


def test_http_1_0_is_answered_and_closed(caller: Caller) -> None:
    with caller.connect() as wire:
        wire.send(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert wire.answer().status == 200
        assert wire.ended_within(5)


def test_nobody_is_upgraded_to_another_protocol(caller: Caller) -> None:
    websocket = (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="))

    assert caller.get("/customers", ("Connection", "Upgrade"), *websocket).status == 200
    assert caller.get("/customers", ("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c")).status == 200


# Anything at all


FUZZ = settings(
    max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=10), children, max_size=4),
    max_leaves=12,
)
_FIELDS = st.dictionaries(
    st.sampled_from(["email", "ip", "state", "country", "zip", "phone", "first_name", "x"]), _JSON, max_size=8
)
_BODIES = st.binary(max_size=200) | (_JSON | _FIELDS).map(lambda value: json.dumps(value).encode())
_VALUES = st.binary(max_size=80).filter(lambda value: b"\r" not in value and b"\n" not in value)
_NAMES = st.sampled_from(
    [
        "Authorization",
        "Content-Type",
        "Idempotency-Key",
        "RequestID",
        "X-Request-Id",
        "X-Forwarded-For",
        "Accept",
        "Cookie",
        "Host",
    ]
)


@FUZZ
@given(body=_BODIES)
def test_no_body_breaks_the_server(fuzzed: Caller, body: bytes) -> None:
    answer = fuzzed.create(body)

    assert answer.status in (201, 400, 422)
    assert isinstance(answer.json(), dict)


@FUZZ
@given(fields=_FIELDS, key=st.text("abc", min_size=1, max_size=3))
@example(fields={"x": -(10**40)}, key="x")
def test_no_body_with_an_idempotency_key_breaks_the_server(fuzzed: Caller, fields: dict[str, Any], key: str) -> None:
    answer = fuzzed.create(json.dumps({**fields, **JOHN}).encode(), ("Idempotency-Key", key))

    assert answer.status in (201, 400, 422)


@FUZZ
@given(headers=st.lists(st.tuples(_NAMES, _VALUES), min_size=1, max_size=4))
def test_no_header_breaks_the_server(fuzzed: Caller, headers: list[tuple[str, bytes]]) -> None:
    assert fuzzed.ask(request("POST", "/customers", *headers, fuzzed.login, body=GOOD)).status < 500


@FUZZ
@given(scheme=st.sampled_from([b"Basic ", b"basic ", b""]), value=st.binary(max_size=60))
def test_no_credentials_break_the_server(fuzzed: Caller, scheme: bytes, value: bytes) -> None:
    encoded = _encoded(value)[6:]

    assert fuzzed.ask(request("GET", "/customers", ("Authorization", scheme + encoded))).status == 401


@FUZZ
@given(garbage=st.binary(max_size=200))
def test_no_bytes_break_the_server(fuzzed: Caller, garbage: bytes) -> None:
    with fuzzed.connect() as wire:
        wire.send(garbage)
        wire.finish_sending()
        answered = wire.read()
    assert not answered or answered.startswith(b"HTTP/1.1 4")


def test_the_server_answers_after_all_that(fuzzed: Caller) -> None:
    assert fuzzed.create(GOOD).status == 201
    assert len(fuzzed.process.worker_pids()) == 1
    assert '"status":500' not in fuzzed.process.log()


# Long answers


def _descriptors(process: ServerProcess) -> int:
    return len(os.listdir(f"/proc/{process.worker_pids()[0]}/fd"))


def _resident_bytes(process: ServerProcess) -> int:
    statm = Path(f"/proc/{process.worker_pids()[0]}/statm").read_text()
    return int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def patient(crowd: Caller, tmp_path: Path) -> Iterator[Caller]:
    """The crowd's shop on a server that lets clients stall for a minute."""
    with ServerProcess(crowd.process.database, tmp_path, environment=ENVIRONMENT) as process:
        yield Caller(process, crowd.credentials)


@pytest.fixture
def rested(crowd: Caller) -> Caller:
    """The crowd's server when no connection but ours is open, and all that is made at first need was made."""
    for _ in range(2):
        assert len(crowd.get("/customers").json()) == MANY
    assert eventually(lambda: _deleted_files(crowd.process) == 0)
    time.sleep(1.2)  # what other tests left open ends by the header timeout
    return crowd


def test_a_long_list_is_whole_and_in_order(crowd: Caller) -> None:
    ids = [customer["id"] for customer in crowd.get("/customers").json()]

    assert ids == [f"cst_{number:016x}" for number in range(MANY)]


def test_a_long_list_fits_http_1_0(crowd: Caller) -> None:
    with crowd.connect() as wire:
        wire.send(head("GET", "/customers", crowd.login).replace(b"HTTP/1.1", b"HTTP/1.0"))
        received = b""
        while data := wire.read():
            received += data

    assert len(json.loads(received.partition(b"\r\n\r\n")[2])) == MANY


def _slow_readers(caller: Caller, number: int) -> list[Wire]:
    """Clients that asked for the whole list and then take nothing of it."""
    wires = []
    for _ in range(number):
        # Connected only when it asks: one that waits for the others to be answered may meet the header timeout.
        wire = caller.connect(receive_buffer_bytes=4096)
        wires.append(wire)
        wire.send(request("GET", "/customers", caller.login))
        assert wire.read(1024).startswith(b"HTTP/1.1 200 OK")
    return wires


def _deleted_files(process: ServerProcess) -> int:
    """The number of temporary files of long answers that the server process has open."""
    found = 0
    for descriptor in Path(f"/proc/{process.worker_pids()[0]}/fd").iterdir():
        with contextlib.suppress(OSError):
            found += str(descriptor.readlink()).endswith("(deleted)")
    return found


def test_a_long_list_has_a_length(crowd: Caller) -> None:
    answer = crowd.get("/customers")

    assert answer.header("content-length") == str(len(answer.body))
    assert answer.header("transfer-encoding") is None


def test_ten_clients_that_do_not_read_cost_one_descriptor_each_and_no_memory(patient: Caller) -> None:
    assert len(patient.get("/customers").json()) == MANY
    assert eventually(lambda: _deleted_files(patient.process) == 0)
    descriptors, resident = _descriptors(patient.process), _resident_bytes(patient.process)
    wires = _slow_readers(patient, 10)
    try:
        assert eventually(lambda: _deleted_files(patient.process) == 10)  # ours are closed, granian's are open
        assert _descriptors(patient.process) == descriptors + 2 * 10  # the connection and the file
        assert _resident_bytes(patient.process) - resident < LIST_BYTES / 2
        assert patient.get("/healthz").status == 200
    finally:
        for wire in wires:
            wire.close()
    assert eventually(lambda: _deleted_files(patient.process) == 0)
    assert eventually(lambda: _descriptors(patient.process) <= descriptors)


def test_clients_that_do_not_read_are_cut_off(rested: Caller) -> None:
    before = _descriptors(rested.process)
    wires = _slow_readers(rested, 3)
    try:
        assert _descriptors(rested.process) > before
        assert eventually(lambda: _deleted_files(rested.process) == 0), "they hold files for ever"
        assert eventually(lambda: _descriptors(rested.process) <= before), "they hold descriptors for ever"
    finally:
        for wire in wires:
            wire.close()


def test_a_list_that_was_cut_off_is_shorter_than_its_length(crowd: Caller) -> None:
    (wire,) = _slow_readers(crowd, 1)
    with wire:
        assert eventually(lambda: _deleted_files(crowd.process) == 0)
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while data := wire.read():
                received += len(data)

    assert received < LIST_BYTES


def test_a_client_that_reads_slowly_but_steadily_gets_everything(crowd: Caller) -> None:
    """Its whole answer takes longer than a client may stall."""
    received = 0
    started = time.monotonic()
    with crowd.connect() as wire:
        wire.send(request("GET", "/customers", crowd.login))
        while b"]" not in (data := wire.read(400_000)):
            assert data
            received += len(data)
            time.sleep(0.03)

    assert received > LIST_BYTES - 400_000
    assert time.monotonic() - started > STALL_SECONDS


def test_a_client_that_reads_steadily_and_keeps_its_buffer_full_is_not_ended(crowd: Caller) -> None:
    with socket.socket() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)  # as on a network; on loopback it is 64 KiB
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
        client.connect(("127.0.0.1", crowd.process.port))
        client.sendall(request("GET", "/customers", crowd.login))
        until = time.monotonic() + 4 * STALL_SECONDS
        while time.monotonic() < until:
            assert client.recv(4096)
            time.sleep(0.1)  # the client is slower than the network


def test_clients_that_go_away_in_the_middle_leak_nothing(rested: Caller) -> None:
    descriptors, resident = _descriptors(rested.process), _resident_bytes(rested.process)

    for wire in _slow_readers(rested, 20):
        wire.close()

    assert eventually(lambda: _deleted_files(rested.process) == 0)
    assert eventually(lambda: _descriptors(rested.process) <= descriptors)
    assert _resident_bytes(rested.process) - resident < LIST_BYTES / 2
    assert len(rested.get("/customers").json()) == MANY


def test_a_long_list_without_a_temporary_file_answers_503(crowd: Caller, tmp_path: Path) -> None:
    """The folder of temporary files is gone; the rest of the service goes on."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    environment = {**ENVIRONMENT, "TMPDIR": str(folder)}
    with ServerProcess(crowd.process.database, tmp_path, environment=environment) as process:
        caller = Caller(process, crowd.credentials)
        assert len(caller.get("/customers").json()) == MANY
        assert not [left for left in folder.iterdir() if not left.name.startswith("ecomcharge-metrics-")]
        for left in folder.iterdir():
            shutil.rmtree(left)
        folder.rmdir()

        answer = caller.get("/customers")
        assert_is_our_error(answer, 503)
        assert answer.header("retry-after")
        assert caller.get("/customers?limit=1").status == 200
        assert "no temporary file for a long response" in process.log()


# The other door


NO_HEADERS: Mapping[str, str] = {}


class Asked(NamedTuple):
    method: str
    target: str
    headers: Mapping[str, str] = NO_HEADERS
    body: bytes | AsyncIterator[bytes] | None = None

    @property
    def auth(self) -> Any:
        return None if "authorization" in self.headers else httpx.USE_CLIENT_DEFAULT


AT_BOTH_DOORS = [
    Asked("GET", "/customers"),
    Asked("HEAD", "/customers"),
    Asked("GET", "/customers?limit=2"),
    Asked("GET", "/customers/{id}"),
    Asked("HEAD", "/customers/{id}"),
    Asked("GET", "/%63ustomers/{id}"),
    Asked("GET", "/customers/unknown"),
    Asked("GET", "/customers?limit=no"),
    Asked("GET", "/customers", {"authorization": "Basic no"}),
    Asked("GET", "/nope"),
    Asked("DELETE", "/customers/{id}"),
    Asked("GET", "/healthz"),
    Asked("GET", "/readyz"),
    Asked("POST", "/customers", {}, GOOD),
    Asked("POST", "/customers", {"content-type": "application/vnd.ecomcharge+json"}, GOOD),
    Asked("POST", "/customers", {"content-type": "text/plain"}, GOOD),
    Asked("POST", "/customers", {}, b"{}"),
    Asked("POST", "/customers", {}, b"[]"),
    Asked("POST", "/customers", {}, b"{"),
    Asked("POST", "/customers", {}, b""),
    Asked("POST", "/customers", {}, b" " * (BODY_LIMIT + 1)),
    Asked("POST", "/customers", {"idempotency-key": "twice"}, GOOD),
    Asked("POST", "/customers", {"idempotency-key": "twice"}, GOOD),
    Asked("POST", "/customers", {"idempotency-key": "twice"}, b'{"email":"b@b.co","ip":"127.0.0.1"}'),
    Asked("POST", "/customers", {"requestid": ""}, GOOD),
]


def _told(response: httpx.Response) -> tuple[int, dict[str, str], Any]:
    """What a client sees, without what differs from request to request or belongs to the server program.

    That program closes the connection where an answer went out before the request's body had come, which depends on
    how the client's packets travelled. Only after 413 it is we who close it.
    """
    ours = dict(response.headers)
    for name in ("date", "server", "x-request-id", "transfer-encoding"):
        ours.pop(name, None)
    if response.status_code != 413:
        ours.pop("connection", None)
    body: Any = response.content
    if response.request.method == "POST" and response.status_code == 201:
        body = {name: value for name, value in response.json().items() if name != "id"}
        assert ours.pop("location") == "/customers/" + response.json()["id"]
    return response.status_code, ours, body


async def _with_asgi(caller: Caller, work: Callable[[Any], Awaitable[T]]) -> T:
    """Do something with the other door to the caller's database, in this process."""
    app = App(
        Settings(
            database=caller.process.database,
            master_key=MASTER_KEY,
            max_body_bytes=BODY_LIMIT,
            body_timeout_seconds=1,
            failed_logins_per_minute=0,
            log_format="json",
        )
    )
    await app.start()
    try:
        return await work(app.asgi())
    finally:
        await app.stop()


def _through_asgi(caller: Caller, requests: Sequence[Asked]) -> list[httpx.Response]:
    async def work(door: Any) -> list[httpx.Response]:
        transport = httpx.ASGITransport(door)
        async with httpx.AsyncClient(transport=transport, base_url=caller.process.url, auth=_auth(caller)) as client:
            return [
                await client.request(asked.method, asked.target, headers=asked.headers, content=asked.body, auth=asked.auth)
                for asked in requests
            ]

    return asyncio.run(_with_asgi(caller, work))


def _through_rsgi(caller: Caller, requests: Sequence[Asked]) -> list[httpx.Response]:
    with httpx.Client(base_url=caller.process.url, auth=_auth(caller)) as client:
        return [
            client.request(asked.method, asked.target, headers=asked.headers, content=asked.body, auth=asked.auth)
            for asked in requests
        ]


def _auth(caller: Caller) -> tuple[str, str]:
    return str(caller.credentials.shop_id), caller.credentials.secret_key


def test_both_doors_give_the_same_answers(new_caller: Callable[[], Caller]) -> None:
    answers = []
    for through in (_through_rsgi, _through_asgi):
        caller = new_caller()
        for number in range(3):
            assert caller.create(GOOD, ("RequestID", str(number))).status == 201
        customer_id = caller.get("/customers").json()[0]["id"]
        requests = [asked._replace(target=asked.target.replace("{id}", customer_id)) for asked in AT_BOTH_DOORS]
        answers.append([_without_ids(_told(response), caller) for response in through(caller, requests)])

    for one, other, asked in zip(*answers, AT_BOTH_DOORS, strict=True):
        assert one == other, asked


def _without_ids(told: tuple[int, dict[str, str], Any], caller: Caller) -> str:
    text = repr(told)
    for number, customer in enumerate(caller.get("/customers").json()):
        text = text.replace(customer["id"], f"customer-{number}")
    return text


def test_both_doors_send_the_same_long_list(crowd: Caller) -> None:
    (response,) = _through_asgi(crowd, [Asked("GET", "/customers")])

    assert response.content == crowd.get("/customers").body


def test_a_body_that_comes_in_pieces_is_read_at_the_other_door_too(caller: Caller) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for byte in GOOD:
            yield bytes([byte])

    (response,) = _through_asgi(caller, [Asked("POST", "/customers", {}, pieces())])

    assert response.status_code == 201


@pytest.mark.parametrize("order", [1, -1])
def test_both_doors_take_the_same_one_of_repeated_headers(caller: Caller, order: int) -> None:
    logins = [caller.login[1], "Basic no"][::order]
    at_rsgi = caller.ask(request("GET", "/customers", *[("Authorization", login) for login in logins]))

    async def work(door: Any) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(door), base_url=caller.process.url) as client:
            return await client.get("/customers", headers=[("authorization", login) for login in logins])

    assert asyncio.run(_with_asgi(caller, work)).status_code == at_rsgi.status
