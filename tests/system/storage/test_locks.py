"""Locks that other programs hold."""

from __future__ import annotations

import asyncio
import fcntl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import httpx

from ecomcharge.shops.keys import MasterKey
from support.faults import check_everything, line_to, new_customer_request
from support.load import Ledger, is_plain_refusal
from support.process import ServerProcess
from support.shops import ENVIRONMENT, add_shop


def test_an_externally_locked_idempotency_key_delays_no_other_request(
    postgres_url: str, master_key: MasterKey, server_folder: Path
) -> None:
    shop = add_shop(postgres_url, master_key)
    locked = new_customer_request()

    async def hold(holding: threading.Event, done: threading.Event) -> None:
        connection = await asyncpg.connect(postgres_url)
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(
            "INSERT INTO idempotency_keys (shop_id, key, claim, fingerprint, created_at) VALUES ($1, $2, 'x', 'x', $3)",
            shop.shop_id,
            locked.key,
            int(time.time() * 1000),
        )
        holding.set()
        await asyncio.to_thread(done.wait, 30)
        await transaction.rollback()
        await connection.close()

    holding, done = threading.Event(), threading.Event()
    with (
        ServerProcess(postgres_url, server_folder, environment=ENVIRONMENT) as process,
        line_to(process, shop) as blocked_line,
        line_to(process, shop) as line,
        ThreadPoolExecutor(2) as pool,
    ):
        holder = pool.submit(asyncio.run, hold(holding, done))
        try:
            assert holding.wait(10)
            blocked = pool.submit(blocked_line.create, locked.body, locked.key)
            time.sleep(0.3)
            ledger = Ledger()
            for _ in range(20):
                customer_request = new_customer_request()
                ledger.enter(customer_request, line.create(customer_request.body, customer_request.key))
            answer = blocked.result(20)
            for _ in range(20):
                customer_request = new_customer_request()
                reply = line.create(customer_request.body, customer_request.key)
                assert reply.status == 201
                ledger.enter(customer_request, reply)
        finally:
            done.set()
            holder.result(30)
        print(answer.status, f"{answer.seconds:.1f} s; neighbours:", ledger)
        assert answer.status in (409, 503)
        assert answer.seconds < 6.5
        assert len(ledger.acknowledged) == 40
        assert ledger.slowest_seconds < 2
        again = blocked_line.create(locked.body, locked.key)
        assert again.status == 201
        ledger.enter(locked, again)
        check_everything(process, shop, ledger)


HOLD_THE_WRITE_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
"""


def test_a_locked_sqlite_database_refuses_writes_and_serves_reads(
    sqlite_url: str, master_key: MasterKey, server_folder: Path
) -> None:
    shop = add_shop(sqlite_url, master_key)
    with (
        ServerProcess(sqlite_url, server_folder, environment=ENVIRONMENT) as process,
        line_to(process, shop) as writing,
        line_to(process, shop) as reading,
    ):
        first = writing.create(new_customer_request().body)
        path = f"/customers/{first.json()['id']}"
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLD_THE_WRITE_LOCK, sqlite_url.removeprefix("sqlite:///")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        ledger = Ledger()
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            customer_request = new_customer_request()
            with ThreadPoolExecutor(1) as pool:
                refused = pool.submit(writing.create, customer_request.body, customer_request.key)
                reads = []
                while not refused.done():
                    reads.append(reading.ask("GET", path))
                    time.sleep(0.05)
        finally:
            holder.communicate(b"\n", timeout=10)
        ledger.enter(customer_request, refused.result())
        print(f"{refused.result().seconds:.1f} s; {len(reads)} reads, slowest {max(read.seconds for read in reads):.3f} s")
        assert refused.result().status == 503
        assert is_plain_refusal(refused.result())
        assert refused.result().seconds < 7
        assert {read.status for read in reads} == {200}
        assert max(read.seconds for read in reads) < 1
        after = new_customer_request()
        reply = writing.create(after.body, after.key)
        assert reply.status == 201
        ledger.enter(after, reply)
        check_everything(process, shop, ledger)


def test_a_write_lock_held_by_a_stopped_process_causes_503_after_five_seconds(tmp_path: Path, master_key: MasterKey) -> None:
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
