"""``make compare COMMIT=...``: compare this checkout with another commit, in interleaved rounds of one run.

Both programs use the packages of this environment and run on the same machine, each with its own databases. Each ratio is
the median, over all rounds, of the ratio of two figures of the same round.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from run import Job, fill_wal_segments, subscription_jobs, wrk
from systems import HERE, Ecomcharge

from support.postgres import PostgresServer

WORKLOADS = (("read", ""), ("create", ""), ("list", "?limit=20"))


SUBSCRIPTION_WORKLOADS = ("subscription", "hosted", "card")


@dataclass
class Checkout(Ecomcharge):
    """A server that runs the program in ``source``."""

    source: Path = HERE.parent

    def __post_init__(self) -> None:
        if not (self.source / "src" / "ecomcharge" / "__main__.py").exists():  # version 0.1.0
            self.module = "ecomcharge.cli"

    def environment(self) -> dict[str, str]:
        return super().environment() | {"PYTHONPATH": str(self.source / "src")}


def checkouts(engine: str, folder: Path, sources: dict[str, Path], postgres: PostgresServer) -> list[Checkout]:
    """Returns one server of each program. With SQLite it has one core, with PostgreSQL both, as in ``make bench``."""
    found = []
    for name, source in sources.items():
        label = f"{engine}-{name}"
        if engine == "sqlite":
            found.append(Checkout(label, folder, database=f"sqlite:///{folder}/{label}.db", source=source))
        else:
            database = postgres.create_database(f"compare_{name}")
            found.append(Checkout(label, folder, core=None, database=database, source=source))
    return found


def compare(commit: str, rounds: int, seconds: float, engines: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as directory, PostgresServer() as postgres:
        folder = Path(directory)
        before = folder / "before"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(before), commit], cwd=HERE.parent, check=True)
        systems: list[Checkout] = []
        try:
            fill_wal_segments(postgres)
            for engine in engines:
                systems += checkouts(engine, folder, {"before": before, "after": HERE.parent}, postgres)
            for system in systems:
                system.start()
                system.check()
                system.seed()
            _run(systems, engines, rounds, seconds)
        finally:
            for system in systems:
                system.stop()
            subprocess.run(["git", "worktree", "remove", "--force", str(before)], cwd=HERE.parent, check=True)


def _run(systems: Sequence[Checkout], engines: Sequence[str], rounds: int, seconds: float) -> None:
    jobs: dict[str, Job] = {
        f"{system.name} {workload}": wrk(system, workload, query) for workload, query in WORKLOADS for system in systems
    }
    for system in systems:
        mine = subscription_jobs(system)
        jobs |= {f"{system.name} {workload}": mine[f"{system.name} {workload}"] for workload in SUBSCRIPTION_WORKLOADS}
    rates: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(rounds):
        ordered = list(jobs.items())
        for name, job in ordered if number % 2 else reversed(ordered):  # so that neither program is always measured second
            measured = job(seconds)
            assert not measured.bad, f"{name}: {measured.bad} wrong answers"
            rates[name].append(measured.rate)
            print(f"round {number + 1}  {name:24} {measured.rate:10.0f}/s", flush=True)
    for engine in engines:
        for workload in (*(name for name, _ in WORKLOADS), *SUBSCRIPTION_WORKLOADS):
            before, after = (rates[f"{engine}-{name} {workload}"] for name in ("before", "after"))
            ratios = sorted(new / old for old, new in zip(before, after, strict=True))
            print(f"{engine:10} {workload:12} {statistics.median(ratios):.3f} of before   ({ratios[0]:.2f} to {ratios[-1]:.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commit")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--engine", choices=("sqlite", "postgresql"), action="append")
    options = parser.parse_args()
    os.environ.pop("ECOMCHARGE_DATABASE", None)
    compare(options.commit, options.rounds, options.seconds, options.engine or ("sqlite", "postgresql"))


if __name__ == "__main__":
    main()
