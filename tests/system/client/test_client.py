"""The client, blocking and asynchronous, against a running server."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler

import httpx
import pytest

import ecomcharge
from ecomcharge import ApiError, Customer
from support.client import JANE, SECRET, Connect, Reply, as_shop, stand_in
from support.shops import Shop


def test_a_created_customer_can_be_read_again(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client:
        created = client.create_customer(
            first_name="John",
            last_name="Doe",
            address="1st Street",
            country="us",
            city="Denver",
            zip="92006",
            state="CO",
            phone="+1-555",
            external_id="user-42",
            **JANE,
        )
        assert client.get_customer(created.id) == created
    assert created == Customer(
        id=created.id,
        first_name="John",
        last_name="Doe",
        address="1st Street",
        country="US",
        city="Denver",
        zip="92006",
        state="CO",
        phone="+1-555",
        email="jane@shop.test",
        ip="127.0.0.1",
        external_id="user-42",
    )


def test_the_list_returns_all_customers_a_page_or_a_filtered_selection(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client:
        a, b, c = (client.create_customer(email=f"{name}@shop.test", ip="::1", external_id=name) for name in "abc")
        assert client.list_customers() == [a, b, c]
        assert client.list_customers(limit=2) == [a, b]
        assert client.list_customers(limit=2, after=a.id) == [b, c]
        assert client.list_customers(limit=1, before=c.id) == [b]
        assert client.list_customers(email="b@shop.test") == [b]
        assert client.list_customers(external_id="c") == [c]


@pytest.mark.parametrize("page_size", [1, 2, 3, 200])
def test_the_iterator_returns_every_customer_once_for_any_page_size(server: Shop, connect: Connect, page_size: int) -> None:
    with as_shop(connect, server) as client:
        created = [client.create_customer(**JANE, external_id=str(number)) for number in range(4)]
        assert list(client.customers(page_size=page_size)) == created
        assert list(client.customers(external_id="2", page_size=page_size)) == [created[2]]
        assert list(client.customers(email="nobody@shop.test", page_size=page_size)) == []


def test_two_creates_make_one_customer_only_with_a_shared_key(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client:
        assert client.create_customer(**JANE).id != client.create_customer(**JANE).id
        first, again = (client.create_customer(**JANE, idempotency_key="order 7") for _ in range(2))
        assert first == again
        assert len(client.list_customers()) == 3


def test_a_validation_error_has_the_errors_of_all_fields(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client, pytest.raises(ecomcharge.ValidationError) as caught:
        client.create_customer(email="jane@shop.test", ip="", country="US")
    error = caught.value
    assert error.errors == {"state": ["can't be blank"], "ip": ["address is invalid", "can't be blank"]}
    assert error.message == "State can't be blank. Ip address is invalid. Ip can't be blank"
    assert error.status == 422
    assert error.request_id
    assert str(error) == f"422 {error.message} (request {error.request_id})"


def test_problem_details_have_the_code_and_the_rule_of_each_fault(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server, problem_details=True) as client:
        with pytest.raises(ecomcharge.ValidationError) as caught:
            client.create_customer(email="jane@shop.test", ip="", country="US")
        client.create_customer(**JANE)
    state, ip = caught.value.faults
    assert [(fault.pointer, fault.code, fault.detail) for fault in (state, ip)] == [
        ("/state", "required", "can't be blank"),
        ("/ip", "required", "can't be blank"),
    ]
    assert state.rule
    assert ip.example
    assert caught.value.field_errors == {"state": ["can't be blank"], "ip": ["can't be blank"]}
    assert caught.value.message == "State can't be blank. Ip address is invalid. Ip can't be blank"


def test_a_key_reused_for_another_body_is_a_validation_error_without_fields(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client:
        client.create_customer(**JANE, idempotency_key="k")
        with pytest.raises(ecomcharge.ValidationError, match="already used") as caught:
            client.create_customer(**JANE, city="Denver", idempotency_key="k")
    assert caught.value.errors == {}


@pytest.mark.parametrize("customer_id", ["cst_0000000000000000", "..", ".", "a/b", "é?#", "%2e%2e"])
def test_an_unused_id_is_not_found(server: Shop, connect: Connect, customer_id: str) -> None:
    with as_shop(connect, server) as client, pytest.raises(ecomcharge.NotFoundError):
        client.get_customer(customer_id)


def test_the_error_for_a_wrong_key_does_not_contain_the_key(server: Shop, connect: Connect) -> None:
    with connect(server.url, server.shop_id, SECRET) as client, pytest.raises(ecomcharge.AuthenticationError) as caught:
        client.list_customers()
    assert SECRET not in repr(caught.value) + str(caught.value) + repr(client)


def test_any_other_4xx_raises_an_api_error_without_a_retry(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client, pytest.raises(ApiError, match="Limit must be") as caught:
        client.list_customers(limit=0)
    assert (type(caught.value), caught.value.status) == (ApiError, 400)


def test_a_create_whose_response_is_lost_is_executed_once(server: Shop, connect: Connect) -> None:
    def pass_on(request: BaseHTTPRequestHandler, body: bytes) -> Reply:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in ("host", "connection")}
        answer = httpx.post(server.url + request.path, headers=headers, content=body)
        return Reply(answer.status_code, answer.content)

    def pass_on_and_hang_up(request: BaseHTTPRequestHandler, body: bytes) -> Reply:
        assert pass_on(request, body).status == 201
        return Reply(cut=True)

    with stand_in(pass_on_and_hang_up, pass_on) as seen, as_shop(connect, server, seen.url) as client:
        created = client.create_customer(**JANE)
    with as_shop(connect, server) as client:
        assert client.list_customers() == [created]
    assert len(seen.keys) == 2
