"""Customers from files and other servers into a shop and out again, by the command that an operator uses."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecomcharge.base.clock import SystemClock
from ecomcharge.base.errors import ConfigurationError
from ecomcharge.base.ids import CUSTOMER_PREFIX, IdGenerator
from ecomcharge.base.validation import ValidationErrors
from ecomcharge.client import AsyncClient
from ecomcharge.customers import store
from ecomcharge.customers.bulk import transfer, validation_pool
from ecomcharge.customers.bulk.files import COLUMNS, LINE_MAXIMUM_BYTES, CsvFile, Format, UnreadableLine, open_customers
from ecomcharge.customers.bulk.transfer import Block, DuplicateCustomer, Import, ImportSummary, OnDuplicate
from ecomcharge.customers.bulk.validation_pool import Refusal
from ecomcharge.customers.model import FIELD_NAMES, Customer, CustomerBody, validate_partial
from ecomcharge.shops.actions import create_shop
from ecomcharge.shops.keys import MasterKey
from ecomcharge.shops.model import Credentials
from ecomcharge.storage.database import Database, Transaction
from support.checkout import post_card, subscribe
from support.process import ServerProcess
from support.shops import ENVIRONMENT, Shop, add_shop, with_database

SHOP = 7
OTHER_SHOP = 8
DATA = Path(__file__).parents[2] / "data" / "imports"
NOT_CSV = "Line is not valid CSV"


def line(email: str, **fields: object) -> bytes:
    return json.dumps({"email": email, "ip": "127.0.0.1", **fields}).encode() + b"\n"


def lines(count: int, name: str = "c") -> bytes:
    return b"".join(line(f"{name}{number}@shop.test", first_name="Ann") for number in range(count))


@pytest.fixture
def url(database_url: str, master_key: MasterKey) -> str:
    add_shop(database_url, master_key, shop_id=SHOP)
    add_shop(database_url, master_key, shop_id=OTHER_SHOP)
    return database_url


def imported(
    url: str,
    content: bytes,
    *,
    format: Format = "jsonl",
    on_duplicate: OnDuplicate = "skip",
    dry_run: bool = False,
    shop_id: int = SHOP,
    refusals: list[Refusal] | None = None,
) -> ImportSummary:
    async def work(database: Database) -> ImportSummary:
        now = SystemClock().now()
        plan = Import(database, IdGenerator(CUSTOMER_PREFIX), now, shop_id, on_duplicate, dry_run)
        file = open_customers(io.BytesIO(content), format)
        blocks = transfer.blocks_of_file(database, shop_id, file, plan.id_generator, now)

        def told(_: ImportSummary, found: Sequence[Refusal]) -> None:
            if refusals is not None:
                refusals.extend(found)

        return await plan.run(blocks, told)

    return with_database(url, work)


def exported(url: str, format: Format = "jsonl", shop_id: int = SHOP) -> bytes:
    async def work(database: Database) -> bytes:
        return b"".join([chunk async for chunk in transfer.export_customers(database, shop_id, format)])

    return with_database(url, work)


def stored(url: str, shop_id: int = SHOP) -> list[Customer]:
    return with_database(url, lambda database: store.Customers(database, shop_id).after("", 1_000_000))


def command(url: str, *arguments: str, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    words = [sys.executable, "-m", "ecomcharge", "customers", *arguments, "--database", url]
    return subprocess.run(words, input=stdin, env={**os.environ, **ENVIRONMENT, **environment}, capture_output=True, check=False)


def test_a_file_is_imported_once_however_often_it_is_imported(url: str) -> None:
    content = lines(2_500)
    assert imported(url, content) == ImportSummary(read=2_500, added=2_500)
    assert imported(url, content) == ImportSummary(read=2_500, already=2_500)
    assert imported(url, content.rstrip(b"\n")) == ImportSummary(read=2_500, already=2_500)
    assert [customer.email for customer in stored(url)] == [f"c{number}@shop.test" for number in range(2_500)]


def test_another_file_with_as_many_lines_is_another_file(url: str) -> None:
    assert imported(url, lines(3)) == ImportSummary(read=3, added=3)
    assert imported(url, lines(3, "d")) == ImportSummary(read=3, added=3)


def test_the_same_lines_under_another_heading_are_other_customers(url: str) -> None:
    wrong = b"ip,email\n" + b"a@shop.test,127.0.0.1\n" * 2
    assert imported(url, wrong, format="csv") == ImportSummary(read=2, refused=2)
    assert imported(url, wrong.replace(b"ip,email", b"email,ip"), format="csv") == ImportSummary(read=2, added=2)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["line feed", "carriage return and line feed"])
def test_a_file_that_grew_behind_a_last_line_without_an_end_brings_what_is_new(url: str, end: bytes) -> None:
    assert imported(url, lines(3).replace(b"\n", end).removesuffix(end)) == ImportSummary(read=3, added=3)
    assert imported(url, lines(5).replace(b"\n", end)) == ImportSummary(read=5, added=2, already=3)


def test_a_file_that_grew_brings_what_is_new(url: str) -> None:
    imported(url, lines(2_300))
    imported(url, lines(100, "another-"))
    assert imported(url, lines(4_100)) == ImportSummary(read=4_100, added=1_800, already=2_300)
    assert imported(url, lines(4_100)) == ImportSummary(read=4_100, already=4_100)
    assert len({customer.email for customer in stored(url)}) == len(stored(url)) == 4_200


class PromptPool(futures.ProcessPoolExecutor):
    """Has started when it says that it is starting."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> futures.Future[Any]:
        future = super().submit(fn, *args, **kwargs)
        if fn is os.getpid:
            assert future.result(60) != os.getpid()
        return future


