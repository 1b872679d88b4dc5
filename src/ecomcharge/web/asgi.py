"""The ASGI adapter, for tests in the same process and for servers other than granian."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from ecomcharge.base.errors import BodyTooSlow, MalformedBody
from ecomcharge.web.bodies import Limits, join_chunks
from ecomcharge.web.dispatcher import Dispatcher
from ecomcharge.web.messages import Headers, Request, Response
from ecomcharge.web.response_files import ResponseFile

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

READ_BYTES: Final = 128 * 1024


class AsgiAdapter:
    """An ASGI 3 application: ``await adapter(scope, receive, send)``."""

    def __init__(self, dispatcher: Dispatcher, limits: Limits) -> None:
        self._dispatcher = dispatcher
        self._limits = limits

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        request = AsgiRequest(scope, receive, self._limits)
        response = await self._dispatcher.respond(request)
        try:
            if isinstance(response, Response):
                headers = [*response.headers, ("content-length", str(len(response.body)))]
                await _start(send, response.status, headers)
                await send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else response.body})
            elif isinstance(response, ResponseFile):
                await _send_file(send, response)
            else:
                await _start(send, response.status, response.headers)
                await send({"type": "http.response.body", "body": b""})
        finally:
            self._dispatcher.record(request, response, time.perf_counter() - started)


async def _start(send: Send, status: int, headers: Headers) -> None:
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    await send({"type": "http.response.start", "status": status, "headers": raw})


async def _send_file(send: Send, file: ResponseFile) -> None:
    try:
        await _start(send, file.status, file.headers)
        while chunk := os.read(file.descriptor, READ_BYTES):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        file.close()


class AsgiRequest(Request):
    __slots__ = ("_headers", "_limits", "_receive", "_scope")

    def __init__(self, scope: dict[str, Any], receive: Receive, limits: Limits) -> None:
        headers: dict[str, bytes] = {}
        for name, value in scope["headers"]:  # of a repeated header the first one, as granian does
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

    def has_one_host(self) -> bool:
        hosts = sum(name == b"host" for name, _ in self._scope["headers"])
        return hosts == 1 or (hosts == 0 and self._scope.get("http_version") == "1.0")

    def peer(self) -> str:
        address: str = (self._scope.get("client") or ("unknown", 0))[0]
        return address

    def all_of(self, name: str) -> str:
        return ", ".join(value.decode("latin-1") for other, value in self._scope["headers"] if other == name.encode())

    async def read_body(self) -> bytes:
        try:
            async with asyncio.timeout(self._limits.body_timeout_seconds):
                return await join_chunks(_body_chunks(self._receive), self._limits.max_body_bytes)
        except TimeoutError as error:
            raise BodyTooSlow from error


async def _body_chunks(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise MalformedBody
        yield message.get("body", b"")
        if not message.get("more_body"):
            return
