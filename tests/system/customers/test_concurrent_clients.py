"""Many at once: on one key, on one file, on one database, in two shops, and on a long list."""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from ecomcharge.base.clock import SystemClock
from ecomcharge.base.ids import CUSTOMER_PREFIX, IdGenerator
from ecomcharge.customers.model import FIELD_NAMES
from ecomcharge.shops.keys import MasterKey
from ecomcharge.shops.model import Credentials
from ecomcharge.storage.migrate import migrations_for
from ecomcharge.storage.opening import sqlite_path
from support.load import Line, Load, Reply
from support.process import ServerProcess
from support.shops import ENVIRONMENT, Shop, add_shop
from support.waiting import eventually

CROWD = 30
REPETITIONS = 20
MANY = 200_000
MEBIBYTE = 1024 * 1024
MOST_GROWTH_BYTES = 60 * MEBIBYTE
SLOW_SECONDS = 3.0
STALL_SECONDS = 3
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Pair:
    """Two servers on one database."""

    processes: tuple[ServerProcess, ServerProcess]
    database: str

    @property
    def urls(self) -> list[str]:
        return [process.url for process in self.processes]


@pytest.fixture(scope="module")
def pair(new_database_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    url = new_database_url()
    with ExitStack() as stack:
        first, second = (ServerProcess(url, tmp_path_factory.mktemp("pair"), environment=ENVIRONMENT) for _ in range(2))
        yield Pair((stack.enter_context(first), stack.enter_context(second)), url)


@pytest.fixture
def shop(pair: Pair, master_key: MasterKey) -> Credentials:
    return add_shop(pair.database, master_key)


class Crowd:
    """Clients that all ask at the same moment, each on an open connection of its own."""

    def __init__(self, urls: Sequence[str], shop: Credentials, size: int) -> None:
        self.lines = [Line(urls[number % len(urls)], shop.shop_id, shop.secret_key) for number in range(size)]
        self._barrier = threading.Barrier(size)
        self._pool = ThreadPoolExecutor(size)
        self.at_once(lambda line, _: line.ask("GET", "/healthz"))

    def at_once(self, ask: Callable[[Line, int], Reply]) -> list[Reply]:
        def one(number: int) -> Reply:
            self._barrier.wait(30)
            return ask(self.lines[number], number)

        return list(self._pool.map(one, range(len(self.lines))))

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        for line in self.lines:
            line.close()


def new_body(**chosen: object) -> dict[str, object]:
    number = next(_numbers)
    return {"email": f"crowd-{number}@shop.test", "ip": "127.0.0.1", "external_id": f"crowd-{number}", **chosen}


# One idempotency key


@pytest.mark.parametrize("servers", [1, 2], ids=["one server", "two servers"])
def test_a_crowd_with_one_key_makes_one_customer(pair: Pair, shop: Credentials, servers: int) -> None:
    slowest = 0.0
    with Crowd(pair.urls[:servers], shop, CROWD) as crowd:
        for repetition in range(REPETITIONS):
            body, key = new_body(), f"crowd-{repetition}"
            replies = crowd.at_once(lambda line, _, body=body, key=key: line.create(body, key))  # type: ignore[misc]
            assert [reply.status for reply in replies] == [201] * CROWD
            assert len({reply.body for reply in replies}) == 1
            assert sum(reply.headers.get("idempotent-replayed") == "true" for reply in replies) == CROWD - 1
            slowest = max(slowest, *(reply.seconds for reply in replies))
        assert len(crowd.lines[0].customers()) == REPETITIONS
    print(f"slowest {slowest:.2f} s")


def test_a_crowd_with_one_key_and_different_bodies_makes_one_customer_and_refuses_the_rest(pair: Pair, shop: Credentials) -> None:
    with Crowd(pair.urls, shop, 12) as crowd:
        for repetition in range(REPETITIONS):
            key = f"quarrel-{repetition}"
            replies = crowd.at_once(lambda line, number, key=key: line.create(new_body(city=f"City {number}"), key))  # type: ignore[misc]
            assert sorted(reply.status for reply in replies) == [201] + [422] * 11
        assert len(crowd.lines[0].customers()) == REPETITIONS


def test_crowds_that_meet_several_keys_in_different_order_all_get_their_answers(pair: Pair, shop: Credentials) -> None:
    """Keys that travel together in one transaction are locked together, in whatever order they came."""
    bodies = [new_body() for _ in range(8)]

    def ask(repetition: int, line: Line, number: int) -> Reply:
        order = range(8) if number % 2 else range(7, -1, -1)
        replies = [line.create(bodies[which], f"order-{repetition}-{which}") for which in order]
        assert [reply.status for reply in replies] == [201] * 8
        return max(replies, key=lambda reply: reply.seconds)

    with Crowd(pair.urls, shop, 16) as crowd:
        slowest = 0.0
        for repetition in range(5):
            slowest = max(slowest, *(reply.seconds for reply in crowd.at_once(functools.partial(ask, repetition))))
        assert len(crowd.lines[0].customers()) == 5 * 8
    print(f"slowest {slowest:.2f} s")
    assert slowest < 3


# Several servers, one database


def test_two_servers_that_start_at_once_on_an_empty_database_both_come_up(
    new_database_url: Callable[[], str], master_key: MasterKey, server_folder: Path
) -> None:
    for _ in range(2):
        url = new_database_url()
        processes = [ServerProcess(url, server_folder, environment=ENVIRONMENT) for _ in range(2)]
        try:
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(ServerProcess.start, processes))
            applied = sum(process.log().count("migration applied") for process in processes)
            assert applied == len(migrations_for(url.partition(":")[0]))
            shop = add_shop(url, master_key)
            for process in processes:
                with Line(process.url, shop.shop_id, shop.secret_key) as line:
                    assert line.create(new_body()).status == 201
        finally:
            for process in processes:
                process.kill()