def test_many_records_are_checked_in_other_processes_with_the_same_outcome(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation_pool, "ProcessPoolExecutor", PromptPool)
    count = validation_pool.WORTH_A_PROCESS + 4_321
    content = lines(count) + b"nonsense\n" + line("last@shop.test")
    refusals: list[Refusal] = []
    assert imported(url, content, refusals=refusals) == ImportSummary(read=count + 2, added=count + 1, refused=1)
    assert refusals == [Refusal(count + 1, "Body is not valid JSON")]
    assert [customer.email for customer in stored(url)][-2:] == [f"c{count - 1}@shop.test", "last@shop.test"]


def test_lines_are_refused_in_the_words_of_the_api(server: Shop) -> None:
    bodies = [b"{}", b"nope", b"[]", b'{"email":"a","ip":"x","zip":"1","country":"US"}', b'{"email":1.5,"ip":"::1"}', b"\xff"]
    refusals: list[Refusal] = []
    account = imported(server.process.database, b"\n".join(bodies), shop_id=server.shop_id, refusals=refusals)
    assert account == ImportSummary(read=6, refused=6)
    with server.client(headers={"content-type": "application/json"}) as http:
        for number, (body, refusal) in enumerate(zip(bodies[:5], refusals, strict=False), 1):
            answer = http.post("/customers", content=body).json()
            assert refusal == Refusal(number, answer["message"], answer.get("errors", {}))
    assert refusals[5] == Refusal(6, "Line is not valid UTF-8")


def test_an_id_is_kept_and_a_malformed_one_refused_along_with_the_rest(url: str) -> None:
    refusals: list[Refusal] = []
    content = line("a@shop.test", id="cst_0000000000000001") + line("nonsense", id="cst_1")
    assert imported(url, content, refusals=refusals) == ImportSummary(read=2, added=1, refused=1)
    assert stored(url)[0].id == "cst_0000000000000001"
    assert refusals == [Refusal(2, "Id is invalid. Email is invalid", {"id": ["is invalid"], "email": ["is invalid"]})]


@pytest.mark.parametrize("identity", [{"id": "cst_0000000000000001"}, {"external_id": "user-1"}])
def test_a_customer_whom_the_shop_has_is_skipped_updated_or_fails(url: str, identity: dict[str, str]) -> None:
    imported(url, line("old@shop.test", **identity))
    first = stored(url)[0]
    again = line("new@shop.test", city="Minsk", **identity) + line("fresh@shop.test")
    assert imported(url, again, dry_run=True) == ImportSummary(read=2, added=1, duplicates=1)
    with pytest.raises(DuplicateCustomer) as failed:
        imported(url, line("before@shop.test") + again, on_duplicate="fail")
    assert failed.value.line == 2
    assert stored(url) == [first]
    assert imported(url, again) == ImportSummary(read=2, added=1, duplicates=1)
    assert stored(url)[0] == first
    assert imported(url, again, on_duplicate="update") == ImportSummary(read=2, updated=1, already=1)
    assert (stored(url)[0].id, stored(url)[0].email, stored(url)[0].city) == (first.id, "new@shop.test", "Minsk")
    assert len(stored(url)) == 2


