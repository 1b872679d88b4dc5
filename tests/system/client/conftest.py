"""Fixtures: a sandbox whose clock may be moved."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ecomcharge.shops.keys import MasterKey
from support.process import ServerProcess
from support.sandbox_clock import shop_on
from support.shops import ENVIRONMENT, Shop


@pytest.fixture(scope="module")
def sandbox_process(new_database_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A sandbox without a worker; moves of the clock process the due work."""
    options = ("--sandbox", "--no-worker")
    with ServerProcess(new_database_url(), tmp_path_factory.mktemp("sandbox"), *options, environment=ENVIRONMENT) as process:
        yield process


@pytest.fixture
def sandbox(sandbox_process: ServerProcess, master_key: MasterKey) -> Shop:
    """A sandbox with a shop for this test only."""
    return shop_on(sandbox_process, master_key)
