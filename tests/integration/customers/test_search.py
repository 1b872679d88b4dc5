"""Searches for customers by words, and by e-mail address."""

from __future__ import annotations

import re
import unicodedata
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecomcharge.base.errors import BadParameter
from ecomcharge.customers import store
from ecomcharge.customers.model import Customer, StoredCustomer
from ecomcharge.customers.search import check_text, terms_of
from ecomcharge.customers.store import Customers, Filter
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.storage.records import IdRange
from ecomcharge.storage.term_search import Limits
from support.bulk import SHOP, imported, line
from support.customers import NOW, add, customer, with_shop
from support.shops import with_database

# Small enough that a few customers take every way through a search.
SMALL = mock.patch.multiple(
    "ecomcharge.storage.term_search",
    SAMPLE=2,
    SAMPLE_OF_WHOLE_TERMS=1,
    LIMITS=dict.fromkeys(("sqlite", "postgresql"), Limits(5, 4, indexed=8, rare_ratio=2)),
)


def named(id: str = "cst_0000000000000001", **fields: str | None) -> Customer:
    nothing = dict.fromkeys(Customer.__struct_fields__)
    return Customer(**{**nothing, "id": id, "email": "c@d.ee", "ip": "::1", **fields})  # type: ignore[arg-type]


async def insert(database: Database, *customers: Customer, shop_id: int = 1) -> None:
    async def unit(tx: Transaction) -> None:
        for each in customers:
            assert await store.insert(tx, shop_id, each)

    await database.write(unit)


async def found(database: Database, q: str | None = None, shop_id: int = 1, **filters: str) -> list[str]:
    return [each.id for each in await Customers(database, shop_id, Filter(q=q, **filters)).select(100)]


# A model: the same search by comparing all customers


