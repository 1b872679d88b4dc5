"""What other processes may do with a SQLite file that a server uses, and what the server notices when it is destroyed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from ecomcharge.base.errors import ConfigurationError, Unavailable
from ecomcharge.shops.keys import MasterKey
from ecomcharge.shops.model import Credentials
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.storage.migrate import migrate
from ecomcharge.storage.opening import open_database
from ecomcharge.storage.sqlite import database as sqlite_database
from support.commands import WorkerProcess, ecomcharge, environment_of
from support.load import Line, Load, is_plain_refusal
from support.process import ServerProcess
from support.shops import ENVIRONMENT, add_shop, with_database

DEADLINE_SECONDS = 60
FILES = ("x.db", "x.db-wal", "x.db-shm", "x.db-queue", "x.db-writer", "x.db-open")
IMPORTED = [f"imported-{number}@shop.test" for number in range(300)]

BACKUP = """
import sqlite3, sys
source, target = sqlite3.connect(sys.argv[1]), sqlite3.connect(sys.argv[2])
source.backup(target)
target.close()
source.close()
"""
STATEMENT = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
connection.execute(sys.argv[2]).fetchall()
connection.close()
"""


class LiveFile:
    """A SQLite file in use by a server, and the processes that a test starts beside the server."""

    def __init__(self, folder: Path, shop: Credentials) -> None:
        self.folder = folder
        self.path = folder / "live.db"
        self.url = f"sqlite:///{self.path}"
        self.shop = shop
        self._copies = 0

    def run(self, *command: str) -> None:
        """Run a process to its end."""
        environment = environment_of(self.url, **ENVIRONMENT)
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=DEADLINE_SECONDS, cwd=self.folder
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"

    def python(self, code: str, *arguments: str) -> None:
        self.run(sys.executable, "-c", code, str(self.path), *arguments)

    def sql(self, statement: str) -> None:
        """Execute one statement with Python's sqlite3 in a process of its own."""
        self.python(STATEMENT, statement)

    def command(self, *arguments: str) -> None:
        """Run one of our own commands on the file."""
        self.run(sys.executable, "-m", "ecomcharge", *arguments)

    def worker(self) -> None:
        with WorkerProcess(self.url, self.folder, environment=ENVIRONMENT) as worker:
            wait_until(lambda: any(self.path.name in path for path in open_files(worker.process.pid)))
            worker.stop()

    def new_path(self) -> Path:
        self._copies += 1
        return self.folder / f"copy-{self._copies}.db"

    def copy_as_after_a_kill(self) -> Path:
        """Copy the file and its log, which is all that a kill would leave. Only while nobody writes."""
        copy = self.new_path()
        for suffix in ("", "-wal"):
            if Path(f"{self.path}{suffix}").exists():
                shutil.copyfile(f"{self.path}{suffix}", f"{copy}{suffix}")
        return copy


def open_files(pid: int) -> list[str]:
    paths = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            paths.append(os.readlink(link))
        except OSError:
            continue
    return paths


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def wait_for_more(load: Load, count: int) -> None:
    before = len(load.ledger.acknowledged)
    wait_until(lambda: len(load.ledger.acknowledged) >= before + count)


