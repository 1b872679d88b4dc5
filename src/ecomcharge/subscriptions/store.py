"""SQL of subscriptions, each read together with its plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from ecomcharge.plans import store as plans
from ecomcharge.storage.database import Database, Reader, Row, Transaction
from ecomcharge.storage.records import ALL_IDS, IdRange, direction
from ecomcharge.storage.statements import Insert, PointRead
from ecomcharge.subscriptions.lifecycle import BillingState
from ecomcharge.subscriptions.model import Subscription

_OWN: Final = (
    *("shop_id", "id", "version", "sequence", "customer_id", "tracking_id", "device_id", "created_at", "gateway", "card"),
    *("additional_data", "options", "last_transaction", "return_url", "notification_url", "checkout_token"),
    *("gateway_account", "erased_customer_id"),
)
_BILLING_STATE: Final = BillingState.__struct_fields__
_TABLES: Final = "subscriptions JOIN plans ON plans.shop_id = subscriptions.shop_id AND plans.id = subscriptions.plan_id"
_COLUMNS: Final = (
    *(f"subscriptions.{column}" for column in (*_OWN, *_BILLING_STATE)),
    *(f"plans.{column}" for column in plans.FIELDS),
)

INSERT = Insert("subscriptions", (*_OWN, *_BILLING_STATE, "plan_id", "leased_until"), key=("shop_id", "id"))

# Changes nothing if the version has changed since it was read; the caller then reads again.
UPDATE = """
UPDATE subscriptions SET
    version = version + 1, sequence = :sequence, state = :state, customer_id = :customer_id, anchored_at = :anchored_at,
    period = :period, renew_at = :renew_at, active_to = :active_to, paid_billing_cycles = :paid_billing_cycles,
    number_failed_payment_attempts = :number_failed_payment_attempts, cancel_reason = :cancel_reason,
    cancelled_at = :cancelled_at, card = :card, last_transaction = :last_transaction, checkout_token = :checkout_token,
    due_at = :due_at, leased_until = COALESCE(:leased_until, leased_until), billing_cycle_anchor = :billing_cycle_anchor,
    anchor_period = :anchor_period, anchor_day = :anchor_day
WHERE shop_id = :shop_id AND id = :id AND version = :version
"""

ERASE = """
UPDATE subscriptions SET
    version = version + 1, customer_id = NULL, erased_customer_id = :erased_customer_id, device_id = NULL, card = :card,
    additional_data = :additional_data, options = :options, last_transaction = :last_transaction, return_url = NULL,
    checkout_token = NULL
