"""Other processes that read, copy, replace or delete the SQLite file of a running server."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from ecomcharge.base.errors import ConfigurationError, Unavailable
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database
from ecomcharge.storage.migrate import migrate
from ecomcharge.storage.sqlite import database as sqlite_database
from support.commands import ecomcharge
from support.load import Line, Load, is_plain_refusal
from support.process import ServerProcess
from support.shops import ENVIRONMENT, add_shop, with_database
from support.sqlite_files import LiveFile, do_nothing, open_and_close
from support.waiting import eventually

IMPORTED = [f"imported-{number}@shop.test" for number in range(300)]
BACKUP = """
import sqlite3, sys
source, target = sqlite3.connect(sys.argv[1]), sqlite3.connect(sys.argv[2])
source.backup(target)
target.close()
source.close()
"""


def wait_for_more(load: Load, count: int) -> None:
    before = len(load.ledger.acknowledged)
    eventually(lambda: len(load.ledger.acknowledged) >= before + count)


def customers_in(path: Path) -> dict[str, str]:
    """Returns ids by email, and checks that the file is intact."""
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


# Every documented way to read or change the file while a server runs.
ACCESSES: Mapping[str, Callable[[LiveFile], None]] = {
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
def test_no_access_to_a_live_file_loses_an_acknowledged_write(tmp_path: Path, master_key: MasterKey, workers: int) -> None:
    shop = add_shop(f"sqlite:///{tmp_path}/live.db", master_key)
    live = LiveFile(tmp_path, shop)
    acknowledged: dict[str, str] = {}
    lost: dict[str, str] = {}
    with ServerProcess(live.url, tmp_path, "--workers", str(workers), environment=ENVIRONMENT) as process:
        for name, access in ACCESSES.items():
            with Load([process.url], shop.shop_id, shop.secret_key, connections=2, most_seconds=600) as load:
                wait_for_more(load, 20)
                access(live)
                wait_for_more(load, 50)
            assert load.ledger.unexpected == []
            assert load.ledger.refused == [] or access is ACCESSES["VACUUM"], name  # in place; it blocks writers for a while
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


def test_a_second_server_can_start_and_stop_on_a_live_file(tmp_path: Path, master_key: MasterKey) -> None:
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


def test_deleted_lock_files_lose_no_customer(tmp_path: Path, master_key: MasterKey) -> None:
    """Lock files only order the writers; SQLite's own lock ensures a single writer."""
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


def delete(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    """Replace the file with a copy of the same content, as a restored backup: another inode."""
    copy = path.with_name("other-file")
    shutil.copyfile(path, copy)
    copy.replace(path)


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
@pytest.mark.parametrize("destroy", [delete, replace])
def test_a_server_whose_files_are_destroyed_refuses_writes(
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
    if suffix:  # on a normal stop SQLite writes the content of its open log to the file
        assert customers_in(path) == acknowledged


def test_a_command_whose_file_is_replaced_prints_instructions(tmp_path: Path) -> None:
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
def test_a_process_that_would_open_different_files_is_refused(
    tmp_path: Path, destroy: Callable[[Path], None], suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise its writes would be destroyed when the running process ends."""
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
    asyncio.run(open_and_close(f"sqlite:///{path}"))  # no process has it open


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-open"])
def test_no_command_opens_a_file_of_the_database(tmp_path: Path, master_key: MasterKey, suffix: str) -> None:
    """Closing a file releases SQLite's locks of the whole process; writing to it destroys the database."""
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
