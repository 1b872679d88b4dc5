"""Sends what is in the outbox. A receiver that is slow or dead holds up nobody but itself."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections import Counter
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import httpx
import msgspec
import structlog

from ecomcharge.clock import Clock
from ecomcharge.keys import MasterKey
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.webhooks import store
from ecomcharge.webhooks.actions import signing_key_of
from ecomcharge.webhooks.model import (
    DELIVERED,
    GIVEN_UP,
    RETRIES,
    SUCCESS,
    SigningKey,
    Webhook,
    headers_of,
    is_public,
    retry_delay,
)

log = structlog.get_logger()

AT_ONCE: Final = 256
AT_ONCE_PER_HOST: Final = 8
TIMEOUT_SECONDS: Final = 15.0
LEASE_MILLISECONDS: Final = 120_000  # longer than an attempt takes
BREATH_MILLISECONDS: Final = 500  # for a host that has all it may at once
KEYS_KEPT_SECONDS: Final = 4.0  # a key that was rotated must be felt within five


class Refused(Exception):
    """An address that webhooks do not go to."""


@dataclass(frozen=True, slots=True)
class _Keys:
    secret_key: str
    signing_key: SigningKey
    good_until: float


class Delivery:
    """Claims webhooks that are due and sends them. One per process; any number of processes."""

    def __init__(self, database: Database, master_key: MasterKey, clock: Clock, *, allow_private: bool) -> None:
        self._database = database
        self._master_key = master_key
        self._clock = clock
        self._allow_private = allow_private
        self._client = httpx.AsyncClient(
            timeout=TIMEOUT_SECONDS, follow_redirects=False, trust_env=False, limits=httpx.Limits(max_connections=AT_ONCE)
        )
        self._chance = random.SystemRandom()
        self._keys: dict[int, _Keys] = {}
        self._under_way: set[asyncio.Task[None]] = set()
        self._hosts: Counter[str] = Counter()

    async def round(self, now: int) -> int:
        """Begin to send what is due; how many. Does not wait for the receivers."""
        room = AT_ONCE - len(self._under_way)
        if room <= 0:
            return 0
        real_now = _real_now()

        async def unit(tx: Transaction) -> list[Webhook]:
            return await store.claim(tx, now, real_now, real_now + LEASE_MILLISECONDS, room)

        claimed = await self._database.write(unit)
        crowded = []
        for webhook in claimed:
            host = urlsplit(webhook.url).netloc
            if self._hosts[host] >= AT_ONCE_PER_HOST:
                crowded.append(webhook)
                continue
            self._hosts[host] += 1
            task = asyncio.create_task(self._deliver(webhook, host))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        if crowded:
            await self._put_back(crowded, real_now + BREATH_MILLISECONDS)
        return len(claimed) - len(crowded)

    async def wait(self) -> None:
        """Until every attempt under way has come to its end."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    async def wait_for_one(self, seconds: float) -> None:
        """Until an attempt under way has come to its end, at most so long."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)

    @property
    def is_idle(self) -> bool:
        return not self._under_way

    async def close(self) -> None:
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        await self._client.aclose()

    async def _put_back(self, webhooks: list[Webhook], until: int) -> None:
        async def unit(tx: Transaction) -> None:
            for webhook in webhooks:
                await store.put_back(tx, webhook, until)

        await self._database.write(unit)

    async def _deliver(self, webhook: Webhook, host: str) -> None:
        try:
            status, fault = await self._attempt(webhook)
            noted = self._after(webhook, status, fault)

            async def unit(tx: Transaction) -> bool:
                return await store.note_attempt(tx, noted)

            await self._database.write(unit)
        except Exception:  # whatever it was, the lease runs out and another round tries again
            log.exception("webhook could not be handled", shop=webhook.shop_id, webhook=webhook.id)
        finally:
            self._hosts[host] -= 1
            if not self._hosts[host]:
                del self._hosts[host]

    def _after(self, webhook: Webhook, status: int | None, fault: str | None) -> Webhook:
        now = self._clock.now()
        attempts = webhook.attempts + 1
        done = msgspec.structs.replace(webhook, attempts=attempts, last_status=status, last_error=fault)
        if status == SUCCESS:
            return msgspec.structs.replace(done, state=DELIVERED, due_at=None, delivered_at=now)
        if attempts > RETRIES:
            log.warning("webhook given up", shop=webhook.shop_id, webhook=webhook.id, attempts=attempts, status=status)
            return msgspec.structs.replace(done, state=GIVEN_UP, due_at=None)
        return msgspec.structs.replace(done, due_at=now + retry_delay(attempts, self._chance))

    async def _attempt(self, webhook: Webhook) -> tuple[int | None, str | None]:
        """The receiver's status, or why there is none."""
        try:
            keys = await self._keys_of(webhook.shop_id)
            async with asyncio.timeout(TIMEOUT_SECONDS):
                url, host = await self._reachable(webhook.url)
                headers = headers_of(webhook, keys.secret_key, keys.signing_key, int(time.time()))
                request = self._client.build_request(
                    "POST",
                    url,
                    content=webhook.body.encode(),
                    headers={**headers, "Host": urlsplit(webhook.url).netloc.rpartition("@")[2]},
                    extensions={"sni_hostname": host},
                )
                response = await self._client.send(request, stream=True)
                await response.aclose()  # what the receiver says beyond its status is not read
                return response.status_code, None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError, UnicodeError, Refused) as error:
            return None, str(error) if isinstance(error, Refused) else type(error).__name__

    async def _reachable(self, url: str) -> tuple[str, str]:
        """The URL with an address in place of the name, that was looked at, and the name.

        Connecting to what was looked at, and not to what the name says a moment later. Raises ``Refused``.
        """
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(entry[4][0]) for entry in found]
        if not self._allow_private:
            addresses = [address for address in addresses if is_public(address.partition("%")[0])]
        if not addresses:
            raise Refused("the address is not public; --webhooks-to-private-addresses allows it")
        address = f"[{addresses[0]}]" if ":" in addresses[0] else addresses[0]
        return parts._replace(netloc=f"{address}:{port}", fragment="").geturl(), host

    async def _keys_of(self, shop_id: int) -> _Keys:
        known = self._keys.get(shop_id)
        if known is not None and time.monotonic() < known.good_until:
            return known
        asked_at = time.monotonic()
        sealed = await store.newest_sealed_key(self._database, shop_id, _real_now())
        if sealed is None:
            raise Refused("the shop has no key to sign with")
        signing_key = known.signing_key if known else await signing_key_of(self._database, self._master_key, shop_id)
        keys = _Keys(self._master_key.unseal(shop_id, sealed), signing_key, asked_at + KEYS_KEPT_SECONDS)
        if len(self._keys) >= 10_000:
            self._keys.clear()
        self._keys[shop_id] = keys
        return keys


def _real_now() -> int:
    return time.time_ns() // 1_000_000
