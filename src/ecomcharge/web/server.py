"""The core: a function from request to response, and the two doors in front of it.

RSGI is granian's own interface and the fast door; ASGI is for tests and for every other server. Behind them
there is no framework: find the route, know the shop, call the handler, turn an error into a response.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import os
import re
import secrets
import shutil
import socket
import stat
import struct
import tempfile
import termios
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from ecomcharge.errors import (
    BodyTooLarge,
    BodyTooSlow,
    EcomchargeError,
    MalformedBody,
    MethodNotAllowed,
    RouteNotFound,
    Unavailable,
    Unusable,
)
from ecomcharge.observability import Journal, Note
from ecomcharge.web.auth import Authenticator, RequestRate
from ecomcharge.web.wire import Headers, Request, Response, Stream, error_response, internal_error_response

log = structlog.get_logger()

Handler = Callable[[Request], Awaitable[Response | Stream]]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

FORWARDED: Final = "x-forwarded-for"
LARGE_BODY_BYTES: Final = 256 * 1024
OPEN_TIMEOUT_SECONDS: Final = 5.0  # granian opens a pipe within milliseconds, or never: the client was gone
METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"))
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}\Z")


@dataclass(frozen=True, slots=True)
class Route:
    """``path`` has ``{}`` in place of one segment, the last or the one before it, or of the last two."""

    method: str
    path: str
    handler: Handler
    needs_shop: bool = True


class Router:
    def __init__(self, routes: Sequence[Route]) -> None:
        self._methods: dict[str, dict[str, Route]] = {}
        for route in routes:
            self._methods.setdefault(route.path, {})[route.method] = route

    def find(self, method: str, path: str) -> tuple[Route, str]:
        """The route and the value of its ``{}``. Raises ``RouteNotFound`` or ``MethodNotAllowed``."""
        argument = ""
        methods = self._methods.get(path)
        if methods is None:
            methods, argument = self._with_argument(path.removesuffix("/"))
        route = methods.get(method) or methods.get("GET" if method == "HEAD" else "")
        if route is None:
            raise MethodNotAllowed(sorted(methods | {"HEAD": None} if "GET" in methods else methods))
        return route, argument

    def _with_argument(self, path: str) -> tuple[dict[str, Route], str]:
        if path in self._methods:  # it had a slash at its end
            return self._methods[path], ""
        head, _, argument = path.rpartition("/")
        methods = self._methods.get(f"{head}/{{}}")
        if methods is None:  # the argument may have a name behind it
            before, _, name = path.rpartition("/")
            head, _, argument = before.rpartition("/")
            methods = self._methods.get(f"{head}/{{}}/{name}")
        if methods is None:  # or another argument
            methods = self._methods.get(f"{head}/{{}}/{{}}")
            argument = f"{argument}/{name}"
        if methods is None or not argument:
            raise RouteNotFound
        return methods, argument


class Server:
    """From request to response. Knows routes and shops, and nothing of sockets."""

    def __init__(
        self,
        routes: Sequence[Route],
        authenticator: Authenticator,
        rate: RequestRate,
        journal: Journal,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """``before`` is done before each request is handled."""
        self._before = before
        self._router = Router(routes)
        self._authenticator = authenticator
        self._rate = rate
        self._journal = journal
        self._request_ids = map(f"req_{secrets.token_hex(6)}{{:08x}}".format, itertools.count())

    async def respond(self, request: Request) -> Response | Stream:
        """The answer to a request. Whatever a handler raises becomes an answer and, where it is our fault, a log line.

        Raises nothing but ``CancelledError``, and that only when the task of the request itself is canceled.
        """
        try:
            given = request.header("x-request-id")
            request.request_id = given if given and _REQUEST_ID.match(given) else next(self._request_ids)
            route, request.argument = self._router.find(request.method, request.path)
            request.route = route.path
            if route.needs_shop:
                request.shop_id = await self._authenticator.shop_of(request)
                self._rate.take(request.shop_id)
            if self._before is not None:
                await self._before()
            response = await route.handler(request)
        except asyncio.CancelledError as error:
            if _is_being_canceled():
                with contextlib.suppress(OSError, ValueError):
                    log.warning("request canceled", request_id=request.request_id, route=request.route)
                raise
            response = self._error_answer(request, error)  # something that it waited for was canceled
        except Exception as error:
            response = self._error_answer(request, error)
        if request.answer_headers:
            response.headers.extend(request.answer_headers)
        response.headers.append(("x-request-id", request.request_id))
        return response

    def _error_answer(self, request: Request, error: BaseException) -> Response:
        """The answer to what was raised. Never raises; the log has the cause of every 500."""
        if not request.request_id:
            request.request_id = next(self._request_ids)
        try:
            response = error_response(error) if isinstance(error, EcomchargeError) else internal_error_response()
        except Exception as fault:  # the error cannot be shown
            error, response = fault, internal_error_response()
        if response.status == 500:
            with contextlib.suppress(OSError, ValueError):  # the log may be what failed
                if isinstance(error, Unusable):  # an operator can act on its sentence; a traceback adds nothing
                    log.error("request failed", request_id=request.request_id, route=request.route, reason=error.message)
                else:
                    log.error("request failed", request_id=request.request_id, route=request.route, exc_info=error)
        return response

    def answered(self, request: Request, response: Response | Stream, seconds: float) -> None:
        """To be told when an answer was handed over, or its stream ended."""
        method = request.method if request.method in METHODS else "OTHER"
        route = request.route or "-"
        note = Note(time.time(), request.request_id, method, route, response.status, response.code, request.shop_id, seconds)
        self._journal.note(note)


def _is_being_canceled() -> bool:
    """Whether somebody asked to cancel the current task, rather than something that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may ask of a door: the size of a body in bytes, and seconds of patience."""

    max_body_bytes: int
    body_timeout_seconds: float
    stall_timeout_seconds: float


class RsgiDoor:
    """granian's door."""

    def __init__(self, server: Server, limits: Limits) -> None:
        self._server = server
        self._limits = limits
        self._patience = Patience(limits.body_timeout_seconds)
        self._pipes = tempfile.mkdtemp(prefix="ecomcharge-pipes-")

    def close(self) -> None:
        shutil.rmtree(self._pipes, ignore_errors=True)

    async def __call__(self, scope: Any, protocol: Any) -> None:
        started = time.perf_counter()
        if scope.proto != "http":
            protocol.close(None)
            return
        request = RsgiRequest(scope, protocol, self._limits, self._patience)
        response = await self._server.respond(request)
        try:
            if isinstance(response, Response) and len(response.body) <= LARGE_BODY_BYTES:
                protocol.response_bytes(response.status, response.headers, response.body)
            elif request.method == "HEAD":
                protocol.response_empty(response.status, response.headers)
            else:
                response = await self._send_large(protocol, request, response, scope.client)
        finally:
            self._server.answered(request, response, time.perf_counter() - started)

    async def _send_large(self, protocol: Any, request: Request, response: Response | Stream, client: str) -> Response | Stream:
        """Send through a pipe; where none can be made, a body as it is and 503 instead of a stream. What was answered."""
        try:
            pipe = _Pipe(self._pipes, self._limits.stall_timeout_seconds)
        except OSError as error:
            log.error("no pipe for a long answer", request_id=request.request_id, reason=error.strerror)
            if isinstance(response, Stream):
                response = error_response(Unavailable())
                response.headers.append(("x-request-id", request.request_id))
            protocol.response_bytes(response.status, response.headers, response.body)
            return response
        await _send_through_pipe(protocol, request, response, pipe, client)
        return response


