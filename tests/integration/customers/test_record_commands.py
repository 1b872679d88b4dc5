"""The commands that erase customers and hand out their data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from ecomcharge.base.ids import CUSTOMER_PREFIX, IdGenerator
from ecomcharge.customers import store
from ecomcharge.customers.bulk.transfer import ImportSummary
from ecomcharge.customers.model import StoredCustomer
from ecomcharge.shops import store as shops
from ecomcharge.storage.database import Database, Transaction
from support.bulk import imported
from support.cli import Command
from support.customers import NOW, customer
from support.shops import with_database

YEAR = 365 * 24 * 3_600_000


@pytest.fixture
def ids(database_url: str) -> list[str]:
    """A customer of four years ago, one of four years ago that was changed today, and one of today."""
    generator = IdGenerator(CUSTOMER_PREFIX)
    made = [generator.generate(NOW - 4 * YEAR), generator.generate(NOW - 4 * YEAR + 1000), generator.generate(NOW)]

    async def work(database: Database) -> None:
        async def unit(tx: Transaction) -> None:
            await shops.insert_shop(tx, 1, "Test", NOW)
            for number, id in enumerate(made):
                await store.insert(tx, 1, msgspec.structs.replace(customer(number), id=id, first_name=f"Name{number}"))
            second = await store.find(tx, 1, made[1])
            assert second is not None
            assert await store.update(tx, 1, StoredCustomer(second, 2, NOW))

        await database.write(unit)

    with_database(database_url, work)
    return made


def stored_ids(url: str) -> list[str]:
    async def work(database: Database) -> list[str]:
        return [each.id for each in await store.Customers(database, 1).select(10)]

    return with_database(url, work)


def test_an_inactive_customer_is_purged(command: Command, ids: list[str], database_url: str) -> None:
    listed = command("customers", "purge", "--inactive", "3y", "--shop-id", "1", "--dry-run")
    assert (listed.stdout, listed.stderr) == (f"{ids[0]}\n", "1 would be erased\n")
    assert stored_ids(database_url) == ids
    purged = command("customers", "purge", "--inactive", "3y", "--shop-id", "1")
    assert (purged.returncode, purged.stdout) == (0, f"{ids[0]}\n")
    assert stored_ids(database_url) == ids[1:]


def test_a_wrong_time_is_refused(command: Command, ids: list[str]) -> None:
    refused = command("customers", "purge", "--inactive", "long", "--shop-id", "1")
    assert refused.returncode == 1
    assert "must be a number and a unit" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_one_customer_is_exported_and_erased(command: Command, ids: list[str]) -> None:
    exported = json.loads(command("customers", "export-one", ids[2], "--shop-id", "1").stdout)
    assert exported["customer"]["first_name"] == "Name2"
    assert command("customers", "erase", ids[2], "--shop-id", "1").returncode == 0
    assert command("customers", "erase", ids[2], "--shop-id", "1").returncode == 0
    gone = command("customers", "export-one", ids[2], "--shop-id", "1")
    assert (gone.returncode, gone.stderr) == (1, f"ecomcharge: {ids[2]} was erased\n")
    unknown = command("customers", "erase", "cst_0000000000000000", "--shop-id", "1")
    assert (unknown.returncode, unknown.stderr) == (1, "ecomcharge: shop 1 has no customer cst_0000000000000000\n")


def test_an_import_refuses_the_id_of_an_erased_customer(
    command: Command, ids: list[str], database_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "all.jsonl"
    assert command("customers", "export", str(file), "--shop-id", "1").returncode == 0
    command("customers", "erase", ids[0], "--shop-id", "1")
    done = command("customers", "import", str(file), "--shop-id", "1", "--on-duplicate", "update")
    assert done.returncode == 3, done.stderr
    refused = [json.loads(line) for line in (tmp_path / "all.jsonl.refused").read_text().splitlines()]
    assert [(each["line"], each["message"]) for each in refused] == [(1, "Customer was erased")]
    assert stored_ids(database_url) == ids[1:]


def test_an_import_that_looked_before_an_erasure_does_not_add_the_customer_again(
    command: Command, ids: list[str], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On PostgreSQL an erasure may be committed between two statements of the import."""
    assert command("customers", "erase", ids[0], "--shop-id", "1").returncode == 0
    look, answers = store.erased_among, iter([set[str]()])

    async def too_early(tx: Transaction, shop_id: int, wanted: Sequence[str]) -> set[str]:
        found = await look(tx, shop_id, wanted)
        return next(answers, found)

    monkeypatch.setattr(store, "erased_among", too_early)
    content = json.dumps({"id": ids[0], "email": "jane@shop.test", "ip": "127.0.0.1"}).encode() + b"\n"
    assert imported(database_url, content, shop_id=1) == ImportSummary(read=1, rejected=1)
    assert stored_ids(database_url) == ids[1:]
