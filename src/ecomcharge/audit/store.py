"""SQL of the audit. It only reads."""

from __future__ import annotations

from typing import Final

from ecomcharge.payments import store as payments_store

PAYMENTS_AFTER: Final = f"""
SELECT {payments_store.COLUMNS} FROM payments WHERE shop_id = :shop_id AND id > :after AND id <= :last ORDER BY id LIMIT :limit
"""


# What is created later is left to the next audit: otherwise a busy server would never let one end.
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


# Event and webhook are written with one time, which their ids begin with.
WEBHOOK_OF_THAT_TIME: Final = """
SELECT 1 FROM webhooks
WHERE shop_id = :shop_id AND id >= :first AND id < :last AND subscription_id = :subscription_id AND sequence = :sequence
"""


# For ids that do not begin with it, as when the clock was set back. It reads all webhooks of the shop.
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
