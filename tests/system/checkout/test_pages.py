"""The buyer's pages: in a real browser, by plain forms, and against whoever means ill."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from ecomcharge.checkout.forms import PROBLEM_TEXTS
from ecomcharge.checkout.translations import LANGUAGES, translation_for
from ecomcharge.gateways.sandbox import CHALLENGE, FAILED, SUCCESSFUL, TEST_CARDS
from ecomcharge.payments import store as payments
from ecomcharge.payments.model import Payment
from ecomcharge.shops.keys import MasterKey
from support.browser import QUIET
from support.checkout import CODE, GOOD_CARD, PLAN, card_fields, form_of, post_card, subscribe, web
from support.process import ServerProcess
from support.shops import ENVIRONMENT, Shop, add_shop, with_database

if TYPE_CHECKING:
    from ecomcharge.storage.database import Database

DECLINED_CARD = "4005550000000019"
CHALLENGE_CARD = "4012000000001097"
TRIAL = {"amount": 0, "interval": 2, "interval_unit": "week"}
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}"


# Helpers


def read(shop: Shop, subscription: dict[str, Any]) -> dict[str, Any]:
    with shop.client() as client:
        answer: dict[str, Any] = client.get(f"/subscriptions/{subscription['id']}").json()
    return answer


def payments_of(shop: Shop, subscription: dict[str, Any]) -> list[Payment]:
    async def work(database: Database) -> list[Payment]:
        return await payments.of_subscription(database, shop.shop_id, subscription["id"])

    with ThreadPoolExecutor(1) as aside:  # a browser under test keeps this thread's event loop to itself
        return aside.submit(with_database, shop.process.database, work).result()


# A browser


@pytest.fixture
def browser(server: Shop) -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine: install it to test the buyer's pages")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture
def complaints() -> list[str]:
    return []


@pytest.fixture
def open_page(browser: Browser, server: Shop, complaints: list[str]) -> Iterator[Callable[..., Page]]:
    """Makes pages that note what the browser complains of, and every request that leaves the server."""
    contexts: list[BrowserContext] = []

    def make(**options: Any) -> Page:
        contexts.append(browser.new_context(**{"viewport": {"width": 1100, "height": 900}, **options}))
        page = contexts[-1].new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda message: (
                complaints.append(message.text)
                if message.type in ("error", "warning") and "responded with a status of 4" not in message.text
                else None
            ),
        )
        page.on(
            "request",
            lambda request: (
                complaints.append(request.url)
                if not request.url.startswith((f"{server.url}/", "data:", "http://shop.test/"))
                else None
            ),
        )
        page.route("http://shop.test/**", lambda route: route.fulfill(body="<title>Merchant</title>"))
        return page

    yield make
    for context in contexts:
        context.close()


def fill(page: Page, number: str, **chosen: str) -> None:
    for name, text in card_fields(number, **chosen).items():
        if page.locator(f"#{name}").count():
            page.locator(f"#{name}").fill(text)


def press_pay(page: Page) -> None:
    page.locator("form.payment button").click()


def test_buyer_pays_and_goes_back_to_the_merchant(
    server: Shop, open_page: Callable[..., Page], complaints: list[str], tmp_path: Path
) -> None:
    subscription = subscribe(server, return_url="http://shop.test/thanks?order=7#top", settings={"auto_return": 1})
    page = open_page()
    page.goto(subscription["redirect_url"])
    expect(page.locator("h1")).to_have_text("Basic plan")
    expect(page.locator(".due strong")).to_have_text("€9.99")
    page.locator("#number").press_sequentially(GOOD_CARD)
    expect(page.locator("#number")).to_have_value("4200 0000 0000 0000")
    expect(page.locator("#brand")).to_have_text("Visa")
    fill(page, GOOD_CARD)
    press_pay(page)
    expect(page.locator("h1")).to_have_text("Thank you, all done")
    page.screenshot(path=tmp_path / "success.png")
    page.wait_for_url("http://shop.test/**")
    assert page.url == f"http://shop.test/thanks?order=7&id={subscription['id']}#top"
    now = read(server, subscription)
    assert (now["state"], now["paid_billing_cycles"]) == ("active", 1)
    assert (now["card"]["last_4"], now["card"]["stamp"], now["card"]["bin"]) == ("0000", None, None)
    with server.client() as client:
        assert client.get(f"/customers/{now['customer']['id']}").json()["email"] == "jane@shop.test"
    assert complaints == []


def test_declined_card_ends_on_the_page_that_says_so(server: Shop, open_page: Callable[..., Page], complaints: list[str]) -> None:
    subscription = subscribe(server, return_url="http://shop.test/")
    page = open_page()
    page.goto(subscription["redirect_url"])
    fill(page, DECLINED_CARD)
    press_pay(page)
    expect(page.locator("h1")).to_have_text("The payment did not go through")
    expect(page.get_by_role("link", name="Back to the shop")).to_have_attribute(
        "href", f"http://shop.test/?id={subscription['id']}"
    )
    assert read(server, subscription)["state"] == "failed"
    assert complaints == []


@pytest.mark.parametrize("javascript", [True, False], ids=["with JavaScript", "without"])
@pytest.mark.parametrize(("button", "state"), [("Confirm", "active"), ("Refuse", "failed")])
def test_challenge_is_passed_or_refused(
    server: Shop, open_page: Callable[..., Page], complaints: list[str], button: str, state: str, javascript: bool
) -> None:
    subscription = subscribe(server)
    page = open_page(java_script_enabled=javascript)
    page.goto(subscription["redirect_url"])
    fill(page, CHALLENGE_CARD)
    press_pay(page)
    expect(page.locator("h1")).to_have_text("Confirm the payment")
    assert "/process/" in page.url
    page.goto(subscription["redirect_url"])  # whoever comes back to the page is led to the step again
    page.get_by_role("button", name=button).click()
    expect(page.locator(".success h1, .failed h1")).to_be_visible()
    assert read(server, subscription)["state"] == state
    assert len(payments_of(server, subscription)) == 1
    assert complaints == []


def test_challenge_of_a_card_from_the_merchant_leads_back_to_the_merchant(
    server: Shop, open_page: Callable[..., Page], complaints: list[str]
) -> None:
    card = {"number": CHALLENGE_CARD, "verification_value": CODE, "exp_month": "12", "exp_year": "2039"}
    customer = {"email": "jane@shop.test"}
    subscription = subscribe(server, card=card, customer=customer, return_url="http://shop.test/thanks")
    page = open_page()
    page.goto(subscription["redirect_url"])
    page.get_by_role("button", name="Confirm").click()
    page.wait_for_url(f"http://shop.test/thanks?id={subscription['id']}")
    assert read(server, subscription)["state"] == "active"
    assert complaints == []


def test_page_works_under_whatever_name_the_buyer_knows_the_server_by(server: Shop, open_page: Callable[..., Page]) -> None:
    """The policy lets a form lead to its own origin only, redirects included; so ours must not leave it."""
    subscription = subscribe(server)
    page = open_page()
    page.goto(subscription["redirect_url"].replace("127.0.0.1", "localhost"))
    fill(page, CHALLENGE_CARD)
    press_pay(page)
    page.get_by_role("button", name="Confirm").click()
    expect(page.locator("h1")).to_have_text("Thank you, all done")
    assert urlsplit(page.url).hostname == "localhost"


def test_buyer_who_reads_the_result_is_not_taken_away(server: Shop, open_page: Callable[..., Page]) -> None:
    subscription = subscribe(server, return_url="http://shop.test/", settings={"auto_return": 1})
    post_card(subscription["redirect_url"])
    page = open_page()
    page.goto(subscription["redirect_url"])
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Back to the shop")).to_be_focused()
    page.wait_for_timeout(1_500)
    expect(page.locator("#back-soon")).to_be_hidden()
    page.keyboard.press("Enter")
    page.wait_for_url(f"http://shop.test/?id={subscription['id']}")


def test_two_presses_and_a_reload_charge_once(server: Shop, open_page: Callable[..., Page], complaints: list[str]) -> None:
    subscription = subscribe(server)
    page = open_page()
    page.goto(subscription["redirect_url"])
    fill(page, "4111110000000088")  # the gateway takes its time
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.method) if request.method == "POST" else None)
    pressed = page.evaluate("""() => {
        const button = document.querySelector("form.payment button");
        button.click(); button.click(); button.form.requestSubmit();
        return new Promise((tell) => setTimeout(() => tell([button.disabled, button.textContent]), 100));
    }""")
    assert pressed == [True, "One moment…"]
    expect(page.locator("h1")).to_have_text("Thank you, all done")
    page.reload()
    expect(page.locator("h1")).to_have_text("Thank you, all done")
    page.go_back()
    expect(page.locator("h1")).to_have_text("Thank you, all done")
    assert sent == ["POST"]
    assert len(payments_of(server, subscription)) == 1
    assert complaints == []


def test_without_javascript_two_presses_charge_once(server: Shop, open_page: Callable[..., Page]) -> None:
    subscription = subscribe(server)
    page = open_page(java_script_enabled=False)
    page.goto(subscription["redirect_url"])
    fill(page, "4111110000000088")
    page.locator("form.payment button").dblclick(no_wait_after=True)
    expect(page.locator(".success, .waiting")).to_be_visible()
    expect(page.locator(".success")).to_be_visible(timeout=20_000)  # the page that waits looks again by itself
    assert len(payments_of(server, subscription)) == 1


def test_mistakes_are_told_in_place(server: Shop, open_page: Callable[..., Page], complaints: list[str]) -> None:
    subscription = subscribe(server)
    page = open_page()
    page.goto(subscription["redirect_url"])
    posts: list[str] = []
    page.on("request", lambda request: posts.append(request.url) if request.method == "POST" else None)
    fill(page, "4200000000000001", email="", exp_month="13", verification_value="1")
    press_pay(page)
    expect(page.locator("#email")).to_be_focused()
    expect(page.locator("#email-error")).to_have_text("Please fill this in.")
    expect(page.locator("#number-error")).to_have_text("This is not a valid card number. Please check its digits.")
    expect(page.locator("#exp_month-error")).to_have_text("Please enter a month from 01 to 12.")
    expect(page.locator("#verification_value")).to_have_attribute("aria-invalid", "true")
    fill(page, GOOD_CARD, exp_month="01", exp_year="20")
    page.locator("#exp_year").blur()
    expect(page.locator("#exp_month-error")).to_have_text("This card has expired.")
    assert posts == []
    fill(page, GOOD_CARD)
    expect(page.locator("[aria-invalid]")).to_have_count(0)
    press_pay(page)
    expect(page.locator("h1")).to_have_text("Thank you, all done")
    assert complaints == []


def test_without_javascript_mistakes_come_back_with_the_page(server: Shop, open_page: Callable[..., Page]) -> None:
    subscription = subscribe(server, language="de")
    page = open_page(java_script_enabled=False)
    page.goto(subscription["redirect_url"])
    fill(page, "4200000000000001", verification_value="1", exp_month="13")
    press_pay(page)
    expect(page.locator("#summary")).to_be_focused()
    expect(page.locator("#summary li")).to_have_count(3)
    expect(page.locator("#number-error")).to_have_text("Das ist keine gültige Kartennummer. Bitte prüfen Sie die Ziffern.")
    expect(page.locator("#number")).to_have_value("")
    expect(page.locator("#verification_value")).to_have_value("")
    expect(page.locator("#holder")).to_have_value("JANE DOE")
    page.locator("#summary a").first.click()
    expect(page.locator("#number")).to_be_focused()
    fill(page, GOOD_CARD)
    press_pay(page)
    expect(page.locator("h1")).to_have_text("Vielen Dank, alles erledigt")
    assert read(server, subscription)["state"] == "active"


def test_page_fits_a_narrow_screen_and_is_walked_by_keyboard(server: Shop, open_page: Callable[..., Page]) -> None:
    subscription = subscribe(server, plan={"trial": TRIAL, "title": "Абонемент" * 20}, language="ru")
    page = open_page(viewport={"width": 320, "height": 600})
    page.goto(subscription["redirect_url"])
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    walked = []
    for _ in range(7):
        page.keyboard.press("Tab")
        walked.append(page.evaluate("document.activeElement.id || document.activeElement.type"))
    assert walked == ["email", "number", "exp_month", "exp_year", "verification_value", "holder", "submit"]
    unnamed = page.evaluate(
        "[...document.querySelectorAll('input:not([type=hidden])')].filter(i => !i.labels.length && !i.ariaLabel).length"
    )
    assert unnamed == 0


# By plain forms


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


def test_pay_link_leads_to_a_new_page_with_an_empty_body(server: Shop) -> None:
    with server.client() as client:
        plan = client.post("/plans", json=PLAN).json()
    answer = web.get(plan["pay_url"], params={"return_url": "https://shop.test/back?a=1"})
    assert (answer.status_code, answer.content) == (302, b"")
    page = web.get(answer.headers["location"])
    assert page.status_code == 200
    assert "Basic plan" in page.text
    assert web.get(plan["pay_url"]).headers["location"] != answer.headers["location"]
    confirm = web.get(plan["confirm_url"])
    assert (confirm.status_code, confirm.content) == (302, b"")


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
def test_unknown_address_has_a_page_of_its_own(server: Shop, path: str) -> None:
    for answer in (web.get(server.url + path), web.post(server.url + path, data=card_fields())):
        assert answer.status_code == 404
        assert "<h1>Page not found</h1>" in answer.text
    german = web.get(server.url + path, headers={"Accept-Language": "xx, de-AT;q=0.9, en;q=0.5"})
    assert '<html lang="de">' in german.text


def test_missing_email_is_asked_for_and_a_known_one_is_not(server: Shop) -> None:
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


def test_what_is_typed_comes_back_escaped_and_the_card_does_not(server: Shop) -> None:
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


def test_policy_lets_nothing_foreign_in(server: Shop) -> None:
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


def test_answer_without_its_token_or_of_another_kind_decides_nothing(server: Shop) -> None:
    subscription = subscribe(server)
    step = server.url + post_card(subscription["redirect_url"], CHALLENGE_CARD).headers["location"]
    for form in ({"answer": "refuse"}, form_of(web.get(step).text), {**form_of(web.get(step).text), "answer": "?"}):
        assert web.post(step, data=form).headers["location"] == urlsplit(step).path
    assert read(server, subscription)["state"] == "redirecting"


@pytest.mark.parametrize("number", [GOOD_CARD, "4111110000000088", CHALLENGE_CARD])
def test_many_clients_at_once_charge_once(server: Shop, number: str) -> None:
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
def test_whatever_is_posted_is_answered_and_never_charged(
    mangled: tuple[dict[str, Any], dict[str, str]],
    fields: list[tuple[str, str]],
    raw: bytes | None,
    content_type: str,
    with_token: bool,
) -> None:
    subscription, form = mangled
    typed = dict(fields)
    if with_token:  # then the card must not be a whole one
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


def test_card_number_and_code_are_kept_nowhere(
    new_database_url: Callable[[], str], master_key: MasterKey, tmp_path: Path
) -> None:
    """Not in the database's files, not in the log: looked for byte by byte, after every kind of end."""
    url = f"sqlite:///{tmp_path}/kept.db"
    code = "98761234"  # refused as a code; as one it would be three digits, which any file holds
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


