"""The records of the gateways that an audit compares with our payments."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ecomcharge.audit.model import Record
from ecomcharge.audit.store import SANDBOX_CHARGE, SANDBOX_CHARGES_BETWEEN
from ecomcharge.base.clock import Clock
from ecomcharge.base.errors import EcomchargeError
from ecomcharge.gateways import base
from ecomcharge.gateways.registry import GatewayRegistry
from ecomcharge.gateways.sandbox import SandboxGateway
from ecomcharge.payments.model import REFUNDED, Payment
from ecomcharge.storage.database import Database

LOOK_UPS_AT_ONCE: Final = 8
LOOK_UP_ATTEMPTS: Final = 3


@dataclass(frozen=True)
class GatewayRecords:
    """Reads the records of the sandbox gateway from our database, and those of real gateways by look-ups."""

    database: Database
    gateways: GatewayRegistry
    clock: Clock

    @property
    def _has_sandbox(self) -> bool:
        """Whether the sandbox gateway is the one that keeps its charges in our database."""
        return isinstance(self.gateways.sandbox, SandboxGateway)

    async def sandbox_charges(self, position: dict[str, object]) -> dict[str, Record]:
        """The charges of the sandbox in a range of ids, by id."""
        if not self._has_sandbox:
            return {}
        return _by_id(await self.database.rows(SANDBOX_CHARGES_BETWEEN, position))

    async def sandbox_charge(self, shop_id: int, id: str) -> dict[str, Record]:
        if not self._has_sandbox:
            return {}
        return _by_id(await self.database.rows(SANDBOX_CHARGE, {"shop_id": shop_id, "id": id}))

    async def of_payments(
        self, shop_id: int, payments: Sequence[Payment], sandbox_charges: dict[str, Record]
    ) -> list[tuple[Payment, Record | str | None]]:
        """Each payment with its record: ``None`` if there is none, a sentence if the gateway could not be asked."""
        limit = asyncio.Semaphore(LOOK_UPS_AT_ONCE)

        async def with_record(payment: Payment) -> tuple[Payment, Record | str | None]:
            if payment.gateway == SandboxGateway.name and self._has_sandbox:
                return payment, sandbox_charges.get(payment.id)
            async with limit:
                return payment, await self._look_up(shop_id, payment)

        return list(await asyncio.gather(*(with_record(payment) for payment in payments)))

    async def _look_up(self, shop_id: int, payment: Payment) -> Record | str | None:
        for _ in range(LOOK_UP_ATTEMPTS):
            try:
                gateway = await self.gateways.named(payment.gateway, shop_id, payment.gateway_account)
                now = await self.clock.read()
                result = await gateway.look_up(shop_id, payment.id, now, amount=payment.amount, currency=payment.currency)
            except EcomchargeError as error:
                return f"not checked: {error}"
            if result is None:
                return None
            if result.status != base.UNKNOWN:
                # A look-up finds only a charge of this amount.
                return Record(result.status, payment.amount, payment.currency)
        return "not checked: the gateway did not answer, or not about this amount"


def _by_id(rows: Sequence[Sequence[object]]) -> dict[str, Record]:
    return {
        str(id): Record(str(status) if refunded_at is None else REFUNDED, int(str(amount)), str(currency))
        for id, status, amount, currency, refunded_at in rows
    }
