"""Plans, subscriptions and events through the client, blocking and asynchronous, on a running server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

import ecomcharge
from ecomcharge import Client, NewCard, NewCustomer, NewPlan, Price, Subscription, Trial
from support.client import Connect, as_shop
from support.shops import Shop

PRICE = Price(999, 1, "month")
BASIC = NewPlan(title="Basic", currency="EUR", plan=PRICE)
CARD = NewCard(number="4200000000000000", exp_month=1, exp_year=2099, holder="John Doe", verification_value="123")
JOHN = NewCustomer(email="john@shop.test", first_name="John")


def subscribe(client: Client, card: NewCard = CARD) -> Subscription:
    return client.create_subscription(BASIC, customer=JOHN, card=card)


def status_of(subscription: Subscription) -> str | None:
    return subscription.last_transaction.status if subscription.last_transaction else None


def test_a_created_plan_can_be_read_and_listed(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client:
        trial = Trial(0, 7, "day", as_first_payment=True)
        plan = client.create_plan(title="Basic", currency="EUR", plan=PRICE, trial=trial, infinite=False, billing_cycles=12)
        assert client.get_plan(plan.id) == plan
        other = client.create_plan(title="Other", currency="USD", plan=PRICE)
        assert client.list_plans() == list(client.plans(page_size=1)) == [plan, other]
        assert client.list_plans(limit=1, after=plan.id) == [other]
    assert (plan.title, plan.currency, plan.amount, plan.infinite, plan.billing_cycles) == ("Basic", "EUR", 0, False, 12)
    assert (plan.plan.amount, plan.plan.interval, plan.plan.interval_unit) == (999, 1, "month")
    assert (plan.trial.amount, plan.trial.as_first_payment, other.trial.amount) == (0, True, None)
    assert plan.created_at is not None
    assert abs(plan.created_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert (plan.pay_url or "").endswith(f"/plans/{plan.id}/pay")


def test_the_errors_of_nested_fields_have_their_path(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client, pytest.raises(ecomcharge.ValidationError) as caught:
        client.create_plan(title="", currency="EUR", plan=Price(0, 1, "month"))
    assert caught.value.errors == {"title": ["can't be blank"], "plan": {"amount": ["must be greater than 0"]}}
    assert caught.value.field_errors == {"title": ["can't be blank"], "plan.amount": ["must be greater than 0"]}
    assert caught.value.message == "Title can't be blank. Amount must be greater than 0"


def test_a_subscription_without_a_card_redirects_the_buyer(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client:
        plan = client.create_plan(title="Basic", currency="EUR", plan=PRICE)
        created = client.create_subscription(
            plan.id, return_url="https://shop.example/thanks", tracking_id="order-42", additional_data={"seats": [3]}
        )
        assert client.get_subscription(created.id) == created
    assert (created.state, created.tracking_id, created.additional_data) == ("redirecting", "order-42", {"seats": [3]})
    assert (created.redirect_url or "").startswith(f"{server.url}/v2/checkout?token={created.token}")
    assert (created.card.token, created.customer.id, created.renew_at, status_of(created)) == (None,) * 4
    assert created.plan == plan


def test_a_subscription_with_a_card_is_charged_and_its_token_pays_again(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client:
        customer = client.create_customer(email="john@shop.test", ip="::1")
        first = client.create_subscription(BASIC, customer=customer.id, card=CARD)
        assert first.card.token is not None
        second = client.create_subscription(first.plan.id, customer=customer.id, card=first.card.token)
        assert list(client.subscriptions(customer=customer.id, page_size=1)) == [first, second]
    assert (first.state, first.paid_billing_cycles, first.customer.id) == ("active", 1, customer.id)
    assert (first.card.last_4, first.card.exp_year, status_of(first)) == ("0000", 2099, "successful")
    assert first.renew_at is not None
    assert first.active_to == first.renew_at
    assert first.renew_at > datetime.now(UTC) + timedelta(days=27)


def test_a_declined_card_is_a_failed_subscription_and_not_an_error(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client:
        declined = subscribe(client, NewCard(number="4005550000000019", exp_month=1, exp_year=2099))
    assert (declined.state, status_of(declined)) == ("failed", "failed")


def test_subscriptions_are_filtered_and_paged(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client:
        active, redirecting = subscribe(client), client.create_subscription(BASIC, tracking_id="order 7/é")
        assert client.list_subscriptions() == [active, redirecting]
        assert client.list_subscriptions(limit=1, after=active.id) == [redirecting]
        assert client.list_subscriptions(state="active") == [active]
        assert client.list_subscriptions(plan=redirecting.plan.id) == [redirecting]
        assert list(client.subscriptions(tracking_id="order 7/é", page_size=1)) == [redirecting]


def test_a_subscription_is_canceled_with_and_without_a_reason(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client:
        first, second = subscribe(client), subscribe(client)
        canceled = client.cancel_subscription(first.id, "enough")
        assert client.cancel_subscription(first.id, "again") == client.get_subscription(first.id) == canceled
        assert client.cancel_subscription(second.id).cancel_reason is None
        failed = subscribe(client, NewCard(number="4005550000000019", exp_month=1, exp_year=2099))
        with pytest.raises(ecomcharge.ValidationError, match="Subscription is over"):
            client.cancel_subscription(failed.id)
    assert (canceled.state, canceled.cancel_reason, canceled.active_to) == ("canceled", "enough", first.active_to)
    assert canceled.cancelled_at is not None


def test_a_repeated_subscription_is_created_once_for_each_key(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client:
        first, again = (client.create_subscription(BASIC, customer=JOHN, card=CARD, idempotency_key="order 7") for _ in range(2))
        assert client.list_subscriptions() == [first]
        with pytest.raises(ecomcharge.ValidationError, match="already used") as caught:
            client.create_subscription(BASIC, idempotency_key="order 7")
    assert first == again
    assert caught.value.idempotency_key == "order 7"


def test_a_slow_charge_is_made_once_although_the_first_attempts_time_out(server: Shop, connect: Connect) -> None:
    slow = NewCard(number="4111110000000088", exp_month=1, exp_year=2099)  # the gateway needs three seconds
    with as_shop(connect, server, timeout_seconds=0.5) as client:
        created = client.create_subscription(BASIC, customer=JOHN, card=slow)
        assert client.list_subscriptions() == [created]
        with pytest.raises(ecomcharge.TransportError) as caught, as_shop(connect, server, timeout_seconds=0.5, retries=0) as once:
            once.create_subscription(BASIC, customer=JOHN, card=slow)
        key = caught.value.idempotency_key
        repeated = client.create_subscription(BASIC, customer=JOHN, card=slow, idempotency_key=key)
        assert client.list_subscriptions() == [created, repeated]
    assert (created.state, repeated.state) == ("active", "active")


def test_events_are_typed_and_the_newest_comes_first(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client:
        customer = client.create_customer(email="john@shop.test", ip="::1")
        subscription = client.create_subscription(BASIC, customer=customer.id, card=CARD)
        canceled = client.cancel_subscription(subscription.id, "enough")
        events = client.list_events()
        assert list(client.events(page_size=1)) == events
        assert list(client.events(type="created.subscription")) == [events[1]]
        assert client.list_events(object=subscription.id, limit=1, before=events[0].id) == [events[1]]
    assert [event.type for event in events] == ["canceled.subscription", "created.subscription", "customer.created"]
    assert [event.subscription for event in events] == [canceled, subscription, None]
    assert [event.sequence for event in events] == [2, 1, 1]
    assert events[2].data["id"] == events[2].object_id == customer.id


def test_unknown_ids_are_not_found(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client:
        for read in (client.get_plan, client.get_subscription, client.cancel_subscription):
            with pytest.raises(ecomcharge.NotFoundError):
                read("../customers")
            with pytest.raises(ValueError, match="must not be empty"):
                read("")
