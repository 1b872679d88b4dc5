"""SIGTERM and SIGKILL, and the state of the server and its data afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import httpx
import msgspec

from ecomcharge.customers import store
from ecomcharge.customers.model import FIELD_NAMES, Customer
from ecomcharge.shops.keys import MasterKey
from ecomcharge.shops.model import Credentials
from ecomcharge.storage.database import Database, Transaction
from support.operations import GOOD, JOHN, auth, counted, get
from support.process import ServerProcess
from support.shops import ENVIRONMENT, Start, add_shop, with_database
from support.waiting import eventually
from support.wire import Wire, basic, head, request


def listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def stored_ids(url: str, shop: Credentials) -> list[str]:
    async def work(database: Database) -> list[str]:
        return [customer.id for customer in await store.Customers(database, shop.shop_id).select(1_000_000)]

    return with_database(url, work)


def test_a_request_in_progress_at_sigterm_completes_and_idle_connections_do_not_delay_the_exit(
    start: Start, master_key: MasterKey
) -> None:
    process = start()
    shop = add_shop(process.database, master_key)
    with Wire(process.port) as wire, Wire(process.port), httpx.Client(base_url=process.url) as kept:
        kept.get("/healthz")
        framing = (("Content-Type", "application/json"), ("Content-Length", str(len(GOOD))))
        wire.send(head("POST", "/customers", ("Authorization", basic(*auth(shop))), *framing) + GOOD[:9])
        time.sleep(0.3)
        process.terminate()
        time.sleep(0.5)
        wire.send(GOOD[9:])
        answer = wire.answer()
        answered_at = time.monotonic()
        assert process.wait(10) == 0

    assert answer.status == 201
    assert time.monotonic() - answered_at < 5
    assert not listens(process.port)
    assert stored_ids(process.database, shop) == [answer.json()["id"]]


def test_every_acknowledged_create_survives_sigterm_under_load(start: Start, database_url: str, master_key: MasterKey) -> None:
    process = start("--workers", "2", database=database_url)
    shop = add_shop(database_url, master_key)
    acknowledged: list[str] = []
    strange: list[int] = []

    def create_until_it_ends() -> None:
        with httpx.Client(base_url=process.url, auth=auth(shop), timeout=20) as client:
            while True:
                try:
                    response = client.post("/customers", json=JOHN)
                except httpx.TransportError:
                    return
                if response.status_code == 201:
                    acknowledged.append(response.json()["id"])
                else:
                    strange.append(response.status_code)

    threads = [threading.Thread(target=create_until_it_ends) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert eventually(lambda: len(acknowledged) > 200, 20)
    began = time.monotonic()
    assert process.stop() == 0
    ended_after_seconds = time.monotonic() - began
    for thread in threads:
        thread.join(20)

    assert strange == []
    assert ended_after_seconds < 10
    assert not listens(process.port)
    stored = stored_ids(database_url, shop)
    assert set(acknowledged) <= set(stored)
    assert len(stored) - len(acknowledged) <= len(threads)  # at most one per client, whose response was lost


def test_a_killed_worker_is_replaced_and_its_metrics_are_kept(start: Start, master_key: MasterKey) -> None:
    process = start("--workers", "2")
    shop = add_shop(process.database, master_key)
    for _ in range(20):
        assert get(process, "/customers", shop).status_code == 200
    assert eventually(lambda: counted(process) == 20, 3)
    killed, other = process.worker_pids()

    os.kill(killed, signal.SIGKILL)

    assert eventually(lambda: len(set(process.worker_pids()) - {killed}) == 2, 10)
    assert other in process.worker_pids()
    assert eventually(lambda: all(answers(process, shop) for _ in range(10)), 10)
    assert counted(process) >= 20
    assert process.stop() == 0


def answers(process: ServerProcess, shop: Credentials) -> bool:
    try:
        return get(process, "/customers", shop).status_code == 200
    except httpx.TransportError:
        return False


def test_no_worker_outlives_its_killed_supervisor(start: Start) -> None:
    process = start("--workers", "2")
    assert process.process is not None
    workers = eventually(process.worker_pids, is_good=lambda pids: len(pids) == 2)

    os.kill(process.process.pid, signal.SIGKILL)

    assert eventually(lambda: not any(is_alive(pid) for pid in workers), 5)
    assert not listens(process.port)


def test_no_worker_outlives_a_supervisor_that_is_killed_while_they_start(tmp_path: Path) -> None:
    process = ServerProcess(f"sqlite:///{tmp_path}/test.db", tmp_path, environment=ENVIRONMENT)

    def begin() -> None:
        with contextlib.suppress(RuntimeError):  # killed during its start
            process.start()

    starting = threading.Thread(target=begin)
    starting.start()
    try:
        assert eventually(lambda: process.process is not None and len(process.worker_pids()) == 1, 20)
        assert process.process is not None
        (worker,) = process.worker_pids()

        os.kill(process.process.pid, signal.SIGKILL)

        assert eventually(lambda: not is_alive(worker), 5)
        assert not listens(process.port)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        starting.join()


def test_slow_readers_of_long_lists_do_not_delay_the_end_and_the_group_logs_no_error(
    start: Start, database_url: str, master_key: MasterKey
) -> None:
    """SIGTERM reaches all processes at once, as from a terminal or a service manager."""
    process = start("--workers", "2", "--worker", database=database_url)
    shop = add_shop(database_url, master_key)
    fields = dict.fromkeys(FIELD_NAMES, "x" * 255)
    records = [msgspec.convert({"id": f"cst_{number:016x}", **fields}, Customer) for number in range(1_000)]

    async def fill(database: Database) -> None:
        async def unit(tx: Transaction) -> None:
            await store.insert_many(tx, [store.row_of(shop.shop_id, record) for record in records])

        await database.write(unit)

    with_database(database_url, fill)
    asked = request("GET", "/customers?limit=1000", ("Authorization", basic(*auth(shop))))
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(process.port, receive_buffer_bytes=4096)) for _ in range(6)]
        for wire in wires:
            wire.send(asked)
        assert eventually(lambda: counted(process) == len(wires), 20)
        ended = threading.Event()

        def read_slowly(wire: Wire) -> None:
            with contextlib.suppress(OSError):
                while not ended.wait(0.2):
                    wire._socket.recv(2_000)

        for wire in wires[:3]:  # the others read nothing
            threading.Thread(target=read_slowly, args=(wire,), daemon=True).start()
        assert process.process is not None
        stopped_at = time.monotonic()
        os.killpg(process.process.pid, signal.SIGTERM)
        assert process.wait() == 0
        seconds = time.monotonic() - stopped_at
        ended.set()

    assert seconds < 15, process.log()
    lines = [json.loads(line) for line in process.log().splitlines() if line.startswith("{")]
    assert not [line for line in lines if line.get("level") in ("warning", "error") and "setting" not in line]
