"""A few hundred seeded runs of the simulation, on both engines; ``make simulate`` runs ten thousand and five hundred."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from support.simulation import simulate

RUNS = {"sqlite": 300, "postgresql": 30}


def test_every_run_balances_to_the_minor_unit(engine: str, new_database_url: Callable[[], str]) -> None:
    account = asyncio.run(simulate(new_database_url(), range(20_001, 20_001 + RUNS[engine])))
    assert account.failed == [], f"{len(account.failed)} of {account.runs} runs do not balance"
    assert account.charges > account.runs
    assert account.kills > account.runs
