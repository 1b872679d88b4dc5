"""Keeps a billing worker running beside the server."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from dataclasses import replace
from typing import Final

import msgspec
import structlog

from ecomcharge.base.settings import Settings

log = structlog.get_logger()


WORKER_STOP_SECONDS: Final = 40.0
RETRY_SECONDS: Final = 1.0


class WorkerArguments(msgspec.Struct):
    """The arguments of a billing worker that runs beside a server; it reads them as JSON from standard input."""

    settings: Settings
    metrics_directory: str
    supervisor_pid: int
    adopted_pid: int | None = None  # of the first one that ended, whose metrics it continues


class WorkerSupervisor:
    """A billing worker as a process beside the server's, so that charging never makes a request wait. Started again if it ends.

    It reads its settings from standard input: they hold the master key. Its metrics are the server's.
    """

    def __init__(self, settings: Settings, metrics_directory: str) -> None:
        self._given = WorkerArguments(replace(settings, metrics_port=0), metrics_directory, os.getpid())
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._watch, name="billing-worker", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        if self._process is not None:
            self._process.terminate()
        self._thread.join(WORKER_STOP_SECONDS)
        if self._thread.is_alive() and self._process is not None:
            self._process.kill()

    def _watch(self) -> None:
        while not self._stopping.is_set():
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "ecomcharge.runtime.worker_process"], stdin=subprocess.PIPE
                )
            except OSError as error:  # no memory or no process left for it: later, perhaps
                log.error("the worker cannot be started", reason=error.strerror)
                self._stopping.wait(RETRY_SECONDS)
                continue
            assert self._process.stdin is not None
            with contextlib.suppress(BrokenPipeError), self._process.stdin as pipe:
                pipe.write(msgspec.json.encode(self._given))
            if self._stopping.is_set():
                self._process.terminate()
            code = self._process.wait()
            self._given.adopted_pid = self._given.adopted_pid or self._process.pid
            if not self._stopping.is_set():
                log.error("the worker ended and is started again", code=code)
                self._stopping.wait(RETRY_SECONDS)
