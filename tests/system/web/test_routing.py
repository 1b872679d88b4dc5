"""Content types, paths, methods and query strings."""

from __future__ import annotations

import pytest

from support.caller import GOOD, JSON, Caller, assert_is_our_error
from support.wire import request


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        "APPLICATION/JSON",
        "text/json",
        "application/vnd.ecomcharge+json",
        None,
    ],
)
def test_json_content_types_and_a_missing_one_are_accepted(caller: Caller, content_type: str | None) -> None:
    headers = [] if content_type is None else [("Content-Type", content_type)]

    assert caller.ask(request("POST", "/customers", caller.login, *headers, body=GOOD)).status == 201


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain",
        "application/xml",
        "json",
        "+json",
        "",
    ],
)
def test_other_content_types_get_415(caller: Caller, content_type: str) -> None:
    answer = caller.ask(request("POST", "/customers", caller.login, ("Content-Type", content_type), body=GOOD))

    assert_is_our_error(answer, 415)
    assert answer.json() == {"message": "Content-Type must be application/json"}
    assert caller.customers() == 0


def test_the_content_type_of_a_get_is_ignored(caller: Caller) -> None:
    assert caller.get("/customers", ("Content-Type", "application/json")).status == 200
    assert caller.get("/customers", ("Content-Type", "text/plain")).status == 200


@pytest.mark.parametrize(
    "target",
    [
        *("/", "/nope", "/customer", "/Customers", "/customers/a/b", "/customers/../healthz", "/customers;x"),
        *("/caf\xc3\xa9", "/caf%C3%A9", "/%00", "/customers%00", "/%2e%2e/customers"),
    ],
)
def test_an_unknown_route_gets_404(caller: Caller, target: str) -> None:
    answer = caller.get(target)

    assert_is_our_error(answer, 404)
    assert answer.json() == {"message": "Route not found"}


def test_an_unknown_route_gets_404_without_credentials(caller: Caller) -> None:
    assert caller.ask(request("GET", "/nope")).status == 404


@pytest.mark.parametrize(
    ("method", "target", "allow"),
    [
        ("PUT", "/customers", "GET, HEAD, POST"),
        ("DELETE", "/customers", "GET, HEAD, POST"),
        ("PATCH", "/customers/", "GET, HEAD, POST"),
        ("OPTIONS", "/customers", "GET, HEAD, POST"),
        ("TRACE", "/customers", "GET, HEAD, POST"),
        ("BREW", "/customers", "GET, HEAD, POST"),
        ("TRACE", "/customers/cst_0000000000000000", "DELETE, GET, HEAD, PATCH, POST, PUT"),
        ("DELETE", "/plans/pln_0000000000000000", "GET, HEAD"),
        ("POST", "/healthz", "GET, HEAD"),
    ],
)
def test_a_wrong_method_gets_405_with_the_allowed_methods(caller: Caller, method: str, target: str, allow: str) -> None:
    answer = caller.ask(request(method, target, caller.login, JSON, body=GOOD))

    assert_is_our_error(answer, 405)
    assert answer.header("allow") == allow
    assert caller.customers() == 0


@pytest.mark.parametrize("target", ["/customers", "/customers/{id}", "/customers/cst_0000000000000000", "/healthz", "/readyz"])
def test_head_returns_the_headers_of_get_without_a_body(caller: Caller, target: str) -> None:
    target = target.replace("{id}", caller.create(GOOD).json()["id"])
    get = caller.get(target)

    with caller.connect() as wire:
        wire.send(request("HEAD", target, caller.login) + request("GET", "/healthz"))
        head_ = wire.answer(to_head=True)
        assert wire.answer().json() == {"status": "ok"}  # so no body was sent before it

    assert head_.status == get.status
    assert head_.header("content-length") == str(len(get.body))
    assert head_.header("content-type") == get.header("content-type")


@pytest.mark.parametrize(
    "spelling", ["/customers/", "//customers", "///customers//", "/%63ustomers", "/customers?", "http://localhost/customers"]
)
def test_equivalent_spellings_of_a_path_match_its_route(caller: Caller, spelling: str) -> None:
    assert caller.get(spelling).body == b"[]"


def test_a_percent_encoded_id_finds_its_customer(caller: Caller) -> None:
    customer_id = caller.create(GOOD).json()["id"]

    assert caller.get(f"/customers/%63{customer_id[1:]}").json()["id"] == customer_id
    assert caller.get(f"/customers/{customer_id}/").json()["id"] == customer_id


@pytest.mark.parametrize(
    "customer_id",
    [
        "1",
        "cst_",
        "cst_000000000000000G",
        "cst_00000000000000000",
        "%00",
        "%ff",
        "%zz",
        "%",
        "%0d%0aX:y",
        "%2e%2e",
        "x" * 6000,
        "{}",
        "'--",
    ],
)
def test_a_malformed_customer_id_gets_the_response_of_an_unknown_one(caller: Caller, customer_id: str) -> None:
    answer = caller.get(f"/customers/{customer_id}")

    assert_is_our_error(answer, 404)
    assert answer.json() == {"message": "Record not found"}


@pytest.mark.parametrize(
    "query",
    ["x" * 6000, "email=%00", "email=%ff", "email=%ed%a0%80", "email=%", "email=%zz", "&&&", "=", "email[]=a", "email=\xc3\xa9"],
)
def test_unusual_query_strings_get_an_empty_list(caller: Caller, query: str) -> None:
    assert caller.get(f"/customers?{query}").body == b"[]"


def test_very_many_query_parameters_get_400(caller: Caller) -> None:
    assert_is_our_error(caller.get("/customers?" + "a=1&" * 500), 400)
