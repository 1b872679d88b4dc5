"""A list of very many customers."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from ecomcharge.base.clock import SystemClock
from ecomcharge.base.ids import CUSTOMER_PREFIX, IdGenerator
from ecomcharge.customers.model import FIELD_NAMES
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.opening import sqlite_path
from support.process import ServerProcess
from support.shops import ENVIRONMENT, Shop, add_shop
from support.waiting import eventually

MANY = 200_000
MEBIBYTE = 1024 * 1024
MOST_GROWTH_BYTES = 60 * MEBIBYTE
SLOW_SECONDS = 3.0
STALL_SECONDS = 3


def _many_rows(shop_id: int) -> Iterator[tuple[object, ...]]:
    id_generator = IdGenerator(CUSTOMER_PREFIX)
    now = SystemClock().now()
    for number in range(MANY):
        yield (
            *(
                shop_id,
                id_generator.generate(now + number // 50),
                f"First {number}",
                "Last",
                "1st Street",
                "US",
                "Denver",
                "92006",
            ),
            *("CO", "+1-555-555-5555", f"many-{number}@shop.test", "127.0.0.1", f"many-{number}", ""),
        )


def _fill(url: str, shop_id: int) -> None:
    columns = ["shop_id", "id", *FIELD_NAMES, "search_terms"]
    path = sqlite_path(url)
    if path is not None:
        database = sqlite3.connect(path)
        with database:
            marks = ", ".join("?" for _ in columns)
            database.executemany(f"INSERT INTO customers ({', '.join(columns)}) VALUES ({marks})", _many_rows(shop_id))
        database.close()
        return

    async def copy() -> None:
        connection = await asyncpg.connect(url)
        await connection.copy_records_to_table("customers", records=_many_rows(shop_id), columns=columns)
        await connection.close()

    asyncio.run(copy())


@pytest.fixture(scope="module")
def shop_with_many(
    new_database_url: Callable[[], str], master_key: MasterKey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    """A separate server with a shop that has very many customers."""
    url = new_database_url()
    shop = add_shop(url, master_key)
    _fill(url, shop.shop_id)
    stall = ("--stall-timeout-seconds", str(STALL_SECONDS))
    with ServerProcess(url, tmp_path_factory.mktemp("shop_with_many"), *stall, environment=ENVIRONMENT) as process:
        yield Shop(process.url, shop.shop_id, shop.secret_key, process)


def memory_bytes(pid: int, name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


@pytest.mark.parametrize("slowly", [False, True], ids=["at full speed", "slowly"])
def test_a_very_long_list_is_complete_and_uses_little_memory(shop_with_many: Shop, slowly: bool) -> None:
    (pid,) = shop_with_many.process.worker_pids()
    with shop_with_many.client() as client:
        assert client.get("/customers?limit=1").status_code == 200
    before = memory_bytes(pid, "VmRSS")
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # reset the peak
    sampled = before
    started = time.monotonic()
    body = bytearray()
    size = MANY * 260  # approximate, for the reading rate
    with shop_with_many.client() as client, client.stream("GET", "/customers") as response:
        assert response.status_code == 200
        for chunk in response.iter_raw(256 * 1024):
            body += chunk
            sampled = max(sampled, memory_bytes(pid, "VmRSS"))
            if slowly:
                time.sleep(max(0.0, started + SLOW_SECONDS * len(body) / size - time.monotonic()))
    seconds = time.monotonic() - started
    grown = max(sampled, memory_bytes(pid, "VmHWM")) - before
    print(f"{len(body) / MEBIBYTE:.0f} MiB in {seconds:.1f} s, {before / MEBIBYTE:.0f} MiB and {grown / MEBIBYTE:.1f} more")
    customers: list[dict[str, Any]] = json.loads(body)
    assert len(customers) == MANY
    assert [customer["external_id"] for customer in customers] == [f"many-{number}" for number in range(MANY)]
    ids = [customer["id"] for customer in customers]
    assert ids == sorted(set(ids))
    assert grown < MOST_GROWTH_BYTES


def deleted_files(pid: int) -> int:
    found = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            found += str(descriptor.readlink()).endswith("(deleted)")
    return found


def test_clients_that_abandon_a_long_list_leave_no_open_descriptors(shop_with_many: Shop) -> None:
    (pid,) = shop_with_many.process.worker_pids()
    assert eventually(lambda: deleted_files(pid) == 0)  # of earlier tests
    with shop_with_many.client() as client:
        for _ in range(10):
            with client.stream("GET", "/customers") as response:
                next(response.iter_raw(1024))
        assert eventually(lambda: deleted_files(pid) == 0)
        assert client.get("/customers?limit=1").status_code == 200
