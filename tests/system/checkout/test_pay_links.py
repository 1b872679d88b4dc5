"""Pay links: nothing is created before the buyer submits the form, and then once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database
from support.checkout import CHALLENGE_CARD, DECLINED_CARD, PLAN, TRIAL, card_fields, form_of, payments_of, post_card, web
from support.process import ServerProcess
from support.shops import ENVIRONMENT, Shop, add_shop, with_database

TABLES = ("subscriptions", "customers", "payments", "events", "webhooks", "idempotency_keys", "sandbox_charges")
BACK = "https://shop.test/back?a=1"


@pytest.fixture
def plan(server: Shop) -> dict[str, Any]:
    return create_plan(server)


def create_plan(shop: Shop, **chosen: Any) -> dict[str, Any]:
    with shop.client() as client:
        created: dict[str, Any] = client.post("/plans", json={**PLAN, **chosen}).json()
    return created


def rows_of(shop: Shop) -> dict[str, int]:
    """The number of rows of the shop in each table that a payment writes."""

    async def work(database: Database) -> dict[str, int]:
        params = {"shop_id": shop.shop_id}
        return {
            table: (await database.rows(f"SELECT COUNT(*) FROM {table} WHERE shop_id = :shop_id", params))[0][0]
            for table in TABLES
        }

    return with_database(shop.process.database, work)


def subscriptions_of(shop: Shop) -> list[dict[str, Any]]:
    with shop.client() as client:
        found: list[dict[str, Any]] = client.get("/subscriptions").json()
    return found


def follow(link: str, **query: str) -> str:
    """The address of the page that a link leads to."""
    answer = web.get(link, params=query)
    assert (answer.status_code, answer.content) == (302, b"")
    return answer.headers["location"]


@pytest.mark.parametrize("link", ["pay_url", "confirm_url"])
def test_visits_of_link_previews_and_prefetch_write_nothing(server: Shop, plan: dict[str, Any], link: str) -> None:
    before = rows_of(server)
    pages = [follow(plan[link]) for _ in range(6)]
    for page in pages:
        answer = web.get(page, headers={"Sec-Purpose": "prefetch", "User-Agent": "WhatsApp/2.23"})
        assert (answer.status_code, "Basic plan" in answer.text) == (200, True)
        assert web.head(page).status_code == 200
    head = web.head(plan[link])
    assert (head.status_code, head.content, "location" in head.headers) == (302, b"", True)
    assert len(set(pages)) == 6
    assert rows_of(server) == before


def test_the_buyer_subscribes_by_submitting_the_form(server: Shop, plan: dict[str, Any]) -> None:
    page = follow(plan["pay_url"], return_url=BACK)
    token = parse_qs(urlsplit(page).query)["token"][0]
    answer = post_card(page)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/v2/checkout?token={token}")
    (subscription,) = subscriptions_of(server)
    assert (subscription["state"], subscription["plan"]["id"]) == ("active", plan["id"])
    back = f"https://shop.test/back?a=1&amp;id={subscription['id']}"
    for address in (page, f"{server.url}{answer.headers['location']}"):  # a reload and a step back lead to the result
        result = web.get(address)
        assert "<h1>Thank you, all done</h1>" in result.text
        assert back in result.text
    with server.client() as client:
        assert client.get(f"/customers/{subscription['customer']['id']}").json()["email"] == "jane@shop.test"
    assert [payment.status for payment in payments_of(server, subscription)] == ["successful"]


def test_an_invalid_form_creates_nothing_and_can_be_submitted_again(server: Shop, plan: dict[str, Any]) -> None:
    page, before = follow(plan["pay_url"], return_url=BACK), rows_of(server)
    answer = post_card(page, "4200000000000001")
    assert answer.status_code == 422
    assert web.post(page, data=card_fields()).status_code == 403
    assert rows_of(server) == before
    action = answer.text.partition('method="post" action="')[2].partition('"')[0].replace("&amp;", "&")
    assert web.post(f"{server.url}{action}", data={**form_of(answer.text), **card_fields()}).status_code == 303
    assert [subscription["state"] for subscription in subscriptions_of(server)] == ["active"]


def test_a_declined_card_ends_the_subscription_of_its_page_only(server: Shop, plan: dict[str, Any]) -> None:
    page = follow(plan["pay_url"])
    assert post_card(page, DECLINED_CARD).status_code == 303
    assert "The payment did not go through" in web.get(page).text
    assert post_card(follow(plan["pay_url"])).status_code == 303
    assert [subscription["state"] for subscription in subscriptions_of(server)] == ["failed", "active"]


def test_the_day_of_3_d_secure_begins_with_the_submission(server: Shop, plan: dict[str, Any]) -> None:
    page = follow(plan["pay_url"])
    answer = post_card(page, CHALLENGE_CARD)
    step = answer.headers["location"]
    assert step.startswith("/process/")
    assert web.get(page).headers["location"] == step
    form = form_of(web.get(f"{server.url}{step}").text)
    assert web.post(f"{server.url}{step}", data={**form, "answer": "accept"}).status_code == 303
    assert [subscription["state"] for subscription in subscriptions_of(server)] == ["active"]


def test_the_page_shows_the_plan(server: Shop) -> None:
    plan = create_plan(server, language="de", trial=TRIAL)
    page = web.get(follow(plan["pay_url"])).text
    assert '<html lang="de">' in page
    assert "Probezeit" in page


def test_an_address_that_was_changed_leads_to_no_page(server: Shop, plan: dict[str, Any]) -> None:
    page, other = follow(plan["pay_url"], return_url=BACK), create_plan(server)
    token = parse_qs(urlsplit(page).query)["token"][0]
    changed = (
        page.replace(plan["id"], other["id"]),
        page.replace("shop.test", "evil.test"),
        page.replace(token, token[::-1]),
        f"{server.url}/v2/checkout?token={token}",
    )
    for address in changed:
        assert web.get(address).status_code == 404
        assert web.post(address, data=card_fields()).status_code == 404
    assert web.get(page).status_code == 200


def test_a_post_to_a_pay_link_creates_a_subscription_at_once(server: Shop, plan: dict[str, Any]) -> None:
    answer = web.post(plan["pay_url"], params={"return_url": BACK})
    assert (answer.status_code, answer.content) == (302, b"")
    (subscription,) = subscriptions_of(server)
    assert answer.headers["location"] == subscription["redirect_url"]
    assert post_card(subscription["redirect_url"]).status_code == 303
    assert [subscription["state"] for subscription in subscriptions_of(server)] == ["active"]


@pytest.fixture
def pair(database_url: str, master_key: MasterKey, tmp_path: Path) -> Iterator[tuple[Shop, Shop]]:
    """Two servers on one database."""
    credentials = add_shop(database_url, master_key)
    with ExitStack() as stack:
        servers = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            options = ("--no-worker", "--checkouts-per-minute", "0")
            process = ServerProcess(database_url, tmp_path / name, *options, environment=ENVIRONMENT)
            stack.enter_context(process)
            servers.append(Shop(process.url, credentials.shop_id, credentials.secret_key, process))
        yield servers[0], servers[1]


def test_concurrent_submissions_on_two_servers_create_and_charge_once(pair: tuple[Shop, Shop]) -> None:
    plan = create_plan(pair[0])
    for _ in range(5):
        page = follow(plan["pay_url"])
        data = {**form_of(web.get(page).text), **card_fields()}
        addresses = [page, page.replace(pair[0].url, pair[1].url)] * 6

        def submit(address: str, data: dict[str, str] = data) -> int:
            return httpx.post(address, data=data, timeout=30).status_code

        with ThreadPoolExecutor(len(addresses)) as threads:
            assert set(threads.map(submit, addresses)) == {303}
    assert [subscription["state"] for subscription in subscriptions_of(pair[0])] == ["active"] * 5
    rows = rows_of(pair[0])
    assert (rows["subscriptions"], rows["customers"], rows["payments"], rows["sandbox_charges"]) == (5, 5, 5, 5)
