"""The ledger of the soak test reports inconsistencies."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from support.backups import BackupFailed, SqliteBackups, emails_of_dump
from support.builders import a_customer
from support.soak import FIELDS, Ledger, RequestedCustomer, faults_of, faults_of_backup


@pytest.fixture
def ledger() -> Ledger:
    """A ledger with one customer that shop 1 requested and the server acknowledged."""
    body = a_customer("a@shop.test")
    ledger = Ledger(requested={"a@shop.test": RequestedCustomer(1, body, None)})
    ledger.answered["a@shop.test"] = json.dumps(customer()).encode()
    return ledger


def customer(**changed: str) -> dict[str, Any]:
    found: dict[str, Any] = dict.fromkeys(("id", *FIELDS))
    return found | {"id": "cst_0000000000000001", "email": "a@shop.test", "ip": "127.0.0.1"} | changed


def test_a_consistent_ledger_has_no_findings(ledger: Ledger) -> None:
    assert faults_of(ledger, {1: [customer()], 2: []}) == []


@pytest.mark.parametrize(
    ("listed", "fault"),
    [
        ({1: []}, "a@shop.test was acknowledged and is lost"),
        ({1: [customer(), customer(id="cst_0000000000000002")]}, "shop 1: a@shop.test is there 2 times"),
        ({1: [customer()], 2: [customer()]}, "a@shop.test of shop 1 is in shop 2"),
        ({1: [customer(city="Minsk")]}, "a@shop.test is not as it was asked for"),
        ({1: [customer(id="cst_0000000000000002")]}, "a@shop.test is not as it was acknowledged"),
        ({1: [customer(), customer(id="cst_0000000000000002", email="b@shop.test")]}, "shop 1: b@shop.test was never requested"),
        ({1: [customer(), customer()]}, "shop 1: ids do not rise"),
    ],
)
def test_an_inconsistent_ledger_is_reported(ledger: Ledger, listed: dict[int, list[dict[str, Any]]], fault: str) -> None:
    assert fault in faults_of(ledger, listed)


def test_a_refused_customer_in_the_list_is_reported(ledger: Ledger) -> None:
    ledger.answered.clear()
    ledger.refused.add("a@shop.test")
    assert faults_of(ledger, {1: [customer()]}) == ["a@shop.test was refused and is there"]


def test_an_unexpected_status_is_reported() -> None:
    ledger = Ledger()
    ledger.count("read", 500, 0.1)
    assert faults_of(ledger, {}) == ["read was answered 500"]


def test_a_backup_without_an_acknowledged_customer_is_reported() -> None:
    assert faults_of_backup(".backup", ["a@shop.test"], ["a@shop.test", "b@shop.test"]) == []
    assert faults_of_backup(".backup", ["b@shop.test", "a@shop.test"], []) == [
        ".backup lacks 2 acknowledged customers, such as a@shop.test"
    ]


def test_a_corrupt_backup_is_reported(tmp_path: Path) -> None:
    database = tmp_path / "x.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE customers (email TEXT)")
        connection.execute("CREATE INDEX by_email ON customers (email)")
        connection.executemany("INSERT INTO customers VALUES (?)", [(f"{number}@shop.test",) for number in range(1000)])
        connection.commit()
        [page] = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'by_email'").fetchone()
    backups = SqliteBackups(database, tmp_path)
    assert len(backups.frequent()) == len(backups.thorough()) == 1000
    with database.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(bytes(4096))
    with pytest.raises(BackupFailed):
        backups.frequent()
    assert list(tmp_path.iterdir()) == [database]


def test_a_truncated_dump_is_reported() -> None:
    dump = "COPY public.customers (id, email, ip) FROM stdin;\n1\ta@shop.test\t::1\n2\tb@shop.test\t\\N\n\\.\n"
    assert emails_of_dump(dump + "--\n-- PostgreSQL database dump complete\n--\n") == ["a@shop.test", "b@shop.test"]
    with pytest.raises(BackupFailed, match="no end"):
        emails_of_dump(dump)
