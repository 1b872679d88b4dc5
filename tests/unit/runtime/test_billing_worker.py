"""The pauses of a billing worker without work."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ecomcharge.runtime import billing_worker
from ecomcharge.runtime.billing_worker import BillingWorker

NOW = 1_800_000_000_000


def pauses(monkeypatch: pytest.MonkeyPatch, *, is_distributed: bool, started: list[int], next_due: int | None) -> list[float]:
    """The pauses in seconds between rounds that start so much work."""
    waits: list[float] = []
    rounds = iter(started)

    async def work() -> None:
        stopped = asyncio.Event()

        async def wait(_: asyncio.Event, seconds: float) -> None:
            waits.append(seconds)

        async def round_(*_: object) -> int:
            count = next(rounds, None)
            if count is None:
                stopped.set()
            return count or 0

        async def find_next_due(*_: object) -> int | None:
            return next_due

        async def read() -> int:
            return NOW

        monkeypatch.setattr(billing_worker, "_wait", wait)
        monkeypatch.setattr(BillingWorker, "round", round_)
        monkeypatch.setattr(BillingWorker, "_next_due", find_next_due)

        async def finish() -> None:
            pass

        delivery = SimpleNamespace(is_idle=True, backoff_seconds=lambda: 0.0, wait=finish)
        database, clock = SimpleNamespace(is_distributed=is_distributed), SimpleNamespace(read=read)
        await BillingWorker(*cast(Any, (database, None, delivery, clock))).run(stopped)

    asyncio.run(work())
    return waits[:-1]


def test_on_a_cluster_the_pauses_without_work_grow_until_work_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    idle = [0] * 7
    assert pauses(monkeypatch, is_distributed=True, started=idle, next_due=None) == [0.5, 1, 2, 4, 5, 5, 5]
    assert pauses(monkeypatch, is_distributed=True, started=[0, 0, 0, 1, 0, 0], next_due=None) == [0.5, 1, 2, 0.5, 1]
    assert pauses(monkeypatch, is_distributed=True, started=idle, next_due=NOW + 1500) == [0.5, 1, *[1.5] * 5]
    assert pauses(monkeypatch, is_distributed=True, started=idle, next_due=NOW - 1) == [0.5] * 7


def test_one_database_is_asked_twice_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pauses(monkeypatch, is_distributed=False, started=[0] * 4, next_due=None) == [0.5] * 4
