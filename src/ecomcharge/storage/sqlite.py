"""SQLite by apsw: WAL, synchronous=FULL, one writer, group commit.

Who does what, and why (measured on CPython with its global lock):

- Readers and the statements of writers run on the event loop's own thread. A point read takes some 9 µs, an
  insert some 10 µs: less than handing either to another thread and back.
- Only what waits for the disk or for another process runs on the second thread: COMMIT, and the wait for the
  write lock. While it does, the loop serves reads and collects the units of the next commit.
- Between processes, the write lock is handed over by two file locks (``-queue`` and ``-writer`` beside the
  database file) that the kernel wakes waiters for. SQLite's own lock is polled, and its sleeping pollers are
  overtaken by whoever asks at the right moment; here a process that has just committed queues behind those
  that wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import os
import queue
import random
import threading
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import apsw
import structlog

from ecomcharge.base.errors import ConfigurationError, Unavailable
from ecomcharge.storage.database import Load, Migration, Params, Row, Unit
from ecomcharge.storage.statements import Insert, PointRead

T = TypeVar("T")

log = structlog.get_logger()

BUSY_TIMEOUT_MILLISECONDS = 5_000
MOST_UNITS_PER_COMMIT = 256
CACHE_KIBIBYTES = 65_536
LOG_BYTES = 64 * 2**20  # of the write-ahead log, beyond which reads share no transactions, so that it can start anew
# Each connection is used by one thread at a time, so SQLite need not take a lock of its own for every column it hands out.
_OPEN = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOMUTEX
_CREATION = threading.Lock()  # held while a database file is created, so that no thread opens it before it is closed again
MAPPED_BYTES = 2**36  # of address space, not of memory: pages beyond the cache are read where the system keeps them


class FilesReplaced(Exception):
    """The database file, its log or its shared memory was deleted or replaced while this process had it open."""

    def __init__(self, file: str) -> None:
        super().__init__(
            f"{file} was deleted or replaced while it was in use; stop every process that uses the database"
            " (SIGTERM, so that SQLite can save what is in the log), then start them again"
        )


# Errors that mean "not now": the disk is full, gone or read-only, the lock is held for too long, or files were replaced.
_UNAVAILABLE = (
    FilesReplaced,
    apsw.BusyError,
    apsw.CantOpenError,
    apsw.CorruptError,
    apsw.FullError,
    apsw.IOError,
    apsw.LockedError,
    apsw.NoMemError,
    apsw.NotADBError,
    apsw.ProtocolError,
    apsw.ReadOnlyError,
)


# Of one unit: whom to tell, its result, or what it refused with.
Outcome = tuple[asyncio.Future[Any], Any, BaseException | None]


class _Apart(BaseException):  # nothing that a unit catches
    """A unit failed after it had written, or cannot tell what it wrote: roll back, and give each a savepoint of its own."""


class SqliteTransaction:
    """The writer's connection, lent to one unit of work. Nothing here suspends.

    ``alone`` tells whether the unit has a savepoint of its own, ``wrote`` whether it has written.
    """

    __slots__ = ("_connection", "_execute", "_executemany", "alone", "wrote")

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        cursor = connection.cursor()
        self._execute, self._executemany = cursor.execute, cursor.executemany
        self.alone = False
        self.wrote = False

    async def find(self, read: PointRead, key: Row) -> Row | None:
        rows = self._execute(_select(read), key).fetchall()  # to the end, so that the statement holds no lock
        return rows[0] if rows else None

    async def insert(self, insert: Insert, row: Row) -> bool:
        inserted = self._inserted(_insert(insert), row)
        self.wrote = self.wrote or inserted
        return inserted

    async def find_many(self, read: PointRead, keys: Sequence[Row]) -> Sequence[Row | None]:
        return [await self.find(read, key) for key in keys]

    async def insert_many(self, insert: Insert, rows: Sequence[Row]) -> Sequence[bool]:
        text = _insert(insert)
        self.wrote = True  # or will have, should one of them fail
        if self.alone:
            return [self._inserted(text, row) for row in rows]
        before = self._connection.total_changes()
        self._executemany(text, rows)
        if self._connection.total_changes() - before < len(rows):  # there are no triggers, which would count as well
            raise _Apart  # and tell row by row
        return [True] * len(rows)

    def _inserted(self, text: str, row: Row) -> bool:
        self._execute(text, row)
        return self._connection.changes() > 0

    async def rows(self, sql: str, params: Params) -> Sequence[Row]:
        before = self._connection.total_changes()
        rows = self._execute(sql, params).fetchall()
        if self._connection.total_changes() > before:
            raise RuntimeError("a statement that changes rows was passed to Transaction.rows")
        return rows

    async def run(self, sql: str, params: Params) -> int:
        self._execute(sql, params).fetchall()
        changed = self._connection.changes()
        self.wrote = self.wrote or changed > 0
        return changed

    async def run_returning(self, sql: str, params: Params) -> Sequence[Row]:
        rows = self._execute(sql, params).fetchall()
        self.wrote = self.wrote or bool(rows)
        return rows


@lru_cache(maxsize=1024)
def _select(read: PointRead) -> str:
    return read.sql(["?"] * len(read.key))


@lru_cache(maxsize=1024)
def _insert(insert: Insert) -> str:
    return insert.sql(f"VALUES ({', '.join('?' * len(insert.columns))})")


class _Reader:
    """The connection for reads outside transactions. Used on the event loop's thread only.

    Reads of one turn of the event loop share a transaction from the second on: to begin and end one, which is locks in a
    file that all processes share, costs almost as much as a point read itself. None of them is late by that. What may
    read before ``_part`` runs was in the loop's queue before ``_part`` was, so its request had come in before the
    transaction began, and that sees whatever was acknowledged until then. Who waits for something else than the loop (a
    command for its input or output) ends its turn first.
    """

    def __init__(self, path: str) -> None:
        self._connection = _connect(path)
        self._connection.execute(f"PRAGMA mmap_size = {MAPPED_BYTES}")
        self._execute = self._connection.cursor().execute
        self._loop = asyncio.get_running_loop()
        self._log = f"{path}-wal"
        self._reads = 0  # in this turn
        self._shares = True

    def rows(self, sql: str, values: Params | Row) -> Sequence[Row]:
        self._reads += 1
        if self._reads == 1:
            self._loop.call_soon(self._part)
        elif self._reads == 2 and self._shares:
            self._execute("BEGIN")
        return self._execute(sql, values).fetchall()

    def _part(self) -> None:
        """End the turn's transaction. A log that does not shrink wants moments in which nobody reads: it gets them."""
        several, self._reads = self._reads > 1, 0
        if several:
            if self._connection.in_transaction:
                self._execute("COMMIT")
            with contextlib.suppress(OSError):
                self._shares = os.stat(self._log).st_size < LOG_BYTES

    def close(self) -> None:
        self._reads = 0  # nothing is left to part
        self._connection.close()


