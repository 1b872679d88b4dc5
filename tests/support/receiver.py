"""A merchant's server for webhooks: it records requests and sends the configured response."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

ENDLESS: Final = "endless"  # a body without end
CLOSE: Final = "close"  # the connection ends without an answer
HANG: Final = "hang"  # no response until the client closes the connection
SLOW: Final = "slow"  # the status immediately, the body at one byte per second
RECEIVER_TIMEOUT_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.2

Answer = int | str


@dataclass(frozen=True)
class Received:
    head: bytes
    body: bytes
    at: float  # monotonic

    @property
    def line(self) -> str:
        return self.head.split(b"\r\n", 1)[0].decode()

    @property
    def headers(self) -> dict[str, str]:
        """Returns the headers by lower-case name."""
        lines = self.head.decode().split("\r\n")[1:]
        return {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


class Receiver:
    """Listens on a free port. ``answer`` may be changed at any time, or be a function of the received request."""

    def __init__(self, answer: Answer | Callable[[Received], Answer] = 200, tls: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.received: list[Received] = []
        self.connections = 0
        self._tls = tls
        self._changed = threading.Condition()
        self._ended = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._listener.settimeout(POLL_SECONDS)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}/hook"

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()  # before another listener reuses its descriptor, or this one would accept connections of that one
        self._listener.close()

    def wait_for(self, count: int, seconds: float = 20) -> list[Received]:
        """Wait for this number of requests. Returns fewer after the time limit."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.received) >= count, seconds)
            return list(self.received)

    @property
    def bodies(self) -> list[bytes]:
        with self._changed:
            return [each.body for each in self.received]

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            self.connections += 1
            threading.Thread(target=self._serve_connection, args=(connection,), daemon=True).start()

    def _serve_connection(self, plain: socket.socket) -> None:
        try:
            connection = self._tls.wrap_socket(plain, server_side=True) if self._tls else plain
            with connection:
                connection.settimeout(RECEIVER_TIMEOUT_SECONDS)
                while (received := _read(connection)) is not None:
                    with self._changed:
                        self.received.append(received)
                        self._changed.notify_all()
                    if not self._respond(connection, self.answer(received) if callable(self.answer) else self.answer):
                        return
        except OSError:
            plain.close()

    def _respond(self, connection: socket.socket, answer: Answer) -> bool:
        """Answer one request. Returns whether the connection stays open."""
        if answer == HANG:
            connection.recv(1)  # until the client closes the connection
            return False
        if answer == CLOSE:
            return False
        if answer == ENDLESS:
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while not self._ended.is_set():
                connection.sendall(b"10000\r\n" + bytes(0x10000) + b"\r\n")
        if answer == SLOW:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            while not self._ended.is_set():
                connection.sendall(b".")
                time.sleep(1)
        where = f"Location: {self.url}\r\n" if isinstance(answer, int) and 300 <= answer < 400 else ""
        connection.sendall(f"HTTP/1.1 {answer} Told\r\n{where}Content-Length: 2\r\n\r\nok".encode())
        return True


def _read(connection: socket.socket) -> Received | None:
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    received = Received(head, b"", 0)
    while len(body) < int(received.headers.get("content-length", "0")):
        body += connection.recv(65536)
    return Received(head, body, time.monotonic())
