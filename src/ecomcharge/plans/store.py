"""SQL of plans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from ecomcharge.plans.model import Plan, Price, TrialPrice
from ecomcharge.storage.database import Database, Reader, Row, Transaction
from ecomcharge.storage.records import ALL_IDS, IdRange, direction
from ecomcharge.storage.statements import Insert, PointRead

FIELDS: Final = (
    *("id", "title", "currency", "language", "infinite", "billing_cycles", "plan_amount", "plan_interval", "plan_interval_unit"),
    *("trial_amount", "trial_interval", "trial_interval_unit", "trial_as_first_payment", "visible_fields"),
    *("number_payment_attempts", "prevent_payments_at_night", "test", "created_at", "updated_at"),
)
COLUMNS: Final = ", ".join(FIELDS)

INSERT = Insert("plans", ("shop_id", *FIELDS), key=("shop_id", "id"))

FIND = PointRead("plans", FIELDS, key=("shop_id", "id"))

FIND_WITH_SHOP = PointRead("plans", ("shop_id", *FIELDS), key=("id",))

SELECT = f"""
SELECT {COLUMNS} FROM plans WHERE shop_id = :shop_id AND id > :after AND id < :before
ORDER BY id {{direction}} LIMIT :limit OFFSET :offset
"""

COUNT = "SELECT COUNT(*) FROM plans WHERE shop_id = :shop_id AND id > :after AND id < :before"


async def insert(tx: Transaction, shop_id: int, plan: Plan) -> bool:
    """``False`` if the id is taken."""
    return await tx.insert(INSERT, (shop_id, *_row(plan)))


async def find(reader: Database | Transaction, shop_id: int, plan_id: str) -> Plan | None:
    row = await reader.find(FIND, (shop_id, plan_id))
    return plan_of(row) if row is not None else None


async def owner_of(database: Database, plan_id: str) -> tuple[int, Plan] | None:
    """A plan and its shop id, for requests of browsers, which have no shop."""
    row = await database.find(FIND_WITH_SHOP, (plan_id,))
    return (row[0], plan_of(row[1:])) if row is not None else None


@dataclass(frozen=True, slots=True)
class Plans:
    """The plans of a shop. Implements ``Records``."""

    database: Reader
    shop_id: int

    async def select(
        self,
        limit: int,
        ids: IdRange = ALL_IDS,
        *,
        newest_first: bool = False,
        offset: int = 0,
        in_background: bool = False,
    ) -> list[Plan]:
        read = self.database.rows_in_background if in_background else self.database.rows
        params = {**self._params(ids), "limit": limit, "offset": offset}
        rows = await read(SELECT.format(direction=direction(newest_first)), params)
        return [plan_of(row) for row in rows]

    async def count(self, ids: IdRange = ALL_IDS) -> int:
        rows = await self.database.rows_in_background(COUNT, self._params(ids))
        return int(rows[0][0])

    def _params(self, ids: IdRange) -> dict[str, object]:
        return {"shop_id": self.shop_id, "after": ids.after, "before": ids.before}


def plan_of(row: Row) -> Plan:
    """The plan of a row of ``FIELDS``."""
    id, title, currency, language, infinite, billing_cycles, plan_amount, plan_interval, plan_interval_unit, *rest = row
    trial_amount, trial_interval, trial_interval_unit, trial_as_first_payment, visible_fields, *rest = rest
    attempts, by_day, test, created_at, updated_at = rest
    trial = None
    if trial_amount is not None:
        trial = TrialPrice(trial_amount, trial_interval, trial_interval_unit, bool(trial_as_first_payment))
    return Plan(
        title=title,
        currency=currency,
        plan=Price(plan_amount, plan_interval, plan_interval_unit),
        trial=trial,
        language=language,
        infinite=bool(infinite),
        billing_cycles=billing_cycles,
        number_payment_attempts=attempts,
        prevent_payments_at_night=bool(by_day),
        test=bool(test),
        visible_fields=tuple(msgspec.json.decode(visible_fields)),
        id=id,
        created_at=created_at,
        updated_at=updated_at,
    )


def _row(plan: Plan) -> Row:
    """The values of ``FIELDS``."""
    trial = plan.trial
    return (
        plan.id,
        plan.title,
        plan.currency,
        plan.language,
        int(plan.infinite),
        plan.billing_cycles,
        plan.plan.amount,
        plan.plan.interval,
        plan.plan.interval_unit,
        trial.amount if trial else None,
        trial.interval if trial else None,
        trial.interval_unit if trial else None,
        int(trial.as_first_payment) if trial else None,
        msgspec.json.encode(plan.visible_fields).decode(),
        plan.number_payment_attempts,
        int(plan.prevent_payments_at_night),
        int(plan.test),
        plan.created_at,
        plan.updated_at,
    )
