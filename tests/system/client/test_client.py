"""The client, blocking and asynchronous, against the real server and against servers that fail on purpose."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol, cast

import httpx
import pytest

import ecomcharge
from ecomcharge import ApiError, AsyncClient, Client, Customer, TransportError
from ecomcharge.client.calls import wait_seconds

JANE = {"email": "jane@shop.test", "ip": "127.0.0.1"}
JANE_ANSWERED = b"""{"id":"cst_7aee5afb954c7ef7","first_name":null,"last_name":null,"address":null,"country":null,
"city":null,"zip":null,"state":null,"phone":null,"email":"jane@shop.test","ip":"127.0.0.1","external_id":null,"new":1}"""
SECRET = "a-very-secret-key"


class Shop(Protocol):
    @property
    def url(self) -> str: ...
    @property
    def shop_id(self) -> int: ...
    @property
    def secret_key(self) -> str: ...


class InOneLoop:
    """An ``AsyncClient`` that can be asked like a ``Client``."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(*arguments, **options)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *arguments, **options: self._runner.run(getattr(self._client, name)(*arguments, **options))

    def customers(self, **options: Any) -> Iterator[Customer]:
        async def walk() -> list[Customer]:
            return [customer async for customer in self._client.customers(**options)]

        return iter(self._runner.run(walk()))

    def __enter__(self) -> InOneLoop:
        self._runner.run(self._client.__aenter__())
        return self

    def __exit__(self, *exception: object) -> None:
        self._runner.run(self._client.__aexit__(*exception))
        self._runner.close()


Connect = Callable[..., Client]


@pytest.fixture(params=[Client, InOneLoop], ids=["blocking", "async"])
def connect(request: pytest.FixtureRequest) -> Connect:
    return cast(Connect, request.param)


def as_shop(connect: Connect, shop: Shop, url: str | None = None, **options: Any) -> Client:
    return connect(url or shop.url, shop.shop_id, shop.secret_key, **options)


@dataclass
class Reply:
    """What a stand-in answers; with ``cut`` it hangs up instead."""

    status: int = 201
    body: bytes = JANE_ANSWERED
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False


Answer = Callable[[BaseHTTPRequestHandler, bytes], Reply]


@dataclass
class StandIn:
    """A listening server that answers as told, and remembers what it was asked and when."""

    url: str = ""
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    @property
    def keys(self) -> list[str]:
        return [headers["idempotency-key"] for headers in self.headers]


