"""Fixtures for all tests. A test that uses ``engine``, directly or through another fixture, runs on both engines."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast
from unittest import mock

import httpx
import hypothesis
import pytest

from ecomcharge import Client
from ecomcharge.shops.keys import MasterKey, load_master_key
from support.begateway import GatewayServer
from support.certificates import certificate_for
from support.cli import Command
from support.client import Connect, InOneLoop
from support.commands import ecomcharge
from support.postgres import CHOSEN_BINARIES, PostgresServer
from support.process import ServerProcess
from support.receiver import Receiver
from support.shops import ENVIRONMENT, MASTER_KEY, Shop, Start, add_shop

_numbers = itertools.count(1)

# The time to generate examples depends on the load of the machine, not on the program.
hypothesis.settings.register_profile("shared machine", suppress_health_check=[hypothesis.HealthCheck.too_slow])

hypothesis.settings.load_profile("shared machine")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With a chosen version of PostgreSQL, run the tests that use it only."""
    if not CHOSEN_BINARIES:
        return
    others = [item for item in items if not _uses_postgres(item)]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if _uses_postgres(item)]


def _uses_postgres(item: pytest.Item) -> bool:
    assert isinstance(item, pytest.Function)
    chosen = getattr(item, "callspec", None)
    engine = chosen.params.get("engine") if chosen is not None else None
    return engine == "postgresql" or not {"postgres", "own_postgres"}.isdisjoint(item.fixturenames)


@pytest.fixture(scope="session", autouse=True)
def one_trusted_certificate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Trust a single certificate: loading those of the machine takes 20 ms per HTTP client, and nearly all use plain HTTP."""
    certificate, _ = certificate_for("trusted.test", tmp_path_factory.mktemp("certificates"))
    with mock.patch.dict(os.environ, SSL_CERT_FILE=str(certificate)):
        yield


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
    """Returns a function that creates an empty database of the engine and returns its URL."""

    def make() -> str:
        if engine == "sqlite":
            return f"sqlite:///{tmp_path_factory.mktemp('database')}/test.db"
        postgres: PostgresServer = request.getfixturevalue("postgres")
        return postgres.create_database(f"test_{next(_numbers)}")

    return make


@pytest.fixture
def database_url(new_database_url: Callable[[], str]) -> str:
    """The URL of an empty database for this test only."""
    return new_database_url()


@pytest.fixture(scope="session")
def server_process(new_database_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One running server per session and engine. Each test uses a different shop."""
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
    """A running server with a shop for this test only."""
    return new_shop()


@pytest.fixture
def http(server: Shop) -> Iterator[httpx.Client]:
    """An HTTP client of the shop of this test."""
    with server.client() as client:
        yield client


@pytest.fixture
def server_folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts servers, on a new SQLite database unless another one is given, and ends them after the test."""
    started = []

    def make(*options: str, database: str = f"sqlite:///{tmp_path}/test.db") -> ServerProcess:
        process = ServerProcess(database, tmp_path, *options, environment=ENVIRONMENT)
        started.append(process)
        return process.start()

    yield make
    for process in started:
        process.end()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def gateway_server() -> Iterator[GatewayServer]:
    with GatewayServer() as server:
        yield server


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for one test file, which may stop and break it."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def postgres_url(own_postgres: PostgresServer) -> str:
    return own_postgres.create_database(f"faults_{next(_numbers)}")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/test.db"


@pytest.fixture(params=[Client, InOneLoop], ids=["blocking", "async"])
def connect(request: pytest.FixtureRequest) -> Connect:
    return cast(Connect, request.param)


@pytest.fixture
def command(database_url: str) -> Command:
    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return ecomcharge(database_url, *arguments, environment={**ENVIRONMENT, **environment})

    return run
