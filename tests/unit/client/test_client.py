"""The client without a server: errors, retry delays and public names."""

from __future__ import annotations

import pickle

import httpx
import pytest

import ecomcharge
from ecomcharge.client.calls import wait_seconds


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
