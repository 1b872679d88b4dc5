"""Every error that a handler may raise has an answer and, where it is the server's fault, a log line."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import pkgutil
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

import ecomcharge
from conftest import ENVIRONMENT, Shop, add_shop, with_database
from ecomcharge.base import errors
from ecomcharge.base.errors import EcomchargeError
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database
from ecomcharge.web.access_log import AccessLog
from ecomcharge.web.asgi import AsgiAdapter
from ecomcharge.web.bodies import Limits
from ecomcharge.web.core import Server
from ecomcharge.web.messages import STATUS_OF, Request, Response, Stream, error_response
from ecomcharge.web.metrics import Metrics
from ecomcharge.web.rate_limits import TokenBucket
from ecomcharge.web.router import Route
from ecomcharge.web.rsgi import RsgiAdapter
from support.process import ServerProcess

SECRET = "postgresql://user:secret@db/shops"
INTERNAL_ERROR = {"message": "Internal server error"}
LIMITS = Limits(max_body_bytes=1024, body_timeout_seconds=5, stall_timeout_seconds=5)
EXAMPLES: dict[type[EcomchargeError], EcomchargeError] = {  # of those that need more than a message
    errors.MethodNotAllowed: errors.MethodNotAllowed(["GET"]),
    errors.ValidationFailed: errors.ValidationFailed("Title can't be blank", {"title": ["can't be blank"]}),
    errors.TooManyRequests: errors.TooManyRequests("shop", 10, 1, 1),
}


def defined_exceptions() -> list[type[BaseException]]:
    """Every exception class of the package, wherever it is defined."""
    found: dict[type[BaseException], None] = {}
    for module_info in pkgutil.walk_packages(ecomcharge.__path__, "ecomcharge."):
        module = importlib.import_module(module_info.name)
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, BaseException) and value.__module__ == module.__name__:
                found[value] = None
    return list(found)


EXCEPTIONS = defined_exceptions()
DOMAIN_ERRORS = [kind for kind in EXCEPTIONS if issubclass(kind, EcomchargeError) and kind is not EcomchargeError]
ACCIDENTS = [kind for kind in EXCEPTIONS if issubclass(kind, Exception) and not issubclass(kind, EcomchargeError)]


def server_that(act: Callable[[], Any]) -> Server:
    """A server with one route, ``/``, whose handler does this."""

    async def handle(request: Request) -> Response | Stream:
        answer = act()
        response: Response | Stream = await answer if asyncio.iscoroutine(answer) else answer
        return response

    nobody: Any = None  # the route asks for no credentials
    return Server([Route("GET", "/", handle, needs_shop=False)], nobody, TokenBucket(0), AccessLog("json", Metrics(None)))


def server_that_raises(error: BaseException) -> Server:
    def act() -> None:
        raise error

    return server_that(act)


def answer_of(server: Server) -> tuple[Response, list[Any]]:
    """What the server answers, and what it logs."""
    with capture_logs() as lines:
        response = asyncio.run(server.respond(Request("GET", "/", "", lambda name: None)))
    assert isinstance(response, Response)
    assert dict(response.headers)["x-request-id"].startswith("req_")
    assert json.loads(response.body)["message"]
    return response, lines


def test_the_enumeration_finds_what_is_defined() -> None:
    names = {kind.__name__ for kind in EXCEPTIONS}
    assert {"Unusable", "Changed", "IdTaken", "_SettledBefore", "UnreadableLine", "ApiError"} <= names


@pytest.mark.parametrize("kind", DOMAIN_ERRORS, ids=lambda kind: kind.__name__)
def test_every_domain_error_has_a_status_and_a_body(kind: type[EcomchargeError]) -> None:
    row = next((base for base in kind.__mro__ if base in STATUS_OF), None)
    assert row is not None, f"{kind.__name__} needs a row"
    error = EXAMPLES.get(kind) or kind()
    response, lines = answer_of(server_that_raises(error))
    assert response.status == STATUS_OF[row]
    assert response.code == error.code
    assert bool(lines) == (response.status == 500)
    assert json.loads(response.body)["message"] == (error.message if response.status != 500 else INTERNAL_ERROR["message"])


@pytest.mark.parametrize("kind", ACCIDENTS, ids=lambda kind: kind.__name__)
def test_every_other_exception_of_the_program_is_answered_and_logged(kind: type[Exception]) -> None:
    response, lines = answer_of(server_that_raises(kind.__new__(kind)))
    assert (response.status, response.code, json.loads(response.body)) == (500, "internal_error", INTERNAL_ERROR)
    assert [line["event"] for line in lines] == ["request failed"]


def test_a_domain_error_without_a_row_is_answered_as_a_fault_of_ours() -> None:
    class Unlisted(EcomchargeError):
        code = "unlisted"

    try:
        response, lines = answer_of(server_that_raises(Unlisted(f"cannot use {SECRET}")))
    finally:
        del Unlisted
    assert (response.status, response.code, json.loads(response.body)) == (500, "internal_error", INTERNAL_ERROR)
    assert [line["event"] for line in lines] == ["request failed"]


def test_an_operators_error_shows_no_setting_to_the_client_and_its_sentence_in_the_log() -> None:
    response, lines = answer_of(server_that_raises(errors.ConfigurationError(f"cannot use {SECRET}")))
    assert (response.status, response.code, json.loads(response.body)) == (500, "unusable", INTERNAL_ERROR)
    assert "retry-after" not in dict(response.headers)
    assert [(line["event"], line["reason"]) for line in lines] == [("request failed", f"cannot use {SECRET}")]


def test_an_error_that_cannot_be_shown_is_answered() -> None:
    response, lines = answer_of(server_that_raises(errors.BadParameter("half of a pair: \ud800")))
    assert (response.status, json.loads(response.body)) == (500, INTERNAL_ERROR)
    assert len(lines) == 1


@pytest.mark.parametrize("error", [TimeoutError(), ExceptionGroup("two", [ValueError(), KeyError()]), StopAsyncIteration()])
def test_timeouts_and_groups_are_answered(error: Exception) -> None:
    response, lines = answer_of(server_that_raises(error))
    assert response.status == 500
    assert len(lines) == 1


def test_what_a_handler_waits_for_may_be_canceled() -> None:
    async def wait_for_what_is_canceled() -> Response:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future
        raise AssertionError

    response, lines = answer_of(server_that(wait_for_what_is_canceled))
    assert (response.status, json.loads(response.body)) == (500, INTERNAL_ERROR)
    assert len(lines) == 1


def test_a_request_whose_own_task_is_canceled_ends_and_is_logged() -> None:
    async def cancel_a_request() -> None:
        server = server_that(lambda: asyncio.sleep(60))
        task = asyncio.create_task(server.respond(Request("GET", "/", "", lambda name: None)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with capture_logs() as lines:
        asyncio.run(cancel_a_request())
    assert [line["event"] for line in lines] == ["request canceled"]


async def broken_chunks(error: Exception) -> AsyncIterator[bytes]:
    yield b"[1"
    raise error


class Protocol:
    """granian's view of an answer, with the file read as granian reads it."""

    def __init__(self) -> None:
        self.status = 0
        self.body = b""
        self._reading = -1

    def response_file(self, status: int, headers: object, path: str) -> None:
        self.status = status
        self._reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def response_bytes(self, status: int, headers: object, body: bytes) -> None:
        self.status, self.body = status, body

    def finish(self) -> None:
        if self._reading >= 0:
            with contextlib.suppress(BlockingIOError):
                self.body = os.read(self._reading, 65536)
            os.close(self._reading)


