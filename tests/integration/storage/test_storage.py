"""What a database promises, on both engines: durable together, failing alone."""

from __future__ import annotations

import asyncio
import itertools
import pickle
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import apsw
import asyncpg
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecomcharge.base.clock import SystemClock
from ecomcharge.base.errors import ConfigurationError, Unavailable
from ecomcharge.base.ids import CUSTOMER_PREFIX, RANDOM_BITS, IdGenerator
from ecomcharge.customers import actions, store
from ecomcharge.customers.model import Customer, CustomerFields
from ecomcharge.customers.store import Filter
from ecomcharge.shops import store as shops
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.storage.migrate import migrate, migrations_for
from ecomcharge.storage.opening import open_database, sqlite_path
from ecomcharge.storage.postgres import statements as postgres_statements
from ecomcharge.storage.records import PER_CHUNK, chunks_of
from ecomcharge.storage.sqlite import connection, reader
from ecomcharge.storage.sqlite.transaction import insert_sql, select_sql
from ecomcharge.storage.statements import Insert, PointRead
from ecomcharge.web.idempotency import IdempotencyKey, forget_some_old
from support.postgres import PostgresServer
from support.shops import with_database

NOW = SystemClock().now()


def customer(number: int) -> Customer:
    nothing = dict.fromkeys(Customer.__struct_fields__)
    return Customer(**{**nothing, "id": f"cst_{number:016x}", "email": f"{number}@shop.test", "ip": "::1"})  # type: ignore[arg-type]


def rows(numbers: Iterable[int], shop_id: int = 1) -> list[store.CustomerRow]:
    return [(shop_id, *msgspec.structs.astuple(customer(number))) for number in numbers]


async def with_shop(database: Database, shop_id: int = 1) -> Database:
    async def unit(tx: Transaction) -> None:
        await shops.insert_shop(tx, shop_id, "Test", NOW)

    await database.write(unit)
    return database


async def add(database: Database, number: int) -> bool:
    return await database.write(lambda tx: store.insert(tx, 1, customer(number)))


def test_units_that_wait_together_share_commits_and_all_are_there(database_url: str) -> None:
    async def work(database: Database) -> None:
        await with_shop(database)
        before = database.load.commits
        assert all(await asyncio.gather(*(add(database, number) for number in range(500))))
        assert database.load.commits - before < 50
        found = [chunk async for chunk in chunks_of(store.Customers(database, 1))]
        assert list(itertools.chain(*found)) == [customer(number) for number in range(500)]

    with_database(database_url, work)


def test_the_failure_of_one_unit_stays_its_own(database_url: str) -> None:
    async def fails_after_writing(tx: Transaction) -> None:
        await store.insert(tx, 1, customer(1_000))
        raise LookupError("mine alone")

    async def breaks_a_constraint(tx: Transaction) -> None:
        await store.insert(tx, 1, customer(1_001))
        await store.insert(tx, 999, customer(1_002))  # no such shop

    async def asks_nonsense(tx: Transaction) -> None:
        await store.insert(tx, 1, customer(1_003))
        await tx.rows("SELECT nothing FROM nowhere", {})

    async def work(database: Database) -> None:
        await with_shop(database)
        good = [add(database, number) for number in range(20)]
        bad = [database.write(unit) for unit in (fails_after_writing, breaks_a_constraint, asks_nonsense)]
        mixed: list[Awaitable[Any]] = [*good[:10], *bad, *good[10:]]
        outcomes = await asyncio.gather(*mixed, return_exceptions=True)
        assert outcomes[:10] == outcomes[13:] == [True] * 10
        assert isinstance(outcomes[10], LookupError)
        assert all(isinstance(outcome, Exception) for outcome in outcomes[10:13])
        assert await store.Customers(database, 1).after("", 100) == [customer(number) for number in range(20)]

    with_database(database_url, work)


def test_a_unit_that_refuses_before_it_writes_costs_its_neighbours_nothing(database_url: str) -> None:
    async def refuses(tx: Transaction) -> None:
        await tx.find(store.FIND, (1, "cst_0000000000000000"))
        raise LookupError

    async def work(database: Database) -> None:
        await with_shop(database)
        units: list[Awaitable[Any]] = [*(add(database, number) for number in range(5)), database.write(refuses)]
        before = database.load.commits
        outcomes = await asyncio.gather(*units, return_exceptions=True)
        assert outcomes[:5] == [True] * 5
        assert isinstance(outcomes[5], LookupError)
        assert database.load.commits - before <= 2

    with_database(database_url, work)


