"""The stores of customers and idempotency keys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecomcharge.base.ids import CUSTOMER_PREFIX, IdGenerator
from ecomcharge.customers import actions, store
from ecomcharge.customers.model import Customer, CustomerFields
from ecomcharge.customers.store import Filter
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.storage.records import IdRange
from ecomcharge.web.idempotency import IdempotencyKey, forget_some_old
from support.customers import NOW, with_shop
from support.shops import with_database


def test_expired_idempotency_keys_are_deleted_in_small_batches(database_url: str) -> None:
    day = 24 * 3_600_000

    async def work(database: Database) -> None:
        await with_shop(database)
        id_generator = IdGenerator(CUSTOMER_PREFIX)
        fields = CustomerFields(email="a@b.cc", ip="::1")
        for number, age in enumerate([2 * day, 2 * day, 2 * day, day - 1000, 0]):
            await actions.create_customer(database, id_generator, NOW - age, 1, fields, IdempotencyKey(f"k{number}", "f"))
        assert await forget_some_old(database, 1, NOW, 2) == 2
        assert await forget_some_old(database, 1, NOW, 2) == 1
        assert await forget_some_old(database, 1, NOW, 2) == 0
        assert len(await database.rows("SELECT key FROM idempotency_keys", {})) == 2

    with_database(database_url, work)


TEXTS = st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
EMAILS = st.sampled_from(["a@b.cc", "A@b.cc", "c@d.ee"])
CUSTOMERS = st.builds(CustomerFields, first_name=TEXTS, city=TEXTS, email=EMAILS, ip=st.just("::1"), external_id=TEXTS)
CREATES = st.tuples(st.just("create"), st.integers(1, 2), CUSTOMERS, st.none() | st.sampled_from(["k1", "k2"]))
LISTS = st.tuples(st.just("list"), st.integers(1, 2), st.none() | EMAILS, st.integers(1, 5))
READS = st.tuples(st.just("read"), st.integers(1, 2), st.integers(0, 20))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(CREATES | LISTS | READS, max_size=25))
def test_the_store_behaves_like_a_list_in_memory(database_url: str, steps: list[tuple[Any, ...]]) -> None:
    async def work(database: Database) -> None:
        for shop_id in (1, 2):
            await with_shop(database, shop_id)
        id_generator = IdGenerator(CUSTOMER_PREFIX)
        model: dict[int, list[Customer]] = {1: [], 2: []}
        keyed: dict[tuple[int, str], tuple[str, bytes]] = {}
        for verb, shop_id, *rest in steps:
            mine = model[shop_id]
            if verb == "create":
                fields, key = rest
                fingerprint = str(fields)
                attempt = IdempotencyKey(key, fingerprint) if key else None
                earlier = keyed.get((shop_id, key)) if key else None
                try:
                    answer = await actions.create_customer(database, id_generator, NOW, shop_id, fields, attempt)
                except Exception:
                    assert earlier is not None
                    assert earlier[0] != fingerprint
                    continue
                if earlier is not None:
                    assert earlier == (fingerprint, answer.body)
                    continue
                mine.append(msgspec.json.decode(answer.body, type=Customer))
                if key:
                    keyed[shop_id, key] = (fingerprint, answer.body)
            elif verb == "list":
                email, limit = rest
                matching = [each for each in mine if email is None or (each.email or "").lower() == email.lower()]
                customers = store.Customers(database, shop_id, Filter(email=email))
                assert await customers.select(limit) == matching[:limit]
                assert await customers.select(limit, newest_first=True) == matching[::-1][:limit]
                assert await customers.select(limit, offset=limit) == matching[limit : 2 * limit]
                assert await customers.count() == len(matching)
                if matching:
                    first, last = matching[0].id, matching[-1].id
                    assert await customers.select(limit, IdRange(first, last)) == matching[1:-1][:limit]
                    assert await customers.count(IdRange(first, last)) == len(matching[1:-1])
            else:
                everyone = model[1] + model[2]
                if everyone:
                    asked = everyone[rest[0] % len(everyone)]
                    assert await store.find(database, shop_id, asked.id) == (asked if asked in mine else None)

    with_database(database_url, _emptied(work))


def _emptied(work: Callable[[Database], Awaitable[None]]) -> Callable[[Database], Awaitable[None]]:
    async def emptied(database: Database) -> None:
        async def unit(tx: Transaction) -> None:
            for table in ("idempotency_keys", "customers", "shop_keys", "shops"):
                await tx.run(f"DELETE FROM {table}", {})

        await database.write(unit)
        await work(database)

    return emptied
