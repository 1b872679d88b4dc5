"""Commands that meet names with control sequences, and files that another user made first."""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import pytest
import structlog

from ecomcharge.base.errors import ConfigurationError
from ecomcharge.base.logs import configure_logging
from ecomcharge.cli import new_files
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.records import execute
from support.cli import Command, refused
from support.commands import ecomcharge
from support.shops import ENVIRONMENT, add_shop, with_database

ESCAPES = "\x1b]0;title\x07\x1b[2J\x9b31m\u202e\r\nshop"
DANGEROUS = ("\x1b", "\x07", "\x9b", "\u202e", "\r")
CUSTOMERS = b"email,ip,first_name\njane@shop.test,127.0.0.1,Jane\nnobody,127.0.0.1,Joe\n"


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/test.db"


def test_no_output_of_a_command_controls_the_terminal(
    command: Command, database_url: str, master_key: MasterKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = str(add_shop(database_url, master_key).shop_id)  # whose name another program writes
    with_database(database_url, lambda database: execute(database, "UPDATE shops SET name = :name", {"name": ESCAPES}))
    file = tmp_path / "customers.csv"
    file.write_text("email,ip,x\x1b[2J\x9b\njane@shop.test,127.0.0.1,x\n")

    outputs = [
        command("shops", "list"),
        command("shops", "list", "--json"),
        command("shops", "show", shop),
        command("customers", "import", str(file), "--shop-id", shop),
        command("customers", "import", f"{tmp_path}/{ESCAPES[:9]}", "--shop-id", shop),
    ]

    for done in outputs:
        assert not [character for character in DANGEROUS if character in done.stdout + done.stderr], done
    assert r"\x1b]0;title\x07" in outputs[0].stdout

    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    configure_logging("console")
    structlog.get_logger().warning(f"a sentence {ESCAPES}", reason=ESCAPES)
    structlog.reset_defaults()
    assert r"\x1b[2J\x9b31m\u202e\x0d" in log.getvalue()
    assert not [character for character in DANGEROUS if character in log.getvalue()]


def test_a_command_writes_through_no_link_and_for_its_user_only(database_url: str, master_key: MasterKey, tmp_path: Path) -> None:
    shop = str(add_shop(database_url, master_key).shop_id)
    source, victim = tmp_path / "customers.csv", tmp_path / "victim"
    source.write_bytes(CUSTOMERS)
    victim.write_text("precious")
    link, report, old = tmp_path / "link.csv", tmp_path / "report", tmp_path / "old.csv"
    link.symlink_to(victim)

    def run(*arguments: str) -> str:
        done = ecomcharge(database_url, "customers", *arguments, "--shop-id", shop, environment=ENVIRONMENT)
        return refused(done) if done.returncode == 1 else ""

    assert (
        run("import", str(source), "--report", str(link))
        == f"{link} is a symbolic link; give the path of the file that it leads to"
    )
    assert run("export", str(link)) == f"{link} is a symbolic link; give the path of the file that it leads to"
    (tmp_path / "old.csv.part").symlink_to(victim)  # the name of the draft in earlier releases
    old.write_text("an older export")
    old.chmod(0o644)
    report.write_text("an older report")
    report.chmod(0o644)
    assert run("export", str(old)) == run("import", str(source), "--report", str(report)) == ""

    assert victim.read_text() == "precious"
    assert b"jane@shop.test" in old.read_bytes()
    assert b'"line":3' in report.read_bytes()
    assert [stat.S_IMODE(each.stat().st_mode) for each in (old, report)] == [0o600, 0o600]
    assert run("export", os.devnull) == ""
    assert run("export", str(tmp_path)) == f"{tmp_path} is a folder; give a file"
    assert sorted(path.name for path in tmp_path.glob("*part*")) == ["old.csv.part"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a link of another user")
def test_a_link_that_another_user_made_beside_the_devices_is_refused() -> None:
    link = Path(f"/dev/shm/ecomcharge-test-{os.getpid()}")
    link.symlink_to(os.devnull)  # in an attack it leads to a pipe of the attacker
    try:
        os.lchown(link, 12345, 12345)
        with pytest.raises(ConfigurationError, match="symbolic link"):
            new_files.create(str(link))
    finally:
        link.unlink()


@pytest.mark.parametrize("open_file", [new_files.create, new_files.replacing])
def test_a_link_of_the_system_that_leads_to_a_file_is_kept(
    open_file: Callable[[str], AbstractContextManager[BinaryIO]], tmp_path: Path
) -> None:
    """As ``--report /dev/stdout`` with the output in a file."""
    file = tmp_path / "output"
    file.write_text("before ")
    with file.open("ab") as opened:
        name = f"/dev/fd/{opened.fileno()}"
        with open_file(name) as output:
            output.write(b"data")
        assert os.path.islink(name)

    assert file.read_text() == "before data"
