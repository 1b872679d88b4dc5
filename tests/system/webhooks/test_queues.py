"""A receiver that fails or hangs delays no webhook of another subscription or shop."""

from __future__ import annotations

import json
import re
import time

from ecomcharge.shops.keys import MasterKey
from ecomcharge.webhooks import delivery
from support.commands import ecomcharge
from support.operations import command
from support.receiver import HANG, Received, Receiver
from support.shops import ENVIRONMENT, Shop, add_shop
from support.waiting import eventually
from support.webhooks import cancel, put_in_outbox, subscribe, webhooks_of


def test_later_webhooks_of_a_subscription_wait_for_an_earlier_one_that_failed(shop: Shop, receiver: Receiver) -> None:
    receiver.answer = 500
    subscription = subscribe(shop, receiver.url)
    receiver.wait_for(1)
    cancel(shop, subscription)
    subscribe(shop, receiver.url)  # the webhook of another subscription does not wait
    assert [json.loads(each.body)["id"] == subscription["id"] for each in receiver.wait_for(2)] == [True, False]
    subscribe(shop, receiver.url)  # after this one is sent, the worker has searched for due webhooks again
    assert [json.loads(each.body)["id"] == subscription["id"] for each in receiver.wait_for(3)] == [True, False, False]
    receiver.answer = 200
    [failing] = [
        webhook for webhook in webhooks_of(shop) if (webhook["subscription_id"], webhook["attempts"]) == (subscription["id"], 1)
    ]
    done = ecomcharge(
        shop.process.database, "webhooks", "redeliver", failing["id"], "--shop-id", str(shop.shop_id), environment=ENVIRONMENT
    )
    assert done.returncode == 0
    bodies = [json.loads(each.body) for each in receiver.wait_for(5)[3:]]
    assert [(each["id"], each["event"]) for each in bodies] == [
        (subscription["id"], "created.subscription"),
        (subscription["id"], "canceled.subscription"),
    ]


def test_a_skipped_webhook_lets_the_later_ones_of_its_subscription_pass(shop: Shop, receiver: Receiver) -> None:
    def fail_created(received: Received) -> int:
        return 500 if b"created.subscription" in received.body else 200

    receiver.answer = fail_created
    subscription = subscribe(shop, receiver.url)
    receiver.wait_for(1)
    cancel(shop, subscription)
    assert eventually(lambda: [each["attempts"] for each in webhooks_of(shop)] == [0, 1], 20)
    created = webhooks_of(shop)[1]
    skip = ("webhooks", "skip", created["id"], "--shop-id", str(shop.shop_id))
    done = command(*skip, "--database", shop.process.database)
    assert done.returncode == 0, done.stderr
    assert subscription["id"] in done.stdout
    line = json.loads(done.stderr)
    assert (line["event"], line["webhook"], line["status"]) == ("webhook skipped by an operator", created["id"], 500)
    assert [json.loads(each.body)["event"] for each in receiver.wait_for(2)] == ["created.subscription", "canceled.subscription"]
    assert eventually(lambda: [each["state"] for each in webhooks_of(shop)] == ["delivered", "skipped"], 20)
    [skipped] = webhooks_of(shop, "--state", "skipped")
    assert re.fullmatch(r"skipped by an operator at \S+Z; before: answered 500", skipped["last_error"])
    assert (skipped["id"], skipped["next_attempt_at"], skipped["attempts"]) == (created["id"], None, 1)
    again = ecomcharge(shop.process.database, *skip, environment=ENVIRONMENT)
    assert (again.returncode, again.stderr) == (
        1,
        f"ecomcharge: webhook {created['id']} is skipped; only a pending webhook can be skipped\n",
    )
    receiver.answer = 200
    redeliver = ("webhooks", "redeliver", created["id"], "--shop-id", str(shop.shop_id))
    assert ecomcharge(shop.process.database, *redeliver, environment=ENVIRONMENT).returncode == 0
    assert json.loads(receiver.wait_for(3)[2].body)["event"] == "created.subscription"


def test_a_hanging_receiver_with_a_long_queue_delays_no_other_receiver(
    shop: Shop, receiver: Receiver, master_key: MasterKey
) -> None:
    with Receiver(HANG) as hanging:
        other = add_shop(shop.process.database, master_key)
        put_in_outbox(shop.process.database, other.shop_id, [f"{hanging.url}/{number}" for number in range(2_000)])
        hanging.wait_for(delivery.AT_ONCE_PER_RECEIVER)
        began = time.monotonic()
        subscribe(shop, receiver.url)
        [received] = receiver.wait_for(1, 20)
        assert received.at - began < 10  # the whole queue would take an hour
        assert len(hanging.received) == delivery.AT_ONCE_PER_RECEIVER


def test_a_shop_with_many_hanging_receivers_does_not_exceed_its_share(
    shop: Shop, receiver: Receiver, master_key: MasterKey
) -> None:
    with Receiver(HANG) as hanging:
        other = add_shop(shop.process.database, master_key)
        urls = [f"http://user{number}@127.0.0.1:{hanging.port}/" for number in range(500)]
        put_in_outbox(shop.process.database, other.shop_id, urls)
        hanging.wait_for(delivery.AT_ONCE_PER_SHOP)
        began = time.monotonic()
        subscribe(shop, receiver.url)
        [received] = receiver.wait_for(1, 20)
        assert received.at - began < 10  # the whole queue would take an hour
        assert len(hanging.received) == delivery.AT_ONCE_PER_SHOP


def test_a_long_queue_of_a_dead_receiver_delays_others_only_briefly(
    shop: Shop, receiver: Receiver, master_key: MasterKey
) -> None:
    """The webhooks are of one subscription: only the first may be sent, and every search skips the rest."""
    with Receiver(503) as dead:
        other = add_shop(shop.process.database, master_key)
        put_in_outbox(shop.process.database, other.shop_id, [dead.url] * 5_000, of_one_subscription=True)
        dead.wait_for(1)
        began = time.monotonic()
        subscribe(shop, receiver.url)
        [received] = receiver.wait_for(1, 20)
        assert received.at - began < 10
        assert len(dead.received) == 1
