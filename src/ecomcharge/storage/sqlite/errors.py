"""The errors of SQLite after which a repeated request may succeed, and their conversion to ``Unavailable``."""

from __future__ import annotations

import apsw

from ecomcharge.base.errors import Unavailable


class FilesReplaced(Exception):
    """The database file, its log or its shared memory was deleted or replaced while this process had it open."""

    def __init__(self, file: str) -> None:
        super().__init__(
            f"{file} was deleted or replaced while it was in use; stop every process that uses the database"
            " (SIGTERM, so that SQLite can save what is in the log), then start them again"
        )


# The disk is full, missing or read-only, the lock is held for too long, or the files were replaced.
UNAVAILABLE = (
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


def to_domain_error(error: BaseException) -> BaseException:
    """``Unavailable``, caused by the error, when it is one of ``UNAVAILABLE``; otherwise the error itself."""
    if not isinstance(error, UNAVAILABLE):
        return error
    unavailable = Unavailable()
    unavailable.__cause__ = error
    return unavailable
