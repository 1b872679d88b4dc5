"""Rows of webhooks: the outbox."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_lowercase
from typing import Final

import msgspec

from ecomcharge.base.ids import WEBHOOK_PREFIX, first_id_at
from ecomcharge.events.model import KEPT_MILLISECONDS
from ecomcharge.storage.database import Database, Reader, Row, Transaction
from ecomcharge.storage.records import delete_each
from ecomcharge.storage.statements import Insert, PointRead
from ecomcharge.webhooks.model import DELIVERED, Webhook

FIELDS: Final = Webhook.__struct_fields__
COLUMNS: Final = ", ".join(FIELDS)

INSERT = Insert("webhooks", (*FIELDS, "leased_until"), key=("shop_id", "id"))

FIND = PointRead("webhooks", FIELDS, key=("shop_id", "id"))

# Due webhooks without a lease. Those of one subscription are sent in order: an undelivered earlier one goes first. The search
# runs outside the claiming transaction, because the queue of a dead receiver may be long.
DUE = """
SELECT shop_id, id FROM webhooks AS waiting
WHERE due_at <= :now AND leased_until <= :real_now AND NOT EXISTS (
    SELECT 1 FROM webhooks AS earlier
    WHERE earlier.shop_id = waiting.shop_id AND earlier.subscription_id = waiting.subscription_id
    AND earlier.sequence < waiting.sequence AND earlier.due_at IS NOT NULL
) {others}
ORDER BY due_at LIMIT :limit
"""

CLAIM = f"""
UPDATE webhooks SET leased_until = :leased_until
WHERE shop_id = :shop_id AND id = :id AND due_at <= :now AND leased_until <= :real_now
RETURNING {COLUMNS}
"""

OF_OTHER_SHOPS = "AND shop_id <> :{name}"

OF_OTHER_RECEIVERS = "AND substr(replace(replace(url, '?', '/'), '#', '/') || '/', 1, length(:{name})) <> :{name}"

# Changes nothing if another attempt was recorded since: the lease may have ended.
NOTE_ATTEMPT = """
UPDATE webhooks SET
    state = :state, attempts = :attempts, due_at = :due_at, leased_until = 0, last_status = :last_status,
    last_error = :last_error, delivered_at = :delivered_at
WHERE shop_id = :shop_id AND id = :id AND attempts = :attempts - 1 AND due_at IS NOT NULL
"""

NOTE_SKIPPED_ATTEMPTS = """
UPDATE webhooks SET
    state = :state, attempts_skipped = :attempts_skipped, due_at = :due_at, leased_until = 0, last_error = :last_error
