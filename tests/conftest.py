"""Both engines, every run: whoever asks for ``engine`` runs twice."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import hypothesis
import pytest

from ecomcharge.base.clock import SystemClock
from ecomcharge.shops.actions import create_shop, set_gateway
from ecomcharge.shops.keys import MasterKey, load_master_key, make_master_key
from ecomcharge.shops.model import Credentials
from ecomcharge.storage.database import Database
from ecomcharge.storage.migrate import migrate
from ecomcharge.storage.opening import open_database
from support.postgres import PostgresServer
from support.process import ServerProcess

T = TypeVar("T")

MASTER_KEY = make_master_key()
ENVIRONMENT = {"ECOMCHARGE_MASTER_KEY": MASTER_KEY}
_numbers = itertools.count(1)


# How fast examples are drawn depends on the machine and its neighbours, and says nothing of the program.
hypothesis.settings.register_profile("shared machine", suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("shared machine")


@pytest.fixture(params=["sqlite", "postgresql"], scope="session")
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def master_key() -> MasterKey:
    return load_master_key(MASTER_KEY, None, database_file=None)


@pytest.fixture(scope="session")
def new_database_url(engine: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    """Makes URLs of empty databases of the engine."""

    def make() -> str:
        if engine == "sqlite":
            return f"sqlite:///{tmp_path_factory.mktemp('database')}/test.db"
        postgres: PostgresServer = request.getfixturevalue("postgres")
        return postgres.create_database(f"test_{next(_numbers)}")

    return make


@pytest.fixture
def database_url(new_database_url: Callable[[], str]) -> str:
    """An empty database of this test's own."""
    return new_database_url()


def with_database(url: str, work: Callable[[Database], Awaitable[T]]) -> T:
    """Run ``work`` on a migrated database, in an event loop of its own."""

    async def run() -> T:
        database = await open_database(url)
        try:
            await migrate(database)
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(run())


def add_shop(url: str, master_key: MasterKey, *, gateway: str | None = "sandbox", **chosen: Any) -> Credentials:
    """A new shop. ``gateway`` ``None``: nobody chose one for it."""

    async def work(database: Database) -> Credentials:
        now = SystemClock().now()
        made = await create_shop(database, master_key, now, **{"name": "Test", **chosen})
        if gateway is not None:
            await set_gateway(database, master_key, now, shop_id=made.shop_id, gateway=gateway)
        return made

    return with_database(url, work)


@dataclass(frozen=True)
class Shop:
    """A running server and one shop on it."""

    url: str
    shop_id: int
    secret_key: str
    process: ServerProcess

    def client(self, **options: Any) -> httpx.Client:
        """An HTTP client with this shop's credentials. Close it, or use it in a ``with``."""
        return httpx.Client(base_url=self.url, auth=(str(self.shop_id), self.secret_key), timeout=30, **options)


@pytest.fixture(scope="session")
def server_process(new_database_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One running server for the whole session and engine. Tests tell themselves apart by their shops."""
    options = ("--worker", "--failed-logins-per-minute", "0")
    with ServerProcess(new_database_url(), tmp_path_factory.mktemp("server"), *options, environment=ENVIRONMENT) as process:
        yield process


@pytest.fixture
def new_shop(server_process: ServerProcess, master_key: MasterKey) -> Callable[[], Shop]:
    def make() -> Shop:
        credentials = add_shop(server_process.database, master_key)
        return Shop(server_process.url, credentials.shop_id, credentials.secret_key, server_process)

    return make


@pytest.fixture
def server(new_shop: Callable[[], Shop]) -> Shop:
    """A running server with a shop of this test's own."""
    return new_shop()


@pytest.fixture
def http(server: Shop) -> Iterator[httpx.Client]:
    """An HTTP client of this test's own shop."""
    with server.client() as client:
        yield client


@pytest.fixture
def server_folder(tmp_path: Path) -> Path:
    return tmp_path


Start = Callable[..., ServerProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts servers, on a SQLite database of this test's own unless another is given, and ends them with the test."""
    started = []

    def make(*options: str, database: str = f"sqlite:///{tmp_path}/test.db") -> ServerProcess:
        process = ServerProcess(database, tmp_path, *options, environment=ENVIRONMENT)
        started.append(process)
        return process.start()

    yield make
    for process in started:
        with contextlib.suppress(ProcessLookupError):  # it may have ended already
            process.kill()
