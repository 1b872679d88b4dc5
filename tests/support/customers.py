"""Build customers and their rows."""

from __future__ import annotations

from collections.abc import Iterable

from ecomcharge.base.clock import SystemClock
from ecomcharge.customers import store
from ecomcharge.customers.model import Customer
from ecomcharge.shops import store as shops
from ecomcharge.storage.database import Database, Transaction

NOW = SystemClock().now()


def customer(number: int) -> Customer:
    nothing = dict.fromkeys(Customer.__struct_fields__)
    return Customer(**{**nothing, "id": f"cst_{number:016x}", "email": f"{number}@shop.test", "ip": "::1"})  # type: ignore[arg-type]


def rows(numbers: Iterable[int], shop_id: int = 1) -> list[store.CustomerRow]:
    return [store.row_of(shop_id, customer(number)) for number in numbers]


async def with_shop(database: Database, shop_id: int = 1) -> Database:
    async def unit(tx: Transaction) -> None:
        await shops.insert_shop(tx, shop_id, "Test", NOW)

    await database.write(unit)
    return database


async def add(database: Database, number: int) -> bool:
    return await database.write(lambda tx: store.insert(tx, 1, customer(number)))
