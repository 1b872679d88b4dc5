"""Run the commands of ecomcharge other than ``serve``."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

from ecomcharge.base import logs
from ecomcharge.cli.main import main
from support.process import COVERAGE


def environment_of(database: str, **settings: str) -> dict[str, str]:
    """The current environment with only these settings of ecomcharge."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ECOMCHARGE_", "SSL_CERT_FILE"))}
    return {**clean, "ECOMCHARGE_DATABASE": database, **settings}


def ecomcharge(database: str, *arguments: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, because a new process takes a second to start."""
    output, errors, code = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.dict(os.environ, environment_of(database, **environment), clear=True),
        mock.patch.object(logs, "configure_logging"),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        try:
            main(list(arguments))
        except SystemExit as ended:
            code = int(ended.code or 0)
    return subprocess.CompletedProcess(arguments, code, output.getvalue(), errors.getvalue())


class WorkerProcess:
    """Run ``ecomcharge worker`` until the end of the ``with`` statement."""

    def __init__(self, database: str, folder: Path, *options: str, environment: Mapping[str, str]) -> None:
        self._log_file = folder / f"worker-{id(self)}.log"
        self._options = options
        self._environment = environment_of(database, **environment)
        self.process: subprocess.Popen[bytes]

    def __enter__(self) -> WorkerProcess:
        with self._log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ecomcharge", "worker", "--log-format", "json", *self._options],
                env=self._environment,
                stdout=log,
                stderr=log,
            )
        return self

    def __exit__(self, *_: object) -> None:
        if COVERAGE and self.process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.stop()
        self.kill()

    def log(self) -> str:
        return self._log_file.read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Stop it with SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)