class RsgiRequest(Request):
    __slots__ = ("_headers", "_limits", "_patience", "_protocol", "_scope")

    def __init__(self, scope: Any, protocol: Any, limits: Limits, patience: Patience) -> None:
        headers = scope.headers
        super().__init__(scope.method, scope.path, scope.query_string, headers.get)
        self._headers = headers
        self._scope = scope
        self._protocol = protocol
        self._limits = limits
        self._patience = patience

    def has(self, name: str) -> bool:
        return name in self._headers

    def peer(self) -> str:
        address: str = self._scope.client.rpartition(":")[0]
        return address.strip("[]")

    def forwarded_for(self) -> str:
        return ", ".join(self._headers.get_all(FORWARDED))

    async def read_body(self) -> bytes:
        length = self.header("content-length")
        if length is not None and int(length) > self._limits.max_body_bytes:
            raise BodyTooLarge
        task = self._patience.begin()
        try:
            if length is not None:
                return bytes(await self._protocol())
            return await _joined(self._protocol, self._limits.max_body_bytes)
        except asyncio.CancelledError:
            self._patience.raise_if_lost(task)
            raise
        except RuntimeError as error:  # the client went away halfway
            raise MalformedBody from error
        finally:
            self._patience.end(task)


class Patience:
    """Ends the wait for bodies that do not come in time, to a quarter of the time (at most a second) exactly.

    One timer looks after all of them, and only while there are any: a timer for each would cost a create more
    than its validation does.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: dict[asyncio.Task[Any], float] = {}
        self._lost: set[asyncio.Task[Any]] = set()
        self._watching = False
        self._loop: asyncio.AbstractEventLoop | None = None  # that runs, once it does

    def begin(self) -> asyncio.Task[Any]:
        """The current task begins to wait."""
        loop = self._loop
        if loop is None:  # to ask for it is a call to the system
            loop = self._loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None
        self._until[task] = loop.time() + self._seconds
        if not self._watching:
            self._watching = True
            loop.call_later(min(1.0, self._seconds / 4), self._watch)
        return task

    def end(self, task: asyncio.Task[Any]) -> None:
        del self._until[task]

    def raise_if_lost(self, task: asyncio.Task[Any]) -> None:
        """Raise ``BodyTooSlow`` if it was us who cancelled the task."""
        if task in self._lost:
            self._lost.discard(task)
            task.uncancel()
            raise BodyTooSlow

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for task, until in self._until.items():
            if now > until and task not in self._lost:
                self._lost.add(task)
                task.cancel()
        self._watching = bool(self._until)
        if self._watching:
            loop.call_later(min(1.0, self._seconds / 4), self._watch)


async def _joined(chunks: AsyncIterator[bytes], limit: int) -> bytes:
    """A body of unannounced length. It may end early when the client goes away: half an object is no JSON."""
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > limit:
            raise BodyTooLarge
    return bytes(body)


async def _send_through_pipe(protocol: Any, request: Request, stream: Response | Stream, pipe: _Pipe, client: str) -> None:
    """Send a stream, or a large body, no faster than the client takes it.

    granian queues what a handler sends without bound, so a slow client would make memory grow. It reads files
    as the client takes them, though, and a named pipe is a file: what the client does not take stays in the pipe,
    and a full pipe makes us wait. A client that takes nothing for the pipe's timeout is cut off; its body
    ends before the closing bracket, so it cannot be mistaken for a whole one.
    """
    try:
        protocol.response_file(stream.status, stream.headers, pipe.path)
        async for chunk in _chunks_of(stream):
            await pipe.write(chunk)
            await asyncio.sleep(0)
        await pipe.wait_until_opened()
    except BrokenPipeError:
        stream.code = "client_went_away"
    except TimeoutError:
        stream.code = "client_went_away"
        _hang_up(client)
    except Exception as error:
        stream.code = _code_of_broken_answer(request, error)
    finally:
        pipe.close()


def _code_of_broken_answer(request: Request, error: Exception) -> str:
    """The code of an error after the answer began: its status is sent, so that only the log can say what went wrong."""
    with contextlib.suppress(OSError, ValueError):
        if isinstance(error, EcomchargeError):
            log.error("answer broke off", request_id=request.request_id, route=request.route, reason=error.message)
        else:
            log.error("answer broke off", request_id=request.request_id, route=request.route, exc_info=error)
    return error.code if isinstance(error, EcomchargeError) else "internal_error"


async def _chunks_of(response: Response | Stream) -> AsyncIterator[bytes]:
    if isinstance(response, Response):
        yield response.body
    else:
        async for chunk in response.chunks:
            yield chunk


def _hang_up(client: str) -> None:
    """Shut the connection of a client that takes nothing.

    granian waits for such a client without end and offers no handle of the connection, so it is found among
    this process's sockets by the client's address (``127.0.0.1:50000``, ``[::1]:50000``).
    """
    host, _, port = client.rpartition(":")
    wanted = (host.strip("[]"), int(port))
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):  # not connected, or closed meanwhile
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as connection:
                if connection.family in (socket.AF_INET, socket.AF_INET6) and connection.getpeername()[:2] == wanted:
                    connection.shutdown(socket.SHUT_RDWR)


class _Pipe:
    """The writing end of a named pipe whose reading end somebody else opens.

    Our own reading end must stay open until then, since a pipe without a reader cannot be written to, and be closed
    soon after, or we should never learn that the reader left. That something was read is how we know that it was
    opened. The name is never used twice, so whoever comes too late opens nothing.
    """

    _numbers = itertools.count()

    def __init__(self, folder: str, timeout_seconds: float) -> None:
        self.path = f"{folder}/{next(self._numbers)}"
        self._timeout_seconds = timeout_seconds
        self._reading: int | None = None
        os.mkfifo(self.path, 0o600)
        try:
            self._reading = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            self._writing = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            self._close_reading()
            os.unlink(self.path)
            raise

    async def write(self, data: bytes) -> None:
        """Raises ``BrokenPipeError`` when the reader left and ``TimeoutError`` when it does not read."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._writing, rest) :]
            except BlockingIOError:
                await self._wait_for_room()
                self._close_reading()

    async def wait_until_opened(self) -> None:
        """Return when somebody has read, or nothing is left to read. Raises ``TimeoutError``."""
        async with asyncio.timeout(min(self._timeout_seconds, OPEN_TIMEOUT_SECONDS)):
            while self._reading is not None and not _is_empty(self._reading):
                await asyncio.sleep(0.001)

    def close(self) -> None:
        self._close_reading()
        os.close(self._writing)
        os.unlink(self.path)

    async def _wait_for_room(self) -> None:
        loop = asyncio.get_running_loop()
        room = asyncio.Event()
        loop.add_writer(self._writing, room.set)
        patience = self._timeout_seconds if self._reading is None else min(self._timeout_seconds, OPEN_TIMEOUT_SECONDS)
        try:
            async with asyncio.timeout(patience):
                await room.wait()
        finally:
            loop.remove_writer(self._writing)

    def _close_reading(self) -> None:
        if self._reading is not None:
            os.close(self._reading)
            self._reading = None


