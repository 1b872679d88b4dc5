"""A thread for the calls that block: COMMIT, and the wait for the write lock."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class CommitThread:
    """Runs one function at a time.

    It is a daemon thread, unlike those of ``ThreadPoolExecutor``: while it waits for the write lock of another process,
    this process can still end.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="sqlite-commit", daemon=True).start()

    def run(self, function: Callable[[], T]) -> asyncio.Future[T]:
        outcome: asyncio.Future[T] = self._loop.create_future()
        self._calls.put((function, outcome))
        return outcome

    def stop(self) -> None:
        """Let the thread end after the calls that it has accepted."""
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            function, outcome = call
            result, error = None, None
            try:
                result = function()
            except BaseException as caught:
                error = caught
            post(self._loop, outcome, result, error)


def post(loop: asyncio.AbstractEventLoop, outcome: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    """Resolve a future of the event loop from another thread."""
    with contextlib.suppress(RuntimeError):  # the event loop is closed, so nobody waits for the outcome
        loop.call_soon_threadsafe(_resolve, outcome, result, error)


def _resolve(outcome: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if outcome.done():  # cancelled
        return
    if error is not None:
        outcome.set_exception(error)
    else:
        outcome.set_result(result)
