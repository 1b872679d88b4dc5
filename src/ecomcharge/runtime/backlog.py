"""The backlog for the metrics: due subscriptions, payments without an outcome, and webhooks in the outbox.

Each statement reads a partial index and stops after ``COUNTED_AT_MOST`` entries, so that no table is scanned.
"""

from __future__ import annotations

from typing import Final

from ecomcharge.base.clock import Clock
from ecomcharge.base.ids import moment_of
from ecomcharge.runtime import backlog
from ecomcharge.sandbox.clock import SandboxClock
from ecomcharge.storage.database import Database
from ecomcharge.web.metrics import Backlog, Metrics, Unsettled

COUNTED_AT_MOST: Final = 10_000
SEARCHED_AT_MOST: Final = 1_000  # webhooks: each costs two reads, during which the requests of a server on SQLite wait
REFRESH_SECONDS: Final = 5.0
STALE_SECONDS: Final = 12.0  # after this a server process reads the backlog, because no billing worker does
UNSETTLED: Final = ("pending", "unknown", "incomplete", "refunding")  # the same statuses as in the index payments_unsettled

# Subscriptions of closed shops are not charged.
DUE_SUBSCRIPTIONS: Final = """
SELECT COUNT(*), MIN(due.due_at) FROM (
    SELECT shop_id, due_at FROM subscriptions WHERE due_at <= :now ORDER BY due_at LIMIT :most
) AS due JOIN shops ON shops.shop_id = due.shop_id WHERE shops.closed_at IS NULL
"""

# The list repeats the condition of the index: SQLite uses a partial index only for exactly the same condition.
UNSETTLED_PAYMENTS: Final = " UNION ALL ".join(
    f"""
SELECT '{status}', COUNT(*), MIN(created_at) FROM (
    SELECT created_at FROM payments
    WHERE status = '{status}' AND status IN ('pending', 'unknown', 'incomplete', 'refunding')
    ORDER BY created_at LIMIT :most
) AS {status}_payments
"""
    for status in UNSETTLED
)

PENDING_WEBHOOKS: Final = """
SELECT COUNT(*) FROM (SELECT due_at FROM webhooks WHERE due_at IS NOT NULL LIMIT :most) AS pending
"""

# Due webhooks that do not wait for an earlier one of their subscription. An id starts with its time of creation. With NOT EXISTS
# after WHERE, PostgreSQL may read the whole table for a join. Citus accepts no search for the earlier one outside the limit.
SENDABLE_WEBHOOKS: Final = """
SELECT MIN(id), MIN(due_at) FROM (
    SELECT id, due_at, NOT EXISTS (
        SELECT 1 FROM webhooks AS earlier
        WHERE earlier.shop_id = waiting.shop_id AND earlier.subscription_id = waiting.subscription_id
        AND earlier.sequence < waiting.sequence AND earlier.due_at IS NOT NULL
    ) AS is_next
    FROM webhooks AS waiting WHERE due_at <= :now ORDER BY due_at LIMIT :most
) AS searched WHERE is_next
"""

FAILED_WEBHOOKS: Final = "SELECT COUNT(*) FROM (SELECT shop_id FROM webhooks WHERE state = 'failed' LIMIT :most) AS failed"


async def read_backlog(database: Database, now: int) -> Backlog:
    """Read the backlog. ``now`` is in milliseconds of the clock of due dates: in sandbox mode the sandbox clock."""
    read = database.rows_in_background
    most: dict[str, object] = {"most": COUNTED_AT_MOST}
    due = {"now": now, **most}
    renewals_due, oldest_due = (await read(DUE_SUBSCRIPTIONS, due))[0]
    unsettled = await read(UNSETTLED_PAYMENTS, most)
    oldest_webhook, webhook_due = (await read(SENDABLE_WEBHOOKS, {"now": now, "most": SEARCHED_AT_MOST}))[0]
    return Backlog(
        renewals_due=renewals_due,
        renewals_lag_seconds=_age(now, oldest_due),
        payments={status: Unsettled(count, _age(now, created_at)) for status, count, created_at in unsettled},
        webhooks_pending=(await read(PENDING_WEBHOOKS, most))[0][0],
        webhooks_lag_seconds=_age(now, webhook_due),
        webhooks_oldest_seconds=_age(now, None if oldest_webhook is None else moment_of(oldest_webhook)),
        webhooks_failed=(await read(FAILED_WEBHOOKS, most))[0][0],
    )


def _age(now: int, moment: int | None) -> float:
    """An age in seconds; 0 for no record, and for a time in the future after the clock was set back."""
    return 0.0 if moment is None else max(0, now - moment) / 1000


async def read_and_keep_backlog(database: Database, clock: Clock, metrics: Metrics) -> None:
    if isinstance(clock, SandboxClock):
        await clock.refresh()
    metrics.keep_backlog(await backlog.read_backlog(database, clock.now()))
