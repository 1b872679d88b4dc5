"""Run ``ecomcharge serve`` as a separate process that listens on a port."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

from support.postgres import free_port

START_TIMEOUT_SECONDS = 30
COVERAGE = "COVERAGE_PROCESS_CONFIG" in os.environ


def _command_line(pid: str) -> bytes:
    """The command line of a process; empty if it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


class ServerProcess:
    """``ecomcharge serve`` in a separate process group.

    ``options`` are command line options; ``environment`` is added to the current one, without its ecomcharge settings;
    ``descriptors`` is the limit of open files.
    """

    def __init__(
        self,
        database: str,
        folder: Path,
        *options: str,
        environment: Mapping[str, str] | None = None,
        python: str | Path = sys.executable,
        descriptors: int | None = None,
    ) -> None:
        self.database = database
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_file = folder / f"server-{self.port}.log"
        self._options = options
        self._limited = ["sh", "-c", f'ulimit -n {descriptors} && exec "$@"', "sh"] if descriptors else []
        self._python = str(python)
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("ECOMCHARGE_", "SSL_CERT_FILE"))
        }
        self._environment["ECOMCHARGE_WORKER"] = "false"  # unless --worker asks for one: each takes a second to start
        self._environment["ECOMCHARGE_SHOP_FAILED_LOGINS_PER_MINUTE"] = "0"
        self._environment["ECOMCHARGE_CHECKOUTS_PER_MINUTE"] = "0"  # all tests come from one address
        self._environment["ECOMCHARGE_CARD_ATTEMPTS_PER_HOUR"] = "0"  # and use few cards
        self._environment.update(environment or {})
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> ServerProcess:
        """Start, and return when the server responds."""
        with self.log_file.open("ab") as log:
            process = self.process = subprocess.Popen(
                [
                    *self._limited,
                    *(self._python, "-m", "ecomcharge", "serve", "--database", self.database),
                    *("--port", str(self.port), "--log-format", "json", *self._options),
                ],
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not self.answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start:\n{self.log()}")
            time.sleep(0.05)
        return self

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def log(self) -> str:
        return self.log_file.read_text()

    def terminate(self) -> None:
        """Send SIGTERM, without waiting for the end."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout_seconds: float = 40) -> int:
        assert self.process is not None
        return self.process.wait(timeout_seconds)

    def stop(self) -> int:
        self.terminate()
        return self.wait()

    def kill(self) -> None:
        """Send SIGKILL to all its processes, as in a power failure."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def worker_pids(self) -> list[int]:
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children if b"ecomcharge.runtime.server" in _command_line(pid)]

    def __enter__(self) -> ServerProcess:
        return self.start()

    def end(self) -> None:
        """Kill the processes, which is fast. When coverage is measured, let them write their data first."""
        if COVERAGE and self.process is not None and self.process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.stop()
        with contextlib.suppress(ProcessLookupError):  # already ended
            self.kill()

    def __exit__(self, *_: object) -> None:
        self.end()
