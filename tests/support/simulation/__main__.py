"""``python -m support.simulation --engine sqlite --runs 10000`` runs many seeds."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from pathlib import Path

import structlog

from support.simulation.summary import Summary, simulate


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    started = time.monotonic()

    def progress(summary: Summary) -> None:
        if summary.runs % 100 == 0:
            print(
                f"{summary.runs} runs, {summary.charges} charges, {summary.kills} kills, {time.monotonic() - started:.0f} s",
                flush=True,
            )

    seeds = range(options.seed, options.seed + options.runs)
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        if options.engine == "sqlite":
            summary = asyncio.run(simulate(f"sqlite:///{folder}/simulation.db", seeds, progress))
        else:
            from support.postgres import PostgresServer

            with PostgresServer() as postgres:
                summary = asyncio.run(simulate(postgres.create_database("simulation"), seeds, progress))
    for seed, fault in summary.failed:
        print(f"seed {seed}: {fault}")
    print(
        f"{summary.runs} runs on {options.engine}: {summary.charges} charges, {summary.taken} minor units,"
        f" {summary.kills} kills, {summary.pauses} pauses, {summary.losses} losses of the database,"
        f" {summary.refunds} refunds, {len(summary.failed)} failed, {time.monotonic() - started:.0f} s"
    )
    return 1 if summary.failed else 0


if __name__ == "__main__":
    sys.exit(main())
