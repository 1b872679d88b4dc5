"""How the processes of one machine share its processors."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
from collections.abc import Callable
from contextvars import Context
from typing import Final, TypeVarTuple

_Ts = TypeVarTuple("_Ts")


class YieldingEventLoop(asyncio.SelectorEventLoop):
    """After every step, the processor is offered to whoever waits for it.

    A hundred charges that were committed together go on together, for milliseconds. A server's threads, which take the
    processor from nobody, would wait behind them for as long, or for the kernel's next tick.
    """

    def call_soon(self, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None) -> asyncio.Handle:
        return super().call_soon(_do_and_yield, callback, *args, context=context)


def _do_and_yield(callback: Callable[[*_Ts], object], *args: *_Ts) -> None:
    callback(*args)
    os.sched_yield()


NICENESS: Final = 10  # where cores are short, requests go before charges


SWITCH_INTERVAL_SECONDS: Final = 0.001  # how long granian's thread and the committing one wait for the interpreter at most


def use_batch_scheduling() -> None:
    """On Linux, let the threads of this worker finish what they do when another of them, or of its neighbours, wakes.

    Each answer wakes granian's thread and each request ours. Where both share a core they would take it from each other
    at every one of them, and find the processor's caches full of the other's things.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # some sandboxes and C libraries refuse it
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def tune_garbage_collector() -> None:
    """Let the cyclic garbage collector pass over what lives as long as the worker, and come less often.

    Requests leave no cycles behind but those of a few errors.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
