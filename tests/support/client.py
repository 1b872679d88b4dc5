"""The blocking and the asynchronous client behind one interface, and a server with prepared replies."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ecomcharge import AsyncClient, Client, Customer
from support.builders import a_customer

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
