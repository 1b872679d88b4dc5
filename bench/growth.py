"""Measure reads, look-ups and creates with ten thousand, a million and ten million customers on SQLite.

The import command adds the customers. Each server has one worker on one core; wrk has the other core. Rounds are interleaved.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from systems import SEEDED_CUSTOMERS, Ecomcharge

SIZES = (10_000, 1_000_000, 10_000_000)
WORKLOADS = ("read", "email", "external_id", "create")  # the second and third look a customer up by this field
PROMISE = 0.8  # as a fraction of the rate with the fewest customers


class Rate(Protocol):
    rate: float
    p50_ms: float
    p99_ms: float


Measure = Callable[[Ecomcharge, str, float], Rate]


@dataclass
class Grown(Ecomcharge):
    """A server with one shop, which has this number of ``customers``."""

    customers: int = 0
    bytes_per_customer: float = 0.0
    import_seconds: float = 0.0
    results: dict[str, list[Rate]] = field(default_factory=lambda: {name: [] for name in WORKLOADS})

    @property
    def file(self) -> Path:
        return Path(self.database.removeprefix("sqlite:///"))

    def seed(self) -> None:
        """Import the customers, and write a uniform sample of their ids and of the queries that find them to files."""
        started = time.perf_counter()
        self.import_customers(self.shop_id, self.customers, with_external_ids=True)
        self.import_seconds = time.perf_counter() - started
        written = sum(file.stat().st_size for file in self.file.parent.glob(f"{self.file.name}*"))
        self.bytes_per_customer = written / self.customers
        drawn = random.sample(range(self.customers), SEEDED_CUSTOMERS)
        self.ids_file.write_text("".join(f"cst_{number:016x}\n" for number in drawn))
        self.file_of("email").write_text("".join(f"email=c{number}@example.com\n" for number in drawn))
        self.file_of("external_id").write_text("".join(f"external_id=x{number}\n" for number in drawn))

    def file_of(self, workload: str) -> Path:
        return self.folder / f"{self.name}.{workload}" if workload in ("email", "external_id") else super().file_of(workload)


def run(rounds: int, seconds: float, folder: Path, measure: Measure, sizes: Sequence[int] = SIZES) -> list[Grown]:
    """Measure every store. ``measure`` drives a system with a workload for the given seconds."""
    stores = [Grown(f"grown-{size}", folder, database=f"sqlite:///{folder}/grown-{size}.db", customers=size) for size in sizes]
    try:
        for store in stores:
            store.start()
            store.check()
            store.seed()
            print(f"{store.name}: imported in {store.import_seconds:.0f} s", flush=True)
        for number in range(rounds):
            for workload in WORKLOADS:
                for store in stores:
                    store.results[workload].append(measure(store, workload, seconds))
                    print(f"round {number + 1}  {store.name} {workload} {store.results[workload][-1]}", flush=True)
    finally:
        for store in stores:
            store.stop()
            for file in folder.glob(f"{store.file.name}*"):
                file.unlink()
    return stores


def report(stores: Sequence[Grown], rounds: int, seconds: float) -> str:
    smallest = stores[0]
    lines = [
        "## Growth",
        "",
        f"SQLite, one worker, {rounds} interleaved rounds of {seconds:.0f} seconds. A ratio compares a store with the one"
        f" that has the fewest customers, in the same round; the median is given."
        f" Target: {PROMISE}. Reads use random ids of the store; `email` and `external_id` look such customers up by this field.",
        "",
        "| customers | job | per second, median | ratio | | p50 ms | p99 ms | bytes per customer on disk | imported, rows/s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for store in stores:
        for workload, rates in store.results.items():
            ratio = statistics.median(
                mine.rate / theirs.rate for mine, theirs in zip(rates, smallest.results[workload], strict=True)
            )
            verdict = "" if store is smallest else "reached" if ratio >= PROMISE else "**not reached**"
            rate, p50, p99 = (statistics.median(getattr(each, name) for each in rates) for name in ("rate", "p50_ms", "p99_ms"))
            lines.append(
                f"| {store.customers:,} | {workload} | {rate:,.0f} | {ratio:.2f} | {verdict} | {p50:.1f} | {p99:.1f}"
                f" | {store.bytes_per_customer:.0f} | {store.customers / store.import_seconds:,.0f} |"
            )
    return "\n".join(lines) + "\n"
