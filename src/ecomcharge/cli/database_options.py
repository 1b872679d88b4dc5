"""The database options of commands, and running work with the database."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import KW_ONLY, dataclass, fields
from typing import Annotated, TypeVar

import cyclopts
from cyclopts import Group, Parameter

from ecomcharge.base.settings import DEFAULT_DATABASE, Pooler, Settings
from ecomcharge.storage.database import Database
from ecomcharge.storage.migrate import migrate
from ecomcharge.storage.opening import open_configured

T = TypeVar("T")

# For commands that take every setting: the help prints the settings after the options of the command.
SettingsOfServe = Annotated[Settings, Parameter(name="*", group=Group("Settings of serve", sort_key=1))]

_FROM_ENVIRONMENT = cyclopts.config.Env("ECOMCHARGE_", command=False)
_SETTINGS = {f"--{setting.name.replace('_', '-')}" for setting in fields(Settings)}


def settings_from_environment(app: cyclopts.App, commands: tuple[str, ...], arguments: cyclopts.ArgumentCollection) -> None:
    """Read the settings from the environment, for commands that take every setting.

    The other arguments of these commands come from the command line only.
    """
    settings = (argument for argument in arguments if argument.name in _SETTINGS)
    _FROM_ENVIRONMENT(app, commands, cyclopts.ArgumentCollection(settings))  # type: ignore[no-untyped-call]


@Parameter(name="*")
@dataclass(frozen=True)
class WhichDatabase:
    """The database.

    Attributes
    ----------
    database
        ``sqlite:///path/to/file.db`` or ``postgresql://user:password@host:port/name``.
    postgres_pooler
        Mode of a pooler such as PgBouncer between this program and PostgreSQL: ``session``, ``transaction``, or ``auto``.
    """

    database: Annotated[str, Parameter(env_var="ECOMCHARGE_DATABASE")] = DEFAULT_DATABASE
    _: KW_ONLY
    postgres_pooler: Annotated[Pooler, Parameter(env_var="ECOMCHARGE_POSTGRES_POOLER")] = "auto"

    def settings(self) -> Settings:
        """The settings of ``serve`` that have the same names."""
        return Settings(**vars(self))


@Parameter(name="*")
@dataclass(frozen=True)
class Where(WhichDatabase):
    """The database and its master key.

    Attributes
    ----------
    master_key
        Base64 of 32 bytes. Prefer the environment variable.
    master_key_file
        File that holds the master key. With SQLite the default is a file beside the database.
    """

    master_key: Annotated[str | None, Parameter(env_var="ECOMCHARGE_MASTER_KEY")] = None
    master_key_file: Annotated[str | None, Parameter(env_var="ECOMCHARGE_MASTER_KEY_FILE")] = None


def with_database(where: WhichDatabase, work: Callable[[Database], Awaitable[T]]) -> T:
    """Open the database, migrate it and run ``work``."""

    async def migrated(database: Database) -> T:
        await migrate(database)
        return await work(database)

    return asyncio.run(run(where, migrated))


def _print_warning(warning: str) -> None:
    print(f"ecomcharge: {warning}", file=sys.stderr)


async def run(where: WhichDatabase, work: Callable[[Database], Awaitable[T]]) -> T:
    """Open the database and run ``work``, without a migration."""
    database = await open_configured(where.settings(), postgres_connections=1, warn=_print_warning)
    try:
        return await work(database)
    finally:
        await database.close()
