"""SQL of the audit: SELECT statements only."""

from __future__ import annotations

from typing import Final

from ecomcharge.payments import store as payments_store

PAYMENTS_AFTER: Final = f"""
SELECT {payments_store.COLUMNS} FROM payments WHERE shop_id = :shop_id AND id > :after AND id <= :last ORDER BY id LIMIT :limit
"""

# Later payments are left to the next audit. Otherwise an audit of a busy server would not end.
LAST_PAYMENT: Final = """
SELECT MAX(id) FROM (
    SELECT MAX(id) AS id FROM payments WHERE shop_id = :shop_id
    UNION ALL SELECT MAX(id) AS id FROM sandbox_charges WHERE shop_id = :shop_id
) AS newest
"""

PAYMENTS_OF_SUBSCRIPTIONS: Final = f"""
SELECT {payments_store.COLUMNS} FROM payments
WHERE shop_id = :shop_id AND subscription_id >= :first AND subscription_id <= :last
ORDER BY subscription_id, period, attempt, id
"""

EVENTS_OF_SUBSCRIPTIONS: Final = """
SELECT object_id, sequence, type, created_at FROM events
WHERE shop_id = :shop_id AND object_id >= :first AND object_id <= :last ORDER BY object_id, sequence
"""

# An event and its webhook are created at the same time, and the ids begin with that time.
WEBHOOK_OF_EVENT: Final = """
SELECT 1 FROM webhooks
WHERE shop_id = :shop_id AND id >= :first AND id < :last AND subscription_id = :subscription_id AND sequence = :sequence
"""

# For webhooks whose ids begin with another time, because the clock was set back. Reads all webhooks of the shop.
WEBHOOKS_OF_SUBSCRIPTION: Final = """
SELECT sequence FROM webhooks WHERE shop_id = :shop_id AND subscription_id = :subscription_id
"""

SANDBOX_CHARGES_BETWEEN: Final = """
SELECT id, status, amount, currency, refunded_at FROM sandbox_charges
WHERE shop_id = :shop_id AND id > :after AND id <= :last ORDER BY id LIMIT :limit
"""

SANDBOX_CHARGE: Final = """
SELECT id, status, amount, currency, refunded_at FROM sandbox_charges WHERE shop_id = :shop_id AND id = :id
"""