@contextmanager
def stand_in(*replies: Reply | Answer) -> Iterator[StandIn]:
    """A stand-in that gives these replies in turn, the last one ever after."""
    seen = StandIn()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            with lock:
                reply = replies[min(len(seen.paths), len(replies) - 1)]
                seen.paths.append(self.path)
                seen.headers.append({name.lower(): value for name, value in self.headers.items()})
                seen.times.append(time.monotonic())
            if not isinstance(reply, Reply):
                reply = reply(self, body)
            if not reply.cut:
                self.send_response(reply.status)
                for name, value in {"content-length": str(len(reply.body)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)

        do_GET = do_POST = answer

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        seen.url = f"http://127.0.0.1:{listener.server_port}"
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield seen
        finally:
            listener.shutdown()
            thread.join()


def test_a_created_customer_can_be_read_again(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client:
        created = client.create_customer(
            first_name="John",
            last_name="Doe",
            address="1st Street",
            country="us",
            city="Denver",
            zip="92006",
            state="CO",
            phone="+1-555",
            external_id="user-42",
            **JANE,
        )
        assert client.get_customer(created.id) == created
    assert created == Customer(
        id=created.id,
        first_name="John",
        last_name="Doe",
        address="1st Street",
        country="US",
        city="Denver",
        zip="92006",
        state="CO",
        phone="+1-555",
        email="jane@shop.test",
        ip="127.0.0.1",
        external_id="user-42",
    )


def test_the_list_is_everyone_or_one_page_or_who_fits(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client:
        a, b, c = (client.create_customer(email=f"{name}@shop.test", ip="::1", external_id=name) for name in "abc")
        assert client.list_customers() == [a, b, c]
        assert client.list_customers(limit=2) == [a, b]
        assert client.list_customers(limit=2, after=a.id) == [b, c]
        assert client.list_customers(limit=1, before=c.id) == [b]
        assert client.list_customers(email="b@shop.test") == [b]
        assert client.list_customers(external_id="c") == [c]


@pytest.mark.parametrize("page_size", [1, 2, 3, 200])
def test_the_walk_meets_every_customer_once_whatever_the_page_size(server: Shop, connect: Connect, page_size: int) -> None:
    with as_shop(connect, server) as client:
        created = [client.create_customer(**JANE, external_id=str(number)) for number in range(4)]
        assert list(client.customers(page_size=page_size)) == created
        assert list(client.customers(external_id="2", page_size=page_size)) == [created[2]]
        assert list(client.customers(email="nobody@shop.test", page_size=page_size)) == []


def test_two_creates_are_two_customers_unless_they_share_a_key(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client:
        assert client.create_customer(**JANE).id != client.create_customer(**JANE).id
        first, again = (client.create_customer(**JANE, idempotency_key="order 7") for _ in range(2))
        assert first == again
        assert len(client.list_customers()) == 3


def test_faults_of_fields_come_as_a_validation_error_that_tells_them_all(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client, pytest.raises(ecomcharge.ValidationError) as caught:
        client.create_customer(email="jane@shop.test", ip="", country="US")
    error = caught.value
    assert error.errors == {"state": ["can't be blank"], "ip": ["address is invalid", "can't be blank"]}
    assert error.message == "State can't be blank. Ip address is invalid. Ip can't be blank"
    assert error.status == 422
    assert error.request_id
    assert str(error) == f"422 {error.message} (request {error.request_id})"


def test_a_key_used_for_something_else_is_a_validation_error_without_fields(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client:
        client.create_customer(**JANE, idempotency_key="k")
        with pytest.raises(ecomcharge.ValidationError, match="already used") as caught:
            client.create_customer(**JANE, city="Denver", idempotency_key="k")
    assert caught.value.errors == {}


@pytest.mark.parametrize("customer_id", ["cst_0000000000000000", "..", ".", "a/b", "é?#", "%2e%2e"])
def test_an_id_that_nobody_has_is_not_found(server: Shop, connect: Connect, customer_id: str) -> None:
    with as_shop(connect, server) as client, pytest.raises(ecomcharge.NotFoundError):
        client.get_customer(customer_id)


def test_an_empty_id_or_key_is_refused_before_it_is_sent(connect: Connect) -> None:
    with stand_in(Reply()) as seen, connect(seen.url, 1, SECRET) as client:
        with pytest.raises(ValueError, match="customer_id"):
            client.get_customer("")
        with pytest.raises(ValueError, match="idempotency_key"):
            client.create_customer(**JANE, idempotency_key=" ")
    assert seen.paths == []


def test_a_wrong_key_is_an_authentication_error_that_does_not_tell_it(server: Shop, connect: Connect) -> None:
    with connect(server.url, server.shop_id, SECRET) as client, pytest.raises(ecomcharge.AuthenticationError) as caught:
        client.list_customers()
    assert SECRET not in repr(caught.value) + str(caught.value) + repr(client)


def test_an_api_error_can_be_pickled() -> None:
    error = ecomcharge.ValidationError("Ip can't be blank", {"ip": ["can't be blank"]}, 422, "req_1")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), vars(again)) == (ecomcharge.ValidationError, vars(error))


def test_another_4xx_is_a_plain_api_error_and_asked_once(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client, pytest.raises(ApiError, match="Limit must be") as caught:
        client.list_customers(limit=0)
    assert (type(caught.value), caught.value.status) == (ApiError, 400)


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


def test_a_wait_is_at_most_half_a_minute() -> None:
    assert wait_seconds(httpx.Response(503, headers={"retry-after": "9" * 400}), 0) == 30
    assert 15 <= wait_seconds(httpx.ReadTimeout("late"), 5000) <= 30


def test_waits_grow_twofold_and_differ() -> None:
    for retry in range(5):
        waits = {wait_seconds(httpx.ReadTimeout("late"), retry) for _ in range(20)}
        assert 0.125 * 2**retry <= min(waits) < max(waits) <= 0.25 * 2**retry


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


def test_without_retries_a_failure_is_told_at_once(connect: Connect) -> None:
    with (
        stand_in(Reply(429), Reply()) as seen,
        connect(seen.url, 1, SECRET, retries=0) as client,
        pytest.raises(ecomcharge.RateLimitedError),
    ):
        client.list_customers()
    assert len(seen.paths) == 1


def test_a_create_whose_answer_was_lost_is_done_once(server: Shop, connect: Connect) -> None:
    def pass_on(request: BaseHTTPRequestHandler, body: bytes) -> Reply:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in ("host", "connection")}
        answer = httpx.post(server.url + request.path, headers=headers, content=body)
        return Reply(answer.status_code, answer.content)

    def pass_on_and_hang_up(request: BaseHTTPRequestHandler, body: bytes) -> Reply:
        assert pass_on(request, body).status == 201
        return Reply(cut=True)

    with stand_in(pass_on_and_hang_up, pass_on) as seen, as_shop(connect, server, seen.url) as client:
        created = client.create_customer(**JANE)
    with as_shop(connect, server) as client:
        assert client.list_customers() == [created]
    assert len(seen.keys) == 2


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


def test_importing_the_package_does_not_import_httpx() -> None:
    program = "import sys, ecomcharge; sys.exit('httpx' in sys.modules or not ecomcharge.__version__)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_package_shows_what_it_says_and_nothing_else() -> None:
    assert all(getattr(ecomcharge, name) for name in ecomcharge.__all__)
    assert set(ecomcharge.__all__) <= set(dir(ecomcharge))
    with pytest.raises(AttributeError, match="no attribute 'Server'"):
        _ = ecomcharge.Server  # type: ignore[attr-defined]
