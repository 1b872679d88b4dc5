"""Which gateway serves whom: a plan's tests always go to the sandbox, everything else where the shop's setting says."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from ecomcharge.errors import Unusable
from ecomcharge.gateways import begateway, sandbox
from ecomcharge.gateways.base import Gateway
from ecomcharge.gateways.begateway import BegatewayGateway
from ecomcharge.gateways.sandbox import SandboxGateway
from ecomcharge.keys import MasterKey
from ecomcharge.shops import store
from ecomcharge.shops.model import GATEWAY_KEY_PURPOSE
from ecomcharge.storage.database import Database, Transaction

KEPT_SECONDS: Final = 4.0  # a changed setting is felt within five


@dataclass(frozen=True, slots=True)
class _Kept:
    gateway: Gateway
    good_until: float


class Gateways:
    def __init__(
        self, database: Database, master_key: MasterKey, base_url: str, timeout_seconds: float = begateway.TIMEOUT_SECONDS
    ) -> None:
        self._database = database
        self._master_key = master_key
        self.sandbox = SandboxGateway(database, master_key, base_url)
        self._timeout_seconds = timeout_seconds
        self._client = begateway.shared_client(timeout_seconds)
        self._kept: dict[int, _Kept] = {}

    async def close(self) -> None:
        await self._client.aclose()

    async def name_for(self, tx: Transaction, shop_id: int, *, test: bool) -> str:
        """Which gateway a new subscription of the shop goes to."""
        return sandbox.NAME if test else await store.gateway_of(tx, shop_id)

    async def named(self, name: str, shop_id: int) -> Gateway:
        """Raises ``Unusable`` when the shop's account at a gateway is not set up."""
        if name == sandbox.NAME:
            return self.sandbox
        kept = self._kept.get(shop_id)
        if kept is None or time.monotonic() >= kept.good_until:
            asked_at = time.monotonic()
            if len(self._kept) >= 10_000:
                self._kept.clear()
            kept = self._kept[shop_id] = _Kept(await self._account(shop_id), asked_at + KEPT_SECONDS)
        return kept.gateway

    async def _account(self, shop_id: int) -> Gateway:
        account = await store.gateway_account(self._database, shop_id)
        if account is None:
            raise Unusable(f"shop {shop_id} has no account at a gateway; see `ecomcharge shops gateway --help`")
        url, user, sealed = account
        secret_key = self._master_key.unseal(shop_id, sealed, GATEWAY_KEY_PURPOSE)
        return BegatewayGateway(self._client, url, user, secret_key, self._timeout_seconds)
