"""Fixtures: a browser, and a server with two processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from support.browser import QUIET, find_browser
from support.process import ServerProcess
from support.shops import ENVIRONMENT
from support.waiting import eventually


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with two workers, shared by several tests; each uses separate shops."""
    folder = tmp_path_factory.mktemp("pair")
    options = ("--workers", "2", "--failed-logins-per-minute", "0")
    with ServerProcess(f"sqlite:///{folder}/test.db", folder, *options, environment=ENVIRONMENT) as process:
        assert eventually(lambda: len(process.worker_pids()) == 2, 10)
        yield process


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser per test file, because its start takes longer than most tests. Each test uses a separate context.

    Its event loop runs in this thread, so tests with a browser cannot run another loop here.
    """
    path = find_browser()
    if path is None:
        pytest.skip("no Chromium on this machine: install it to test the pages in a browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(QUIET))
        yield browser
        browser.close()
