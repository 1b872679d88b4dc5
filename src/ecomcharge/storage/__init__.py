"""Two engines behind one protocol, chosen by URL."""

from __future__ import annotations

import os
from urllib.parse import unquote, urlsplit

from ecomcharge.errors import Unusable
from ecomcharge.storage.database import Database


def sqlite_path(url: str) -> str | None:
    """The file of a ``sqlite:///`` URL (three slashes: relative, four: absolute), or ``None`` for another engine."""
    if not url.startswith("sqlite:"):
        return None
    path = unquote(url.removeprefix("sqlite:///"))
    if not url.startswith("sqlite:///") or path in ("", ":memory:") or path.endswith("/"):
        raise Unusable(f"{url} is not a usable SQLite URL; write sqlite:///relative/file.db or sqlite:////absolute/file.db")
    return os.path.abspath(path)


def make_folder_of(path: str) -> None:
    """Raises ``Unusable`` when it is not there and cannot be made."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    except OSError as error:
        raise Unusable(f"cannot make the folder of {path}: {error.strerror}") from error


async def open_database(url: str, *, postgres_connections: int = 8, serves: bool = True) -> Database:
    """Open ``sqlite:///path/to/file.db`` or ``postgresql://user:password@host:port/name``.

    ``serves`` tells whether requests wait on this event loop while the database works.
    Raises ``Unusable``, with a way out, when the URL is of neither kind or the database cannot be used.
    """
    path = sqlite_path(url)
    if path is not None:
        from ecomcharge.storage.sqlite import SqliteDatabase

        make_folder_of(path)
        return SqliteDatabase(path, serves=serves)
    if urlsplit(url).scheme in ("postgresql", "postgres"):
        from ecomcharge.storage.postgres import PostgresDatabase

        return await PostgresDatabase.open(url, connections=postgres_connections)
    raise Unusable(f"{url.split('://')[0]}: no such engine; use sqlite:///file.db or postgresql://user:password@host:port/name")
