"""The supervisor of the server processes: granian's, with another rule for those that die."""

from __future__ import annotations

import functools
import signal
import time
from collections.abc import Callable
from typing import Any, Final

import structlog
from granian.server.mp import MPServer, WorkerProcess

log = structlog.get_logger()

FIRST_DELAY_SECONDS: Final = 0.1
LONGEST_DELAY_SECONDS: Final = 5.0
STABLE_SECONDS: Final = 10.0  # a process that lived so long did not die of how it starts
FAILED_STARTS: Final = 3


def respawn_delay_seconds(deaths: int) -> float:
    """How long to wait before a process is started again that died ``deaths`` times in a row."""
    return min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(deaths - 1, 10))


class Supervisor(MPServer):
    """Replaces a server process however often it dies. granian ends the server when one dies twice within 5.5 seconds.

    The loader is called with ``adopted_pid``: of the processes that died one after the other in this place, the first; or
    ``None``. ``has_started`` returns whether any server process was ever ready. Until then, processes that end by themselves
    with an error mean that the server cannot start: then ``serve`` returns, and ``could_not_start`` is true.
    """

    def __init__(self, *arguments: Any, has_started: Callable[[], bool], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.could_not_start = False
        self._has_started = has_started
        self._deaths = [0] * self.workers  # of each process, in a row
        self._failed_starts = 0
        self._first_pids: dict[int, int] = {}  # by index, of those that died, one after the other
        self._respawn_at: dict[int, float] = {}  # by index, in seconds of the monotonic clock

    def _serve_loop(self, spawn_target: Any, target_loader: Any) -> None:
        while True:
            self.main_loop_interrupt.wait(self._seconds_to_next_respawn())
            self.main_loop_interrupt.clear()  # before anything is read, so that what comes meanwhile is seen next time
            if self.interrupt_signal:
                return
            while self.interrupt_children:
                self._plan_respawn(self.interrupt_children.pop(0))
            if self.could_not_start:
                return
            self._respawn(spawn_target, target_loader)
            if self.reload_signal:
                self._respawn_at.clear()  # all are started anew
                self._first_pids.clear()  # the old ones still run
                self._reload(spawn_target, target_loader)  # type: ignore[no-untyped-call]
                self.main_loop_interrupt.set()  # it was cleared there: look again

    def _stop_workers(self) -> None:
        super()._stop_workers()  # type: ignore[no-untyped-call]
        self.interrupt_children.clear()  # one that died just before the signal would make granian exit with 1

    def _seconds_to_next_respawn(self) -> float | None:
        if not self._respawn_at:
            return None
        return max(0.0, min(self._respawn_at.values()) - time.monotonic())

    def _plan_respawn(self, index: int) -> None:
        worker = self.wrks[index]
        if index in self._respawn_at or worker.inner.is_alive():  # it was replaced already, by a reload
            return
        if worker.inner.pid is not None:
            self._first_pids.setdefault(index, worker.inner.pid)
        stable = time.monotonic() - worker.birth >= STABLE_SECONDS
        self._deaths[index] = 1 if stable else self._deaths[index] + 1
        delay = respawn_delay_seconds(self._deaths[index])
        self._respawn_at[index] = time.monotonic() + delay
        log.error("a server process ended and is replaced", worker=index + 1, delay_seconds=delay, **_end_of(worker))
        if (worker.inner.exitcode or 0) > 0 and not self._has_started():
            self._failed_starts += 1
            self.could_not_start = self._failed_starts >= FAILED_STARTS

    def _spawn_worker(self, idx: int, target: Any, callback_loader: Any, socket_loader: Any = None) -> WorkerProcess:
        loader = functools.partial(callback_loader, adopted_pid=self._first_pids.get(idx))
        return super()._spawn_worker(idx, target, loader)

    def _respawn(self, spawn_target: Any, target_loader: Any) -> None:
        now = time.monotonic()
        for index in [index for index, at in self._respawn_at.items() if at <= now]:
            worker = self._spawn_worker(idx=index, target=spawn_target, callback_loader=target_loader)
            try:
                worker.start()  # type: ignore[no-untyped-call]
            except OSError as error:  # no memory or no process left for it: later, perhaps
                self._deaths[index] += 1
                self._respawn_at[index] = now + respawn_delay_seconds(self._deaths[index])
                log.error("a server process cannot be started", worker=index + 1, reason=error.strerror)
                continue
            self.wrks[index] = worker
            del self._respawn_at[index]


def _end_of(worker: WorkerProcess) -> dict[str, object]:
    code = worker.inner.exitcode
    if code is not None and code < 0:
        return {"signal": next((known.name for known in signal.Signals if known == -code), str(-code))}
    return {"code": code}
