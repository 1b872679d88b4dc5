"""The RSGI adapter, for granian."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from ecomcharge.base.errors import BodyTooLarge, MalformedBody
from ecomcharge.web.bodies import BodyDeadlines, Limits, join_chunks
from ecomcharge.web.dispatcher import Dispatcher
from ecomcharge.web.messages import Request, Response
from ecomcharge.web.response_files import ResponseFile

# granian opens a file within milliseconds and does not report it, so the descriptor stays open for much longer than that.
OPEN_SECONDS: Final = 5.0
SLOW_BODY_SECONDS: Final = 1.0
DISCARDED_BYTES: Final = 64 * 1024  # of a body that nothing needs
DISCARD_SECONDS: Final = 1.0


class RsgiAdapter:
    """An RSGI application: ``await adapter(scope, protocol)``.

    ``most_requests`` are in progress at a time; more wait, first come, first served. Requests that wait for their body are not
    counted, because a client can send it slowly.
    """

    def __init__(self, dispatcher: Dispatcher, limits: Limits, most_requests: int) -> None:
        self._dispatcher = dispatcher
        self._limits = limits
        self._most_requests = most_requests
        self._in_progress: set[RsgiRequest] = set()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._deadlines = BodyDeadlines(limits.body_timeout_seconds)

    async def __call__(self, scope: Any, protocol: Any) -> None:
        started = time.perf_counter()
        if scope.proto != "http":
            protocol.close(None)
            return
        request = RsgiRequest(scope, protocol, self._limits, self._deadlines, self.start_next)
        in_progress = self._in_progress
        in_progress.add(request)
        try:
            if len(in_progress) > self._most_requests and len(in_progress) - len(self._deadlines) > self._most_requests:
                await self._turn()
            response = await self._dispatcher.respond(request)
            if request.method != "GET" and not request.began_to_read:
                await request.discard_body()
            try:
                if isinstance(response, Response):
                    protocol.response_bytes(response.status, response.headers, response.body)
                elif isinstance(response, ResponseFile):
                    asyncio.get_running_loop().call_later(OPEN_SECONDS, response.close)
                    protocol.response_file(response.status, response.headers, response.path)
                else:
                    protocol.response_empty(response.status, response.headers)
            finally:
                self._dispatcher.record(request, response, time.perf_counter() - started)
        finally:
            in_progress.discard(request)
            if self._waiting:
                self.start_next()

    async def _turn(self) -> None:
        """Wait until another request ends. The requests that wait are in progress for ``ports_in_progress``."""
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        await waiting

    def start_next(self) -> None:
        """Start requests that wait, until enough are in progress."""
        while self._waiting and len(self._in_progress) - len(self._waiting) - len(self._deadlines) < self._most_requests:
            waiting = self._waiting.popleft()
            if not waiting.done():  # it is if its task was canceled
                waiting.set_result(None)

    def ports_in_progress(self) -> set[int]:
        """The ports of the clients whose requests are in progress, without those that send their body slowly."""
        return {request.peer_port() for request in self._in_progress if not request.is_slow()}


class RsgiRequest(Request):
    __slots__ = ("_deadlines", "_headers", "_limits", "_protocol", "_scope", "_task", "_when_waiting")

    def __init__(
        self, scope: Any, protocol: Any, limits: Limits, deadlines: BodyDeadlines, when_waiting: Callable[[], None]
    ) -> None:
        """``when_waiting`` is called when the request begins to wait for its body."""
        headers = scope.headers
        super().__init__(scope.method, scope.path, scope.query_string, headers.get)
        self._headers = headers
        self._scope = scope
        self._protocol = protocol
        self._limits = limits
        self._deadlines = deadlines
        self._when_waiting = when_waiting
        self._task: asyncio.Task[Any] | None = None  # that waits for the body

    def is_slow(self) -> bool:
        """Whether it has waited for its body for more than ``SLOW_BODY_SECONDS``."""
        return self._task is not None and self._deadlines.has_waited(self._task, SLOW_BODY_SECONDS)

    @property
    def began_to_read(self) -> bool:
        return self._task is not None

    async def discard_body(self) -> None:
        """Read a small body that the response does not need, such as that of a request without valid credentials.

        granian closes a connection whose request has a body that did not arrive before the response was sent. The client
        learns it only from its next request, which fails.
        """
        length = self.header("content-length")
        if length is None or not 0 < int(length) <= min(DISCARDED_BYTES, self._limits.max_body_bytes):
            return
        if self.header("expect") is not None:  # the client waits, and a look at the body would ask for it
            return
        with contextlib.suppress(TimeoutError, RuntimeError):  # the client is slow, or closed the connection
            async with asyncio.timeout(DISCARD_SECONDS):
                await self._protocol()

    def has(self, name: str) -> bool:
        return name in self._headers

    def has_one_host(self) -> bool:
        hosts = len(self._headers.get_all("host"))
        return hosts == 1 or (hosts == 0 and self._scope.http_version == "1" and "host" not in self._headers)

    def peer(self) -> str:
        address: str = self._scope.client.rpartition(":")[0]
        return address.strip("[]")

    def peer_port(self) -> int:
        return int(self._scope.client.rpartition(":")[2])

    def all_of(self, name: str) -> str:
        return ", ".join(self._headers.get_all(name))

    async def read_body(self) -> bytes:
        length = self.header("content-length")
        if length is not None and int(length) > self._limits.max_body_bytes:
            raise BodyTooLarge
        task = self._task = self._deadlines.start()
        self._when_waiting()
        try:
            if length is not None:
                return bytes(await self._protocol())
            return await join_chunks(self._protocol, self._limits.max_body_bytes)
        except asyncio.CancelledError:
            self._deadlines.raise_if_missed(task)
            raise
        except RuntimeError as error:  # the client closed the connection before the end of the body
            raise MalformedBody from error
        finally:
            self._deadlines.stop(task)
