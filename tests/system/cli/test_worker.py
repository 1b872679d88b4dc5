"""``ecomcharge worker``."""

from __future__ import annotations

from pathlib import Path

import httpx

from ecomcharge.shops.keys import MasterKey, make_master_key
from support.builders import a_card, a_plan
from support.cli import Command, refused
from support.commands import WorkerProcess
from support.process import ServerProcess
from support.receiver import Receiver
from support.shops import ENVIRONMENT, add_shop


def test_a_separate_worker_does_the_work_of_a_server_without_one(
    database_url: str, master_key: MasterKey, tmp_path: Path
) -> None:
    options = ("--no-worker", "--webhooks-to-private-addresses")
    with Receiver() as receiver, ServerProcess(database_url, tmp_path, *options, environment=ENVIRONMENT) as server:
        shop = add_shop(database_url, master_key)
        body = {
            "plan": a_plan(unit="day", title="x"),
            "customer": {"email": "john@example.com"},
            "card": a_card(verification_value="123", holder="J", exp_month=1),
            "notification_url": receiver.url,
        }
        created = httpx.post(f"{server.url}/subscriptions", json=body, auth=(str(shop.shop_id), shop.secret_key), timeout=30)
        assert created.status_code == 201
        assert receiver.wait_for(1, 1.5) == []
        settings = {**ENVIRONMENT, "ECOMCHARGE_WEBHOOKS_TO_PRIVATE_ADDRESSES": "true"}
        with WorkerProcess(database_url, tmp_path, environment=settings) as worker:
            assert len(receiver.wait_for(1)) == 1
            assert worker.stop() == 0


def test_a_worker_migrates_and_refuses_the_same_settings_as_serve(command: Command, database_url: str, tmp_path: Path) -> None:
    with WorkerProcess(database_url, tmp_path, environment=ENVIRONMENT) as worker:
        while "migration applied" not in worker.log():
            assert worker.process.poll() is None, worker.log()
    assert command("migrate").stdout == "nothing to apply\n"
    assert "--time-zone" in refused(command("worker", "--time-zone", "Nowhere/Else"))
    command("shops", "create", "--name", "x")
    assert "another master key" in refused(command("worker", ECOMCHARGE_MASTER_KEY=make_master_key()))
