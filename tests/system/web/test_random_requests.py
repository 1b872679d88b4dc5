"""Random requests never break the server."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from support.caller import GOOD, JOHN, Caller, encoded_login
from support.wire import request


@pytest.fixture(scope="module")
def random_caller(new_caller: Callable[[], Caller]) -> Caller:
    return new_caller()


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
def test_no_body_breaks_the_server(random_caller: Caller, body: bytes) -> None:
    answer = random_caller.create(body)

    assert answer.status in (201, 400, 422)
    assert isinstance(answer.json(), dict)


@FUZZ
@given(fields=_FIELDS, key=st.text("abc", min_size=1, max_size=3))
@example(fields={"x": -(10**40)}, key="x")
def test_no_body_with_an_idempotency_key_breaks_the_server(random_caller: Caller, fields: dict[str, Any], key: str) -> None:
    answer = random_caller.create(json.dumps({**fields, **JOHN}).encode(), ("Idempotency-Key", key))

    assert answer.status in (201, 400, 422)


@FUZZ
@given(headers=st.lists(st.tuples(_NAMES, _VALUES), min_size=1, max_size=4))
def test_no_header_breaks_the_server(random_caller: Caller, headers: list[tuple[str, bytes]]) -> None:
    assert random_caller.ask(request("POST", "/customers", *headers, random_caller.login, body=GOOD)).status < 500


@FUZZ
@given(scheme=st.sampled_from([b"Basic ", b"basic ", b""]), value=st.binary(max_size=60))
def test_no_credentials_break_the_server(random_caller: Caller, scheme: bytes, value: bytes) -> None:
    encoded = encoded_login(value)[6:]

    assert random_caller.ask(request("GET", "/customers", ("Authorization", scheme + encoded))).status == 401


@FUZZ
@given(garbage=st.binary(max_size=200))
def test_no_bytes_break_the_server(random_caller: Caller, garbage: bytes) -> None:
    with random_caller.connect() as wire:
        wire.send(garbage)
        wire.finish_sending()
        answered = wire.read()
    assert not answered or answered.startswith(b"HTTP/1.1 4")


def test_the_server_responds_after_all_random_requests(random_caller: Caller) -> None:
    assert random_caller.create(GOOD).status == 201
    assert len(random_caller.process.worker_pids()) == 1
    assert '"status":500' not in random_caller.process.log()
