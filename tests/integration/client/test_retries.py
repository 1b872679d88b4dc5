"""The client against servers that fail on purpose: what it sends again, and what it reports."""

from __future__ import annotations

import threading
import uuid
from http.server import BaseHTTPRequestHandler

import httpx
import pytest

import ecomcharge
from ecomcharge import ApiError, TransportError
from support.client import JANE, SECRET, Connect, Reply, stand_in


def test_an_empty_id_or_key_is_refused_before_it_is_sent(connect: Connect) -> None:
    with stand_in(Reply()) as seen, connect(seen.url, 1, SECRET) as client:
        with pytest.raises(ValueError, match="customer_id"):
            client.get_customer("")
        with pytest.raises(ValueError, match="idempotency_key"):
            client.create_customer(**JANE, idempotency_key=" ")
    assert seen.paths == []


@pytest.mark.parametrize("status", [409, 429, 502, 503, 504])
def test_what_may_pass_is_tried_again_with_the_same_key(connect: Connect, status: int) -> None:
    with stand_in(Reply(status), Reply()) as seen, connect(seen.url, 1, SECRET) as client:
        customer = client.create_customer(**JANE)
    assert customer.id == "cst_7aee5afb954c7ef7"
    assert len(seen.keys) == 2
    assert len({uuid.UUID(key) for key in seen.keys}) == 1


def test_each_create_has_a_key_of_its_own(connect: Connect) -> None:
    with stand_in(Reply()) as seen, connect(seen.url, 1, SECRET) as client:
        client.create_customer(**JANE)
        client.create_customer(**JANE)
        client.create_customer(**JANE, idempotency_key="mine")
    assert len(set(seen.keys)) == 3
    assert seen.keys[2] == "mine"


@pytest.mark.parametrize("status", [400, 401, 404, 408, 413, 415, 422, 500])
def test_what_will_not_pass_is_asked_once(connect: Connect, status: int) -> None:
    with stand_in(Reply(status)) as seen, connect(seen.url, 1, SECRET) as client:
        with pytest.raises(ApiError):
            client.create_customer(**JANE)
        with pytest.raises(ApiError):
            client.list_customers()
    assert len(seen.paths) == 2


def test_retry_after_is_honoured(connect: Connect) -> None:
    with stand_in(Reply(503, headers={"retry-after": "1"}), Reply()) as seen, connect(seen.url, 1, SECRET) as client:
        client.create_customer(**JANE)
    assert seen.times[1] - seen.times[0] >= 1


@pytest.mark.parametrize("retry_after", ["soon", "-5", "Wed, 21 Oct 2015 07:28:00 GMT", "²"])
def test_a_retry_after_that_is_no_number_of_seconds_is_passed_over(connect: Connect, retry_after: str) -> None:
    with stand_in(Reply(503, headers={"retry-after": retry_after}), Reply()) as seen, connect(seen.url, 1, SECRET) as client:
        client.create_customer(**JANE)
    assert len(seen.keys) == 2
    assert seen.times[1] - seen.times[0] >= 0.1


def test_retries_end(connect: Connect) -> None:
    unavailable = Reply(503, b'{"message":"Down for a while"}', {"retry-after": "0", "x-request-id": "req_1"})
    with (
        stand_in(unavailable) as seen,
        connect(seen.url, 1, SECRET, retries=3) as client,
        pytest.raises(ecomcharge.UnavailableError, match="Down for a while") as caught,
    ):
        client.list_customers()
    assert len(seen.paths) == 4
    assert caught.value.request_id == "req_1"


def test_without_retries_a_failure_is_raised_at_once(connect: Connect) -> None:
    with (
        stand_in(Reply(429), Reply()) as seen,
        connect(seen.url, 1, SECRET, retries=0) as client,
        pytest.raises(ecomcharge.RateLimitedError),
    ):
        client.list_customers()
    assert len(seen.paths) == 1


def test_an_answer_that_does_not_come_in_time_is_asked_for_again(connect: Connect) -> None:
    answered = threading.Event()

    def late(request: BaseHTTPRequestHandler, body: bytes) -> Reply:
        answered.wait(10)
        return Reply(cut=True)

    with stand_in(late, Reply()) as seen, connect(seen.url, 1, SECRET, timeout_seconds=0.5) as client:
        client.create_customer(**JANE)
        answered.set()
    assert len(seen.keys) >= 2
    assert len(set(seen.keys)) == 1


def test_a_body_cut_short_is_asked_for_again(connect: Connect) -> None:
    short = Reply(200, b"[", {"content-length": "100"})
    with stand_in(short, Reply(200, b"[]")) as seen, connect(seen.url, 1, SECRET) as client:
        assert client.list_customers() == []
    assert len(seen.paths) == 2


def test_no_answer_at_all_is_a_transport_error_with_its_cause(connect: Connect) -> None:
    with (
        stand_in(Reply(cut=True)) as seen,
        connect(seen.url, 1, SECRET, retries=1) as client,
        pytest.raises(TransportError, match="POST /customers: RemoteProtocolError") as caught,
    ):
        client.create_customer(**JANE)
    assert len(seen.paths) == 2
    assert isinstance(caught.value, ConnectionError)
    assert isinstance(caught.value.__cause__, httpx.RemoteProtocolError)
    assert SECRET not in repr(caught.value)


def test_a_server_that_is_not_there_is_a_transport_error(connect: Connect) -> None:
    with stand_in(Reply()) as gone:
        pass
    with connect(gone.url, 1, SECRET, retries=1) as client, pytest.raises(TransportError, match="ConnectError"):
        client.list_customers()


@pytest.mark.parametrize(
    "body", [b"", b"<html>Bad Gateway</html>", b"[]", b'{"error":1}', b'{"message":1}', b"\xff", b'{"message":"\xff"}']
)
def test_an_error_body_that_is_not_the_documented_one_is_an_api_error_all_the_same(connect: Connect, body: bytes) -> None:
    with (
        stand_in(Reply(502, body)) as seen,
        connect(seen.url, 1, SECRET, retries=0) as client,
        pytest.raises(ecomcharge.UnavailableError) as caught,
    ):
        client.list_customers()
    assert str(caught.value) == "502 Bad Gateway"
    assert (caught.value.errors, caught.value.request_id) == ({}, None)


@pytest.mark.parametrize(
    "reply", [Reply(200, b"<html>"), Reply(200, b"{}"), Reply(200, b"[{}"), Reply(302, b"", {"location": "/"})]
)
def test_a_success_that_cannot_be_read_is_an_api_error(connect: Connect, reply: Reply) -> None:
    with stand_in(reply) as seen, connect(seen.url, 1, SECRET) as client, pytest.raises(ApiError) as caught:
        client.list_customers()
    assert caught.value.status == reply.status
    assert len(seen.paths) == 1


def test_a_base_url_may_have_a_path(connect: Connect) -> None:
    with stand_in(Reply()) as seen, connect(f"{seen.url}/pay/v1", 1, SECRET) as client:
        client.get_customer("cst_1")
    assert seen.paths == ["/pay/v1/customers/cst_1"]
