"""Raw HTTP, for tests that send requests which no HTTP library can send."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

TIMEOUT_SECONDS = 15.0
READ_BYTES = 256 * 1024


@dataclass(frozen=True)
class Answer:
    """A response. ``headers`` keeps order and repetition, with names in lower case."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for known, value in self.headers if known == name), None)

    def json(self) -> Any:
        return json.loads(self.body)


class ConnectionEnded(Exception):
    """The server closed the connection before the end of a response."""


class Wire:
    """One connection. ``send`` takes any bytes; ``answer`` reads one complete response."""

    def __init__(self, port: int, *, timeout_seconds: float = TIMEOUT_SECONDS, receive_buffer_bytes: int | None = None) -> None:
        self._socket = socket.socket()
        if receive_buffer_bytes is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self._socket.settimeout(timeout_seconds)
        self._socket.connect(("127.0.0.1", port))
        self._waiting = bytearray()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def answer(self, *, to_head: bool = False) -> Answer:
        """Raises ``ConnectionEnded`` if the server closes the connection first."""
        head = self._until(b"\r\n\r\n").decode("latin-1")
        first, *lines = head[:-4].split("\r\n")
        headers = tuple((name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines))
        named = dict(headers)
        if to_head:
            body = b""
        elif named.get("transfer-encoding") == "chunked":
            body = self._chunked()
        else:
            body = self._exactly(int(named.get("content-length", "0")))
        return Answer(int(first.split(" ")[1]), headers, body)

    def read(self, most_bytes: int = READ_BYTES) -> bytes:
        """Returns the available bytes, or none if the server has closed its side."""
        if self._waiting:
            data, self._waiting = bytes(self._waiting), bytearray()
            return data
        try:
            return self._socket.recv(most_bytes)
        except (ConnectionResetError, BrokenPipeError):
            return b""

    def ended_within(self, seconds: float) -> bool:
        """Returns whether the server closes the connection within that time."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                if not self.read():
                    return True
            except TimeoutError:
                return False
        return False

    def finish_sending(self) -> None:
        """Close the client's side of the connection; responses can still be read."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _more(self) -> None:
        try:
            data = self._socket.recv(READ_BYTES)
        except (ConnectionResetError, BrokenPipeError) as error:
            raise ConnectionEnded(bytes(self._waiting)) from error
        if not data:
            raise ConnectionEnded(bytes(self._waiting))
        self._waiting += data

    def _until(self, end: bytes) -> bytes:
        while (found := self._waiting.find(end)) < 0:
            self._more()
        return self._exactly(found + len(end))

    def _exactly(self, size: int) -> bytes:
        while len(self._waiting) < size:
            self._more()
        taken = bytes(self._waiting[:size])
        del self._waiting[:size]
        return taken

    def _chunked(self) -> bytes:
        parts = []
        while size := int(self._until(b"\r\n"), 16):
            parts.append(self._exactly(size + 2)[:-2])
        self._until(b"\r\n")
        return b"".join(parts)


def basic(user: object, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def head(method: str, target: str, *headers: tuple[str, str | bytes]) -> bytes:
    """Returns a request line and headers, with ``Host`` and the final empty line."""
    lines = [f"{method} {target} HTTP/1.1".encode(), b"Host: localhost"]
    lines += [f"{name}: ".encode() + (value if isinstance(value, bytes) else value.encode("latin-1")) for name, value in headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def request(method: str, target: str, *headers: tuple[str, str | bytes], body: bytes | None = None) -> bytes:
    """Returns a whole request, with Content-Length if it has a body."""
    if body is None:
        return head(method, target, *headers)
    return head(method, target, *headers, ("Content-Length", str(len(body)))) + body


def chunked(parts: Iterable[bytes]) -> bytes:
    return b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in parts) + b"0\r\n\r\n"
