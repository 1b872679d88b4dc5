"""The blocking and the asynchronous client behind one interface, and a server with prepared replies."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ecomcharge import AsyncClient, Client
from support.builders import a_customer
from support.shops import Shop

JANE = a_customer("jane@shop.test")
JANE_ANSWERED = b"""{"id":"cst_7aee5afb954c7ef7","first_name":null,"last_name":null,"address":null,"country":null,
"city":null,"zip":null,"state":null,"phone":null,"email":"jane@shop.test","ip":"127.0.0.1","external_id":null,"new":1}"""
SECRET = "a-very-secret-key"


class InOneLoop:
    """An ``AsyncClient`` with the blocking interface of ``Client``."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(*arguments, **options)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            made = getattr(self._client, name)(*arguments, **options)
            return self._collected(made) if isinstance(made, AsyncIterator) else self._runner.run(made)

        return call

    def _collected(self, records: AsyncIterator[Any]) -> Iterator[Any]:
        async def collect() -> list[Any]:
            return [record async for record in records]

        yield from self._runner.run(collect())

    def __enter__(self) -> InOneLoop:
        self._runner.run(self._client.__aenter__())
        return self

    def __exit__(self, *exception: object) -> None:
        self._runner.run(self._client.__aexit__(*exception))
        self._runner.close()


Connect = Callable[..., Client]


def as_shop(connect: Connect, shop: Shop, url: str | None = None, **options: Any) -> Client:
    """A client with the credentials of a shop, of its server unless ``url`` is another one."""
    return connect(url or shop.url, shop.shop_id, shop.secret_key, **options)


@dataclass
class Reply:
    """A prepared reply. With ``cut`` the server closes the connection without a response."""

    status: int = 201
    body: bytes = JANE_ANSWERED
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False


Answer = Callable[[BaseHTTPRequestHandler, bytes], Reply]


@dataclass
class StandIn:
    """A server that sends prepared replies and records each request and its time."""

    url: str = ""
    lines: list[str] = field(default_factory=list)  # method and path
    bodies: list[bytes] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    @property
    def keys(self) -> list[str]:
        return [headers["idempotency-key"] for headers in self.headers]


@contextmanager
def stand_in(*replies: Reply | Answer) -> Iterator[StandIn]:
    """A server that sends these replies in turn and then repeats the last one."""
    seen = StandIn()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            with lock:
                reply = replies[min(len(seen.paths), len(replies) - 1)]
                seen.lines.append(f"{self.command} {self.path}")
                seen.bodies.append(body)
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

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

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