def test_of_two_lines_with_one_identity_the_second_is_the_duplicate(url: str) -> None:
    twice = line("a@shop.test", external_id="x") + line("b@shop.test", external_id="x")
    assert imported(url, twice) == ImportSummary(read=2, added=1, duplicates=1)
    same_id = {"id": "cst_00000000000000aa"}
    twice = line("c@shop.test", **same_id) + line("d@shop.test", **same_id)
    assert imported(url, twice, on_duplicate="update") == ImportSummary(read=2, added=1, updated=1)
    assert {customer.email for customer in stored(url)} == {"a@shop.test", "d@shop.test"}


def test_the_id_tells_a_customer_before_the_external_id_does(url: str) -> None:
    imported(
        url, line("a@shop.test", id="cst_0000000000000001", external_id="x") + line("b@shop.test", id="cst_0000000000000002")
    )
    moved = line("c@shop.test", id="cst_0000000000000002", external_id="x")
    assert imported(url, moved, on_duplicate="update") == ImportSummary(read=1, updated=1)
    assert [customer.email for customer in stored(url)] == ["a@shop.test", "c@shop.test"]


def test_shops_share_nothing(url: str) -> None:
    content = line("a@shop.test", id="cst_0000000000000001", external_id="x")
    assert imported(url, content).added == 1
    assert imported(url, content, shop_id=OTHER_SHOP).added == 1


def test_a_dry_run_changes_nothing_and_does_not_count_as_an_import(url: str) -> None:
    assert imported(url, lines(1_200), dry_run=True) == ImportSummary(read=1_200, added=1_200)
    assert stored(url) == []
    assert imported(url, lines(1_200)).added == 1_200


def test_a_line_that_is_too_long_is_refused_and_the_next_one_read(url: str) -> None:
    refusals: list[Refusal] = []
    content = line("a@shop.test", city="x" * 3 * LINE_MAXIMUM_BYTES) + b"\n \n" + line("b@shop.test")
    assert imported(url, content, refusals=refusals) == ImportSummary(read=2, added=1, refused=1)
    assert refusals == [Refusal(1, "Line is too long (maximum is 65536 bytes)")]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["no mark", "byte order mark"])
@pytest.mark.parametrize("end", [b"", b"\n"], ids=["at the end of the file", "ended"])
def test_a_line_may_be_as_long_as_the_limit_and_no_longer(url: str, mark: bytes, end: bytes) -> None:
    refusals: list[Refusal] = []
    for excess in (0, 1, 2, 3, 4, 70_000):
        long = line(f"a{excess}@shop.test").rstrip(b"\n").ljust(LINE_MAXIMUM_BYTES + excess) + end
        following = line(f"b{excess}@shop.test") if end else b""
        account = imported(url, mark + long + following, refusals=refusals)
        assert (account.read, account.refused) == (1 + bool(end), int(excess > 0))
    assert refusals == [Refusal(1, "Line is too long (maximum is 65536 bytes)")] * 5


def test_csv_with_quotes_odd_columns_and_a_byte_order_mark(url: str) -> None:
    content = (
        b"\xef\xbb\xbfEmail,Nickname,ip,city,id\r\n"
        b'"a@shop.test",Al,127.0.0.1,"Saint ""Peter"", Port",\r\n'
        b'b@shop.test,,::1,"two\nlines",\r\n'
        b"c@shop.test,,::1\r\n"
        b'd@shop.test,,::1,"x"y,\r\n'
        b"e@shop.test,,::1,,\r\n"
    )
    refusals: list[Refusal] = []
    assert imported(url, content, format="csv", refusals=refusals) == ImportSummary(read=5, added=2, refused=3)
    assert [(customer.email, customer.city) for customer in stored(url)] == [
        ("a@shop.test", 'Saint "Peter", Port'),
        ("e@shop.test", None),
    ]
    assert [(refusal.line, refusal.message) for refusal in refusals] == [
        (3, "City is invalid"),
        (5, "Line has 3 cells where the header has 5"),
        (6, "Line is not valid CSV"),
    ]
    with pytest.raises(ConfigurationError, match="email and ip not found"):
        imported(url, b"a,b\n1,2\n", format="csv")
    with pytest.raises(ConfigurationError, match="each column once"):
        imported(url, b"email,ip,ip\n", format="csv")