class SqliteDatabase:
    """One database file. Made on the event loop's thread, used from it only.

    ``serves`` tells whether requests wait on this loop. Where none do, COMMIT runs on the loop's own thread as well: two
    threads that hand the interpreter to each other take processor time from the processes beside them. And before each
    unit the processor is offered to whoever waits for it: all units of a commit take milliseconds together.
    """

    engine = "sqlite"

    def __init__(self, path: str, *, serves: bool = True) -> None:
        # SQLite keeps the log beside the file that a symbolic link points to; so every name has the same lock files.
        self.path = path = os.path.realpath(path)
        self._serves = serves
        self.load = Load()
        try:
            self._users = _Users(path)
            try:
                self._open(path)
                self._write_lock = _WriteLock(path)
            except BaseException:
                self._users.close()
                raise
        except (apsw.Error, OSError, FilesReplaced) as error:
            raise ConfigurationError(f"cannot open the SQLite database {path}: {error}") from error
        self._loop = asyncio.get_running_loop()  # kept, because to ask for it is a call to the system
        self._transaction = SqliteTransaction(self._writer)
        self._clerk = _Clerk()
        self._waiting: list[tuple[Unit[Any], asyncio.Future[Any]]] = []
        self._committing: list[Outcome] = []
        self._busy = False
        self._patience: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    def _open(self, path: str) -> None:
        """Open both connections. Raises ``FilesReplaced`` when the processes that have the database open use other files.

        While the last of them closes it SQLite deletes the log, so files may differ for a moment.
        """
        deadline = time.monotonic() + BUSY_TIMEOUT_MILLISECONDS / 1000
        while True:
            try:
                self._open_once(path)
                return
            except (FilesReplaced, BlockingIOError):
                self._users.leave()
                if time.monotonic() > deadline:
                    raise
            time.sleep(random.uniform(0.01, 0.1))  # noqa: S311 - so that two that wait for each other do not stay in step

    def _open_once(self, path: str) -> None:
        alone = self._users.enter()
        if not alone:
            self._users.check()  # before a file that was deleted is created again
        _create_if_missing(path)
        self._writer = _connect(path)
        self._reader = _Reader(path)
        if alone:
            self._users.record()
        try:
            self._users.check()
        except FilesReplaced:
            self._reader.close()
            self._writer.close()
            raise
        self._files = _OpenFiles(path)

    async def find(self, read: PointRead, key: Row) -> Row | None:
        self.load.finds += 1
        self.load.find_statements += 1
        try:
            rows = self._reader.rows(_select(read), key)
        except _UNAVAILABLE as error:
            raise Unavailable from error
        return rows[0] if rows else None

    async def rows(self, sql: str, params: Params) -> Sequence[Row]:
        try:
            return self._reader.rows(sql, params)
        except _UNAVAILABLE as error:
            raise Unavailable from error

    async def write(self, unit: Unit[T]) -> T:
        outcome: asyncio.Future[T] = self._loop.create_future()
        self._waiting.append((unit, outcome))
        if not self._busy:
            self._busy = True
            self._idle.clear()
            self._loop.call_soon(self._begin)
        return await outcome

    def _begin(self) -> None:
        """Start the next commit: at once if the write lock is free, else when the clerk has waited for it."""
        try:
            if self._write_lock.take_now():
                self._writer.execute("BEGIN IMMEDIATE")
                self._run_units(None)
                return
        except apsw.BusyError:
            self._write_lock.release()
        except BaseException as error:
            self._write_lock.release()
            self._run_units(error)
            return
        self._patience = self._loop.call_later(BUSY_TIMEOUT_MILLISECONDS / 1000, self._lose_patience)
        self._clerk.do(self._begin_patiently, self._run_units)

    def _lose_patience(self) -> None:
        """Refuse whoever waits while another process keeps the write lock; the clerk goes on waiting for it."""
        refused, self._waiting = self._waiting, []
        for _, outcome in refused:
            if not outcome.done():
                outcome.set_exception(Unavailable())
        self._patience = self._loop.call_later(BUSY_TIMEOUT_MILLISECONDS / 1000, self._lose_patience)

    def _begin_patiently(self) -> None:
        self._write_lock.take()
        try:
            self._writer.set_busy_timeout(BUSY_TIMEOUT_MILLISECONDS)
            self._writer.execute("BEGIN IMMEDIATE")
        except BaseException:
            self._write_lock.release()
            raise
        finally:
            self._writer.set_busy_timeout(0)

    def _run_units(self, error: BaseException | None) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        units = self._waiting[:MOST_UNITS_PER_COMMIT]
        del self._waiting[:MOST_UNITS_PER_COMMIT]
        if error is not None:
            self._committing = [(outcome, None, None) for _, outcome in units]
            self._settle(error)
            return
        try:
            self._files.check()  # here and not in the commit thread, which would have to get the global lock back each time
            try:
                self._committing = [self._ran(unit, outcome) for unit, outcome in units]
            except _Apart:
                self._writer.execute("ROLLBACK")
                self._writer.execute("BEGIN IMMEDIATE")
                self._committing = [self._ran_alone(unit, outcome) for unit, outcome in units]
        except BaseException as accident:  # the transaction itself is gone: everyone's work with it
            self._committing = [(outcome, None, None) for _, outcome in units]
            self._clerk.do(functools.partial(self._roll_back_after, accident), self._settle)
            return
        self.load.commits += 1
        self.load.units += len(units)
        if self._serves:
            self._clerk.do(self._commit, self._settle)
        else:
            self._commit_here()

    def _commit_here(self) -> None:
        error: BaseException | None = None
        try:
            self._commit()
        except BaseException as caught:
            error = caught
        self._loop.call_soon(self._settle, error)

    def _ran(self, unit: Unit[Any], outcome: asyncio.Future[Any]) -> Outcome:
        """Run one unit in the open. Raises ``_Apart`` when it failed after it had written."""
        if outcome.cancelled():
            return outcome, None, None
        self._transaction.wrote = False
        if not self._serves:
            os.sched_yield()
        try:
            return outcome, _drive(unit(self._transaction)), None
        except _UNAVAILABLE:
            raise
        except Exception as refusal:
            if self._transaction.wrote:
                raise _Apart from refusal
            return outcome, None, refusal

    def _ran_alone(self, unit: Unit[Any], outcome: asyncio.Future[Any]) -> Outcome:
        """Run one unit inside a savepoint, so that its failure undoes its own work only."""
        self._writer.execute("SAVEPOINT unit")
        self._transaction.alone = True
        try:
            ran = self._ran(unit, outcome)
        except _Apart as apart:
            self._writer.execute("ROLLBACK TO unit")
            ran = outcome, None, apart.__cause__
        finally:
            self._transaction.alone = False
        self._writer.execute("RELEASE unit")
        return ran

    def _commit(self) -> None:
        try:
            self._writer.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        self._write_lock.release()

    def _roll_back(self) -> None:
        try:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
        finally:
            self._write_lock.release()

    def _roll_back_after(self, accident: BaseException) -> None:
        self._roll_back()
        raise accident

    def _settle(self, error: BaseException | None) -> None:
        """Tell every unit of this commit its outcome, then begin the next commit if anyone waits."""
        settled, self._committing = self._committing, []
        for outcome, result, refusal in settled:
            if outcome.done():
                continue
            if error is not None:
                outcome.set_exception(_said(error))
            elif refusal is not None:
                outcome.set_exception(refusal)
            else:
                outcome.set_result(result)
        if self._waiting:
            self._begin()
        else:
            self._busy = False
            self._idle.set()

    async def migrate(self, migrations: Sequence[Migration]) -> list[Migration]:
        """Raises ``Unavailable`` when the database cannot be written now."""
        try:
            return await asyncio.to_thread(self._migrate, migrations)
        except _UNAVAILABLE as error:
            raise Unavailable from error

    def _migrate(self, migrations: Sequence[Migration]) -> list[Migration]:
        applied = []
        self._begin_patiently()
        try:
            self._files.check()
            self._writer.execute("CREATE TABLE IF NOT EXISTS schema_migrations (version BIGINT PRIMARY KEY, name TEXT NOT NULL)")
            known = {version for (version,) in self._writer.execute("SELECT version FROM schema_migrations")}
            for migration in migrations:
                if migration.version not in known:
                    with self._writer:  # a savepoint: each migration whole or not at all
                        self._writer.execute(migration.sql)
                        self._writer.execute(
                            "INSERT INTO schema_migrations (version, name) VALUES (?, ?)",
                            (migration.version, migration.name),
                        )
                    applied.append(migration)
        except BaseException:
            self._roll_back()
            raise
        self._commit()
        return applied

    async def ping(self) -> None:
        await self.rows("SELECT version FROM schema_migrations LIMIT 1", {})
        try:
            self._files.check()
        except FilesReplaced as error:
            raise Unavailable from error

    async def close(self) -> None:
        try:
            await asyncio.wait_for(self._idle.wait(), 2 * BUSY_TIMEOUT_MILLISECONDS / 1000)
        except TimeoutError:
            return  # another process keeps the write lock; ours is dropped with this process
        self._clerk.stop()
        self._reader.close()
        self._writer.close()
        self._write_lock.close()
        self._users.close()


