"""Request ids and idempotency keys in headers."""

from __future__ import annotations

import pytest

from support.caller import GOOD, Caller, assert_is_our_error


@pytest.mark.parametrize("given_id", ["a", "order-1_2.3:4/5+6=", "x" * 128])
def test_a_valid_request_id_is_returned(caller: Caller, given_id: str) -> None:
    assert caller.get("/customers", ("X-Request-Id", given_id)).header("x-request-id") == given_id
    assert caller.get("/nope", ("X-Request-Id", given_id)).header("x-request-id") == given_id


@pytest.mark.parametrize("given_id", [b"", b"a b", b"x" * 129, b"\xff", "é".encode(), b"<script>", b'"', b"a\tb"])
def test_an_invalid_request_id_is_replaced(caller: Caller, given_id: bytes) -> None:
    answered = caller.get("/customers", ("X-Request-Id", given_id)).header("x-request-id")

    assert answered is not None
    assert answered.startswith("req_")


def test_every_request_gets_a_different_id(caller: Caller) -> None:
    assert len({caller.get("/healthz").header("x-request-id") for _ in range(20)}) == 20


@pytest.mark.parametrize("name", ["Idempotency-Key", "RequestID"])
@pytest.mark.parametrize("key", [b"", b'""', b"\xff", "clé".encode(), b"a\tb", b"x" * 256], ids=repr)
def test_an_invalid_idempotency_key_gets_400_and_creates_nothing(caller: Caller, name: str, key: bytes) -> None:
    """If the key were ignored, a client that repeats its request would create twice."""
    assert_is_our_error(caller.create(GOOD, (name, key)), 400)
    assert caller.customers() == 0