def customers_in(path: Path) -> dict[str, str]:
    """Ids by email, from an intact file."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return dict(connection.execute("SELECT email, id FROM customers").fetchall())


def backup(live: LiveFile) -> None:
    copy = live.new_path()
    live.python(BACKUP, str(copy))
    assert customers_in(copy)


def vacuum_into(live: LiveFile) -> None:
    copy = live.new_path()
    live.sql(f"VACUUM INTO '{copy}'")
    assert customers_in(copy)


def shell(*lines: str) -> Callable[[LiveFile], None]:
    def run(live: LiveFile) -> None:
        if shutil.which("sqlite3"):
            named = [line.replace("COPY", str(live.new_path())) for line in lines]
            live.run("sqlite3", str(live.path), ".timeout 30000", *named)

    return run


def importing(live: LiveFile) -> None:
    file = live.folder / "customers.jsonl"
    file.write_text("".join(json.dumps({"email": email, "ip": "::1", "external_id": email}) + "\n" for email in IMPORTED))
    live.command("customers", "import", str(file), "--shop-id", str(live.shop.shop_id))


def exporting(live: LiveFile) -> None:
    live.command("customers", "export", str(live.new_path().with_suffix(".jsonl")), "--shop-id", str(live.shop.shop_id))


# Every documented way to look at the file or to change it while a server runs.
WAYS: Mapping[str, Callable[[LiveFile], None]] = {
    "backup": backup,
    "VACUUM INTO": vacuum_into,
    "reader": lambda live: live.sql("SELECT count(*) FROM customers"),
    "writer": lambda live: live.sql("CREATE TABLE IF NOT EXISTS notes (text TEXT)"),
    "checkpoint": lambda live: live.sql("PRAGMA wal_checkpoint(TRUNCATE)"),
    "VACUUM": lambda live: live.sql("VACUUM"),
    "sqlite3 .backup": shell(".backup COPY"),
    "sqlite3 VACUUM INTO": shell("VACUUM INTO 'COPY'"),
    "sqlite3 SELECT": shell("SELECT count(*) FROM customers"),
    "migrate": lambda live: live.command("migrate"),
    "shops create": lambda live: live.command("shops", "create", "--name", "Other"),
    "shops list": lambda live: live.command("shops", "list"),
    "shops show": lambda live: live.command("shops", "show", str(live.shop.shop_id)),
    "shops rotate-key": lambda live: live.command("shops", "rotate-key", str(live.shop.shop_id), "--overlap", "3600"),
    "customers import": importing,
    "customers export": exporting,
    "webhooks list": lambda live: live.command("webhooks", "list"),
    "clock show": lambda live: live.command("clock", "show", "--sandbox"),
    "worker": LiveFile.worker,
}


@pytest.mark.parametrize("workers", [1, 2])
def test_whatever_looks_at_a_live_file_nothing_acknowledged_is_lost(tmp_path: Path, master_key: MasterKey, workers: int) -> None:
    shop = add_shop(f"sqlite:///{tmp_path}/live.db", master_key)
    live = LiveFile(tmp_path, shop)
    acknowledged: dict[str, str] = {}
    lost: dict[str, str] = {}
    with ServerProcess(live.url, tmp_path, "--workers", str(workers), environment=ENVIRONMENT) as process:
        for name, way in WAYS.items():
            with Load([process.url], shop.shop_id, shop.secret_key, connections=2, most_seconds=600) as load:
                wait_for_more(load, 20)
                way(live)
                wait_for_more(load, 50)
            assert load.ledger.odd == []
            assert load.ledger.refused == [] or way is WAYS["VACUUM"], name  # in place, it locks writers out for a while
            acknowledged |= load.ledger.acknowledged
            found = customers_in(live.copy_as_after_a_kill())
            if missing := [email for email, id in acknowledged.items() if found.get(email) != id]:
                lost[name] = f"{len(missing)} of {len(acknowledged)}"
                break
        with Line(process.url, shop.shop_id, shop.secret_key) as line:
            assert line.ask("GET", "/readyz").status == 200 or lost
        process.kill()
    found = customers_in(live.path)
    missing = [email for email, id in acknowledged.items() if found.get(email) != id]
    assert (lost, len(missing)) == ({}, 0), (
        f"after the kill {len(missing)} of {len(acknowledged)} are lost; first lost by: {lost}"
    )
    assert set(IMPORTED) <= set(found)


def test_another_server_beside_may_come_and_go(tmp_path: Path, master_key: MasterKey) -> None:
    shop = add_shop(f"sqlite:///{tmp_path}/live.db", master_key)
    live = LiveFile(tmp_path, shop)
    (tmp_path / "other").mkdir()
    with ServerProcess(live.url, tmp_path, environment=ENVIRONMENT) as process:
        with Load([process.url], shop.shop_id, shop.secret_key, connections=2, most_seconds=600) as load:
            with ServerProcess(live.url, tmp_path / "other", environment=ENVIRONMENT) as other:
                live.sql("SELECT count(*) FROM customers")
                assert other.stop() == 0
            live.sql("SELECT count(*) FROM customers")
            wait_for_more(load, 50)
        process.kill()
    found = customers_in(live.path)
    assert [email for email, id in load.ledger.acknowledged.items() if found.get(email) != id] == []


def test_lock_files_that_are_deleted_cost_no_customer(tmp_path: Path, master_key: MasterKey) -> None:
    """They only put writers in order; that one writes at a time is SQLite's own lock."""
    shop = add_shop(f"sqlite:///{tmp_path}/live.db", master_key)
    live = LiveFile(tmp_path, shop)
    with (
        ServerProcess(live.url, tmp_path, environment=ENVIRONMENT) as first,
        Load([first.url], shop.shop_id, shop.secret_key, connections=2, most_seconds=600) as load,
    ):
        for suffix in ("-queue", "-writer", "-open"):
            Path(f"{live.path}{suffix}").unlink()
        with (
            ServerProcess(live.url, tmp_path, environment=ENVIRONMENT) as second,
            Load([second.url], shop.shop_id, shop.secret_key, connections=2, most_seconds=600) as other_load,
        ):
            wait_for_more(other_load, 50)
            second.kill()
        first.kill()
    found = customers_in(live.path)
    for ledger in (load.ledger, other_load.ledger):
        assert ledger.refused == []
        assert [email for email, id in ledger.acknowledged.items() if found.get(email) != id] == []


