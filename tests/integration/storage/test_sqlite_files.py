"""Opening a SQLite database: its log, file modes, links and refusals."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ecomcharge.base.errors import ConfigurationError
from ecomcharge.shops.model import Credentials
from ecomcharge.storage.database import Database
from ecomcharge.storage.opening import open_database
from support.commands import environment_of
from support.shops import ENVIRONMENT, with_database
from support.sqlite_files import DEADLINE_SECONDS, LiveFile, do_nothing, open_and_close

FILES = ("x.db", "x.db-wal", "x.db-shm", "x.db-queue", "x.db-writer", "x.db-open")


def test_a_database_can_be_opened_while_other_processes_close_it(tmp_path: Path) -> None:
    """Each time the last process closes it, SQLite deletes the log that other processes may have read."""
    code = (
        "import asyncio, sys\n"
        "from ecomcharge.storage.opening import open_database\n"
        "async def work():\n"
        "    for _ in range(100): await (await open_database(sys.argv[1])).close()\n"
        "asyncio.run(work())"
    )
    command = [sys.executable, "-c", code, f"sqlite:///{tmp_path}/x.db"]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
    errors = [process.communicate(timeout=DEADLINE_SECONDS)[1].decode() for process in started]
    assert errors == [""] * 3


def test_a_database_is_ready_with_any_content_of_its_wal(tmp_path: Path) -> None:
    """The log is empty, checkpointed, truncated, or just opened by another process."""
    path = tmp_path / "x.db"
    live = LiveFile(tmp_path, Credentials(1, "unused"))
    live.path = path

    async def work(database: Database) -> None:
        await database.ping()
        for statement in ("PRAGMA wal_checkpoint(TRUNCATE)", "SELECT 1", "VACUUM", "CREATE TABLE notes (text TEXT)"):
            await asyncio.to_thread(live.sql, statement)
            await database.ping()
            await database.write(do_nothing)

    with_database(f"sqlite:///{path}", work)
    with_database(f"sqlite:///{path}", work_again)


async def work_again(database: Database) -> None:
    await database.ping()
    await database.write(do_nothing)


def test_every_commit_reaches_the_disk(tmp_path: Path) -> None:
    async def work(database: Database) -> None:
        writer = database._writer.connection  # type: ignore[attr-defined]
        assert writer.execute("PRAGMA journal_mode").get == "wal"
        assert writer.execute("PRAGMA synchronous").get == 2  # FULL
        assert writer.execute("PRAGMA fullfsync").get == 1

    with_database(f"sqlite:///{tmp_path}/x.db", work)


def test_a_database_opened_twice_in_one_process_keeps_its_wal(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    live = LiveFile(tmp_path, Credentials(1, "unused"))
    live.path = path

    async def work(database: Database) -> None:
        log = Path(f"{path}-wal").stat().st_ino
        second = await open_database(f"sqlite:///{path}")
        await asyncio.to_thread(live.sql, "SELECT count(*) FROM customers")
        await second.close()
        await asyncio.to_thread(live.sql, "SELECT count(*) FROM customers")
        assert Path(f"{path}-wal").stat().st_ino == log
        await database.ping()

    with_database(f"sqlite:///{path}", work)


def modes_of(path: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mode & 0o777 for file in path.parent.glob(f"{path.name}*")}


@pytest.fixture
def open_umask() -> object:
    before = os.umask(0)
    yield
    os.umask(before)


def test_only_the_owner_can_read_the_database_files(tmp_path: Path, open_umask: None) -> None:
    async def work(database: Database) -> None:
        await database.write(do_nothing)
        assert modes_of(tmp_path / "x.db") == dict.fromkeys(FILES, 0o600)

    with_database(f"sqlite:///{tmp_path}/x.db", work)


def test_a_symbolic_link_leads_to_the_same_files(tmp_path: Path, open_umask: None) -> None:
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "x.db").symlink_to(tmp_path / "x.db")  # which does not exist yet

    async def work(database: Database) -> None:
        await database.ping()
        assert set(modes_of(tmp_path / "x.db")) == set(FILES)
        assert set(modes_of(tmp_path / "x.db").values()) == {0o600}
        assert [file.name for file in (tmp_path / "link").iterdir()] == ["x.db"]

    with_database(f"sqlite:///{tmp_path}/link/x.db", work)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
def test_a_database_opened_by_root_keeps_its_owner(tmp_path: Path) -> None:
    with_database(f"sqlite:///{tmp_path}/x.db", lambda database: database.ping())
    os.chown(tmp_path / "x.db", 65534, 65534)
    for file in tmp_path.glob("x.db-*"):
        file.unlink()

    async def work(database: Database) -> None:
        owners = {file.name: (file.stat().st_uid, file.stat().st_gid) for file in tmp_path.glob("x.db*")}
        assert owners == dict.fromkeys(FILES, (65534, 65534))

    with_database(f"sqlite:///{tmp_path}/x.db", work)


def test_a_file_that_is_not_a_database_is_refused_with_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("not a database, but long enough for a heading of one hundred bytes\n" * 10)
    (tmp_path / "folder.db").mkdir()
    (tmp_path / "locks.db-queue").mkdir()
    for name in ("text.db", "folder.db", "locks.db"):
        with pytest.raises(ConfigurationError, match=f"cannot open the SQLite database {tmp_path}/{name}: "):
            asyncio.run(open_and_close(f"sqlite:///{tmp_path}/{name}"))


def test_a_read_only_file_is_refused_with_one_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small file system cannot be mounted here: {error}")
    try:
        with_database(f"sqlite:///{folder}/x.db", lambda database: database.ping())
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True, capture_output=True)
        with pytest.raises(ConfigurationError, match=f"cannot open the SQLite database {folder}/x.db: .*Read-only file system"):
            asyncio.run(open_and_close(f"sqlite:///{folder}/x.db"))
        subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True, capture_output=True)
        subprocess.run(["mount", "--bind", str(folder / "x.db"), str(folder / "x.db")], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder / "x.db")], check=True, capture_output=True)
        with pytest.raises(ConfigurationError, match="the file or its file system is read-only"):
            asyncio.run(open_and_close(f"sqlite:///{folder}/x.db"))
    finally:
        subprocess.run(["umount", "--lazy", str(folder / "x.db")], check=False, capture_output=True)
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def test_processes_can_create_one_database_file_concurrently(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ecomcharge", "migrate"]
    environment = environment_of(f"sqlite:///{tmp_path}/x.db", **ENVIRONMENT)
    started = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)]
    outcomes = [(process.communicate(timeout=DEADLINE_SECONDS), process.returncode) for process in started]
    assert [code for _, code in outcomes] == [0, 0, 0], outcomes
    assert (tmp_path / "x.db").stat().st_mode & 0o777 == 0o600
