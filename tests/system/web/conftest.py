"""Fixtures: a server with low limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from msgspec import convert

from ecomcharge.customers import store
from ecomcharge.customers.model import FIELD_NAMES, Customer
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database, Transaction
from support.caller import BODY_LIMIT, MANY, STALL_SECONDS, Caller
from support.process import ServerProcess
from support.shops import ENVIRONMENT, add_shop, with_database


@pytest.fixture(scope="module")
def limited_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with low limits and one worker."""
    folder = tmp_path_factory.mktemp("limited_server")
    options = {
        "--max-body-bytes": BODY_LIMIT,
        "--max-header-bytes": 8192,
        "--body-timeout-seconds": 1,
        "--header-timeout-seconds": 1,
        "--stall-timeout-seconds": STALL_SECONDS,
        "--failed-logins-per-minute": 0,
    }
    words = [str(word) for option in options.items() for word in option]
    with ServerProcess(f"sqlite:///{folder}/test.db", folder, *words, environment=ENVIRONMENT) as process:
        yield process


@pytest.fixture(scope="module")
def new_caller(limited_server: ServerProcess, master_key: MasterKey) -> Callable[[], Caller]:
    return lambda: Caller(limited_server, add_shop(limited_server.database, master_key))


@pytest.fixture
def caller(new_caller: Callable[[], Caller]) -> Caller:
    return new_caller()


@pytest.fixture(scope="module")
def long_list(new_caller: Callable[[], Caller]) -> Caller:
    """A shop whose customer list is larger than any socket buffer."""
    caller = new_caller()
    fields = dict.fromkeys(FIELD_NAMES, "\N{SLIGHTLY SMILING FACE}" * 255)

    async def work(database: Database) -> None:
        async def unit(tx: Transaction) -> None:
            for number in range(MANY):
                customer = convert({"id": f"cst_{number:016x}", **fields}, Customer)
                await store.insert(tx, caller.credentials.shop_id, customer)

        await database.write(unit)

    with_database(caller.process.database, work)
    return caller
