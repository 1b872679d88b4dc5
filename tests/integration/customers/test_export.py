"""Exports, and exports that are imported again."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecomcharge.base.clock import SystemClock
from ecomcharge.base.ids import CUSTOMER_PREFIX, IdGenerator
from ecomcharge.base.validation import ValidationErrors
from ecomcharge.client import AsyncClient
from ecomcharge.customers import store
from ecomcharge.customers.bulk import transfer
from ecomcharge.customers.bulk.blocks import Block, blocks_of_customers, blocks_of_file
from ecomcharge.customers.bulk.formats import Format, open_customers
from ecomcharge.customers.bulk.transfer import Import, ImportSummary
from ecomcharge.customers.bulk.validation_pool import RejectedRecord
from ecomcharge.customers.model import FIELD_NAMES, Customer, CustomerBody, validate_partial
from ecomcharge.events.recorder import CustomerEventRecorder
from ecomcharge.shops.actions import create_shop
from ecomcharge.shops.keys import MasterKey
from ecomcharge.shops.model import Credentials
from ecomcharge.storage.database import Database, Transaction
from support.bulk import DATA, OTHER_SHOP, SHOP, command, exported, imported, line, stored
from support.checkout import post_card, subscribe
from support.process import ServerProcess
from support.shops import Shop, add_shop, with_database

TEXT = st.text(st.characters(blacklist_categories=("Cc", "Cs")), max_size=40)


@settings(max_examples=25, deadline=None)
@given(people=st.lists(st.fixed_dictionaries({"first_name": TEXT, "city": TEXT, "external_id": TEXT}), max_size=8))
def test_an_imported_export_has_the_same_customers(
    new_database_url: Any, master_key: MasterKey, people: list[dict[str, str]]
) -> None:
    url = new_database_url()
    add_shop(url, master_key, shop_id=SHOP)
    add_shop(url, master_key, shop_id=OTHER_SHOP)
    imported(url, b"".join(line("a@shop.test", **person) for person in people))
    formats: tuple[Format, ...] = ("jsonl", "csv")
    for format in formats:
        imported(url, exported(url, format), format=format, shop_id=OTHER_SHOP, on_duplicate="update")
        assert stored(url, OTHER_SHOP) == stored(url)


def test_an_export_with_customers_of_subscriptions_is_imported_unchanged(url: str, tmp_path: Path) -> None:
    for name, shop_id in (("own-export.csv", SHOP), ("own-export.jsonl", OTHER_SHOP)):
        file = tmp_path / name
        file.write_bytes((DATA / name).read_bytes())
        done = command(url, "import", str(file), "--shop-id", str(shop_id))
        assert (done.returncode, done.stdout) == (0, b"2 read, 2 added\n"), done.stderr
        assert exported(url, "csv", shop_id) == (DATA / "own-export.csv").read_bytes()
        assert exported(url, "jsonl", shop_id) == (DATA / "own-export.jsonl").read_bytes()


@pytest.mark.parametrize("name", ["own-export-without-metadata.csv", "own-export-without-metadata.jsonl"])
def test_an_export_of_an_earlier_release_is_imported(url: str, name: str) -> None:
    format: Format = "csv" if name.endswith(".csv") else "jsonl"
    assert imported(url, (DATA / name).read_bytes(), format=format) == ImportSummary(read=2, added=2)
    assert [(customer.id, customer.first_name, customer.email, customer.metadata) for customer in stored(url)] == [
        ("cst_68852617cb23453d", "Ann", None, None),
        ("cst_6885263042d23a58", None, "buyer@shop.test", None),
    ]


def test_metadata_that_are_no_object_of_texts_are_refused(url: str) -> None:
    rejected: list[RejectedRecord] = []
    cells = ['"{""a"":""b""}"', "{}", "", "x", "5", '"{""a"":{}}"', "[" * 5_000]
    content = "email,ip,metadata\n" + "".join(f"a@shop.test,::1,{cell}\n" for cell in cells)
    assert imported(url, content.encode(), format="csv", rejected=rejected) == ImportSummary(read=7, added=3, rejected=4)
    assert [(refusal.line, list(refusal.errors)) for refusal in rejected] == [(line, ["metadata"]) for line in (5, 6, 7, 8)]
    assert [customer.metadata and bytes(customer.metadata) for customer in stored(url)] == [b'{"a":"b"}', None, None]


ANY_TEXT = st.text(st.one_of(st.sampled_from("\"',=+-@;\t\r\n\x00\x85\xa0\u200b\u2028\ufeff"), st.characters()), max_size=12)
BODY = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("first_name", "last_name", "address", "city", "phone"), ANY_TEXT),
        "address": st.one_of(ANY_TEXT, ANY_TEXT.map(lambda text: (text + "\U0001f4b6") * 25)),
        "country": st.sampled_from(["US", "us", "CA", "LV", "XX"]),
        "zip": st.one_of(ANY_TEXT, st.just("92006")),
        "state": st.one_of(ANY_TEXT, st.sampled_from(["CO", "co", "ON"])),
        "email": st.one_of(st.emails(), st.sampled_from(["jörg@müller.example", "=1+1@shop.test", "nonsense"])),
        "ip": st.one_of(st.ip_addresses().map(str), st.sampled_from(["::FFFF:1.2.3.4", "2001:DB8:0::1", "nonsense"])),
        "external_id": st.one_of(ANY_TEXT, st.sampled_from(["a", "b"])),
        "metadata": st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=3),
    },
)


def given_fields(body: dict[str, Any]) -> dict[str, Any]:
    """The fields of a customer that the API and the payment page accept."""
    faults = ValidationErrors()
    validate_partial(CustomerBody(**body), faults)
    taken = {name: value for name, value in body.items() if not faults.has(name)}
    customer = validate_partial(CustomerBody(**taken), ValidationErrors())
    return {name: value for name, value in msgspec.structs.asdict(customer).items() if value is not None}


@st.composite
def stores(draw: st.DrawFn) -> list[Customer]:
    """Customers as created, and with fields that a buyer added later."""
    ids = draw(st.lists(st.integers(0, 2**64 - 1), max_size=6, unique=True))
    blank: dict[str, Any] = dict.fromkeys(FIELD_NAMES)
    return [Customer(f"cst_{id:016x}", **(blank | given_fields(draw(BODY)) | given_fields(draw(BODY)))) for id in ids]


@settings(max_examples=30, deadline=None)
@given(customers=stores())
def test_any_customers_export_identically_after_an_import(
    server_process: ServerProcess, master_key: MasterKey, customers: list[Customer]
) -> None:
    async def work(database: Database) -> None:
        now = SystemClock().now()
        source, *targets = [await create_shop(database, master_key, now, name="Test") for _ in range(4)]

        async def fill(tx: Transaction) -> None:
            for customer in customers:
                assert await store.insert(tx, source.shop_id, customer)

        async def export(shop: Credentials, format: Format) -> bytes:
            return b"".join([chunk async for chunk in transfer.export_customers(database, shop.shop_id, format)])

        def plan(shop: Credentials) -> Import:
            return Import(database, IdGenerator(CUSTOMER_PREFIX), CustomerEventRecorder(), now, shop.shop_id)

        async def take(plan: Import, blocks: AsyncIterator[Block]) -> None:
            refused: list[RejectedRecord] = []
            account = await plan.run(blocks, lambda _, rejected: refused.extend(rejected))
            assert (account, refused) == (ImportSummary(read=len(customers), added=len(customers)), [])

        await database.write(fill)
        formats: tuple[Format, ...] = ("jsonl", "csv")
        for format, shop in zip(formats, targets[:2], strict=True):
            file = open_customers(io.BytesIO(await export(source, format)), format)
            await take(plan(shop), blocks_of_file(database, shop.shop_id, file, plan(shop).id_generator, now))
        async with AsyncClient(server_process.url, source.shop_id, source.secret_key) as client:
            shop = targets[2]
            await take(
                plan(shop),
                blocks_of_customers(shop.shop_id, client.customers(page_size=2), plan(shop).id_generator, now),
            )
        for format in formats:
            first = await export(source, format)
            assert first.count(b"\n") == len(customers) + (format == "csv")
            assert [await export(shop, format) for shop in targets] == [first] * 3

    with_database(server_process.database, work)


def test_fields_added_on_the_payment_page_are_exported_and_imported(server: Shop, url: str) -> None:
    """The page asks only for missing fields, and so for a state without its country."""
    asked = {"customer_fields": {"visible": ["state", "zip"]}}
    subscription = subscribe(server, customer={"first_name": "Ann", "country": "US"}, settings=asked)
    subscribe(server, customer={"last_name": "Doe"})
    assert post_card(subscription["redirect_url"], state="colorado", zip="K1A").status_code == 303
    there = stored(server.process.database, server.shop_id)
    assert [(each.country, each.state, each.zip, each.ip) for each in there] == [
        ("US", "colorado", "K1A", None),
        (None, None, None, None),
    ]
    arguments = ("import", "--from", server.url, "--from-shop-id", str(server.shop_id), "--shop-id", str(SHOP))
    copied = command(url, *arguments, ECOMCHARGE_FROM_SECRET_KEY=server.secret_key)
    assert (copied.returncode, copied.stdout) == (0, b"2 read, 2 added\n"), copied.stderr
    assert exported(url) == exported(server.process.database, shop_id=server.shop_id)