# Files that are deleted or replaced


def delete(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    """By a copy of the same content, as a restored backup would be: another inode."""
    copy = path.with_name("other-file")
    shutil.copyfile(path, copy)
    copy.replace(path)


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
@pytest.mark.parametrize("destroy", [delete, replace])
def test_a_server_whose_files_are_destroyed_acknowledges_nothing_more(
    tmp_path: Path, master_key: MasterKey, destroy: Callable[[Path], None], suffix: str
) -> None:
    shop = add_shop(f"sqlite:///{tmp_path}/live.db", master_key)
    path = tmp_path / "live.db"
    with (
        ServerProcess(f"sqlite:///{path}", tmp_path, "--workers", "2", environment=ENVIRONMENT) as process,
        Line(process.url, shop.shop_id, shop.secret_key) as line,
    ):
        acknowledged = {}
        for number in range(20):
            reply = line.create({"email": f"{number}@shop.test", "ip": "::1"})
            assert reply.status == 201
            acknowledged[f"{number}@shop.test"] = reply.json()["id"]
        assert line.ask("GET", "/readyz").status == 200

        destroy(Path(f"{path}{suffix}"))

        refused = [line.create({"email": f"late-{number}@shop.test", "ip": "::1"}) for number in range(20)]
        assert {reply.status for reply in refused} == {503}
        assert all(is_plain_refusal(reply) for reply in refused)
        assert line.ask("GET", "/readyz").status == 503
        assert line.ask("GET", "/healthz").status == 200
        lines = [line for line in process.log().splitlines() if "was deleted or replaced while it was in use" in line]
        assert 1 <= len(lines) <= 2  # once in each process
        assert json.loads(lines[0])["level"] == "error"
        assert f"{path}{suffix} was" in json.loads(lines[0])["reason"]
        assert process.stop() == 0
    if suffix:  # on a normal stop SQLite writes what is in the log that it has open to the file
        assert customers_in(path) == acknowledged


def test_a_command_whose_file_is_replaced_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "x.db"

    async def work(database: Database) -> None:
        Path(f"{path}-wal").unlink()
        with pytest.raises(Unavailable) as refused:
            await database.write(do_nothing)
        assert str(refused.value.__cause__) == (
            f"{path}-wal was deleted or replaced while it was in use; stop every process that uses the database"
            " (SIGTERM, so that SQLite can save what is in the log), then start them again"
        )
        with pytest.raises(Unavailable):
            await migrate(database)

    with_database(f"sqlite:///{path}", work)


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
@pytest.mark.parametrize("destroy", [delete, replace])
def test_a_process_that_would_open_other_files_than_a_running_one_is_refused(
    tmp_path: Path, destroy: Callable[[Path], None], suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it wrote would be destroyed when the running one ends."""
    monkeypatch.setattr(sqlite_database, "BUSY_TIMEOUT_MILLISECONDS", 500)
    path = tmp_path / "x.db"

    async def work(database: Database) -> None:
        await database.write(do_nothing)
        destroy(Path(f"{path}{suffix}"))
        for _ in range(2):
            with pytest.raises(
                ConfigurationError, match=f"cannot open the SQLite database {path}: {path}{suffix} was deleted or replaced"
            ):
                await open_and_close(f"sqlite:///{path}")
        assert suffix or destroy is replace or not path.exists()

    with_database(f"sqlite:///{path}", work)
    asyncio.run(open_and_close(f"sqlite:///{path}"))  # nobody has it open any more


def test_a_database_that_is_opened_while_others_close_it_is_opened(tmp_path: Path) -> None:
    """Each time the last one closes it, SQLite deletes the log that the others may have seen."""
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


async def do_nothing(tx: Transaction) -> None:
    pass


def test_a_database_is_ready_whatever_its_log_holds(tmp_path: Path) -> None:
    """Empty, checkpointed, cut to nothing, or just opened by someone else."""
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


# How files are opened and created


def test_every_commit_reaches_the_disk(tmp_path: Path) -> None:
    async def work(database: Database) -> None:
        writer = database._writer.connection  # type: ignore[attr-defined]
        assert writer.execute("PRAGMA journal_mode").get == "wal"
        assert writer.execute("PRAGMA synchronous").get == 2  # FULL
        assert writer.execute("PRAGMA fullfsync").get == 1

    with_database(f"sqlite:///{tmp_path}/x.db", work)


def test_a_database_that_is_opened_twice_in_one_process_keeps_its_log(tmp_path: Path) -> None:
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


def test_only_the_owner_reads_the_files(tmp_path: Path, open_umask: None) -> None:
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
def test_what_root_opens_stays_its_owner_s(tmp_path: Path) -> None:
    with_database(f"sqlite:///{tmp_path}/x.db", lambda database: database.ping())
    os.chown(tmp_path / "x.db", 65534, 65534)
    for file in tmp_path.glob("x.db-*"):
        file.unlink()

    async def work(database: Database) -> None:
        owners = {file.name: (file.stat().st_uid, file.stat().st_gid) for file in tmp_path.glob("x.db*")}
        assert owners == dict.fromkeys(FILES, (65534, 65534))

    with_database(f"sqlite:///{tmp_path}/x.db", work)


def test_a_file_that_cannot_be_a_database_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("not a database, but long enough for a heading of one hundred bytes\n" * 10)
    (tmp_path / "folder.db").mkdir()
    (tmp_path / "locks.db-queue").mkdir()
    for name in ("text.db", "folder.db", "locks.db"):
        with pytest.raises(ConfigurationError, match=f"cannot open the SQLite database {tmp_path}/{name}: "):
            asyncio.run(open_and_close(f"sqlite:///{tmp_path}/{name}"))


def test_a_file_that_is_read_only_is_refused_in_a_sentence(tmp_path: Path) -> None:
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


async def open_and_close(url: str) -> None:
    database = await open_database(url)
    await database.close()


def test_processes_that_create_one_file_at_the_same_moment_agree(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ecomcharge", "migrate"]
    environment = environment_of(f"sqlite:///{tmp_path}/x.db", **ENVIRONMENT)
    started = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)]
    outcomes = [(process.communicate(timeout=DEADLINE_SECONDS), process.returncode) for process in started]
    assert [code for _, code in outcomes] == [0, 0, 0], outcomes
    assert (tmp_path / "x.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-open"])
def test_no_command_opens_a_file_of_the_database(tmp_path: Path, master_key: MasterKey, suffix: str) -> None:
    """Closing it would drop SQLite's locks of the command's process; writing it would destroy the database."""
    path = tmp_path / "x.db"
    url = f"sqlite:///{path}"
    shop = str(add_shop(url, master_key).shop_id)
    content = path.read_bytes()
    linked = tmp_path / "link.jsonl"
    linked.symlink_to(f"{path}{suffix}")
    customers = tmp_path / "customers.jsonl"
    customers.write_text("{}\n")
    for own in (f"{path}{suffix}", str(linked), f"{tmp_path}/../{tmp_path.name}/x.db{suffix}"):
        for arguments in (
            ("customers", "export", own, "--shop-id", shop),
            ("customers", "import", own, "--shop-id", shop),
            ("customers", "import", str(customers), "--report", own, "--shop-id", shop),
            ("shops", "show", shop, "--master-key-file", own),
        ):
            done = ecomcharge(url, *arguments, environment={})
            assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
            assert f"{own} belongs to the database {path}; give another file" in done.stderr
    assert path.read_bytes() == content
