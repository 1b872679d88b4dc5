"""The same key, the same answer.

A client names its attempt with ``Idempotency-Key`` (IETF draft) or ``RequestID`` (the platform's own header).
The first attempt is processed; later ones within 24 hours get its answer again [P]. The row is written in the
transaction of the work itself, so that work and answer commit together or not at all.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from ecomcharge.base.clock import SystemClock
from ecomcharge.base.errors import BadParameter, IdempotencyKeyReused, StillRunning
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.storage.records import execute
from ecomcharge.storage.statements import Insert, PointRead

KEPT_MILLISECONDS: Final = 24 * 60 * 60 * 1000  # [P]
KEY_MAXIMUM: Final = 255
CREATED: Final = 201
RUNNING_MILLISECONDS: Final = 60_000  # of an attempt whose row does not say until when it may run, as earlier releases wrote

_KEY: Final = re.compile(rf"[\x21-\x7e](?:[\x20-\x7e]{{0,{KEY_MAXIMUM - 2}}}[\x21-\x7e])?\Z")
_CANONICAL: Final = msgspec.json.Encoder(order="deterministic")


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A keyed request: ``fingerprint`` tells whether two attempts ask for the same, ``claim`` tells attempts apart."""

    key: str
    fingerprint: str
    claim: str = field(default_factory=lambda: secrets.token_hex(8))


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """What was answered, or will be answered again.

    One that is not ``final`` was kept before the work was done, and the work died before its last word.
    """

    status: int
    location: str | None
    body: bytes
    replayed: bool = False
    final: bool = True


def idempotency_key_of(
    key: str | None, route: str, body: bytes, hidden: Callable[[bytes], bytes] = lambda meaning: meaning
) -> IdempotencyKey | None:
    """The attempt that a key names, or ``None`` without one. Quotes around the key are not part of it.

    The fingerprint covers the route and what the JSON means, not how it is spelled. ``body`` is valid JSON;
    ``hidden`` makes something of it that may be kept, where it may hold what must not be guessed from a plain digest.
    Raises ``BadParameter`` for an empty or overlong key or one with characters outside printable ASCII.
    """
    if key is None:
        return None
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not _KEY.match(key):
        raise BadParameter(f"Idempotency key must be 1 to {KEY_MAXIMUM} printable ASCII characters")
    fingerprint = hashlib.sha256(route.encode() + b"\0" + hidden(_meaning_of(body))).hexdigest()
    return IdempotencyKey(key, fingerprint)


def _meaning_of(body: bytes) -> bytes:
    """The same bytes for the same JSON, however it is spelled; the bytes as they are where numbers are out of range."""
    try:
        return _CANONICAL.encode(msgspec.json.decode(body))
    except msgspec.DecodeError:
        return body


CLAIM = Insert(
    "idempotency_keys",
    ("shop_id", "key", "claim", "fingerprint", "created_at", "status", "location", "body", "running_until"),
    key=("shop_id", "key", "claim"),
)

FIND = PointRead(
    "idempotency_keys",
    ("fingerprint", "created_at", "status", "location", "body", "running_until"),
    key=("shop_id", "key"),
)

FINISH = """
UPDATE idempotency_keys SET status = :status, body = :body
WHERE shop_id = :shop_id AND key = :key AND claim = :claim
"""

FORGET = "DELETE FROM idempotency_keys WHERE shop_id = :shop_id AND key = :key AND created_at <= :created_at"

FORGET_SOME_OLD = """
DELETE FROM idempotency_keys WHERE shop_id = :shop_id AND key IN (
    SELECT key FROM idempotency_keys
    WHERE shop_id = :shop_id AND created_at <= :created_at AND COALESCE(running_until, 0) <= :real_now LIMIT :limit
)
"""


async def claim_or_replay(
    tx: Transaction,
    shop_id: int,
    attempt: IdempotencyKey,
    answer: StoredResponse,
    now: int,
    real_now: int | None = None,
    running_until: int | None = None,
) -> StoredResponse | None:
    """Keep ``answer`` under the attempt's key and return ``None``, or return what an earlier attempt was answered.

    To be called before the work is written: when an answer comes back, there is nothing left to do.
    With ``running_until`` (UTC milliseconds of the real clock, as ``real_now``) the answer is what to say should the work die;
    ``finish`` puts the last word in its place.
    Raises ``IdempotencyKeyReused`` when the earlier attempt asked for something else, ``StillRunning`` when
    it has no last word yet and may still come to one.
    """
    status = answer.status if running_until is None else None
    named = (shop_id, attempt.key, attempt.claim, attempt.fingerprint)
    claim = (*named, now, status, answer.location, answer.body.decode(), running_until)
    if await tx.insert(CLAIM, claim):
        return None
    earlier = await earlier_response(tx, shop_id, attempt, now, real_now)
    if earlier is not None:
        return earlier
    await tx.run(FORGET, {"shop_id": shop_id, "key": attempt.key, "created_at": now - KEPT_MILLISECONDS})
    if await tx.insert(CLAIM, claim):
        return None
    raise StillRunning


async def earlier_response(
    tx: Transaction, shop_id: int, attempt: IdempotencyKey, now: int, real_now: int | None = None
) -> StoredResponse | None:
    """What an earlier attempt with the key was answered; ``None`` without one, or when it is too old to be kept.

    Raises as ``claim_or_replay``. An attempt that may still run is never too old, wherever a sandbox's clock has gone.
    """
    row = await tx.find(FIND, (shop_id, attempt.key))
    if row is None:
        return None
    fingerprint, created_at, status, location, body, running_until = row
    if running_until is None:
        running_until = created_at + RUNNING_MILLISECONDS
    runs = status is None and (body is None or (now if real_now is None else real_now) < running_until)
    if created_at <= now - KEPT_MILLISECONDS and not runs:
        return None
    if fingerprint != attempt.fingerprint:
        raise IdempotencyKeyReused
    if runs:
        raise StillRunning
    return StoredResponse(status or CREATED, location, body.encode(), replayed=True, final=status is not None)


async def finish(tx: Transaction, shop_id: int, attempt: IdempotencyKey, answer: StoredResponse) -> None:
    """The last word on an attempt whose answer was not final."""
    params = {
        "shop_id": shop_id,
        "key": attempt.key,
        "claim": attempt.claim,
        "status": answer.status,
        "body": answer.body.decode(),
    }
    await tx.run(FINISH, params)


async def forget_some_old(database: Database, shop_id: int, now: int, limit: int) -> int:
    """Delete up to ``limit`` keys of a shop that are no longer kept; how many there were."""
    real_now = SystemClock().now()
    params = {"shop_id": shop_id, "created_at": now - KEPT_MILLISECONDS, "real_now": real_now, "limit": limit}
    return await execute(database, FORGET_SOME_OLD, params)
