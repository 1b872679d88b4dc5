"""Fixtures: a sandbox server, and shops that charge at the gateway stand-in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from ecomcharge.shops.keys import MasterKey
from support.begateway import GatewayServer
from support.gateway_shop import Merchant, assert_no_secret_is_kept, assert_records_agree, with_gateway
from support.process import ServerProcess
from support.shops import ENVIRONMENT


@pytest.fixture(scope="module")
def gateway_process(new_database_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with a movable clock, a billing worker, and a short time limit for gateways."""
    options = ("--sandbox", "--gateway-timeout-seconds", "1", "--failed-logins-per-minute", "0")
    with ServerProcess(new_database_url(), tmp_path_factory.mktemp("server"), *options, environment=ENVIRONMENT) as process:
        yield process


@pytest.fixture
def merchant(gateway_process: ServerProcess, gateway_server: GatewayServer, master_key: MasterKey) -> Iterator[Merchant]:
    account = gateway_server.account()
    shop_id, secret_key = with_gateway(gateway_process, master_key, account, gateway_server.url)
    errors: list[str] = []

    def keep(response: httpx.Response) -> None:
        errors.append(response.read().decode())

    options: dict[str, Any] = {"auth": (str(shop_id), secret_key), "event_hooks": {"response": [keep]}, "timeout": 60}
    with httpx.Client(base_url=gateway_process.url, **options) as http:
        merchant = Merchant(http, shop_id, account, gateway_process, errors)
        merchant.begin_in_the_morning()
        yield merchant
        merchant.cancel_everything()
        assert_records_agree(merchant)
        assert_no_secret_is_kept(merchant)