@pytest.mark.parametrize("wait", [lambda: asyncio.sleep(0), lambda: asyncio.get_running_loop().create_future()])
def test_a_unit_that_awaits_anything_else_is_refused_and_undone(database_url: str, wait: Callable[[], Awaitable[None]]) -> None:
    async def suspends(tx: Transaction) -> None:
        await store.insert(tx, 1, customer(1))
        await wait()

    async def work(database: Database) -> None:
        await with_shop(database)
        with pytest.raises(RuntimeError, match="must await nothing but its transaction"):
            await database.write(suspends)
        assert await store.find(database, 1, customer(1).id) is None
        assert await add(database, 1)

    with_database(database_url, work)


def test_of_equal_inserts_at_the_same_moment_one_is_made(database_url: str) -> None:
    async def work(database: Database) -> None:
        await with_shop(database)
        outcomes = await asyncio.gather(*(add(database, number % 3) for number in range(60)))
        assert sum(outcomes) == 3

    with_database(database_url, work)


def test_concurrent_point_reads_each_get_their_own_row(database_url: str) -> None:
    async def work(database: Database) -> None:
        await with_shop(database)
        await asyncio.gather(*(add(database, number) for number in range(50)))
        asked = [number % 75 for number in range(300)]
        found = await asyncio.gather(*(store.find(database, 1, customer(number).id) for number in asked))
        assert found == [customer(number) if number < 50 else None for number in asked]
        if database.engine == "postgresql":
            assert database.load.find_statements < database.load.finds / 10

    with_database(database_url, work)


def test_a_read_sees_what_another_process_was_told_is_written_however_many_read_beside_it(database_url: str) -> None:
    """``elsewhere`` stands for the other process: it has connections of its own."""

    async def crowd(database: Database) -> None:
        while True:
            await database.find(store.FIND, (1, customer(0).id))
            await asyncio.sleep(0)

    async def work(database: Database) -> None:
        await with_shop(database)
        elsewhere = await open_database(database_url)
        reading = [asyncio.create_task(crowd(elsewhere)) for _ in range(30)]
        try:
            for number in range(1, 300):
                assert await add(database, number)
                assert await store.find(elsewhere, 1, customer(number).id) == customer(number)
        finally:
            for task in reading:
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)
            await elsewhere.close()

    with_database(database_url, work)


def test_what_is_asked_after_a_commit_of_another_process_is_not_answered_from_before_it(tmp_path: Path) -> None:
    path = f"{tmp_path}/turns.db"

    async def work(database: Database) -> None:
        await with_shop(database)
        other_process = apsw.Connection(path)
        for number in range(20):
            reading = [asyncio.create_task(store.find(database, 1, customer(number).id)) for _ in range(3)]
            await asyncio.sleep(0)  # they have read, in a transaction that they share
            other_process.execute("INSERT INTO customers (shop_id, id, email) VALUES (1, ?, 'a@b.c')", (customer(number).id,))
            assert await asyncio.create_task(store.find(database, 1, customer(number).id)) is not None
            assert await asyncio.gather(*reading) == [None, None, None]
        other_process.close()

    with_database(f"sqlite:///{path}", work)


