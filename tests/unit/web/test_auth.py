"""Credentials of HTTP Basic, and the address that a failed login counts against."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecomcharge.web.auth import credentials_of
from ecomcharge.web.rate_limits import ClientAddresses
from support.authentication import Caller


@pytest.mark.parametrize("user", ["1", "007", "9007199254740991"])
def test_basic_credentials_are_a_shop_id_and_a_key(user: str) -> None:
    header = "Basic " + base64.b64encode(f"{user}:a:b".encode()).decode()
    assert credentials_of(header) == (int(user), "a:b")
    assert credentials_of(header.replace("Basic ", "bAsIc   ")) == (int(user), "a:b")


@given(st.text(max_size=40) | st.binary(max_size=30).map(lambda raw: "Basic " + base64.b64encode(raw).decode()))
def test_other_authorization_headers_are_not_logins(header: str) -> None:
    credentials = credentials_of(header)
    if credentials is not None:
        shop_id, secret_key = credentials
        assert base64.b64decode(header.partition(" ")[2]).decode().endswith(f"{shop_id}:{secret_key}")


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.0.0.1", None, "10.0.0.1"),
        ("::ffff:10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "9.9.9.9", "10.0.0.1"),
        ("127.0.0.1", "9.9.9.9", "9.9.9.9"),
        ("::ffff:127.0.0.1", "8.8.8.8, 9.9.9.9:567", "9.9.9.9"),
        ("127.0.0.1", "[2001:db8::1]:567", "2001:db8::/64"),
        ("127.0.0.1", "8.8.8.8, 127.0.0.2", "8.8.8.8"),
        ("2001:db8::1", None, "2001:db8::/64"),
        ("127.0.0.1", "nonsense", "unknown"),
    ],
)
def test_a_failed_login_counts_against_the_nearest_address_that_is_not_a_proxy(
    peer: str, forwarded: str | None, client: str
) -> None:
    headers = {} if forwarded is None else {"x-forwarded-for": forwarded}
    assert ClientAddresses("127.0.0.0/8").of(Caller(headers, peer)) == client