def _create_if_missing(path: str) -> None:
    """Create an empty database file with mode 0600, because it will hold personal data.

    A file that exists is not opened. When a process closes any descriptor of a file, the kernel drops all POSIX locks
    that the process holds on it, SQLite's as well; then another SQLite process takes itself for the only one and deletes
    the log in use. https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_
    """
    with _CREATION, contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _connect(path: str) -> apsw.Connection:
    """Open an existing file. SQLite then holds its lock on it, and the log and the shared memory exist, until it is closed."""
    connection = apsw.Connection(path, flags=_OPEN)
    connection.set_busy_timeout(BUSY_TIMEOUT_MILLISECONDS)
    if connection.readonly("main"):
        raise ConfigurationError(f"cannot open the SQLite database {path}: the file or its file system is read-only")
    mode = connection.execute("PRAGMA journal_mode = WAL").get
    if mode != "wal":
        raise ConfigurationError(
            f"cannot open the SQLite database {path}: no write-ahead log on this file system; use a local one"
        )
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA fullfsync = ON")  # macOS: fsync alone leaves data in the cache of the drive
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIBIBYTES}")
    connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES // 2}")
    connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()  # a new database has no log before its first read
    connection.set_busy_timeout(0)
    return connection


class _OpenFiles:
    """The database file, its log and its shared memory, as they were when this process opened them.

    SQLite neither deletes nor replaces any of the three while a connection is open. If somebody else does, what is
    written afterwards is in no file that the next process opens.
    """

    def __init__(self, path: str) -> None:
        self._identities = [(file, _identity(file)) for file in _files_of(path)]
        self._logged = False

    def check(self) -> None:
        """Raises ``FilesReplaced``; logs it once. Three calls of stat, some 12 µs."""
        for file, opened in self._identities:
            if _identity(file) != opened:
                self._log_once(file)
                raise FilesReplaced(file)
        self._logged = False

    def _log_once(self, file: str) -> None:
        if not self._logged and structlog.is_configured():  # a command prints the error instead
            self._logged = True
            log.error("writes are refused", reason=str(FilesReplaced(file)))


