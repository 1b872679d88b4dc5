"""The client against failing servers: which requests it retries, and which errors it raises."""

from __future__ import annotations

import threading
import uuid
from http.server import BaseHTTPRequestHandler

import httpx
import pytest

import ecomcharge
from ecomcharge import ApiError, TransportError
from ecomcharge.client import calls
from support.client import JANE, SECRET, Connect, Reply, stand_in


def test_an_empty_id_or_key_is_refused_before_it_is_sent(connect: Connect) -> None:
    with stand_in(Reply()) as seen, connect(seen.url, 1, SECRET) as client:
        with pytest.raises(ValueError, match="customer_id"):
            client.get_customer("")
        with pytest.raises(ValueError, match="idempotency_key"):
            client.create_customer(**JANE, idempotency_key=" ")
    assert seen.paths == []


@pytest.mark.parametrize("status", [409, 429, 502, 503, 504])
def test_transient_failures_are_retried_with_the_same_key(connect: Connect, status: int) -> None:
    with stand_in(Reply(status), Reply()) as seen, connect(seen.url, 1, SECRET) as client:
        customer = client.create_customer(**JANE)
    assert customer.id == "cst_7aee5afb954c7ef7"
    assert len(seen.keys) == 2
    assert len({uuid.UUID(key) for key in seen.keys}) == 1


def test_a_call_waits_while_an_earlier_attempt_with_its_key_is_running(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "FIRST_WAIT_SECONDS", 0.01)
    running = Reply(409, b'{"message":"A request with this idempotency key is still running"}')
    with stand_in(*[running] * 6, Reply()) as seen, connect(seen.url, 1, SECRET, retries=1) as client:
        client.create_customer(**JANE, idempotency_key="mine")
    assert seen.keys == ["mine"] * 7
    with stand_in(running) as seen, connect(seen.url, 1, SECRET, retries=1) as client:
        with pytest.raises(ecomcharge.StillRunningError, match="still running") as caught:
            client.create_subscription("pln_1")
        assert seen.keys == [caught.value.idempotency_key] * (1 + calls.STILL_RUNNING_RETRIES)


def test_a_conflict_without_a_key_is_raised_at_once(connect: Connect) -> None:
    conflict = Reply(409, b'{"message":"Customer has active subscriptions"}')
    with (
        stand_in(conflict) as seen,
        connect(seen.url, 1, SECRET) as client,
        pytest.raises(ecomcharge.ConflictError, match="active subscriptions") as caught,
    ):
        client.delete_customer("cst_1")
    assert type(caught.value) is ecomcharge.ConflictError
    assert seen.lines == ["DELETE /customers/cst_1"]


@pytest.mark.parametrize("reply", [Reply(502), Reply(503), Reply(504), Reply(409), Reply(cut=True)])
def test_a_step_of_the_clock_is_not_repeated(connect: Connect, reply: Reply) -> None:
    with stand_in(reply) as seen, connect(seen.url, 1, SECRET) as client, pytest.raises((ApiError, TransportError)):
        client.advance_clock("1d")
    assert seen.lines == ["POST /sandbox/clock/advance?wait=false"]


def test_a_step_of_the_clock_is_repeated_if_it_was_not_executed(connect: Connect) -> None:
    done = Reply(202, b'{"id":"mov_1","from":null,"to":null,"now":null,"done":true,"error":null}')
    with stand_in(Reply(429), done) as seen, connect(seen.url, 1, SECRET) as client:
        assert client.advance_clock("1d").id == "mov_1"
    assert len(seen.lines) == 2


def test_a_move_of_the_clock_that_ended_early_raises_an_error(connect: Connect) -> None:
    body = b'{"id":"mov_1","from":null,"to":null,"now":"2027-01-01T00:00:00.000Z","done":%s,"error":%s}'
    replies = [Reply(202, body % (b"false", b"null")), Reply(200, body % (b"true", b'"The database was lost"'))]
    with (
        stand_in(*replies) as seen,
        connect(seen.url, 1, SECRET) as client,
        pytest.raises(ecomcharge.ClockMoveError, match="The database was lost"),
    ):
        client.advance_clock("1d")
    assert seen.paths[1] == "/sandbox/clock/moves/mov_1"


def test_cancels_and_deletes_are_retried_because_a_second_one_changes_nothing(connect: Connect) -> None:
    with stand_in(Reply(cut=True), Reply(204, b"")) as seen, connect(seen.url, 1, SECRET) as client:
        client.delete_customer("cst_1", subscriptions="cancel")
    assert seen.lines == ["DELETE /customers/cst_1?subscriptions=cancel"] * 2
    with stand_in(Reply(504)) as seen, connect(seen.url, 1, SECRET, retries=1) as client:
        for reason in ("enough", None):
            with pytest.raises(ecomcharge.UnavailableError):
                client.cancel_subscription("sbs_1", reason)
    assert seen.lines == ["POST /subscriptions/sbs_1/cancel"] * 2 + ["DELETE /subscriptions/sbs_1"] * 2


def test_an_error_of_unknown_outcome_has_the_generated_key(connect: Connect) -> None:
    for reply in (Reply(504), Reply(cut=True)):
        with stand_in(reply) as seen, connect(seen.url, 1, SECRET, retries=1) as client:
            with pytest.raises((ApiError, TransportError)) as caught:
                client.create_customer(**JANE)
            assert isinstance(caught.value, ApiError | TransportError)
            assert seen.keys == [caught.value.idempotency_key] * 2