def test_page_tells_what_renews_when(master_key: MasterKey, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/clock.db"
    with ServerProcess(url, tmp_path, "--sandbox", "--time-zone", "Europe/Minsk", environment=ENVIRONMENT) as process:
        credentials = add_shop(url, master_key)
        shop = Shop(process.url, credentials.shop_id, credentials.secret_key, process)
        with shop.client() as client:
            client.post("/sandbox/clock/freeze", json={})
            client.post("/sandbox/clock/set", json={"to": "2030-01-31T12:00:00Z"})
        hourly = {"amount": 5, "interval": 3, "interval_unit": "hour"}
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
    ("zone", "now", "unit", "renewals", "shown"),
    [
        ("Europe/Minsk", "2027-03-01T00:30+03:00", "month", ["2027-03-31T21:30", "2027-04-30T21:30"], "April 1, 2027"),
        ("America/New_York", "2028-02-29T20:30-05:00", "month", ["2028-03-30T00:30", "2028-04-30T00:30"], "March 29, 2028"),
        ("Europe/Minsk", "2027-03-01T00:30+03:00", "year", ["2028-02-29T21:30", "2029-02-28T21:30"], "March 1, 2028"),
    ],
)
def test_page_and_api_agree_on_the_date_in_the_servers_time_zone(
    zone: str, now: str, unit: str, renewals: list[str], shown: str, master_key: MasterKey, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/clock.db"
    with ServerProcess(url, tmp_path, "--sandbox", "--time-zone", zone, environment=ENVIRONMENT) as process:
        credentials = add_shop(url, master_key)
        shop = Shop(process.url, credentials.shop_id, credentials.secret_key, process)
        with shop.client() as client:
            client.post("/sandbox/clock/freeze", json={})
            assert client.post("/sandbox/clock/set", json={"to": now}).status_code == 200
            subscription = subscribe(shop, plan={"plan": {"amount": 999, "interval": 1, "interval_unit": unit}})
            assert _rows(subscription)["Next payment"] == shown
            assert post_card(subscription["redirect_url"]).status_code == 303
            paid = read(shop, subscription)
            assert paid["renew_at"] == paid["active_to"] == f"{renewals[0]}:00.000Z"
            assert _rows(subscription)["Next payment"] == shown  # the result page
            assert client.post("/sandbox/clock/set", json={"to": paid["renew_at"]}).status_code == 200
            renewed = read(shop, subscription)
            assert (renewed["paid_billing_cycles"], renewed["renew_at"]) == (2, f"{renewals[1]}:00.000Z")


def _rows(subscription: dict[str, Any]) -> dict[str, str]:
    page = web.get(subscription["redirect_url"]).text
    return {unescape(name): unescape(value) for name, value in re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page)}