class _Users:
    """The processes of this program that have the database open.

    Each holds the lock of ``-open`` in shared mode, and that file names the files that they opened. A process that would
    open others, because these were deleted or replaced, would write what the end of the first processes destroys.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = _open_lock_file(f"{path}-open", path)

    def enter(self) -> bool:
        """Take the lock; returns True when no other process has it.

        Raises ``BlockingIOError`` while the first of them opens the database.
        """
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        return True

    def record(self) -> None:
        """Write which files are open, then let others in."""
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, "\n".join(self._now()).encode(), 0)
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def check(self) -> None:
        """Raises ``FilesReplaced`` when a file is not the one that the processes have open."""
        recorded = os.pread(self._descriptor, 1024, 0).decode().split("\n")
        for number, (file, now) in enumerate(zip(_files_of(self._path), self._now(), strict=True)):
            if recorded[number : number + 1] != [now]:
                raise FilesReplaced(file)

    def _now(self) -> list[str]:
        return [str(_identity(file)) for file in _files_of(self._path)]

    def leave(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._descriptor)


def _files_of(path: str) -> tuple[str, str, str]:
    return path, f"{path}-wal", f"{path}-shm"


def _identity(file: str) -> tuple[int, int] | None:
    """Device and inode; ``None`` when the file is not there or cannot be reached."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _drive(coroutine: Any) -> Any:
    """Run a coroutine that never suspends. One that does has broken its promise and is refused."""
    try:
        coroutine.send(None)
    except StopIteration as finished:
        return finished.value
    coroutine.close()
    raise RuntimeError("a unit of work must await nothing but its transaction")


