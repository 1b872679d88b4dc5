"""Many concurrent requests: with one key, to two servers on one database, in two shops."""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from ecomcharge.shops.keys import MasterKey
from ecomcharge.shops.model import Credentials
from ecomcharge.storage.migrate import migrations_for
from support.load import Line, Load, Reply
from support.process import ServerProcess
from support.shops import ENVIRONMENT, add_shop

CLIENTS = 30
REPETITIONS = 20
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


class ManyClients:
    """Clients that send a request at the same moment, each on a separate open connection."""

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

    def __enter__(self) -> ManyClients:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        for line in self.lines:
            line.close()


def new_body(**chosen: object) -> dict[str, object]:
    number = next(_numbers)
    return {"email": f"clients-{number}@shop.test", "ip": "127.0.0.1", "external_id": f"clients-{number}", **chosen}


@pytest.mark.parametrize("servers", [1, 2], ids=["one server", "two servers"])
def test_many_requests_with_one_key_make_one_customer(pair: Pair, shop: Credentials, servers: int) -> None:
    slowest = 0.0
    with ManyClients(pair.urls[:servers], shop, CLIENTS) as clients:
        for repetition in range(REPETITIONS):
            body, key = new_body(), f"clients-{repetition}"
            replies = clients.at_once(lambda line, _, body=body, key=key: line.create(body, key))  # type: ignore[misc]
            assert [reply.status for reply in replies] == [201] * CLIENTS
            assert len({reply.body for reply in replies}) == 1
            assert sum(reply.headers.get("idempotent-replayed") == "true" for reply in replies) == CLIENTS - 1
            slowest = max(slowest, *(reply.seconds for reply in replies))
        assert len(clients.lines[0].customers()) == REPETITIONS
    print(f"slowest {slowest:.2f} s")


def test_of_many_bodies_with_one_key_only_one_is_accepted(pair: Pair, shop: Credentials) -> None:
    with ManyClients(pair.urls, shop, 12) as clients:
        for repetition in range(REPETITIONS):
            key = f"quarrel-{repetition}"
            replies = clients.at_once(lambda line, number, key=key: line.create(new_body(city=f"City {number}"), key))  # type: ignore[misc]
            assert sorted(reply.status for reply in replies) == [201] + [422] * 11
        assert len(clients.lines[0].customers()) == REPETITIONS


def test_clients_that_use_several_keys_in_different_order_all_get_responses(pair: Pair, shop: Credentials) -> None:
    """Keys of one batch are locked together in one transaction, in any order of arrival."""
    bodies = [new_body() for _ in range(8)]

    def ask(repetition: int, line: Line, number: int) -> Reply:
        order = range(8) if number % 2 else range(7, -1, -1)
        replies = [line.create(bodies[which], f"order-{repetition}-{which}") for which in order]
        assert [reply.status for reply in replies] == [201] * 8
        return max(replies, key=lambda reply: reply.seconds)

    with ManyClients(pair.urls, shop, 16) as clients:
        slowest = 0.0
        for repetition in range(5):
            slowest = max(slowest, *(reply.seconds for reply in clients.at_once(functools.partial(ask, repetition))))
        assert len(clients.lines[0].customers()) == 5 * 8
    print(f"slowest {slowest:.2f} s")
    assert slowest < 3


@pytest.mark.parametrize("with_keys", [False, True], ids=["without keys", "with keys"])
@pytest.mark.parametrize("servers", [1, 2], ids=["one server", "two servers"])
def test_concurrent_puts_by_external_id_make_one_customer(pair: Pair, shop: Credentials, servers: int, with_keys: bool) -> None:
    """Half of the clients send the same fields, the others different ones."""

    def put(line: Line, number: int, repetition: int) -> Reply:
        body = {"email": "a@shop.test", "ip": "::1", "city": f"City {max(0, number - CLIENTS // 2)}"}
        keys = {"Idempotency_Key": f"put-{repetition}-{number}"} if with_keys else {}
        return line.ask("PUT", f"/customers/external/{repetition}", body, **keys)

    slowest = 0.0
    with ManyClients(pair.urls[:servers], shop, CLIENTS) as clients:
        for repetition in range(REPETITIONS):
            replies = clients.at_once(functools.partial(put, repetition=repetition))
            assert sorted(reply.status for reply in replies) == [200] * (CLIENTS - 1) + [201], repetition
            assert len({reply.json()["id"] for reply in replies}) == 1
            slowest = max(slowest, *(reply.seconds for reply in replies))
        customers = clients.lines[0].customers()
        events = clients.lines[0].ask("GET", "/events?limit=1000&type=customer.updated").json()
        read = [clients.lines[0].ask("GET", f"/customers/{customer['id']}") for customer in customers]
    print(f"slowest {slowest:.2f} s")
    assert sorted(customer["external_id"] for customer in customers) == sorted(map(str, range(REPETITIONS)))
    versions = {reply.json()["id"]: int(reply.headers["etag"].strip('"')) for reply in read}
    for customer_id, version in versions.items():  # each change has one event, and only the changes
        found = [event["sequence"] for event in events if event["object_id"] == customer_id]
        assert found == list(range(version, 1, -1))


