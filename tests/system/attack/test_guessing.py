"""Guesses of secret keys, and many spellings of one header."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ecomcharge.shops.keys import MasterKey
from support.process import ServerProcess
from support.shops import ENVIRONMENT, add_shop
from support.wire import Wire, basic, request

CONNECTIONS = 8
GUESSES = 100  # on each connection
SPELLINGS = 4_000
SPACES = 8_000


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("guessed")
    database = f"sqlite:///{folder}/test.db"
    options = ("--workers", "2", "--trusted-proxies", "127.0.0.1")
    with ServerProcess(
        database, folder, *options, environment={**ENVIRONMENT, "ECOMCHARGE_SHOP_FAILED_LOGINS_PER_MINUTE": "100"}
    ) as process:
        yield process


def _statuses(process: ServerProcess, shop_id: int, keys: Iterator[str], address: str) -> Counter[int]:
    with Wire(process.port) as wire:
        statuses = []
        for key in keys:
            login = ("Authorization", basic(shop_id, key))
            wire.send(request("GET", "/customers", login, ("X-Forwarded-For", address)))
            statuses.append(wire.answer().status)
    return Counter(statuses)


def test_guesses_from_one_address_and_from_many_are_limited_and_the_shop_is_not_locked_out(
    process: ServerProcess, master_key: MasterKey
) -> None:
    shop = add_shop(process.database, master_key)

    def guess(connection: int, address: str) -> Counter[int]:
        keys = (f"guess-{connection}-{number}" for number in range(GUESSES))
        return _statuses(process, shop.shop_id, keys, address)

    with ThreadPoolExecutor(CONNECTIONS) as threads:
        from_one = sum(threads.map(guess, range(CONNECTIONS), ["192.0.2.1"] * CONNECTIONS), Counter())
        from_many = sum(threads.map(guess, range(CONNECTIONS), [f"192.0.2.{n}" for n in range(2, 2 + CONNECTIONS)]), Counter())

    assert from_one[401] <= 60
    assert from_one[401] + from_many[401] <= 100
    assert from_one + from_many == {
        401: from_one[401] + from_many[401],
        429: 2 * CONNECTIONS * GUESSES - from_one[401] - from_many[401],
    }
    assert _statuses(process, shop.shop_id, iter([shop.secret_key] * 3), "192.0.2.99") == {200: 3}


def _resident_bytes(process: ServerProcess) -> int:
    pages = (int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in process.worker_pids())
    return sum(pages) * os.sysconf("SC_PAGE_SIZE")


def test_many_spellings_of_one_header_take_no_memory(process: ServerProcess, master_key: MasterKey) -> None:
    shop = add_shop(process.database, master_key)
    encoded = basic(shop.shop_id, shop.secret_key).removeprefix("Basic ")
    with Wire(process.port) as wire:

        def spell(numbers: range) -> None:
            for number in numbers:
                value = f"Basic{' ' * (SPACES + number)}{encoded}"
                wire.send(request("GET", "/plans", ("Authorization", value)))
                assert wire.answer().status == 200

        spell(range(200))
        before = _resident_bytes(process)
        spell(range(200, SPELLINGS))

    assert _resident_bytes(process) - before < 10 * 2**20
