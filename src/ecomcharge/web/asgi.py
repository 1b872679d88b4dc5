"""The ASGI adapter, for tests and for every other server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from ecomcharge.base.errors import (
    BodyTooSlow,
    MalformedBody,
)
from ecomcharge.web.bodies import FORWARDED, Limits, _code_of_broken_answer, _joined
from ecomcharge.web.core import Server
from ecomcharge.web.messages import Headers, Request, Response, Stream

Receive = Callable[[], Awaitable[Any]]


Send = Callable[[Any], Awaitable[None]]


class AsgiAdapter:
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