WHERE shop_id = :shop_id AND id = :id AND version = :version
"""

OF_CUSTOMER = f"""
SELECT {", ".join(_COLUMNS)} FROM {_TABLES}
WHERE subscriptions.shop_id = :shop_id AND subscriptions.customer_id = :customer_id ORDER BY subscriptions.id
"""

FIND = PointRead(_TABLES, _COLUMNS, key=("subscriptions.shop_id", "subscriptions.id"))

CHARGEABLE_VERSION = PointRead(
    "subscriptions JOIN shops ON shops.shop_id = subscriptions.shop_id",
    ("subscriptions.version",),
    key=("subscriptions.shop_id", "subscriptions.id"),
    suffix="AND shops.closed_at IS NULL",
)

BY_TOKEN = PointRead(_TABLES, _COLUMNS, key=("subscriptions.checkout_token",))

SELECT = f"""
SELECT {", ".join(_COLUMNS)} FROM {_TABLES}
WHERE subscriptions.shop_id = :shop_id AND subscriptions.id > :after AND subscriptions.id < :before {{matching}}
ORDER BY subscriptions.id {{direction}} LIMIT :limit OFFSET :offset
"""

COUNT = """
SELECT COUNT(*) FROM subscriptions
WHERE subscriptions.shop_id = :shop_id AND subscriptions.id > :after AND subscriptions.id < :before {matching}
"""

# Due subscriptions without a lease. A lease expires in real time.
CLAIM = """
UPDATE subscriptions SET leased_until = :leased_until
WHERE (shop_id, id) IN (
    SELECT shop_id, id FROM subscriptions
    WHERE due_at <= :now AND leased_until <= :real_now
    ORDER BY due_at LIMIT :limit
) AND due_at <= :now AND leased_until <= :real_now
RETURNING shop_id, id
"""

NEXT_DUE = "SELECT MIN(due_at) FROM subscriptions WHERE due_at IS NOT NULL"

IS_DUE = "SELECT 1 FROM subscriptions WHERE due_at <= :now ORDER BY due_at LIMIT 1"

IS_HELD = """
SELECT 1 FROM subscriptions WHERE due_at <= :until AND leased_until > :real_now ORDER BY due_at LIMIT 1
"""


async def insert(tx: Transaction, subscription: Subscription, leased_until: int = 0) -> bool:
    """Insert a subscription with its first lease. ``False`` if the id exists already."""
    return await tx.insert(INSERT, (*_params(subscription).values(), leased_until))


async def update(tx: Transaction, subscription: Subscription, leased_until: int | None = 0) -> bool:
    """Write the parts of a subscription that change. ``False`` if it changed since it was read: read it again.

    ``leased_until`` (UTC milliseconds of the real clock) is the end of the lease: 0 ends it now, ``None`` keeps it.
    """
    return await tx.run(UPDATE, {**_params(subscription), "leased_until": leased_until}) > 0


async def erase(tx: Transaction, subscription: Subscription) -> bool:
    """Write the subscription of an erased customer, without personal data. ``False`` if it changed since it was read."""
    names = ("shop_id", "id", "version", "erased_customer_id", "card", "additional_data", "options", "last_transaction")
    return await tx.run(ERASE, {name: getattr(subscription, name) for name in names}) > 0


async def of_customer(tx: Transaction, shop_id: int, customer_id: str) -> list[Subscription]:
    rows = await tx.rows(OF_CUSTOMER, {"shop_id": shop_id, "customer_id": customer_id})
    return [_subscription(row) for row in rows]


async def find(reader: Database | Transaction, shop_id: int, subscription_id: str) -> Subscription | None:
    row = await reader.find(FIND, (shop_id, subscription_id))
    return _subscription(row) if row is not None else None


async def reload(database: Database, subscription: Subscription) -> Subscription:
    """A subscription, which is known to exist, in its current state."""
    found = await find(database, subscription.shop_id, subscription.id)
    assert found is not None
    return found


async def chargeable_version(database: Database, shop_id: int, subscription_id: str) -> int | None:
    """The version of a subscription; ``None`` if its shop is closed."""
    row = await database.find(CHARGEABLE_VERSION, (shop_id, subscription_id))
    return int(row[0]) if row is not None else None


async def by_token(reader: Database | Transaction, token: str) -> Subscription | None:
    """The subscription whose payment page has this token."""
    row = await reader.find(BY_TOKEN, (token,))
    return _subscription(row) if row is not None else None


async def claim(tx: Transaction, now: int, real_now: int, leased_until: int, limit: int) -> list[tuple[int, str]]:
    """Claim up to ``limit`` due subscriptions without a lease, by shop and id."""
    params = {"now": now, "real_now": real_now, "leased_until": leased_until, "limit": limit}
    return [(row[0], row[1]) for row in await tx.run_returning(CLAIM, params)]


async def next_due(database: Database) -> int | None:
    """When the next subscription is due, with or without a lease."""
    moment: int | None = (await database.rows(NEXT_DUE, {}))[0][0]
    return moment


async def is_due(database: Database, now: int) -> bool:
    return bool(await database.rows(IS_DUE, {"now": now}))


async def is_held(database: Database, until: int, real_now: int) -> bool:
    """Whether a subscription that is due until then has a lease."""
    return bool(await database.rows(IS_HELD, {"until": until, "real_now": real_now}))


@dataclass(frozen=True, slots=True)
class Filter:
    """Selects subscriptions by exact values. ``None`` means any."""

    state: str | None = None
    customer_id: str | None = None
    plan_id: str | None = None
    tracking_id: str | None = None
    erased_customer_id: str | None = None

    @property
    def params(self) -> dict[str, object]:
        named = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in named.items() if value is not None}

    @property
    def matching(self) -> str:
        """Conditions. Where a customer or a tracking id is given, which select few subscriptions, no engine may search by the
        state or the plan, which may select nearly all: an expression is no column of an index.
        """
        few = self.customer_id is not None or self.tracking_id is not None
        return " ".join(
            f"AND subscriptions.{name} || '' = :{name}"
            if few and name in ("state", "plan_id")
            else f"AND subscriptions.{name} = :{name}"
            for name in self.params
        )


@dataclass(frozen=True, slots=True)
class Subscriptions:
    """The subscriptions of a shop that match a filter. Implements ``Records``."""

    database: Reader
    shop_id: int
    filter: Filter

    async def select(
        self,
        limit: int,
        ids: IdRange = ALL_IDS,
        *,
        newest_first: bool = False,
        offset: int = 0,
        in_background: bool = False,
    ) -> list[Subscription]:
        read = self.database.rows_in_background if in_background else self.database.rows
        sql = SELECT.format(matching=self.filter.matching, direction=direction(newest_first))
        rows = await read(sql, {**self._params(ids), "limit": limit, "offset": offset})
        return [_subscription(row) for row in rows]

    async def count(self, ids: IdRange = ALL_IDS) -> int:
        rows = await self.database.rows_in_background(COUNT.format(matching=self.filter.matching), self._params(ids))
        return int(rows[0][0])

    def _params(self, ids: IdRange) -> dict[str, object]:
        return {"shop_id": self.shop_id, "after": ids.after, "before": ids.before, **self.filter.params}


def _params(subscription: Subscription) -> dict[str, Any]:
    """In the order of the columns of ``INSERT``."""
    own = msgspec.structs.asdict(subscription)
    plan, billing_state = own.pop("plan"), own.pop("billing_state")
    return {**own, **msgspec.structs.asdict(billing_state), "plan_id": plan.id}


def _subscription(row: Row) -> Subscription:
    own, billing_state = len(_OWN), len(_OWN) + len(_BILLING_STATE)
    shop_id, id, version, sequence, *rest = row[:own]
    plan = plans.plan_of(row[billing_state:])
    return Subscription(shop_id, id, version, sequence, plan, BillingState(*row[own:billing_state]), *rest)
