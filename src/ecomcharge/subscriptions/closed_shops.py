"""Subscriptions of a closed shop: their due dates are parked, and restored when the shop opens.

Both happen in transactions that lock the shop's row, so that no date is parked in a shop that has just opened.
"""

from __future__ import annotations

from typing import Final

from ecomcharge.base.errors import RecordNotFound
from ecomcharge.shops import store as shops
from ecomcharge.shops.model import validate_shop_id
from ecomcharge.storage.database import Database, Transaction

PARK: Final = """
UPDATE subscriptions SET version = version + 1, parked_at = due_at, due_at = NULL, leased_until = 0
WHERE shop_id = :shop_id AND id = :id AND version = :version AND due_at IS NOT NULL
"""

# A late outcome may have set a new due date or ended the subscription; then its result is kept.
UNPARK: Final = """
UPDATE subscriptions SET
    version = version + 1,
    due_at = CASE
        WHEN due_at IS NULL AND state NOT IN ('failed', 'error', 'expired', 'canceled') THEN parked_at
        ELSE due_at
    END,
    parked_at = NULL
WHERE shop_id = :shop_id AND parked_at IS NOT NULL
"""


async def park(database: Database, shop_id: int, subscription_id: str, version: int) -> bool:
    """Park the due date of a subscription. ``False`` if the shop is open or the subscription changed."""
    params = {"shop_id": shop_id, "id": subscription_id, "version": version}

    async def unit(tx: Transaction) -> bool:
        if await shops.lock_open_shop(tx, shop_id, database.engine):
            return False
        return await tx.run(PARK, params) > 0

    return await database.write(unit)


async def open_shop(database: Database, *, shop_id: int) -> int:
    """Open a closed shop; return the number of restored due dates. Opening an open shop changes nothing.

    Raises ``RecordNotFound`` for a shop that does not exist.
    """
    validate_shop_id(shop_id)

    async def unit(tx: Transaction) -> int:
        if await shops.find_shop(tx, shop_id) is None:
            raise RecordNotFound(f"no shop {shop_id}")
        await shops.open_shop(tx, shop_id)
        return await tx.run(UNPARK, {"shop_id": shop_id})

    return await database.write(unit)
