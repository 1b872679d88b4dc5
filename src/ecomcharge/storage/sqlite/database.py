"""One SQLite file: opens it, and passes reads to the reader and units of work to the writer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import Sequence
from typing import TypeVar

import apsw

from ecomcharge.base.errors import ConfigurationError, Unavailable
from ecomcharge.storage.database import DatabaseStats, Migration, Params, ReplicaReader, Row, SettingWarning, Unit
from ecomcharge.storage.ownership import explain
from ecomcharge.storage.sqlite.background import BackgroundReader
from ecomcharge.storage.sqlite.connection import BUSY_TIMEOUT_MILLISECONDS, connect, create_if_missing, empty_log
from ecomcharge.storage.sqlite.errors import UNAVAILABLE, FilesReplaced
from ecomcharge.storage.sqlite.locks import WriteLock
from ecomcharge.storage.sqlite.migrations import apply_migrations
from ecomcharge.storage.sqlite.open_files import OpenFiles
from ecomcharge.storage.sqlite.reader import Reader
from ecomcharge.storage.sqlite.term_segments import levels_of, merge_some, next_step, structure_sql
from ecomcharge.storage.sqlite.transaction import select_sql
from ecomcharge.storage.sqlite.writer import Writer
from ecomcharge.storage.statements import PointRead, TermIndex

T = TypeVar("T")


class SqliteDatabase:
    """Implements ``Database``. Created on the event loop's thread, and used from it only.

    Set ``commit_in_thread`` to False when no request waits for this event loop. Two threads that alternate in the
    interpreter take processor time from other processes on the machine. Then there is no background either.
    """

    engine = "sqlite"
    is_distributed = False

    def __init__(self, path: str, *, commit_in_thread: bool = True) -> None:
        # SQLite keeps the log beside the file that a symbolic link points to, so the lock files must be there as well.
        self._path = os.path.realpath(path)
        self.stats = DatabaseStats()
        try:
            with contextlib.ExitStack() as stack:
                self._files = stack.enter_context(contextlib.closing(OpenFiles(self._path)))
                self._open_connections()
                stack.callback(self._close_connections)
                lock = stack.enter_context(contextlib.closing(WriteLock(self._path)))
                self._resources = stack.pop_all()
        except (apsw.Error, OSError, FilesReplaced) as error:
            raise ConfigurationError(f"cannot open the SQLite database {self._path}: {explain(error, self._path)}") from error
        self._background = BackgroundReader(self._path, self._files) if commit_in_thread else None
        self._writer = Writer(self._write_connection, lock, self._files, self.stats, commit_in_thread=commit_in_thread)

    def _open_connections(self) -> None:
        """Raises ``FilesReplaced`` when the processes that have the database open use other files.

        While the last of them closes it, SQLite deletes the log, so files may differ for a moment.
        """
        deadline = time.monotonic() + BUSY_TIMEOUT_MILLISECONDS / 1000
        while True:
            try:
                self._try_to_open_connections()
                return
            except (FilesReplaced, BlockingIOError):
                self._files.leave()
                if time.monotonic() > deadline:
                    raise
            time.sleep(random.uniform(0.01, 0.1))  # noqa: S311 - random, so that two processes do not stay in step

    def _try_to_open_connections(self) -> None:
        first = self._files.enter()
        if not first:
            self._files.check_recorded()  # before a file that was deleted is created again
        create_if_missing(self._path)
        self._write_connection = connect(self._path)
        self._reader = Reader(self._path)
        if first:
            self._files.record()
        try:
            self._files.check_recorded()
        except FilesReplaced:
            self._close_connections()
            raise

    def _close_connections(self) -> None:
        self._reader.close()
        self._write_connection.close()

    async def find(self, read: PointRead, key: Row) -> Row | None:
        self.stats.finds += 1
        self.stats.find_statements += 1
        rows = self._read(select_sql(read), key)
        return rows[0] if rows else None

    async def rows(self, sql: str, params: Params) -> Sequence[Row]:
        return self._read(sql, params)

    async def rows_in_background(self, sql: str, params: Params) -> Sequence[Row]:
        if self._background is None:
            return self._read(sql, params)
        try:
            return await self._background.rows(sql, params)
        except UNAVAILABLE as error:
            raise Unavailable from error

    async def replica_reader(self, stale_seconds: int) -> ReplicaReader | None:
        return None

    def _read(self, sql: str, values: Params | Row) -> Sequence[Row]:
        try:
            return self._reader.rows(sql, values)
        except UNAVAILABLE as error:
            raise Unavailable from error

    async def write(self, unit: Unit[T]) -> T:
        return await self._writer.write(unit)

    async def migrate(self, migrations: Sequence[Migration]) -> list[Migration]:
        """Raises ``Unavailable`` when the database cannot be written now."""
        try:
            return await asyncio.to_thread(apply_migrations, self._path, self._files, migrations)
        except UNAVAILABLE as error:
            raise Unavailable from error

    async def merge_terms(self, index: TermIndex, *, all_segments: bool = False) -> bool:
        ((structure,),) = self._read(structure_sql(index), {})
        if next_step(levels_of(structure), all_segments=all_segments) is None:
            return False
        return await self.write(lambda tx: merge_some(tx, index, all_segments=all_segments))

    async def overwrite_deleted(self) -> None:
        """Copy the log into the file, where deleted rows are overwritten, and empty it."""
        try:
            await asyncio.to_thread(empty_log, self._path)
        except UNAVAILABLE as error:
            raise Unavailable from error

    async def ping(self) -> None:
        try:
            self._reader.rows("SELECT version FROM schema_migrations LIMIT 1", {})
            self._files.check()
        except UNAVAILABLE as error:
            raise Unavailable from error

    async def setting_warnings(self) -> Sequence[SettingWarning]:
        """None: each connection has its settings."""
        return ()

    async def close(self) -> None:
        written = await self._writer.stop()
        if self._background is not None:
            self._background.close()
        if written:  # otherwise another process keeps the write lock; the kernel closes our files
            self._resources.close()
