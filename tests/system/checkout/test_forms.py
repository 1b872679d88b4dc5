"""Valid and hostile form data for the payment page, posted without a browser."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ecomcharge.checkout.forms import TOO_MANY_PAYMENTS
from ecomcharge.checkout.translations import LANGUAGES, translation_for
from ecomcharge.gateways.sandbox import CHALLENGE, FAILED, SUCCESSFUL, TEST_CARDS
from ecomcharge.shops.keys import MasterKey
from support.builders import a_plan, a_price
from support.checkout import (
    CHALLENGE_CARD,
    CODE,
    DECLINED_CARD,
    GOOD_CARD,
    PLAN,
    card_fields,
    form_of,
    payments_of,
    post_card,
    read,
    subscribe,
    web,
)
from support.process import ServerProcess
from support.shops import ENVIRONMENT, Shop, add_shop

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}"


@pytest.mark.parametrize(
    ("number", "behaviour"), [card for card in TEST_CARDS.items() if card[1] in (SUCCESSFUL, CHALLENGE, FAILED)]
)
def test_every_published_test_card_behaves_as_published(server: Shop, number: str, behaviour: str) -> None:
    subscription = subscribe(server)
    answer = post_card(subscription["redirect_url"], number)
    assert answer.status_code == 303
    if behaviour == CHALLENGE:
        step = f"{server.url}{answer.headers['location']}"
        assert read(server, subscription)["state"] == "redirecting"
        answer = web.post(step, data={**form_of(web.get(step).text), "answer": "accept"})
        assert answer.status_code == 303
    result = web.get(f"{server.url}{answer.headers['location']}")
    assert result.status_code == 200
    assert read(server, subscription)["state"] == ("failed" if behaviour == FAILED else "active")
    title = "The payment did not go through" if behaviour == FAILED else "Thank you, all done"
    assert f"<h1>{title}</h1>" in result.text


@pytest.mark.parametrize("address", ["javascript:alert(1)", "data:text/html,x", "//shop.test/", "ftp://shop.test/", "http://"])
def test_return_url_of_another_kind_is_refused(server: Shop, address: str) -> None:
    with server.client() as client:
        plan = client.post("/plans", json=PLAN).json()
        assert client.post("/subscriptions", json={"plan": PLAN, "return_url": address}).status_code == 422
    assert web.get(plan["pay_url"], params={"return_url": address}).status_code == 400


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("https://shop.test", "https://shop.test?id={id}"),
        ("https://shop.test/a?b=1&c=%26", "https://shop.test/a?b=1&c=%26&id={id}"),
        ('https://shop.test/a?b=<x>"#part', 'https://shop.test/a?b=<x>"&id={id}#part'),
    ],
)
def test_return_url_keeps_its_query_and_fragment(server: Shop, given: str, expected: str) -> None:
    subscription = subscribe(server, return_url=given)
    post_card(subscription["redirect_url"])
    page = web.get(subscription["redirect_url"]).text
    found = re.search(r'class="button" href="([^"]*)"', page)
    assert found is not None
    assert unescape(found[1]) == expected.format(id=subscription["id"])


@pytest.mark.parametrize("path", ["/v2/checkout", "/v2/checkout?token=" + "0" * 64, "/v2/checkout?token=%00", "/process/none"])
def test_unknown_address_returns_its_own_page(server: Shop, path: str) -> None:
    for answer in (web.get(server.url + path), web.post(server.url + path, data=card_fields())):
        assert answer.status_code == 404
        assert "<h1>Page not found</h1>" in answer.text
    german = web.get(server.url + path, headers={"Accept-Language": "xx, de-AT;q=0.9, en;q=0.5"})
    assert '<html lang="de">' in german.text


def test_the_form_asks_for_the_email_only_if_it_is_missing(server: Shop) -> None:
    subscription = subscribe(server, customer={"email": "known@shop.test", "first_name": "Known"})
    assert 'name="email"' not in web.get(subscription["redirect_url"]).text
    subscription = subscribe(
        server, customer={"first_name": "Known"}, settings={"customer_fields": {"visible": ["first_name", "city"]}}
    )
    page = web.get(subscription["redirect_url"]).text
    assert 'name="email"' in page
    assert 'name="city"' in page
    assert 'name="first_name"' not in page
    answer = post_card(subscription["redirect_url"], email=" ")
    assert answer.status_code == 422
    assert "E-mail: Please fill this in." in answer.text
    assert payments_of(server, subscription) == []
    assert post_card(subscription["redirect_url"], city="Minsk").status_code == 303
    with server.client() as client:
        customer = client.get(f"/customers/{read(server, subscription)['customer']['id']}").json()
    assert (customer["first_name"], customer["email"], customer["city"]) == ("Known", "jane@shop.test", "Minsk")


def test_input_is_returned_escaped_and_the_card_is_not_returned(server: Shop) -> None:
    subscription = subscribe(server, plan={"title": HOSTILE}, settings={"customer_fields": ["first_name", "country"]})
    number = "4200000000000018"
    answer = post_card(
        subscription["redirect_url"], number, first_name=HOSTILE, holder=HOSTILE[:30], exp_month="99", country=HOSTILE
    )
    assert answer.status_code == 422
    for page in (answer.text, web.get(subscription["redirect_url"]).text):
        assert "<script>alert" not in page
        assert "<img" not in page
        assert "49" not in re.findall(r"<h1[^>]*>(.*)</h1>", page)[0]
        assert unescape(re.findall(r"<h1[^>]*>(.*)</h1>", page)[0]) == HOSTILE
        assert number not in page
        assert CODE not in re.sub(r'name="form_token" value="\w+"|token=\w+', "", page)
    values = {name: unescape(value) for name, value in re.findall(r'name="(\w+)" value="([^"]*)"', answer.text)}
    assert values["first_name"] == HOSTILE
    assert values["exp_month"] == "99"
    assert "number" not in values
    assert "verification_value" not in values


def test_the_content_security_policy_allows_no_other_origin(server: Shop) -> None:
    subscription = subscribe(server)
    answer = web.get(subscription["redirect_url"])
    policy = dict(part.partition(" ")[::2] for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["form-action"] == "'self'"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert not re.search(r"<style|style=|<script(?![^>]* src=)|\son\w+=", answer.text)
    for asset in re.findall(r'(?:src|href)="(/v2/checkout/[^"]+)"', answer.text):
        assert web.get(server.url + asset).status_code == 200


def test_form_without_its_token_charges_nothing(server: Shop) -> None:
    subscription = subscribe(server)
    other = form_of(web.get(subscribe(server)["redirect_url"]).text)
    for token in ({}, {"form_token": "0" * 64}, other):
        answer = web.post(subscription["redirect_url"], data={**card_fields(), **token})
        assert answer.status_code == 403
        assert "Please enter your card once more." in answer.text
    assert payments_of(server, subscription) == []
    assert read(server, subscription)["state"] == "redirecting"


def test_3_d_secure_answer_without_token_or_of_unknown_kind_is_ignored(server: Shop) -> None:
    subscription = subscribe(server)
    step = server.url + post_card(subscription["redirect_url"], CHALLENGE_CARD).headers["location"]
    for form in ({"answer": "refuse"}, form_of(web.get(step).text), {**form_of(web.get(step).text), "answer": "?"}):
        assert web.post(step, data=form).headers["location"] == urlsplit(step).path
    assert read(server, subscription)["state"] == "redirecting"


@pytest.mark.parametrize("number", [GOOD_CARD, "4111110000000088", CHALLENGE_CARD])
def test_many_concurrent_submissions_charge_once(server: Shop, number: str) -> None:
    subscription = subscribe(server)
    url = subscription["redirect_url"]
    form = {**form_of(web.get(url).text), **card_fields(number)}

    def post(_: int) -> int:
        return web.post(url, data=form).status_code

    with ThreadPoolExecutor(12) as pool:
        statuses = list(pool.map(post, range(24)))
    assert set(statuses) == {303}
    assert len(payments_of(server, subscription)) == 1
    with server.client() as client:
        assert len(client.get("/customers").json()) == 1


def test_challenge_is_answered_once(server: Shop) -> None:
    subscription = subscribe(server)
    step = server.url + post_card(subscription["redirect_url"], CHALLENGE_CARD).headers["location"]
    form = form_of(web.get(step).text)
    answers = [{**form, "answer": answer} for answer in ("accept", "refuse") * 6]
    with ThreadPoolExecutor(12) as pool:
        assert {answer.status_code for answer in pool.map(lambda data: web.post(step, data=data), answers)} == {303}
    state = read(server, subscription)["state"]
    assert state in ("active", "failed")
    assert web.post(step, data={**form, "answer": "refuse"}).status_code == 303
    assert read(server, subscription)["state"] == state
    assert len(payments_of(server, subscription)) == 1


def test_body_that_is_too_large_is_refused(server: Shop) -> None:
    subscription = subscribe(server)
    form = form_of(web.get(subscription["redirect_url"]).text)
    answer = web.post(subscription["redirect_url"], data={**form, **card_fields(), "x": "x" * 70_000})
    assert answer.status_code == 413
    assert payments_of(server, subscription) == []


_NAMES = st.sampled_from(["form_token", "email", "number", "verification_value", "holder", "exp_month", "exp_year", "state", "x"])
_TEXTS = st.one_of(st.text(max_size=40), st.sampled_from([GOOD_CARD, "12", "2039", CODE, "a@b.test", "0" * 500]))
FORM_TYPE = "application/x-www-form-urlencoded"
_TYPES = st.sampled_from(
    [
        FORM_TYPE,
        f"{FORM_TYPE}; charset=utf-16",
        "application/json",
        "text/plain",
        "",
        "é",
    ]
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    fields=st.lists(st.tuples(_NAMES, _TEXTS), max_size=12),
    raw=st.one_of(st.none(), st.binary(max_size=200)),
    content_type=_TYPES,
    with_token=st.booleans(),
)
@example(fields=[], raw=b"\xff=\xfe&%ff=%00&number=%zz", content_type=FORM_TYPE, with_token=True)
@example(
    fields=[("number", GOOD_CARD), ("exp_year", "9" * 30), ("exp_month", "-0")], raw=None, content_type=FORM_TYPE, with_token=True
)
@example(fields=[], raw=b"&".join([b"x=1"] * 60), content_type=FORM_TYPE, with_token=False)
def test_random_form_data_gets_a_response_and_no_charge(
    mangled: tuple[dict[str, Any], dict[str, str]],
    fields: list[tuple[str, str]],
    raw: bytes | None,
    content_type: str,
    with_token: bool,
) -> None:
    subscription, form = mangled
    typed = dict(fields)
    if with_token:  # then the card must be incomplete
        typed = {**typed, **form, "number": typed.get("number", "")[:11]}
    body = raw if raw is not None else str(httpx.QueryParams(typed)).encode()
    answer = web.post(subscription["redirect_url"], content=body, headers={b"Content-Type": content_type.encode()})
    assert answer.status_code in (403, 422)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"


@pytest.fixture
def mangled(server: Shop) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    subscription = subscribe(server, settings={"customer_fields": ["state", "country", "zip"]})
    form = form_of(web.get(subscription["redirect_url"]).text)
    yield subscription, form
    assert payments_of(server, subscription) == []
    assert read(server, subscription)["state"] == "redirecting"


def test_card_number_and_code_are_not_stored_or_logged(
    new_database_url: Callable[[], str], master_key: MasterKey, tmp_path: Path
) -> None:
    """Search the bytes of the database files and the log after every kind of outcome."""
    url = f"sqlite:///{tmp_path}/kept.db"
    code = "98761234"  # an invalid code; a valid one has three digits, which occur in any file
    with ServerProcess(url, tmp_path, environment=ENVIRONMENT) as process:
        credentials = add_shop(url, master_key)
        shop = Shop(process.url, credentials.shop_id, credentials.secret_key, process)
        numbers = [GOOD_CARD, DECLINED_CARD, CHALLENGE_CARD, "4111110000000013", "4111110000000021"]
        for number in numbers:
            spaced = re.sub(r"(\d{4})(?=\d)", r"\1 ", number)
            address = subscribe(shop)["redirect_url"]
            assert post_card(address, spaced, verification_value=code).status_code == 422
            assert post_card(address, spaced).status_code == 303
        process.stop()
        log = process.log_file.read_bytes()
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert any(b"SQLite format 3" in content for content in files.values())
    for name, content in {**files, "log": log}.items():
        for number in numbers:
            assert number.encode() not in content, name
            assert re.sub(r"(\d{4})(?=\d)", r"\1 ", number).encode() not in content, name
        assert code.encode() not in content, name
        assert f'"{CODE}"'.encode() not in content, name
        assert f"={CODE}".encode() not in content, name


@pytest.fixture
def limited(database_url: str, master_key: MasterKey, tmp_path: Path) -> Iterator[Shop]:
    """A server behind a proxy that --trusted-proxies does not name."""
    credentials = add_shop(database_url, master_key)
    options = ("--checkouts-per-minute", "3", "--no-worker")
    with ServerProcess(database_url, tmp_path, *options, environment=ENVIRONMENT) as process:
        yield Shop(process.url, credentials.shop_id, credentials.secret_key, process)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_buyer_over_the_limit_gets_the_form_again(limited: Shop, language: str) -> None:
    def pay(number: int, address: str, **chosen: str) -> httpx.Response:
        form = {**form_of(web.get(address).text), **card_fields(**chosen)}
        return web.post(address, data=form, headers={"X-Forwarded-For": f"198.51.100.{number}"})

    subscriptions = [subscribe(limited, language=language) for _ in range(5)]
    answers = [pay(number, each["redirect_url"], holder="KIM PAY") for number, each in enumerate(subscriptions)]
    assert [answer.status_code for answer in answers] == [303, 303, 303, 429, 429]
    page = answers[-1]
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert 1 <= int(page.headers["retry-after"]) <= 60
    assert page.headers["ratelimit-policy"] == '"checkout";q=3;w=60'
    text = translation_for(language).gettext(TOO_MANY_PAYMENTS)
    assert (f'<html lang="{language}">' in page.text, text in page.text) == (True, True)
    for typed in ('value="jane@shop.test"', 'value="12"', 'value="39"', 'value="KIM PAY"'):
        assert typed in page.text
    assert GOOD_CARD not in page.text
    assert read(limited, subscriptions[-1])["state"] == "redirecting"
    assert form_of(page.text) == form_of(web.get(subscriptions[-1]["redirect_url"]).text)  # the form can be sent again
    log = limited.process.log_file.read_text()
    assert log.count("--trusted-proxies") == 2  # in one line
    assert '"proxy":"127.0.0.1"' in log
    assert "198.51.100" not in log


def test_posts_to_pay_links_are_limited_per_address(limited: Shop) -> None:
    with limited.client() as http:
        plan = http.post("/plans", json=a_plan(title="x", plan=a_price(1, unit="day"), language="de")).json()
        assert [web.get(plan["pay_url"]).status_code for _ in range(5)] == [302] * 5  # they create nothing
        answers = [web.post(plan["pay_url"]) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [302, 302, 302, 429, 429]
        assert answers[-1].headers["ratelimit-policy"] == '"checkout";q=3;w=60'
        assert '<a class="button" href="">Noch einmal versuchen</a>' in answers[-1].text
        assert len(http.get("/subscriptions").json()) == 3


def test_the_lines_of_the_receipt_are_on_the_result_page_after_payment(server: Shop) -> None:
    lines = ["Tea box", "", "Return within 14 days", HOSTILE]
    subscription = subscribe(server, receipt_text=lines)
    assert "Return within 14 days" not in web.get(subscription["redirect_url"]).text
    assert post_card(subscription["redirect_url"]).status_code == 303
    [shown] = re.findall(r'<p class="receipt">(.*?)</p>', web.get(subscription["redirect_url"]).text, re.DOTALL)
    assert unescape(shown).split("\n") == lines
    assert "<script>" not in shown


@pytest.mark.parametrize("chosen", [{}, {"receipt_text": []}, {"receipt_text": None}])
def test_without_lines_the_result_page_has_no_receipt(server: Shop, chosen: dict[str, Any]) -> None:
    subscription = subscribe(server, **chosen)
    post_card(subscription["redirect_url"])
    assert 'class="receipt"' not in web.get(subscription["redirect_url"]).text


def test_a_declined_payment_shows_no_receipt(server: Shop) -> None:
    subscription = subscribe(server, receipt_text=["Tea box"])
    post_card(subscription["redirect_url"], DECLINED_CARD)
    page = web.get(subscription["redirect_url"]).text
    assert "The payment did not go through" in page
    assert "Tea box" not in page


def test_full_width_digits_and_line_breaks_of_a_form_are_understood(server: Shop) -> None:
    fields = ["address", "country", "zip", "phone"]
    subscription = subscribe(server, settings={"customer_fields": {"visible": fields}})
    page = web.get(subscription["redirect_url"]).text
    assert '<option value="XK">Kosovo</option>' in page
    wide = str.maketrans("0123456789 +-", "".join(chr(ord(c) + 0xFEE0) for c in "0123456789") + "\u3000\uff0b\uff0d")
    answer = post_card(
        subscription["redirect_url"],
        "4200 0000 0000 0000".translate(wide),
        exp_month="05".translate(wide),
        exp_year="39".translate(wide),
        verification_value=CODE.translate(wide),
        address="12 Harbour Lane\r\nFlat\t4",
        country="XK",
        zip="10-000".translate(wide),
        phone="+383 44".translate(wide),
    )
    assert answer.status_code == 303, answer.text
    paid = read(server, subscription)
    assert (paid["state"], paid["card"]["exp_month"], paid["card"]["exp_year"]) == ("active", 5, 2039)
    with server.client() as client:
        customer = client.get(f"/customers/{paid['customer']['id']}").json()
    assert [customer[name] for name in fields] == ["12 Harbour Lane, Flat 4", "XK", "10-000", "+383 44"]


def test_an_amount_without_decimals_is_written_without_decimals(server: Shop) -> None:
    subscription = subscribe(server, plan={"currency": "IDR", "plan": a_price(75000)})
    assert "IDR\u00a075,000" in unescape(web.get(subscription["redirect_url"]).text)
