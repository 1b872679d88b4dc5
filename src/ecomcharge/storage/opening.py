"""Opening a database. The URL selects the engine."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote

from ecomcharge.base.errors import ConfigurationError
from ecomcharge.base.settings import Pooler, Settings
from ecomcharge.storage.database import Database
from ecomcharge.storage.ownership import explain, make_folder


def sqlite_path(url: str) -> str | None:
    """The path of a ``sqlite:///`` URL (three slashes: relative, four: absolute), or ``None`` for another engine."""
    if not url.startswith("sqlite:"):
        return None
    path = unquote(url.removeprefix("sqlite:///"))
    if not url.startswith("sqlite:///") or path in ("", ":memory:") or path.endswith("/"):
        raise ConfigurationError(
            f"{url} is not a usable SQLite URL; write sqlite:///relative/file.db or sqlite:////absolute/file.db"
        )
    if "/~" in url:
        raise ConfigurationError(f"{url}: ~ is not the home folder in a URL; write the whole path, or %7E for a ~ in a name")
    if "?" in url:
        raise ConfigurationError(f"{url}: a SQLite URL has no parameters; write %3F for a ? in a name")
    return os.path.abspath(path)


_SCHEMES: Final = ("postgresql://", "postgres://")
_FILES_OF_DATABASE: Final = ("", "-wal", "-shm", "-journal", "-open", "-queue", "-writer")


def refuse_file_of_database(path: str, database_path: str | None) -> None:
    """Raise ``ConfigurationError`` if ``path``, which a command would open, is a file of the SQLite database.

    Closing such a file would release the locks of SQLite, because POSIX locks belong to the process.
    """
    if database_path is None:
        return
    for suffix in _FILES_OF_DATABASE:
        own = database_path + suffix
        if os.path.realpath(path) == os.path.realpath(own) or (os.path.exists(own) and _is_same_file(path, own)):
            raise ConfigurationError(f"{path} belongs to the database {database_path}; give another file")


def _is_same_file(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:  # the file does not exist yet
        return False


def make_folder_of(path: str) -> None:
    """Raises ``ConfigurationError`` if the folder cannot be created."""
    try:
        make_folder(os.path.dirname(path))
    except OSError as error:
        raise ConfigurationError(f"cannot make the folder of {path}: {explain(error)}") from error


async def open_database(
    url: str,
    *,
    postgres_connections: int = 8,
    postgres_pooler: Pooler = "auto",
    read_from: str | None = None,
    for_requests: bool = False,
    commit_in_thread: bool = True,
    warn: Callable[[str], None] | None = None,
) -> Database:
    """Open ``sqlite:///path/to/file.db`` or ``postgresql://user:password@host:port/name``.

    ``read_from`` is the URL of standbys. With ``for_requests``, clients wait for the statements, whose time limit is then
    short. Set ``commit_in_thread`` to
    False when no request waits for this event loop. ``warn`` gets a sentence for each part of the URL that is not used.
    Raises ``ConfigurationError`` if the URL has another scheme or the database cannot be used.
    """
    path = sqlite_path(url)
    if path is not None:
        if read_from:
            raise ConfigurationError("--read-from is for PostgreSQL: a SQLite database has no replica")
        from ecomcharge.storage.sqlite import SqliteDatabase

        make_folder_of(path)
        return SqliteDatabase(path, commit_in_thread=commit_in_thread)
    if url.startswith(_SCHEMES):
        if read_from and not read_from.startswith(_SCHEMES):
            raise ConfigurationError("--read-from must be the URL of a standby: postgresql://user:password@host:port/name")
        from ecomcharge.storage.postgres import PostgresDatabase

        return await PostgresDatabase.open(
            url,
            connections=postgres_connections,
            pooler=postgres_pooler,
            read_from=read_from,
            for_requests=for_requests,
            warn=warn,
        )
    raise ConfigurationError(f"{_engine_of(url)}; use sqlite:///file.db or postgresql://user:password@host:port/name")


async def open_configured(
    settings: Settings,
    *,
    postgres_connections: int | None = None,
    for_requests: bool = False,
    commit_in_thread: bool = True,
    warn: Callable[[str], None] | None = None,
) -> Database:
    """``open_database`` with the settings of a process. ``postgres_connections``, if given, takes the place of that setting."""
    return await open_database(
        settings.database,
        postgres_connections=postgres_connections or settings.postgres_connections,
        postgres_pooler=settings.postgres_pooler,
        read_from=settings.read_from,
        for_requests=for_requests,
        commit_in_thread=commit_in_thread,
        warn=warn,
    )


def _engine_of(url: str) -> str:
    """The URL may contain a password, so that only its scheme is named."""
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.:-]*)://", url)
    return f"{scheme[1]}: no such engine" if scheme else "the database is not a URL"
