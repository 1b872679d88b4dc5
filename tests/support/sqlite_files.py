"""Access the files of a SQLite database."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ecomcharge.shops.model import Credentials
from ecomcharge.storage.database import Transaction
from ecomcharge.storage.opening import open_database
from support.commands import WorkerProcess, environment_of
from support.shops import ENVIRONMENT
from support.waiting import eventually

DEADLINE_SECONDS = 60
STATEMENT = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
connection.execute(sys.argv[2]).fetchall()
connection.close()
"""


class LiveFile:
    """A SQLite file in use by a server, and other processes that a test runs on the file."""

    def __init__(self, folder: Path, shop: Credentials) -> None:
        self.folder = folder
        self.path = folder / "live.db"
        self.url = f"sqlite:///{self.path}"
        self.shop = shop
        self._copies = 0

    def run(self, *command: str) -> None:
        """Run a process until it ends."""
        environment = environment_of(self.url, **ENVIRONMENT)
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=DEADLINE_SECONDS, cwd=self.folder
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"

    def python(self, code: str, *arguments: str) -> None:
        self.run(sys.executable, "-c", code, str(self.path), *arguments)

    def sql(self, statement: str) -> None:
        """Execute one statement with Python's sqlite3 in another process."""
        self.python(STATEMENT, statement)

    def command(self, *arguments: str) -> None:
        """Run an ecomcharge command on the file."""
        self.run(sys.executable, "-m", "ecomcharge", *arguments)

    def worker(self) -> None:
        with WorkerProcess(self.url, self.folder, environment=ENVIRONMENT) as worker:
            eventually(lambda: any(self.path.name in path for path in open_files(worker.process.pid)))
            worker.stop()

    def new_path(self) -> Path:
        self._copies += 1
        return self.folder / f"copy-{self._copies}.db"

    def copy_as_after_a_kill(self) -> Path:
        """Copy the file and its log, which is the state after a kill. Call it only while no process writes."""
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


async def do_nothing(tx: Transaction) -> None:
    pass


async def open_and_close(url: str) -> None:
    database = await open_database(url)
    await database.close()
