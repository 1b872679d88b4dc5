"""Create daily subscriptions, and check that each period was charged once."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from ecomcharge.shops.model import Credentials
from ecomcharge.storage.database import Database
from support.builders import a_card, a_plan
from support.process import ServerProcess
from support.shops import with_database

DEADLINE_SECONDS = 60.0
CARD = a_card()
DAILY = a_plan(7, unit="day", title="Daily")


def client_of(process: ServerProcess, shop: Credentials) -> httpx.Client:
    return httpx.Client(base_url=process.url, auth=(str(shop.shop_id), shop.secret_key), timeout=60)


def subscribe(process: ServerProcess, shop: Credentials, count: int) -> None:
    with client_of(process, shop) as http, ThreadPoolExecutor(8) as pool:
        http.post("/sandbox/clock/freeze")
        http.post("/sandbox/clock/set", json={"to": "2026-05-01T10:00:00Z"})
        plan = {"id": http.post("/plans", json=DAILY).json()["id"]}
        wanted = {"plan": plan, "customer": {"email": "jane@shop.test"}, "card": CARD}
        made = list(pool.map(lambda _: http.post("/subscriptions", json=wanted).json()["state"], range(count)))
    assert Counter(made) == {"active": count}


def jump(url: str, moment: int) -> None:
    """Set the frozen clock; the workers process the due work."""

    async def work(database: Database) -> None:
        async def unit(tx: Any) -> None:
            await tx.run("UPDATE sandbox_clock SET frozen_at = :moment WHERE name = 'clock'", {"moment": moment})

        await database.write(unit)

    with_database(url, work)


NOON = 1_777_629_600_000  # 2026-05-01T10:00:00Z
DAY = 86_400_000
