"""Reads that take long, on threads and connections of their own, so that the event loop serves other requests meanwhile.

SQLite releases the interpreter's lock while it searches the next row. Each statement reads a snapshot of its own, which
contains every write acknowledged before it began.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Sequence
from typing import Final

import apsw

from ecomcharge.base.errors import Unavailable
from ecomcharge.storage.database import Params, Row
from ecomcharge.storage.sqlite.commit_thread import post
from ecomcharge.storage.sqlite.connection import BUSY_TIMEOUT_MILLISECONDS, connect
from ecomcharge.storage.sqlite.open_files import OpenFiles

THREADS: Final = 2  # a second one, so that a list need not wait for the count of a large shop
CACHE_KIBIBYTES: Final = 2_048  # a long list reads each page once
STEPS_BETWEEN_CHECKS: Final = 20_000  # of SQLite's virtual machine, less than a millisecond

_Read = tuple[str, Params, asyncio.Future[Sequence[Row]]]


class BackgroundReader:
    """Starts its threads and opens their connections with the first read. Call it on the event loop's thread only."""

    def __init__(self, path: str, files: OpenFiles) -> None:
        self._path = path
        self._files = files
        self._loop = asyncio.get_running_loop()
        self._reads: queue.SimpleQueue[_Read | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._is_closed = False

    async def rows(self, sql: str, params: Params) -> Sequence[Row]:
        """Raises ``Unavailable`` after ``close``, also for a read in progress, and the errors of SQLite."""
        if self._is_closed:
            raise Unavailable
        if not self._threads:
            self._threads = [threading.Thread(target=self._work, name="sqlite-read", daemon=True) for _ in range(THREADS)]
            for thread in self._threads:
                thread.start()
        rows: asyncio.Future[Sequence[Row]] = self._loop.create_future()
        self._reads.put((sql, params, rows))
        return await rows

    def close(self) -> None:
        """Interrupt the reads in progress, and close the connections."""
        self._is_closed = True
        for _ in self._threads:
            self._reads.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        connection: apsw.Connection | None = None
        while (read := self._reads.get()) is not None:
            sql, params, future = read
            if future.cancelled():
                continue
            rows, error = None, None
            try:
                connection = connection or self._connect()
                rows = self._rows(connection, sql, params)
            except BaseException as caught:
                error = caught
            post(self._loop, future, rows, error)
        if connection is not None:
            connection.close()

    def _connect(self) -> apsw.Connection:
        self._files.check()  # the first statements of a connection write to a new file
        connection = connect(self._path)
        try:
            self._files.check()
            connection.set_busy_timeout(BUSY_TIMEOUT_MILLISECONDS)
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIBIBYTES}")
            connection.set_progress_handler(lambda: self._is_closed, STEPS_BETWEEN_CHECKS)
        except BaseException:
            connection.close()
            raise
        return connection

    def _rows(self, connection: apsw.Connection, sql: str, params: Params) -> Sequence[Row]:
        if self._is_closed:
            raise Unavailable
        try:
            return connection.execute(sql, params).fetchall()
        except apsw.InterruptError as error:
            raise Unavailable from error
