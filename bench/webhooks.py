"""Measure the webhooks that a billing worker delivers per second against the same HTTP client that only posts.

SQLite, the sandbox gateway, both cores for all. The receivers are four addresses of one server that reads the body and
answers 200, because the limits are 16 concurrent webhooks per receiver and 64 per shop. Each webhook is signed with RSA-2048.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import apsw
import httpcore
import httpx
from renewals import subscribe
from systems import Ecomcharge, Floor

WEBHOOKS = 4_000
RECEIVERS = ("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4")
POSTS_AT_ONCE = 64

COPY = """
INSERT INTO webhooks (
    shop_id, id, subscription_id, sequence, event, url, body, state, attempts, created_at, due_at, leased_until, attempts_skipped
) VALUES (:shop_id, :id, :subscription_id, 1, 'created.subscription', :url, :body, 'pending', 0, :now, :now, 0, 0)
"""


@dataclass
class Figures:
    """Webhooks per second of each round."""

    delivered: list[float] = field(default_factory=list)
    posted: list[float] = field(default_factory=list)


def fill(system: Ecomcharge, receiver: Floor, body: str) -> None:
    """Add due webhooks to the outbox, each of a different subscription."""
    tag, now = secrets.token_hex(4), time.time_ns() // 1_000_000
    connection = apsw.Connection(system.database.removeprefix("sqlite:///"))
    connection.set_busy_timeout(5000)
    with connection:
        for number in range(WEBHOOKS):
            row = {
                "shop_id": int(system.shop_id),
                "id": f"whk_{tag}{number:08x}",
                "subscription_id": f"sbs_{tag}{number:08x}",
                "url": f"http://{RECEIVERS[number % len(RECEIVERS)]}:{receiver.port}/hook",
                "body": body,
                "now": now,
            }
            connection.execute(COPY, row)
    connection.close()


def delivered(system: Ecomcharge) -> int:
    connection = apsw.Connection(system.database.removeprefix("sqlite:///"))
    count = connection.execute("SELECT COUNT(*) FROM webhooks WHERE state = 'delivered'").fetchall()[0][0]
    connection.close()
    assert isinstance(count, int)
    return count


def empty(system: Ecomcharge) -> None:
    """Delete the remaining webhooks from the outbox."""
    connection = apsw.Connection(system.database.removeprefix("sqlite:///"))
    connection.set_busy_timeout(5000)
    connection.execute("UPDATE webhooks SET due_at = NULL WHERE due_at IS NOT NULL")
    connection.close()


def deliver(system: Ecomcharge, receiver: Floor, body: str, seconds: float) -> float:
    first = delivered(system)
    fill(system, receiver, body)
    while delivered(system) == first:
        time.sleep(0.02)
    before, started = delivered(system), time.monotonic()
    time.sleep(seconds)
    after, ended = delivered(system), time.monotonic()
    assert after < first + WEBHOOKS, "all was delivered before the end of the round"
    empty(system)
    return (after - before) / (ended - started)


async def post(receiver: Floor, body: bytes, seconds: float) -> float:
    done, until = 0, time.monotonic() + seconds

    async def poster(number: int) -> None:
        nonlocal done
        url = f"http://{RECEIVERS[number % len(RECEIVERS)]}:{receiver.port}/hook"
        while time.monotonic() < until:
            response = await pool.request("POST", url, content=body)
            assert response.status == 200
            done += 1

    async with httpcore.AsyncConnectionPool(max_connections=POSTS_AT_ONCE) as pool:
        await asyncio.gather(*(poster(number) for number in range(POSTS_AT_ONCE)))
    return done / seconds


def run(rounds: int, seconds: float, folder: Path) -> Figures:
    system = Ecomcharge("webhooks", folder, core=None, database=f"sqlite:///{folder}/webhooks.db")
    system.options = ("--webhooks-to-private-addresses",)
    receiver = Floor("receiver", folder, core=None, application="receiver", host="0.0.0.0")
    figures = Figures()
    try:
        receiver.start()
        system.start()
        subscription = httpx.get(
            f"{system.url}/subscriptions/{subscribe(system)}", headers={"Authorization": system.authorization}
        ).text
        for number in range(rounds):
            figures.posted.append(asyncio.run(post(receiver, subscription.encode(), seconds)))
            figures.delivered.append(deliver(system, receiver, subscription, seconds))
            print(f"round {number + 1}  webhooks {figures}", flush=True)
    finally:
        system.stop()
        receiver.stop()
    return figures


def report(figures: Figures, seconds: float) -> str:
    ratios = [ours / theirs for ours, theirs in zip(figures.delivered, figures.posted, strict=True)]
    delivered, posted = figures.delivered, figures.posted
    lines = [
        "## Webhooks",
        "",
        f"SQLite, a server and its billing worker, four receivers that answer immediately, both cores for all processes,"
        f" {len(figures.delivered)} rounds of {seconds:.0f} seconds. The client alone posts the same bodies with httpcore, over"
        f" {POSTS_AT_ONCE} connections, without a database and without signatures.",
        "",
        "| | median | spread |",
        "|---|---|---|",
        f"| delivered, per second | {statistics.median(delivered):,.0f} | {min(delivered):,.0f} to {max(delivered):,.0f} |",
        f"| client alone, per second | {statistics.median(posted):,.0f} | {min(posted):,.0f} to {max(posted):,.0f} |",
        f"| delivered / client alone | {statistics.median(ratios):.2f} | {min(ratios):.2f} to {max(ratios):.2f} |",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ecomcharge-webhooks-") as folder:
        print(report(run(options.rounds, options.seconds, Path(folder)), options.seconds))


if __name__ == "__main__":
    main()
