"""The RSGI adapter, for granian."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import os
import shutil
import socket
import stat
import struct
import tempfile
import termios
import time
from typing import Any, Final

import structlog

from ecomcharge.base.errors import (
    BodyTooLarge,
    MalformedBody,
    Unavailable,
)
from ecomcharge.web.bodies import FORWARDED, BodyDeadlines, Limits, _chunks_of, _code_of_broken_answer, _joined
from ecomcharge.web.core import Server
from ecomcharge.web.messages import Request, Response, Stream, error_response

log = structlog.get_logger()


LARGE_BODY_BYTES: Final = 256 * 1024


OPEN_TIMEOUT_SECONDS: Final = 5.0  # granian opens a pipe within milliseconds, or never: the client was gone


class RsgiAdapter:
    """granian's door."""

    def __init__(self, server: Server, limits: Limits) -> None:
        self._server = server
        self._limits = limits
        self._patience = BodyDeadlines(limits.body_timeout_seconds)
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

    def __init__(self, scope: Any, protocol: Any, limits: Limits, patience: BodyDeadlines) -> None:
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
