"""Erasure of a customer (data protection): removes its personal data, and keeps the records of payments.

One transaction deletes the customer, cancels and clears its subscriptions, and clears their events, webhooks, payments and
stored responses. The id stays in ``erased_customers``: it is never used again, and requests for it are answered with 410.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ecomcharge.base.clock import SystemClock
from ecomcharge.base.errors import CustomerHasSubscriptions, RecordNotFound
from ecomcharge.customers import store as customers
from ecomcharge.gateways import sandbox
from ecomcharge.storage.database import Transaction
from ecomcharge.storage.records import StaleVersion
from ecomcharge.subscriptions import lifecycle, model, store
from ecomcharge.subscriptions.changes import after_update
from ecomcharge.subscriptions.charging import Charging
from ecomcharge.subscriptions.model import Subscription
from ecomcharge.subscriptions.personal_data import body_without_personal_data, message_of_status, without_personal_data
from ecomcharge.subscriptions.retention import is_inactive
from ecomcharge.web.preconditions import IfMatch

CANCEL_REASON: Final = "customer erased"
ERASED_RESPONSE: Final = '{"message":"Customer was erased"}'

EVENTS_OF_OBJECT = "SELECT id, data FROM events WHERE shop_id = :shop_id AND object_id = :object_id ORDER BY sequence"

CLEAR_EVENT = "UPDATE events SET data = :body WHERE shop_id = :shop_id AND id = :id"

WEBHOOKS_OF_SUBSCRIPTION = "SELECT id, body FROM webhooks WHERE shop_id = :shop_id AND subscription_id = :object_id ORDER BY id"

CLEAR_WEBHOOK = "UPDATE webhooks SET body = :body WHERE shop_id = :shop_id AND id = :id"

PAYMENTS_OF_SUBSCRIPTION = """
SELECT id, status FROM payments WHERE shop_id = :shop_id AND subscription_id = :object_id ORDER BY period, attempt
"""

CLEAR_PAYMENT = """
UPDATE payments SET message = CASE WHEN message IS NULL THEN NULL ELSE COALESCE(:message, message) END, redirect_url = NULL
WHERE shop_id = :shop_id AND id = :id
"""

CLEAR_RESPONSE = """
UPDATE idempotency_keys SET status = COALESCE(:status, status), body = :body
WHERE shop_id = :shop_id AND location = :location AND body IS NOT NULL
"""


class CustomerIsActive(Exception):
    """The customer had activity since the time that a purge names."""


async def erase_customer(
    charging: Charging,
    shop_id: int,
    customer_id: str,
    *,
    cancel: bool = False,
    if_match: IfMatch | None = None,
    inactive_since: int | None = None,
) -> None:
    """Erase a customer. A second call changes nothing. With ``cancel`` its active subscriptions are canceled first.

    Raises ``RecordNotFound``, ``CustomerHasSubscriptions`` if a subscription can still charge, ``PreconditionFailed``, and
    ``CustomerIsActive`` if it had activity since ``inactive_since`` (UTC milliseconds).
    """
    now = charging.clock.now()
    erased_at = SystemClock().now()  # housekeeping looks for a later time, and a sandbox clock may stand still

    async def unit(tx: Transaction) -> None:
        stored = await customers.find_stored(tx, shop_id, customer_id)
        if stored is None:
            if await customers.is_erased(tx, shop_id, customer_id):
                return
            raise RecordNotFound
        if if_match is not None:
            if_match.check(stored.version)
        if inactive_since is not None and not await is_inactive(tx, shop_id, customer_id, inactive_since):
            raise CustomerIsActive
        subscriptions = await store.of_customer(tx, shop_id, customer_id)
        if not cancel and any(each.billing_state.state not in lifecycle.OVER for each in subscriptions):
            raise CustomerHasSubscriptions
        for subscription in subscriptions:
            await _erase_subscription(tx, charging, subscription, now)
        if not await customers.erase(tx, shop_id, customer_id, stored.version + 1, erased_at):
            raise StaleVersion
        await charging.event_recorder.of_customers.record_erasure(tx, shop_id, customer_id, stored.version + 1, now)
        response = {"shop_id": shop_id, "location": f"/customers/{customer_id}", "status": 410, "body": ERASED_RESPONSE}
        await tx.run(CLEAR_RESPONSE, response)

    while True:
        try:
            return await charging.database.write(unit)
        except StaleVersion:
            continue


async def _erase_subscription(tx: Transaction, charging: Charging, subscription: Subscription, now: int) -> None:
    shop_id = subscription.shop_id
    cleared = without_personal_data(subscription)
    if not await store.erase(tx, cleared):
        raise StaleVersion
    cleared = after_update(cleared)
    of_object: dict[str, Any] = {"shop_id": shop_id, "object_id": subscription.id}
    for select, clear in ((EVENTS_OF_OBJECT, CLEAR_EVENT), (WEBHOOKS_OF_SUBSCRIPTION, CLEAR_WEBHOOK)):
        bodies = [(row[0], body_without_personal_data(row[1])) for row in await tx.rows(select, of_object)]
        await tx.run_many(clear, [{"shop_id": shop_id, "id": id, "body": body} for id, body in bodies])
    payments = [(row[0], row[1]) for row in await tx.rows(PAYMENTS_OF_SUBSCRIPTION, of_object)]
    messages = [{"shop_id": shop_id, "id": id, "message": message_of_status(status)} for id, status in payments]
    await tx.run_many(CLEAR_PAYMENT, messages)
    await sandbox.clear_cards(tx, shop_id, [id for id, _ in payments])
    if subscription.billing_state.state not in lifecycle.OVER:
        cleared = await _cancel(tx, charging, cleared, now)
    body = msgspec.json.encode(model.to_json(cleared, charging.event_recorder.base_url)).decode()
    location = f"/subscriptions/{subscription.id}"
    await tx.run(CLEAR_RESPONSE, {"shop_id": shop_id, "location": location, "status": None, "body": body})


async def _cancel(tx: Transaction, charging: Charging, subscription: Subscription, now: int) -> Subscription:
    transition = lifecycle.canceled(subscription.billing_state, CANCEL_REASON, now)
    canceled = msgspec.structs.replace(subscription, billing_state=transition.billing_state, sequence=subscription.sequence + 1)
    if not await store.update(tx, canceled, None):  # a charge in progress keeps its lease
        raise StaleVersion
    await charging.event_recorder.record(tx, canceled, lifecycle.CANCELED_EVENT, now)
    return after_update(canceled)
