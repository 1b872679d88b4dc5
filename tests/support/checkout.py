"""Create subscriptions with a payment page, and submit the page's form without a browser."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import httpx

from ecomcharge.payments import store as payments
from ecomcharge.payments.model import Payment
from support.builders import a_plan, a_price
from support.shops import Shop, with_database

if TYPE_CHECKING:
    from ecomcharge.storage.database import Database


GOOD_CARD = "4200000000000000"
CODE = "739"  # digits that occur in a log for no other reason
PLAN: dict[str, Any] = a_plan(999, title="Basic plan", test=True)
# One shared client, because creating one takes longer than a request. It keeps no connection and need not be closed.
web = httpx.Client(timeout=30, limits=httpx.Limits(max_keepalive_connections=0))


def subscribe(shop: Shop, *, plan: dict[str, Any] | None = None, **chosen: Any) -> dict[str, Any]:
    with shop.client() as client:
        answer = client.post("/subscriptions", json={"plan": {**PLAN, **(plan or {})}, **chosen})
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    return created


def form_of(page: str) -> dict[str, str]:
    """Returns the form's hidden field, as a browser sends it."""
    found = re.search(r'name="form_token" value="([0-9a-f]+)"', page)
    assert found is not None, page
    return {"form_token": found[1]}


def card_fields(number: str = GOOD_CARD, **chosen: str) -> dict[str, str]:
    typed = {"email": "jane@shop.test", "number": number, "exp_month": "12", "exp_year": "39", "verification_value": CODE}
    return {**typed, "holder": "JANE DOE", **chosen}


def post_card(url: str, number: str = GOOD_CARD, **chosen: str) -> httpx.Response:
    """Open the page, fill in its form and submit it."""
    form = form_of(web.get(url).text)
    return web.post(url, data={**form, **card_fields(number, **chosen)})


DECLINED_CARD = "4005550000000019"
CHALLENGE_CARD = "4012000000001097"
TRIAL = a_price(0, interval=2, unit="week")


def read(shop: Shop, subscription: dict[str, Any]) -> dict[str, Any]:
    with shop.client() as client:
        answer: dict[str, Any] = client.get(f"/subscriptions/{subscription['id']}").json()
    return answer


def payments_of(shop: Shop, subscription: dict[str, Any]) -> list[Payment]:
    async def work(database: Database) -> list[Payment]:
        return await payments.of_subscription(database, shop.shop_id, subscription["id"])

    return with_database(shop.process.database, work)
