"""The answer to a buyer whose card was sent to the gateway, when the database fails afterwards."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from ecomcharge.base.errors import Unavailable
from ecomcharge.base.settings import Settings
from ecomcharge.runtime.composition import App
from ecomcharge.shops.keys import MasterKey
from support.builders import a_plan
from support.checkout import CHALLENGE_CARD, GOOD_CARD, card_fields, form_of
from support.shops import MASTER_KEY, add_shop


@pytest.mark.parametrize("number", [GOOD_CARD, CHALLENGE_CARD])
def test_a_buyer_is_not_answered_as_if_nothing_happened(database_url: str, master_key: MasterKey, number: str) -> None:
    """A 503 says that nothing was written, but the card may be charged. The buyer is sent to the page of the subscription."""
    shop = add_shop(database_url, master_key)

    async def work() -> None:
        app = App(Settings(database=database_url, master_key=MASTER_KEY, sandbox=True))
        await app.start()
        find, has_charged = app.database.find, False

        async def failing(*arguments: Any) -> Any:
            if has_charged:
                raise Unavailable
            return await find(*arguments)

        def count(outcome: str, first: bool) -> None:
            nonlocal has_charged
            has_charged = True

        app.metrics.count_charge = count  # type: ignore[method-assign]
        object.__setattr__(app.services.charging, "on_outcome", count)
        app.database.find = failing  # type: ignore[method-assign, assignment]
        transport = httpx.ASGITransport(app.asgi())  # type: ignore[arg-type]
        auth = (str(shop.shop_id), shop.secret_key)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as http:
            created = (await http.post("/subscriptions", json={"plan": a_plan()}, auth=auth)).json()
            page = created["redirect_url"].partition("/v2/")[2]
            form = form_of((await http.get(f"/v2/{page}")).text)
            answer = await http.post(f"/v2/{page}", data={**form, **card_fields(number)})
            assert has_charged
            assert (answer.status_code, answer.headers["location"]) == (303, f"/v2/{page}")
        app.database.find = find  # type: ignore[method-assign]
        rows = await app.database.rows("SELECT status FROM sandbox_charges WHERE shop_id = :shop_id", {"shop_id": shop.shop_id})
        assert [row[0] for row in rows] == ["successful" if number == GOOD_CARD else "incomplete"]
        await app.stop()

    asyncio.run(work())
