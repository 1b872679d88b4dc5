"""A few hundred seeded runs of the simulation, on both engines; ``make simulate`` runs ten thousand and five hundred."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from ecomcharge.subscriptions import charging, lifecycle, renewals, store
from support.simulation.summary import simulate

RUNS = {"sqlite": 150, "postgresql": 25}


def test_the_records_of_every_run_agree_to_the_minor_unit(engine: str, new_database_url: Callable[[], str]) -> None:
    summary = asyncio.run(simulate(new_database_url(), range(20_001, 20_001 + RUNS[engine])))
    assert summary.failed == [], f"{len(summary.failed)} of {summary.runs} runs failed"
    assert summary.charges > summary.runs
    assert summary.kills > summary.runs
    assert summary.pauses > summary.runs
    assert summary.losses > 0
    assert summary.refunds > 0


def test_successful_charges_that_were_abandoned_early_are_refunded(
    new_database_url: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewals, "GIVE_UP_MILLISECONDS", 0)
    summary = asyncio.run(simulate(new_database_url(), range(1, 21)))
    assert summary.failed == []
    assert summary.refunds > 0


def test_the_simulation_detects_a_lost_success(new_database_url: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charging, "UNSUCCESSFUL", ())
    summary = asyncio.run(simulate(new_database_url(), range(1, 41), until_one_fails=True))
    assert any("in the gateway's charges" in fault for _, fault in summary.failed)


def test_the_simulation_detects_charges_of_ended_subscriptions(
    new_database_url: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "is_wanted", lambda billing_state, period: True)
    summary = asyncio.run(simulate(new_database_url(), range(1, 41), until_one_fails=True))
    assert summary.failed


def test_the_simulation_detects_lost_updates(new_database_url: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "UPDATE", store.UPDATE.replace("version = :version", "version >= 0 * :version"))
    summary = asyncio.run(simulate(new_database_url(), range(41, 101), until_one_fails=True))
    assert summary.failed


def test_the_simulation_detects_a_missing_response_recorded_as_a_refusal(
    new_database_url: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        lifecycle,
        "unanswered",
        lambda billing_state, terms, moment: lifecycle.errored(billing_state, terms, moment).billing_state,
    )
    summary = asyncio.run(simulate(new_database_url(), range(1, 41), until_one_fails=True))
    assert summary.failed
