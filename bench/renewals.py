"""Measure the rate of renewals against durable creates of the same run, and the latency of reads during renewals.

SQLite, one server process and its billing worker, the sandbox gateway, both cores for all processes. Reads arrive at a
constant rate below the server's limit. At the limit any other process on the same cores would slow them down; the benchmark
measures whether charging makes requests wait.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import apsw
import httpx
from systems import Ecomcharge

from support.soak import Client

SUBSCRIPTIONS = 30_000
READERS = 16
READS_PER_SECOND = 800
PROMISED_RATE = 0.1  # as a fraction of the rate of durable creates
PROMISED_GROWTH = 2.0  # maximum ratio of the 99th percentiles of reads
DUE = 1_600_000_000_000

COLUMNS = """
    sequence, state, plan_id, customer_id, tracking_id, device_id, created_at, anchored_at, period, renew_at, active_to,
    paid_billing_cycles, number_failed_payment_attempts, cancel_reason, cancelled_at, gateway, card, additional_data, options,
    last_transaction, return_url, notification_url, checkout_token
"""

CLONE = f"""
INSERT INTO subscriptions (shop_id, id, version, due_at, leased_until, {COLUMNS})
SELECT shop_id, :id, 0, :due, 0, {COLUMNS}
FROM subscriptions WHERE shop_id = :shop_id AND id = :of
"""


@dataclass
class Figures:
    creates: list[float] = field(default_factory=list)
    renewals: list[float] = field(default_factory=list)
    p99_alone: list[float] = field(default_factory=list)
    p99_during: list[float] = field(default_factory=list)


def clone(system: Ecomcharge, of: str, count: int) -> None:
    """Add ``count`` copies of this subscription, all of them due."""
    connection = apsw.Connection(system.database.removeprefix("sqlite:///"))
    connection.set_busy_timeout(5000)
    tag = secrets.token_hex(4)
    with connection:
        for number in range(count):
            connection.execute(
                CLONE, {"shop_id": int(system.shop_id), "id": f"sbs_{tag}{number:08x}", "of": of, "due": DUE + number}
            )
    connection.close()


def due(system: Ecomcharge) -> int:
    connection = apsw.Connection(system.database.removeprefix("sqlite:///"))
    count = connection.execute("SELECT COUNT(*) FROM subscriptions WHERE due_at < ?", (DUE * 1.01,)).fetchall()[0][0]
    connection.close()
    assert isinstance(count, int)
    return count


def subscribe(system: Ecomcharge) -> str:
    headers = {"Authorization": system.authorization}
    wanted = {
        "plan": {"title": "x", "currency": "EUR", "plan": {"amount": 1, "interval": 1, "interval_unit": "month"}},
        "customer": {"email": "jane@shop.test"},
        "card": {"number": "4200000000000000", "exp_month": 12, "exp_year": 2099},
    }
    with httpx.Client(base_url=system.url, headers=headers, timeout=60) as http:
        return str(http.post("/subscriptions", json=wanted).json()["id"])


@contextlib.contextmanager
def with_priority() -> Iterator[bool]:
    """Give this process priority over the server, because a real client would run on another machine.

    Yields whether the system permits it; it requires root or CAP_SYS_NICE.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        yield False
        return
    try:
        yield True
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


async def reads(system: Ecomcharge, seconds: float) -> float:
    """Returns the 99th percentile, in milliseconds, of reads at a constant rate."""
    ids = system.ids_file.read_text().split()
    taken: list[float] = []
    until = time.monotonic() + seconds

    async def reader(number: int) -> None:
        client, count = Client(system.port), 0
        begin = time.monotonic() + number / READS_PER_SECOND
        while (at := begin + count * READERS / READS_PER_SECOND) < until:
            await asyncio.sleep(max(0, at - time.monotonic()))
            started = time.perf_counter()
            answer = await client.ask("GET", f"/customers/{ids[(number + count * READERS) % len(ids)]}", system.authorization)
            assert answer is not None
            assert answer.status == 200
            taken.append((time.perf_counter() - started) * 1000)
            count += 1
        client.close()

    with with_priority():
        await asyncio.gather(*(reader(number) for number in range(READERS)))
    return statistics.quantiles(taken, n=100)[98]


def run(rounds: int, seconds: float, folder: Path, creates: Callable[[Ecomcharge, float], float]) -> Figures:
    """Measure every round. ``creates`` measures the rate of durable creates of a system."""
    system = Ecomcharge("renewals", folder, core=None, database=f"sqlite:///{folder}/renewals.db")
    figures = Figures()
    system.start()
    try:
        system.check()
        system.seed()
        example = subscribe(system)
        for number in range(rounds):
            figures.creates.append(creates(system, seconds))
            figures.p99_alone.append(asyncio.run(reads(system, seconds)))
            clone(system, example, SUBSCRIPTIONS)
            while due(system) == SUBSCRIPTIONS:
                time.sleep(0.05)
            before, started = due(system), time.monotonic()
            figures.p99_during.append(asyncio.run(reads(system, seconds)))
            after, ended = due(system), time.monotonic()
            assert after > 0, "the worker was done before it was measured"
            figures.renewals.append((before - after) / (ended - started))
            while due(system):
                time.sleep(0.2)
            print(f"round {number + 1}  renewals {figures}", flush=True)
    finally:
        system.stop()
    return figures


def report(figures: Figures, seconds: float) -> str:
    rate = statistics.median(ours / theirs for ours, theirs in zip(figures.renewals, figures.creates, strict=True))
    growth = statistics.median(with_ / alone for with_, alone in zip(figures.p99_during, figures.p99_alone, strict=True))
    with with_priority() as allowed:
        client = "has priority over all other processes" if allowed else "has the same priority as all other processes"
    lines = [
        "## Renewals",
        "",
        "SQLite, sandbox gateway, one server process and its billing worker, both cores for all processes,"
        f" {len(figures.creates)} rounds of {seconds:.0f} seconds. During renewals a client sends {READS_PER_SECOND} reads per"
        f" second; it {client}. Creates are measured before each round, when no renewal is due.",
        "",
        "| | median | target | |",
        "|---|---|---|---|",
        f"| renewals per second | {statistics.median(figures.renewals):,.0f} | | |",
        f"| durable creates per second | {statistics.median(figures.creates):,.0f} | | |",
        f"| renewals / creates | {rate:.2f} | {PROMISED_RATE} | {'reached' if rate >= PROMISED_RATE else '**not reached**'} |",
        f"| p99 of reads without renewals, ms | {statistics.median(figures.p99_alone):.2f} | | |",
        f"| p99 of reads during renewals, ms | {statistics.median(figures.p99_during):.2f} | | |",
        f"| p99 during renewals / p99 alone | {growth:.2f} | at most {PROMISED_GROWTH} |"
        f" {'reached' if growth <= PROMISED_GROWTH else '**not reached**'} |",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    from run import drive_creates  # not at the top: run imports this module

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ecomcharge-renewals-") as folder:
        print(report(run(options.rounds, options.seconds, Path(folder), drive_creates), options.seconds))


if __name__ == "__main__":
    main()
