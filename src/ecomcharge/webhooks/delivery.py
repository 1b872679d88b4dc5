"""Delivery of webhooks from the outbox. A slow or dead receiver delays only its own webhooks."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
import structlog

from ecomcharge.base.clock import Clock, SystemClock
from ecomcharge.base.errors import ConfigurationError, OutcomeUnknown, Unavailable
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.webhooks import store
from ecomcharge.webhooks.model import (
    DELIVERED,
    GIVEN_UP,
    RETRIES,
    SUCCESS,
    SigningKey,
    Unreachable,
    Webhook,
    fault_of_status,
    headers_of,
    retry_delay,
    skip_attempts,
)
from ecomcharge.webhooks.outbox import signing_key_of

if TYPE_CHECKING:
    from ecomcharge.webhooks.sender import Sender

log = structlog.get_logger()

T = TypeVar("T")

AT_ONCE: Final = 256
AT_ONCE_PER_SHOP: Final = 64
AT_ONCE_PER_RECEIVER: Final = 16
CLAIMED_AT_ONCE: Final = 32
LEAST_LEASE_MILLISECONDS: Final = 90_000  # longer than the longest attempt
SLOW_SEARCH_SECONDS: Final = 0.1
SHARE_OF_SEARCH: Final = 0.3  # largest part of the time for slow searches for due webhooks
LONGEST_REST_SECONDS: Final = 5.0
RACES_LOST: Final = 3  # claims in a row that other workers were faster with; then they are enough
OUTAGE_SECONDS: Final = 30.0  # while the database is unavailable, before and after an attempt
RETRY_SECONDS: Final = 0.5
KEYS_KEPT_SECONDS: Final = 4.0  # a rotated key must be in use within five
_ORIGIN: Final = re.compile(r"[^/]*//[^/?#]*")


@dataclass(frozen=True, slots=True)
class _Keys:
    secret_key: str
    signing_key: SigningKey
    good_until: float


class Delivery:
    """Claims due webhooks and sends them. One per process; any number of processes.

    No receiver and no shop gets more than its share of the attempts in progress. The claim leaves out those that have their
    share, however long their queue is. If the queues are so long that a search past them is slow, the searches are less
    frequent. ``real_clock`` measures leases and the validity of keys, also in a sandbox.
    """

    def __init__(
        self,
        database: Database,
        master_key: MasterKey,
        clock: Clock,
        lease_milliseconds: int = 120_000,
        real_clock: Clock = SystemClock(),  # noqa: B008 - it has no state
        *,
        allow_private: bool,
    ) -> None:
        self._database = database
        self._master_key = master_key
        self._clock = clock
        self._lease_milliseconds = max(lease_milliseconds, LEAST_LEASE_MILLISECONDS)
        self._real_clock = real_clock
        self._next_search = 0.0  # on the monotonic clock
        self._slow = False  # whether the last search was slow
        self._allow_private = allow_private
        self._sender: Sender | None = None  # once there is something to send
        self._chance = random.SystemRandom()
        self._keys: dict[int, _Keys] = {}
        self._deliveries: set[asyncio.Task[None]] = set()
        self._shops: Counter[int] = Counter()
        self._receivers: Counter[str] = Counter()
        self._moving_to: int | None = None  # target of the current move of the sandbox clock
        self._unreachable: dict[str, str] = {}  # receivers and the reason, during a move of the sandbox clock
        self._queue_ends_at: dict[tuple[int, str], int] = {}  # by subscription: when its last skipped attempt was due

    async def round(self, now: int) -> int:
        """Start to send due webhooks; return their number. Does not wait for the receivers."""
        started = lost = 0
        while len(self._deliveries) < AT_ONCE and not self.backoff_seconds() and lost < RACES_LOST:
            wanted = await self._due(now)
            if not wanted:
                break
            claimed = await self._claim(wanted, now)
            left = [webhook for webhook in claimed if not self._begin(webhook)]
            if left:
                await self._release_lease(left)
            started += len(claimed) - len(left)
            lost = 0 if claimed else lost + 1
        return started

    def backoff_seconds(self) -> float:
        """Seconds until the next search, after a slow one."""
        return max(0.0, self._next_search - time.monotonic())

    async def _due(self, now: int) -> list[tuple[int, str]]:
        busy_shops = [shop_id for shop_id, count in self._shops.items() if count >= AT_ONCE_PER_SHOP]
        busy_receivers = [origin for origin, count in self._receivers.items() if count >= AT_ONCE_PER_RECEIVER]
        room = AT_ONCE - len(self._deliveries)
        most = room if self._slow else min(CLAIMED_AT_ONCE, room)  # an expensive search should find many
        began = time.monotonic()
        due = await store.due(self._database, now, self._real_clock.now(), most, busy_shops, busy_receivers)
        took = time.monotonic() - began
        self._slow = took > SLOW_SEARCH_SECONDS
        if self._slow:
            self._next_search = began + took + min(LONGEST_REST_SECONDS, took / SHARE_OF_SEARCH - took)
        return due

    async def _claim(self, wanted: list[tuple[int, str]], now: int) -> list[Webhook]:
        async def unit(tx: Transaction) -> list[Webhook]:
            real_now = self._real_clock.now()
            return await store.claim(tx, wanted, now, real_now, real_now + self._lease_milliseconds)

        return await self._database.write(unit)

    def _begin(self, webhook: Webhook) -> bool:
        """Whether the shop and the receiver have less than their share."""
        shop_id, origin = webhook.shop_id, origin_of(webhook.url)
        if self._shops[shop_id] >= AT_ONCE_PER_SHOP or self._receivers[origin] >= AT_ONCE_PER_RECEIVER:
            return False
        self._shops[shop_id] += 1
        self._receivers[origin] += 1
        task = asyncio.create_task(self._deliver(webhook))
        self._deliveries.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._deliveries.discard(task)
            _count_down(self._shops, shop_id)
            _count_down(self._receivers, origin)

        task.add_done_callback(ended)
        return True

    @contextlib.contextmanager
    def skipping_unreachable_receivers(self, moving_to: int) -> Iterator[None]:
        """While the sandbox clock moves to ``moving_to``, try an unreachable receiver only once.

        Each attempt would be a step of the move, and the attempts of a year take minutes.
        """
        self._moving_to = moving_to
        try:
            yield
        finally:
            self._moving_to = None
            self._unreachable.clear()
            self._queue_ends_at.clear()

    async def wait(self) -> None:
        """Return when no attempt is in progress."""
        while self._deliveries:
            await asyncio.wait(self._deliveries)

    @property
    def is_idle(self) -> bool:
        return not self._deliveries

    async def close(self) -> None:
        for task in self._deliveries:
            task.cancel()
        await asyncio.gather(*self._deliveries, return_exceptions=True)
        if self._sender is not None:
            await self._sender.close()

    async def _release_lease(self, webhooks: list[Webhook]) -> None:
        async def unit(tx: Transaction) -> None:
            for webhook in webhooks:
                await store.release_lease(tx, webhook)

        await _retry_while_unavailable(lambda: self._database.write(unit))

    async def _deliver(self, webhook: Webhook) -> None:
        origin = origin_of(webhook.url)
        try:
            if origin in self._unreachable:
                await self._skip(webhook, self._unreachable[origin])
                return
            keys = await _retry_while_unavailable(lambda: self._keys_of(webhook.shop_id))
            headers = headers_of(webhook, keys.secret_key, keys.signing_key, int(time.time()))
            status, fault = await self._open_sender().post(webhook.url, headers, webhook.body.encode())
            if isinstance(fault, Unreachable) and self._moving_to is not None:
                self._unreachable[origin] = fault
            now = await _retry_while_unavailable(self._clock.read)
            noted = self._after(webhook, status, fault, now)

            async def unit(tx: Transaction) -> bool:
                return await store.note_attempt(tx, noted)

            await _retry_while_unavailable(lambda: self._database.write(unit))
        except Exception:  # the lease ends, and another round tries again
            log.exception("webhook could not be handled", shop=webhook.shop_id, webhook=webhook.id)

    def _open_sender(self) -> Sender:
        from ecomcharge.webhooks.sender import Sender  # takes 14 MiB with its certificates, which a shop without webhooks spares

        if self._sender is None:
            self._sender = Sender(AT_ONCE, allow_private=self._allow_private)
        return self._sender

    async def _skip(self, webhook: Webhook, fault: str) -> None:
        """Skip all attempts that are due before the target of the clock move, in one step.

        The schedule of the next webhook of a subscription starts where the schedule of the one before it ended.
        """
        moving_to = self._moving_to
        if moving_to is None:  # the clock move has ended
            await self._release_lease([webhook])
            return
        queue = (webhook.shop_id, webhook.subscription_id)
        since = max(await _retry_while_unavailable(self._clock.read), self._queue_ends_at.get(queue, 0))
        noted, last = skip_attempts(webhook, since, moving_to, fault, self._chance)

        async def unit(tx: Transaction) -> bool:
            return await store.note_skipped_attempts(tx, noted, webhook.attempts_skipped)

        if not await _retry_while_unavailable(lambda: self._database.write(unit)):
            return
        self._queue_ends_at[queue] = last
        if noted.state == GIVEN_UP:
            log.warning("webhook given up", shop=webhook.shop_id, webhook=webhook.id, attempts=webhook.attempts, status=None)

    def _after(self, webhook: Webhook, status: int | None, fault: str | None, now: int) -> Webhook:
        attempts = webhook.attempts + 1
        error = str(fault) if fault else fault_of_status(status)
        done = msgspec.structs.replace(webhook, attempts=attempts, last_status=status, last_error=error)
        if status == SUCCESS:
            return msgspec.structs.replace(done, state=DELIVERED, due_at=None, delivered_at=now)
        if done.attempts_scheduled > RETRIES:
            log.warning("webhook given up", shop=webhook.shop_id, webhook=webhook.id, attempts=attempts, status=status)
            return msgspec.structs.replace(done, state=GIVEN_UP, due_at=None)
        return msgspec.structs.replace(done, due_at=now + retry_delay(done.attempts_scheduled, self._chance))

    async def _keys_of(self, shop_id: int) -> _Keys:
        known = self._keys.get(shop_id)
        if known is not None and time.monotonic() < known.good_until:
            return known
        asked_at = time.monotonic()
        sealed = await store.newest_sealed_key(self._database, shop_id, self._real_clock.now())
        if sealed is None:
            raise ConfigurationError(f"shop {shop_id} has no key to sign with")
        signing_key = known.signing_key if known else await signing_key_of(self._database, self._master_key, shop_id)
        keys = _Keys(self._master_key.unseal(shop_id, sealed), signing_key, asked_at + KEYS_KEPT_SECONDS)
        if len(self._keys) >= 10_000:
            self._keys.clear()
        self._keys[shop_id] = keys
        return keys


async def _retry_while_unavailable(work: Callable[[], Awaitable[T]]) -> T:
    """Write, and retry for a time while the database is unavailable: an attempt that is not recorded is sent twice."""
    until = time.monotonic() + OUTAGE_SECONDS
    while True:
        try:
            return await work()
        except (Unavailable, OutcomeUnknown):
            if time.monotonic() > until:
                raise
        await asyncio.sleep(RETRY_SECONDS)


def origin_of(url: str) -> str:
    """Scheme, host and port as written. Several spellings of one receiver still have only the share of one shop."""
    match = _ORIGIN.match(url)
    return match[0] if match else ""


def _count_down(counter: Counter[T], key: T) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