@pytest.mark.parametrize(
    ("name", "read", "refused_line"),
    [
        ("one-inch-mark.csv", 5_000, None),
        ("two-inch-marks.csv", 5_000, None),
        ("smallest.csv", 3, None),
        ("open-quote.csv", 3, 2),
        ("quoted-unescaped.csv", 3, 2),
    ],
)
def test_a_stray_quote_costs_at_most_its_own_row(url: str, name: str, read: int, refused_line: int | None) -> None:
    refusals: list[Refusal] = []
    expected = [] if refused_line is None else [Refusal(refused_line, NOT_CSV)]
    account = imported(url, (DATA / name).read_bytes(), format="csv", refusals=refusals)
    assert account == ImportSummary(read=read, added=read - len(expected), refused=len(expected))
    assert refusals == expected
    assert imported(url, (DATA / name).read_bytes(), format="csv").added == 0


def test_a_quote_inside_an_unquoted_cell_is_text(url: str) -> None:
    imported(url, (DATA / "two-inch-marks.csv").read_bytes(), format="csv")
    imported(url, b'email,ip,address\na@shop.test,::1,Apt "B" 5"\n', format="csv")
    with_quotes = [customer.address for customer in stored(url) if '"' in (customer.address or "")]
    assert with_quotes == ['Unit 5" West', 'Unit 7" East', 'Apt "B" 5"']


HEADING = b"email,ip,address\n"


@pytest.mark.parametrize(
    ("rows", "refused", "added"),
    [
        pytest.param(b'a@shop.test,::1,"5 West\nb@shop.test,::1,x\nc@shop.test,::1,7"\n', [2], "bc", id="closed by an inch mark"),
        pytest.param(b'a@shop.test,::1,"5 West\nc@shop.test,::1,7"\n', [2], "c", id="closed on the next line"),
        pytest.param(b'a@shop.test,"::1,5\nb@shop.test,::1,x\nc@shop.test,7",::1\n', [2, 4], "b", id="in another column"),
        pytest.param(b'"a@shop.test,::1,5\nb@shop.test,::1,x\nc",::1,x\n', [2, 4], "b", id="opened in the first column"),
        pytest.param(b'a@shop.test,::1,"5\nb@shop.test,::1,"6\nc@shop.test,::1,"7\n', [2, 3, 4], "", id="on each line"),
        pytest.param(b'a@shop.test,::1,"5\n"b@shop.test","::1","x"\n', [2], "b", id="before a row of quoted cells"),
        pytest.param(b'a@shop.test,::1,"5\n\nb@shop.test,::1,""\n', [2], "b", id="before a blank line and an empty cell"),
        pytest.param(b'a@shop.test,::1,5","x\n' * 3 + b"b@shop.test,::1,x\n", [2, 3, 4], "b", id="closed and opened again"),
        pytest.param(b'a@shop.test,::1,"5\r\nb@shop.test,::1,x\r\n', [2], "b", id="with carriage returns"),
        pytest.param(b'"', [2], "", id="nothing else"),
    ],
)
def test_a_row_with_an_open_quote_is_refused_alone(url: str, rows: bytes, refused: list[int], added: str) -> None:
    refusals: list[Refusal] = []
    account = imported(url, HEADING + rows, format="csv", refusals=refusals)
    assert [refusal.line for refusal in refusals] == refused
    assert account == ImportSummary(read=len(refused) + len(added), added=len(added), refused=len(refused))
    assert [customer.email for customer in stored(url)] == [f"{name}@shop.test" for name in added]


def test_an_open_quote_far_from_the_next_one_costs_its_row_alone(url: str) -> None:
    row = b"%s@shop.test,::1,%s\n"
    good = [row % (b"c%d" % number, b"x" * 40) for number in range(3_000)]
    refusals: list[Refusal] = []
    content = HEADING + row % (b"a", b'"5 West') + b"".join(good) + row % (b"z", b'7"')
    assert imported(url, content, format="csv", refusals=refusals) == ImportSummary(read=3_002, added=3_001, refused=1)
    assert refusals == [Refusal(2, NOT_CSV)]