def fold(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def digits(text: str) -> str:
    return "".join(str(unicodedata.decimal(each)) for each in text if each.isdecimal())


def is_phone(text: str) -> bool:
    return digits(text) != "" and not any(each.isalpha() for each in text)


def begins(value: str | None, text: str) -> bool:
    return value is not None and " ".join(fold(value).split()).startswith(" ".join(fold(text).split()))


def matches_word(each: Customer, word: str) -> bool:
    names = " ".join(name for name in (each.first_name, each.last_name) if name is not None)
    words = [*fold(names).split(), *re.findall(r"[^\W_]+", fold(names))]
    return any(name.startswith(fold(word)) for name in words) or begins(each.email, word) or matches_whole(each, word)


def matches_whole(each: Customer, text: str) -> bool:
    by_phone = is_phone(text) and each.phone is not None and digits(each.phone).startswith(digits(text))
    return by_phone or begins(each.external_id, text)


def matches(each: Customer, q: str) -> bool:
    return each.id == fold(q.strip()) or matches_whole(each, q.strip()) or all(matches_word(each, word) for word in q.split())


TEXT = st.text(st.sampled_from("aAbéÉe\u0301ßẞıIİiΣσςДдñ-'._*%!\\\"&|:()^~1٣ "), min_size=1, max_size=12).filter(str.strip)
EMAILS = st.sampled_from(["a@b.cc", "A@b.cc", "éa@b.cc", "a+b@b.cc", "1@d.ee"])
PHONES = st.sampled_from(["+1 (555) 010-0", "1-555-011", "٣1٣", "call 1", "none"])
FIELDS = st.fixed_dictionaries(
    {"first_name": TEXT | st.none(), "last_name": TEXT | st.none(), "email": EMAILS, "phone": PHONES | st.none()},
    optional={"external_id": TEXT | st.just("cst_0000000000000001") | st.just("Kunde 42")},
)
QUERIES = TEXT | EMAILS | st.sampled_from(["155", "+1 555", "(555) 010", "1", "kunde 4", "a a", "CST_0000000000000001", "cst_0"])


@st.composite
def searches(draw: st.DrawFn) -> tuple[list[Customer], list[tuple[str, str | None]]]:
    """Customers, and searches with or without an e-mail address; most words are the beginning of something."""
    customers = [named(f"cst_{number:016x}", **fields) for number, fields in enumerate(draw(st.lists(FIELDS, max_size=12)), 1)]
    texts = [value.strip() for each in customers for value in (each.first_name, each.last_name, each.external_id) if value]
    beginnings = st.sampled_from(texts or ["a"]).flatmap(lambda text: st.sampled_from([text[: n + 1] for n in range(len(text))]))
    words = QUERIES | beginnings | beginnings.map(str.upper) | st.tuples(beginnings, beginnings).map(" ".join)
    return customers, draw(st.lists(st.tuples(words, st.none() | EMAILS), min_size=1, max_size=6))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(searches(), st.integers(1, 4), st.integers(0, 3))
def test_a_search_finds_what_a_comparison_of_all_customers_finds(
    database_url: str, drawn: tuple[list[Customer], list[tuple[str, str | None]]], limit: int, offset: int
) -> None:
    customers, queries = drawn

    async def work(database: Database) -> None:
        shop_id = 1 + len(await database.rows("SELECT shop_id FROM shops", {}))  # a new one for each example
        await with_shop(database, shop_id)
        await insert(database, *customers, shop_id=shop_id)
        for q, email in queries:
            expected = [
                each for each in customers if matches(each, q) and (email is None or fold(each.email or "") == fold(email))
            ]
            records = Customers(database, shop_id, Filter(q=q, email=email))
            assert await records.select(100) == expected, q
            assert await records.select(limit, offset=offset) == expected[offset : offset + limit], q
            assert await records.select(limit, newest_first=True) == expected[::-1][:limit], q
            assert await records.count() == len(expected), q
            if customers:
                after = IdRange(after=customers[len(customers) // 2].id)
                assert await records.select(limit, after) == [each for each in expected if each.id > after.after][:limit], q
                assert await records.count(after) == len([each for each in expected if each.id > after.after]), q

    with SMALL:
        with_database(database_url, work)


def test_a_search_in_a_large_shop_finds_what_a_comparison_finds(database_url: str) -> None:
    """With the real limits: 3,000 customers, of whom frequent and rare words select some."""

    def fields(number: int) -> dict[str, Any]:
        rare = "Rare" if number % 1000 == 999 else None
        return {
            "first_name": f"Ann{number % 7}",
            "last_name": rare,
            "phone": f"+1 555 {number:04d}",
            "external_id": f"user-{number}",
        }

    customers = [named(f"cst_{number:016x}", **fields(number)) for number in range(3000)]

    async def work(database: Database) -> None:
        await with_shop(database)
        rows = [store.row_of(1, each) for each in customers]
        await database.write(lambda tx: store.insert_many(tx, rows))
        for q in ("ann", "ann3", "rare", "1555", "user-", "1555 rare", "ann rare", "ann3 rare", "user-299", "+1 555 2999", "x"):
            expected = [each for each in customers if matches(each, q)]
            records = Customers(database, 1, Filter(q=q))
            assert await records.select(20) == expected[:20], q
            assert await records.select(200, offset=2000) == expected[2000:2200], q
            assert await records.select(20, newest_first=True) == expected[::-1][:20], q
            assert (
                await records.select(20, IdRange(after=customers[1500].id))
                == [each for each in expected if each.id > customers[1500].id][:20]
            ), q
            assert await records.count() == len(expected), q

    with_database(database_url, work)


# Single rules


@pytest.mark.parametrize(
    "q",
    [
        *(
            "jane",
            "JAN",
            "doe jane",
            "o'ne",
            "neil",
            "smith",
            "O'Neil-Smith",
            "jane.doe+shop@",
            "JANE.DOE+SHOP@shop.test",
            "1555",
        ),
        *("+1 (555) 123", "1 555 1234", "+1.555.1234", "kunde 42", "KUNDE", "straße", "STRASSE", "cst_00000000000000aa"),
        *("  CST_00000000000000AA ", "jane\u3000doe"),
    ],
)
def test_a_customer_is_found_by(q: str, database_url: str) -> None:
    jane = named(
        "cst_00000000000000aa",
        first_name="Jane Straße",
        last_name="Doe O'Neil-Smith",
        email="jane.doe+shop@shop.test",
        phone="+1 (555) 123-4",
        external_id="Kunde 42",
    )

    async def work(database: Database) -> None:
        await with_shop(database)
        await insert(database, jane, named("cst_00000000000000ab", email="x@y.zz"))
        assert await found(database, q) == [jane.id]

    with_database(database_url, work)


CONTROL = re.compile(r"[\x00-\x1f\x7f]")  # no stored text has one
STRANGE = [
    '"',
    "''",
    "*",
    "a*",
    "a:*",
    "&",
    "|",
    "!",
    "(",
    "a & b",
    "\\",
    "'\\'",
    "%",
    "_",
    "--",
    ";",
    "a AND b",
    "NEAR",
    "NOT a",
]
STRANGE += [
    '" OR "1',
    "terms:a",
    "^a",
    "{a}",
    "$1",
    ":match",
    "\U0001f600",
    "\u200b",
    "\ufffd",
    "\x01",
    "a\x7fb",
    "\x00",
    "e" * 255,
]


def test_no_character_of_a_search_has_a_meaning(database_url: str) -> None:
    """Each customer has one of the texts as its external id, and the search for it finds those that begin with its words."""
    customers = [named(f"cst_{number:016x}", external_id=text) for number, text in enumerate(STRANGE) if not CONTROL.search(text)]

    async def work(database: Database) -> None:
        await with_shop(database)
        await insert(database, *customers)
        for text in STRANGE:
            expected = [each.id for each in customers if matches(each, text)]
            assert await found(database, text) == expected, text
            assert await found(database, email=text) == [], text
            assert await found(database, text, email="C@D.EE") == expected, text
            assert await found(database, text, external_id="a*") == [each for each in expected if each == customers[3].id], text

    with_database(database_url, work)


def test_the_longest_texts_are_found(database_url: str) -> None:
    """A folded character may have several characters, and 12 bytes. PostgreSQL limits a term to 2,046 bytes."""
    texts = ["\U0001d160" * 255, "\u0390" * 255, "\ufb03" * 255, "a-" * 127, "x" * 255, "\U0001f600" * 255]

    async def work(database: Database) -> None:
        await with_shop(database)
        for number, text in enumerate(texts):
            await insert(database, named(f"cst_{number:016x}", first_name=text, external_id=text))
        for number, text in enumerate(texts):
            for q in (text, text[:100], text[0]):
                assert await found(database, q) == [f"cst_{number:016x}"]

    with_database(database_url, work)


def test_shops_do_not_find_each_others_customers(database_url: str) -> None:
    """Also those with the same id. The terms of shop 1 and of shop 11 have a common beginning."""

    async def work(database: Database) -> None:
        for shop_id in (1, 11, 111):
            await with_shop(database, shop_id)
            await insert(database, named(first_name=f"Ann{shop_id}", email=f"{shop_id}@shop.test"), shop_id=shop_id)
        for shop_id in (1, 11, 111):
            for other in (1, 11, 111):
                expected = [named().id] if other == shop_id else []
                assert await found(database, email=f"{other}@shop.test", shop_id=shop_id) == expected
                assert await found(database, f"{other}@", shop_id=shop_id) == expected
                assert await Customers(database, shop_id, Filter(q=f"{other}@")).count() == len(expected)
            assert await found(database, "ann", shop_id=shop_id) == [named().id]
            assert await found(database, named().id, shop_id=shop_id) == [named().id]

    with_database(database_url, work)


def test_a_change_of_a_customer_changes_what_finds_it(database_url: str) -> None:
    async def work(database: Database) -> None:
        await with_shop(database)
        await insert(database, named(first_name="Jane", phone="+1 555", external_id="a"))
        changed = named(first_name="Janet", email="new@shop.test", phone="+49 30", external_id="b")
        assert await database.write(lambda tx: store.update(tx, 1, StoredCustomer(changed, 2, NOW)))
        for q in ("jane", "janet", "new@", "4930", "b"):
            assert await found(database, q) == [changed.id]
        for q in ("1555", "c@d", "a"):
            assert await found(database, q) == []
        assert await found(database, email="c@d.ee") == []
        assert await found(database, email="NEW@shop.test") == [changed.id]
        assert await found(database, "jane", external_id="b") == [changed.id]
        assert await found(database, "jane", external_id="a") == []

    with_database(database_url, work)


def test_imported_customers_are_found(database_url: str) -> None:
    with_database(database_url, lambda database: with_shop(database, SHOP))
    content = line("Ann@shop.test", first_name="Ann", external_id="1") + line("bob@shop.test", first_name="Bob", external_id="2")
    imported(database_url, content)
    imported(database_url, line("bea@shop.test", first_name="Bea", external_id="2"), on_duplicate="update")

    async def work(database: Database) -> None:
        assert len(await found(database, "ann", SHOP)) == len(await found(database, email="ann@SHOP.test", shop_id=SHOP)) == 1
        assert len(await found(database, "bea", SHOP)) == len(await found(database, "b", SHOP)) == 1
        assert await found(database, "bob", SHOP) == await found(database, email="bob@shop.test", shop_id=SHOP) == []

    with_database(database_url, work)


def test_a_search_finds_every_acknowledged_write(database_url: str) -> None:
    async def work(database: Database) -> None:
        await with_shop(database)
        for number in range(1, 30):
            await add(database, number)
            assert await found(database, f"{number}@shop") == [customer(number).id]
            assert await found(database, email=f"{number}@SHOP.test") == [customer(number).id]

    with_database(database_url, work)


@pytest.mark.parametrize("number", [0, 1, 2**63 - 1, 2**63, 2**64 - 1])
def test_every_id_is_found_and_is_a_cursor(number: int, database_url: str) -> None:
    id = f"cst_{number:016x}"

    async def work(database: Database) -> None:
        await with_shop(database)
        await insert(database, named(id, first_name="Ann"), named("cst_7000000000000000", first_name="Bob"))
        with SMALL:
            search = Customers(database, 1, Filter(q="ann"))
            assert [each.id for each in await search.select(5)] == [id]
            assert await search.count() == 1
            for ids in (IdRange(after=id), IdRange(before=id)):
                assert await search.select(5, ids) == []
                assert await search.count(ids) == 0

    with_database(database_url, work)


@pytest.mark.parametrize(
    ("q", "message"),
    [
        ("", "Q can't be blank"),
        (" \t\u3000", "Q can't be blank"),
        ("a" * 256, "Q is too long (maximum is 255 characters)"),
        ("a " * 11, "Q has too many words (maximum is 10)"),
    ],
)
def test_a_text_is_refused(q: str, message: str) -> None:
    with pytest.raises(BadParameter, match=re.escape(message)):
        check_text(q)


def test_a_word_is_indexed_once() -> None:
    assert terms_of(7, named(first_name="Ann Ann", last_name="ann", email="A@b.cc")) == "7nann 7ea@b.cc"
