"""The client without a server: errors, retry delays and public names."""

from __future__ import annotations

import pickle
import re

import httpx
import pytest

import ecomcharge
from ecomcharge.client.calls import wait_seconds
from ecomcharge.client.errors import ERROR_OF
from support.documents import text_of


def test_an_api_error_can_be_pickled() -> None:
    error = ecomcharge.ValidationError("Ip can't be blank", {"ip": ["can't be blank"]}, 422, "req_1")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), vars(again)) == (ecomcharge.ValidationError, vars(error))


def test_a_wait_is_at_most_half_a_minute() -> None:
    assert wait_seconds(httpx.Response(503, headers={"retry-after": "9" * 400}), 0) == 30
    assert 15 <= wait_seconds(httpx.ReadTimeout("late"), 5000) <= 30


def test_waits_double_and_are_random() -> None:
    for retry in range(5):
        waits = {wait_seconds(httpx.ReadTimeout("late"), retry) for _ in range(20)}
        assert 0.125 * 2**retry <= min(waits) < max(waits) <= 0.25 * 2**retry


def test_the_package_exports_exactly_its_public_names() -> None:
    assert all(getattr(ecomcharge, name) for name in ecomcharge.__all__)
    assert set(ecomcharge.__all__) <= set(dir(ecomcharge))
    with pytest.raises(AttributeError, match="no attribute 'Server'"):
        _ = ecomcharge.Server  # type: ignore[attr-defined]


def test_both_clients_have_the_same_calls_and_each_is_documented() -> None:
    calls = {name for name in dir(ecomcharge.Client) if not name.startswith("_")} - {"close"}
    assert calls == {name for name in dir(ecomcharge.AsyncClient) if not name.startswith("_")} - {"aclose"}
    documented = set(re.findall(r"`(\w+)\(", text_of("docs/client.md").partition("## Changes")[0]))
    assert documented == calls


def test_every_error_is_documented_with_its_status() -> None:
    rows = re.findall(r"^\| (`.*?) \| (.*?) \|$", text_of("docs/client.md").partition("## Errors")[2], re.MULTILINE)
    documented = {name: text for names, text in rows for name in re.findall(r"`(\w+)`", names)}
    for status, kind in ERROR_OF.items():
        assert str(status) in documented[kind.__name__]


def test_the_text_of_a_card_hides_its_number_and_its_code() -> None:
    card = ecomcharge.NewCard(number="4200000000000000", verification_value="1234", exp_month=1, exp_year=2099)
    for text in (repr(card), str(card), f"{[card]}", str(card.__rich_repr__())):
        assert "420000" not in text
        assert "1234" not in text
        assert "2099" in text
