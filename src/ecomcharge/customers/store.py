"""SQL of customers."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from ecomcharge.base.ids import CUSTOMER_PREFIX
from ecomcharge.customers.model import Customer, StoredCustomer
from ecomcharge.customers.search import email_terms, id_in, terms_of, word_terms
from ecomcharge.storage.database import Database, Reader, Row, Transaction
from ecomcharge.storage.records import ALL_IDS, IdRange, direction
from ecomcharge.storage.statements import Insert, PointRead, TermIndex
from ecomcharge.storage.term_search import Group, TermSearch, conditions_of, params_of

COLUMNS: Final = ", ".join(Customer.__struct_fields__)

SEARCH = TermIndex("customer_search", "customers", CUSTOMER_PREFIX)

INSERT = Insert("customers", ("shop_id", *Customer.__struct_fields__, "search_terms"), key=("shop_id", "id"), index=SEARCH)

FIND = PointRead("customers", Customer.__struct_fields__, key=("shop_id", "id"))

_STORED = (*Customer.__struct_fields__, "version", "updated_at")

FIND_STORED = PointRead("customers", _STORED, key=("shop_id", "id"))

FIND_OLDEST = PointRead("customers", _STORED, key=("shop_id", "external_id"), first_by="id")

TERMS = PointRead("customers", ("search_terms",), key=("shop_id", "id"))

SELECT = f"""
SELECT {COLUMNS} FROM customers
WHERE shop_id = :shop_id AND id > :after AND id < :before {{matching}}
ORDER BY id {{direction}} LIMIT :limit OFFSET :offset
"""

COUNT = "SELECT COUNT(*) FROM customers WHERE shop_id = :shop_id AND id > :after AND id < :before {matching}"

UPDATE = """
UPDATE customers SET
    first_name = :first_name, last_name = :last_name, address = :address, country = :country, city = :city, zip = :zip,
    state = :state, phone = :phone, email = :email, ip = :ip, external_id = :external_id, metadata = :metadata,
    search_terms = :search_terms, version = version + 1, updated_at = :updated_at
WHERE shop_id = :shop_id AND id = :id AND version = :version
"""

# Of the same version: a transaction that changes or erases the customer waits for this one, and this one for it.
LOCK = "UPDATE customers SET version = version WHERE shop_id = :shop_id AND id = :id AND version = :version"

# SQLite has one writer, and needs no lock. On PostgreSQL the order of the ids avoids deadlocks.
LOCK_FOR_CHANGE = {
    "sqlite": "SELECT 1 FROM customers WHERE shop_id = :shop_id AND id IN (SELECT value FROM json_each(:ids))",
    "postgresql": """
