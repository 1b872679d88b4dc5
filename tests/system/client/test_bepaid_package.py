"""A third-party client works unchanged except for the base URL: ``bepaid`` 0.8.0 from PyPI."""

from __future__ import annotations

import asyncio
from importlib.metadata import version

import pytest
from bepaid import ApiError, AsyncBepaidClient, BepaidClient
from bepaid.models import (
    CancelSubscriptionRequest,
    CustomerRecord,
    PlanInterval,
    PlanItem,
    PlanTrial,
    SubscriptionCard,
    SubscriptionCreateRequest,
    SubscriptionCustomer,
    SubscriptionPlan,
)

from support.shops import Shop

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


def test_the_installed_bepaid_version_is_the_documented_one() -> None:
    assert version("bepaid") == "0.8.0"


def test_bepaid_creates_reads_and_lists_customers(server: Shop) -> None:
    with BepaidClient(server.shop_id, server.secret_key, base_api_url=server.url) as client:
        created = client.create_customer(JOHN)
        assert created.id is not None
        assert created == JOHN.model_copy(update={"id": created.id})
        assert client.get_customer(created.id) == created
        second = client.create_customer(CustomerRecord(email="jane@shop.test", ip="::1"))
        assert client.list_customers() == [created, second]


def test_the_async_client_of_bepaid_works(server: Shop) -> None:
    async def work() -> None:
        async with AsyncBepaidClient(server.shop_id, server.secret_key, base_api_url=server.url) as client:
            created = await asyncio.gather(*(client.create_customer(JOHN) for _ in range(20)))
            assert {customer.id for customer in await client.list_customers()} == {customer.id for customer in created}

    asyncio.run(work())


def test_bepaid_parses_our_errors(server: Shop) -> None:
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


PLAN = PlanItem(
    title="Basic",
    currency="EUR",
    plan=PlanInterval(amount=999, interval=1, interval_unit="month"),
    trial=PlanTrial(amount=0, interval=7, interval_unit="day", as_first_payment=True),
    test=True,
)
CARD = SubscriptionCard(number="4200000000000000", holder="John Doe", verification_value="123", exp_month="12", exp_year="2099")


def test_bepaid_creates_and_reads_plans(server: Shop) -> None:
    with BepaidClient(server.shop_id, server.secret_key, base_api_url=server.url) as client:
        created = client.create_plan(PLAN)
        assert created.id is not None
        assert (created.title, created.trial, created.number_payment_attempts) == ("Basic", PLAN.trial, 3)
        assert client.get_plan(created.id) == created
        assert client.list_plans() == [created]
        assert client.get_plan_payment_link(created.id) == {}  # a redirect without a body


def test_bepaid_creates_and_cancels_subscriptions(server: Shop) -> None:
    with BepaidClient(server.shop_id, server.secret_key, base_api_url=server.url) as client:
        plan = client.create_plan(PLAN)
        request = SubscriptionCreateRequest(
            card=CARD,
            customer=SubscriptionCustomer(first_name="John", last_name="Doe", email="customer@example.com"),
            plan=SubscriptionPlan(id=plan.id),
            tracking_id="order-42",
            additional_data={"order": 42},
        )
        created = client.create_subscription(request)
        assert created.id is not None
        assert (created.state, created.tracking_id, created.paid_billing_cycles) == ("trial", "order-42", 1)
        assert created.plan == plan
        assert created.card is not None
        assert (created.card.brand, created.card.exp_month, created.card.exp_year) == ("visa", 12, 2099)
        assert created.last_transaction is not None
        assert created.last_transaction.status == "successful"
        assert client.get_subscription(created.id) == created
        canceled = client.cancel_subscription(created.id, CancelSubscriptionRequest(cancel_reason="enough"))
        assert (canceled["state"], canceled["cancel_reason"]) == ("canceled", "enough")
        waiting = client.create_subscription(SubscriptionCreateRequest(plan=SubscriptionPlan(id=plan.id)))
        assert waiting.state == "redirecting"
        assert waiting.redirect_url is not None
        with pytest.raises(ApiError) as refused:
            client.create_subscription(SubscriptionCreateRequest(plan=SubscriptionPlan(id="pln_0000000000000000")))
        assert refused.value.errors == {"plan": {"base": ["plan with this ID doesn't exist for this account"]}}
