"""The address of the server in links, and the origins that may frame its pages."""

from __future__ import annotations

import pytest

from ecomcharge.base.errors import ConfigurationError
from ecomcharge.base.settings import Settings


@pytest.mark.parametrize(
    ("host", "base_url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("::1", "http://[::1]:8080"),
        ("pay.example", "http://pay.example:8080"),
        ("0.0.0.0", "http://127.0.0.1:8080"),
        ("0", "http://127.0.0.1:8080"),
        ("::", "http://[::1]:8080"),
        ("0:0:0:0:0:0:0:0", "http://[::1]:8080"),
    ],
)
def test_links_begin_with_an_address_that_a_browser_can_open(host: str, base_url: str) -> None:
    assert Settings(host=host).base_url() == base_url
    assert Settings(host=host, public_url="https://pay.example/").base_url() == "https://pay.example"


def test_frame_ancestors_are_origins() -> None:
    given = " https://shop.example , https://www.shop-2.example:8443,http://localhost:3000,"
    expected = ["https://shop.example", "https://www.shop-2.example:8443", "http://localhost:3000"]
    assert Settings(frame_ancestors=given).frame_ancestor_origins() == expected
    assert Settings().frame_ancestor_origins() == []


@pytest.mark.parametrize(
    "origin",
    [
        *("*", "'self'", "'none'", "https:", "https://*", "https://*.shop.example", "http://shop.example", "shop.example"),
        *("https://shop.example/", "https://shop.example/page", "https://shop.example?", "https://me@shop.example"),
        *("https://shop.example; script-src *", "https://shop.example https://other.example", "https://shop.example\nx: y"),
        *("https://-", "https://shop..example", "https://shop.example:", "https://bücher.example", "data:"),
    ],
)
def test_everything_else_is_refused_as_a_frame_ancestor(origin: str) -> None:
    with pytest.raises(ConfigurationError, match="--frame-ancestors"):
        Settings(frame_ancestors=origin).check()
