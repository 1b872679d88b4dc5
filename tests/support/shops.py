"""Create shops and their keys for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from ecomcharge.base.clock import SystemClock
from ecomcharge.shops.actions import create_shop, set_gateway
from ecomcharge.shops.keys import MasterKey, make_master_key
from ecomcharge.shops.model import Credentials
from ecomcharge.storage.database import Database
from ecomcharge.storage.migrate import migrate
from ecomcharge.storage.opening import open_database
from support.process import ServerProcess

T = TypeVar("T")

MASTER_KEY = make_master_key()
ENVIRONMENT = {"ECOMCHARGE_MASTER_KEY": MASTER_KEY}

Start = Callable[..., ServerProcess]


def with_database(url: str, work: Callable[[Database], Awaitable[T]]) -> T:
    """Run ``work`` on a migrated database in a new thread with an event loop, because a browser's loop may run in this one."""

    async def run() -> T:
        database = await open_database(url)
        try:
            await migrate(database)
            return await work(database)
        finally:
            await database.close()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, run()).result()


def add_shop(url: str, master_key: MasterKey, *, gateway: str | None = "sandbox", **chosen: Any) -> Credentials:
    """Create a shop. ``gateway`` ``None`` leaves its gateway unset."""

    async def work(database: Database) -> Credentials:
        now = SystemClock().now()
        made = await create_shop(database, master_key, now, **{"name": "Test", **chosen})
        if gateway is not None:
            await set_gateway(database, master_key, now, shop_id=made.shop_id, gateway=gateway)
        return made

    return with_database(url, work)


@dataclass(frozen=True)
class Shop:
    """A running server with one shop."""

    url: str
    shop_id: int
    secret_key: str
    process: ServerProcess

    def client(self, **options: Any) -> httpx.Client:
        """Returns an HTTP client with this shop's credentials. Close it, or use it in a ``with`` statement."""
        return httpx.Client(base_url=self.url, auth=(str(self.shop_id), self.secret_key), timeout=30, **options)
