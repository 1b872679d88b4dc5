"""The audit of the payments of a shop against the records of their gateways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from ecomcharge.audit.gateway_records import GatewayRecords
from ecomcharge.audit.model import MONEY_TAKEN, Disagreement, Record, Totals, money
from ecomcharge.audit.payment_checks import check_record
from ecomcharge.audit.store import LAST_PAYMENT, PAYMENTS_AFTER
from ecomcharge.base.clock import Clock
from ecomcharge.gateways.sandbox import SandboxGateway
from ecomcharge.payments import store as payments_store
from ecomcharge.payments.model import Payment
from ecomcharge.storage.database import Database

PAYMENTS_PER_CHUNK: Final = 500


@dataclass
class PaymentAudit:
    """``since`` in UTC milliseconds: earlier payments are left out. ``sums`` are the totals of this shop."""

    database: Database
    records: GatewayRecords
    clock: Clock
    shop_id: int
    since: int
    recheck_seconds: float
    sums: Totals

    async def run(self) -> AsyncIterator[Disagreement]:
        has_disagreement = False
        after = _first_payment_id(self.since)
        end = (await self.database.rows(LAST_PAYMENT, {"shop_id": self.shop_id}))[0][0] or ""
        while after < end:
            position = {"shop_id": self.shop_id, "after": after, "last": end, "limit": PAYMENTS_PER_CHUNK}
            payments = [Payment(*row) for row in await self.database.rows(PAYMENTS_AFTER, position)]
            charges = await self.records.sandbox_charges(position)
            after = min(_complete_until(payments, end), _complete_until(charges, end))
            payments = [payment for payment in payments if payment.id <= after]
            unmatched = [id for id in charges if id <= after and id not in {payment.id for payment in payments}]
            suspects = await self._suspects(payments, charges)
            if suspects or unmatched:
                await asyncio.sleep(self.recheck_seconds)
            for payment in suspects:
                found = await self._recheck_payment(payment.id)
                if found is not None:
                    has_disagreement = has_disagreement or found.is_checked
                    yield found
            for id in unmatched:
                found = await self._recheck_charge(id)
                if found is not None:
                    has_disagreement = True
                    yield found
        if has_disagreement:  # otherwise a difference of the totals comes from a change between two reads
            for found in self._compare_totals():
                yield found

    def _compare_totals(self) -> list[Disagreement]:
        found = []
        for gateway, currency in sorted({*self.sums.ours, *self.sums.gateways}):
            ours, theirs = self.sums.ours[gateway, currency], self.sums.gateways[gateway, currency]
            if ours != theirs:
                message = f"total of {gateway}: our payments took {ours} {currency}, its records say {theirs} (minor units)"
                found.append(Disagreement("total", self.shop_id, message))
        return found

    async def _suspects(self, payments: Sequence[Payment], charges: dict[str, Record]) -> list[Payment]:
        """The payments that disagree at the first read. Adds the others to the sums."""
        suspects = []
        now = await self.clock.read()
        self.sums.payments += len(payments)
        for payment, record in await self.records.of_payments(self.shop_id, payments, charges):
            if check_record(payment, record, now) is not None:
                suspects.append(payment)
            elif payment.status in MONEY_TAKEN and isinstance(record, Record):
                self.sums.add_ours(payment)
                self.sums.add_gateways(payment.gateway, record)
        return suspects

    async def _recheck_payment(self, payment_id: str) -> Disagreement | None:
        payment = await payments_store.find(self.database, self.shop_id, payment_id)
        if payment is None:
            return None
        charges = await self.records.sandbox_charge(self.shop_id, payment_id)
        [(_, record)] = await self.records.of_payments(self.shop_id, [payment], charges)
        finding = check_record(payment, record, await self.clock.read())
        if not isinstance(record, str):
            self.sums.add_ours(payment)
            if record is not None and (finding is not None or payment.status in MONEY_TAKEN):
                self.sums.add_gateways(payment.gateway, record)
        if finding is None:
            return None
        kind, message = finding
        return Disagreement(kind, self.shop_id, f"payment {payment.id}: {message}", payment.subscription_id, payment.id)

    async def _recheck_charge(self, charge_id: str) -> Disagreement | None:
        """For a charge in the records of the gateway that had no payment at the first read."""
        record = (await self.records.sandbox_charge(self.shop_id, charge_id)).get(charge_id)
        if record is None or await payments_store.find(self.database, self.shop_id, charge_id) is not None:
            return None
        self.sums.add_gateways(SandboxGateway.name, record)
        message = f"charge {charge_id}: the gateway says {record.status} ({money(record)}), and there is no payment"
        return Disagreement("charge_without_payment", self.shop_id, message, None, charge_id)


def _complete_until(chunk: Sequence[Payment] | dict[str, Record], end: str) -> str:
    """The id up to which a chunk is complete: ``end``, or its last id if the chunk is full."""
    if len(chunk) < PAYMENTS_PER_CHUNK:
        return end
    return max(chunk) if isinstance(chunk, dict) else chunk[-1].id


def _first_payment_id(since: int) -> str:
    """The ids of payments begin with their creation time in hexadecimal digits."""
    digits = f"{since:012x}"
    return f"{digits[:8]}-{digits[8:]}" if since else ""
