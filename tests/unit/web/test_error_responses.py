"""Every error that a handler may raise has a response and, where it is an error of the server, a log line."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib
import json
import os
import pkgutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

import ecomcharge
from ecomcharge.base import errors
from ecomcharge.base.errors import EcomchargeError
from ecomcharge.web.access_log import AccessLog
from ecomcharge.web.asgi import AsgiAdapter
from ecomcharge.web.bodies import Limits
from ecomcharge.web.dispatcher import LARGE_BODY_BYTES, Dispatcher
from ecomcharge.web.error_responses import STATUS_OF, error_response
from ecomcharge.web.messages import Request, Response, Stream
from ecomcharge.web.metrics import Metrics
from ecomcharge.web.rate_limits import TokenBucket
from ecomcharge.web.response_files import DESCRIPTORS_FOLDER
from ecomcharge.web.router import Route
from ecomcharge.web.rsgi import RsgiAdapter

SECRET = "postgresql://user:secret@db/shops"
INTERNAL_ERROR = {"message": "Internal server error"}
LIMITS = Limits(max_body_bytes=1024, body_timeout_seconds=5)
EXAMPLES: dict[type[EcomchargeError], EcomchargeError] = {  # arguments of the errors that need more than a message
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


def server_that(act: Callable[[], Any]) -> Dispatcher:
    """A dispatcher with one route, ``/``, which has this handler."""

    async def handle(request: Request) -> Response | Stream:
        answer = act()
        response: Response | Stream = await answer if asyncio.iscoroutine(answer) else answer
        return response

    no_authenticator: Any = None  # the route asks for no credentials
    access_log = AccessLog("json", Metrics(None).count)
    return Dispatcher([Route("GET", "/", handle, needs_shop=False)], no_authenticator, TokenBucket(0), access_log)


def server_that_raises(error: BaseException) -> Dispatcher:
    def act() -> None:
        raise error

    return server_that(act)


def answer_of(server: Dispatcher) -> tuple[Response, list[Any]]:
    """The response of the server and its log lines."""
    with capture_logs() as lines:
        response = asyncio.run(server.respond(Request("GET", "/", "", lambda name: None)))
    assert isinstance(response, Response)
    assert dict(response.headers)["x-request-id"].startswith("req_")
    assert json.loads(response.body)["message"]
    return response, lines


def test_the_enumeration_finds_known_exceptions() -> None:
    names = {kind.__name__ for kind in EXCEPTIONS}
    assert {"ConfigurationError", "StaleVersion", "IdCollision", "PaymentChanged", "UnreadableLine", "ApiError"} <= names


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


def test_a_domain_error_without_a_table_row_becomes_an_internal_error() -> None:
    class Unlisted(EcomchargeError):
        code = "unlisted"

    try:
        response, lines = answer_of(server_that_raises(Unlisted(f"cannot use {SECRET}")))
    finally:
        del Unlisted
    assert (response.status, response.code, json.loads(response.body)) == (500, "internal_error", INTERNAL_ERROR)
    assert [line["event"] for line in lines] == ["request failed"]


def test_a_configuration_error_is_logged_and_its_details_are_not_sent_to_the_client() -> None:
    response, lines = answer_of(server_that_raises(errors.ConfigurationError(f"cannot use {SECRET}")))
    assert (response.status, response.code, json.loads(response.body)) == (500, "unusable", INTERNAL_ERROR)
    assert "retry-after" not in dict(response.headers)
    assert [(line["event"], line["reason"]) for line in lines] == [("request failed", f"cannot use {SECRET}")]


def test_an_error_without_a_message_gets_a_response() -> None:
    response, lines = answer_of(server_that_raises(errors.BadParameter("half of a pair: \ud800")))
    assert (response.status, json.loads(response.body)) == (500, INTERNAL_ERROR)
    assert len(lines) == 1


@pytest.mark.parametrize("error", [TimeoutError(), ExceptionGroup("two", [ValueError(), KeyError()]), StopAsyncIteration()])
def test_timeouts_and_exception_groups_get_responses(error: Exception) -> None:
    response, lines = answer_of(server_that_raises(error))
    assert response.status == 500
    assert len(lines) == 1


def test_an_awaitable_of_a_handler_can_be_canceled() -> None:
    async def wait_for_what_is_canceled() -> Response:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future
        raise AssertionError

    response, lines = answer_of(server_that(wait_for_what_is_canceled))
    assert (response.status, json.loads(response.body)) == (500, INTERNAL_ERROR)
    assert len(lines) == 1


def test_a_request_whose_task_is_canceled_ends_and_is_logged() -> None:
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


LONG_BODY = b"x" * (LARGE_BODY_BYTES + 1)


async def chunks_of(*chunks: bytes, error: Exception | None = None) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    if error is not None:
        raise error


def a_stream(*chunks: bytes, error: Exception | None = None) -> Stream:
    return Stream(200, [("content-type", "application/json")], chunks_of(*chunks, error=error))


class Protocol:
    """The response interface of granian. It reads the file as granian does."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""

    def response_file(self, status: int, headers: list[tuple[str, str]], path: str) -> None:
        self.status, self.headers, self.body = status, dict(headers), Path(path).read_bytes()

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status, self.headers, self.body = status, dict(headers), body

    def response_empty(self, status: int, headers: list[tuple[str, str]]) -> None:
        self.status, self.headers = status, dict(headers)


class Scope:
    proto, path, query_string, client = "http", "/", "", "127.0.0.1:1"

    def __init__(self, method: str) -> None:
        self.method = method

    class headers:
        @staticmethod
        def get(name: str) -> str | None:
            return None

        @staticmethod
        def get_all(name: str) -> list[str]:
            return ["test"]


