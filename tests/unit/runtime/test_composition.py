"""Background tasks of the server."""

from __future__ import annotations

import asyncio

from ecomcharge.runtime.housekeeping import every


def test_a_background_task_continues_after_failures() -> None:
    async def work() -> int:
        calls = 0

        async def fails() -> None:
            nonlocal calls
            calls += 1
            raise OSError("too many open files")

        task = asyncio.create_task(every(0.001, fails))
        while calls < 3:
            await asyncio.sleep(0.001)
        task.cancel()
        return calls

    assert asyncio.run(work()) >= 3
