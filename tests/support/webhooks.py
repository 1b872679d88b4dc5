"""Create subscriptions with a notification URL, and read and write webhooks in the database."""

from __future__ import annotations

import json
from typing import Any

from ecomcharge.base.clock import SystemClock
from ecomcharge.base.ids import WEBHOOK_PREFIX, IdGenerator
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.webhooks import store
from ecomcharge.webhooks.model import PENDING, Webhook
from support.builders import a_card, a_customer, a_plan
from support.commands import ecomcharge
from support.process import ServerProcess
from support.shops import ENVIRONMENT, Shop, add_shop, with_database

PRIVATE = "--webhooks-to-private-addresses"
CARD = a_card(verification_value="123", holder="John Doe", exp_month="01", exp_year="2099")
PLAN = a_plan()
DAY = 24 * 60 * 60


def shop_on(process: ServerProcess, master_key: MasterKey) -> Shop:
    credentials = add_shop(process.database, master_key)
    return Shop(process.url, credentials.shop_id, credentials.secret_key, process)


def subscribe(shop: Shop, url: str, card: dict[str, str] | None = CARD) -> dict[str, Any]:
    customer = {"customer": a_customer(), "card": card} if card else {}
    with shop.client() as http:
        response = http.post("/subscriptions", json={"plan": PLAN, "notification_url": url, **customer})
    assert response.status_code == 201, response.text
    created: dict[str, Any] = response.json()
    return created


def cancel(shop: Shop, subscription: dict[str, Any]) -> None:
    with shop.client() as http:
        response = http.post(f"/subscriptions/{subscription['id']}/cancel", json={"cancel_reason": "enough"})
        assert response.status_code == 200, response.text


def webhooks_of(shop: Shop, *arguments: str) -> list[dict[str, Any]]:
    done = ecomcharge(
        shop.process.database, "webhooks", "list", "--shop-id", str(shop.shop_id), "--json", *arguments, environment=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def kept_webhooks(url: str, shop_id: int) -> list[Webhook]:
    return with_database(url, lambda database: store.newest(database, shop_id, 10_000))


def webhook_key_of(shop: Shop) -> str:
    """The key that ``shops show --webhook-key`` prints, for libraries of Standard Webhooks."""
    command = ("shops", "show", str(shop.shop_id), "--webhook-key", "--json")
    return str(json.loads(ecomcharge(shop.process.database, *command, environment=ENVIRONMENT).stdout)["webhook_key"])


def put_in_outbox(url: str, shop_id: int, urls: list[str], *, of_one_subscription: bool = False) -> list[str]:
    """Add a due webhook for each URL, of different subscriptions or of one. Returns their ids."""
    id_generator, now = IdGenerator(WEBHOOK_PREFIX), SystemClock().now()
    places = [(0, number) if of_one_subscription else (number, 1) for number in range(len(urls))]
    made = [
        Webhook(
            shop_id,
            id_generator.generate(now),
            f"sbs_{of:016x}",
            sequence,
            "created.subscription",
            each,
            "{}",
            PENDING,
            0,
            now,
            now,
        )
        for (of, sequence), each in zip(places, urls, strict=True)
    ]

    async def work(database: Database) -> None:
        async def unit(tx: Transaction) -> None:
            for webhook in made:
                assert await store.insert(tx, webhook)

        await database.write(unit)

    with_database(url, work)
    return [webhook.id for webhook in made]
