"""The write lock among processes.

SQLite's own lock is polled, and a process that sleeps between two polls is overtaken by a process that has just
committed. The kernel wakes the waiters of a file lock, so two of them make a queue: a process takes ``-queue``, then
``-writer``, then releases ``-queue``. The holder of ``-queue`` is next, and a process that has just committed queues
behind it. The kernel releases both locks when the process ends, for whatever reason.
"""

from __future__ import annotations

import fcntl
import os

from ecomcharge.storage.ownership import keep_owner


class WriteLock:
    """The lock that a process holds while it writes to the database."""

    def __init__(self, path: str) -> None:
        self._queue = open_lock_file(f"{path}-queue", path)
        self._writer = open_lock_file(f"{path}-writer", path)

    def acquire(self, *, wait: bool) -> bool:
        """Take the lock. With ``wait``, block the thread; otherwise return False if a process has it or waits for it."""
        operation = fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
        try:
            fcntl.flock(self._queue, operation)
            try:
                fcntl.flock(self._writer, operation)
            finally:
                fcntl.flock(self._queue, fcntl.LOCK_UN)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        fcntl.flock(self._writer, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._queue)
        os.close(self._writer)


def open_lock_file(file: str, database_file: str) -> int:
    """Open or create a lock file with the owner of the database file, also when root runs a command, as SQLite does."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    keep_owner(descriptor, database_file)
    return descriptor
