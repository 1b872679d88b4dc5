"""Customers without activity, which a shop need not keep any longer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from ecomcharge.base.ids import CUSTOMER_PREFIX, first_id_at
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.storage.records import PER_CHUNK

# Activity is the creation or a change of the customer, a subscription that has not ended, and the creation, the paid time,
# the end and the payments of a subscription. It reads all customers of the shop, so no request runs it.
_INACTIVE: Final = """
SELECT id FROM customers
WHERE shop_id = :shop_id AND {which} AND id < :first_id_since AND COALESCE(updated_at, 0) < :since
AND NOT EXISTS (
    SELECT 1 FROM subscriptions
    WHERE subscriptions.shop_id = :shop_id AND subscriptions.customer_id = customers.id AND (
        subscriptions.state NOT IN ('failed', 'error', 'expired', 'canceled')
        OR subscriptions.created_at >= :since OR COALESCE(subscriptions.active_to, 0) >= :since
        OR COALESCE(subscriptions.cancelled_at, 0) >= :since
        OR EXISTS (
            SELECT 1 FROM payments
            WHERE payments.shop_id = :shop_id AND payments.subscription_id = subscriptions.id
            AND payments.created_at >= :since
        )
    )
)
ORDER BY id LIMIT :limit
"""
INACTIVE: Final = _INACTIVE.format(which="id > :after")
IS_INACTIVE: Final = _INACTIVE.format(which="id = :id")


async def inactive_customers(database: Database, shop_id: int, since: int) -> AsyncIterator[str]:
    """The ids of the customers of a shop without activity since a moment (UTC milliseconds), in order of creation."""
    last = ""
    while True:
        rows = await database.rows(INACTIVE, {**_params(shop_id, since), "after": last, "limit": PER_CHUNK})
        for row in rows:
            yield row[0]
        if len(rows) < PER_CHUNK:
            return
        last = rows[-1][0]


async def is_inactive(tx: Transaction, shop_id: int, customer_id: str, since: int) -> bool:
    """Whether a customer had no activity since a moment (UTC milliseconds)."""
    return bool(await tx.rows(IS_INACTIVE, {**_params(shop_id, since), "id": customer_id, "limit": 1}))


def _params(shop_id: int, since: int) -> dict[str, object]:
    return {"shop_id": shop_id, "first_id_since": first_id_at(CUSTOMER_PREFIX, since), "since": since}
