"""The access log when writing fails."""

from __future__ import annotations

import asyncio
import io
import sys

import pytest

from ecomcharge.storage.database import DatabaseStats
from ecomcharge.web.access_log import AccessLog, AccessLogEntry
from ecomcharge.web.metrics import Metrics

READ = AccessLogEntry(0.0, "req_1", "GET", "/customers", 200, None, 1, 0.001)


class FullDisk(io.StringIO):
    def write(self, _: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_failed_log_write_loses_only_log_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> int:
        access_log = AccessLog("json", metrics.count)
        monkeypatch.setattr(sys, "stderr", FullDisk())
        for _ in range(5_000):
            access_log.add(READ)
        access_log.flush()
        return len(access_log._entries)

    metrics = Metrics(None)
    assert asyncio.run(work()) == 0
    assert b'_count{method="GET",route="/customers",status="200"} 5000.0' in metrics.exposition(DatabaseStats())
