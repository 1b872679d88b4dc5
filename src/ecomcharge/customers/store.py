"""Rows of customers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from ecomcharge.customers.model import Customer
from ecomcharge.storage.database import Database, Transaction

COLUMNS: Final = "id, first_name, last_name, address, country, city, zip, state, phone, email, ip, external_id"

INSERT = """
INSERT INTO customers (
    shop_id, id, first_name, last_name, address, country, city, zip, state, phone, email, ip, external_id
) VALUES (
    :shop_id, :id, :first_name, :last_name, :address, :country, :city, :zip, :state, :phone, :email, :ip, :external_id
) ON CONFLICT DO NOTHING RETURNING shop_id, id
"""

FIND = f"SELECT {COLUMNS} FROM customers WHERE shop_id = :shop_id AND id = :id"

AFTER = f"""
SELECT {COLUMNS} FROM customers
WHERE shop_id = :shop_id AND id > :after {{matching}}
ORDER BY id LIMIT :limit
"""

BEFORE = f"""
SELECT {COLUMNS} FROM customers
WHERE shop_id = :shop_id AND id < :before {{matching}}
ORDER BY id DESC LIMIT :limit
"""

PAGE = f"""
SELECT {COLUMNS} FROM customers
WHERE shop_id = :shop_id {{matching}}
ORDER BY id LIMIT :limit OFFSET :offset
"""


@dataclass(frozen=True, slots=True)
class Filter:
    """Customers whose email, and whose external id, is exactly this. ``None`` means any."""

    email: str | None = None
    external_id: str | None = None

    @property
    def matching(self) -> str:
        email = "" if self.email is None else "AND email = :email"
        external_id = "" if self.external_id is None else "AND external_id = :external_id"
        return f"{email} {external_id}"

    @property
    def params(self) -> dict[str, object]:
        named = {"email": self.email, "external_id": self.external_id}
        return {name: value for name, value in named.items() if value is not None}


EVERYONE: Final = Filter()


async def insert(tx: Transaction, shop_id: int, customer: Customer) -> bool:
    """``False`` if the id is taken."""
    return await tx.insert(INSERT, {"shop_id": shop_id, **msgspec.structs.asdict(customer)})


async def find(database: Database, shop_id: int, customer_id: str) -> Customer | None:
    row = await database.find(FIND, {"shop_id": shop_id, "id": customer_id})
    return Customer(*row) if row is not None else None


async def after(database: Database, shop_id: int, filter: Filter, after: str, limit: int) -> list[Customer]:
    """The first customers past an id, in order of creation. Every id is past the empty string."""
    params = {"shop_id": shop_id, "after": after, "limit": limit, **filter.params}
    return _customers(await database.rows(AFTER.format(matching=filter.matching), params))


async def before(database: Database, shop_id: int, filter: Filter, before: str, limit: int) -> list[Customer]:
    """The last customers short of an id, in order of creation."""
    params = {"shop_id": shop_id, "before": before, "limit": limit, **filter.params}
    return _customers(await database.rows(BEFORE.format(matching=filter.matching), params))[::-1]


async def page(database: Database, shop_id: int, filter: Filter, offset: int, limit: int) -> list[Customer]:
    params = {"shop_id": shop_id, "offset": offset, "limit": limit, **filter.params}
    return _customers(await database.rows(PAGE.format(matching=filter.matching), params))


def _customers(rows: Sequence[Sequence[str | None]]) -> list[Customer]:
    return [Customer(*row) for row in rows]  # type: ignore[arg-type]
