"""Rows of payments."""

from __future__ import annotations

from typing import Final

import msgspec

from ecomcharge.payments.model import Payment
from ecomcharge.storage.database import Database, Row, Transaction

COLUMNS: Final = (
    "id, subscription_id, period, attempt, amount, currency, gateway, status, created_at, uid, message, redirect_url, settled_at,"
    " check_at, check_attempts, gateway_account"
)

INSERT = """
INSERT INTO payments (
    shop_id, id, subscription_id, period, attempt, amount, currency, gateway, status, created_at, uid, message,
    redirect_url, settled_at, check_at, check_attempts, gateway_account
) VALUES (
    :shop_id, :id, :subscription_id, :period, :attempt, :amount, :currency, :gateway, :status, :created_at, :uid, :message,
    :redirect_url, :settled_at, :check_at, :check_attempts, :gateway_account
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

# Another payment that pays the period, or may still pay it.
RIVAL = """
SELECT id FROM payments
WHERE shop_id = :shop_id AND subscription_id = :subscription_id AND period = :period AND id <> :id
AND status IN ('pending', 'unknown', 'incomplete', 'successful') LIMIT 1
"""

# Changes nothing if the status is not the one that was read: then the caller reads again.
SETTLE = """
UPDATE payments SET
    status = :status, uid = :uid, message = :message, redirect_url = :redirect_url, settled_at = :settled_at,
    check_at = :check_at, check_attempts = :check_attempts
WHERE shop_id = :shop_id AND id = :id AND status = :earlier_status
"""

CHECK_LATER = """
UPDATE payments SET check_at = :check_at, check_attempts = :check_attempts
WHERE shop_id = :shop_id AND id = :id AND status = :status
"""

# Claims payments to look up or to refund. The claim is the later date: if the process dies, the payment becomes due again.
CLAIM_CHECKS = """
UPDATE payments SET check_at = :again_at
WHERE (shop_id, id) IN (
    SELECT shop_id, id FROM payments WHERE check_at <= :now ORDER BY check_at LIMIT :limit
) AND check_at <= :now
RETURNING shop_id, id
"""

NEXT_CHECK = "SELECT MIN(check_at) FROM payments WHERE check_at IS NOT NULL"

IS_CHECK_DUE = "SELECT 1 FROM payments WHERE check_at <= :now LIMIT 1"


async def insert(tx: Transaction, shop_id: int, payment: Payment) -> bool:
    """``False`` if the period has a payment under way or done: then no other must be begun."""
    return await tx.insert(INSERT, {"shop_id": shop_id, **msgspec.structs.asdict(payment)})


async def live(reader: Database | Transaction, shop_id: int, subscription_id: str, period: int) -> Payment | None:
    row = await reader.find(LIVE, {"shop_id": shop_id, "subscription_id": subscription_id, "period": period})
    return _payment(row) if row is not None else None


async def find(reader: Database | Transaction, shop_id: int, payment_id: str) -> Payment | None:
    row = await reader.find(FIND, {"shop_id": shop_id, "id": payment_id})
    return _payment(row) if row is not None else None


async def reload(database: Database, shop_id: int, payment: Payment) -> Payment:
    """A payment, which is known to exist, in its current state."""
    found = await find(database, shop_id, payment.id)
    assert found is not None
    return found


async def owner_of(database: Database, payment_id: str) -> tuple[int, Payment] | None:
    """A payment and its shop, for a browser, which knows of no shop."""
    row = await database.find(OWNER, {"id": payment_id})
    return (row[0], _payment(row[1:])) if row is not None else None


async def of_subscription(database: Database, shop_id: int, subscription_id: str) -> list[Payment]:
    rows = await database.rows(OF_SUBSCRIPTION, {"shop_id": shop_id, "subscription_id": subscription_id})
    return [_payment(row) for row in rows]


async def has_rival(tx: Transaction, shop_id: int, payment: Payment) -> bool:
    """Whether another payment pays the same period, or may still pay it."""
    period = {"shop_id": shop_id, "subscription_id": payment.subscription_id, "period": payment.period, "id": payment.id}
    return bool(await tx.rows(RIVAL, period))


async def write_outcome(tx: Transaction, shop_id: int, payment: Payment, earlier_status: str) -> bool:
    """Write the outcome of a payment that had ``earlier_status``. ``False`` if somebody else wrote before: then read again."""
    outcome = {
        "shop_id": shop_id,
        "id": payment.id,
        "status": payment.status,
        "uid": payment.uid,
        "message": payment.message,
        "redirect_url": payment.redirect_url,
        "settled_at": payment.settled_at,
        "check_at": payment.check_at,
        "check_attempts": payment.check_attempts,
        "earlier_status": earlier_status,
    }
    return await tx.run(SETTLE, outcome) > 0


async def check_later(tx: Transaction, shop_id: int, payment: Payment) -> None:
    """Write when to look at the payment again, and how often that came to nothing, unless its status has changed meanwhile."""
    params = {
        "shop_id": shop_id,
        "id": payment.id,
        "status": payment.status,
        "check_at": payment.check_at,
        "check_attempts": payment.check_attempts,
    }
    await tx.run(CHECK_LATER, params)


async def claim_checks(tx: Transaction, now: int, again_at: int, limit: int) -> list[tuple[int, str]]:
    """Up to ``limit`` payments, by shop and id, that are to be looked up or refunded now. They are due again at ``again_at``."""
    return [(row[0], row[1]) for row in await tx.rows(CLAIM_CHECKS, {"now": now, "again_at": again_at, "limit": limit})]


async def next_check(database: Database) -> int | None:
    """When the next payment is to be looked up or refunded."""
    moment: int | None = (await database.rows(NEXT_CHECK, {}))[0][0]
    return moment


async def is_check_due(database: Database, now: int) -> bool:
    return bool(await database.rows(IS_CHECK_DUE, {"now": now}))


def _payment(row: Row) -> Payment:
    return Payment(*row)
