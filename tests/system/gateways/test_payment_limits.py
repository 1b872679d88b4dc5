"""The limits of cards that are tried on the pages of a shop with a real gateway."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ecomcharge.checkout.forms import CARD_TRIED_TOO_OFTEN, TOO_MANY_PAYMENTS
from ecomcharge.shops.keys import MasterKey
from support.begateway import GatewayServer
from support.builders import a_plan
from support.checkout import DECLINED_CARD, GOOD_CARD, post_card, web
from support.gateway_shop import with_gateway
from support.process import ServerProcess
from support.shops import ENVIRONMENT, Shop, add_shop

CARDS = ("4012000000001006", "4012000000001055", "5204240000015003")


@pytest.fixture
def process(database_url: str, tmp_path: Path) -> Iterator[ServerProcess]:
    options = ("--card-attempts-per-hour", "2", "--shop-checkouts-per-minute", "4", "--no-worker")
    with ServerProcess(database_url, tmp_path, *options, environment=ENVIRONMENT) as process:
        yield process


@pytest.fixture
def shop(process: ServerProcess, gateway_server: GatewayServer, master_key: MasterKey) -> Shop:
    return Shop(process.url, *with_gateway(process, master_key, gateway_server.account(), gateway_server.url), process)


def pay_link_of(shop: Shop) -> str:
    with shop.client() as client:
        return str(client.post("/plans", json=a_plan(999)).json()["pay_url"])


def tried(link: str, number: str) -> httpx.Response:
    return post_card(web.get(link).headers["location"], number)


def test_one_card_and_one_shop_have_limits_of_their_own(shop: Shop, process: ServerProcess, master_key: MasterKey) -> None:
    link = pay_link_of(shop)
    assert [tried(link, DECLINED_CARD).status_code for _ in range(2)] == [303, 303]
    refused = tried(link, " ".join(DECLINED_CARD[at : at + 4] for at in range(0, 16, 4)))
    assert (refused.status_code, CARD_TRIED_TOO_OFTEN in refused.text) == (429, True)
    assert refused.headers["ratelimit-policy"] == '"checkout-card";q=2;w=3600'
    assert 3_500 < int(refused.headers["retry-after"]) <= 3_600

    assert [tried(link, number).status_code for number in CARDS] == [303, 303, 429]  # the refused card did not count
    refused = tried(link, CARDS[0])
    assert (refused.status_code, TOO_MANY_PAYMENTS in refused.text) == (429, True)
    assert refused.headers["ratelimit-policy"] == '"checkout-shop";q=4;w=60'
    with shop.client() as client:
        assert len(client.get("/subscriptions").json()) == 4

    sandbox = add_shop(process.database, master_key)
    other = pay_link_of(Shop(process.url, sandbox.shop_id, sandbox.secret_key, process))
    assert {tried(other, GOOD_CARD).status_code for _ in range(6)} == {303}  # the sandbox has few cards
    for number in (DECLINED_CARD, *CARDS):
        assert number not in process.log()
