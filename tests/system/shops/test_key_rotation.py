"""Rotated keys and closed shops take effect within five seconds in every server process."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import msgspec
import pytest

from ecomcharge.shops.keys import MasterKey
from ecomcharge.shops.model import Credentials
from support.operations import command, get
from support.process import ServerProcess
from support.shops import add_shop

APPLIED_WITHIN_SECONDS = 5.0  # every process applies a change of keys within this time


@dataclass(frozen=True)
class Sample:
    """The responses of both workers to several credentials. Seconds count from the end of the commands."""

    began: float
    ended: float
    statuses: dict[str, set[int]]


@dataclass(frozen=True)
class Watched:
    commands_began: float
    samples: list[Sample]

    def of(self, who: str, *, since: float = 0, until: float = 1e9) -> list[set[int]]:
        found = [sample.statuses[who] for sample in self.samples if since <= sample.began and sample.ended <= until]
        assert found
        return found


OVERLAP_SECONDS = 15  # longer than the commands that start at the same time


@pytest.fixture(scope="module")
def watched(pair: ServerProcess, master_key: MasterKey) -> Watched:
    rotated, overlapped, closed, other = (add_shop(pair.database, master_key) for _ in range(4))
    watching = {"rotated": rotated, "overlapped": overlapped, "closed": closed, "other": other}

    def sample() -> dict[str, set[int]]:
        return {who: {get(pair, "/customers", shop).status_code for _ in range(8)} for who, shop in watching.items()}

    assert all(statuses == {200} for statuses in sample().values())
    commands = [
        ("rotate-key", str(rotated.shop_id), "--json"),
        ("rotate-key", str(overlapped.shop_id), "--json", "--overlap", str(OVERLAP_SECONDS)),
        ("close", str(closed.shop_id)),
    ]
    began_at = time.monotonic()
    with ThreadPoolExecutor() as threads:
        done = list(threads.map(lambda words: command("shops", *words, "--database", pair.database), commands))
    ended_at = time.monotonic()
    assert [(one.returncode, one.stderr) for one in done] == [(0, "")] * 3
    assert done[2].stdout == f"shop {closed.shop_id} is closed; every server applies this within five seconds\n"
    watching["rotated, new key"] = msgspec.json.decode(done[0].stdout, type=Credentials)
    watching["overlapped, new key"] = msgspec.json.decode(done[1].stdout, type=Credentials)

    def seconds() -> float:
        return time.monotonic() - ended_at

    samples = []
    while (began := seconds()) < OVERLAP_SECONDS + APPLIED_WITHIN_SECONDS + 2:
        statuses = sample()
        samples.append(Sample(began, seconds(), statuses))
        time.sleep(0.1)
    return Watched(began_at - ended_at, samples)


def test_a_rotated_key_takes_effect_within_five_seconds(watched: Watched) -> None:
    assert all(statuses == {401} for statuses in watched.of("rotated", since=APPLIED_WITHIN_SECONDS))
    assert all(statuses == {200} for statuses in watched.of("rotated, new key", since=APPLIED_WITHIN_SECONDS))


def test_an_old_key_is_accepted_during_the_overlap_only(watched: Watched) -> None:
    certainly_good_until = watched.commands_began + OVERLAP_SECONDS
    assert all(statuses == {200} for statuses in watched.of("overlapped", until=certainly_good_until))
    assert all(statuses == {401} for statuses in watched.of("overlapped", since=OVERLAP_SECONDS + APPLIED_WITHIN_SECONDS))
    assert all(statuses == {200} for statuses in watched.of("overlapped, new key", since=APPLIED_WITHIN_SECONDS))


def test_only_the_closed_shop_is_refused_within_five_seconds(watched: Watched) -> None:
    assert all(statuses == {401} for statuses in watched.of("closed", since=APPLIED_WITHIN_SECONDS))
    assert all(statuses == {200} for statuses in watched.of("other"))
