"""The page at /docs works in a real browser without any other server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from ecomcharge.web.docs_page import ASSETS, Asset

if TYPE_CHECKING:
    from support.shops import Shop

# The page and its files do not depend on the engine.
pytestmark = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1280, "height": 1400})
    yield page
    page.close()


def test_customer_is_created_from_the_page(server: Shop, page: Page, tmp_path: Path) -> None:
    complaints: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: complaints.extend(_complaint(message)))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))

    page.goto(f"{server.url}/docs")
    create = page.locator("#operations-customers-createCustomer")
    expect(create).to_be_visible()

    page.get_by_role("button", name="Authorize").first.click()
    dialog = page.locator(".auth-container")
    dialog.get_by_label("Username").fill(str(server.shop_id))
    dialog.get_by_label("Password").fill(server.secret_key)
    dialog.get_by_role("button", name="Apply credentials").click()
    page.get_by_role("button", name="Close").last.click()

    create.get_by_role("button", name="POST /customers").first.click()
    create.get_by_role("button", name="Execute").click()
    answer = create.locator(".live-responses-table .response")
    expect(answer.locator(".response-col_status")).to_contain_text("201")
    expect(answer).to_contain_text(re.compile(r"cst_[0-9a-f]{16}"))
    page.screenshot(path=tmp_path / "docs.png", full_page=True)

    assert complaints == []
    assert [url for url in asked if not url.startswith((f"{server.url}/", "data:"))] == []
    with server.client() as client:
        (customer,) = client.get("/customers").json()
    assert customer["email"] == "customer@example.com"


def test_page_sends_requests_to_the_host_name_in_the_browser(server: Shop, page: Page) -> None:
    """The API description contains the public address of the server, and the page's policy allows no other host."""
    url = server.url.replace("127.0.0.1", "localhost")
    page.goto(f"{url}/docs")
    healthy = page.locator("#operations-operations-healthy")
    healthy.get_by_role("button", name="GET /healthz").first.click()
    with page.expect_response(f"{url}/healthz") as answer:
        healthy.get_by_role("button", name="Execute").click()
    assert answer.value.json() == {"status": "ok"}


def test_page_and_its_policy_allow_no_other_origin(server: Shop) -> None:
    page = httpx.get(f"{server.url}/docs")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["x-content-type-options"] == "nosniff"
    policy = dict(part.partition(" ")[::2] for part in page.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["connect-src"] == "'self'"
    linked = set(re.findall(r'(?:src|href)="([^"]+)"', page.text))
    assert linked == {"/openapi.json", *(f"/docs/{asset.name}" for asset in ASSETS)}
    assert not re.search(r"<script(?![^>]* src=)", page.text)


@pytest.mark.parametrize("asset", ASSETS, ids=lambda asset: asset.name)
def test_file_is_revalidated_by_its_etag(server: Shop, asset: Asset) -> None:
    url = f"{server.url}/docs/{asset.name}"
    first = httpx.get(url)
    assert first.status_code == 200
    assert first.headers["content-type"].partition(";")[0] == asset.media_type
    assert first.headers["x-content-type-options"] == "nosniff"
    etag = first.headers["etag"]
    for kept in (etag, f'"other", W/{etag}', "*"):
        again = httpx.get(url, headers={"If-None-Match": kept})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert httpx.get(url, headers={"If-None-Match": '"other"'}).status_code == 200


def test_licence_of_swagger_ui_is_served(server: Shop) -> None:
    text = httpx.get(f"{server.url}/docs/LICENSE").text
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text


@pytest.mark.parametrize("path", ["index.html", "swagger-ui.js", "%2e%2e/openapi.py", "..%2f__init__.py", "docs.js/x", "%00"])
def test_other_files_of_the_page_are_not_found(server: Shop, path: str) -> None:
    answer = httpx.get(f"{server.url}/docs/{path}")
    assert (answer.status_code, answer.json()) == (404, {"message": "Route not found"})


def _complaint(message: ConsoleMessage) -> list[str]:
    return [message.text] if message.type in ("error", "warning") else []
