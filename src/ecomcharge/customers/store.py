"""SQL of customers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from ecomcharge.customers.model import Customer, CustomerFields
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


UPDATE = """
UPDATE customers SET
    first_name = :first_name, last_name = :last_name, address = :address, country = :country, city = :city, zip = :zip,
    state = :state, phone = :phone, email = :email, ip = :ip, external_id = :external_id
WHERE shop_id = :shop_id AND id = :id
"""

FIND_BY_EXTERNAL_ID = """
SELECT id FROM customers WHERE shop_id = :shop_id AND external_id = :external_id ORDER BY id LIMIT 1
"""

INSERT_MARK = """
INSERT INTO customer_imports (shop_id, digest, lines, imported_at) VALUES (:shop_id, :digest, :lines, :imported_at)
ON CONFLICT DO NOTHING RETURNING shop_id, digest, imported_at
"""

FIND_MARK = "SELECT lines FROM customer_imports WHERE shop_id = :shop_id AND digest = :digest"

ENDS_OF_IMPORTS = "SELECT DISTINCT lines FROM customer_imports WHERE shop_id = :shop_id AND lines % :block <> 0"


@dataclass(frozen=True, slots=True)
class Filter:
    """Selects customers by exact email and external id. ``None`` means any."""

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
    return await tx.insert(INSERT, _params(shop_id, customer))


CustomerRow = tuple[Any, ...]  # the shop id, then the fields of the customer in the order of INSERT


def row_of(shop_id: int, customer_id: str, fields: CustomerFields) -> CustomerRow:
    return (shop_id, customer_id, *msgspec.structs.astuple(fields))


def customer_of(row: CustomerRow) -> Customer:
    return Customer(*row[1:])


async def insert_many(tx: Transaction, rows: Sequence[CustomerRow]) -> Sequence[bool]:
    """For each customer ``False`` if its id is taken."""
    return await tx.insert_many(INSERT, rows)


async def update(tx: Transaction, shop_id: int, customer: Customer) -> None:
    """Replace the fields of the customer with this id."""
    await tx.run(UPDATE, _params(shop_id, customer))


async def has(tx: Transaction, shop_id: int, customer_id: str) -> bool:
    return await tx.find(FIND, {"shop_id": shop_id, "id": customer_id}) is not None


async def ids_by_external_id(tx: Transaction, shop_id: int, external_ids: Sequence[str]) -> dict[str, str]:
    """The id of the first customer with each external id; unknown ones are left out."""
    asked = [{"shop_id": shop_id, "external_id": external_id} for external_id in external_ids]
    rows = await tx.find_many(FIND_BY_EXTERNAL_ID, asked)
    return {external_id: row[0] for external_id, row in zip(external_ids, rows, strict=True) if row is not None}


async def insert_checkpoint(tx: Transaction, shop_id: int, digest: str, lines: int, now: int) -> bool:
    """Record that these lines were imported; ``False`` if they were imported before."""
    mark = {"shop_id": shop_id, "digest": digest, "lines": lines, "imported_at": now}
    return await tx.insert(INSERT_MARK, mark)


async def is_marked(tx: Transaction, shop_id: int, digest: str) -> bool:
    return await tx.find(FIND_MARK, {"shop_id": shop_id, "digest": digest}) is not None


async def ends_of_imports(database: Database, shop_id: int, block: int) -> list[int]:
    """The number of lines after which earlier imports ended within a block."""
    return [row[0] for row in await database.rows(ENDS_OF_IMPORTS, {"shop_id": shop_id, "block": block})]


async def find(reader: Database | Transaction, shop_id: int, customer_id: str) -> Customer | None:
    row = await reader.find(FIND, {"shop_id": shop_id, "id": customer_id})
    return Customer(*row) if row is not None else None


@dataclass(frozen=True, slots=True)
class Customers:
    """The customers of a shop that match a filter, in order of creation."""

    database: Database
    shop_id: int
    filter: Filter = EVERYONE

    async def after(self, after: str, limit: int) -> list[Customer]:
        """The first customers after an id. Every id is after the empty string."""
        return await self._rows(AFTER, {"after": after, "limit": limit})

    async def before(self, before: str, limit: int) -> list[Customer]:
        """The last customers before an id."""
        return (await self._rows(BEFORE, {"before": before, "limit": limit}))[::-1]

    async def page(self, offset: int, limit: int) -> list[Customer]:
        return await self._rows(PAGE, {"offset": offset, "limit": limit})

    async def _rows(self, sql: str, position: dict[str, object]) -> list[Customer]:
        params = {"shop_id": self.shop_id, **position, **self.filter.params}
        rows = await self.database.rows(sql.format(matching=self.filter.matching), params)
        return [Customer(*row) for row in rows]


def _params(shop_id: int, customer: Customer) -> dict[str, object]:
    return {"shop_id": shop_id, **msgspec.structs.asdict(customer)}
