"""Idempotency keys: a repeated request gets the response to the first one.

A client sends the key as ``Idempotency-Key`` (IETF draft) or ``RequestID`` (the platform's own header).
The first request with a key is processed; later ones within 24 hours get the same response [P]. The row of the key is written
in the transaction of the request's own work, so that work and response commit together or not at all.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from ecomcharge.base.card_numbers import CARD_NUMBER, RULE, SHORTEST, has_card_number
from ecomcharge.base.clock import SystemClock
from ecomcharge.base.errors import BadParameter, IdempotencyKeyReused, StillRunning, ValidationFailed
from ecomcharge.base.faults import Fault
from ecomcharge.base.validation import message_of
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.storage.records import delete_each
from ecomcharge.storage.statements import Insert, PointRead

KEPT_MILLISECONDS: Final = 24 * 60 * 60 * 1000  # [P]
KEY_MAXIMUM: Final = 255
CREATED: Final = 201
RUNNING_MILLISECONDS: Final = 60_000  # for a row without running_until, as earlier releases wrote it
LONGEST_RETRY_AFTER_SECONDS: Final = 10

_KEY: Final = re.compile(rf"[\x21-\x7e](?:[\x20-\x7e]{{0,{KEY_MAXIMUM - 2}}}[\x21-\x7e])?\Z")
_CANONICAL: Final = msgspec.json.Encoder(order="deterministic")


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A key of a request. Equal requests have equal fingerprints; ``claim`` is different for each request.

    ``other_fingerprints`` are those that the request had under earlier master keys.
    """

    key: str
    fingerprint: str
    other_fingerprints: tuple[str, ...] = ()
    claim: str = field(default_factory=lambda: secrets.token_hex(8))


class StoredResponse(msgspec.Struct, frozen=True, gc=False):  # a frozen dataclass takes ten times as long to make
    """The response that is stored under a key.

    ``location`` is the path of the record that was created or changed. ``version`` and ``updated_at`` (UTC milliseconds)
    are those of the record after a change. The response is not ``final`` if it was stored before the work ended, and the
    process died before it stored the final one.
    """

    status: int
    location: str | None
    body: bytes
    replayed: bool = False
    final: bool = True
    version: int | None = None
    updated_at: int | None = None


def idempotency_key_of(
    key: str | None, route: str, body: bytes, hidden: Callable[[bytes], Sequence[bytes]] = lambda canonical: (canonical,)
) -> IdempotencyKey | None:
    """The idempotency key of a request, or ``None`` without a key. Quotes around the key are not part of it.

    The fingerprint covers the route and the JSON value of ``body``, not its spelling. ``body`` is valid JSON.
    ``hidden`` transforms the canonical JSON before it is hashed, into one form for each master key; it is needed where the body
    contains a secret that could be guessed from a plain digest. Raises ``BadParameter`` for an empty or too long key, or one
    with characters outside printable ASCII, and ``ValidationFailed`` for one that contains a card number.
    """
    if key is None:
        return None
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not _KEY.match(key):
        raise BadParameter(f"Idempotency key must be 1 to {KEY_MAXIMUM} printable ASCII characters")
    if len(key) >= SHORTEST and has_card_number(key):
        errors = {"idempotency_key": [CARD_NUMBER]}
        raise ValidationFailed(message_of(errors), errors, [Fault(("idempotency_key",), CARD_NUMBER, RULE)])
    first, *others = [hashlib.sha256(route.encode() + b"\0" + form).hexdigest() for form in hidden(_canonical(body))]
    return IdempotencyKey(key, first, tuple(others))


def _canonical(body: bytes) -> bytes:
    """Equal bytes for equal JSON values; ``body`` itself if a number in it is out of range."""
    try:
        return _CANONICAL.encode(msgspec.json.decode(body))
    except msgspec.DecodeError:
        return body


CLAIM = Insert(
    "idempotency_keys",
    ("shop_id", "key", "claim", "fingerprint", "created_at", "status", "location", "body", "running_until"),
    key=("shop_id", "key", "claim"),
)

CLAIM_OF_CHANGE = Insert("idempotency_keys", (*CLAIM.columns, "version", "updated_at"), key=CLAIM.key)

FIND = PointRead(
    "idempotency_keys",
    ("fingerprint", "created_at", "status", "location", "body", "running_until", "version", "updated_at"),
    key=("shop_id", "key"),
)

