"""The payment page in a real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from support.browser import fill, press_pay
from support.builders import a_card
from support.checkout import (
    CHALLENGE_CARD,
    CODE,
    DECLINED_CARD,
    GOOD_CARD,
    PLAN,
    TRIAL,
    payments_of,
    post_card,
    read,
    subscribe,
)
from support.shops import Shop

# The page does not depend on the engine; test_forms posts the same forms on both.
pytestmark = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)


@pytest.fixture
def complaints() -> list[str]:
    return []


@pytest.fixture
def open_page(browser: Browser, server: Shop, complaints: list[str]) -> Iterator[Callable[..., Page]]:
    """Creates pages that record browser errors and every request to another host."""
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


def test_buyer_pays_and_returns_to_the_merchant(
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


def test_declined_card_leads_to_the_failure_page(server: Shop, open_page: Callable[..., Page], complaints: list[str]) -> None:
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
    page.goto(subscription["redirect_url"])  # a buyer who opens the page again is redirected to the step
    page.get_by_role("button", name=button).click()
    expect(page.locator(".success h1, .failed h1")).to_be_visible()
    assert read(server, subscription)["state"] == state
    assert len(payments_of(server, subscription)) == 1
    assert complaints == []


def test_challenge_of_a_card_from_the_merchant_leads_back_to_the_merchant(
    server: Shop, open_page: Callable[..., Page], complaints: list[str]
) -> None:
    card = a_card(CHALLENGE_CARD, verification_value=CODE, exp_month="12", exp_year="2039")
    customer = {"email": "jane@shop.test"}
    subscription = subscribe(server, card=card, customer=customer, return_url="http://shop.test/thanks")
    page = open_page()
    page.goto(subscription["redirect_url"])
    page.get_by_role("button", name="Confirm").click()
    page.wait_for_url(f"http://shop.test/thanks?id={subscription['id']}")
    assert read(server, subscription)["state"] == "active"
    assert complaints == []


def test_page_works_under_every_host_name_of_the_server(server: Shop, open_page: Callable[..., Page]) -> None:
    """The policy allows form targets and redirects in the page's origin only, so no form may leave the origin."""
    subscription = subscribe(server)
    page = open_page()
    page.goto(subscription["redirect_url"].replace("127.0.0.1", "localhost"))
    fill(page, CHALLENGE_CARD)
    press_pay(page)
    page.get_by_role("button", name="Confirm").click()
    expect(page.locator("h1")).to_have_text("Thank you, all done")
    assert urlsplit(page.url).hostname == "localhost"


def test_result_page_does_not_redirect_an_active_buyer(server: Shop, open_page: Callable[..., Page]) -> None:
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


def test_two_clicks_and_a_reload_charge_once(server: Shop, open_page: Callable[..., Page], complaints: list[str]) -> None:
    subscription = subscribe(server)
    page = open_page()
    page.goto(subscription["redirect_url"])
    fill(page, "4111110000000088")  # a slow gateway
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


def test_without_javascript_two_clicks_charge_once(server: Shop, open_page: Callable[..., Page]) -> None:
    subscription = subscribe(server)
    page = open_page(java_script_enabled=False)
    page.goto(subscription["redirect_url"])
    fill(page, "4111110000000088")
    page.locator("form.payment button").dblclick(no_wait_after=True)
    expect(page.locator(".success, .waiting")).to_be_visible()
    expect(page.locator(".success")).to_be_visible(timeout=20_000)  # the waiting page reloads itself
    assert len(payments_of(server, subscription)) == 1


def test_errors_are_displayed_beside_their_fields(server: Shop, open_page: Callable[..., Page], complaints: list[str]) -> None:
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


def test_without_javascript_the_returned_page_contains_the_errors(server: Shop, open_page: Callable[..., Page]) -> None:
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


def test_page_fits_a_narrow_screen_and_works_by_keyboard(server: Shop, open_page: Callable[..., Page]) -> None:
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


def test_buyer_of_a_pay_link_subscribes_once(server: Shop, open_page: Callable[..., Page], complaints: list[str]) -> None:
    with server.client() as client:
        plan = client.post("/plans", json=PLAN).json()
        page = open_page()
        page.goto(f"{plan['pay_url']}?return_url=http%3A%2F%2Fshop.test%2Fthanks")
        address = page.url
        assert client.get("/subscriptions").json() == []
        fill(page, "4200000000000001")
        page.locator("form.payment").evaluate("form => form.submit()")  # past the checks of the browser
        expect(page.locator("#number-error")).to_be_visible()
        assert client.get("/subscriptions").json() == []
        fill(page, "4111110000000088")  # a slow gateway
        page.locator("form.payment button").dblclick()
        expect(page.locator("h1")).to_have_text("Thank you, all done")
        page.reload()
        page.goto(address)
        expect(page.locator("h1")).to_have_text("Thank you, all done")
        [subscription] = client.get("/subscriptions").json()
    expect(page.get_by_role("link", name="Back to the shop")).to_have_attribute(
        "href", f"http://shop.test/thanks?id={subscription['id']}"
    )
    assert (subscription["state"], len(payments_of(server, subscription))) == ("active", 1)
    assert complaints == []


@pytest.mark.parametrize("is_hosted", [True, False], ids=["hosted page", "card from the merchant"])
def test_buyer_returns_to_an_app(server: Shop, open_page: Callable[..., Page], complaints: list[str], is_hosted: bool) -> None:
    card = a_card(CHALLENGE_CARD, verification_value=CODE, exp_month="12", exp_year="2039")
    given = {} if is_hosted else {"card": card, "customer": {"email": "jane@shop.test"}}
    subscription = subscribe(server, return_url="myapp://paid?order=7", settings={"auto_return": 600}, **given)
    page = open_page()
    page.goto(subscription["redirect_url"])
    if is_hosted:
        fill(page, CHALLENGE_CARD)
        press_pay(page)
    page.get_by_role("button", name="Confirm").click()
    expect(page.locator("h1")).to_have_text("Thank you, all done")
    assert complaints == []
    opened = f"myapp://paid?order=7&id={subscription['id']}"
    with page.expect_request(opened):  # the browser gives it to the operating system
        page.get_by_role("link", name="Back to the shop").click(no_wait_after=True)
    assert complaints == [opened]