def test_reads_share_no_transaction_while_the_log_of_sqlite_is_long(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It starts anew only when nobody reads from its older part, and is cut to size then."""
    monkeypatch.setattr(reader, "SHARING_LOG_LIMIT_BYTES", 2**20)
    monkeypatch.setattr(connection, "LOG_LIMIT_BYTES", 2**19)
    url, log = f"sqlite:///{tmp_path}/long.db", tmp_path / "long.db-wal"

    async def several_reads(database: Database) -> bool:
        """Whether they shared a transaction."""

        async def one() -> bool:
            await database.find(store.FIND, (1, customer(0).id))
            in_transaction: bool = database._reader.connection.in_transaction  # type: ignore[attr-defined]
            return in_transaction

        return any(await asyncio.gather(*(one() for _ in range(5))))

    async def all_at_once(tx: Transaction) -> None:
        assert all(await store.insert_many(tx, rows(range(1, 50_000))))

    async def work(database: Database) -> None:
        await with_shop(database)
        assert await several_reads(database)
        await database.write(all_at_once)
        assert log.stat().st_size > 2**20
        await several_reads(database)
        assert not await several_reads(database)
        for number in range(50_000, 50_003):
            await add(database, number)
        assert log.stat().st_size < 2**20
        await several_reads(database)
        assert await several_reads(database)

    with_database(url, work)


def test_who_is_slow_to_take_a_chunk_holds_no_transaction_meanwhile(tmp_path: Path) -> None:
    path = f"{tmp_path}/chunks.db"

    async def work(database: Database) -> None:
        await with_shop(database)
        await asyncio.gather(*(add(database, number) for number in range(2 * PER_CHUNK)))
        chunks = chunks_of(store.Customers(database, 1))
        assert len(await anext(chunks)) == len(await anext(chunks)) == PER_CHUNK
        await add(database, 2 * PER_CHUNK)
        [(busy, _, _)] = apsw.Connection(path).execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        assert not busy
        assert [customer(2 * PER_CHUNK)] == await anext(chunks)

    with_database(f"sqlite:///{path}", work)


def test_a_disk_that_fills_up_amid_many_inserts_leaves_nothing_of_the_whole_batch(tmp_path: Path) -> None:
    async def fills_it(tx: Transaction) -> None:
        await store.insert_many(tx, rows(range(20_000)))

    async def work(database: Database) -> None:
        await with_shop(database)
        writer: apsw.Connection = database._writer.connection  # type: ignore[attr-defined]
        pages: Any = writer.execute("PRAGMA page_count").get
        writer.execute(f"PRAGMA max_page_count = {pages + 100}")
        units = [add(database, 30_000), database.write(fills_it), add(database, 30_001)]
        assert [type(outcome) for outcome in await asyncio.gather(*units, return_exceptions=True)] == [Unavailable] * 3
        assert [chunk async for chunk in chunks_of(store.Customers(database, 1))] == []
        assert await add(database, 30_000)

    with_database(f"sqlite:///{tmp_path}/full.db", work)


def test_a_unit_that_postgresql_undoes_for_the_sake_of_another_is_run_again(postgres: PostgresServer) -> None:
    url = postgres.create_database("deadlock")

    async def work(database: Database) -> None:
        await with_shop(database)
        await asyncio.gather(add(database, 1), add(database, 2))
        other = await asyncpg.connect(url)
        await other.execute("SET deadlock_timeout = '30s'")  # so that it is ours that is undone
        runs = 0

        async def first_one_then_two(tx: Transaction) -> None:
            nonlocal runs
            runs += 1
            if runs > 1:
                time.sleep(0.2)  # theirs, which was just woken, takes the first row meanwhile
            for number in (1, 2):
                await store.update(tx, 1, msgspec.structs.replace(customer(number), city="ours"))

        await other.execute("BEGIN")
        await other.execute("UPDATE customers SET city = 'theirs' WHERE id = $1", customer(2).id)
        ours = asyncio.create_task(database.write(first_one_then_two))
        await asyncio.sleep(0.3)
        await other.execute("UPDATE customers SET city = 'theirs' WHERE id = $1", customer(1).id)
        await other.execute("COMMIT")
        await ours
        await other.close()
        assert runs == 2
        found = [await store.find(database, 1, customer(number).id) for number in (1, 2)]
        assert [each.city for each in found if each] == ["ours", "ours"]

    with_database(url, work)


@pytest.mark.parametrize("count", [1, 20, 300], ids=["one", "some", "worth a COPY"])
def test_of_many_inserts_each_is_told_whether_it_was_made(database_url: str, count: int) -> None:
    async def work(database: Database) -> None:
        await with_shop(database)
        assert all(await database.write(lambda tx: store.insert_many(tx, rows(range(count)))))
        mixed = rows([count, *range(count), count + 1, count + 1])
        told, beside = await asyncio.gather(
            database.write(lambda tx: store.insert_many(tx, mixed)),
            database.write(lambda tx: store.insert_many(tx, rows([1_000, 1_001]))),
        )
        assert list(told) == [True, *[False] * count, True, False]
        assert list(beside) == [True, True]
        found = [chunk async for chunk in chunks_of(store.Customers(database, 1))]
        assert list(itertools.chain(*found)) == [customer(number) for number in [*range(count + 2), 1_000, 1_001]]

    with_database(database_url, work)


def test_many_inserts_that_fail_leave_nothing_and_harm_no_neighbour(database_url: str) -> None:
    many = range(300)

    async def work(database: Database) -> None:
        await with_shop(database)
        without_a_shop = database.write(lambda tx: store.insert_many(tx, rows(many, shop_id=999)))
        fine = database.write(lambda tx: store.insert_many(tx, rows(many)))
        refusal, made = await asyncio.gather(without_a_shop, fine, return_exceptions=True)
        assert isinstance(refusal, Exception)
        assert not isinstance(refusal, Unavailable)
        assert made == [True] * len(many)

    with_database(database_url, work)


def test_ids_that_are_reserved_lie_between_those_of_before_and_after() -> None:
    id_generator = IdGenerator(CUSTOMER_PREFIX)
    before = [id_generator.generate(NOW) for _ in range(100)]
    for process in [pickle.loads(pickle.dumps(id_generator.reserve(NOW, 1_000))) for _ in range(3)]:
        before += itertools.islice(process, 1_000)
    before += [id_generator.generate(NOW), id_generator.generate(NOW + 10_000)]
    assert before == sorted(set(before))
    assert next(iter(IdGenerator(CUSTOMER_PREFIX).reserve(NOW, 1))) > f"cst_{NOW << RANDOM_BITS:016x}"


def test_an_id_that_is_taken_is_minted_again(database_url: str) -> None:
    class Stuck(IdGenerator):
        numbers = iter([1, 1, 2])

        def generate(self, now: int) -> str:
            return customer(next(self.numbers)).id

    async def work(database: Database) -> None:
        await with_shop(database)
        id_generator = Stuck(CUSTOMER_PREFIX)
        fields = CustomerFields(email="a@b.cc", ip="::1")
        answers = [
            await actions.create_customer(database, id_generator, NOW, 1, fields, IdempotencyKey(f"k{i}", "f")) for i in range(2)
        ]
        assert [answer.location for answer in answers] == [f"/customers/{customer(number).id}" for number in (1, 2)]

    with_database(database_url, work)


def test_migrations_apply_once_however_many_try(database_url: str) -> None:
    async def work() -> list[int]:
        databases = [await open_database(database_url) for _ in range(4)]
        try:
            applied = await asyncio.gather(*(migrate(database) for database in databases))
            return [len(each) for each in applied]
        finally:
            for database in databases:
                await database.close()

    assert sorted(asyncio.run(work())) == [0, 0, 0, len(migrations_for("sqlite"))]


def test_old_idempotency_keys_are_forgotten_a_few_at_a_time(database_url: str) -> None:
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


# The store against a model


TEXTS = st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
EMAILS = st.sampled_from(["a@b.cc", "A@b.cc", "c@d.ee"])
CUSTOMERS = st.builds(CustomerFields, first_name=TEXTS, city=TEXTS, email=EMAILS, ip=st.just("::1"), external_id=TEXTS)
CREATES = st.tuples(st.just("create"), st.integers(1, 2), CUSTOMERS, st.none() | st.sampled_from(["k1", "k2"]))
LISTS = st.tuples(st.just("list"), st.integers(1, 2), st.none() | EMAILS, st.integers(1, 5))
READS = st.tuples(st.just("read"), st.integers(1, 2), st.integers(0, 20))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(CREATES | LISTS | READS, max_size=25))
def test_the_store_does_what_a_list_in_memory_would_do(database_url: str, steps: list[tuple[Any, ...]]) -> None:
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
                matching = [each for each in mine if email is None or each.email == email]
                found = await store.Customers(database, shop_id, Filter(email=email)).after("", limit)
                assert found == matching[:limit]
                assert await store.Customers(database, shop_id, Filter(email=email)).before("cst_g", limit) == matching[-limit:]
                assert (
                    await store.Customers(database, shop_id, Filter(email=email)).page(limit, limit)
                    == matching[limit : 2 * limit]
                )
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


# URLs and translation


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:file.db", "sqlite:///folder/"])
def test_a_sqlite_url_without_a_file_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="not a usable SQLite URL"):
        sqlite_path(url)


def test_three_slashes_are_relative_and_four_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert sqlite_path("sqlite:///a/b.db") == f"{tmp_path}/a/b.db"
    assert sqlite_path("sqlite:////a/b%20c.db") == "/a/b c.db"
    assert sqlite_path("postgresql://localhost/x") is None


INSERT = Insert("t", ("k", "v"), key=("k",))
READ = PointRead("t", ("v", "w"), key=("k", "l"))
JOINED_READ = PointRead("t JOIN u ON u.k = t.k", ("u.v",), key=("t.k",), suffix="AND u.w IS NULL ORDER BY u.v LIMIT 1")


def test_sqlite_statements_have_question_marks() -> None:
    assert insert_sql(INSERT) == "INSERT INTO t (k, v) VALUES (?, ?) ON CONFLICT DO NOTHING"
    assert select_sql(READ) == "SELECT v, w FROM t WHERE k = ? AND l = ?"
    assert select_sql(JOINED_READ) == ("SELECT u.v FROM t JOIN u ON u.k = t.k WHERE t.k = ? AND u.w IS NULL ORDER BY u.v LIMIT 1")


def test_postgresql_statements_for_one_have_a_parameter_per_value() -> None:
    assert postgres_statements.select_one(READ) == "SELECT v, w FROM t WHERE k = $1 AND l = $2"
    assert postgres_statements.insert_one(INSERT, with_transaction_id=False) == (
        "INSERT INTO t (k, v) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING k"
    )
    assert postgres_statements.insert_one(INSERT, with_transaction_id=True) == (
        "INSERT INTO t (k, v) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING k, pg_current_xact_id()::text"
    )


def test_postgresql_statements_for_many_have_an_array_per_column() -> None:
    assert postgres_statements.select_many(JOINED_READ, ("int8",)) == (
        "SELECT asked.position, found.* FROM unnest($1::int8[]) WITH ORDINALITY AS asked(k1, position)"
        " CROSS JOIN LATERAL (SELECT u.v FROM t JOIN u ON u.k = t.k"
        " WHERE t.k = asked.k1 AND u.w IS NULL ORDER BY u.v LIMIT 1) AS found"
    )
    assert postgres_statements.insert_many(INSERT, ("int8", "text"), with_transaction_id=False) == (
        "INSERT INTO t (k, v) SELECT * FROM unnest($1::int8[], $2::text[]) ON CONFLICT DO NOTHING RETURNING k"
    )


def test_the_key_of_a_row_is_in_the_order_of_the_key() -> None:
    assert Insert("t", ("a", "b", "c"), key=("c", "a")).key_of((1, 2, 3)) == (3, 1)


def test_postgresql_numbers_named_parameters_and_sqlite_binds_them() -> None:
    assert postgres_statements.numbered("SELECT :a, :b_c, :a") == ("SELECT $1, $2, $1", ("a", "b_c"))
    assert postgres_statements.numbered("SELECT :a, :b").values({"b": 2, "a": 1, "unused": 3}) == [1, 2]


@pytest.mark.parametrize("sql", ["SELECT x::text FROM t", "SELECT '12:30'", "SELECT ': '"])
def test_a_colon_that_is_no_parameter_is_refused(sql: str) -> None:
    with pytest.raises(ValueError, match=":"):
        postgres_statements.numbered(sql)


def test_a_unit_that_changes_rows_with_a_read_is_refused(tmp_path: Path) -> None:
    """An engine has to know which units have written."""

    async def changes(tx: Transaction) -> None:
        await tx.rows("UPDATE shops SET name = 'x' RETURNING shop_id", {})

    async def work(database: Database) -> None:
        await with_shop(database)
        with pytest.raises(RuntimeError, match="changes rows"):
            await database.write(changes)
        assert await database.rows("SELECT name FROM shops", {}) == [("Test",)]

    with_database(f"sqlite:///{tmp_path}/reads.db", work)
