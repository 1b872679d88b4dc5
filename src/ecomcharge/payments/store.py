"""SQL of payments."""

from __future__ import annotations

from typing import Final

import msgspec

from ecomcharge.payments.model import Payment
from ecomcharge.storage.database import Database, Reader, Row, Transaction
from ecomcharge.storage.statements import Insert, PointRead

FIELDS: Final = Payment.__struct_fields__
COLUMNS: Final = ", ".join(FIELDS)

INSERT = Insert("payments", ("shop_id", *FIELDS), key=("shop_id", "id", "subscription_id"))

FIND = PointRead("payments", FIELDS, key=("shop_id", "id"))

FIND_WITH_SHOP = PointRead("payments", ("shop_id", *FIELDS), key=("id",))

# The payment of a period without a known outcome; there is at most one.
LIVE = PointRead(
    "payments",
    FIELDS,
    key=("shop_id", "subscription_id", "period"),
    suffix="AND status IN ('pending', 'unknown', 'incomplete')",
)

OF_SUBSCRIPTION = f"""
SELECT {COLUMNS} FROM payments WHERE shop_id = :shop_id AND subscription_id = :subscription_id ORDER BY period, attempt, id
"""

# Another payment that paid the period or can still pay it.
RIVAL = """
SELECT id FROM payments
WHERE shop_id = :shop_id AND subscription_id = :subscription_id AND period = :period AND id <> :id
AND status IN ('pending', 'unknown', 'incomplete', 'successful') LIMIT 1
"""

# Changes nothing if the status has changed since it was read; the caller then reads again.
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

# Claims payments for a look-up or a refund. The claim sets a later date: if the process dies, the payment becomes due again.
CLAIM_CHECKS = """
UPDATE payments SET check_at = :again_at
WHERE (shop_id, id) IN (
    SELECT shop_id, id FROM payments WHERE check_at <= :now ORDER BY check_at LIMIT :limit
) AND check_at <= :now
RETURNING shop_id, id
"""

NEXT_CHECK = "SELECT MIN(check_at) FROM payments WHERE check_at IS NOT NULL"

IS_CHECK_DUE = "SELECT 1 FROM payments WHERE check_at <= :now ORDER BY check_at LIMIT 1"


async def insert(tx: Transaction, shop_id: int, payment: Payment) -> bool:
    """``False`` if the period has a payment that is in progress or successful: no other may start."""
    return await tx.insert(INSERT, (shop_id, *msgspec.structs.astuple(payment)))


async def live(reader: Database | Transaction, shop_id: int, subscription_id: str, period: int) -> Payment | None:
    row = await reader.find(LIVE, (shop_id, subscription_id, period))
    return _payment(row) if row is not None else None


async def find(reader: Database | Transaction, shop_id: int, payment_id: str) -> Payment | None:
    row = await reader.find(FIND, (shop_id, payment_id))
    return _payment(row) if row is not None else None


async def reload(database: Database, shop_id: int, payment: Payment) -> Payment:
    """A payment, which is known to exist, in its current state."""
    found = await find(database, shop_id, payment.id)
    assert found is not None
    return found


async def owner_of(database: Database, payment_id: str) -> tuple[int, Payment] | None:
    """A payment and its shop id, for requests of browsers, which have no shop."""
    row = await database.find(FIND_WITH_SHOP, (payment_id,))
    return (row[0], _payment(row[1:])) if row is not None else None


async def of_subscription(database: Reader, shop_id: int, subscription_id: str) -> list[Payment]:
    rows = await database.rows(OF_SUBSCRIPTION, {"shop_id": shop_id, "subscription_id": subscription_id})
    return [_payment(row) for row in rows]


async def has_rival(tx: Transaction, shop_id: int, payment: Payment) -> bool:
    """Whether another payment paid the same period or can still pay it."""
    period = {"shop_id": shop_id, "subscription_id": payment.subscription_id, "period": payment.period, "id": payment.id}
    return bool(await tx.rows(RIVAL, period))


async def write_outcome(tx: Transaction, shop_id: int, payment: Payment, earlier_status: str) -> bool:
    """Write the outcome of a payment that had ``earlier_status``. ``False`` if another process wrote first: read again."""
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
    """Write the time of the next check and the number of checks without a result, unless the status has changed."""
    params = {
        "shop_id": shop_id,
        "id": payment.id,
        "status": payment.status,
        "check_at": payment.check_at,
        "check_attempts": payment.check_attempts,
    }
    await tx.run(CHECK_LATER, params)


async def claim_checks(tx: Transaction, now: int, again_at: int, limit: int) -> list[tuple[int, str]]:
    """Claim up to ``limit`` due payments, by shop and id. They become due again at ``again_at``."""
    return [(row[0], row[1]) for row in await tx.run_returning(CLAIM_CHECKS, {"now": now, "again_at": again_at, "limit": limit})]


async def next_check(database: Database) -> int | None:
    """When the next look-up or refund is due."""
    moment: int | None = (await database.rows(NEXT_CHECK, {}))[0][0]
    return moment


async def is_check_due(database: Database, now: int) -> bool:
    return bool(await database.rows(IS_CHECK_DUE, {"now": now}))


def _payment(row: Row) -> Payment:
    return Payment(*row)
