"""Signals and parents of processes."""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Final

from ecomcharge.runtime.scheduling import (
    YieldingEventLoop,
)


def run_until_signalled(work: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run ``work`` with an event that SIGTERM and SIGINT set, in a loop that lets others have the processor."""
    with asyncio.Runner(loop_factory=YieldingEventLoop) as runner:
        runner.run(_until_signalled(work))


async def _until_signalled(work: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    await work(stopped)


_PR_SET_PDEATHSIG: Final = 1


def die_with_parent(supervisor_pid: int | None = None) -> None:
    """On Linux, end this process when its supervisor is killed, so that no orphan keeps the port or goes on charging.

    ``supervisor_pid`` is of a process that multiprocessing did not start.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    supervisor = multiprocessing.parent_process()
    if supervisor is not None:
        supervisor_pid = supervisor.pid
    if supervisor_pid is not None and os.getppid() != supervisor_pid:
        sys.exit("the supervisor is gone")  # it was killed before we could ask to be told
