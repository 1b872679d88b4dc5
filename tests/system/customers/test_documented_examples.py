"""Requests and responses agree exactly with the examples of the documentation.

The only addition is ``external_id``, which is in the platform's newer documentation and follows the
documented keys.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

EXAMPLES = json.loads(Path(__file__).parents[2].joinpath("data/documented_examples.json").read_text())


def compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def as_answered(documented: dict[str, Any], customer_id: str) -> dict[str, Any]:
    return {**documented, "id": customer_id}


def test_the_response_for_a_created_customer_is_as_documented(http: httpx.Client) -> None:
    example = EXAMPLES["create"]
    response = http.post("/customers", json=example["request"])
    assert response.status_code == example["status"]
    assert response.text == compact(as_answered(example["response"], response.json()["id"]))
    assert response.headers["location"] == f"/customers/{response.json()['id']}"


def test_an_id_has_the_documented_format(http: httpx.Client) -> None:
    created = http.post("/customers", json=EXAMPLES["create"]["request"]).json()
    prefix, digits = created["id"][:4], created["id"][4:]
    assert prefix == EXAMPLES["create"]["response"]["id"][:4]
    assert len(digits) == 16
    assert digits == f"{int(digits, 16):016x}"


def test_the_response_for_invalid_parameters_is_as_documented(http: httpx.Client) -> None:
    example = EXAMPLES["create_with_invalid_parameters"]
    response = http.post("/customers", json=example["request"])
    assert response.status_code == example["status"]
    assert response.text == compact(example["response"])


def test_a_customer_is_read_as_documented(http: httpx.Client) -> None:
    created = http.post("/customers", json=EXAMPLES["create"]["request"])
    response = http.get(created.headers["location"])
    assert response.status_code == 200
    assert response.text == created.text


@pytest.mark.parametrize("header", [{}, {"Content-Type": "application/json"}], ids=["plain", "with a content type"])
def test_customers_are_listed_as_documented(http: httpx.Client, header: dict[str, str]) -> None:
    requests = EXAMPLES["list"]["requests"]
    ids = [http.post("/customers", json=request).json()["id"] for request in requests]
    response = http.get("/customers", headers=header)
    assert response.status_code == 200
    expected = [as_answered({"id": "", **request}, id_) for request, id_ in zip(requests, ids, strict=True)]
    assert response.text == compact(expected)


def test_a_shop_without_customers_lists_an_empty_array(http: httpx.Client) -> None:
    assert http.get("/customers").text == "[]"
