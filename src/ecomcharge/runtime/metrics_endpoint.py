"""``/metrics`` and ``/healthz`` on a port of their own: of a billing worker, and of a server with ``--metrics-port``."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final

from ecomcharge.base.errors import ConfigurationError
from ecomcharge.web.exposition import CONTENT_TYPE

REQUEST_SECONDS: Final = 10.0
REQUEST_MAXIMUM_BYTES: Final = 16 * 1024
_REASONS: Final = {200: "OK", 404: "Not Found", 405: "Method Not Allowed"}


@contextlib.asynccontextmanager
async def metrics_endpoint(host: str, port: int, exposition: Callable[[], bytes], *, shared: bool = False) -> AsyncIterator[None]:
    """Serve until the end of the ``with`` statement. Raises ``ConfigurationError`` if the port cannot be used.

    ``shared``: several server processes listen, and each has the metrics of all.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_response(head, exposition))
                await writer.drain()
        writer.close()

    try:
        server = await asyncio.start_server(answer, host, port, limit=REQUEST_MAXIMUM_BYTES, reuse_port=shared or None)
    except OSError as error:
        raise ConfigurationError(f"--metrics-port: cannot listen on {host}:{port}: {error.strerror or error}") from error
    try:
        yield
    finally:
        server.close()


def _response(head: bytes, exposition: Callable[[], bytes]) -> bytes:
    method, _, rest = head.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    status, content_type, body = 200, "application/json", b'{"status":"ok"}'
    if method not in (b"GET", b"HEAD"):
        status, body = 405, b'{"message":"Method not allowed"}'
    elif path == b"/metrics":
        content_type, body = CONTENT_TYPE, exposition()
    elif path != b"/healthz":
        status, body = 404, b'{"message":"Not found"}'
    lines = (
        f"HTTP/1.1 {status} {_REASONS[status]}",
        f"content-type: {content_type}",
        f"content-length: {len(body)}",
        "cache-control: no-store",
        "x-content-type-options: nosniff",
        "connection: close",
    )
    return "\r\n".join((*lines, "", "")).encode() + (b"" if method == b"HEAD" else body)
