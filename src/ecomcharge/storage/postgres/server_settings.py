"""Settings of the PostgreSQL server that lose acknowledged writes or make commits slow, each with its remedy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from ecomcharge.storage.database import Row, SettingWarning

LEAST_MIN_WAL_SIZE_MEBIBYTES: Final = 1024  # the default of max_wal_size

READ: Final = """
SELECT name, setting, source, quote_ident(current_user), quote_ident(current_database()) FROM pg_settings
WHERE name IN ('synchronous_commit', 'synchronous_standby_names', 'fsync', 'full_page_writes', 'min_wal_size', 'wal_recycle')
"""


class _Setting(NamedTuple):
    name: str
    value: str
    source: str  # of pg_settings
    role: str
    database: str

    def remedy(self, value: str) -> str:
        """The statement that changes it where it was set: ALTER SYSTEM changes the configuration file only."""
        match self.source:
            case "client":
                return f"remove {self.name} from the parameters of the database URL and from PGOPTIONS"
            case "command line":
                return f"remove {self.name} from the command line of the PostgreSQL server, and restart it"
            case "user":
                return f"ALTER ROLE {self.role} RESET {self.name}"
            case "database":
                return f"ALTER DATABASE {self.database} RESET {self.name}"
            case "database user":
                return f"ALTER ROLE {self.role} IN DATABASE {self.database} RESET {self.name}"
        return f"ALTER SYSTEM SET {self.name} = '{value}'; SELECT pg_reload_conf()"

    def warning(self, consequence: str, value: str) -> SettingWarning:
        return SettingWarning(self.name, self.value, consequence, self.remedy(value))


def warnings_of(rows: list[Row]) -> list[SettingWarning]:
    """The warnings about the rows of ``READ``. A setting that the engine does not have is passed over."""
    settings = {row[0]: _Setting(*row) for row in rows}
    return [*_lost_writes(settings), *_damaged_files(settings), *_slow_commits(settings)]


def _lost_writes(settings: Mapping[str, _Setting]) -> Iterator[SettingWarning]:
    commit, standbys = settings.get("synchronous_commit"), settings.get("synchronous_standby_names")
    if commit is None or commit.value not in ("off", "local"):
        return
    if commit.value == "off":
        yield commit.warning("an acknowledged write can be lost when the PostgreSQL server or its machine crashes", "on")
    if standbys is not None and standbys.value:
        yield commit.warning(
            "commits do not wait for the standbys of synchronous_standby_names:"
            " an acknowledged write can be lost when a standby takes over",
            "on",
        )


def _damaged_files(settings: Mapping[str, _Setting]) -> Iterator[SettingWarning]:
    consequences = {
        "fsync": "a crash of the machine can destroy the database and lose acknowledged writes",
        "full_page_writes": "a crash of the machine can leave pages that are partly written, unless the file system prevents it",
    }
    for name, consequence in consequences.items():
        setting = settings.get(name)
        if setting is not None and setting.value == "off":
            yield setting.warning(consequence, "on")


def _slow_commits(settings: Mapping[str, _Setting]) -> Iterator[SettingWarning]:
    """With ``wal_recycle`` off, for file systems that copy on write, no file of the log is used again."""
    size, recycle = settings.get("min_wal_size"), settings.get("wal_recycle")
    if size is None or int(size.value) >= LEAST_MIN_WAL_SIZE_MEBIBYTES or (recycle is not None and recycle.value == "off"):
        return
    warning = size.warning(
        "after a quiet time the files of the log are removed, and under load every commit waits while a new one is filled",
        "1GB",
    )
    yield warning._replace(value=f"{size.value}MB")
