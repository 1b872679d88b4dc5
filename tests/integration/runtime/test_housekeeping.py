"""Housekeeping removes the bytes of erased customers from the file of SQLite."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx

from ecomcharge.base.settings import Settings
from ecomcharge.runtime.composition import App
from ecomcharge.shops.keys import MasterKey
from support.sandbox_clock import DEADLINE_SECONDS
from support.shops import MASTER_KEY, add_shop

PAUSE_SECONDS = 0.05


def test_each_erasure_at_a_frozen_time_is_overwritten(tmp_path: Path, master_key: MasterKey) -> None:
    url = f"sqlite:///{tmp_path}/shop.db"
    shop = add_shop(url, master_key)

    def contents() -> bytes:
        return b"".join(path.read_bytes() for path in tmp_path.glob("shop.db*"))

    async def work() -> None:
        app = App(Settings(database=url, master_key=MASTER_KEY, sandbox=True), housekeeping_seconds=PAUSE_SECONDS)
        await app.start()
        try:
            transport = httpx.ASGITransport(app.asgi())  # type: ignore[arg-type]
            auth = (str(shop.shop_id), shop.secret_key)
            async with httpx.AsyncClient(transport=transport, base_url="http://server", auth=auth) as http:
                await http.post("/sandbox/clock/freeze")
                for name in ("Alphaname", "Betaname"):
                    customer = {"first_name": name, "email": "jane@shop.test", "ip": "127.0.0.1"}
                    created = await http.post("/customers", json=customer)
                    assert name.encode() in contents()
                    assert (await http.delete(created.headers["Location"])).status_code == 204
                    async with asyncio.timeout(DEADLINE_SECONDS):
                        while name.lower().encode() in contents().lower():
                            await asyncio.sleep(PAUSE_SECONDS)
        finally:
            await app.stop()

    asyncio.run(work())