def test_each_create_uses_a_new_idempotency_key(connect: Connect) -> None:
    with stand_in(Reply()) as seen, connect(seen.url, 1, SECRET) as client:
        client.create_customer(**JANE)
        client.create_customer(**JANE)
        client.create_customer(**JANE, idempotency_key="mine")
    assert len(set(seen.keys)) == 3
    assert seen.keys[2] == "mine"


@pytest.mark.parametrize("status", [400, 401, 404, 408, 413, 415, 422, 500])
def test_permanent_errors_are_not_retried(connect: Connect, status: int) -> None:
    with stand_in(Reply(status)) as seen, connect(seen.url, 1, SECRET) as client:
        with pytest.raises(ApiError):
            client.create_customer(**JANE)
        with pytest.raises(ApiError):
            client.list_customers()
    assert len(seen.paths) == 2


def test_the_client_waits_for_the_retry_after_seconds(connect: Connect) -> None:
    with stand_in(Reply(503, headers={"retry-after": "1"}), Reply()) as seen, connect(seen.url, 1, SECRET) as client:
        client.create_customer(**JANE)
    assert seen.times[1] - seen.times[0] >= 1


@pytest.mark.parametrize("retry_after", ["soon", "-5", "Wed, 21 Oct 2015 07:28:00 GMT", "²"])
def test_a_retry_after_that_is_not_a_number_is_ignored(connect: Connect, retry_after: str) -> None:
    with stand_in(Reply(503, headers={"retry-after": retry_after}), Reply()) as seen, connect(seen.url, 1, SECRET) as client:
        client.create_customer(**JANE)
    assert len(seen.keys) == 2
    assert seen.times[1] - seen.times[0] >= 0.1


def test_the_client_stops_after_the_configured_retries(connect: Connect) -> None:
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


def test_a_request_that_times_out_is_retried(connect: Connect) -> None:
    answered = threading.Event()

    def late(request: BaseHTTPRequestHandler, body: bytes) -> Reply:
        answered.wait(10)
        return Reply(cut=True)

    with stand_in(late, Reply()) as seen, connect(seen.url, 1, SECRET, timeout_seconds=0.5) as client:
        client.create_customer(**JANE)
        answered.set()
    assert len(seen.keys) >= 2
    assert len(set(seen.keys)) == 1


def test_a_request_with_a_truncated_response_is_retried(connect: Connect) -> None:
    short = Reply(200, b"[", {"content-length": "100"})
    with stand_in(short, Reply(200, b"[]")) as seen, connect(seen.url, 1, SECRET) as client:
        assert client.list_customers() == []
    assert len(seen.paths) == 2


def test_a_missing_response_raises_a_transport_error_with_its_cause(connect: Connect) -> None:
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


def test_a_refused_connection_raises_a_transport_error(connect: Connect) -> None:
    with stand_in(Reply()) as gone:
        pass
    with connect(gone.url, 1, SECRET, retries=1) as client, pytest.raises(TransportError, match="ConnectError"):
        client.list_customers()


@pytest.mark.parametrize(
    "body", [b"", b"<html>Bad Gateway</html>", b"[]", b'{"error":1}', b'{"message":1}', b"\xff", b'{"message":"\xff"}']
)
def test_an_error_with_an_undocumented_body_raises_an_api_error(connect: Connect, body: bytes) -> None:
    with (
        stand_in(Reply(502, body)) as seen,
        connect(seen.url, 1, SECRET, retries=0) as client,
        pytest.raises(ecomcharge.UnavailableError) as caught,
    ):
        client.list_customers()
    assert str(caught.value) == "502 Bad Gateway"
    assert (caught.value.errors, caught.value.request_id) == ({}, None)


def test_problem_details_have_the_code_and_the_rule_of_each_fault(connect: Connect) -> None:
    faults = (
        b'{"pointer":"/plan/amount","code":"too_small","detail":"must be greater than 0","rule":"Minor units.","example":999},'
        b'{"pointer":"/title","code":"required","detail":"can\'t be blank"},{"pointer":"","code":"x","detail":"No"}'
    )
    body = b'{"type":"urn:x","title":"Invalid","status":422,"detail":"Title can\'t be blank","errors":[%s]}' % faults
    problem = Reply(422, body, {"content-type": "application/problem+json"})
    with (
        stand_in(problem) as seen,
        connect(seen.url, 1, SECRET, problem_details=True) as client,
        pytest.raises(ecomcharge.ValidationError, match="Title can't be blank") as caught,
    ):
        client.create_subscription("pln_1")
    assert "application/problem+json" in seen.headers[0]["accept"]
    amount, title, _ = caught.value.faults
    assert amount == ecomcharge.Fault("/plan/amount", "too_small", "must be greater than 0", "Minor units.", 999)
    assert (title.code, title.rule) == ("required", None)
    texts = {"plan.amount": ["must be greater than 0"], "title": ["can't be blank"], "base": ["No"]}
    assert caught.value.errors == caught.value.field_errors == texts


@pytest.mark.parametrize(
    "reply", [Reply(200, b"<html>"), Reply(200, b"{}"), Reply(200, b"[{}"), Reply(302, b"", {"location": "/"})]
)
def test_an_unreadable_success_response_raises_an_api_error(connect: Connect, reply: Reply) -> None:
    with stand_in(reply) as seen, connect(seen.url, 1, SECRET) as client, pytest.raises(ApiError) as caught:
        client.list_customers()
    assert caught.value.status == reply.status
    assert len(seen.paths) == 1


def test_a_base_url_may_have_a_path(connect: Connect) -> None:
    with stand_in(Reply()) as seen, connect(f"{seen.url}/pay/v1", 1, SECRET) as client:
        client.get_customer("cst_1")
    assert seen.paths == ["/pay/v1/customers/cst_1"]
