"""The choice of the gateway: the sandbox for test plans, otherwise the gateway that the operator chose for the shop.

Sandbox and real money do not mix. A server in sandbox mode uses no gateway on another machine. Outside sandbox mode the sandbox
gateway charges for a shop only if the operator chose it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from ecomcharge.base.errors import ConfigurationError, ValidationFailed
from ecomcharge.base.faults import GATEWAY_NOT_CHOSEN, Fault, ValueRule
from ecomcharge.base.validation import BASE
from ecomcharge.gateways import base, sandbox
from ecomcharge.gateways.base import CardDetails, Gateway, Order, Result
from ecomcharge.gateways.sandbox import SandboxGateway
from ecomcharge.shops import store
from ecomcharge.shops.keys import MasterKey
from ecomcharge.shops.model import FIRST_ACCOUNT, is_loopback
from ecomcharge.shops.sealing import gateway_key_of
from ecomcharge.storage.database import Database, Transaction

if TYPE_CHECKING:
    import httpx

log = structlog.get_logger()

CACHE_SECONDS: Final = 4.0  # a changed setting must be in use within five
CACHE_MAXIMUM: Final = 10_000


@dataclass(frozen=True, slots=True)
class Assignment:
    """The gateway and account of a new subscription. The sandbox has no accounts."""

    gateway: str
    account: str | None


@dataclass(slots=True)
class DisabledGateway:
    """Stands in for a gateway that must not be used. It sends nothing; the outcome of earlier charges stays unknown."""

    name: str
    message: str
    shop_id: int
    warned: set[tuple[int, str]]  # one warning for each shop and message

    async def charge(self, order: Order, card: CardDetails | str, now: int) -> Result:
        _warn_once(self.warned, self.shop_id, self.message)
        return Result(base.ERROR, self.message)

    async def look_up(self, shop_id: int, order_id: str, now: int, *, amount: int, currency: str) -> Result | None:
        return Result(base.UNKNOWN, self.message)

    async def refund(
        self, shop_id: int, order_id: str, uid: str | None, now: int, *, amount: int, currency: str, attempt: int
    ) -> Result:
        return Result(base.UNKNOWN, self.message)


@dataclass(slots=True)
class SandboxForTestPlans:
    """The sandbox of a shop without a chosen gateway: it charges only for test plans."""

    inner: SandboxGateway
    warned: set[tuple[int, str]]
    name: str = sandbox.NAME

    async def charge(self, order: Order, card: CardDetails | str, now: int) -> Result:
        if order.test:
            return await self.inner.charge(order, card, now)
        _warn_once(self.warned, order.shop_id, base.NOT_CHOSEN_MESSAGE)
        return Result(base.ERROR, base.NOT_CHOSEN_MESSAGE)

    async def look_up(self, shop_id: int, order_id: str, now: int, *, amount: int, currency: str) -> Result | None:
        return await self.inner.look_up(shop_id, order_id, now, amount=amount, currency=currency)

    async def refund(
        self, shop_id: int, order_id: str, uid: str | None, now: int, *, amount: int, currency: str, attempt: int
    ) -> Result:
        return await self.inner.refund(shop_id, order_id, uid, now, amount=amount, currency=currency, attempt=attempt)


@dataclass(frozen=True, slots=True)
class _CachedGateway:
    gateway: Gateway
    valid_until: float


class GatewayRegistry:
    """The gateways of all shops. ``sandbox_mode`` is true if this process runs with ``--sandbox``."""

    def __init__(
        self,
        database: Database,
        master_key: MasterKey,
        base_url: str,
        timeout_seconds: float = base.TIMEOUT_SECONDS,
        *,
        sandbox_mode: bool,
    ) -> None:
        self._database = database
        self._master_key = master_key
        self._sandbox_mode = sandbox_mode
        self.sandbox = SandboxGateway(database, master_key, base_url)
        self._timeout_seconds = timeout_seconds
        self._client: httpx.AsyncClient | None = None  # created for the first shop with a real gateway
        self._cache: dict[tuple[int, str], _CachedGateway] = {}
        self._warned: set[tuple[int, str]] = set()
        self._test_plan_sandbox = SandboxForTestPlans(self.sandbox, self._warned)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def assign(self, reader: Database | Transaction, shop_id: int, *, test: bool) -> Assignment:
        """The gateway and the account of a new subscription. Raises ``ValidationFailed`` if the shop has no gateway for it."""
        if test:
            return Assignment(sandbox.NAME, None)
        choice = await store.gateway_choice(reader, shop_id)
        if choice.gateway != sandbox.NAME:
            return Assignment(choice.gateway, choice.account)
        if not (self._sandbox_mode or choice.was_made):
            raise _not_chosen()
        return Assignment(sandbox.NAME, None)

    async def has_gateway_for(self, shop_id: int, *, test: bool) -> bool:
        """Whether a new subscription of the shop would be assigned a gateway."""
        return test or self._sandbox_mode or (await store.gateway_choice(self._database, shop_id)).was_made

    async def charges(self, name: str, shop_id: int, account: str | None, *, test: bool) -> bool:
        """Whether this process would send a charge to that account."""
        gateway = await self.named(name, shop_id, account)
        return not isinstance(gateway, DisabledGateway) and (test or not isinstance(gateway, SandboxForTestPlans))

    async def named(self, name: str, shop_id: int, account: str | None) -> Gateway:
        """The shop's account at a gateway, or a ``DisabledGateway``. ``account=None`` is the first account."""
        key = (shop_id, sandbox.NAME if name == sandbox.NAME else account or FIRST_ACCOUNT)
        if self._sandbox_mode and name == sandbox.NAME:
            return self.sandbox
        cached = self._cache.get(key)
        if cached is None or time.monotonic() >= cached.valid_until:
            asked_at = time.monotonic()
            gateway = await (self._sandbox_of(shop_id) if name == sandbox.NAME else self._at_account(name, *key))
            if len(self._cache) >= CACHE_MAXIMUM:
                self._cache.clear()
            cached = self._cache[key] = _CachedGateway(gateway, asked_at + CACHE_SECONDS)
        return cached.gateway

    async def _sandbox_of(self, shop_id: int) -> Gateway:
        choice = await store.gateway_choice(self._database, shop_id)
        if choice.was_made:
            self._warned.discard((shop_id, base.NOT_CHOSEN_MESSAGE))
            return self.sandbox
        return self._test_plan_sandbox

    async def _at_account(self, name: str, shop_id: int, account_id: str) -> Gateway:
        account = await store.find_account(self._database, shop_id, account_id)
        if account is None or account.sealed_key is None:
            return self._disabled(name, shop_id, base.NO_ACCOUNT_MESSAGE)
        if self._sandbox_mode and not is_loopback(account.url):
            return self._disabled(name, shop_id, base.SANDBOX_MODE_MESSAGE)
        try:
            secret_key = gateway_key_of(self._master_key, shop_id, account)
        except ConfigurationError as error:
            log.error("key of a gateway account cannot be read", shop=shop_id, account=account_id, why=error.message)
            return self._disabled(name, shop_id, base.NO_ACCOUNT_MESSAGE)
        from ecomcharge.gateways import begateway  # with httpx it takes 10 MiB, which only shops with a real gateway need

        if self._client is None:
            self._client = begateway.shared_client(self._timeout_seconds)
        return begateway.BegatewayGateway(self._client, account.url, account.user, secret_key, self._timeout_seconds)

    def _disabled(self, name: str, shop_id: int, message: str) -> Gateway:
        return DisabledGateway(name, message, shop_id, self._warned)


def _warn_once(warned: set[tuple[int, str]], shop_id: int, message: str) -> None:
    if (shop_id, message) not in warned:
        if len(warned) >= CACHE_MAXIMUM:
            warned.clear()
        warned.add((shop_id, message))
        log.warning("charges of a shop are refused", shop=shop_id, why=message)


def _not_chosen() -> ValidationFailed:
    rule = ValueRule("The operator chooses a payment gateway for the shop.", None, GATEWAY_NOT_CHOSEN)
    faults = [Fault((), base.NOT_CHOSEN_MESSAGE, rule)]
    return ValidationFailed(base.NOT_CHOSEN_MESSAGE, {BASE: [base.NOT_CHOSEN_MESSAGE]}, faults, errors_first=True)