def test_clients_that_create_by_several_external_ids_in_different_order_all_succeed(pair: Pair, shop: Credentials) -> None:
    """Locks of one batch are taken in one transaction, in any order of arrival."""

    def put(line: Line, number: int, repetition: int) -> Reply:
        order = range(8) if number % 2 else range(7, -1, -1)
        body = {"email": "a@shop.test", "ip": "::1"}
        replies = [line.ask("PUT", f"/customers/external/{repetition}-{which}", body) for which in order]
        assert {reply.status for reply in replies} <= {200, 201}
        return max(replies, key=lambda reply: reply.seconds)

    with ManyClients(pair.urls, shop, 16) as clients:
        slowest = 0.0
        for repetition in range(5):
            replies = clients.at_once(functools.partial(put, repetition=repetition))
            slowest = max(slowest, *(reply.seconds for reply in replies))
        assert len(clients.lines[0].customers()) == 5 * 8
    print(f"slowest {slowest:.2f} s")
    assert slowest < 3


def test_changes_with_if_match_lose_no_update(pair: Pair, shop: Credentials) -> None:
    """Ten clients on two servers each add one to a number a hundred times: read, change, and again after a 412."""
    clients, additions = 10, 100

    def count(number: int) -> int:
        refused = 0
        with Line(pair.urls[number % 2], shop.shop_id, shop.secret_key) as line:
            for _ in range(additions):
                while True:
                    found = line.ask("GET", path)
                    body = {"city": str(int(found.json()["city"]) + 1)}
                    changed = line.ask("PATCH", path, body, If_Match=found.headers["etag"])
                    if changed.status == 200:
                        break
                    assert changed.status == 412
                    refused += 1
        return refused

    with Line(pair.urls[0], shop.shop_id, shop.secret_key) as line:
        path = f"/customers/{line.create(new_body(city='0')).json()['id']}"
        with ThreadPoolExecutor(clients) as pool:
            refused = sum(pool.map(count, range(clients)))
        found = line.ask("GET", path)
        events = line.ask("GET", f"/events?limit=1000&object={path.removeprefix('/customers/')}").json()
    print(f"{refused} changes were refused")
    assert found.json()["city"] == str(clients * additions)
    assert found.headers["etag"] == f'"{clients * additions + 1}"'
    assert [event["sequence"] for event in events] == list(range(clients * additions + 1, 1, -1))
    assert refused > 0


def test_two_servers_can_start_concurrently_on_an_empty_database(
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


def test_processes_that_write_to_one_database_each_make_progress(
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


def test_a_write_acknowledged_by_one_server_is_readable_on_the_other(pair: Pair, shop: Credentials) -> None:
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
    assert load.ledger.unexpected == []
    assert load.ledger.refused == []
    assert load.ledger.unknown == []


def test_two_shops_under_load_list_only_their_own_customers(pair: Pair, master_key: MasterKey) -> None:
    """They use the same emails, external ids and idempotency keys, and each other's ids as cursors."""
    shops = [add_shop(pair.database, master_key) for _ in range(2)]
    made: list[list[str]] = [[], []]
    deadline = time.monotonic() + 2.5

    def send_requests(worker: int) -> None:
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
        list(pool.map(send_requests, range(8)))
    print([len(ids) for ids in made])
    assert min(len(ids) for ids in made) > 50
    for mine in range(2):
        with Line(pair.urls[0], shops[mine].shop_id, shops[mine].secret_key) as line:
            assert sorted(made[mine]) == [customer["id"] for customer in line.customers()]
