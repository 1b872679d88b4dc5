"""Detects that the files of an open database were deleted or replaced.

SQLite neither deletes nor replaces the database file, its log and its shared memory while a connection is open. If
another program does, later writes go to files that the next process does not open.
"""

from __future__ import annotations

import fcntl
import os

import structlog

from ecomcharge.storage.sqlite.errors import FilesReplaced
from ecomcharge.storage.sqlite.locks import open_lock_file

log = structlog.get_logger()


class OpenFiles:
    """The files that all processes of this program have open.

    Each process holds the lock of the file ``-open`` in shared mode. The first one writes the identities of the files
    into it. A process that opened other files, because these were replaced, would write to a log that the first process
    deletes when it ends.
    """

    def __init__(self, path: str) -> None:
        self._files = (path, f"{path}-wal", f"{path}-shm")
        self._descriptor = open_lock_file(f"{path}-open", path)
        self._opened: list[tuple[int, int] | None] = []
        self._logged = False

    def enter(self) -> bool:
        """Take the lock; returns True when no other process has it.

        Raises ``BlockingIOError`` while the first process opens the database.
        """
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        return True

    def record(self) -> None:
        """Write the identities of the files, then let other processes enter."""
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, "\n".join(str(_identity(file)) for file in self._files).encode(), 0)
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def check_recorded(self) -> None:
        """Raises ``FilesReplaced`` when a file is not the one that the first process recorded."""
        recorded = os.pread(self._descriptor, 1024, 0).decode().split("\n")
        self._opened = [_identity(file) for file in self._files]
        for number, file in enumerate(self._files):
            if recorded[number : number + 1] != [str(self._opened[number])]:
                raise FilesReplaced(file)

    def check(self) -> None:
        """Raises ``FilesReplaced`` when a file has changed since ``check_recorded``; logs it once."""
        for file, opened in zip(self._files, self._opened, strict=True):
            if _identity(file) != opened:
                self._log_once(file)
                raise FilesReplaced(file)
        self._logged = False

    def _log_once(self, file: str) -> None:
        if not self._logged and structlog.is_configured():  # a command prints the error instead
            self._logged = True
            log.error("writes are refused", reason=str(FilesReplaced(file)))

    def leave(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._descriptor)


def _identity(file: str) -> tuple[int, int] | None:
    """Device and inode; ``None`` when the file does not exist or cannot be reached."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino
