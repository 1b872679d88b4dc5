"""The supervisor: starts the server processes and the billing worker beside them, and replaces those that end.

The process that read the command line and prepared the database becomes the supervisor by ``exec``. The supervisor imports
nothing of the application, so it holds 15 MiB of memory where it would hold 75. The processes that it starts read their
settings as JSON from standard input, because the settings contain the master key.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from tempfile import mkdtemp
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypedDict

if TYPE_CHECKING:
    from structlog.stdlib import BoundLogger

FIRST_DELAY_SECONDS: Final = 0.1
LONGEST_DELAY_SECONDS: Final = 5.0
STABLE_SECONDS: Final = 10.0  # a process that ran for so long did not end because of its start
FAILED_STARTS: Final = 3
WORKER_DELAY_SECONDS: Final = 1.0  # before the billing worker is started again, each time
WORKER_STOP_SECONDS: Final = 40.0
START_SECONDS: Final = 60.0  # for a new server process to become ready, before the old one is stopped
RELOAD_SECONDS: Final = 1.5  # in which a new server process that is ready may still end, for example for its certificate
STOPS_SOON: Final = signal.SIGUSR1  # tells a server process that it is about to stop
STARTED_POLL_SECONDS: Final = 0.02


class Arguments(TypedDict):
    """``settings`` are those of ``ecomcharge serve``; ``address`` is the IP address to listen on."""

    settings: dict[str, Any]
    address: str


def started_file(metrics_directory: str, pid: int) -> str:
    """The path of the empty file that a server process creates when it is ready."""
    return os.path.join(metrics_directory, f"started-{pid}")


def exec_supervisor(arguments: bytes) -> NoReturn:
    """Become the supervisor. ``arguments`` is ``Arguments`` as JSON."""
    reading, writing = os.pipe()
    with open(writing, "wb") as pipe:
        pipe.write(arguments)  # fits into the pipe's buffer, which holds 16 KiB at least
    os.set_inheritable(reading, True)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "ecomcharge.runtime.supervisor", str(reading)])  # noqa: S606 - no shell is wanted


def respawn_delay_seconds(deaths: int) -> float:
    """How long to wait before a process is started again that ended ``deaths`` times in a row."""
    return min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(deaths - 1, 10))


class Signals:
    """SIGTERM, SIGINT and SIGHUP as values, and a wait that they and the end of a child interrupt."""

    def __init__(self) -> None:
        self.stop = False
        self.reload = False
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._reading, False)
        os.set_blocking(self._writing, False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, self._handle)
        signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)

    def wait(self, seconds: float | None) -> None:
        """Return at the next signal, or after so many seconds."""
        select.select([self._reading], [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            while os.read(self._reading, 512):
                pass

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Whether the condition became true within so many seconds. It is tested after each signal."""
        until = time.monotonic() + seconds
        while not condition():
            rest = until - time.monotonic()
            if rest <= 0:
                return False
            self.wait(rest)
        return True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.stop = self.stop or number in (signal.SIGTERM, signal.SIGINT)
        self.reload = self.reload or number == signal.SIGHUP


@dataclass
class Child:
    """A process that is kept running. Times are seconds of the monotonic clock."""

    module: str
    index: int = 0  # of a server process
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    start_at: float | None = None  # when to start it; None while it runs
    deaths: int = 0  # in a row
    first_pid: int | None = None  # of the processes that ended one after the other: the next one continues its metrics

    @property
    def is_server(self) -> bool:
        return self.module == "ecomcharge.runtime.server"


class Supervisor:
    """Replaces a process however often it ends.

    Until a server process was ready once, server processes that end by themselves with an error mean that the server cannot
    start. Then ``run`` returns False.
    """

    def __init__(self, arguments: Arguments, metrics_directory: str) -> None:
        self._arguments = arguments
        self._metrics_directory = metrics_directory
        settings = arguments["settings"]
        self._shutdown_seconds: float = settings["shutdown_timeout_seconds"]
        self._servers = [Child("ecomcharge.runtime.server", index) for index in range(settings["workers"])]
        self._worker = Child("ecomcharge.runtime.worker_process") if settings["worker"] else None
        self._has_started = False
        self._failed_starts = 0
        self._signals = Signals()

    def run(self) -> bool:
        """Supervise until SIGTERM or SIGINT, then stop all processes."""
        for child in self._servers:
            child.start_at = 0.0
        while not self._signals.stop and self._failed_starts < FAILED_STARTS:
            if self._signals.reload:
                self._signals.reload = False
                self._reload()
            self._watch_for_start()
            for child in self._children():
                if child.process is not None and child.process.poll() is not None:
                    self._plan_respawn(child, child.process)
            for child in self._children():
                if child.start_at is not None and child.start_at <= time.monotonic():
                    self._start(child)
            if not self._signals.reload:  # a SIGHUP may have come while this loop waited for something else
                self._signals.wait(self._seconds_to_wait())
        self._stop()
        return self._failed_starts < FAILED_STARTS

    def _children(self) -> list[Child]:
        return self._servers if self._worker is None else [*self._servers, self._worker]

    def _seconds_to_wait(self) -> float | None:
        if not self._has_started:
            return STARTED_POLL_SECONDS
        times = [child.start_at for child in self._children() if child.start_at is not None]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _watch_for_start(self) -> None:
        """Start the worker once a server process is ready: started together, each slows the other down."""
        if not self._has_started and any(self._is_ready(child.process) for child in self._servers):
            self._has_started = True
            if self._worker is not None:
                self._worker.start_at = 0.0

    def _is_ready(self, process: subprocess.Popen[bytes] | None) -> bool:
        return process is not None and os.path.exists(started_file(self._metrics_directory, process.pid))

    def _start(self, child: Child) -> None:
        settings = self._arguments["settings"]
        arguments = {
            "settings": settings if child.is_server else {**settings, "metrics_port": 0},  # its metrics are the server's
            "address": self._arguments["address"],
            "metrics_directory": self._metrics_directory,
            "supervisor_pid": os.getpid(),
            "adopted_pid": child.first_pid,
        }
        try:
            child.process = subprocess.Popen([sys.executable, "-m", child.module], stdin=subprocess.PIPE)  # noqa: S603 - modules of ours
        except OSError as error:  # no memory or no process left for it: later, perhaps
            self._log_failed_start(child, error)
            child.deaths += 1
            child.start_at = time.monotonic() + self._delay_seconds(child)
            return
        assert child.process.stdin is not None
        with contextlib.suppress(BrokenPipeError), child.process.stdin as pipe:
            pipe.write(json.dumps(arguments).encode())
        child.started_at, child.start_at = time.monotonic(), None

    def _plan_respawn(self, child: Child, ended: subprocess.Popen[bytes]) -> None:
        child.process = None
        child.first_pid = child.first_pid or ended.pid
        child.deaths = 1 if time.monotonic() - child.started_at >= STABLE_SECONDS else child.deaths + 1
        delay = self._delay_seconds(child)
        child.start_at = time.monotonic() + delay
        code = ended.returncode
        if not child.is_server:
            self._log().error("the worker ended and is started again", code=code)
            return
        end = {"signal": _signal_name(-code)} if code < 0 else {"code": code}
        self._log().error("a server process ended and is replaced", worker=child.index + 1, delay_seconds=delay, **end)
        if code > 0 and not self._has_started:
            self._failed_starts += 1

    def _delay_seconds(self, child: Child) -> float:
        return respawn_delay_seconds(child.deaths) if child.is_server else WORKER_DELAY_SECONDS

    def _reload(self) -> None:
        """Replace each server process by a new one, then the worker. If a new server process cannot start, the old one stays.

        The old server process serves until the new one is ready.
        """
        for child in self._servers:
            old, first_pid = child.process, child.first_pid
            child.process, child.first_pid = None, None  # the old process still writes its metrics
            self._start(child)
            if child.process is None:
                child.process, child.first_pid = old, first_pid
                continue
            if old is not None:
                new = child.process
                until = time.monotonic() + START_SECONDS
                while not (self._has_ended(new) or self._is_ready(new)) and time.monotonic() < until:
                    self._signals.wait(STARTED_POLL_SECONDS)
                self._signals.wait_until(lambda new=new: self._has_ended(new), RELOAD_SECONDS)
                if new.returncode:  # for example because a renewed certificate does not fit its key
                    self._log().error("a new server process cannot start, and the old one stays", worker=child.index + 1)
                    child.process, child.first_pid, child.start_at = old, first_pid, None
                    continue
                self._end_servers([old])
        if self._worker is not None and self._worker.process is not None and not self._signals.stop:
            self._end([self._worker.process], WORKER_STOP_SECONDS)
            self._start(self._worker)

    def _has_ended(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether there is nothing to wait for any more: the process ended, or all processes are to end."""
        return self._signals.stop or process.poll() is not None

    def _stop(self) -> None:
        """Stop the servers first: what they accepted is finished before the worker ends."""
        self._end_servers([child.process for child in self._servers if child.process is not None])
        if self._worker is not None and self._worker.process is not None:
            self._end([self._worker.process], WORKER_STOP_SECONDS)

    def _end_servers(self, processes: list[subprocess.Popen[bytes]]) -> None:
        for process in processes:
            process.send_signal(STOPS_SOON)
        self._end(processes, self._shutdown_seconds)

    def _end(self, processes: list[subprocess.Popen[bytes]], seconds: float) -> None:
        for process in processes:
            process.terminate()
        if self._signals.wait_until(lambda: all(process.poll() is not None for process in processes), seconds):
            return
        for process in processes:
            if process.poll() is None:
                self._log().warning("a process does not stop and is killed", pid=process.pid)
                process.kill()
                process.wait()

    def _log_failed_start(self, child: Child, error: OSError) -> None:
        if child.is_server:
            self._log().error("a server process cannot be started", worker=child.index + 1, reason=error.strerror)
        else:
            self._log().error("the worker cannot be started", reason=error.strerror)

    def _log(self) -> BoundLogger:
        """Import structlog at the first line only: it takes 10 MiB, and most supervisors log nothing."""
        import structlog

        from ecomcharge.base.logs import configure_logging

        if not structlog.is_configured():
            configure_logging(self._arguments["settings"]["log_format"])
        log: BoundLogger = structlog.get_logger()
        return log


def _signal_name(number: int) -> str:
    return next((known.name for known in signal.Signals if known == number), str(-number))


def main() -> None:
    with open(int(sys.argv[1]), "rb") as pipe:
        arguments: Arguments = json.load(pipe)
    directory = mkdtemp(prefix="ecomcharge-metrics-")
    try:
        started = Supervisor(arguments, directory).run()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if not started:
        sys.exit("ecomcharge: no server process could start; the lines above say why")


if __name__ == "__main__":
    main()