def answer_at_rsgi(response: Response | Stream, method: str = "GET") -> tuple[Protocol, Any]:
    """The response that granian sends, and the log lines."""
    protocol = Protocol()

    async def run() -> None:
        await RsgiAdapter(server_that(lambda: response), LIMITS, most_requests=1)(Scope(method), protocol)

    with capture_logs() as lines:
        asyncio.run(run())
    return protocol, lines


def answer_at_asgi(response: Response | Stream, method: str = "GET") -> tuple[httpx.Response, Any]:
    """The response of the ASGI adapter, and the log lines."""

    async def run() -> httpx.Response:
        adapter: Any = AsgiAdapter(server_that(lambda: response), LIMITS)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(adapter), base_url="http://test") as client:
            return await client.request(method, "/")

    with capture_logs() as lines:
        answer = asyncio.run(run())
    return answer, lines


def test_both_adapters_send_a_whole_stream_with_its_length() -> None:
    at_rsgi, _ = answer_at_rsgi(a_stream(b"[1,", b"", b"2" * 300_000, b"]"))
    at_asgi, _ = answer_at_asgi(a_stream(b"[1,", b"", b"2" * 300_000, b"]"))
    body = b"[1," + b"2" * 300_000 + b"]"
    assert (at_rsgi.status, at_rsgi.headers["content-length"], at_rsgi.body) == (200, str(len(body)), body)
    assert (at_asgi.status_code, at_asgi.headers["content-length"], at_asgi.content) == (200, str(len(body)), body)


def test_a_stream_without_chunks_has_an_empty_body() -> None:
    at_rsgi, _ = answer_at_rsgi(a_stream())
    assert (at_rsgi.status, at_rsgi.headers["content-length"], at_rsgi.body) == (200, "0", b"")


def test_a_long_body_is_sent_from_a_file() -> None:
    at_rsgi, lines = answer_at_rsgi(Response(201, LONG_BODY, []))
    assert (at_rsgi.status, at_rsgi.headers["content-length"], at_rsgi.body) == (201, str(len(LONG_BODY)), LONG_BODY)
    assert lines == []


def test_head_does_not_read_the_stream() -> None:
    at_rsgi, _ = answer_at_rsgi(a_stream(error=ValueError()), "HEAD")
    at_asgi, _ = answer_at_asgi(a_stream(error=ValueError()), "HEAD")
    assert (at_rsgi.status, at_rsgi.body) == (200, b"")
    assert (at_asgi.status_code, at_asgi.content) == (200, b"")


@pytest.mark.parametrize(
    ("error", "status", "logged"),
    [
        (errors.Unavailable(), 503, []),
        (errors.ConfigurationError("no such file"), 500, ["request failed"]),
        (ValueError("x"), 500, ["request failed"]),
    ],
    ids=["unavailable", "configuration", "accident"],
)
def test_an_error_during_a_list_gives_an_error_response(error: Exception, status: int, logged: list[str]) -> None:
    at_rsgi, lines = answer_at_rsgi(a_stream(b"[1,2", error=error))
    at_asgi, _ = answer_at_asgi(a_stream(b"[1,2", error=error))
    message = json.loads(error_response(errors.Unavailable()).body) if status == 503 else INTERNAL_ERROR
    assert (at_rsgi.status, json.loads(at_rsgi.body)) == (status, message)
    assert (at_asgi.status_code, at_asgi.json()) == (status, message)
    assert [line["event"] for line in lines] == logged
    assert at_rsgi.headers["x-request-id"].startswith("req_")
    assert ("retry-after" in at_rsgi.headers) == (status == 503)


def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk on which the next write fails with "no space left"."""

    def write(file: object, chunk: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("ecomcharge.web.response_files._write", write)


def no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    def fcntl(*arguments: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("fcntl.fcntl", fcntl)


def no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent")


@pytest.mark.parametrize("spoil", [full_disk, no_descriptor, no_folder])
def test_without_a_temporary_file_a_stream_answers_503_and_a_long_body_is_sent(
    spoil: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(os.listdir("/dev/fd"))
    spoil(monkeypatch)
    at_rsgi, lines = answer_at_rsgi(a_stream(b"[1]"))
    assert (at_rsgi.status, json.loads(at_rsgi.body)) == (503, json.loads(error_response(errors.Unavailable()).body))
    assert [line["event"] for line in lines] == ["no temporary file for a long response"]
    at_rsgi, lines = answer_at_rsgi(Response(201, LONG_BODY, []))
    assert (at_rsgi.status, at_rsgi.body) == (201, LONG_BODY)
    assert len(lines) == 1
    assert set(os.listdir("/dev/fd")) <= before


def test_a_response_file_leaves_free_space_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecomcharge.web.response_files.RESERVED_BYTES", 1 << 60)
    monkeypatch.setattr("ecomcharge.web.response_files.RESERVED_FRACTION", 1)
    at_rsgi, lines = answer_at_rsgi(a_stream(b"[1]"))
    assert at_rsgi.status == 503
    assert lines[0]["reason"] == os.strerror(errno.ENOSPC)


def test_a_request_that_is_canceled_closes_its_temporary_file() -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"[1"
        await asyncio.sleep(60)

    before = deleted_files()

    async def cancel_a_request() -> None:
        task = asyncio.create_task(
            server_that(lambda: Stream(200, [], endless())).respond(Request("GET", "/", "", lambda name: None))
        )
        while deleted_files() <= before:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with capture_logs():
        asyncio.run(cancel_a_request())
    assert deleted_files() <= before


def deleted_files() -> set[str]:
    """The unlinked files that this process has open."""
    found = set()
    for number in os.listdir(DESCRIPTORS_FOLDER):
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"{DESCRIPTORS_FOLDER}/{number}"))
    return {link for link in found if link.endswith("(deleted)")}
