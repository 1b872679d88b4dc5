"""SQL of plans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from ecomcharge.plans.model import Plan, Price, TrialPrice
from ecomcharge.storage.database import Database, Row, Transaction

COLUMNS: Final = (
    "id, title, currency, language, infinite, billing_cycles, plan_amount, plan_interval, plan_interval_unit, trial_amount,"
    " trial_interval, trial_interval_unit, trial_as_first_payment, visible_fields, number_payment_attempts,"
    " prevent_payments_at_night, test, created_at, updated_at"
)
COLUMN_COUNT: Final = COLUMNS.count(",") + 1

INSERT = """
INSERT INTO plans (
    shop_id, id, title, currency, language, infinite, billing_cycles, plan_amount, plan_interval, plan_interval_unit,
    trial_amount, trial_interval, trial_interval_unit, trial_as_first_payment, visible_fields, number_payment_attempts,
    prevent_payments_at_night, test, created_at, updated_at
) VALUES (
    :shop_id, :id, :title, :currency, :language, :infinite, :billing_cycles, :plan_amount, :plan_interval,
    :plan_interval_unit, :trial_amount, :trial_interval, :trial_interval_unit, :trial_as_first_payment, :visible_fields,
    :number_payment_attempts, :prevent_payments_at_night, :test, :created_at, :updated_at
) ON CONFLICT DO NOTHING RETURNING shop_id, id
"""

FIND = f"SELECT {COLUMNS} FROM plans WHERE shop_id = :shop_id AND id = :id"

OWNER = f"SELECT shop_id, {COLUMNS} FROM plans WHERE id = :id"

AFTER = f"SELECT {COLUMNS} FROM plans WHERE shop_id = :shop_id AND id > :after ORDER BY id LIMIT :limit"

BEFORE = f"SELECT {COLUMNS} FROM plans WHERE shop_id = :shop_id AND id < :before ORDER BY id DESC LIMIT :limit"

PAGE = f"SELECT {COLUMNS} FROM plans WHERE shop_id = :shop_id ORDER BY id LIMIT :limit OFFSET :offset"


async def insert(tx: Transaction, shop_id: int, plan: Plan) -> bool:
    """``False`` if the id is taken."""
    return await tx.insert(INSERT, _params(shop_id, plan))


async def find(reader: Database | Transaction, shop_id: int, plan_id: str) -> Plan | None:
    row = await reader.find(FIND, {"shop_id": shop_id, "id": plan_id})
    return plan_of(row) if row is not None else None


async def owner_of(database: Database, plan_id: str) -> tuple[int, Plan] | None:
    """A plan and its shop id, for requests of browsers, which have no shop."""
    row = await database.find(OWNER, {"id": plan_id})
    return (row[0], plan_of(row[1:])) if row is not None else None


@dataclass(frozen=True, slots=True)
class Plans:
    """The plans of a shop, to be listed."""

    database: Database
    shop_id: int

    async def after(self, after: str, limit: int) -> list[Plan]:
        params = {"shop_id": self.shop_id, "after": after, "limit": limit}
        return [plan_of(row) for row in await self.database.rows(AFTER, params)]

    async def before(self, before: str, limit: int) -> list[Plan]:
        params = {"shop_id": self.shop_id, "before": before, "limit": limit}
        return [plan_of(row) for row in await self.database.rows(BEFORE, params)][::-1]

    async def page(self, offset: int, limit: int) -> list[Plan]:
        params = {"shop_id": self.shop_id, "offset": offset, "limit": limit}
        return [plan_of(row) for row in await self.database.rows(PAGE, params)]


def plan_of(row: Row) -> Plan:
    """The plan of a row of ``COLUMNS``."""
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


def _params(shop_id: int, plan: Plan) -> dict[str, Any]:
    trial = plan.trial
    return {
        "shop_id": shop_id,
        "id": plan.id,
        "title": plan.title,
        "currency": plan.currency,
        "language": plan.language,
        "infinite": int(plan.infinite),
        "billing_cycles": plan.billing_cycles,
        "plan_amount": plan.plan.amount,
        "plan_interval": plan.plan.interval,
        "plan_interval_unit": plan.plan.interval_unit,
        "trial_amount": trial.amount if trial else None,
        "trial_interval": trial.interval if trial else None,
        "trial_interval_unit": trial.interval_unit if trial else None,
        "trial_as_first_payment": int(trial.as_first_payment) if trial else None,
        "visible_fields": msgspec.json.encode(plan.visible_fields).decode(),
        "number_payment_attempts": plan.number_payment_attempts,
        "prevent_payments_at_night": int(plan.prevent_payments_at_night),
        "test": int(plan.test),
        "created_at": plan.created_at,
        "updated_at": plan.updated_at,
    }
