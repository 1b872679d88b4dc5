"""Which links to apps are accepted."""

from __future__ import annotations

import re

import pytest

from ecomcharge.base.validation import ValidationErrors
from ecomcharge.subscriptions import app_links
from ecomcharge.subscriptions.app_links import is_app_link
from ecomcharge.subscriptions.requests import RETURN_URL, RETURN_URL_OF_LINK
from support.documents import text_of


@pytest.mark.parametrize(
    "link", ["myapp://paid", "MyApp://Paid/x?a=1#b", "com.example.app://paid", "a+b-c.1://x", "datastore://x"]
)
def test_a_link_with_the_scheme_of_an_app_is_accepted(link: str) -> None:
    assert is_app_link(link)
    assert RETURN_URL.read(f" {link} ", ValidationErrors()) == link


@pytest.mark.parametrize(
    "link",
    [
        *(
            "javascript://%0aalert(1)",
            "JAVASCRIPT://x/%0aalert(1)",
            "javascript:alert(1)",
            "data://text/html,x",
            "data:text/html,x",
        ),
        *("vbscript://x", "blob://x", "file://host/etc/passwd", "file:///etc/passwd", "filesystem://x", "about://blank"),
        *(
            "view-source://x",
            "intent://scan/#Intent;end",
            "ms-msdt://x",
            "Search-MS://x",
            "chrome://settings",
            "ws://x",
            "wss://x",
        ),
        *("myapp:paid", "myapp:/paid", "myapp:///paid", "myapp://?a", "://x", "1app://x", "my app://x", "myapp://a b"),
        *("myapp://[", "myapp://x:port", "\tjavascript://x", "java\tscript://x", "javascript\n://x", "http://shop.example"),
    ],
)
def test_every_other_link_is_refused(link: str) -> None:
    assert not is_app_link(link)


@pytest.mark.parametrize("link", ["myapp://paid", "javascript://%0aalert(1)"])
def test_a_pay_link_accepts_web_addresses_only(link: str) -> None:
    errors = ValidationErrors()
    RETURN_URL_OF_LINK.read(link, errors)
    assert errors.has("return_url")


def test_every_refused_scheme_is_documented() -> None:
    [line] = [line for line in text_of("docs/api.md").splitlines() if line.startswith("- Schemes that")]
    documented = set(re.findall(r"`([a-z-]+)`", line)) - {"https"}
    assert documented == (set(app_links._REFUSED) - {"http", "https"}) | set(app_links._REFUSED_BEGINNINGS)
