"""With several workers, killed workers and a database restart, each webhook is sent once."""

from __future__ import annotations

import signal
import time
from collections import Counter
from pathlib import Path

from ecomcharge.base.clock import SystemClock
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database, Transaction
from support.commands import WorkerProcess
from support.postgres import PostgresServer
from support.receiver import HANG, Received, Receiver
from support.shops import ENVIRONMENT, add_shop, with_database
from support.waiting import eventually
from support.webhooks import PRIVATE, kept_webhooks, put_in_outbox

OUTAGE_SECONDS = 2


def test_two_workers_send_each_webhook_once(database_url: str, receiver: Receiver, master_key: MasterKey, tmp_path: Path) -> None:
    shop = add_shop(database_url, master_key)
    ids = put_in_outbox(database_url, shop.shop_id, [receiver.url] * 400)
    workers = [WorkerProcess(database_url, tmp_path, PRIVATE, environment=ENVIRONMENT) for _ in range(2)]
    with workers[0], workers[1]:
        receiver.wait_for(400, 40)
        eventually(lambda: {each.state for each in kept_webhooks(database_url, shop.shop_id)} == {"delivered"}, 60)
        assert [worker.stop() for worker in workers] == [0, 0]
    received = Counter(each.headers["webhook-id"] for each in receiver.received)
    assert received == Counter(ids)
    assert {webhook.state for webhook in kept_webhooks(database_url, shop.shop_id)} == {"delivered"}
    assert "exception" not in "".join(worker.log() for worker in workers)


def test_another_worker_sends_the_webhooks_of_a_killed_one_after_the_lease(
    database_url: str, receiver: Receiver, master_key: MasterKey, tmp_path: Path
) -> None:
    receiver.answer = HANG
    shop = add_shop(database_url, master_key)
    [id] = put_in_outbox(database_url, shop.shop_id, [receiver.url])
    with WorkerProcess(database_url, tmp_path, PRIVATE, environment=ENVIRONMENT) as first:
        receiver.wait_for(1)
        first.kill()
    receiver.answer = 200

    async def two_minutes_later(database: Database) -> int:
        [(left,)] = await database.rows("SELECT MAX(leased_until) FROM webhooks", {})

        async def unit(tx: Transaction) -> None:
            await tx.run("UPDATE webhooks SET leased_until = leased_until - 120000 WHERE id = :id", {"id": id})

        await database.write(unit)
        return int(left) - SystemClock().now()

    with WorkerProcess(database_url, tmp_path, PRIVATE, environment=ENVIRONMENT):
        [other] = put_in_outbox(database_url, shop.shop_id, [receiver.url])
        assert [each.headers["webhook-id"] for each in receiver.wait_for(2)] == [
            id,
            other,
        ]  # the lease has not expired
        assert 60_000 < with_database(database_url, two_minutes_later) < 120_000
        assert [each.headers["webhook-id"] for each in receiver.wait_for(3)] == [id, other, id]
        eventually(lambda: {each.state for each in kept_webhooks(database_url, shop.shop_id)} == {"delivered"}, 5)
    assert len(receiver.received) == 3


def test_a_postgresql_restart_loses_and_repeats_no_webhook(receiver: Receiver, master_key: MasterKey, tmp_path: Path) -> None:
    def slowly(received: Received) -> int:
        time.sleep(0.3)
        return 200

    receiver.answer = slowly
    with PostgresServer() as postgres:
        url = postgres.create_database("outbox")
        shop = add_shop(url, master_key)
        ids = put_in_outbox(url, shop.shop_id, [receiver.url] * 200)
        with WorkerProcess(url, tmp_path, PRIVATE, environment=ENVIRONMENT) as worker:
            receiver.wait_for(40)
            postgres.stop(signal.SIGQUIT)
            time.sleep(OUTAGE_SECONDS)
            postgres.start()
            receiver.wait_for(200, 40)
            assert eventually(lambda: {w.state for w in kept_webhooks(url, shop.shop_id)} == {"delivered"}, 10), worker.log()
            assert worker.stop() == 0
    assert Counter(each.headers["webhook-id"] for each in receiver.received) == Counter(ids)
