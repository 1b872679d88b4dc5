"""A sandbox server and shops that charge at the stand-in of the gateway."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from ecomcharge.shops.keys import MasterKey
from support.begateway import GatewayServer
from support.gateway_shop import Story, assert_no_secret_is_kept, assert_the_books_agree, with_gateway
from support.process import ServerProcess
from support.shops import ENVIRONMENT


@pytest.fixture(scope="module")
def gateway_process(new_database_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with a clock that can be moved, a worker beside it, and little patience with gateways."""
    options = ("--sandbox", "--gateway-timeout-seconds", "1", "--failed-logins-per-minute", "0")
    with ServerProcess(new_database_url(), tmp_path_factory.mktemp("server"), *options, environment=ENVIRONMENT) as process:
        yield process


@pytest.fixture
def story(gateway_process: ServerProcess, gateway_server: GatewayServer, master_key: MasterKey) -> Iterator[Story]:
    account = gateway_server.account()
    shop_id, secret_key = with_gateway(gateway_process, master_key, account, gateway_server.url)
    errors: list[str] = []

    def keep(response: httpx.Response) -> None:
        errors.append(response.read().decode())

    options: dict[str, Any] = {"auth": (str(shop_id), secret_key), "event_hooks": {"response": [keep]}, "timeout": 60}
    with httpx.Client(base_url=gateway_process.url, **options) as http:
        story = Story(http, shop_id, account, gateway_process, errors)
        story.begin_in_the_morning()
        yield story
        story.cancel_everything()
        assert_the_books_agree(story)
        assert_no_secret_is_kept(story)
