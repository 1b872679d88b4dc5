"""Known keys in the wrong place are ignored and listed; a request with a misplaced ``test`` charges no real card."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from ecomcharge.shops.actions import set_gateway
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database
from support.begateway import Account, GatewayServer
from support.ignored_keys import A_PLAN, CAPTURED, CARD, JANE, PRICE, TRUE
from support.process import ServerProcess
from support.shops import ENVIRONMENT, Shop, add_shop, with_database

REFUSED = "Test must be sent as plan.test; where it stands it is ignored, and real cards would be charged"


def subscribe(http: httpx.Client, body: dict[str, Any], **headers: str) -> httpx.Response:
    return http.post("/subscriptions", json=body, headers=headers)


def test_the_captured_body_is_accepted_in_the_sandbox_and_its_ignored_keys_are_listed(http: httpx.Client) -> None:
    answer = subscribe(http, CAPTURED)
    assert (answer.status_code, answer.json()["state"]) == (201, "active")
    assert answer.headers["x-ignored-keys"] == "test, billing_cycles, number_payment_attempts"
    plan = answer.json()["plan"]
    assert (plan["test"], plan["billing_cycles"], plan["number_payment_attempts"]) == (False, None, 3)  # as on the platform


def test_without_misplaced_keys_the_header_is_absent(http: httpx.Client) -> None:
    for answer in (
        subscribe(http, {"plan": A_PLAN, "customer": JANE, "card": CARD}),
        http.post("/plans", json={**A_PLAN, "shop_id": 1, "description": "x"}),
    ):
        assert answer.status_code == 201
        assert "x-ignored-keys" not in answer.headers


def test_misplaced_keys_of_a_plan_are_listed(http: httpx.Client) -> None:
    answer = http.post("/plans", json={**A_PLAN, "tracking_id": "x", "plan": {**PRICE, "billing_cycles": 1}})
    assert answer.status_code == 201
    assert answer.headers["x-ignored-keys"] == "tracking_id, plan.billing_cycles" or (
        answer.headers["x-ignored-keys"] == "plan.billing_cycles, tracking_id"
    )


def test_errors_and_replays_list_misplaced_keys(http: httpx.Client) -> None:
    wrong = subscribe(http, {"plan": {**A_PLAN, "plan": {}}, "amount": 1})
    assert (wrong.status_code, wrong.headers["x-ignored-keys"]) == (422, "amount")
    first, second = (subscribe(http, CAPTURED, **{"Idempotency-Key": "same"}) for _ in range(2))
    assert second.headers["idempotent-replayed"] == "true"
    assert first.json() == second.json()
    assert first.headers["x-ignored-keys"] == second.headers["x-ignored-keys"]


def test_a_key_that_cannot_be_decoded_is_a_malformed_body(http: httpx.Client) -> None:
    answer = http.post("/subscriptions", content=b'{"test":1e999}', headers={"content-type": "application/json"})
    assert answer.status_code == 400


def test_misplaced_keys_are_logged_once_per_shop(new_shop: Callable[[], Shop]) -> None:
    shop = new_shop()
    with shop.client() as http:
        for _ in range(3):
            assert subscribe(http, CAPTURED).status_code == 201
        assert subscribe(http, {**CAPTURED, "email": "jane.doe@shop.test"}).status_code == 201
    lines = [json.loads(line) for line in shop.process.log().splitlines() if "known keys in the wrong place" in line]
    assert [line["keys"] for line in lines if line["shop"] == shop.shop_id] == [
        ["test", "billing_cycles", "number_payment_attempts"],
        ["email"],
    ]
    assert "jane.doe" not in shop.process.log()


@pytest.fixture(scope="module")
def production(new_database_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(new_database_url(), tmp_path_factory.mktemp("server"), environment=ENVIRONMENT) as process:
        yield process


@pytest.fixture
def account(gateway_server: GatewayServer) -> Account:
    return gateway_server.account()


@pytest.fixture
def charged(
    production: ServerProcess, gateway_server: GatewayServer, account: Account, master_key: MasterKey
) -> Iterator[httpx.Client]:
    """A client of a shop with a real gateway."""
    credentials = add_shop(production.database, master_key)

    async def set_up(database: Database) -> None:
        await set_gateway(
            database,
            master_key,
            0,
            shop_id=credentials.shop_id,
            gateway="begateway",
            url=gateway_server.url,
            user=account.user,
            secret_key=account.secret_key,
        )

    with_database(production.database, set_up)
    with Shop(production.url, credentials.shop_id, credentials.secret_key, production).client() as http:
        yield http


def made_by(http: httpx.Client) -> list[Any]:
    return [http.get(path).json() for path in ("/subscriptions", "/plans", "/customers")]


WITHOUT_CARD = {key: value for key, value in CAPTURED.items() if key != "card"}


@pytest.mark.parametrize(
    "body",
    [
        *({**CAPTURED, "test": value} for value in TRUE),
        WITHOUT_CARD,  # the buyer pays on the page
        {"plan": {**A_PLAN, "plan": {**PRICE, "test": True}}, "customer": JANE, "card": CARD},
        {"plan": {**A_PLAN, "trial": {**PRICE, "test": True}}, "customer": JANE, "card": CARD},
        {"plan": A_PLAN, "customer": {**JANE, "test": True}, "card": CARD},
        {"plan": A_PLAN, "customer": JANE, "card": {**CARD, "test": True}},
        {"plan": A_PLAN, "customer": JANE, "card": CARD, "settings": {"test": "true"}},
    ],
)
def test_a_misplaced_test_charges_no_real_card(charged: httpx.Client, account: Account, body: dict[str, Any]) -> None:
    answer = subscribe(charged, body, **{"Idempotency-Key": "once"})
    assert (answer.status_code, answer.json()["message"]) == (422, REFUSED)
    assert list(answer.json()["errors"]["plan"]) == ["test"]
    assert "test" in answer.headers["x-ignored-keys"]
    assert made_by(charged) == [[], [], []]
    assert (account.transactions, account.seen) == ([], [])


def test_the_key_of_a_refused_request_can_be_used_again(charged: httpx.Client, account: Account) -> None:
    assert subscribe(charged, CAPTURED, **{"Idempotency-Key": "once"}).status_code == 422
    right = {"plan": {**A_PLAN, "test": True}, "customer": JANE, "card": CARD}
    answer = subscribe(charged, right, **{"Idempotency-Key": "once"})
    assert (answer.status_code, answer.json()["plan"]["test"]) == (201, True)
    assert account.seen == []


def test_a_misplaced_test_beside_a_known_plan_charges_no_real_card(charged: httpx.Client, account: Account) -> None:
    plan = charged.post("/plans", json=A_PLAN).json()
    for body in ({"plan": {"id": plan["id"], "test": True}}, {"plan": {"id": plan["id"]}, "test": True}):
        answer = subscribe(charged, {**body, "customer": JANE, "card": CARD})
        assert (answer.status_code, answer.json()["message"]) == (422, REFUSED)
    assert account.seen == []


def test_a_misplaced_test_beside_a_test_plan_is_only_listed(charged: httpx.Client, account: Account) -> None:
    plan = charged.post("/plans", json={**A_PLAN, "test": True}).json()
    for body in ({"plan": {"id": plan["id"]}, "test": True}, {"plan": {**A_PLAN, "test": True}, "test": True}):
        answer = subscribe(charged, {**body, "customer": JANE, "card": CARD})
        assert (answer.status_code, answer.headers["x-ignored-keys"]) == (201, "test")
    assert account.seen == []


def test_a_misplaced_false_test_is_listed_and_charged(charged: httpx.Client, account: Account) -> None:
    answer = subscribe(charged, {**CAPTURED, "test": False})
    assert (answer.status_code, answer.json()["state"]) == (201, "active")
    assert len(account.taken) == 1


def test_a_plan_with_a_misplaced_test_is_refused(charged: httpx.Client) -> None:
    answer = charged.post("/plans", json={**A_PLAN, "plan": {**PRICE, "test": True}})
    assert answer.status_code == 422
    assert answer.json()["message"].startswith("Test must be sent as test; ")
    assert charged.get("/plans").json() == []
