"""Both engines, every run: whoever asks for ``engine`` runs twice."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import hypothesis
import pytest

from ecomcharge.shops.keys import MasterKey, load_master_key
from support.postgres import PostgresServer
from support.process import ServerProcess
from support.shops import ENVIRONMENT, MASTER_KEY, Shop, Start, add_shop

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
