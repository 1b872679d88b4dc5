"""The requests that the client sends for the management of customers, and how it reads the answers."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

import ecomcharge
from ecomcharge import Customer
from support.client import JANE, JANE_ANSWERED, SECRET, Connect, Reply, stand_in

TAGGED = Reply(200, JANE_ANSWERED, {"etag": '"3"', "last-modified": "Tue, 01 Dec 2026 08:00:00 GMT"})
ID = "cst_7aee5afb954c7ef7"


def test_an_update_sends_only_the_given_fields_and_the_etag(connect: Connect) -> None:
    with stand_in(TAGGED) as seen, connect(seen.url, 1, SECRET) as client:
        customer = client.get_customer(ID)
        changed = client.update_customer(
            ID, city="Denver", phone=None, metadata={"a": "1", "b": None}, if_match=customer.etag, idempotency_key="k"
        )
        client.update_customer(ID)
    assert customer.etag == changed.etag == '"3"'
    assert customer.changed_at == datetime(2026, 12, 1, 8, tzinfo=UTC)
    assert seen.lines == [f"GET /customers/{ID}", f"PATCH /customers/{ID}", f"PATCH /customers/{ID}"]
    assert json.loads(seen.bodies[1]) == {"city": "Denver", "phone": None, "metadata": {"a": "1", "b": None}}
    assert (seen.headers[1]["if-match"], seen.headers[1]["idempotency-key"]) == ('"3"', "k")
    assert (seen.bodies[2], "if-match" in seen.headers[2]) == (b"{}", False)


def test_a_missing_etag_is_refused_instead_of_an_unconditional_update(connect: Connect) -> None:
    with stand_in(Reply(200, b"[" + JANE_ANSWERED + b"]")) as seen, connect(seen.url, 1, SECRET) as client:
        [customer] = client.list_customers()
        for change in (client.update_customer, client.replace_customer):
            with pytest.raises(ValueError, match="read it with get_customer"):
                change(ID, **JANE, if_match=customer.etag)
    assert len(seen.lines) == 1


def test_a_replacement_sends_the_whole_customer(connect: Connect) -> None:
    with stand_in(TAGGED) as seen, connect(seen.url, 1, SECRET) as client:
        client.replace_customer(ID, **JANE, city="Denver", external_id="7", metadata={"a": "1"}, if_match='"2"')
    assert seen.lines == [f"PUT /customers/{ID}"]
    assert json.loads(seen.bodies[0]) == {**JANE, "city": "Denver", "external_id": "7", "metadata": {"a": "1"}}
    assert seen.headers[0]["if-match"] == '"2"'


def test_get_or_create_returns_whether_the_customer_is_new(connect: Connect) -> None:
    with stand_in(Reply(201), TAGGED) as seen, connect(seen.url, 1, SECRET) as client:
        first, created = client.get_or_create_customer("a/é 7", **JANE)
        second, created_again = client.get_or_create_customer("..", **JANE)
        client.get_customer_by_external_id("a/é 7")
    assert (first, created, created_again) == (second, True, False)
    assert seen.lines == [
        "PUT /customers/external/a%2F%C3%A9%207",
        "PUT /customers/external/%2E%2E",
        "GET /customers/external/a%2F%C3%A9%207",
    ]
    assert json.loads(seen.bodies[0]) == JANE
    assert seen.headers[0]["idempotency-key"] != seen.headers[1]["idempotency-key"]


def test_a_refresh_transfers_only_a_changed_customer(connect: Connect) -> None:
    changed = Reply(200, JANE_ANSWERED.replace(b"jane@", b"joan@"), {"etag": '"4"'})
    with stand_in(TAGGED, Reply(304, b""), changed) as seen, connect(seen.url, 1, SECRET) as client:
        customer = client.get_customer(ID)
        assert client.refresh_customer(customer) is customer
        assert client.refresh_customer(customer).email == "joan@shop.test"
    assert [headers.get("if-none-match") for headers in seen.headers] == [None, '"3"', '"3"']


def test_customers_are_equal_by_their_fields() -> None:
    fields: dict[str, Any] = dict.fromkeys(Customer.__struct_fields__[1:11])
    assert Customer(ID, **fields, etag='"1"') == Customer(ID, **fields)
    assert Customer(ID, **fields, metadata={"a": "1"}) != Customer(ID, **fields)
    assert len({Customer(ID, **fields, etag='"1"'), Customer(ID, **fields)}) == 1


def test_the_parameters_of_a_search_are_sent(connect: Connect) -> None:
    with stand_in(Reply(200, b"[]", {"x-total-count": "12"})) as seen, connect(seen.url, 1, SECRET) as client:
        client.list_customers(q="jané +7", created_from=datetime(2026, 1, 1, tzinfo=UTC), order="desc", limit=5)
        noon = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=3)))
        assert client.count_customers(email="a+b@shop.test", created_to=noon) == 12
        assert list(client.customers(q="jane", order="desc")) == []
    assert seen.paths == [
        "/customers?limit=5&order=desc&q=jan%C3%A9%20%2B7&created_from=2026-01-01T00%3A00%3A00.000Z",
        "/customers?email=a%2Bb%40shop.test&created_to=2026-01-01T09%3A00%3A00.000Z&limit=1&count=true",
        "/customers?limit=200&order=desc&q=jane",
    ]


def test_every_list_can_be_counted_and_limited_to_times(connect: Connect) -> None:
    with stand_in(Reply(200, b"[]", {"x-total-count": "7"})) as seen, connect(seen.url, 1, SECRET) as client:
        assert client.count_plans(created_from=date(2026, 12, 1)) == 7
        assert client.count_subscriptions(state="active") == 7
        assert client.count_events(type="customer.created") == 7
        assert list(client.events(order="asc", created_to="2026-12-31")) == []
        client.list_events(after="evt_1")
    assert seen.paths == [
        "/plans?created_from=2026-12-01&limit=1&count=true",
        "/subscriptions?state=active&limit=1&count=true",
        "/events?type=customer.created&limit=1&count=true",
        "/events?limit=200&order=asc&created_to=2026-12-31",
        "/events?after=evt_1",
    ]


def test_a_count_without_its_header_is_an_error(connect: Connect) -> None:
    with stand_in(Reply(200, b"[]")) as seen, connect(seen.url, 1, SECRET) as client, pytest.raises(ecomcharge.ApiError):
        client.count_customers()


@pytest.mark.parametrize(
    ("status", "kind"), [(409, ecomcharge.ConflictError), (410, ecomcharge.ErasedError), (412, ecomcharge.ChangedError)]
)
def test_each_refusal_has_a_class_of_its_own(connect: Connect, status: int, kind: type[ecomcharge.ApiError]) -> None:
    refused = Reply(status, b'{"message":"No"}')
    with stand_in(refused) as seen, connect(seen.url, 1, SECRET) as client, pytest.raises(kind, match="No"):
        client.delete_customer(ID)
    assert len(seen.lines) == 1


def test_an_export_arrives_in_pieces_and_is_retried_only_before_the_first(connect: Connect) -> None:
    document = b'{"customer":' + b"x" * 200_000 + b"}"
    with stand_in(Reply(503), Reply(200, document)) as seen, connect(seen.url, 1, SECRET) as client:
        pieces = list(client.export_customer(ID))
    assert b"".join(pieces) == document
    assert len(pieces) > 1
    assert seen.lines == [f"GET /customers/{ID}/export"] * 2
    cut = Reply(200, document, {"content-length": "300000"})
    with stand_in(cut) as seen, connect(seen.url, 1, SECRET) as client, pytest.raises(ecomcharge.TransportError):
        list(client.export_customer(ID))
    assert len(seen.lines) == 1
    erased = Reply(410, b'{"message":"Customer was erased"}')
    with stand_in(erased) as seen, connect(seen.url, 1, SECRET) as client, pytest.raises(ecomcharge.ErasedError):
        list(client.export_customer(ID))


def test_iterators_follow_the_query_of_the_link_and_never_its_host(connect: Connect) -> None:
    first = Reply(200, b"[" + JANE_ANSWERED + b"]", {"link": '<http://evil.test/x?limit=1&after=cst_1>; rel="next"'})
    last = Reply(200, b"[]", {"link": '</customers?limit=1&before=cst_1>; rel="prev"'})
    with stand_in(first, last) as seen, connect(seen.url, 1, SECRET) as client:
        assert len(list(client.customers(page_size=1))) == 1
    assert seen.paths == ["/customers?limit=1", "/customers?limit=1&after=cst_1"]


def test_a_link_that_is_not_an_address_is_an_error(connect: Connect) -> None:
    reply = Reply(200, b"[]", {"link": '<http://a:x/>; rel="next"'})
    with stand_in(reply) as seen, connect(seen.url, 1, SECRET) as client, pytest.raises(ecomcharge.ApiError):
        list(client.customers())


def test_an_iterator_ends_if_a_page_links_to_itself(connect: Connect) -> None:
    same = Reply(200, b"[" + JANE_ANSWERED + b"]", {"link": '</customers?limit=1>; rel="next"'})
    with stand_in(same) as seen, connect(seen.url, 1, SECRET) as client:
        assert len(list(client.customers(page_size=1))) == 1
    assert len(seen.lines) == 1
