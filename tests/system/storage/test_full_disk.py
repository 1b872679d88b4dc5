"""A full disk."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from ecomcharge.shops.keys import MasterKey
from support.faults import DEADLINE_SECONDS, check_everything, line_to, load_on, new_customer_request, until
from support.load import Ledger, Line, Load
from support.process import ServerProcess
from support.shops import ENVIRONMENT, add_shop
from support.waiting import eventually


class Disk(Protocol):
    folder: Path

    def fill(self, process: ServerProcess) -> None: ...

    def make_room(self, process: ServerProcess) -> None: ...


class SmallDisk:
    """A file system of 8 MiB in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self, process: ServerProcess) -> None:
        """Fill all but about 200 kB, so that some writes succeed before the disk is full."""
        descriptor = os.open(self._ballast, os.O_WRONLY | os.O_CREAT)
        free = os.statvfs(self.folder)
        os.posix_fallocate(descriptor, 0, free.f_bavail * free.f_frsize - 200_000)
        os.close(descriptor)

    def make_room(self, process: ServerProcess) -> None:
        self._ballast.unlink(missing_ok=True)


class LimitedFiles:
    """Limit the size of every file of the server, which gives the errors of a failing disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, process: ServerProcess) -> None:
        largest = max(path.stat().st_size for path in self.folder.glob("test.db*"))
        self._limit(process, largest + 100_000)

    def make_room(self, process: ServerProcess) -> None:
        if process.process is not None:
            self._limit(process, resource.RLIM_INFINITY)

    def _limit(self, process: ServerProcess, size: int) -> None:
        for pid in process.worker_pids():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.fixture(params=["full", "limited"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "limited":
        yield LimitedFiles(folder)
        return
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(folder)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small file system cannot be mounted here: {error}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def test_a_full_disk_refuses_writes_serves_reads_and_loses_nothing(
    disk: Disk, master_key: MasterKey, server_folder: Path
) -> None:
    url = f"sqlite:///{disk.folder}/test.db"
    shop = add_shop(url, master_key)
    ledger = Ledger()
    with ServerProcess(url, server_folder, environment=ENVIRONMENT) as process, line_to(process, shop) as line:
        customer_request = new_customer_request()
        first = line.create(customer_request.body)
        ledger.enter(customer_request, first)

        disk.fill(process)
        with load_on(process, shop) as load:
            _wait_for_refusals(load, line, f"/customers/{first.json()['id']}")
            disk.make_room(process)
            customer_request = new_customer_request()
            load.ledger.enter(customer_request, until(lambda: line.create(customer_request.body, customer_request.key), 201))
            time.sleep(0.3)
        ledger.add(load.ledger)
        check_everything(process, shop, ledger)

        disk.fill(process)
        with load_on(process, shop) as load:
            _wait_for_refusals(load, line, f"/customers/{first.json()['id']}")
            process.kill()
        disk.make_room(process)
        process.start()
        line.close()
        ledger.add(load.ledger)
        check_everything(process, shop, ledger)
        assert line.create(new_customer_request().body).status == 201
        assert process.stop() == 0
        process.process = None
    print(ledger)
    assert len(ledger.acknowledged) > 50
    database = sqlite3.connect(disk.folder / "test.db")
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    database.close()


def _wait_for_refusals(load: Load, line: Line, path: str) -> None:
    """Return when the disk has been full for a while, and check that every read succeeds in this time."""
    eventually(lambda: load.ledger.refused, DEADLINE_SECONDS)  # the disk has become full
    for _ in range(10):
        assert line.ask("GET", path).status == 200
        assert line.ask("GET", "/customers?limit=100").status == 200
        assert line.ask("GET", "/readyz").status == 200
        time.sleep(0.05)
    assert line.customers()