def test_reading_a_file_full_of_open_quotes_takes_time_in_proportion_to_its_length() -> None:
    """Each of these lines leaves a quote open, however the line before it was read."""
    content = HEADING + b'5","x\n' * 100_000
    started = time.process_time()
    assert sum(1 for _ in open_customers(io.BytesIO(content), "csv").records()) == 100_000
    assert time.process_time() - started < 30  # seconds; about one, and hours if every line were searched to the limit


def rows_of(content: bytes) -> list[list[str] | None]:
    """The cells of each row of a CSV file whose columns are all known; ``None`` where the row cannot be read."""
    file = CsvFile(io.BytesIO(content))
    rows: list[list[str] | None] = []
    for _, record in file.records():
        try:
            body = file.read(record)
        except UnreadableLine:
            rows.append(None)
        else:
            rows.append([getattr(body, name) or "" for name in COLUMNS])
    return rows


NOT_ALONE: Any = {"exclude_categories": ["Cs"], "exclude_characters": "\r"}  # the csv module does not quote every "\r"
CSV_TEXT = st.lists(
    st.one_of(st.sampled_from(['"', ",", "\n", "\r\n", " ", ";", "="]), st.characters(**NOT_ALONE)), max_size=12
).map("".join)


@settings(deadline=None)
@given(
    rows=st.lists(st.lists(CSV_TEXT, min_size=len(COLUMNS), max_size=len(COLUMNS)).filter(any), max_size=6),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_a_well_formed_file_has_the_cells_that_the_csv_module_reads(rows: list[list[str]], quoting: int, end: str) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, quoting=quoting, lineterminator=end).writerows([COLUMNS, *rows])  # type: ignore[arg-type]
    assert list(csv.reader(io.StringIO(text.getvalue(), newline=""), strict=True))[1:] == rows
    assert rows_of(text.getvalue().encode()) == rows


STRAY = st.sampled_from(['5"', '"5', '5" W', '"5" W', '""5', '"', '5""', '"5,6', '5","6', '"""', '"5""'])


@settings(deadline=None)
@given(rows=st.lists(st.one_of(st.none(), st.tuples(st.integers(0, 2), STRAY)), max_size=12), quoted=st.booleans())
def test_every_good_row_is_in_and_the_others_are_refused_by_number(rows: list[tuple[int, str] | None], quoted: bool) -> None:
    file_lines = []
    for number, stray in enumerate(rows, 2):
        cells = [f"c{number}@shop.test", "::1", "5 West"]
        if stray is not None:
            cells[stray[0]] = stray[1]
        elif quoted:
            cells = [f'"{cell}"' for cell in cells]
        file_lines.append(",".join(cells) + "\n")
    file = CsvFile(io.BytesIO(HEADING + "".join(file_lines).encode()))
    records = list(file.records())
    checked = validation_pool.check(SHOP, records, file.read, IdGenerator(CUSTOMER_PREFIX).reserve(0, len(records)))
    assert b"".join(record for _, record in records) == "".join(file_lines).encode()  # no byte is passed over
    in_or_named = sorted([each.line for each in checked.candidates] + [each.line for each in checked.refused])
    assert in_or_named == [number for number, _ in records]
    good = {number for number, stray in enumerate(rows, 2) if stray is None}
    assert good <= {each.line for each in checked.candidates}


TEXT = st.text(st.characters(blacklist_categories=("Cc", "Cs")), max_size=40)


@settings(max_examples=25, deadline=None)
@given(people=st.lists(st.fixed_dictionaries({"first_name": TEXT, "city": TEXT, "external_id": TEXT}), max_size=8))
def test_what_is_exported_imports_as_the_same(new_database_url: Any, master_key: MasterKey, people: list[dict[str, str]]) -> None:
    url = new_database_url()
    add_shop(url, master_key, shop_id=SHOP)
    add_shop(url, master_key, shop_id=OTHER_SHOP)
    imported(url, b"".join(line("a@shop.test", **person) for person in people))
    formats: tuple[Format, ...] = ("jsonl", "csv")
    for format in formats:
        imported(url, exported(url, format), format=format, shop_id=OTHER_SHOP, on_duplicate="update")
        assert stored(url, OTHER_SHOP) == stored(url)


