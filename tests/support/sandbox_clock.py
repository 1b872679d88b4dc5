"""Create shops and subscriptions on a server whose clock is moved."""

from __future__ import annotations

import httpx

from ecomcharge.shops.keys import MasterKey
from support.builders import a_card, a_plan
from support.process import ServerProcess
from support.shops import Shop, add_shop

DEADLINE_SECONDS = 30
PLAN = a_plan()
CARD = a_card(verification_value="123", holder="John Doe", exp_month="01", exp_year="2099")


def shop_on(process: ServerProcess, master_key: MasterKey) -> Shop:
    credentials = add_shop(process.database, master_key)
    return Shop(process.url, credentials.shop_id, credentials.secret_key, process)


def subscribe(http: httpx.Client, url: str | None = None, **plan: object) -> str:
    body = {"plan": {**PLAN, **plan}, "customer": {"email": "john@example.com"}, "card": CARD, "notification_url": url}
    created = http.post("/subscriptions", json=body)
    assert created.status_code == 201, created.text
    return str(created.json()["id"])
