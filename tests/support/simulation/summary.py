"""Simulate years of subscriptions with gateway failures, concurrent workers and kills at any step.

A seed determines each run: plans, cards, faults, kills, pauses, cancels and the delays of workers. Only the gateway and the
clocks are simulated; billing, stores and database engines are those of production. At the end of a run the gateway's
records must agree with the database to the minor unit, and every open payment must have a date for its next lookup.

``python -m support.simulation --engine sqlite --runs 10000`` runs many; it prints a seed that fails, and
``--seed N --runs 1`` runs it again. The random values of a subscription depend on the seed, the
subscription and the number of values already used, so concurrent workers get the same values in either order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ecomcharge.shops.actions import create_shop
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.storage.migrate import migrate
from ecomcharge.storage.opening import open_database
from support.simulation.faults import BEGIN
from support.simulation.run import Run


@dataclass
class Summary:
    """The totals of many runs."""

    runs: int = 0
    charges: int = 0
    taken: int = 0
    kills: int = 0
    pauses: int = 0
    losses: int = 0
    refunds: int = 0
    failed: list[tuple[int, str]] = field(default_factory=list)


async def simulate(
    url: str, seeds: range, progress: Callable[[Summary], None] | None = None, *, until_one_fails: bool = False
) -> Summary:
    """Run every seed on one database. Continues after a failed seed unless ``until_one_fails`` is true."""
    summary = Summary()
    master_key = MasterKey(bytes(32))
    databases = [await open_database(url, postgres_connections=5) for _ in range(3)]
    try:
        await migrate(databases[0])
        for seed in seeds:
            credentials = await create_shop(databases[0], master_key, BEGIN, name=f"Run {seed}")
            racers = databases[1:] if seed % 4 == 0 else [databases[1], databases[1]] if seed % 2 else [databases[1]]
            run = Run(seed, databases[0], racers, credentials.shop_id)
            try:
                await run.run()
            except Exception as fault:  # with the traceback, which the summary lacks
                summary.failed.append((seed, f"{type(fault).__name__}: {fault}"))
            summary.runs += 1
            summary.charges += len(run.booked())
            summary.taken += run.taken
            summary.kills += run.fault_schedule.kills
            summary.pauses += run.fault_schedule.pauses
            summary.losses += run.fault_schedule.losses
            summary.refunds += sum(charge.refunds for _, charge, _ in run.booked())
            await _forget(databases[0])
            if progress is not None:
                progress(summary)
            if summary.failed and until_one_fails:
                break
    finally:
        for database in databases:
            await database.close()
    return summary


async def _forget(database: Database) -> None:
    """Clear due dates, so that the next run does not process subscriptions of this one."""

    async def unit(tx: Transaction) -> None:
        await tx.run("UPDATE subscriptions SET due_at = NULL WHERE due_at IS NOT NULL", {})
        await tx.run("UPDATE payments SET check_at = NULL WHERE check_at IS NOT NULL", {})

    await database.write(unit)
