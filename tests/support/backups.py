"""Make backups of a database in use with the documented commands, and read the customers in each backup."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Protocol

from support.postgres import PostgresServer

SQLITE_TIMEOUT_SECONDS = 60

# Runs in another process, as for an operator. Arguments: the source, the copy, the method.
_COPY_AND_READ = """
import json, sqlite3, sys
source = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
copy = sqlite3.connect(sys.argv[2], isolation_level=None)
if sys.argv[3] == "backup":
    source.backup(copy)
else:
    source.execute("VACUUM INTO ?", (sys.argv[2],))
source.close()
intact = copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
print(json.dumps([intact, [email for email, in copy.execute("SELECT email FROM customers")]]))
"""


class BackupFailed(Exception):
    """The backup could not be made, or it is corrupt."""


class Backups(Protocol):
    """Both methods return the emails of all customers in the copy, and raise ``BackupFailed``."""

    names: tuple[str, str]  # names of the two methods, for the summary

    def frequent(self) -> list[str]: ...

    def thorough(self) -> list[str]: ...


class SqliteBackups:
    """``.backup`` and ``VACUUM INTO``. Each copy is checked with SQLite's integrity check."""

    names = (".backup", "VACUUM INTO")

    def __init__(self, database: Path, folder: Path) -> None:
        self._database = database
        self._folder = folder

    def frequent(self) -> list[str]:
        return self._copy("backup")

    def thorough(self) -> list[str]:
        return self._copy("vacuum")

    def _copy(self, way: str) -> list[str]:
        copy = self._folder / f"{way}.db"
        command = [sys.executable, "-c", _COPY_AND_READ, str(self._database), str(copy), way]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SQLITE_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise BackupFailed(f"it took more than {SQLITE_TIMEOUT_SECONDS} s") from error
        finally:
            copy.unlink(missing_ok=True)
        if done.returncode:
            raise BackupFailed(done.stderr.strip().splitlines()[-1])
        intact, emails = json.loads(done.stdout)
        if not intact:
            raise BackupFailed("the copy is not intact")
        found: list[str] = emails
        return found


class PostgresBackups:
    """``pg_dump`` as text, and ``pg_dump`` restored into a new database."""

    names = ("pg_dump", "pg_dump and restore")

    def __init__(self, postgres: PostgresServer, database: str, folder: Path) -> None:
        self._postgres = postgres
        self._database = database
        self._folder = folder

    def frequent(self) -> list[str]:
        return emails_of_dump(self._dump())

    def thorough(self) -> list[str]:
        file, database = self._folder / "dump.sql", f"{self._database}_restored"
        file.write_text(self._dump())
        try:
            self._client("psql", "postgres", "-qc", f"DROP DATABASE IF EXISTS {database}", "-c", f"CREATE DATABASE {database}")
            self._client("psql", database, "-q", "-v", "ON_ERROR_STOP=1", "-f", str(file))
            emails = self._client("psql", database, "-Atc", "SELECT email FROM customers").split()
            self._client("psql", "postgres", "-qc", f"DROP DATABASE {database}")
        finally:
            file.unlink()
        return emails

    def _dump(self) -> str:
        return self._client("pg_dump", self._database)

    def _client(self, program: str, database: str, *arguments: str) -> str:
        try:
            return self._postgres.client(program, database, *arguments)
        except subprocess.CalledProcessError as error:
            raise BackupFailed(f"{program}: {error.stderr.strip()}") from error


def emails_of_dump(dump: str) -> list[str]:
    """Returns the emails in a plain dump. Raises ``BackupFailed`` if the dump is truncated or lacks the table."""
    if "PostgreSQL database dump complete" not in dump[-300:]:
        raise BackupFailed("the dump has no end")
    lines = iter(dump.splitlines())
    for line in lines:
        if line.startswith("COPY public.customers ("):
            email = line.partition("(")[2].partition(")")[0].split(", ").index("email")
            return [row.split("\t")[email] for row in iter(lambda: next(lines), "\\.")]
    raise BackupFailed("the dump has no customers")
