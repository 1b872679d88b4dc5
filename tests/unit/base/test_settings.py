"""The address of the server in links."""

from __future__ import annotations

import pytest

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