class Scope:
    proto, method, path, query_string, client = "http", "GET", "/", "", "127.0.0.1:1"

    class headers:
        @staticmethod
        def get(name: str) -> str | None:
            return None


def answer_at_rsgi(response: Response | Stream, spoil: Callable[[RsgiAdapter], None] = lambda door: None) -> tuple[Protocol, Any]:
    """What granian gets to send, and the log lines."""
    protocol = Protocol()

    async def run() -> None:
        door = RsgiAdapter(server_that(lambda: response), LIMITS)
        spoil(door)
        try:
            await door(Scope(), protocol)
        finally:
            protocol.finish()
            door.close()

    with capture_logs() as lines:
        asyncio.run(run())
    return protocol, lines


@pytest.mark.parametrize("error", [errors.ConfigurationError("no such file"), errors.Unavailable(), ValueError("x")])
def test_an_error_after_the_answer_began_is_logged_with_its_request(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    protocol, lines = answer_at_rsgi(Stream(200, [], broken_chunks(error)))
    assert (protocol.status, protocol.body) == (200, b"[1")  # without its end it is no JSON
    assert [line["event"] for line in lines] == ["answer broke off"]
    assert lines[0]["request_id"].startswith("req_")


@pytest.mark.parametrize("error", [errors.ConfigurationError("no such file"), ValueError("x")])
def test_an_error_after_the_answer_began_is_logged_at_the_other_adapter_too(error: Exception) -> None:
    async def run() -> None:
        door: Any = AsgiAdapter(server_that(lambda: Stream(200, [], broken_chunks(error))), LIMITS)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(door), base_url="http://test") as client:
            with pytest.raises(type(error)):
                await client.get("/")

    with capture_logs() as lines:
        asyncio.run(run())
    assert [line["event"] for line in lines] == ["answer broke off"]


def without_folder(door: RsgiAdapter) -> None:
    os.rmdir(door._pipes)


def test_a_stream_that_cannot_be_sent_answers_503() -> None:
    protocol, lines = answer_at_rsgi(Stream(200, [], broken_chunks(ValueError())), without_folder)
    assert (protocol.status, json.loads(protocol.body)) == (503, json.loads(error_response(errors.Unavailable()).body))
    assert len(lines) == 1


def test_a_large_body_is_sent_even_where_no_pipe_can_be_made() -> None:
    body = b"x" * 300_000
    protocol, lines = answer_at_rsgi(Response(201, body, []), without_folder)
    assert (protocol.status, protocol.body) == (201, body)
    assert len(lines) == 1


def test_a_running_server_answers_where_an_operators_setting_is_missing(
    database_url: str, master_key: MasterKey, tmp_path: Path
) -> None:
    """A shop whose gateway account is missing: the client gets an answer that names no setting, and the log says why."""
    credentials = add_shop(database_url, master_key)

    async def forget_account(database: Database) -> None:
        sql = "UPDATE shops SET gateway = 'begateway' WHERE shop_id = :shop_id"
        await database.write(lambda tx: tx.run(sql, {"shop_id": credentials.shop_id}))

    with_database(database_url, forget_account)
    plan = {"title": "P", "currency": "EUR", "plan": {"amount": 100, "interval": 1, "interval_unit": "month"}}
    card = {"number": "4200000000000000", "exp_month": 12, "exp_year": 2060}
    body = {"plan": plan, "customer": {"email": "a@shop.test"}, "card": card}
    with ServerProcess(database_url, tmp_path, environment=ENVIRONMENT) as process:
        shop = Shop(process.url, credentials.shop_id, credentials.secret_key, process)
        with shop.client() as http:
            answer = http.post("/subscriptions", json=body)
        log = process.log()
    assert answer.status_code in (201, 500)  # the charge may also be recorded as one that was refused
    assert answer.status_code == 201 or answer.json() == INTERNAL_ERROR
    assert "ecomcharge shops" not in answer.text
    assert re.search(r"account", log)
