"""The PostgreSQL engine: units that fail in a batch, batches side by side, migrations, the pool of connections."""

from __future__ import annotations

import asyncio

from ecomcharge.storage.postgres.batching import Batcher, Pending


def test_items_of_a_batch_that_is_cancelled_fail_and_later_ones_are_flushed() -> None:
    async def work() -> None:
        stops = True

        async def flush(batch: list[Pending]) -> None:
            if stops:
                raise asyncio.CancelledError
            for item in batch:
                item.resolve(None)

        batcher: Batcher[Pending] = Batcher(flush, max_in_flight=1, max_batch=2)
        async with asyncio.timeout(5):
            first = [asyncio.create_task(batcher.submit(Pending())) for _ in range(4)]
            await asyncio.wait(first[:2])
            stops = False
            await batcher.submit(Pending())
            await asyncio.gather(*first, return_exceptions=True)
        assert [task.cancelled() for task in first] == [True, True, False, False]

    asyncio.run(work())


def test_a_second_batch_starts_although_items_wait_behind_the_first() -> None:
    async def work() -> None:
        first_may_end = asyncio.Event()
        batches: list[int] = []

        async def flush(batch: list[Pending]) -> None:
            batches.append(len(batch))
            if len(batches) == 1:
                await first_may_end.wait()
            for item in batch:
                item.resolve(None)

        batcher: Batcher[Pending] = Batcher(flush, max_in_flight=2, max_batch=3)
        waiting = [asyncio.create_task(batcher.submit(Pending())) for _ in range(4)]
        await asyncio.sleep(0.01)
        async with asyncio.timeout(2):
            await batcher.submit(Pending())
        assert batches == [3, 2]
        first_may_end.set()
        await asyncio.gather(*waiting)

    asyncio.run(work())