SELECT 1 FROM customers
WHERE shop_id = :shop_id AND id = ANY(ARRAY(SELECT json_array_elements_text(CAST(:ids AS json)))) ORDER BY id FOR UPDATE
""",
}

FIND_ERASED = PointRead("erased_customers", ("version", "erased_at"), key=("shop_id", "id"))

INSERT_ERASED = Insert("erased_customers", ("shop_id", "id", "version", "erased_at"), key=("shop_id", "id"))

HAS_ERASED = "SELECT 1 FROM erased_customers WHERE shop_id = :shop_id LIMIT 1"

LAST_ERASURE = "SELECT MAX(erased_at) FROM erased_customers"

DELETE = "DELETE FROM customers WHERE shop_id = :shop_id AND id = :id AND version = :version"

IS_NOT_INDEXED = "SELECT 1 FROM customers WHERE search_terms IS NULL LIMIT 1"

NOT_INDEXED = f"SELECT shop_id, {COLUMNS} FROM customers WHERE search_terms IS NULL LIMIT :limit"

SET_TERMS = """
UPDATE customers SET search_terms = :search_terms WHERE shop_id = :shop_id AND id = :id AND search_terms IS NULL
"""

FIND_BY_EXTERNAL_ID = PointRead("customers", ("id",), key=("shop_id", "external_id"), first_by="id")

# Not an Insert: after a connection broke during COMMIT, the row of an Insert proves that the transaction was committed.
LOCK_EXTERNAL_ID = """
INSERT INTO external_id_locks (shop_id, external_id) VALUES (:shop_id, :external_id) ON CONFLICT DO NOTHING
"""

UNLOCK_EXTERNAL_ID = "DELETE FROM external_id_locks WHERE shop_id = :shop_id AND external_id = :external_id"

INSERT_CHECKPOINT = Insert(
    "customer_imports", ("shop_id", "digest", "lines", "imported_at"), key=("shop_id", "digest", "imported_at")
)

FIND_CHECKPOINT = PointRead("customer_imports", ("lines",), key=("shop_id", "digest"))

ENDS_OF_IMPORTS = "SELECT DISTINCT lines FROM customer_imports WHERE shop_id = :shop_id AND lines % :block <> 0"


@dataclass(frozen=True, slots=True)
class Filter:
    """Selects customers by their whole e-mail address, whole external id, and by the words of a search. ``None`` means any."""

    email: str | None = None
    external_id: str | None = None
    q: str | None = None

    @property
    def id(self) -> str | None:
        """The text of the search if it is an id. The search then finds the customer with this id, too."""
        return id_in(self.q) if self.q is not None else None


EVERYONE: Final = Filter()


def insert(tx: Transaction, shop_id: int, customer: Customer) -> Coroutine[Any, Any, bool]:
    """``False`` if the id is taken."""
    return tx.insert(INSERT, row_of(shop_id, customer))


CustomerRow = tuple[Any, ...]  # of INSERT: the id of the shop, the fields of the customer, and its search terms


def row_of(shop_id: int, customer: Customer) -> CustomerRow:
    values = msgspec.structs.astuple(customer)
    if customer.metadata is not None:
        values = (*values[:-1], _text_of(customer.metadata))
    return (shop_id, *values, terms_of(shop_id, customer))


def customer_of(row: CustomerRow) -> Customer:
    """The customer of a row of ``INSERT``."""
    return customer_of_columns(row[1:-1])


def customer_of_columns(row: Row) -> Customer:
    """The customer of a row of ``COLUMNS``."""
    if row[-1] is None:
        return Customer(*row)
    return Customer(*row[:-1], *[msgspec.Raw(row[-1].encode())])


def _text_of(metadata: msgspec.Raw | None) -> str | None:
    return None if metadata is None else bytes(metadata).decode()


async def insert_many(tx: Transaction, rows: Sequence[CustomerRow]) -> Sequence[bool]:
    """For each customer ``False`` if its id is taken."""
    return await tx.insert_many(INSERT, rows)


async def update(tx: Transaction, shop_id: int, changed: StoredCustomer) -> bool:
    """Write the next version of a customer. ``False`` if the stored version is not the one before it."""
    customer = changed.customer
    terms = terms_of(shop_id, customer)
    params = {"shop_id": shop_id, **msgspec.structs.asdict(customer), "search_terms": terms}
    params.update(metadata=_text_of(customer.metadata), version=changed.version - 1, updated_at=changed.changed_at)
    earlier_terms = await tx.find(TERMS, (shop_id, customer.id))
    if not await tx.run(UPDATE, params):
        return False
    await _remove_terms(tx, customer.id, earlier_terms)
    await tx.index_terms(SEARCH, [(customer.id, terms)])
    return True


async def lock(tx: Transaction, shop_id: int, stored: StoredCustomer) -> bool:
    """Keep a customer as it is until the transaction ends. ``False`` if the stored version is another one."""
    params = {"shop_id": shop_id, "id": stored.customer.id, "version": stored.version}
    return await tx.run(LOCK, params) > 0


async def lock_for_change(tx: Transaction, shop_id: int, ids: Sequence[str], engine: str) -> None:
    """Let no other transaction change these customers until this one ends."""
    await tx.rows(LOCK_FOR_CHANGE[engine], {"shop_id": shop_id, "ids": msgspec.json.encode(ids).decode()})


async def remove_terms(tx: Transaction, shop_id: int, customer_id: str) -> None:
    """Remove the customer from the search index, before its row is deleted."""
    await _remove_terms(tx, customer_id, await tx.find(TERMS, (shop_id, customer_id)))


async def _remove_terms(tx: Transaction, customer_id: str, terms: Row | None) -> None:
    if terms is not None and terms[0]:
        await tx.remove_terms(SEARCH, [(customer_id, terms[0])])


async def are_indexed(database: Database) -> bool:
    """Whether the search index has all customers."""
    return not await database.rows(IS_NOT_INDEXED, {})


async def index_some(tx: Transaction, limit: int) -> int:
    """Add up to ``limit`` customers that an earlier release wrote to the search index. Returns their number."""
    rows = await tx.rows(NOT_INDEXED, {"limit": limit})
    params, records = [], []
    for shop_id, *columns in rows:
        customer = customer_of_columns(columns)
        terms = terms_of(shop_id, customer)
        params.append({"shop_id": shop_id, "id": customer.id, "search_terms": terms})
        records.append((customer.id, terms))
    await tx.run_many(SET_TERMS, params)
    await tx.index_terms(SEARCH, records)
    return len(rows)


async def erase(tx: Transaction, shop_id: int, customer_id: str, version: int, erased_at: int) -> bool:
    """Delete a customer and keep its id, so that it is not used again. ``version`` is the number of its last event.

    ``erased_at`` is in UTC milliseconds of the real clock, in a sandbox too. ``False`` if the stored version is not the one
    before ``version``.
    """
    await remove_terms(tx, shop_id, customer_id)
    if not await tx.run(DELETE, {"shop_id": shop_id, "id": customer_id, "version": version - 1}):
        return False
    await tx.insert(INSERT_ERASED, (shop_id, customer_id, version, erased_at))
    return True


async def is_erased(reader: Reader | Transaction, shop_id: int, customer_id: str) -> bool:
    return await reader.find(FIND_ERASED, (shop_id, customer_id)) is not None


async def has_erased(tx: Transaction, shop_id: int) -> bool:
    """Whether the shop ever erased a customer."""
    return bool(await tx.rows(HAS_ERASED, {"shop_id": shop_id}))


async def erased_among(tx: Transaction, shop_id: int, ids: Sequence[str]) -> set[str]:
    """Those of the ids whose customers were erased."""
    rows = await tx.find_many(FIND_ERASED, [(shop_id, id) for id in ids])
    return {id for id, row in zip(ids, rows, strict=True) if row is not None}


async def last_erasure(database: Database) -> int | None:
    """When the last customer of any shop was erased (UTC milliseconds)."""
    moment: int | None = (await database.rows(LAST_ERASURE, {}))[0][0]
    return moment


async def has(reader: Database | Transaction, shop_id: int, customer_id: str) -> bool:
    return await reader.find(FIND, (shop_id, customer_id)) is not None


async def ids_by_external_id(tx: Transaction, shop_id: int, external_ids: Sequence[str]) -> dict[str, str]:
    """The id of the first customer with each external id; unknown ones are left out."""
    rows = await tx.find_many(FIND_BY_EXTERNAL_ID, [(shop_id, external_id) for external_id in external_ids])
    return {external_id: row[0] for external_id, row in zip(external_ids, rows, strict=True) if row is not None}


async def insert_checkpoint(tx: Transaction, shop_id: int, digest: str, lines: int, now: int) -> bool:
    """Record that these lines were imported; ``False`` if they were imported before."""
    return await tx.insert(INSERT_CHECKPOINT, (shop_id, digest, lines, now))


async def known_checkpoints(tx: Transaction, shop_id: int, digests: Sequence[str]) -> set[str]:
    """Those of the digests that are stored."""
    rows = await tx.find_many(FIND_CHECKPOINT, [(shop_id, digest) for digest in digests])
    return {digest for digest, row in zip(digests, rows, strict=True) if row is not None}


async def ends_of_imports(database: Database, shop_id: int, block: int) -> list[int]:
    """The number of lines after which earlier imports ended within a block."""
    return [row[0] for row in await database.rows(ENDS_OF_IMPORTS, {"shop_id": shop_id, "block": block})]


async def find(reader: Database | Transaction, shop_id: int, customer_id: str) -> Customer | None:
    row = await reader.find(FIND, (shop_id, customer_id))
    return customer_of_columns(row) if row is not None else None


async def find_stored(reader: Reader | Transaction, shop_id: int, customer_id: str) -> StoredCustomer | None:
    row = await reader.find(FIND_STORED, (shop_id, customer_id))
    return None if row is None else _stored_of(row)


async def find_many_stored(tx: Transaction, shop_id: int, customer_ids: Sequence[str]) -> list[StoredCustomer | None]:
    """The customers with these ids, in their order."""
    rows = await tx.find_many(FIND_STORED, [(shop_id, customer_id) for customer_id in customer_ids])
    return [None if row is None else _stored_of(row) for row in rows]


async def find_oldest(reader: Database | Transaction, shop_id: int, external_id: str) -> StoredCustomer | None:
    """The oldest customer with this external id."""
    row = await reader.find(FIND_OLDEST, (shop_id, external_id))
    return None if row is None else _stored_of(row)


def _stored_of(row: Row) -> StoredCustomer:
    """The customer of a row of ``_STORED``."""
    return StoredCustomer(customer_of_columns(row[:-2]), row[-2], row[-1])


async def lock_external_id(tx: Transaction, shop_id: int, external_id: str) -> bool:
    """Wait until no other transaction has this lock, and keep it until the transaction ends.

    ``False`` if another unit of work in the same transaction has it. ``unlock_external_id`` must follow.
    """
    return await tx.run(LOCK_EXTERNAL_ID, {"shop_id": shop_id, "external_id": external_id}) > 0


async def unlock_external_id(tx: Transaction, shop_id: int, external_id: str) -> None:
    """Delete the row of the lock. Other transactions still wait for the end of this one."""
    await tx.run(UNLOCK_EXTERNAL_ID, {"shop_id": shop_id, "external_id": external_id})


@dataclass(frozen=True, slots=True)
class Customers:
    """The customers of a shop that match a filter. Implements ``Records``."""

    database: Reader
    shop_id: int
    filter: Filter = EVERYONE

    async def select(
        self,
        limit: int,
        ids: IdRange = ALL_IDS,
        *,
        newest_first: bool = False,
        offset: int = 0,
        in_background: bool = False,
    ) -> list[Customer]:
        if self._uses_index():
            rows = await self._search(limit, ids, newest_first, offset, in_background)
        else:
            read = self.database.rows_in_background if in_background else self.database.rows
            sql = SELECT.format(matching=self._matching(), direction=direction(newest_first))
            rows = await read(sql, {**self._params(ids), "limit": limit, "offset": offset})
        return [Customer(*row) if row[-1] is None else customer_of_columns(row) for row in rows]

    async def count(self, ids: IdRange = ALL_IDS) -> int:
        if not self._uses_index():
            return await self._count(self._matching(), ids)
        found = await self._term_search().count(ids)
        if self.filter.id is not None:
            email, words = self._conditions()
            found += await self._count(f"AND id = :id {email} AND NOT ({words})", ids)
        return found

    def _uses_index(self) -> bool:
        """An external id has an index of its own, and few customers share it."""
        return self.filter.external_id is None and (self.filter.email is not None or self.filter.q is not None)

    def _term_search(self) -> TermSearch:
        return TermSearch(self.database, SEARCH, COLUMNS, self.shop_id, [*self._email_terms(), *self._word_terms()])

    async def _search(self, limit: int, ids: IdRange, newest_first: bool, offset: int, in_background: bool) -> Sequence[Row]:
        search = self._term_search()
        if self.filter.id is None:
            return await search.select(limit, ids, newest_first=newest_first, offset=offset, in_background=in_background)
        rows = await search.select(offset + limit, ids, newest_first=newest_first, in_background=in_background)
        email, _ = self._conditions()
        sql = SELECT.format(matching=f"AND id = :id {email}", direction=direction(newest_first))
        named = await self.database.rows(sql, {**self._params(ids), "limit": 1, "offset": 0})
        found = {row[0]: row for row in (*rows, *named)}  # by id
        return [found[id] for id in sorted(found, reverse=newest_first)][offset : offset + limit]

    async def _count(self, matching: str, ids: IdRange) -> int:
        [[count]] = await self.database.rows_in_background(COUNT.format(matching=matching), self._params(ids))
        return int(count)

    def _matching(self) -> str:
        """The conditions of the filter, for a statement that does not use the index of terms."""
        email, words = self._conditions()
        external_id = "" if self.filter.external_id is None else "AND external_id = :external_id"
        if words:
            words = f"AND ({words})" if self.filter.id is None else f"AND (id = :id OR {words})"
        return f"{external_id} {email} {words}"

    def _conditions(self) -> tuple[str, str]:
        """The conditions on the e-mail address and on the words; empty if there are none."""
        if self.filter.email is None and self.filter.q is None:
            return "", ""
        email = self._email_terms()
        conditions = conditions_of([*email, *self._word_terms()])
        return "".join(f"AND {each}" for each in conditions[: len(email)]), " AND ".join(conditions[len(email) :])

    def _params(self, ids: IdRange) -> dict[str, object]:
        groups = [*self._email_terms(), *self._word_terms()]
        own = {"external_id": self.filter.external_id, "id": self.filter.id}
        return {"shop_id": self.shop_id, "after": ids.after, "before": ids.before, **own, **params_of(groups)}

    def _email_terms(self) -> Sequence[Group]:
        return [] if self.filter.email is None else [email_terms(self.shop_id, self.filter.email)]

    def _word_terms(self) -> Sequence[Group]:
        return [] if self.filter.q is None else word_terms(self.shop_id, self.filter.q)