def test_an_own_export_with_customers_of_subscriptions_comes_in_as_it_is(url: str, tmp_path: Path) -> None:
    for name in ("own-export.csv", "own-export.jsonl"):
        file = tmp_path / name
        file.write_bytes((DATA / name).read_bytes())
        shop_id = {"own-export.csv": SHOP, "own-export.jsonl": OTHER_SHOP}[name]
        done = command(url, "import", str(file), "--shop-id", str(shop_id))
        assert (done.returncode, done.stdout) == (0, b"2 read, 2 added\n"), done.stderr
        assert exported(url, "csv", shop_id) == (DATA / "own-export.csv").read_bytes()
        assert exported(url, "jsonl", shop_id) == (DATA / "own-export.jsonl").read_bytes()


def test_a_record_with_an_id_needs_nothing_else_and_what_it_has_keeps_its_rule(url: str) -> None:
    ids = [f"cst_{number:016x}" for number in range(7)]
    given: list[dict[str, object]] = [
        {},
        {"country": "US", "state": "Colorado", "zip": "K1A 0B1"},
        {"email": "nonsense", "ip": "10.0.0.256", "country": "XX"},
        {"city": "x" * 256},
        {"first_name": "a\u0000b", "phone": 1.5},
        {"email": " ", "ip": "", "state": "\t"},
    ]
    content = b"".join(json.dumps({"id": id, **values}).encode() + b"\n" for id, values in zip(ids, given, strict=False))
    refusals: list[Refusal] = []
    account = imported(url, content + json.dumps({"first_name": "Ann"}).encode(), refusals=refusals)
    assert account == ImportSummary(read=7, added=3, refused=4)
    assert [(refusal.line, refusal.errors) for refusal in refusals] == [
        (3, {"country": ["is invalid"], "email": ["is invalid"], "ip": ["address is invalid"]}),
        (4, {"city": ["is too long (maximum is 255 characters)"]}),
        (5, {"first_name": ["is invalid"], "phone": ["must be a string"]}),
        (7, {"email": ["can't be blank"], "ip": ["address is invalid", "can't be blank"]}),
    ]
    assert [(customer.id, customer.state, customer.zip) for customer in stored(url)] == [
        (ids[0], None, None),
        (ids[1], "Colorado", "K1A 0B1"),
        (ids[5], None, None),
    ]


def test_customers_with_ids_may_share_an_external_id_and_others_may_not(url: str) -> None:
    one, two, three = (f"cst_{number:016x}" for number in (1, 2, 3))
    content = line("a@shop.test", id=one, external_id="x") + line("b@shop.test", id=two, external_id="x")
    assert imported(url, content) == ImportSummary(read=2, added=2)
    assert imported(url, content) == ImportSummary(read=2, already=2)
    more = line("c@shop.test", external_id="x") + line("d@shop.test", id=three, external_id="x")
    assert imported(url, more, on_duplicate="update") == ImportSummary(read=2, added=1, updated=1)
    assert [(customer.id, customer.email) for customer in stored(url)] == [
        (one, "c@shop.test"),
        (two, "b@shop.test"),
        (three, "d@shop.test"),
    ]


def test_a_skipped_customer_does_not_stand_for_the_external_id_that_it_would_have_had(url: str) -> None:
    known = {"id": "cst_0000000000000001"}
    imported(url, line("a@shop.test", **known))
    both = line("b@shop.test", external_id="x", **known) + line("c@shop.test", external_id="x")
    assert imported(url, both) == ImportSummary(read=2, added=1, duplicates=1)
    assert {(customer.email, customer.external_id) for customer in stored(url)} == {("a@shop.test", None), ("c@shop.test", "x")}


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
    },
)


def given_fields(body: dict[str, str]) -> dict[str, str]:
    """What the API and the payment page store of it, without the fields that they refuse."""
    faults = ValidationErrors()
    validate_partial(CustomerBody(**body), faults)
    taken = {name: value for name, value in body.items() if not faults.has(name)}
    customer = validate_partial(CustomerBody(**taken), ValidationErrors())
    return {name: value for name, value in msgspec.structs.asdict(customer).items() if value is not None}