# Languages


@pytest.mark.parametrize("language", LANGUAGES)
def test_page_speaks_the_buyers_language(server: Shop, language: str) -> None:
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


def test_language_without_words_is_english_and_says_so(server: Shop) -> None:
    page = web.get(subscribe(server, plan={"language": "kk"})["redirect_url"]).text
    assert '<html lang="en">' in page
    assert "Pay €9.99" in page


def test_page_and_result_show_an_amount_without_decimals_where_the_currency_has_none(server: Shop) -> None:
    price = {"amount": 50000, "interval": 1, "interval_unit": "month"}
    subscription = subscribe(server, plan={"title": "T", "currency": "IDR", "plan": price})
    assert subscription["plan"]["description"] == "Subscription. Main period: IDR 50000 each 1 month."
    assert subscription["plan"]["plan"]["amount"] == 50000
    page = unescape(web.get(subscription["redirect_url"]).text).replace("\u00a0", " ")
    assert "Pay IDR 50,000<" in page
    assert "IDR 50,000 every month" in page
    assert post_card(subscription["redirect_url"]).status_code == 303
    assert "IDR 50,000" in unescape(web.get(subscription["redirect_url"]).text).replace("\u00a0", " ")


def test_strangers_try_only_so_many_cards_and_pay_links(database_url: str, master_key: MasterKey, tmp_path: Path) -> None:
    shop = add_shop(database_url, master_key)
    options = ("--checkouts-per-minute", "3", "--no-worker")
    with (
        ServerProcess(database_url, tmp_path, *options, environment=ENVIRONMENT) as process,
        httpx.Client(base_url=process.url, auth=(str(shop.shop_id), shop.secret_key)) as http,
    ):
        price = {"amount": 1, "interval": 1, "interval_unit": "day"}
        plan = http.post("/plans", json={"title": "x", "currency": "EUR", "plan": price}).json()
        assert [http.head(f"/plans/{plan['id']}/pay").status_code for _ in range(5)] == [200] * 5
        assert http.get("/subscriptions").json() == []
        answers = [httpx.get(plan["pay_url"]) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [302, 302, 302, 429, 429]
        assert answers[-1].headers["ratelimit-policy"] == '"checkout";q=3;w=60'
        assert len(http.get("/subscriptions").json()) == 3
