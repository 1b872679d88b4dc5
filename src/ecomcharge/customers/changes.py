"""Writes a change of a customer together with its event. Every change of a stored customer is written here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ecomcharge.customers import store
from ecomcharge.customers.model import CustomerChange
from ecomcharge.storage.database import Transaction
from ecomcharge.storage.records import StaleVersion


class ChangeRecorder(Protocol):
    """Records the events of customers. Events are in a layer above, which implements this."""

    async def record_update(
        self, tx: Transaction, shop_id: int, customer_id: str, names: Sequence[str], version: int, now: int
    ) -> None:
        """Record that these fields of a customer changed; ``version`` is the new one."""
        ...


async def write_change(tx: Transaction, recorder: ChangeRecorder, shop_id: int, change: CustomerChange) -> None:
    """Write a change and its event; nothing if no field changed. Raises ``StaleVersion``."""
    after = change.after
    if not change.names:
        return
    if not await store.update(tx, shop_id, after):
        raise StaleVersion
    await recorder.record_update(tx, shop_id, after.customer.id, change.names, after.version, after.changed_at)
