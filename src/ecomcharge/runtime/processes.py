"""Functions for all processes that the supervisor starts: read the arguments, handle signals, end when it ends."""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from ecomcharge.base.settings import Settings
from ecomcharge.runtime.scheduling import YieldingEventLoop

_PR_SET_PDEATHSIG: Final = 1


class ProcessArguments(msgspec.Struct):
    """The arguments of a process under a supervisor. ``address`` is the IP address that a server listens on."""

    settings: Settings
    address: str
    metrics_directory: str
    supervisor_pid: int
    adopted_pid: int | None = None  # of the first process that ended in this place, whose metrics this one continues


def read_arguments() -> ProcessArguments:
    """The arguments from standard input. From now on, the process ends with its supervisor."""
    text = sys.stdin.buffer.read()
    if not text:
        sys.exit("the supervisor is gone")
    arguments = msgspec.json.decode(text, type=ProcessArguments)
    die_with_parent(arguments.supervisor_pid)
    return arguments


def die_with_parent(supervisor_pid: int) -> None:
    """On Linux, end this process when its supervisor is killed, so that no orphan keeps the port or goes on charging."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != supervisor_pid:
        sys.exit("the supervisor is gone")  # it was killed before the kernel was asked for the signal


def disable_core_dumps() -> None:
    """Let a crash of this process and of those that it starts write no memory to a file: it contains keys and card numbers."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


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
