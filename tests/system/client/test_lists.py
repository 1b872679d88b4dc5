"""Order, times of creation and numbers of lists through the client, blocking and asynchronous."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ecomcharge import NewPlan, Price
from support.client import JANE, Connect, as_shop
from support.shops import Shop

BASIC = NewPlan(title="Basic", currency="EUR", plan=Price(999, 1, "month"))


def test_lists_have_an_order_and_a_number_of_records(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client:
        customers = [client.create_customer(**JANE, external_id=str(number % 2)) for number in range(3)]
        assert list(client.customers(order="desc", page_size=2)) == client.list_customers(order="desc") == customers[::-1]
        assert (client.count_customers(), client.count_customers(external_id="0")) == (3, 2)
        subscriptions = [client.create_subscription(BASIC) for _ in range(3)]
        assert list(client.subscriptions(order="desc", page_size=2)) == subscriptions[::-1]
        assert (client.count_subscriptions(state="redirecting"), client.count_subscriptions(state="active")) == (3, 0)
        plans = [subscription.plan for subscription in subscriptions]
        assert list(client.plans(order="desc", page_size=2)) == plans[::-1]
        assert client.count_plans() == 3
        events = client.list_events()
        assert list(client.events(order="asc", page_size=1)) == events[::-1]
        assert client.list_events(order="asc", after=events[2].id) == events[1::-1]
        assert client.count_events(type="customer.created") == len(events) == 3


def test_lists_are_limited_to_times_of_creation(server: Shop, connect: Connect) -> None:
    hour, now = timedelta(hours=1), datetime.now(UTC)
    with as_shop(connect, server) as client:
        customer = client.create_customer(**JANE)
        assert client.list_customers(created_from=now - hour, created_to=now + hour) == [customer]
        assert list(client.customers(created_to=now - hour)) == client.list_customers(created_from=now + hour) == []
        assert client.count_customers(created_from=(now - 24 * hour).date(), created_to=(now + 24 * hour).date()) == 1
        assert client.count_events(created_from=(now - hour).isoformat()) == 1
        assert client.count_plans(created_from=now - hour) == client.count_subscriptions(created_to=now + hour) == 0


def test_an_email_is_found_with_its_plus(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client:
        customer = client.create_customer(email="jane+7@shop.test", ip="::1")
        assert client.list_customers(email="jane+7@shop.test") == [customer]
