"""Rows of payments."""

from __future__ import annotations

from typing import Final

import msgspec

from ecomcharge.payments.model import Payment
from ecomcharge.storage.database import Database, Row, Transaction

COLUMNS: Final = (
    "id, subscription_id, period, attempt, amount, currency, gateway, status, created_at, uid, message, redirect_url, settled_at"
)

INSERT = """
INSERT INTO payments (
    shop_id, id, subscription_id, period, attempt, amount, currency, gateway, status, created_at, uid, message,
    redirect_url, settled_at
) VALUES (
    :shop_id, :id, :subscription_id, :period, :attempt, :amount, :currency, :gateway, :status, :created_at, :uid, :message,
    :redirect_url, :settled_at
) ON CONFLICT DO NOTHING RETURNING shop_id, id, subscription_id
"""

# The payment of a period whose outcome is not known yet; there is one at most.
LIVE = f"""
SELECT {COLUMNS} FROM payments
WHERE shop_id = :shop_id AND subscription_id = :subscription_id AND period = :period
AND status IN ('pending', 'unknown', 'incomplete')
"""

OF_SUBSCRIPTION = f"""
SELECT {COLUMNS} FROM payments WHERE shop_id = :shop_id AND subscription_id = :subscription_id ORDER BY period, attempt, id
"""

FIND = f"SELECT {COLUMNS} FROM payments WHERE shop_id = :shop_id AND id = :id"

OWNER = f"SELECT shop_id, {COLUMNS} FROM payments WHERE id = :id"

# An outcome is written once: whoever comes second changes nothing.
SETTLE = """
UPDATE payments SET status = :status, uid = :uid, message = :message, redirect_url = :redirect_url, settled_at = :settled_at
WHERE shop_id = :shop_id AND id = :id AND status IN ('pending', 'unknown', 'incomplete')
"""


async def insert(tx: Transaction, shop_id: int, payment: Payment) -> bool:
    """``False`` if the period has a payment under way or done: then no other must be begun."""
    return await tx.insert(INSERT, {"shop_id": shop_id, **msgspec.structs.asdict(payment)})


async def live(reader: Database | Transaction, shop_id: int, subscription_id: str, period: int) -> Payment | None:
    row = await reader.find(LIVE, {"shop_id": shop_id, "subscription_id": subscription_id, "period": period})
    return _payment(row) if row is not None else None


async def find(reader: Database | Transaction, shop_id: int, payment_id: str) -> Payment | None:
    row = await reader.find(FIND, {"shop_id": shop_id, "id": payment_id})
    return _payment(row) if row is not None else None


async def owner_of(database: Database, payment_id: str) -> tuple[int, Payment] | None:
    """A payment and its shop, for a browser, which knows of no shop."""
    row = await database.find(OWNER, {"id": payment_id})
    return (row[0], _payment(row[1:])) if row is not None else None


async def of_subscription(database: Database, shop_id: int, subscription_id: str) -> list[Payment]:
    rows = await database.rows(OF_SUBSCRIPTION, {"shop_id": shop_id, "subscription_id": subscription_id})
    return [_payment(row) for row in rows]


async def settle(tx: Transaction, shop_id: int, payment: Payment) -> bool:
    """``False`` if somebody else wrote an outcome before."""
    outcome = {
        "shop_id": shop_id,
        "id": payment.id,
        "status": payment.status,
        "uid": payment.uid,
        "message": payment.message,
        "redirect_url": payment.redirect_url,
        "settled_at": payment.settled_at,
    }
    return await tx.run(SETTLE, outcome) > 0


def _payment(row: Row) -> Payment:
    return Payment(*row)
