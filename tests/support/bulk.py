"""Files of customers, imports and exports."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ecomcharge.base.clock import SystemClock
from ecomcharge.base.ids import CUSTOMER_PREFIX, IdGenerator
from ecomcharge.customers import store
from ecomcharge.customers.bulk import transfer
from ecomcharge.customers.bulk.blocks import blocks_of_file
from ecomcharge.customers.bulk.formats import Format, open_customers
from ecomcharge.customers.bulk.options import AS_IT_IS, AS_THE_API, ReadingOptions, Rules
from ecomcharge.customers.bulk.transfer import Import, ImportSummary, OnDuplicate
from ecomcharge.customers.bulk.validation_pool import RejectedRecord
from ecomcharge.customers.model import Customer
from ecomcharge.events.recorder import CustomerEventRecorder
from ecomcharge.storage.database import Database
from support.shops import ENVIRONMENT, with_database

SHOP = 7
OTHER_SHOP = 8
DATA = Path(__file__).parents[1] / "data" / "imports"


def line(email: str, **fields: object) -> bytes:
    return json.dumps({"email": email, "ip": "127.0.0.1", **fields}).encode() + b"\n"


def lines(count: int, name: str = "c") -> bytes:
    return b"".join(line(f"{name}{number}@shop.test", first_name="Ann") for number in range(count))


def imported(
    url: str,
    content: bytes,
    *,
    format: Format | None = "jsonl",
    options: ReadingOptions = AS_IT_IS,
    rules: Rules = AS_THE_API,
    on_duplicate: OnDuplicate = "skip",
    dry_run: bool = False,
    shop_id: int = SHOP,
    rejected: list[RejectedRecord] | None = None,
    passed_over: list[str] | None = None,
) -> ImportSummary:
    """Import a file. ``rejected`` receives the refused records, ``passed_over`` the names that have no field."""

    async def work(database: Database) -> ImportSummary:
        now = SystemClock().now()
        plan = Import(database, IdGenerator(CUSTOMER_PREFIX), CustomerEventRecorder(), now, shop_id, on_duplicate, dry_run)
        file = open_customers(io.BytesIO(content), format, options, rules.allow_missing)
        blocks = blocks_of_file(database, shop_id, file, plan.id_generator, now, rules)

        def on_block(_: ImportSummary, found: Sequence[RejectedRecord]) -> None:
            if rejected is not None:
                rejected.extend(found)

        summary = await plan.run(blocks, on_block)
        if passed_over is not None:
            passed_over.extend(file.unused)
        return summary

    return with_database(url, work)


def exported(url: str, format: Format = "jsonl", shop_id: int = SHOP) -> bytes:
    async def work(database: Database) -> bytes:
        return b"".join([chunk async for chunk in transfer.export_customers(database, shop_id, format)])

    return with_database(url, work)


def stored(url: str, shop_id: int = SHOP) -> list[Customer]:
    return with_database(url, lambda database: store.Customers(database, shop_id).select(1_000_000))


def fields_of(customers: Sequence[Customer]) -> list[dict[str, str]]:
    """The fields that the customers have, without the ids."""
    every = [msgspec.structs.asdict(customer) for customer in customers]
    return [{name: value for name, value in fields.items() if name != "id" and value} for fields in every]


def command(url: str, *arguments: str, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    words = [sys.executable, "-m", "ecomcharge", "customers", *arguments, "--database", url]
    return subprocess.run(words, input=stdin, env={**os.environ, **ENVIRONMENT, **environment}, capture_output=True, check=False)


HEADING = b"email,ip,address\n"
