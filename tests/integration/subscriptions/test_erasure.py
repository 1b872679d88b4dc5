"""Erasure of a customer while its subscription is charged, created or canceled."""

from __future__ import annotations

import asyncio
import gc
import uuid
from collections.abc import Awaitable
from dataclasses import replace

import msgspec
import pytest

from ecomcharge.base.errors import CustomerHasSubscriptions, EcomchargeError, RecordNotFound
from ecomcharge.customers import store as customers
from ecomcharge.customers.actions import ChangeRequest, change_customer, create_customer
from ecomcharge.customers.model import CustomerFields
from ecomcharge.gateways import sandbox
from ecomcharge.gateways.base import CardDetails
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database
from ecomcharge.storage.opening import open_database
from ecomcharge.subscriptions import actions, store
from ecomcharge.subscriptions.erasure import CustomerIsActive, erase_customer
from ecomcharge.subscriptions.model import EMPTY_OBJECT, Subscription, to_json
from ecomcharge.subscriptions.requests import SubscriptionRequest
from ecomcharge.subscriptions.retention import inactive_customers
from ecomcharge.web.idempotency import IdempotencyKey, StoredResponse, claim_or_replay
from support.billing import BEGIN, DAY, BillingShop, with_billing


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
        cards = await shop.rows("SELECT card FROM cards WHERE shop_id = :shop_id")
        assert not [card for [card] in cards if "Jane" in card]
        taken = await shop.rows("SELECT status, refunded_at FROM sandbox_charges WHERE shop_id = :shop_id")
        assert all(status != "successful" or refunded_at is not None for status, refunded_at in taken), taken
        payments = await shop.rows("SELECT status FROM payments WHERE shop_id = :shop_id")
        assert {row[0] for row in payments} <= {"refunded", "absent", "error"}, payments
        refunded = "Payment was not needed any more and was refunded"
        message = msgspec.json.decode(subscription.last_transaction)["message"]
        assert (message == refunded) == (payments == [("refunded",)])

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
                _encode,
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


def test_changes_and_erasures_of_one_customer_at_once(database_url: str, master_key: MasterKey) -> None:
    """An erasure succeeds whatever changes the customer at that moment, and no stored response keeps personal data."""
    events_of = "SELECT sequence FROM events WHERE shop_id = :shop_id AND object_id = :id ORDER BY sequence"
    responses_of = "SELECT body FROM idempotency_keys WHERE shop_id = :shop_id AND location = :location"

    async def work(shop: BillingShop) -> None:
        other = await open_database(database_url)  # of another server
        try:
            for _ in range(30):
                created = await create_customer(
                    shop.database, shop.id_generators.customer, BEGIN, shop.shop_id, CustomerFields(email="jane@shop.test"), None
                )
                customer_id = msgspec.json.decode(created.body)["id"]
                changes = [
                    _change(shop, database, customer_id, first_name)
                    for first_name in (None, "Ann", None, None)
                    for database in (shop.database, other)
                ]
                erasures = [
                    erase_customer(charging, shop.shop_id, customer_id)
                    for charging in (shop.services.charging, replace(shop.services.charging, database=other))
                ]
                outcomes = await asyncio.gather(*map(_outcome, [*changes[:4], *erasures, *changes[4:]]))
                assert outcomes[4:6] == ["done", "done"], outcomes
                assert set(outcomes) <= {"done", "CustomerErased"}, outcomes
                sequences = [row[0] for row in await shop.rows(events_of, id=customer_id)]
                assert sequences == list(range(2, len(sequences) + 2))
                responses = await shop.rows(responses_of, location=f"/customers/{customer_id}")
                assert {row[0] for row in responses} <= {'{"message":"Customer was erased"}'}
        finally:
            await other.close()

    with_billing(database_url, master_key, work)


async def _change(shop: BillingShop, database: Database, customer_id: str, first_name: str | None) -> None:
    """Change the name, or nothing, with an idempotency key."""
    key = IdempotencyKey(uuid.uuid4().hex, "request")
    request = ChangeRequest(
        shop.shop_id, BEGIN, lambda stored: CustomerFields(email=stored.email, first_name=first_name), None, key
    )
    await change_customer(database, shop.services.charging.event_recorder.of_customers, customer_id, request)


def test_the_response_of_a_charge_is_stored_after_an_erasure_without_the_card(database_url: str, master_key: MasterKey) -> None:
    """The erasure comes between the outcome of the charge and the response of the request."""

    async def work(shop: BillingShop) -> None:
        subscription_id = await shop.subscribe()
        before = await _subscription(shop, subscription_id)
        assert before.customer_id is not None
        key = IdempotencyKey("key", "request")
        answer = StoredResponse(201, f"/subscriptions/{subscription_id}", _encode(before))
        await shop.database.write(lambda tx: claim_or_replay(tx, shop.shop_id, key, answer, BEGIN, BEGIN, BEGIN + DAY))
        await _erase(shop, before.customer_id, cancel=True)
        await actions.keep_answer(shop.services.charging, before, key, answer, _encode)
        [[body]] = await shop.rows("SELECT body FROM idempotency_keys WHERE shop_id = :shop_id")
        assert "Jane" not in body
        assert msgspec.json.decode(body)["state"] == "canceled"

    with_billing(database_url, master_key, work)


def _encode(subscription: Subscription) -> bytes:
    return msgspec.json.encode(to_json(subscription, "http://127.0.0.1"))


def test_a_customer_that_became_active_is_not_purged(database_url: str, master_key: MasterKey) -> None:
    """A purge lists 200 customers before it erases the first one."""

    async def work(shop: BillingShop) -> None:
        created = [
            await create_customer(shop.database, shop.id_generators.customer, BEGIN, shop.shop_id, CustomerFields(), None)
            for _ in range(2)
        ]
        changed, unchanged = (msgspec.json.decode(each.body)["id"] for each in created)
        await shop.pass_time(10 * DAY)
        since = BEGIN + 5 * DAY
        assert [each async for each in inactive_customers(shop.database, shop.shop_id, since)] == [changed, unchanged]
        await change_customer(
            *(shop.database, shop.services.charging.event_recorder.of_customers, changed),
            ChangeRequest(shop.shop_id, BEGIN + 10 * DAY, lambda _: CustomerFields(first_name="Ann")),
        )
        with pytest.raises(CustomerIsActive):
            await erase_customer(shop.services.charging, shop.shop_id, changed, inactive_since=since)
        await erase_customer(shop.services.charging, shop.shop_id, unchanged, inactive_since=since)
        assert [each.id for each in await customers.Customers(shop.database, shop.shop_id).select(10)] == [changed]

    with_billing(database_url, master_key, work)


def test_no_object_refers_to_a_card_after_its_charge(database_url: str, master_key: MasterKey) -> None:
    """Number and code are dropped when the gateway has answered, before the outcome is recorded."""
    others = [found for found in gc.get_objects() if isinstance(found, CardDetails)]  # of other tests in this process
    known = set(map(id, others))
    kept: list[tuple[str, str | None]] = []

    async def work(shop: BillingShop) -> None:
        def look(status: str, is_first: bool) -> None:
            cards = [found for found in gc.get_objects() if isinstance(found, CardDetails) and id(found) not in known]
            kept.extend((card.number, card.verification_value) for card in cards)

        charging = replace(shop.services.charging, on_outcome=look)
        await replace(shop, services=replace(shop.services, charging=charging)).subscribe()

    with_billing(database_url, master_key, work)

    assert kept
    assert set(kept) == {("", None)}
