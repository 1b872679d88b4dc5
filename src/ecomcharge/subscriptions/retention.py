"""Customers without activity, which a shop need not keep any longer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from ecomcharge.base.ids import CUSTOMER_PREFIX, first_id_at
from ecomcharge.storage.database import Database
from ecomcharge.storage.records import PER_CHUNK

# Activity is the creation or a change of the customer, a subscription that has not ended, and the creation, the paid time,
# the end and the payments of a subscription. It reads all customers of the shop, so no request runs it.
INACTIVE: Final = """
SELECT id FROM customers
WHERE shop_id = :shop_id AND id > :after AND id < :first_id_since AND COALESCE(updated_at, 0) < :since
AND NOT EXISTS (
    SELECT 1 FROM subscriptions
    WHERE subscriptions.shop_id = customers.shop_id AND subscriptions.customer_id = customers.id AND (
        subscriptions.state NOT IN ('failed', 'error', 'expired', 'canceled')
        OR subscriptions.created_at >= :since OR COALESCE(subscriptions.active_to, 0) >= :since
        OR COALESCE(subscriptions.cancelled_at, 0) >= :since
        OR EXISTS (
            SELECT 1 FROM payments
            WHERE payments.shop_id = subscriptions.shop_id AND payments.subscription_id = subscriptions.id
            AND payments.created_at >= :since
        )
    )
)
ORDER BY id LIMIT :limit
"""


async def inactive_customers(database: Database, shop_id: int, since: int) -> AsyncIterator[str]:
    """The ids of the customers of a shop without activity since a moment (UTC milliseconds), in order of creation."""
    params = {"shop_id": shop_id, "first_id_since": first_id_at(CUSTOMER_PREFIX, since), "since": since, "limit": PER_CHUNK}
    last = ""
    while True:
        rows = await database.rows(INACTIVE, {**params, "after": last})
        for row in rows:
            yield row[0]
        if len(rows) < PER_CHUNK:
            return
        last = rows[-1][0]