def _is_empty(reading: int) -> bool:
    waiting: int = struct.unpack("i", fcntl.ioctl(reading, termios.FIONREAD, bytes(4)))[0]
    return waiting == 0


class AsgiDoor:
    """The standard door: for tests in the same process and for servers other than granian."""

    def __init__(self, server: Server, limits: Limits) -> None:
        self._server = server
        self._limits = limits

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        request = AsgiRequest(scope, receive, self._limits)
        response = await self._server.respond(request)
        try:
            await _send(send, request, response)
        except Exception as error:
            response.code = _code_of_broken_answer(request, error)
            raise  # so that the server closes the connection before the body's end
        finally:
            self._server.answered(request, response, time.perf_counter() - started)


async def _send(send: Send, request: Request, response: Response | Stream) -> None:
    raw: list[tuple[bytes, bytes]] = _raw(response.headers)
    if isinstance(response, Response):
        raw.append((b"content-length", str(len(response.body)).encode()))
        await send({"type": "http.response.start", "status": response.status, "headers": raw})
        await send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else response.body})
    else:
        await send({"type": "http.response.start", "status": response.status, "headers": raw})
        if request.method != "HEAD":
            async for chunk in response.chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


class AsgiRequest(Request):
    __slots__ = ("_headers", "_limits", "_receive", "_scope")

    def __init__(self, scope: dict[str, Any], receive: Receive, limits: Limits) -> None:
        headers: dict[str, bytes] = {}
        for name, value in scope["headers"]:  # of repeated ones the first, as at the other door
            headers.setdefault(name.decode("latin-1"), value)
        super().__init__(scope["method"], scope["path"], scope["query_string"].decode("latin-1"), self._readable)
        self._headers = headers
        self._scope = scope
        self._receive = receive
        self._limits = limits

    def _readable(self, name: str) -> str | None:
        value = self._headers.get(name)
        return value.decode() if value is not None and value.isascii() else None

    def has(self, name: str) -> bool:
        return name in self._headers

    def peer(self) -> str:
        address: str = (self._scope.get("client") or ("unknown", 0))[0]
        return address

    def forwarded_for(self) -> str:
        return ", ".join(value.decode("latin-1") for name, value in self._scope["headers"] if name == FORWARDED.encode())

    async def read_body(self) -> bytes:
        try:
            async with asyncio.timeout(self._limits.body_timeout_seconds):
                return await _joined(_messages(self._receive), self._limits.max_body_bytes)
        except TimeoutError as error:
            raise BodyTooSlow from error


async def _messages(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise MalformedBody
        yield message.get("body", b"")
        if not message.get("more_body"):
            return


def _raw(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
