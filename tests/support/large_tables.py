"""A database with large tables: two shops with the same number of records of each kind.

Values that select few records belong to the first or the last ones, so that a search by another index reads nearly all.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, Final

import asyncpg

from ecomcharge.base.ids import first_id_at, row_number_of
from ecomcharge.storage.opening import sqlite_path

SHOPS: Final = (1, 2)
MANY: Final = 20_000  # records of each kind in each shop
FEW: Final = 50  # records that are due, old or leased
MINUTE: Final = 60_000
DAY: Final = 24 * 60 * MINUTE
NOW: Final = 1_800_000_000_000
OLD: Final = NOW - 40 * DAY  # older than everything that housekeeping keeps

Rows = Iterator[tuple[object, ...]]


def created_at(number: int) -> int:
    """The first ``FEW`` records are old, the others are of the last days."""
    return OLD + number if number < FEW else NOW - (MANY - number) * MINUTE


def id_of(prefix: str, number: int) -> str:
    return first_id_at(prefix, created_at(number))


def payment_id(shop_id: int, number: int) -> str:
    return f"{created_at(number):012x}"[:8] + f"-{number:04x}-7000-8000-{shop_id:012x}"


def rare(number: int, common: str, *values: str) -> str:
    """``common``, except for a few records at both ends, which have one of the other values."""
    position = min(number, MANY - 1 - number)
    return values[number % len(values)] if position < 2 * len(values) else common


def tables() -> Iterator[tuple[str, Sequence[str], Rows]]:
    """The tables, their columns and their rows."""
    yield "shops", ("shop_id", "name", "created_at"), ((shop_id, "Shop", shop_id) for shop_id in SHOPS)
    yield from _table("shop_keys", "key_hash sealed_key created_at", 3, lambda s, n: (f"{n:032}", "sealed", n))
    accounts = "id gateway url gateway_user sealed_key created_at"
    yield from _table("gateway_accounts", accounts, 3, lambda s, n: (str(n), "begateway", "https://a.test", "u", "sealed", n))
    yield from _table("customers", _CUSTOMER, MANY, _customer)
    yield from _table("erased_customers", "id version erased_at", MANY, lambda s, n: (f"cst_{n:016x}", 2, n))
    checkpoints = "digest lines imported_at"
    yield from _table("customer_imports", checkpoints, MANY, lambda s, n: (f"{n:064x}", 2000 * n, created_at(n)))
    yield from _table("idempotency_keys", _KEY, MANY, _key)
    yield from _table("plans", _PLAN, MANY, _plan)
    yield from _table("subscriptions", _SUBSCRIPTION, MANY, _subscription)
    yield from _table("payments", _PAYMENT, MANY, _payment)
    yield from _table("events", "id type object_id sequence created_at data", MANY, _event)
    yield from _table("webhooks", _WEBHOOK, MANY, _webhook)
    cards = "token gateway card behaviour created_at"
    yield from _table("cards", cards, MANY, lambda s, n: (f"card {n}", "sandbox", "{}", "successful", n))
    charges = "id token amount currency status message created_at"
    yield from _table(
        *("sandbox_charges", charges, MANY),
        lambda s, n: (payment_id(s, n), f"card {n // 3}", 100, "EUR", "successful", "", created_at(n)),
    )
    yield "sandbox_clock", ("name", "ahead"), iter([("clock", 0)])
    moves = ("id", "created_at", "leased_until", "ended_at")
    yield "clock_moves", moves, ((id_of("mov_", number), created_at(number), 0, NOW) for number in range(MANY))


def _table(name: str, columns: str, count: int, row: Any) -> Iterator[tuple[str, Sequence[str], Rows]]:
    rows = ((shop_id, *row(shop_id, number)) for shop_id in SHOPS for number in range(count))
    yield name, ("shop_id", *columns.split()), rows


_CUSTOMER = "id first_name last_name address country city zip state phone email ip external_id search_terms"


def _customer(shop_id: int, number: int) -> tuple[object, ...]:
    email, external_id = f"{number}@shop.test", rare(number, f"x{number}", "shared")
    terms = f"{shop_id}nfirst{number} {shop_id}nlast {shop_id}e{email} {shop_id}x{external_id}"
    place = ("1st Street", "US", "Denver", "92006", "CO", "+1-555-555-5555")
    return (id_of("cst_", number), f"First{number}", "Last", *place, email, "::1", external_id, None if number < FEW else terms)


_KEY = "key claim fingerprint created_at status location body running_until"


def _key(shop_id: int, number: int) -> tuple[object, ...]:
    age = 2 * DAY - number if number < FEW else MANY - number
    return (f"key {number}", "c", "f", NOW - age, 201, f"/customers/{id_of('cst_', number)}", "{}", None)


_PLAN = (
    "id title currency language infinite plan_amount plan_interval plan_interval_unit visible_fields"
    " number_payment_attempts prevent_payments_at_night test created_at updated_at"
)


def _plan(shop_id: int, number: int) -> tuple[object, ...]:
    return (id_of("pln_", number), "Plan", "EUR", "en", 1, 100, 1, "month", "[]", 3, 0, 1, created_at(number), created_at(number))


_SUBSCRIPTION = (
    "id version sequence state plan_id customer_id erased_customer_id tracking_id created_at period paid_billing_cycles"
    " number_failed_payment_attempts gateway card additional_data options last_transaction checkout_token due_at leased_until"
    " parked_at notification_url"
)


def _subscription(shop_id: int, number: int) -> tuple[object, ...]:
    """Two of each customer and of each tracking id; nearly all have the first plan."""
    plan_id = id_of("pln_", number if MANY - number < FEW else 0)
    state = rare(number, "active", "canceled", "redirecting", "failed")
    erased = number % 1000 == 7
    customer_id = id_of("cst_", number // 2)
    due_at = None if state in ("canceled", "failed") else NOW - MINUTE if number % (MANY // FEW) == 0 else NOW + number * MINUTE
    leased_until = NOW + MINUTE if number % (MANY // FEW) == 1 else 0
    parked_at = NOW if number % 5000 == 3 else None
    return (
        *(id_of("sbs_", number), 1, 1, state, plan_id, None if erased else customer_id, customer_id if erased else None),
        *(f"order-{number // 2}", created_at(number), 1, 1, 0, "sandbox", "{}", "{}", "{}", "{}", f"token {shop_id} {number}"),
        *(None if parked_at else due_at, leased_until, parked_at, "https://receiver.test/"),
    )


_PAYMENT = "id subscription_id period attempt amount currency gateway status created_at check_at"


def _payment(shop_id: int, number: int) -> tuple[object, ...]:
    status = rare(number, "successful", "pending", "unknown", "failed")
    check_at = NOW - MINUTE if number % (MANY // FEW) == 0 else NOW + number * MINUTE if number % 20 == 1 else None
    common = (1, 100, "EUR", "sandbox", status, created_at(number), check_at)
    return (payment_id(shop_id, number), id_of("sbs_", number), 0, *common)


def _event(shop_id: int, number: int) -> tuple[object, ...]:
    """Four of most subscriptions, and 80 of one."""
    type = rare(number, "renewed.subscription", "canceled.subscription", "failed.subscription")
    busy = number % (MANY // 80) == 0
    object_id = id_of("sbs_", 0 if busy else 1 + number // 4)
    return (id_of("evt_", number), type, object_id, 1 + number, created_at(number), "{}")


_WEBHOOK = "id subscription_id sequence event url body state attempts created_at due_at leased_until"


def _webhook(shop_id: int, number: int) -> tuple[object, ...]:
    due_at = None
    if number >= FEW and number % (MANY // FEW) in (0, 1, 2):
        due_at = NOW + (number % (MANY // FEW) - 1) * MINUTE
    leased_until = NOW + MINUTE if number % (MANY // FEW) == 1 else 0
    state = "pending" if due_at else rare(number, "delivered", "failed")
    event = ("renewed.subscription", "https://receiver.test/", "{}", state, 0, created_at(number), due_at, leased_until)
    return (id_of("whk_", number), id_of("sbs_", number), 1, *event)


def fill(url: str) -> None:
    """Fill a migrated database without records. Automatic statistics are turned off on PostgreSQL."""
    path = sqlite_path(url)
    if path is not None:
        connection = sqlite3.connect(path)
        with connection:
            for name, columns, rows in tables():
                marks = ", ".join("?" * len(columns))
                connection.executemany(f"INSERT INTO {name} ({', '.join(columns)}) VALUES ({marks})", rows)
            terms = connection.execute("SELECT id, search_terms FROM customers WHERE search_terms IS NOT NULL").fetchall()
            insert = "INSERT INTO customer_search (rowid, terms) VALUES (?, ?)"
            connection.executemany(insert, ((row_number_of(id), terms_) for id, terms_ in terms))
        connection.close()
        return

    async def copy() -> None:
        connection = await asyncpg.connect(url)
        for name, columns, rows in tables():
            await connection.execute(f"ALTER TABLE {name} SET (autovacuum_enabled = false)")
            await connection.copy_records_to_table(name, columns=list(columns), records=rows)
        await connection.close()

    asyncio.run(copy())


def analyze(url: str) -> None:
    """Collect the statistics of the planner."""
    path = sqlite_path(url)
    if path is not None:
        connection = sqlite3.connect(path)
        connection.execute("ANALYZE")
        connection.close()
        return

    async def run() -> None:
        connection = await asyncpg.connect(url)
        await connection.execute("ANALYZE")
        await connection.close()

    asyncio.run(run())
