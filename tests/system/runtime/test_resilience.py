"""What must not bring a server down, or wear it out: a failing log, a failing task, a lock that stays taken."""

from __future__ import annotations

import asyncio
import fcntl
import io
import sys
import time
from pathlib import Path

import httpx
import pytest

from ecomcharge.runtime.housekeeping import every
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Load
from ecomcharge.web.access_log import AccessLog, AccessLogEntry
from ecomcharge.web.metrics import Metrics
from support.process import ServerProcess
from support.shops import ENVIRONMENT, add_shop

READ = AccessLogEntry(0.0, "req_1", "GET", "/customers", 200, None, 1, 0.001)


class FullDisk(io.StringIO):
    def write(self, _: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_log_that_cannot_be_written_loses_lines_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> int:
        access_log = AccessLog("json", metrics.count)
        monkeypatch.setattr(sys, "stderr", FullDisk())
        for _ in range(5_000):
            access_log.add(READ)
        access_log.flush()
        return len(access_log._entries)

    metrics = Metrics(None)
    assert asyncio.run(work()) == 0
    assert b'_count{method="GET",route="/customers",status="200"} 5000.0' in metrics.exposition(Load())


def test_metrics_without_their_folder_are_those_of_this_process(tmp_path: Path) -> None:
    metrics = Metrics(str(tmp_path / "gone"))
    metrics.count([READ])
    assert b'_count{method="GET",route="/customers",status="200"} 1.0' in metrics.exposition(Load())


def test_a_task_beside_the_server_survives_its_failures() -> None:
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


def test_a_process_that_stands_still_with_the_write_lock_costs_five_seconds_and_a_503(
    tmp_path: Path, master_key: MasterKey
) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    shop = add_shop(url, master_key)
    with (
        ServerProcess(url, tmp_path, environment=ENVIRONMENT) as server,
        Path(f"{tmp_path}/x.db-writer").open() as lock,
        httpx.Client(base_url=server.url, auth=(str(shop.shop_id), shop.secret_key), timeout=20) as http,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        started = time.monotonic()
        refused = http.post("/customers", json={"email": "a@b.cc", "ip": "::1"})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert 4 < time.monotonic() - started < 9
        assert http.get("/customers").json() == []
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert http.post("/customers", json={"email": "a@b.cc", "ip": "::1"}).status_code == 201
        assert len(http.get("/customers").json()) == 1


def test_a_deleted_database_is_not_ready(tmp_path: Path) -> None:
    with ServerProcess(f"sqlite:///{tmp_path}/x.db", tmp_path, environment=ENVIRONMENT) as server:
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        (tmp_path / "x.db").unlink()
        assert httpx.get(f"{server.url}/readyz").status_code == 503