FINISH = """
UPDATE idempotency_keys SET status = :status, body = :body
WHERE shop_id = :shop_id AND key = :key AND claim = :claim
"""

DELETE_OLD = "DELETE FROM idempotency_keys WHERE shop_id = :shop_id AND key = :key AND created_at <= :created_at"

OLD = """
SELECT key FROM idempotency_keys
WHERE shop_id = :shop_id AND created_at <= :created_at AND COALESCE(running_until, 0) <= :real_now
ORDER BY created_at LIMIT :limit
"""


async def claim_or_replay(
    tx: Transaction,
    shop_id: int,
    key: IdempotencyKey,
    response: StoredResponse,
    now: int,
    real_now: int | None = None,
    running_until: int | None = None,
) -> StoredResponse | None:
    """Store ``response`` under the key and return ``None``, or return the stored response of an earlier request.

    Must be called before the work is written: if it returns a response, there is no work to do.
    With ``running_until`` (UTC milliseconds of the real clock, as ``real_now``) the work goes on after this transaction:
    ``response`` is returned only if the process dies, and ``finish`` replaces it with the final response.
    Raises ``IdempotencyKeyReused`` if the earlier request was a different one, and ``StillRunning`` if it has no final response
    yet and may still be running.
    """
    status = response.status if running_until is None else None
    names = (shop_id, key.key, key.claim, key.fingerprint)
    claim: tuple[object, ...] = (*names, now, status, response.location, response.body.decode(), running_until)
    insert = CLAIM
    if response.version is not None:
        insert, claim = CLAIM_OF_CHANGE, (*claim, response.version, response.updated_at)
    if await tx.insert(insert, claim):
        return None
    earlier = await earlier_response(tx, shop_id, key, now, real_now)
    if earlier is not None:
        return earlier
    await tx.run(DELETE_OLD, {"shop_id": shop_id, "key": key.key, "created_at": now - KEPT_MILLISECONDS})
    if await tx.insert(insert, claim):
        return None
    raise StillRunning


async def earlier_response(
    tx: Transaction, shop_id: int, key: IdempotencyKey, now: int, real_now: int | None = None
) -> StoredResponse | None:
    """The stored response of an earlier request; ``None`` if there is none, or if it is older than 24 hours.

    Raises as ``claim_or_replay``. A request that may still be running is never too old, even if the sandbox clock was moved.
    """
    row = await tx.find(FIND, (shop_id, key.key))
    if row is None:
        return None
    fingerprint, created_at, status, location, body, running_until, version, updated_at = row
    if running_until is None:
        running_until = created_at + RUNNING_MILLISECONDS
    left = running_until - (now if real_now is None else real_now)
    runs = status is None and (body is None or left > 0)
    if created_at <= now - KEPT_MILLISECONDS and not runs:
        return None
    if fingerprint != key.fingerprint and fingerprint not in key.other_fingerprints:
        raise IdempotencyKeyReused
    if runs:
        raise StillRunning(_retry_after_seconds(now - created_at, left))
    return StoredResponse(status or CREATED, location, body.encode(), True, status is not None, version, updated_at)


def _retry_after_seconds(age: int, left: int) -> int:
    """As long as the request has been running, so that a client asks seldom, and at most until it must have ended."""
    return max(1, min(age // 1000, -(-left // 1000), LONGEST_RETRY_AFTER_SECONDS))


async def finish(tx: Transaction, shop_id: int, key: IdempotencyKey, response: StoredResponse) -> None:
    """Store the final response of a request that claimed its key with ``running_until``."""
    params = {
        "shop_id": shop_id,
        "key": key.key,
        "claim": key.claim,
        "status": response.status,
        "body": response.body.decode(),
    }
    await tx.run(FINISH, params)


async def forget_some_old(database: Database, shop_id: int, now: int, limit: int) -> int:
    """Delete up to ``limit`` keys of a shop that are older than 24 hours. Returns their number."""
    real_now = SystemClock().now()
    old = {"shop_id": shop_id, "created_at": now - KEPT_MILLISECONDS, "real_now": real_now, "limit": limit}
    each = {"shop_id": shop_id, "created_at": now - KEPT_MILLISECONDS}
    return await delete_each(database, OLD, old, DELETE_OLD, lambda row: {**each, "key": row[0]})
