"""Fixtures: servers that send webhooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ecomcharge.shops.keys import MasterKey
from support.process import ServerProcess
from support.shops import ENVIRONMENT, Shop
from support.webhooks import PRIVATE, shop_on


@pytest.fixture(scope="module")
def open_server(new_database_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server and its billing worker, which may send webhooks to this machine."""
    options = ("--worker", PRIVATE)
    with ServerProcess(new_database_url(), tmp_path_factory.mktemp("open"), *options, environment=ENVIRONMENT) as process:
        yield process


@pytest.fixture(scope="module")
def sandbox(new_database_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A sandbox without a worker; moves of the clock process the due work."""
    options = ("--sandbox", "--no-worker")
    with ServerProcess(new_database_url(), tmp_path_factory.mktemp("sandbox"), *options, environment=ENVIRONMENT) as process:
        yield process


@pytest.fixture
def shop(open_server: ServerProcess, master_key: MasterKey) -> Shop:
    return shop_on(open_server, master_key)
