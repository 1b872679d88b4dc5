"""SQL of customers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from ecomcharge.customers.model import Customer, CustomerFields
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.storage.statements import Insert, PointRead

COLUMNS: Final = ", ".join(Customer.__struct_fields__)

INSERT = Insert("customers", ("shop_id", *Customer.__struct_fields__), key=("shop_id", "id"))

FIND = PointRead("customers", Customer.__struct_fields__, key=("shop_id", "id"))

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

FIND_BY_EXTERNAL_ID = PointRead("customers", ("id",), key=("shop_id", "external_id"), suffix="ORDER BY id LIMIT 1")

INSERT_CHECKPOINT = Insert(
    "customer_imports", ("shop_id", "digest", "lines", "imported_at"), key=("shop_id", "digest", "imported_at")
)

FIND_CHECKPOINT = PointRead("customer_imports", ("lines",), key=("shop_id", "digest"))

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
    return await tx.insert(INSERT, (shop_id, *msgspec.structs.astuple(customer)))


CustomerRow = tuple[Any, ...]  # of INSERT: the id of the shop, then the fields of the customer


def row_of(shop_id: int, customer_id: str, fields: CustomerFields) -> CustomerRow:
    return (shop_id, customer_id, *msgspec.structs.astuple(fields))


def customer_of(row: CustomerRow) -> Customer:
    return Customer(*row[1:])


async def insert_many(tx: Transaction, rows: Sequence[CustomerRow]) -> Sequence[bool]:
    """For each customer ``False`` if its id is taken."""
    return await tx.insert_many(INSERT, rows)


async def update(tx: Transaction, shop_id: int, customer: Customer) -> None:
    """Replace the fields of the customer with this id."""
    await tx.run(UPDATE, {"shop_id": shop_id, **msgspec.structs.asdict(customer)})


async def has(tx: Transaction, shop_id: int, customer_id: str) -> bool:
    return await tx.find(FIND, (shop_id, customer_id)) is not None


async def ids_by_external_id(tx: Transaction, shop_id: int, external_ids: Sequence[str]) -> dict[str, str]:
    """The id of the first customer with each external id; unknown ones are left out."""
    rows = await tx.find_many(FIND_BY_EXTERNAL_ID, [(shop_id, external_id) for external_id in external_ids])
    return {external_id: row[0] for external_id, row in zip(external_ids, rows, strict=True) if row is not None}


async def insert_checkpoint(tx: Transaction, shop_id: int, digest: str, lines: int, now: int) -> bool:
    """Record that these lines were imported; ``False`` if they were imported before."""
    return await tx.insert(INSERT_CHECKPOINT, (shop_id, digest, lines, now))


async def has_checkpoint(tx: Transaction, shop_id: int, digest: str) -> bool:
    return await tx.find(FIND_CHECKPOINT, (shop_id, digest)) is not None


async def ends_of_imports(database: Database, shop_id: int, block: int) -> list[int]:
    """The number of lines after which earlier imports ended within a block."""
    return [row[0] for row in await database.rows(ENDS_OF_IMPORTS, {"shop_id": shop_id, "block": block})]


async def find(reader: Database | Transaction, shop_id: int, customer_id: str) -> Customer | None:
    row = await reader.find(FIND, (shop_id, customer_id))
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
