"""ecomcharge's other commands, as an operator runs them: each a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def environment_of(database: str, **settings: str) -> dict[str, str]:
    """Ours, without any setting of ours but these."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ECOMCHARGE_")}
    return {**clean, "ECOMCHARGE_DATABASE": database, **settings}


def ecomcharge(database: str, *arguments: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "ecomcharge.cli", *arguments],
        env=environment_of(database, **environment),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


class WorkerProcess:
    """``ecomcharge worker``, until the end of the ``with``."""

    def __init__(self, database: str, folder: Path, *options: str, environment: Mapping[str, str]) -> None:
        self._log_file = folder / f"worker-{id(self)}.log"
        self._options = options
        self._environment = environment_of(database, **environment)
        self.process: subprocess.Popen[bytes]

    def __enter__(self) -> WorkerProcess:
        with self._log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ecomcharge.cli", "worker", "--log-format", "json", *self._options],
                env=self._environment,
                stdout=log,
                stderr=log,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def log(self) -> str:
        return self._log_file.read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, as an operator stops it."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)