def _said(error: BaseException) -> BaseException:
    if isinstance(error, _UNAVAILABLE):
        unavailable = Unavailable()
        unavailable.__cause__ = error
        return unavailable
    return error


class _WriteLock:
    """One writer among processes, first come first served.

    Who wants to write takes ``queue``, then ``writer``, then leaves ``queue``: so whoever holds ``queue`` is
    next, and nobody overtakes. The kernel drops both with the process, however it ends.
    """

    def __init__(self, path: str) -> None:
        self._queue = _open_lock_file(f"{path}-queue", path)
        self._writer = _open_lock_file(f"{path}-writer", path)

    def take_now(self) -> bool:
        """Take the lock if nobody has it or waits for it."""
        try:
            fcntl.flock(self._queue, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        try:
            fcntl.flock(self._writer, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            fcntl.flock(self._queue, fcntl.LOCK_UN)
        return True

    def take(self) -> None:
        """Wait for the lock. Blocks the thread."""
        fcntl.flock(self._queue, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._writer, fcntl.LOCK_EX)
        finally:
            fcntl.flock(self._queue, fcntl.LOCK_UN)

    def release(self) -> None:
        fcntl.flock(self._writer, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._queue)
        os.close(self._writer)


def _open_lock_file(file: str, database_file: str) -> int:
    """Its owner is the owner of the database file, also when root runs a command: as SQLite does with its files."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if os.geteuid() == 0:
        with contextlib.suppress(FileNotFoundError):  # a database that is about to be created
            owner = os.stat(database_file)
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
    return descriptor


class _Clerk:
    """The second thread: does one thing at a time and reports back on the event loop."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[tuple[Callable[[], None], Callable[[BaseException | None], None]] | None]
        self._tasks = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="sqlite-commit", daemon=True)
        self._thread.start()

    def do(self, task: Callable[[], None], report: Callable[[BaseException | None], None]) -> None:
        self._tasks.put((task, report))

    def stop(self) -> None:
        self._tasks.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (work := self._tasks.get()) is not None:
            task, report = work
            error: BaseException | None = None
            try:
                task()
            except BaseException as caught:
                error = caught
            self._loop.call_soon_threadsafe(report, error)
