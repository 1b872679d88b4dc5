"""A client that we did not write: PyPI ``bepaid`` 0.8.0, unchanged but for the base URL."""

from __future__ import annotations

import asyncio
from importlib.metadata import version

import pytest
from bepaid import ApiError, AsyncBepaidClient, BepaidClient
from bepaid.models import CustomerRecord

from conftest import Shop

JOHN = CustomerRecord(
    first_name="John",
    last_name="Doe",
    address="1st Street",
    country="US",
    city="Denver",
    zip="92006",
    state="CO",
    phone="+1-555-555-5555",
    email="customer@example.com",
    ip="127.0.0.1",
    external_id="user-42",
)


def test_it_is_the_version_that_was_promised() -> None:
    assert version("bepaid") == "0.8.0"


def test_its_create_get_and_list_work_unchanged(server: Shop) -> None:
    with BepaidClient(server.shop_id, server.secret_key, base_api_url=server.url) as client:
        created = client.create_customer(JOHN)
        assert created.id is not None
        assert created == JOHN.model_copy(update={"id": created.id})
        assert client.get_customer(created.id) == created
        second = client.create_customer(CustomerRecord(email="jane@shop.test", ip="::1"))
        assert client.list_customers() == [created, second]


def test_its_async_client_works_too(server: Shop) -> None:
    async def work() -> None:
        async with AsyncBepaidClient(server.shop_id, server.secret_key, base_api_url=server.url) as client:
            created = await asyncio.gather(*(client.create_customer(JOHN) for _ in range(20)))
            assert {customer.id for customer in await client.list_customers()} == {customer.id for customer in created}

    asyncio.run(work())


def test_it_understands_our_errors(server: Shop) -> None:
    with BepaidClient(server.shop_id, server.secret_key, base_api_url=server.url) as client:
        with pytest.raises(ApiError) as refused:
            client.create_customer(CustomerRecord(email="customer@example.com"))
        assert (refused.value.status, refused.value.message) == (422, "Ip address is invalid. Ip can't be blank")
        assert refused.value.errors == {"ip": ["address is invalid", "can't be blank"]}
        with pytest.raises(ApiError) as unknown:
            client.get_customer("cst_0000000000000000")
        assert (unknown.value.status, unknown.value.message) == (404, "Record not found")
    with BepaidClient(server.shop_id, "wrong", base_api_url=server.url) as stranger:
        with pytest.raises(ApiError) as rejected:
            stranger.list_customers()
        assert (rejected.value.status, rejected.value.message) == (401, "Unauthorized")
