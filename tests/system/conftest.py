"""A server with two processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.process import ServerProcess
from support.shops import ENVIRONMENT
from support.waiting import eventually


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server of two workers that several tests share; each has its own shops."""
    folder = tmp_path_factory.mktemp("pair")
    options = ("--workers", "2", "--failed-logins-per-minute", "0")
    with ServerProcess(f"sqlite:///{folder}/test.db", folder, *options, environment=ENVIRONMENT) as process:
        assert eventually(lambda: len(process.worker_pids()) == 2, 10)
        yield process
