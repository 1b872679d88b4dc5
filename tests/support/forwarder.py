"""Forwards TCP connections, as a proxy in front of a database server does."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
import threading
from pathlib import Path
from types import TracebackType

from support.postgres import free_port

_TLS_REQUEST = struct.pack("!ii", 8, 80877103)  # the first message of a client of PostgreSQL that wants TLS


class Forwarder:
    """Forwards connections on a port to ``target``, a port of this machine.

    A change of ``target`` affects new connections only. After ``silence`` the open connections stay open, and nothing that
    is sent over them arrives any more, as after a firewall forgot them. ``refuses``: new connections are closed at once.
    With a certificate and its key it speaks TLS with clients of PostgreSQL, and sends the server what it decrypted.
    """

    def __init__(self, target: int, certificate: tuple[Path, Path] | None = None) -> None:
        self._tls: ssl.SSLContext | None = None
        if certificate is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(*certificate)
        self.target = target
        self.port = free_port()
        self.refuses = False
        self.accepted = 0
        self._generation = 0
        self._writers: list[asyncio.StreamWriter] = []
        self._loop: asyncio.AbstractEventLoop
        self._stopped: asyncio.Event
        self._started = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._run(),), daemon=True)

    def silence(self) -> None:
        self._generation += 1

    async def _run(self) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self._started.set()
        await self._stopped.wait()
        server.close()
        for writer in self._writers:
            writer.close()
        await asyncio.sleep(0.05)  # the handlers read the end of their streams

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.append(writer)
        if self.refuses:
            writer.close()
            return
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        self._writers.append(server_writer)
        generation = self._generation
        if self._tls is not None:
            with contextlib.suppress(OSError, EOFError):  # the client does not accept the certificate
                await reader.readexactly(len(_TLS_REQUEST))
                writer.write(b"S")
                await writer.start_tls(self._tls)
        await asyncio.gather(
            self._forward(reader, server_writer, generation),
            self._forward(server_reader, writer, generation),
        )

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, generation: int) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                if generation == self._generation:
                    writer.write(data)
                    await writer.drain()
        if generation == self._generation:
            writer.close()

    def __enter__(self) -> Forwarder:
        self._thread.start()
        self._started.wait(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(10)
