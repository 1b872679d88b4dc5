"""Texts of the payment page: dates, amounts, languages."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from ecomcharge.checkout.forms import PROBLEM_TEXTS
from ecomcharge.checkout.translations import LANGUAGES, translation_for
from ecomcharge.shops.keys import MasterKey
from support.builders import a_price
from support.checkout import CHALLENGE_CARD, TRIAL, card_fields, form_of, payments_of, post_card, read, subscribe, web
from support.process import ServerProcess
from support.shops import ENVIRONMENT, Shop, add_shop


def test_page_expires_after_a_day(master_key: MasterKey, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/clock.db"
    with ServerProcess(url, tmp_path, "--sandbox", environment=ENVIRONMENT) as process:
        credentials = add_shop(url, master_key)
        shop = Shop(process.url, credentials.shop_id, credentials.secret_key, process)
        fresh, challenged = subscribe(shop, return_url="https://shop.test/"), subscribe(shop)
        form = form_of(web.get(fresh["redirect_url"]).text)
        step = shop.url + post_card(challenged["redirect_url"], CHALLENGE_CARD).headers["location"]
        with shop.client() as client:
            assert client.post("/sandbox/clock/advance", json={"step": "25h"}).status_code == 200
        for address in (fresh["redirect_url"], challenged["redirect_url"]):
            assert "<h1>This payment page has expired</h1>" in web.get(address).text
        assert web.post(fresh["redirect_url"], data={**form, **card_fields()}).status_code == 303
        assert "This payment page has expired" in web.get(step, follow_redirects=True).text
        assert read(shop, fresh)["state"] == read(shop, challenged)["state"] == "expired"
        assert payments_of(shop, fresh) == []


def test_page_shows_the_amount_and_the_date_of_the_renewal(master_key: MasterKey, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/clock.db"
    with ServerProcess(url, tmp_path, "--sandbox", "--time-zone", "Europe/Minsk", environment=ENVIRONMENT) as process:
        credentials = add_shop(url, master_key)
        shop = Shop(process.url, credentials.shop_id, credentials.secret_key, process)
        with shop.client() as client:
            client.post("/sandbox/clock/freeze", json={})
            client.post("/sandbox/clock/set", json={"to": "2030-01-31T12:00:00Z"})
        hourly = a_price(5, interval=3, unit="hour")
        assert _rows(subscribe(shop)) == {"Renewal": "€9.99 every month", "Next payment": "February 28, 2030"}
        assert _rows(subscribe(shop, plan={"trial": TRIAL, "infinite": False, "billing_cycles": 4})) == {
            "Trial period": "2 weeks – free",
            "After the trial": "€9.99 every month",
            "Next payment": "February 14, 2030",
            "Payments in total": "3",
        }
        assert _rows(subscribe(shop, plan={"infinite": False, "billing_cycles": 1})) == {
            "Valid until": "February 28, 2030",
            "Payments in total": "1",
        }
        assert _rows(subscribe(shop, plan={"plan": hourly, "currency": "JPY"})) == {
            "Renewal": "¥5 every 3 hours",
            "Next payment": "January 31, 2030, 6:00\u202fPM +03",
        }


@pytest.mark.parametrize(
    ("zone", "now", "unit", "renewals", "expected"),
    [
        ("Europe/Minsk", "2027-03-01T00:30+03:00", "month", ["2027-03-31T21:30", "2027-04-30T21:30"], "April 1, 2027"),
        ("America/New_York", "2028-02-29T20:30-05:00", "month", ["2028-03-30T00:30", "2028-04-30T00:30"], "March 29, 2028"),
        ("Europe/Minsk", "2027-03-01T00:30+03:00", "year", ["2028-02-29T21:30", "2029-02-28T21:30"], "March 1, 2028"),
    ],
)
def test_page_and_api_agree_on_the_date_in_the_servers_time_zone(
    zone: str, now: str, unit: str, renewals: list[str], expected: str, master_key: MasterKey, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/clock.db"
    with ServerProcess(url, tmp_path, "--sandbox", "--time-zone", zone, environment=ENVIRONMENT) as process:
        credentials = add_shop(url, master_key)
        shop = Shop(process.url, credentials.shop_id, credentials.secret_key, process)
        with shop.client() as client:
            client.post("/sandbox/clock/freeze", json={})
            assert client.post("/sandbox/clock/set", json={"to": now}).status_code == 200
            subscription = subscribe(shop, plan={"plan": a_price(999, unit=unit)})
            assert _rows(subscription)["Next payment"] == expected
            assert post_card(subscription["redirect_url"]).status_code == 303
            paid = read(shop, subscription)
            assert paid["renew_at"] == paid["active_to"] == f"{renewals[0]}:00.000Z"
            assert _rows(subscription)["Next payment"] == expected  # the result page
            assert client.post("/sandbox/clock/set", json={"to": paid["renew_at"]}).status_code == 200
            renewed = read(shop, subscription)
            assert (renewed["paid_billing_cycles"], renewed["renew_at"]) == (2, f"{renewals[1]}:00.000Z")


def _rows(subscription: dict[str, Any]) -> dict[str, str]:
    page = web.get(subscription["redirect_url"]).text
    return {unescape(name): unescape(value) for name, value in re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page)}


@pytest.mark.parametrize("language", LANGUAGES)
def test_page_is_in_the_buyers_language(server: Shop, language: str) -> None:
    translate = translation_for(language).gettext
    subscription = subscribe(server, plan={"language": language, "trial": TRIAL})
    page = unescape(web.get(subscription["redirect_url"]).text)
    assert f'<html lang="{language}">' in page
    assert translate("Start the free trial") in page
    assert translate("Test mode: no money is taken.") in page
    wrong = unescape(post_card(subscription["redirect_url"], "4200000000000001", email="jane", holder="x" * 33).text)
    assert translate("Please check what you entered") in wrong
    for name in ("number", "email"):
        assert translate(PROBLEM_TEXTS[name]) in wrong
    assert translate("At most %(maximum)s characters, please.") % {"maximum": 32} in wrong
    assert post_card(subscription["redirect_url"]).status_code == 303
    assert translate("Thank you, all done") in unescape(web.get(subscription["redirect_url"]).text)


def test_language_without_a_catalogue_falls_back_to_english(server: Shop) -> None:
    page = web.get(subscribe(server, plan={"language": "kk"})["redirect_url"]).text
    assert '<html lang="en">' in page
    assert "Pay €9.99" in page


def test_page_and_result_show_an_amount_without_decimals_where_the_currency_has_none(server: Shop) -> None:
    price = a_price(50000)
    subscription = subscribe(server, plan={"title": "T", "currency": "IDR", "plan": price})
    assert subscription["plan"]["description"] == "Subscription. Main period: IDR 50000 each 1 month."
    assert subscription["plan"]["plan"]["amount"] == 50000
    page = unescape(web.get(subscription["redirect_url"]).text).replace("\u00a0", " ")
    assert "Pay IDR 50,000<" in page
    assert "IDR 50,000 every month" in page
    assert post_card(subscription["redirect_url"]).status_code == 303
    assert "IDR 50,000" in unescape(web.get(subscription["redirect_url"]).text).replace("\u00a0", " ")