WHERE shop_id = :shop_id AND id = :id AND attempts = :attempts AND attempts_skipped = :skipped_before AND due_at IS NOT NULL
"""

PUT_BACK = "UPDATE webhooks SET leased_until = 0 WHERE shop_id = :shop_id AND id = :id AND attempts = :attempts"

REDELIVER = """
UPDATE webhooks SET state = 'pending', due_at = :now, attempts = 0, attempts_skipped = 0, leased_until = 0
WHERE shop_id = :shop_id AND id = :id
"""

# Keeps the lease: an attempt in progress records nothing, because the webhook is not due any more.
SKIP = """
UPDATE webhooks SET state = :state, due_at = NULL, last_error = :last_error
WHERE shop_id = :shop_id AND id = :id AND due_at IS NOT NULL
"""

UNDELIVERED_WITH_STATE = (
    "AND state = :state AND state <> 'delivered'"  # both engines use the partial index only for its own condition
)

NEWEST = f"SELECT {COLUMNS} FROM webhooks WHERE shop_id = :shop_id {{matching}} ORDER BY id DESC LIMIT :limit"

OF_SUBSCRIPTION = f"SELECT {COLUMNS} FROM webhooks WHERE shop_id = :shop_id AND subscription_id = :subscription_id ORDER BY id"

NEXT_DUE = "SELECT MIN(due_at) FROM webhooks WHERE due_at > :now"

IS_NEXT_AND_DUE = """
SELECT 1 FROM webhooks AS waiting WHERE due_at <= :now AND NOT EXISTS (
    SELECT 1 FROM webhooks AS earlier
    WHERE earlier.shop_id = waiting.shop_id AND earlier.subscription_id = waiting.subscription_id
    AND earlier.sequence < waiting.sequence AND earlier.due_at IS NOT NULL
) ORDER BY due_at LIMIT 1
"""

IS_DUE = "SELECT 1 FROM webhooks WHERE due_at <= :now ORDER BY due_at LIMIT 1"

OLD = "SELECT id FROM webhooks WHERE shop_id = :shop_id AND id < :oldest AND due_at IS NULL ORDER BY id LIMIT :limit"

DELETE_OLD = "DELETE FROM webhooks WHERE shop_id = :shop_id AND id = :id AND due_at IS NULL"

SIGNING_KEY = PointRead("shops", ("sealed_signing_key", "public_key"), key=("shop_id",))

KEEP_SIGNING_KEY = """
UPDATE shops SET sealed_signing_key = :sealed, public_key = :public
WHERE shop_id = :shop_id AND sealed_signing_key IS NULL
"""

NEWEST_KEY = """
SELECT sealed_key FROM shop_keys
WHERE shop_id = :shop_id AND (expires_at IS NULL OR expires_at > :now)
ORDER BY created_at DESC LIMIT 1
"""


async def insert(tx: Transaction, webhook: Webhook) -> bool:
    """``False`` if the id is taken."""
    return await tx.insert(INSERT, (*msgspec.structs.astuple(webhook), 0))


async def due(
    database: Database,
    now: int,
    real_now: int,
    limit: int,
    busy_shops: Sequence[int] = (),
    busy_receivers: Sequence[str] = (),
) -> list[tuple[int, str]]:
    """Up to ``limit`` due webhooks without a lease, by shop and id, without those shops and receivers (``https://host:port``)."""
    shops = dict(zip((f"shop_{letter}" for letter in ascii_lowercase), busy_shops, strict=False))
    receivers = dict(zip((f"receiver_{letter}" for letter in ascii_lowercase), (f"{o}/" for o in busy_receivers), strict=False))
    others = [
        *(OF_OTHER_SHOPS.format(name=name) for name in shops),
        *(OF_OTHER_RECEIVERS.format(name=name) for name in receivers),
    ]
    params = {"now": now, "real_now": real_now, "limit": limit, **shops, **receivers}
    return [(row[0], row[1]) for row in await database.rows(DUE.format(others=" ".join(others)), params)]


async def claim(tx: Transaction, wanted: Sequence[tuple[int, str]], now: int, real_now: int, leased_until: int) -> list[Webhook]:
    """Claim the given webhooks; return those that were still due and without a lease."""
    claimed: list[Webhook] = []
    for shop_id, id in sorted(wanted):  # the same order in all workers prevents deadlocks
        params = {"shop_id": shop_id, "id": id, "now": now, "real_now": real_now, "leased_until": leased_until}
        claimed += [_webhook(row) for row in await tx.run_returning(CLAIM, params)]
    return claimed


async def note_attempt(tx: Transaction, webhook: Webhook) -> bool:
    """Record the result of an attempt. ``False`` if another process recorded one since."""
    names = ("shop_id", "id", "state", "attempts", "due_at", "last_status", "last_error", "delivered_at")
    return await tx.run(NOTE_ATTEMPT, {name: getattr(webhook, name) for name in names}) > 0


async def note_skipped_attempts(tx: Transaction, webhook: Webhook, skipped_before: int) -> bool:
    """Record skipped attempts. ``False`` if another process made or skipped one since."""
    names = ("shop_id", "id", "state", "attempts", "attempts_skipped", "due_at", "last_error")
    params = {name: getattr(webhook, name) for name in names}
    return await tx.run(NOTE_SKIPPED_ATTEMPTS, {**params, "skipped_before": skipped_before}) > 0


async def release_lease(tx: Transaction, webhook: Webhook) -> None:
    """End the lease, so that another process can send the webhook."""
    await tx.run(PUT_BACK, {"shop_id": webhook.shop_id, "id": webhook.id, "attempts": webhook.attempts})


async def redeliver(tx: Transaction, shop_id: int, webhook_id: str, now: int) -> bool:
    return await tx.run(REDELIVER, {"shop_id": shop_id, "id": webhook_id, "now": now}) > 0


async def find(reader: Database | Transaction, shop_id: int, webhook_id: str) -> Webhook | None:
    row = await reader.find(FIND, (shop_id, webhook_id))
    return _webhook(row) if row is not None else None


async def of_subscription(database: Reader, shop_id: int, subscription_id: str) -> list[Webhook]:
    rows = await database.rows(OF_SUBSCRIPTION, {"shop_id": shop_id, "subscription_id": subscription_id})
    return [_webhook(row) for row in rows]


async def skip(tx: Transaction, webhook: Webhook) -> bool:
    """Write a skipped webhook. ``False`` if it was delivered or given up since."""
    return await tx.run(SKIP, {name: getattr(webhook, name) for name in ("shop_id", "id", "state", "last_error")}) > 0


async def newest(database: Database, shop_id: int, limit: int, state: str | None = None) -> list[Webhook]:
    matching = "" if state is None else "AND state = :state" if state == DELIVERED else UNDELIVERED_WITH_STATE
    params = {"shop_id": shop_id, "limit": limit, **({} if state is None else {"state": state})}
    return [_webhook(row) for row in await database.rows(NEWEST.format(matching=matching), params)]


async def next_due(database: Database, now: int) -> int | None:
    """When the next attempt after ``now`` is due that does not wait for an earlier webhook of its subscription."""
    moment: int | None = (await database.rows(NEXT_DUE, {"now": now}))[0][0]
    return moment


async def is_next_and_due(database: Database, now: int) -> bool:
    """Whether a webhook is due that waits for no earlier one of its subscription. It may have a lease."""
    return bool(await database.rows(IS_NEXT_AND_DUE, {"now": now}))


async def is_due(database: Database, now: int) -> bool:
    return bool(await database.rows(IS_DUE, {"now": now}))


async def forget_some_old(database: Database, shop_id: int, now: int, limit: int) -> int:
    """Delete up to ``limit`` ended webhooks of a shop that are older than the retention time; return their number."""
    oldest = first_id_at(WEBHOOK_PREFIX, max(0, now - KEPT_MILLISECONDS))
    old = {"shop_id": shop_id, "oldest": oldest, "limit": limit}
    return await delete_each(database, OLD, old, DELETE_OLD, lambda row: {"shop_id": shop_id, "id": row[0]})


async def signing_key(database: Database, shop_id: int) -> tuple[str | None, str | None] | None:
    """The encrypted private key and the public key of a shop; ``None`` for an unknown shop."""
    row = await database.find(SIGNING_KEY, (shop_id,))
    return (row[0], row[1]) if row is not None else None


async def keep_signing_key(tx: Transaction, shop_id: int, sealed: str, public: str) -> bool:
    """``False`` if the shop has a key already, which is kept."""
    return await tx.run(KEEP_SIGNING_KEY, {"shop_id": shop_id, "sealed": sealed, "public": public}) > 0


async def newest_sealed_key(database: Database, shop_id: int, now: int) -> str | None:
    rows = await database.rows(NEWEST_KEY, {"shop_id": shop_id, "now": now})
    return rows[0][0] if rows else None


def _webhook(row: Row) -> Webhook:
    return Webhook(*row)
