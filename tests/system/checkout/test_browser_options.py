"""Pages of servers with options of their own, in a real browser."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from playwright.sync_api import Browser, expect

from ecomcharge.shops.keys import MasterKey
from support.browser import fill, press_pay
from support.checkout import CHALLENGE_CARD, GOOD_CARD, card_fields, post_card, read, subscribe, web
from support.shops import Shop, Start, add_shop


class Merchant:
    """A merchant's site whose only page contains an address in a frame."""

    def __init__(self) -> None:
        self.framed = ""
        merchant = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(f'<iframe src="{merchant.framed}" width="900" height="900"></iframe>'.encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> Merchant:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def test_page_is_shown_in_the_frame_of_an_allowed_origin_only(browser: Browser, start: Start, master_key: MasterKey) -> None:
    with Merchant() as merchant, browser.new_context() as context:
        process = start("--frame-ancestors", f"https://other.example,http://localhost:{merchant.port}")
        credentials = add_shop(process.database, master_key)
        shop = Shop(process.url, credentials.shop_id, credentials.secret_key, process)
        subscription = subscribe(shop)
        merchant.framed = subscription["redirect_url"]
        page = context.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        with page.expect_console_message(lambda message: "frame-ancestors" in message.text):
            page.goto(f"http://127.0.0.1:{merchant.port}/")  # another origin than the allowed one
        said.clear()
        page.goto(f"http://localhost:{merchant.port}/")
        inner = page.frame_locator("iframe")
        expect(inner.locator("h1")).to_have_text("Basic plan")
        for name, text in card_fields(CHALLENGE_CARD).items():
            inner.locator(f"#{name}").fill(text)
        inner.locator("form.payment button").click()
        inner.get_by_role("button", name="Confirm").click()
        expect(inner.locator("h1")).to_have_text("Thank you, all done")
        assert said == []
        assert read(shop, subscription)["state"] == "active"
        assert "x-frame-options" not in web.get(subscription["redirect_url"]).headers


def test_without_the_option_no_origin_may_frame_the_page(browser: Browser, start: Start, master_key: MasterKey) -> None:
    with Merchant() as merchant, browser.new_context() as context:
        process = start()
        credentials = add_shop(process.database, master_key)
        merchant.framed = subscribe(Shop(process.url, credentials.shop_id, credentials.secret_key, process))["redirect_url"]
        page = context.new_page()
        with page.expect_console_message(lambda message: "frame-ancestors" in message.text):
            page.goto(f"http://localhost:{merchant.port}/")
        assert web.get(merchant.framed).headers["x-frame-options"] == "DENY"


def test_buyer_over_the_limit_keeps_the_form(browser: Browser, start: Start, master_key: MasterKey) -> None:
    process = start("--checkouts-per-minute", "1")
    credentials = add_shop(process.database, master_key)
    shop = Shop(process.url, credentials.shop_id, credentials.secret_key, process)
    post_card(subscribe(shop)["redirect_url"])
    subscription = subscribe(shop, language="pl")
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(subscription["redirect_url"])
        fill(page, GOOD_CARD, holder="KIM PAY")
        press_pay(page)
        expect(page.locator("#summary")).to_contain_text("Odczekaj minutę i spróbuj ponownie.")
        for name, text in {"email": "jane@shop.test", "exp_month": "12", "exp_year": "39", "holder": "KIM PAY"}.items():
            expect(page.locator(f"#{name}")).to_have_value(text)
        expect(page.locator("#number")).to_have_value("")
        process.stop()
        process.start()  # forgets the count, as a minute does
        fill(page, GOOD_CARD)
        press_pay(page)
        expect(page.locator(".success h1")).to_be_visible()
    assert read(shop, subscription)["state"] == "active"
