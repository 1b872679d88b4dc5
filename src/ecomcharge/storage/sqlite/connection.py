"""Opens connections to a database file."""

from __future__ import annotations

import contextlib
import os
import threading

import apsw

from ecomcharge.base.errors import ConfigurationError
from ecomcharge.storage.ownership import keep_owner
from ecomcharge.storage.sqlite.locks import WriteLock

BUSY_TIMEOUT_MILLISECONDS = 5_000
CACHE_KIBIBYTES = 65_536
LOG_LIMIT_BYTES = 32 * 2**20  # SQLite truncates the write-ahead log to this size when it starts it anew
# One thread at a time uses a connection, so SQLite need not lock it for every column: a list of 20 takes 26 instead of
# 30 µs, a point read 4.6 instead of 5.0.
_OPEN_FLAGS = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOMUTEX
_creation_lock = threading.Lock()  # no thread may open the new file before the thread that created it has closed it


def create_if_missing(path: str) -> None:
    """Create an empty database file with mode 0600, because it will hold personal data.

    An existing file is not opened: when a process closes any descriptor of a file, the kernel drops all POSIX locks that
    the process holds on it, including SQLite's own. Another SQLite process then believes that it is the only one and
    deletes the log in use.
    https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_
    """
    with _creation_lock, contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            keep_owner(descriptor, os.path.dirname(path))
        finally:
            os.close(descriptor)


def connect(path: str) -> apsw.Connection:
    """Open an existing file. SQLite keeps the log and the shared memory in existence until the connection is closed."""
    connection = apsw.Connection(path, flags=_OPEN_FLAGS)
    connection.set_busy_timeout(BUSY_TIMEOUT_MILLISECONDS)
    # Without this, SQLite plans a join or a range anew at each execution, because the plan might depend on the parameters:
    # a subscription with its plan takes 47 µs instead of 4.
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    if connection.readonly("main"):
        raise ConfigurationError(f"cannot open the SQLite database {path}: the file or its file system is read-only")
    if connection.execute("PRAGMA journal_mode = WAL").get != "wal":
        raise ConfigurationError(
            f"cannot open the SQLite database {path}: no write-ahead log on this file system; use a local one"
        )
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA fullfsync = ON")  # macOS: fsync alone leaves data in the cache of the drive
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA secure_delete = ON")  # deleted rows are overwritten: they may hold personal data
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIBIBYTES}")
    connection.execute(f"PRAGMA journal_size_limit = {LOG_LIMIT_BYTES}")
    connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()  # a new database has no log before its first read
    connection.set_busy_timeout(0)
    return connection


def empty_log(path: str) -> None:
    """Write the whole log into the database file and truncate it. Blocks the thread while others write or read."""
    with contextlib.closing(WriteLock(path)) as lock, contextlib.closing(connect(path)) as connection:
        lock.acquire(wait=True)  # a writer that finds the log locked would fail
        connection.set_busy_timeout(BUSY_TIMEOUT_MILLISECONDS)
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