def test_processes_that_write_to_one_database_do_not_starve_each_other(
    database_url: str, master_key: MasterKey, server_folder: Path
) -> None:
    shop = add_shop(database_url, master_key)
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(ServerProcess(database_url, server_folder, "--workers", "2", environment=ENVIRONMENT))
            for _ in range(2)
        )
        with Load([first.url, second.url], shop.shop_id, shop.secret_key, connections=16) as load:
            time.sleep(2.5)
        with Line(second.url, shop.shop_id, shop.secret_key) as line:
            load.ledger.check(line.customers())
    print(load.ledger)
    assert load.ledger.refused == []
    assert load.ledger.unknown == []
    assert load.ledger.slowest_seconds < 2
    assert len(load.ledger.acknowledged) > 500


def test_what_one_server_acknowledged_is_at_once_there_on_the_other(pair: Pair, shop: Credentials) -> None:
    with ExitStack() as stack:
        first, second = (stack.enter_context(Line(url, shop.shop_id, shop.secret_key)) for url in pair.urls)
        load = stack.enter_context(Load(pair.urls, shop.shop_id, shop.secret_key, connections=4))
        for number in range(200):
            writer, reader = (first, second) if number % 2 else (second, first)
            body = new_body()
            made = writer.create(body).json()
            found = reader.ask("GET", f"/customers/{made['id']}")
            assert (found.status, found.json()) == (200, made)
            assert reader.customers(f"?external_id={body['external_id']}") == [made]
    assert load.ledger.odd == []
    assert load.ledger.refused == []
    assert load.ledger.unknown == []


# Two shops


def test_two_shops_that_hammer_at_once_never_meet(pair: Pair, master_key: MasterKey) -> None:
    """They use the same emails, external ids and idempotency keys, and each other's ids as cursors."""
    shops = [add_shop(pair.database, master_key) for _ in range(2)]
    made: list[list[str]] = [[], []]
    deadline = time.monotonic() + 2.5

    def hammer(worker: int) -> None:
        mine, other = worker % 2, 1 - worker % 2
        with Line(pair.urls[worker // 2 % 2], shops[mine].shop_id, shops[mine].secret_key) as line:
            for number in itertools.count():
                if time.monotonic() > deadline:
                    break
                name = f"same-{worker // 2}-{number}"
                body = {"email": f"{name}@shop.test", "external_id": name, "ip": "127.0.0.1", "first_name": f"shop {mine}"}
                created = line.create(body, name)
                assert created.status == 201
                assert created.json()["first_name"] == f"shop {mine}"
                assert "idempotent-replayed" not in created.headers
                made[mine].append(created.json()["id"])
                foreign = made[other][-1:]
                seen = line.customers(f"?email={name}@shop.test") + line.customers(f"?external_id={name}")
                assert [customer["id"] for customer in seen] == [created.json()["id"]] * 2
                for id in foreign:
                    assert line.ask("GET", f"/customers/{id}").status == 404
                    seen += line.customers(f"?after={id}&limit=5") + line.customers(f"?before={id}&limit=5")
                seen += line.customers("?page=1&per_page=5")
                if number % 20 == 0:
                    seen += line.customers()
                assert {customer["first_name"] for customer in seen} == {f"shop {mine}"}

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(hammer, range(8)))
    print([len(ids) for ids in made])
    assert min(len(ids) for ids in made) > 50
    for mine in range(2):
        with Line(pair.urls[0], shops[mine].shop_id, shops[mine].secret_key) as line:
            assert sorted(made[mine]) == [customer["id"] for customer in line.customers()]


# A long list


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
            *("CO", "+1-555-555-5555", f"many-{number}@shop.test", "127.0.0.1", f"many-{number}"),
        )


def _fill(url: str, shop_id: int) -> None:
    columns = ["shop_id", "id", *FIELD_NAMES]
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
def crowded(
    new_database_url: Callable[[], str], master_key: MasterKey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    """A server of its own with a shop of very many customers."""
    url = new_database_url()
    shop = add_shop(url, master_key)
    _fill(url, shop.shop_id)
    stall = ("--stall-timeout-seconds", str(STALL_SECONDS))
    with ServerProcess(url, tmp_path_factory.mktemp("crowded"), *stall, environment=ENVIRONMENT) as process:
        yield Shop(process.url, shop.shop_id, shop.secret_key, process)


def memory_bytes(pid: int, name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


@pytest.mark.parametrize("slowly", [False, True], ids=["at full speed", "slowly"])
def test_a_list_of_very_many_customers_arrives_whole_and_costs_little_memory(crowded: Shop, slowly: bool) -> None:
    (pid,) = crowded.process.worker_pids()
    with crowded.client() as client:
        assert client.get("/customers?limit=1").status_code == 200
    before = memory_bytes(pid, "VmRSS")
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak is counted from now on
    sampled = before
    started = time.monotonic()
    body = bytearray()
    size = MANY * 260  # about, to keep a pace by
    with crowded.client() as client, client.stream("GET", "/customers") as response:
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


def test_readers_that_leave_a_long_list_leave_nothing_open_behind(crowded: Shop) -> None:
    (pid,) = crowded.process.worker_pids()
    assert eventually(lambda: deleted_files(pid) == 0)  # of the tests before
    with crowded.client() as client:
        for _ in range(10):
            with client.stream("GET", "/customers") as response:
                next(response.iter_raw(1024))
        assert eventually(lambda: deleted_files(pid) == 0)
        assert client.get("/customers?limit=1").status_code == 200
