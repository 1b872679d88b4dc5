"""The sandbox clock, moved by several processes."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from ecomcharge.base.calendar import HOUR, iso
from ecomcharge.sandbox.model import moment_of
from ecomcharge.shops.keys import MasterKey
from support.builders import a_price
from support.commands import environment_of
from support.process import ServerProcess
from support.receiver import HANG, Receiver
from support.sandbox_clock import DEADLINE_SECONDS, shop_on, subscribe
from support.shops import ENVIRONMENT


@pytest.fixture
def two_servers(database_url: str, tmp_path: Path) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    """Two server processes of one sandbox without billing workers; moves of the clock process the due work."""
    with (
        ServerProcess(database_url, tmp_path, "--sandbox", environment=ENVIRONMENT) as first,
        ServerProcess(database_url, tmp_path, "--sandbox", environment=ENVIRONMENT) as second,
    ):
        yield first, second


def test_concurrent_clock_moves_add_up_and_due_work_is_done_once(
    two_servers: tuple[ServerProcess, ServerProcess], master_key: MasterKey
) -> None:
    first, second = two_servers
    shop = shop_on(first, master_key)

    def by_server(server: ServerProcess) -> int:
        with dataclasses.replace(shop, url=server.url).client() as http:
            return http.post("/sandbox/clock/advance", json={"step": "1d"}).status_code

    def by_command() -> int:
        command = [sys.executable, "-m", "ecomcharge", "clock", "advance", "1d", "--sandbox"]
        return subprocess.run(command, env=environment_of(first.database, **ENVIRONMENT), check=False).returncode

    with shop.client() as http, ThreadPoolExecutor(3) as pool:
        assert http.post("/sandbox/clock/freeze").status_code == 200
        assert http.post("/sandbox/clock/set", json={"to": "2027-03-01T00:00:00Z"}).status_code == 200
        id = subscribe(http, plan=a_price(interval=6, unit="hour"))
        moves = [pool.submit(by_server, first), pool.submit(by_server, second), pool.submit(by_command)]
        assert [move.result() for move in moves] == [200, 200, 0]
        assert http.get("/sandbox/clock").json() == {"now": "2027-03-04T00:00:00.000Z", "frozen": True}
        renewed = [event for event in http.get("/events?limit=100").json() if event["type"] == "renewed.subscription"]
        assert http.get(f"/subscriptions/{id}").json()["paid_billing_cycles"] == 13
    assert [event["created_at"] for event in reversed(renewed)] == [
        iso(moment_of("2027-03-01T00:00:00Z") + number * 6 * HOUR) for number in range(1, 13)
    ]


def test_a_background_move_can_be_observed_on_another_server(
    two_servers: tuple[ServerProcess, ServerProcess], master_key: MasterKey
) -> None:
    first, second = two_servers
    shop = shop_on(first, master_key)
    with shop.client() as http, dataclasses.replace(shop, url=second.url).client() as other:
        http.post("/sandbox/clock/freeze")
        assert http.post("/sandbox/clock/set", json={"to": "2027-03-01T00:00:00Z"}).status_code == 200
        subscribe(http)
        started = http.post("/sandbox/clock/advance?wait=false", json={"step": "1y"})
        assert started.status_code == 202, started.text
        location = started.headers["location"]
        assert location == f"/sandbox/clock/moves/{started.json()['id']}"
        assert set(started.json()) == {"id", "from", "to", "now", "done", "error"}
        assert started.json()["error"] is None
        reached = [move["now"] for move in until_done(other, location)]
        assert reached == sorted(reached, key=lambda moment: moment or "")
        assert http.get(location).json() == {
            "id": started.json()["id"],
            "from": "2027-03-01T00:00:00.000Z",
            "to": "2028-03-01T00:00:00.000Z",
            "now": "2028-03-01T00:00:00.000Z",
            "done": True,
            "error": None,
        }
        back = http.post("/sandbox/clock/set?wait=false", json={"to": "2027-06-01T00:00:00Z"})
        assert (back.status_code, until_done(other, back.headers["location"])[-1]["now"]) == (202, "2027-06-01T00:00:00.000Z")
        assert other.get("/sandbox/clock").json()["now"] == "2027-06-01T00:00:00.000Z"
        assert http.get("/sandbox/clock/moves/mov_0000000000000000").status_code == 404
        assert http.post("/sandbox/clock/advance?wait=maybe", json={"step": "1d"}).status_code == 400
        assert http.post("/sandbox/clock/advance?wait=false", json={"step": "soon"}).status_code == 400


def until_done(http: httpx.Client, location: str) -> list[dict[str, Any]]:
    """Read the record of a move until it has ended. Returns all responses."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    records = [http.get(location).json()]
    while not records[-1]["done"]:
        assert time.monotonic() < deadline, records[-1]
        time.sleep(0.05)
        records.append(http.get(location).json())
    return records


def test_a_killed_move_is_reported_as_ended_and_does_not_block_the_next(
    two_servers: tuple[ServerProcess, ServerProcess], master_key: MasterKey
) -> None:
    first, second = two_servers
    shop = shop_on(first, master_key)
    with shop.client() as http, dataclasses.replace(shop, url=second.url).client() as other, Receiver(HANG) as receiver:
        http.post("/sandbox/clock/freeze")
        http.post("/sandbox/clock/set", json={"to": "2027-03-01T00:00:00Z"})
        subscribe(http, receiver.url)
        location = http.post("/sandbox/clock/advance?wait=false", json={"step": "1d"}).headers["location"]
        assert len(receiver.wait_for(1)) == 1
        assert other.get(location).json()["done"] is False
        first.kill()
        ended = until_done(other, location)[-1]
        assert (ended["from"], ended["now"]) == ("2027-03-01T00:00:00.000Z", "2027-03-01T00:00:00.000Z")
        assert "before the move was complete" in ended["error"]
        assert other.post("/sandbox/clock/set", json={"to": "2027-02-01T00:00:00Z"}).json()["now"] == "2027-02-01T00:00:00.000Z"


def test_a_stopping_server_ends_its_clock_moves(two_servers: tuple[ServerProcess, ServerProcess], master_key: MasterKey) -> None:
    first, second = two_servers
    shop = shop_on(first, master_key)
    with shop.client() as http, dataclasses.replace(shop, url=second.url).client() as other, Receiver(HANG) as receiver:
        subscribe(http, receiver.url)
        location = http.post("/sandbox/clock/advance?wait=false", json={"step": "1d"}).headers["location"]
        assert len(receiver.wait_for(1)) == 1
        assert first.stop() == 0
        ended = other.get(location).json()
        assert (ended["done"], ended["error"]) == (True, "The process that moved the clock was stopped")
