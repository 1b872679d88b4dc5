"""Which gateway charges what: tests of a plan always the sandbox, everything else what the shop's operator chose."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

import structlog

from ecomcharge.errors import Unusable
from ecomcharge.gateways import base, begateway, sandbox
from ecomcharge.gateways.base import CardDetails, Gateway, Order, Result
from ecomcharge.gateways.begateway import BegatewayGateway
from ecomcharge.gateways.sandbox import SandboxGateway
from ecomcharge.keys import MasterKey
from ecomcharge.shops import store
from ecomcharge.shops.model import FIRST_ACCOUNT, GATEWAY_KEY_PURPOSE
from ecomcharge.storage.database import Database, Transaction

log = structlog.get_logger()

KEPT_SECONDS: Final = 4.0  # a changed setting is felt within five
KEPT_MAXIMUM: Final = 10_000


@dataclass(frozen=True, slots=True)
class Assignment:
    """Where a new subscription is charged. The sandbox has no accounts."""

    gateway: str
    account: str | None


@dataclass(slots=True)
class RefusingGateway:
    """Stands for an account that must not be charged. Nothing is sent; what was charged there before stays unknown."""

    name: str
    message: str
    shop_id: int
    warned: set[tuple[int, str]]  # by shop and message: one warning each

    async def charge(self, order: Order, card: CardDetails | str, now: int) -> Result:
        _warn_once(self.warned, self.shop_id, self.message)
        return Result(base.ERROR, self.message)

    async def look_up(self, shop_id: int, order_id: str, now: int, *, amount: int, currency: str) -> Result | None:
        return Result(base.UNKNOWN, self.message)

    async def refund(
        self, shop_id: int, order_id: str, uid: str | None, now: int, *, amount: int, currency: str, attempt: int
    ) -> Result:
        return Result(base.UNKNOWN, self.message)


@dataclass(frozen=True, slots=True)
class _Kept:
    gateway: Gateway
    good_until: float


class Gateways:
    def __init__(
        self,
        database: Database,
        master_key: MasterKey,
        base_url: str,
        timeout_seconds: float = begateway.TIMEOUT_SECONDS,
    ) -> None:
        self._database = database
        self._master_key = master_key
        self.sandbox = SandboxGateway(database, master_key, base_url)
        self._timeout_seconds = timeout_seconds
        self._client = begateway.shared_client(timeout_seconds)
        self._kept: dict[tuple[int, str], _Kept] = {}
        self._warned: set[tuple[int, str]] = set()

    async def close(self) -> None:
        await self._client.aclose()

    async def assign(self, tx: Transaction, shop_id: int, *, test: bool) -> Assignment:
        """The gateway and the account of a new subscription."""
        if test:
            return Assignment(sandbox.NAME, None)
        choice = await store.gateway_choice(tx, shop_id)
        if choice.gateway != sandbox.NAME:
            return Assignment(choice.gateway, choice.account)
        return Assignment(sandbox.NAME, None)

    async def named(self, name: str, shop_id: int, account: str | None) -> Gateway:
        """The shop's account at a gateway, or what refuses to charge it. ``account`` ``None`` is the shop's first one."""
        if name == sandbox.NAME:
            return self.sandbox
        key = (shop_id, account or FIRST_ACCOUNT)
        kept = self._kept.get(key)
        if kept is None or time.monotonic() >= kept.good_until:
            asked_at = time.monotonic()
            gateway = await self._at_account(name, *key)
            if len(self._kept) >= KEPT_MAXIMUM:
                self._kept.clear()
            kept = self._kept[key] = _Kept(gateway, asked_at + KEPT_SECONDS)
        return kept.gateway

    async def _at_account(self, name: str, shop_id: int, account_id: str) -> Gateway:
        account = await store.find_account(self._database, shop_id, account_id)
        if account is None or account.sealed_key is None:
            return self._refusing(name, shop_id, base.NO_ACCOUNT_MESSAGE)
        try:
            secret_key = self._master_key.unseal(shop_id, account.sealed_key, GATEWAY_KEY_PURPOSE)
        except Unusable as error:
            log.error("key of a gateway account cannot be read", shop=shop_id, account=account_id, why=error.message)
            return self._refusing(name, shop_id, base.NO_ACCOUNT_MESSAGE)
        return BegatewayGateway(self._client, account.url, account.user, secret_key, self._timeout_seconds)

    def _refusing(self, name: str, shop_id: int, message: str) -> Gateway:
        return RefusingGateway(name, message, shop_id, self._warned)


def _warn_once(warned: set[tuple[int, str]], shop_id: int, message: str) -> None:
    if (shop_id, message) not in warned:
        if len(warned) >= KEPT_MAXIMUM:
            warned.clear()
        warned.add((shop_id, message))
        log.warning("charges of a shop are refused", shop=shop_id, why=message)
