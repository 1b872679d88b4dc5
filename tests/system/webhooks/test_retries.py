"""Retries on a sandbox whose clock is moved."""

from __future__ import annotations

import json

import httpx

from ecomcharge.shops.keys import MasterKey
from ecomcharge.webhooks.model import RETRIES
from support.commands import ecomcharge
from support.postgres import free_port
from support.process import ServerProcess
from support.receiver import Received, Receiver
from support.shops import ENVIRONMENT, Shop
from support.webhooks import cancel, shop_on, subscribe, webhooks_of


def test_a_webhook_fails_after_25_retries_and_can_be_redelivered(
    sandbox: ServerProcess, receiver: Receiver, master_key: MasterKey
) -> None:
    def fail_first_webhook(received: Received) -> int:
        return 503 if b"created.subscription" in received.body else 200

    merchant = shop_on(sandbox, master_key)

    def clock(act: str, **body: str) -> None:
        moved = httpx.post(
            f"{sandbox.url}/sandbox/clock/{act}", json=body, auth=(str(merchant.shop_id), merchant.secret_key), timeout=60
        )
        assert moved.status_code == 200

    receiver.answer = fail_first_webhook
    clock("freeze")
    subscription = subscribe(merchant, receiver.url)
    cancel(merchant, subscription)
    assert receiver.received == []

    clock("advance", step="24d")
    [canceled, created] = webhooks_of(merchant)
    assert (created["state"], created["last_status"], canceled["attempts"]) == ("pending", 503, 0)
    assert created["attempts"] < 1 + RETRIES

    clock("advance", step="2d")
    assert [json.loads(body)["event"] for body in receiver.bodies] == ["created.subscription"] * 26 + ["canceled.subscription"]
    assert len({each.headers["webhook-id"] for each in receiver.received}) == 2
    [failed] = webhooks_of(merchant, "--state", "failed")
    assert (failed["attempts"], failed["next_attempt_at"]) == (26, None)
    assert [webhook["event"] for webhook in webhooks_of(merchant, "--state", "delivered")] == ["canceled.subscription"]

    receiver.answer = 200
    again = ("webhooks", "redeliver", failed["id"], "--shop-id", str(merchant.shop_id))
    assert ecomcharge(sandbox.database, *again, environment=ENVIRONMENT).returncode == 0
    clock("advance", step="1s")
    assert receiver.bodies[-1] == receiver.bodies[0]
    assert webhooks_of(merchant, "--state", "failed") == []
    clock("resume")


def test_a_receiver_that_refuses_connections_is_tried_once_while_the_clock_is_moved(
    sandbox: ServerProcess, master_key: MasterKey
) -> None:
    """Skipped attempts are counted separately, the retry schedule continues, and the next move tries again."""
    merchant = shop_on(sandbox, master_key)

    def clock(act: str, **body: str) -> str:
        moved = httpx.post(
            f"{sandbox.url}/sandbox/clock/{act}", json=body, auth=(str(merchant.shop_id), merchant.secret_key), timeout=60
        )
        assert moved.status_code == 200, moved.text
        return str(moved.json()["now"])

    clock("freeze")
    subscribe(merchant, f"http://127.0.0.1:{free_port()}/")
    now = clock("advance", step="1y")
    webhooks = list(reversed(webhooks_of(merchant)))
    assert len(webhooks) == 13
    assert [webhook["attempts"] for webhook in webhooks] == [1] + [0] * 12
    over = [webhook for webhook in webhooks if webhook["state"] == "failed"]
    assert len(over) >= 11
    for webhook in over:
        assert (webhook["attempts"] + webhook["attempts_skipped"], webhook["next_attempt_at"]) == (1 + RETRIES, None)
        assert webhook["last_status"] is None
        skipped = f"(attempts not made while the sandbox clock was moved: {webhook['attempts_skipped']})"
        assert webhook["last_error"] == f"ConnectError: All connection attempts failed {skipped}"
    waiting = [webhook for webhook in webhooks if webhook["state"] == "pending"]
    assert waiting
    assert waiting[0]["next_attempt_at"] > now
    assert "not made while the sandbox clock was moved" in webhook_output(merchant, waiting[0]["id"])

    clock("advance", step="5d")
    [again] = [webhook for webhook in webhooks_of(merchant) if webhook["id"] == waiting[0]["id"]]
    assert again["attempts"] == waiting[0]["attempts"] + 1
    clock("resume")


def webhook_output(shop: Shop, webhook_id: str) -> str:
    done = ecomcharge(
        shop.process.database, "webhooks", "show", webhook_id, "--shop-id", str(shop.shop_id), environment=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