@st.composite
def stores(draw: st.DrawFn) -> list[Customer]:
    """Customers as they were sent, and with what a buyer added later."""
    ids = draw(st.lists(st.integers(0, 2**64 - 1), max_size=6, unique=True))
    blank = dict.fromkeys(FIELD_NAMES)
    return [Customer(f"cst_{id:016x}", **(blank | given_fields(draw(BODY)) | given_fields(draw(BODY)))) for id in ids]


@settings(max_examples=30, deadline=None)
@given(customers=stores())
def test_any_store_exports_the_same_after_it_was_imported(
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
            return Import(database, IdGenerator(CUSTOMER_PREFIX), now, shop.shop_id)

        async def take(plan: Import, blocks: AsyncIterator[Block]) -> None:
            refused: list[Refusal] = []
            account = await plan.run(blocks, lambda _, refusals: refused.extend(refusals))
            assert (account, refused) == (ImportSummary(read=len(customers), added=len(customers)), [])

        await database.write(fill)
        formats: tuple[Format, ...] = ("jsonl", "csv")
        for format, shop in zip(formats, targets[:2], strict=True):
            file = open_customers(io.BytesIO(await export(source, format)), format)
            await take(plan(shop), transfer.blocks_of_file(database, shop.shop_id, file, plan(shop).id_generator, now))
        async with AsyncClient(server_process.url, source.shop_id, source.secret_key) as client:
            shop = targets[2]
            await take(
                plan(shop),
                transfer.blocks_of_customers(shop.shop_id, client.customers(page_size=2), plan(shop).id_generator, now),
            )
        for format in formats:
            first = await export(source, format)
            assert first.count(b"\n") == len(customers) + (format == "csv")
            assert [await export(shop, format) for shop in targets] == [first] * 3

    with_database(server_process.database, work)


def test_what_a_buyer_added_on_the_payment_page_goes_to_another_server(server: Shop, url: str) -> None:
    """The page asks for what is missing, and so for a state apart from its country."""
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


def test_by_command_from_a_file_and_from_standard_input(url: str, tmp_path: Path) -> None:
    file = tmp_path / "customers.jsonl"
    file.write_bytes(lines(30) + b"{}\n")
    first = command(url, "import", str(file), "--shop-id", str(SHOP))
    assert (first.returncode, first.stdout) == (3, b"31 read, 30 added, 1 refused\n")
    report = [json.loads(each) for each in (tmp_path / "customers.jsonl.refused").read_text().splitlines()]
    assert [(each["line"], sorted(each["errors"])) for each in report] == [(31, ["email", "ip"])]
    csv = command(url, "export", "--shop-id", str(SHOP), "--format", "csv")
    second = command(url, "import", "-", "--format", "csv", "--shop-id", str(OTHER_SHOP), stdin=csv.stdout)
    assert (second.returncode, second.stdout) == (0, b"30 read, 30 added\n")
    assert stored(url) == stored(url, OTHER_SHOP)


def test_an_export_appears_when_it_is_whole_and_only_its_owner_may_read_it(url: str, tmp_path: Path) -> None:
    imported(url, lines(3))
    file = tmp_path / "all.jsonl"
    assert command(url, "export", str(file), "--shop-id", str(SHOP)).returncode == 0
    assert file.read_bytes() == exported(url)
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.glob("*.part")) == []


def test_an_export_into_a_pipe_leaves_the_pipe_in_its_place(url: str, tmp_path: Path) -> None:
    imported(url, lines(3))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        assert command(url, "export", str(pipe), "--shop-id", str(SHOP)).returncode == 0
        assert reader.communicate(timeout=10)[0] == exported(url)
    assert pipe.is_fifo()


def test_mistakes_are_told_in_a_sentence(url: str, tmp_path: Path) -> None:
    missing = command(url, "import", str(tmp_path / "none.jsonl"), "--shop-id", str(SHOP))
    assert (missing.returncode, missing.stderr.count(b"\n")) == (1, 1)
    assert b"No such file" in missing.stderr
    nobody = command(url, "import", "-", "--shop-id", "99")
    assert (nobody.returncode, nobody.stderr) == (1, b"ecomcharge: there is no shop 99; see ecomcharge shops list\n")


