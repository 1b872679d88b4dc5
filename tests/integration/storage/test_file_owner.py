"""Root runs a command on the SQLite database of a service: the service can go on."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.commands import ecomcharge

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the owner of files")

# The first command loads all modules: the service user of the test need not be able to read them.
AS_SERVICE = """
import os, sys
from ecomcharge.cli.main import main
service, database, other = int(sys.argv[1]), sys.argv[2], sys.argv[3]
create = ["shops", "create", "--name", "Shop", "--database"]
for _ in range(2):
    try:
        main([*create, other])
    except SystemExit as ended:
        assert not ended.code
os.setresgid(service, service, service)
os.setresuid(service, service, service)
main([*create, database])
"""


@pytest.fixture
def service_folder() -> Iterator[Path]:
    """A folder of a service user, which others can pass."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        service = pwd.getpwnam("nobody")
        os.chown(name, service.pw_uid, service.pw_gid)
        yield Path(name)


def as_service(path: Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    nobody = str(pwd.getpwnam("nobody").pw_uid)
    command = [sys.executable, "-c", AS_SERVICE, nobody, f"sqlite:///{path}", f"sqlite:///{tmp_path}/other.db"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd="/")


def owners(folder: Path) -> set[str]:
    return {path.owner() for path in folder.rglob("*")}


@pytest.mark.parametrize("name", ["x.db", "new/folder/x.db"])
def test_the_files_that_root_creates_belong_to_the_owner_of_the_folder(service_folder: Path, tmp_path: Path, name: str) -> None:
    path = service_folder / name
    assert ecomcharge(f"sqlite:///{path}", "shops", "create", "--name", "By root", environment={}).returncode == 0
    assert owners(service_folder) == {"nobody"}
    done = as_service(path, tmp_path)
    assert done.returncode == 0, done.stderr


def test_root_changes_no_owner_of_an_existing_database(service_folder: Path, tmp_path: Path) -> None:
    path = service_folder / "x.db"
    assert as_service(path, tmp_path).returncode == 0
    for file in (Path(f"{path}-open"), Path(f"{path}-queue"), Path(f"{path}-writer"), Path(f"{path}.master-key")):
        file.unlink()
    os.chown(service_folder, 0, 0)
    assert ecomcharge(f"sqlite:///{path}", "shops", "list", environment={}).returncode == 0
    assert ecomcharge(f"sqlite:///{path}", "shops", "show", "1", environment={}).returncode == 1
    assert owners(service_folder) == {"nobody"}


@pytest.mark.parametrize("suffix", ["", "-open", "-writer", ".master-key"])
def test_a_file_of_another_owner_is_reported_in_one_sentence(service_folder: Path, tmp_path: Path, suffix: str) -> None:
    path = service_folder / "x.db"
    assert as_service(path, tmp_path).returncode == 0
    os.chown(f"{path}{suffix}", 0, 0)
    refused = as_service(path, tmp_path)
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert "it belongs to root, and this process runs as nobody: change its owner" in refused.stderr.splitlines()[-1]
