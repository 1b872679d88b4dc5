"""The pages while the database takes no writes, and addresses that lead nowhere."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from ecomcharge.checkout.results import OFFLINE, UNKNOWN
from ecomcharge.checkout.translations import LANGUAGES, translation_for
from ecomcharge.shops.keys import MasterKey
from support.checkout import PLAN, card_fields, form_of, web
from support.shops import Shop, Start, add_shop


def test_a_buyer_gets_a_page_while_nothing_can_be_written(start: Start, master_key: MasterKey) -> None:
    process = start()
    credentials = add_shop(process.database, master_key)
    with Shop(process.url, credentials.shop_id, credentials.secret_key, process).client() as http:
        plan = http.post("/plans", json=PLAN).json()
        page = web.get(plan["pay_url"]).headers["location"]
        form = {**form_of(web.get(page).text), **card_fields()}
        with closing(sqlite3.connect(process.database.removeprefix("sqlite:///"), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            answers = [
                web.post(page, data=form, headers={"Accept-Language": "de"}),
                web.post(plan["pay_url"], headers={"Accept-Language": "de"}),
            ]
            other.execute("ROLLBACK")
        for answer in answers:
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert translation_for("de").gettext(OFFLINE.title) in answer.text
            assert '<a class="button" href="">' in answer.text
        assert http.get("/subscriptions").json() == []
        assert web.post(page, data=form).status_code == 303
        assert [subscription["state"] for subscription in http.get("/subscriptions").json()] == ["active"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_pay_link_of_an_unknown_plan_leads_to_a_page(server: Shop, language: str) -> None:
    for path in ("/plans/pln_0000000000000000/pay", "/plans/x/pay", "/v2/confirm_order/pln_0000000000000000/1"):
        answer = web.get(f"{server.url}{path}", headers={"Accept-Language": language})
        assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")
        assert translation_for(language).gettext(UNKNOWN.title) in answer.text
