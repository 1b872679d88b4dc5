"""Measure the embedded engine alone: apsw in a loop, in one process, without the server.

Prints operations per second of one kind: ``read`` (point reads by primary key), ``insert`` (one commit and one
sync of the disk per row), ``group`` (one commit per 64 rows).
"""

from __future__ import annotations

import random
import sys
import tempfile
import time

import apsw

ROWS = 10_000
SECONDS = float(sys.argv[2]) if len(sys.argv) > 2 else 3.0
INSERT = (
    "INSERT INTO customers VALUES (1, ?, 'John', 'Doe', '1st Street', 'US', 'Denver', '92006', 'CO',"
    " '+1-555-555-5555', ?, '127.0.0.1', NULL)"
)


def main(kind: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        connection = apsw.Connection(f"{folder}/alone.db")
        connection.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -65536")
        connection.execute(
            "CREATE TABLE customers (shop_id BIGINT, id TEXT, first_name TEXT, last_name TEXT, address TEXT, country TEXT,"
            " city TEXT, zip TEXT, state TEXT, phone TEXT, email TEXT, ip TEXT, external_id TEXT,"
            " PRIMARY KEY (shop_id, id)) WITHOUT ROWID;"
            " CREATE INDEX customers_by_email ON customers (shop_id, email, id)"
        )
        with connection:
            connection.executemany(INSERT, ((f"cst_{number:016x}", f"c{number}@example.com") for number in range(ROWS)))
        return rate(connection, kind)


def rate(connection: apsw.Connection, kind: str) -> float:
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < SECONDS:
        if kind == "read":
            for _ in range(100):
                customer = (f"cst_{random.randrange(ROWS):016x}",)
                connection.execute("SELECT * FROM customers WHERE shop_id = 1 AND id = ?", customer).fetchall()
            done += 100
        else:
            rows = 1 if kind == "insert" else 64
            connection.execute("BEGIN IMMEDIATE")
            for number in range(ROWS + done, ROWS + done + rows):
                connection.execute(INSERT, (f"cst_{number:016x}", f"c{number}@example.com"))
            connection.execute("COMMIT")
            done += rows
    return done / (time.perf_counter() - started)


if __name__ == "__main__":
    print(main(sys.argv[1]))
