"""Measure import and export of many customers against the bulk inserts of the engines alone, in interleaved rounds.

The engine alone inserts prepared rows: apsw's ``executemany`` in one transaction, PostgreSQL's ``COPY``, both into
our schema with all its indexes. The import reads a file, validates every row, generates ids, looks for duplicates and
commits every two thousand records.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import apsw

from support.postgres import PostgresServer

KEY = {"ECOMCHARGE_MASTER_KEY": "A" * 43 + "="}
COLUMNS = "shop_id, id, first_name, last_name, address, country, city, zip, state, phone, email, ip"
PROMISE = 0.35  # of the engine's own bulk rate


def customers(rows: int) -> Iterator[tuple[object, ...]]:
    for number in range(rows):
        name, address, email = f"John{number}", f"{number} 1st Street", f"c{number}@example.com"
        phone = f"+1-555-{number:07d}"
        yield 1, f"cst_{number:016x}", name, "Doe", address, "US", "Denver", "92006", "CO", phone, email, "127.0.0.1"


def write_files(folder: Path, rows: int) -> None:
    names = COLUMNS.split(", ")[2:]
    with (folder / "customers.jsonl").open("w") as lines, (folder / "copy.csv").open("w") as ready:
        for customer in customers(rows):
            pairs = zip(names, customer[2:], strict=True)
            lines.write("{" + ",".join(f'"{name}":"{value}"' for name, value in pairs) + "}\n")
            ready.write(",".join(map(str, customer)) + "\n")


@dataclass
class Figures:
    """Rows per second of each round, and the peak resident memory of the importing process in MiB."""

    alone: list[float] = field(default_factory=list)
    imported: list[float] = field(default_factory=list)
    exported: list[float] = field(default_factory=list)
    memory: dict[int, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        return statistics.median(ours / theirs for ours, theirs in zip(self.imported, self.alone, strict=True))


def ecomcharge(*arguments: str) -> tuple[float, float]:
    """Run a command. Returns its seconds and its peak resident memory in MiB."""
    command = [sys.executable, "-m", "ecomcharge", *arguments]
    started = time.perf_counter()
    with subprocess.Popen(command, env=os.environ | KEY, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, arguments
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def prepare(url: str) -> None:
    ecomcharge("shops", "create", "--name", "bulk", "--shop-id", "1", "--database", url)


def measure(url: str, file: Path, rows: int, figures: Figures) -> None:
    prepare(url)
    seconds, memory = ecomcharge("customers", "import", str(file), "--shop-id", "1", "--database", url)
    figures.imported.append(rows / seconds)
    figures.memory[rows] = memory
    seconds, _ = ecomcharge("customers", "export", "/dev/null", "--shop-id", "1", "--database", url)
    figures.exported.append(rows / seconds)


def sqlite_alone(folder: Path, rows: int) -> float:
    path = folder / "alone.db"
    prepare(f"sqlite:///{path}")
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA cache_size = -65536")
    ready = list(customers(rows))
    started = time.perf_counter()
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(f"INSERT INTO customers ({COLUMNS}) VALUES ({', '.join('?' * 12)})", ready)
    connection.execute("COMMIT")
    seconds = time.perf_counter() - started
    connection.close()
    remove(path)
    return rows / seconds


def postgres_alone(postgres: PostgresServer, name: str, folder: Path, rows: int) -> float:
    prepare(postgres.create_database(name))
    output = postgres.client("psql", name, "-c", "\\timing", "-c", f"\\copy customers ({COLUMNS}) FROM '{folder}/copy.csv' CSV")
    found = re.search(r"Time: ([\d.]+) ms", output)
    assert found is not None, output
    return rows / (float(found[1]) / 1000)


def remove(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def run(rows: int, rounds: int, folder: Path, postgres: PostgresServer) -> dict[str, Figures]:
    write_files(folder, rows)
    tenth = folder / "tenth.jsonl"
    with (folder / "customers.jsonl").open() as whole, tenth.open("w") as part:
        part.writelines(line for _, line in zip(range(rows // 10), whole, strict=False))
    found = {"SQLite": Figures(), "PostgreSQL": Figures()}
    for number in range(rounds):
        databases: dict[str, Callable[[str], str]] = {
            "SQLite": lambda name: f"sqlite:///{folder}/{name}.db",
            "PostgreSQL": postgres.create_database,
        }
        with multiprocessing.get_context("spawn").Pool(1) as apart:  # so that its memory is not counted for the import
            found["SQLite"].alone.append(apart.apply(sqlite_alone, (folder, rows)))
        found["PostgreSQL"].alone.append(postgres_alone(postgres, f"alone_{number}", folder, rows))
        for engine, new_database in databases.items():
            measure(new_database(f"bulk_{number}"), folder / "customers.jsonl", rows, found[engine])
            remove(folder / f"bulk_{number}.db")
            print(f"round {number + 1}  {engine}: {found[engine]}", flush=True)
    for engine, new_database in databases.items():
        small = Figures()
        measure(new_database("small"), tenth, rows // 10, small)
        found[engine].memory |= small.memory
    return found


def report(found: dict[str, Figures], rows: int, rounds: int) -> str:
    lines = [
        "## Import and export",
        "",
        f"{rows:,} customers of ten fields, {rounds} interleaved rounds, one process. The engine alone inserts prepared"
        " rows in one transaction (SQLite: `executemany`; PostgreSQL: `COPY`). The import reads JSON lines, validates every"
        " row and commits every two thousand rows. Target: 0.35 of the engine alone. The figures include the program's start.",
        "",
        "| engine | alone, rows/s | import, rows/s | import / alone | | export, rows/s | memory at 10 %, MiB | at 100 %, MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for engine, figures in found.items():
        alone, imported, exported = (
            f"{statistics.median(rates):,.0f}" for rates in (figures.alone, figures.imported, figures.exported)
        )
        verdict = "reached" if figures.ratio >= PROMISE else "**not reached**"
        small, large = figures.memory[rows // 10], figures.memory[rows]
        lines.append(
            f"| {engine} | {alone} | {imported} | {figures.ratio:.2f} | {verdict} | {exported} | {small:.0f} | {large:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with PostgresServer() as postgres, tempfile.TemporaryDirectory(prefix="ecomcharge-bulk-") as folder:
        print(report(run(options.rows, options.rounds, Path(folder), postgres), options.rows, options.rounds))


if __name__ == "__main__":
    main()
