"""Measure searches among a million customers, and creates with the index of terms against creates without it.

Both engines, one server process, all processes on all cores. The server without the index computes and stores no terms either.
The names are made of syllables; their frequencies follow Zipf's law.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

import httpx
from systems import HERE, JOHN, Ecomcharge

from support.postgres import PostgresServer

CUSTOMERS = 1_000_000
FIRST_NAMES, LAST_NAMES = 2_000, 20_000
QUERIES_OF_A_KIND = 500
SEARCH_CONNECTIONS, CREATE_CONNECTIONS = 4, 64
PROMISED_RATIO = 0.85  # creates with the index, as a fraction of creates without it
PROMISED_MEDIAN_MS, PROMISED_P99_MS = 20.0, 100.0
MIX = "mix of all"
ENGINES = ("sqlite", "postgresql")

_CONSONANTS = [*"bdfghjklmnprstvwz", "br", "ch", "cl", "dr", "fr", "gr", "kr", "sh", "st", "th", "tr"]
_VOWELS = [*"aeiou", "ai", "ea", "ie", "oo"]


class Measured(Protocol):
    rate: float
    p50_ms: float
    p99_ms: float
    bad: int
    broken: int


class Measure(Protocol):
    """Drives a system with a workload, whose file has ids, queries or a body."""

    def __call__(self, system: Ecomcharge, workload: str, file: Path, connections: int, seconds: float) -> Measured: ...


def names(draw: random.Random, count: int) -> Callable[[], str]:
    """A function that draws one of so many names."""
    found: dict[str, None] = {}
    while len(found) < count:
        syllables = (draw.choice(_CONSONANTS) + draw.choice(_VOWELS) for _ in range(draw.choice((1, 2, 2, 3))))
        found["".join(syllables).capitalize() + draw.choice(("", "n", "s", "r", "l"))] = None
    every, weights = list(found), list(itertools.accumulate(1 / (rank + 10) for rank in range(count)))
    return lambda: draw.choices(every, cum_weights=weights)[0]


def people(count: int) -> Iterator[dict[str, str]]:
    draw = random.Random(7)
    first, last = names(draw, FIRST_NAMES), names(draw, LAST_NAMES)
    for number in range(count):
        person = {**JOHN, "first_name": first(), "last_name": last(), "phone": f"+1-555-{draw.randrange(10**7):07d}"}
        domain = draw.choice(("example.com", "mail.example", "shop.example"))
        email = f"{person['first_name']}.{person['last_name']}{number % 997}@{domain}".lower()
        yield {**person, "email": email, "external_id": f"user-{number}"}


def queries(sample: Sequence[dict[str, str]]) -> dict[str, list[str]]:
    """Searches of each kind for some of these customers."""
    kinds: dict[str, list[str]] = {}
    for person in random.Random(8).sample(sample, QUERIES_OF_A_KIND):
        each = {
            "last name": person["last_name"],
            "beginning of a last name": person["last_name"][:3],
            "one letter": person["last_name"][0],
            "first and last name": f"{person['first_name']} {person['last_name']}",
            "beginnings of both names": f"{person['first_name'][:2]} {person['last_name'][:3]}",
            "phone": person["phone"],
            "beginning of a phone": person["phone"][:10],
            "first digits of all phones": "+1 555",
            "beginning of an e-mail address": person["email"].partition("@")[0],
            "external id": person["external_id"],
            "nobody": f"{person['last_name']}x x",
        }
        for kind, text in each.items():
            kinds.setdefault(kind, []).append(text)
    return kinds


@dataclass
class Shop(Ecomcharge):
    """A server with one shop of many customers."""

    is_indexed: bool = True
    import_seconds: float = 0.0
    creates: list[Measured] = field(default_factory=list)
    searches: dict[str, list[Measured]] = field(default_factory=dict)

    @property
    def engine(self) -> str:
        return self.name.partition("-")[0]

    def environment(self) -> dict[str, str]:
        if self.is_indexed:
            return super().environment()
        folders = [str(HERE / "without_search"), *filter(None, [os.environ.get("PYTHONPATH")])]
        return super().environment() | {"PYTHONPATH": os.pathsep.join(folders)}

    def file_of(self, kind: str) -> Path:
        return self.folder / f"{self.name}.{kind.replace(' ', '-')}"

    def seed(self, count: int) -> None:  # type: ignore[override]
        """Import the customers, and write the searches and the body of a create to files."""
        started = time.perf_counter()
        command = [sys.executable, "-m", self.module, "customers", "import", "-", "--shop-id", self.shop_id]
        sample = []
        with subprocess.Popen(
            [*command, "--database", self.database], env=self.environment(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        ) as importing:
            assert importing.stdin is not None
            for number, person in enumerate(people(count)):
                importing.stdin.write(json.dumps(person).encode() + b"\n")
                if number % (count // (10 * QUERIES_OF_A_KIND)) == 0:
                    sample.append(person)
            importing.stdin.close()
        assert importing.returncode == 0
        self.import_seconds = time.perf_counter() - started
        kinds = queries(sample)
        kinds[MIX] = list(itertools.chain(*kinds.values()))
        for kind, texts in kinds.items():
            self.file_of(kind).write_text("".join(f"{quote(text)}\n" for text in texts))
            self.searches[kind] = []
        phone, email = "+1-555-{n}", "jane.doe.{n}@example.com"
        body = {**JOHN, "first_name": "Jane", "phone": phone, "email": email, "external_id": "order-{n}"}
        self.file_of("create").write_text(json.dumps(body))

    def check(self) -> None:
        """Raise unless a search finds what it should."""
        with httpx.Client(base_url=self.url, headers={"Authorization": self.authorization}, timeout=60) as http:
            for q, expected in (("user-1234", "user-1234"), ("user-1234 x", None)):
                found = http.get("/customers", params={"q": q, "limit": 1}).json()
                assert [each["external_id"] for each in found] == ([expected] if expected and self.is_indexed else []), found


def run(
    rounds: int,
    seconds: float,
    folder: Path,
    postgres: PostgresServer,
    measure: Measure,
    count: int,
    engines: Sequence[str] = ENGINES,
    *,
    with_creates: bool = True,
) -> list[Shop]:
    shops = []
    for engine, is_indexed in itertools.product(engines, (True, False) if with_creates else (True,)):
        name = f"{engine}-{'with' if is_indexed else 'without'}-search"
        url = f"sqlite:///{folder}/{name}.db" if engine == "sqlite" else postgres.create_database(name)
        shops.append(Shop(name, folder, core=None, database=url, is_indexed=is_indexed))
    try:
        for shop in shops:
            shop.start()
            if not shop.is_indexed and shop.database.startswith("postgresql"):
                postgres.client("psql", shop.database.rpartition("/")[2], "-q", "-c", "DROP INDEX customers_by_term")
            shop.seed(count)
            shop.check()
            print(f"{shop.name}: imported in {shop.import_seconds:.0f} s", flush=True)
        for number in range(rounds):
            for shop in shops:
                if shop.is_indexed:
                    for kind, results in shop.searches.items():
                        results.append(measure(shop, "search", shop.file_of(kind), SEARCH_CONNECTIONS, seconds))
                        print(f"round {number + 1}  {shop.name} {kind} {results[-1]}", flush=True)
        for number in range(rounds if with_creates else 0):
            for shop in shops:
                shop.creates.append(measure(shop, "post", shop.file_of("create"), CREATE_CONNECTIONS, seconds))
                print(f"round {number + 1}  {shop.name} create {shop.creates[-1]}", flush=True)
    finally:
        for shop in shops:
            shop.stop()
    return shops


def report(shops: Sequence[Shop], rounds: int, seconds: float, count: int) -> str:
    indexed = [shop for shop in shops if shop.is_indexed]
    lines = [
        "## Search",
        "",
        f"{count:,} customers, one server process, all cores, {rounds} rounds of {seconds:.0f} seconds. Searches over"
        f" {SEARCH_CONNECTIONS} connections, `limit=20`: medians of the rounds. Creates over {CREATE_CONNECTIONS} connections:"
        " the median of the ratios of one round.",
        "",
        "| search for | " + " | ".join(f"{shop.engine}, p50 ms | p99 ms" for shop in indexed) + " |",
        "|---" * (1 + 2 * len(indexed)) + "|",
    ]
    for kind in indexed[0].searches:
        times = [_median(shop.searches[kind], name) for shop in indexed for name in ("p50_ms", "p99_ms")]
        lines.append(f"| {kind} | " + " | ".join(f"{time:.1f}" for time in times) + " |")
    lines += ["", "| | measured | target | |", "|---|---|---|---|"]
    for shop in indexed:
        median, p99 = (_median(shop.searches[MIX], name) for name in ("p50_ms", "p99_ms"))
        lines += [
            f"| {shop.engine}, searches, p50 ms | {median:.1f} | {PROMISED_MEDIAN_MS:.0f}"
            f" | {_verdict(median < PROMISED_MEDIAN_MS)} |",
            f"| {shop.engine}, searches, p99 ms | {p99:.1f} | {PROMISED_P99_MS:.0f} | {_verdict(p99 < PROMISED_P99_MS)} |",
        ]
        for other in shops:
            if other.engine == shop.engine and not other.is_indexed:
                ratio = statistics.median(
                    mine.rate / theirs.rate for mine, theirs in zip(shop.creates, other.creates, strict=True)
                )
                lines.append(
                    f"| {shop.engine}, creates with the index / without it | {ratio:.2f} | {PROMISED_RATIO} |"
                    f" {_verdict(ratio >= PROMISED_RATIO)} |"
                )
    return "\n".join(lines) + "\n"


def _median(results: Sequence[Measured], name: str) -> float:
    return float(statistics.median(getattr(each, name) for each in results))


def _verdict(reached: bool) -> str:
    return "reached" if reached else "**not reached**"


def main() -> None:
    from run import drive_file, fill_wal_segments

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--customers", type=int, default=CUSTOMERS)
    parser.add_argument("--engine", choices=ENGINES, action="append", help="only this one")
    parser.add_argument("--searches-only", action="store_true", help="without creates and the servers without the index")
    options = parser.parse_args()
    with PostgresServer() as postgres, tempfile.TemporaryDirectory(prefix="ecomcharge-search-") as folder:
        if not options.searches_only:
            fill_wal_segments(postgres)
        shops = run(
            options.rounds,
            options.seconds,
            Path(folder),
            postgres,
            drive_file,
            options.customers,
            options.engine or ENGINES,
            with_creates=not options.searches_only,
        )
    print(report(shops, options.rounds, options.seconds, options.customers))


if __name__ == "__main__":
    main()
