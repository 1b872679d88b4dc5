"""Erasure of a customer while its subscription is charged, created or canceled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import msgspec
import pytest

from ecomcharge.base.errors import CustomerHasSubscriptions, EcomchargeError, RecordNotFound
from ecomcharge.customers import store as customers
from ecomcharge.gateways import sandbox
from ecomcharge.shops.keys import MasterKey
from ecomcharge.subscriptions import actions, store
from ecomcharge.subscriptions.erasure import erase_customer
from ecomcharge.subscriptions.model import EMPTY_OBJECT, Subscription, to_json
from ecomcharge.subscriptions.requests import SubscriptionRequest
from support.billing import DAY, BillingShop, with_billing


async def _subscription(shop: BillingShop, subscription_id: str) -> Subscription:
    found = await store.find(shop.database, shop.shop_id, subscription_id)
    assert found is not None
    return found


async def _erase(shop: BillingShop, customer_id: str, *, cancel: bool = False) -> None:
    await erase_customer(shop.services.charging, shop.shop_id, customer_id, cancel=cancel)


@pytest.mark.parametrize("behaviour", [sandbox.SLOW, sandbox.TIMEOUT_CHARGED, sandbox.TIMEOUT_ABSENT])
def test_a_charge_in_progress_at_an_erasure_is_recorded_without_the_card(
    database_url: str, master_key: MasterKey, behaviour: str
) -> None:
    """The gateway took the money for a customer that no longer exists: it is refunded, and no personal data comes back."""

    async def work(shop: BillingShop) -> None:
        creation = asyncio.create_task(shop.subscribe(behaviour))
        while not (rows := await shop.rows("SELECT customer_id FROM subscriptions WHERE shop_id = :shop_id")):
            await asyncio.sleep(0.01)
        customer_id = rows[0][0]
        with pytest.raises(CustomerHasSubscriptions):
            await _erase(shop, customer_id)
        await _erase(shop, customer_id, cancel=True)
        subscription_id = await creation
        await shop.advance(2 * DAY)
        subscription = await _subscription(shop, subscription_id)
        assert subscription.billing_state.state == "canceled"
        assert (subscription.customer_id, subscription.erased_customer_id) == (None, customer_id)
        assert "Jane" not in subscription.card
        assert subscription.card_token is None
        taken = await shop.rows("SELECT status, refunded_at FROM sandbox_charges WHERE shop_id = :shop_id")
        assert all(status != "successful" or refunded_at is not None for status, refunded_at in taken), taken
        payments = await shop.rows("SELECT status FROM payments WHERE shop_id = :shop_id")
        assert {row[0] for row in payments} <= {"refunded", "absent", "error"}, payments

    with_billing(database_url, master_key, work)


def test_an_erased_card_is_never_charged_again(database_url: str, master_key: MasterKey) -> None:
    async def work(shop: BillingShop) -> None:
        subscription_id = await shop.subscribe()
        customer_id = (await _subscription(shop, subscription_id)).customer_id
        assert customer_id is not None
        await _erase(shop, customer_id, cancel=True)
        await shop.advance(10 * DAY)
        charges = await shop.rows("SELECT status FROM sandbox_charges WHERE shop_id = :shop_id")
        assert len(charges) == 1
        events = await shop.rows("SELECT type FROM events WHERE shop_id = :shop_id ORDER BY id")
        assert [row[0] for row in events] == ["created.subscription", "canceled.subscription", "customer.erased"]

    with_billing(database_url, master_key, work)


def test_a_subscription_that_is_created_during_an_erasure_has_a_customer_or_is_refused(
    database_url: str, master_key: MasterKey
) -> None:
    """Either the subscription comes first, and the erasure is refused, or the erasure comes first."""

    async def work(shop: BillingShop) -> None:
        for _ in range(20):
            first = await _subscription(shop, await shop.subscribe())
            await shop.cancel(first.id)
            customer_id = first.customer_id
            assert customer_id is not None
            wanted = SubscriptionRequest(
                plan=first.plan.id,
                customer=customer_id,
                card=None,
                tracking_id=None,
                device_id=None,
                return_url=None,
                notification_url=None,
                additional_data=EMPTY_OBJECT,
                options=EMPTY_OBJECT,
            )
            creation = actions.create_subscription(
                *(shop.services.charging, shop.id_generators, shop.shop_id, wanted, None),
                lambda each: msgspec.json.encode(to_json(each, "http://127.0.0.1")),
            )
            outcomes = await asyncio.gather(_outcome(creation), _outcome(_erase(shop, customer_id)))
            assert sorted(outcomes) in (["CustomerHasSubscriptions", "done"], ["ValidationFailed", "done"]), outcomes
            exists = await customers.find(shop.database, shop.shop_id, customer_id) is not None
            assert exists == (outcomes[1] == "CustomerHasSubscriptions")

    with_billing(database_url, master_key, work)


async def _outcome(action: Awaitable[object]) -> str:
    try:
        await action
    except EcomchargeError as error:
        return type(error).__name__
    return "done"


def test_two_erasures_at_once_erase_once(database_url: str, master_key: MasterKey) -> None:
    async def work(shop: BillingShop) -> None:
        for _ in range(10):
            subscription = await _subscription(shop, await shop.subscribe())
            assert subscription.customer_id is not None
            await asyncio.gather(*(_erase(shop, subscription.customer_id, cancel=True) for _ in range(4)))
            events = await shop.rows(
                "SELECT sequence FROM events WHERE shop_id = :shop_id AND object_id = :id", id=subscription.customer_id
            )
            assert [row[0] for row in events] == [2]
        with pytest.raises(RecordNotFound):
            await _erase(shop, "cst_0000000000000000")

    with_billing(database_url, master_key, work)
