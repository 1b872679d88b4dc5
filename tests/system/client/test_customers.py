"""The management of customers through the client, blocking and asynchronous, on a running server."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

import ecomcharge
from ecomcharge import Client, NewCard, NewPlan, Price
from support.client import JANE, Connect, as_shop
from support.shops import Shop

BASIC = NewPlan(title="Basic", currency="EUR", plan=Price(999, 1, "month"))
CARD = NewCard(number="4200000000000000", exp_month=1, exp_year=2099)


def test_metadata_is_stored_and_returned(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client:
        created = client.create_customer(**JANE, metadata={"plan": "gold", "seats": "3"})
        assert client.get_customer(created.id) == created
        assert client.list_customers() == [created]
    assert created.metadata == {"plan": "gold", "seats": "3"}


def test_an_update_changes_and_clears_single_fields_and_keys(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client:
        created = client.create_customer(**JANE, city="Denver", phone="1", metadata={"a": "1", "b": "2"})
        changed = client.update_customer(created.id, city="Boston", phone=None, metadata={"a": None, "c": "3"})
        assert client.get_customer(created.id) == changed
        [event] = client.list_events(object=created.id, type="customer.updated")
    assert set(event.changed) == {"city", "phone", "metadata"}
    assert (changed.city, changed.phone, changed.email) == ("Boston", None, "jane@shop.test")
    assert changed.metadata == {"b": "2", "c": "3"}
    assert changed.changed_at is not None
    assert abs(changed.changed_at - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_change_with_an_old_etag_is_refused(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client:
        created = client.create_customer(**JANE)
        first = client.update_customer(created.id, city="Denver", if_match=created.etag)
        for change in (client.update_customer, client.replace_customer):
            with pytest.raises(ecomcharge.ChangedError, match="changed by someone else"):
                change(created.id, **JANE, if_match=created.etag)
        assert first.etag != created.etag
        assert client.update_customer(created.id, city="Boston", if_match=first.etag).city == "Boston"


def test_a_change_that_is_repeated_with_its_key_has_one_effect(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client:
        created = client.create_customer(**JANE)
        first, again = (
            client.update_customer(created.id, city="Denver", if_match=created.etag, idempotency_key="k") for _ in range(2)
        )
        assert first == again == client.get_customer(created.id)
    assert first.etag == again.etag


def test_a_replacement_clears_the_other_fields(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client:
        created = client.create_customer(**JANE, city="Denver", external_id="7", metadata={"a": "1"})
        replaced = client.replace_customer(created.id, email="joan@shop.test", ip="::1", if_match=created.etag)
        assert client.get_customer(created.id) == replaced
    assert (replaced.email, replaced.city, replaced.external_id, replaced.metadata) == ("joan@shop.test", None, None, {})


def test_an_invalid_change_changes_nothing(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client:
        created = client.create_customer(**JANE)
        with pytest.raises(ecomcharge.ValidationError) as caught:
            client.update_customer(created.id, country="US", email=None)
        assert set(caught.value.field_errors) == {"state", "email"}
        assert client.refresh_customer(created) is created


def test_a_customer_is_created_once_for_each_external_id(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client:
        customer, created = client.get_or_create_customer("user 7/é", **JANE, city="Denver")
        again, created_again = client.get_or_create_customer("user 7/é", **JANE)
        assert client.get_customer_by_external_id("user 7/é") == again
        assert client.list_customers() == [again]
        with pytest.raises(ecomcharge.NotFoundError):
            client.get_customer_by_external_id("nobody")
    assert (created, created_again, again.id) == (True, False, customer.id)
    assert (customer.city, again.city, again.external_id) == ("Denver", None, "user 7/é")


def test_concurrent_calls_create_one_customer(server: Shop) -> None:
    with as_shop(Client, server) as client, ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: client.get_or_create_customer("user-7", **JANE), range(16)))
        assert len({customer.id for customer, _ in made}) == 1
        assert sum(created for _, created in made) == 1
        assert client.count_customers() == 1


def test_a_refresh_transfers_a_changed_customer(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client:
        created = client.create_customer(**JANE)
        changed = client.update_customer(created.id, city="Denver")
        assert client.refresh_customer(created) == changed
        assert client.refresh_customer(changed) is changed


def test_customers_are_found_and_counted(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client:
        jane = client.create_customer(**JANE, first_name="Jané", last_name="Doe", phone="+1 (555) 01-02")
        john = client.create_customer(email="john+7@shop.test", ip="::1", first_name="John", last_name="Doe-Smith")
        for query, found in {"JANÉ": [jane], "smi": [john], "15550": [jane], "doe": [jane, john], "x": []}.items():
            assert client.list_customers(q=query) == list(client.customers(q=query, page_size=1)) == found, query
            assert client.count_customers(q=query) == len(found)
        assert client.list_customers(q="doe", order="desc") == [john, jane]
        assert client.list_customers(email="JOHN+7@shop.test") == [john]


def test_a_customer_with_an_active_subscription_is_erased_only_on_request(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client:
        customer = client.create_customer(**JANE)
        subscription = client.create_subscription(BASIC, customer=customer.id, card=CARD)
        with pytest.raises(ecomcharge.ConflictError, match="active subscriptions"):
            client.delete_customer(customer.id)
        client.delete_customer(customer.id, subscriptions="cancel")
        client.delete_customer(customer.id)
        assert client.get_subscription(subscription.id).state == "canceled"
        assert client.list_customers() == []
        for read in (client.get_customer, client.update_customer):
            with pytest.raises(ecomcharge.ErasedError, match="was erased"):
                read(customer.id)
        types = [event.type for event in client.list_events()]
        [erased] = client.list_events(object=customer.id)
    assert {"customer.erased", "canceled.subscription"} <= set(types)
    assert (erased.type, erased.data, erased.changed) == ("customer.erased", {"id": customer.id}, [])


def test_a_customer_is_erased_only_in_the_version_that_was_read(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client:
        read = client.create_customer(**JANE)
        changed = client.update_customer(read.id, city="Denver")
        with pytest.raises(ecomcharge.ChangedError):
            client.delete_customer(read.id, if_match=read.etag)
        for _ in range(2):  # the second one is a repetition after a lost response
            client.delete_customer(read.id, if_match=changed.etag)
        with pytest.raises(ValueError, match="if_match"):
            client.delete_customer(read.id, if_match=None)
        assert client.list_customers() == []


def test_an_export_has_everything_about_a_customer(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client:
        customer = client.create_customer(**JANE, metadata={"a": "1"})
        subscription = client.create_subscription(BASIC, customer=customer.id, card=CARD)
        text = b"".join(client.export_customer(customer.id)).decode()
        with pytest.raises(ecomcharge.NotFoundError):
            list(client.export_customer("cst_0000000000000000"))
    assert isinstance(json.loads(text), dict)
    for part in (customer.id, "jane@shop.test", subscription.id):
        assert part in text