def test_from_another_server_with_every_id(server: Shop, url: str) -> None:
    content = b"".join(line(f"c{number}@shop.test", external_id=f"x{number}") for number in range(1_234))
    imported(server.process.database, content, shop_id=server.shop_id)
    arguments = ("import", "--from", server.url, "--from-shop-id", str(server.shop_id), "--shop-id", str(SHOP))
    copied = command(url, *arguments, ECOMCHARGE_FROM_SECRET_KEY=server.secret_key)
    assert copied.stdout == b"1,234 read, 1,234 added\n", copied.stderr
    assert stored(url) == stored(server.process.database, server.shop_id)
    again = command(url, *arguments, ECOMCHARGE_FROM_SECRET_KEY=server.secret_key)
    assert again.stdout == b"1,234 read, 1,234 known already\n"
    wrong = command(url, *arguments, ECOMCHARGE_FROM_SECRET_KEY="wrong-key")
    assert wrong.returncode == 1
    assert b"401 Unauthorized" in wrong.stderr


def test_killed_at_any_moment_and_run_again_nothing_is_lost_or_doubled(url: str, tmp_path: Path) -> None:
    file = tmp_path / "customers.jsonl"
    file.write_bytes(lines(40_000))
    words = [sys.executable, "-m", "ecomcharge", "customers", "import", str(file), "--shop-id", str(SHOP), "--database", url]
    found = []
    for seconds in (0.9, 1.3, 1.7):
        process = subprocess.Popen(words, env={**os.environ, **ENVIRONMENT}, start_new_session=True, stdout=subprocess.DEVNULL)
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        found.append(len(stored(url)))
        assert found[-1] % transfer.RECORDS_PER_BLOCK == 0
    assert command(url, "import", str(file), "--shop-id", str(SHOP)).returncode == 0
    assert [customer.email for customer in stored(url)] == [f"c{number}@shop.test" for number in range(40_000)]


@contextlib.contextmanager
def an_import_with_a_checker(url: str) -> Iterator[tuple[subprocess.Popen[bytes], psutil.Process]]:
    """An import that waits for more lines, and its process that checks them."""
    words = [sys.executable, "-m", "ecomcharge", "customers", "import", "-", "--shop-id", str(SHOP), "--database", url]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, env={**os.environ, **ENVIRONMENT}, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        process.stdin.write(lines(validation_pool.WORTH_A_PROCESS + transfer.RECORDS_PER_BLOCK))
        process.stdin.flush()
        deadline = time.monotonic() + 30
        checkers: list[psutil.Process] = []
        while not checkers and time.monotonic() < deadline:
            time.sleep(0.05)
            checkers = [each for each in psutil.Process(process.pid).children() if "spawn_main" in " ".join(each.cmdline())]
        yield process, *checkers


def test_no_checker_outlives_an_import_that_is_killed(url: str) -> None:
    with an_import_with_a_checker(url) as (process, checker):
        process.kill()
        assert psutil.wait_procs([checker], timeout=20) == ([checker], [])


def test_a_checker_that_is_killed_ends_the_import_which_then_goes_on_where_it_was(url: str) -> None:
    many = lines(40_000)
    with an_import_with_a_checker(url) as (process, checker):
        checker.kill()
        told, why = process.communicate(
            many[len(lines(validation_pool.WORTH_A_PROCESS + transfer.RECORDS_PER_BLOCK)) :], timeout=60
        )
        assert (process.returncode, told) == (1, b"")
        assert why == b"ecomcharge: a process that checks lines was killed; run it again, and it goes on where it was\n"
    again = command(url, "import", "-", "--shop-id", str(SHOP), stdin=many)
    assert again.returncode == 0, again.stderr
    assert [customer.email for customer in stored(url)] == [f"c{number}@shop.test" for number in range(40_000)]


def test_two_imports_of_one_file_at_once_add_it_once(url: str, tmp_path: Path) -> None:
    file = tmp_path / "customers.jsonl"
    file.write_bytes(lines(12_000))

    async def both() -> list[bytes]:
        words = ["-m", "ecomcharge", "customers", "import", str(file), "--shop-id", str(SHOP), "--database", url]
        started = [
            await asyncio.create_subprocess_exec(
                sys.executable, *words, env={**os.environ, **ENVIRONMENT}, stdout=subprocess.PIPE
            )
            for _ in range(2)
        ]
        return [(await process.communicate())[0] for process in started]

    told = asyncio.run(both())
    assert all(b"12,000 read" in each for each in told), told
    emails = [customer.email for customer in stored(url)]
    assert len(emails) == len(set(emails)) == 12_000
