"""What merchants are told, how it is signed, and that nobody is forgotten, told twice or made to wait for another."""

from __future__ import annotations

import asyncio
import base64
import datetime
import hmac
import ipaddress
import itertools
import json
import random
import signal
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from bepaid.client import (
    parse_checkout_webhook,
    parse_subscription_webhook,
    verify_webhook_auth,
    verify_webhook_signature,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from ecomcharge.base.calendar import iso
from ecomcharge.base.clock import SystemClock
from ecomcharge.base.ids import WEBHOOK_PREFIX, IdGenerator
from ecomcharge.sandbox.clock import SandboxClock
from ecomcharge.shops import actions as shops
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.subscriptions import store as subscriptions
from ecomcharge.subscriptions.notifications import EventRecorder
from ecomcharge.webhooks import delivery, sender, store
from ecomcharge.webhooks.delivery import Delivery, origin_of
from ecomcharge.webhooks.model import GIVEN_UP, PENDING, RETRIES, Webhook, is_public, retry_delay, skip_attempts
from ecomcharge.webhooks.sender import Sender, Unreachable
from support.commands import WorkerProcess, ecomcharge
from support.postgres import PostgresServer, free_port
from support.process import ServerProcess
from support.receiver import CLOSE, ENDLESS, HANG, SLOW, Received, Receiver
from support.shops import ENVIRONMENT, Shop, add_shop, with_database
from support.waiting import eventually

PRIVATE = "--webhooks-to-private-addresses"
CARD = {"number": "4200000000000000", "verification_value": "123", "holder": "John Doe", "exp_month": "01", "exp_year": "2099"}
DECLINED = {**CARD, "number": "4005550000000019"}
PLAN = {"title": "Basic", "currency": "EUR", "plan": {"amount": 100, "interval": 1, "interval_unit": "month"}}
DAY = 24 * 60 * 60


class ShownEvent(msgspec.Struct):
    type: str
    data: msgspec.Raw


@pytest.fixture(scope="module")
def open_server(new_database_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server and the worker beside it, which may send to this machine."""
    options = ("--worker", PRIVATE)
    with ServerProcess(new_database_url(), tmp_path_factory.mktemp("open"), *options, environment=ENVIRONMENT) as process:
        yield process


@pytest.fixture(scope="module")
def sandbox(new_database_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A sandbox without a worker: things happen when its clock is moved."""
    options = ("--sandbox", "--no-worker")
    with ServerProcess(new_database_url(), tmp_path_factory.mktemp("sandbox"), *options, environment=ENVIRONMENT) as process:
        yield process


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def shop(open_server: ServerProcess, master_key: MasterKey) -> Shop:
    return shop_on(open_server, master_key)


def shop_on(process: ServerProcess, master_key: MasterKey) -> Shop:
    credentials = add_shop(process.database, master_key)
    return Shop(process.url, credentials.shop_id, credentials.secret_key, process)


def subscribe(shop: Shop, url: str, card: dict[str, str] | None = CARD) -> dict[str, Any]:
    customer = {"customer": {"email": "john@example.com", "ip": "127.0.0.1"}, "card": card} if card else {}
    with shop.client() as http:
        response = http.post("/subscriptions", json={"plan": PLAN, "notification_url": url, **customer})
    assert response.status_code == 201, response.text
    created: dict[str, Any] = response.json()
    return created


def cancel(shop: Shop, subscription: dict[str, Any]) -> None:
    with shop.client() as http:
        response = http.post(f"/subscriptions/{subscription['id']}/cancel", json={"cancel_reason": "enough"})
        assert response.status_code == 200, response.text


def events_of(shop: Shop, object_id: str) -> list[ShownEvent]:
    with shop.client() as http:
        return msgspec.json.decode(http.get(f"/events?object={object_id}").content, type=list[ShownEvent])


def webhooks_of(shop: Shop, *arguments: str) -> list[dict[str, Any]]:
    done = ecomcharge(
        shop.process.database, "webhooks", "list", "--shop-id", str(shop.shop_id), "--json", *arguments, environment=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def kept_webhooks(url: str, shop_id: int) -> list[Webhook]:
    return with_database(url, lambda database: store.newest(database, shop_id, 10_000))


def put_in_outbox(url: str, shop_id: int, urls: list[str], *, of_one_subscription: bool = False) -> list[str]:
    """A webhook for each URL, due now; each of a subscription of its own, or one behind the other; their ids."""
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


# What is sent


def test_the_body_is_the_object_that_events_shows_and_the_event_comes_last(shop: Shop, receiver: Receiver) -> None:
    subscription = subscribe(shop, receiver.url)
    [created] = receiver.wait_for(1)
    cancel(shop, subscription)
    [_, canceled] = receiver.wait_for(2)

    events = events_of(shop, subscription["id"])
    assert [event.type for event in events] == ["canceled.subscription", "created.subscription"]
    assert [bytes(event.data) for event in events] == [canceled.body, created.body]
    told = json.loads(created.body)
    assert list(told)[-1] == "event"
    assert {**subscription, "event": "created.subscription"} == told
    assert created.line == "POST /hook HTTP/1.1"
    assert created.headers["content-type"] == created.headers["accept"] == "application/json"
    assert created.headers["host"] == f"127.0.0.1:{receiver.port}"


def test_a_first_charge_that_is_declined_is_told_as_failed_and_nothing_else(shop: Shop, receiver: Receiver) -> None:
    subscribe(shop, receiver.url, DECLINED)
    assert [json.loads(each.body)["event"] for each in receiver.wait_for(1)] == ["failed.subscription"]
    time.sleep(1)
    assert len(receiver.received) == 1


def test_openssl_and_the_bepaid_package_accept_the_signature(shop: Shop, receiver: Receiver, tmp_path: Path) -> None:
    subscribe(shop, receiver.url)
    [received] = receiver.wait_for(1)
    shown = ecomcharge(shop.process.database, "shops", "show", str(shop.shop_id), "--json", environment=ENVIRONMENT)
    keys = json.loads(shown.stdout)
    headers = received.headers

    files = {"key.pem": keys["public_key_pem"].encode(), "signature": base64.b64decode(headers["content-signature"])}
    for name, content in {**files, "body": received.body}.items():
        (tmp_path / name).write_bytes(content)
    command = "openssl dgst -sha256 -verify key.pem -signature signature body"
    done = subprocess.run(command.split(), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "Verified OK\n"

    assert verify_webhook_auth(headers["authorization"], str(shop.shop_id), shop.secret_key)
    assert verify_webhook_signature(keys["public_key_pem"], headers["content-signature"], received.body)
    assert not verify_webhook_signature(keys["public_key_pem"], headers["content-signature"], received.body + b" ")
    parsed = parse_subscription_webhook(received.body.decode())
    assert (parsed.event, parsed.state) == ("created.subscription", "active")
    assert base64.b64decode(keys["public_key"]) == base64.b64decode("".join(keys["public_key_pem"].splitlines()[1:-1]))


def test_the_three_standard_webhooks_headers_are_right(shop: Shop, receiver: Receiver) -> None:
    subscribe(shop, receiver.url)
    [received] = receiver.wait_for(1)
    headers = received.headers
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + received.body
    expected = base64.b64encode(hmac.new(shop.secret_key.encode(), signed, sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 30
    assert [webhook["id"] for webhook in webhooks_of(shop)] == [headers["webhook-id"]]


def test_a_rotated_key_is_used_within_five_seconds(shop: Shop, receiver: Receiver, master_key: MasterKey) -> None:
    subscribe(shop, receiver.url)
    receiver.wait_for(1)
    rotated = with_database(
        shop.process.database,
        lambda database: shops.rotate_key(database, master_key, SystemClock().now(), shop_id=shop.shop_id, overlap_seconds=60),
    )
    time.sleep(5)
    subscribe(shop, receiver.url)
    first, second = receiver.wait_for(2)
    assert verify_webhook_auth(first.headers["authorization"], str(shop.shop_id), shop.secret_key)
    assert verify_webhook_auth(second.headers["authorization"], str(shop.shop_id), rotated.secret_key)


# What counts


@pytest.mark.parametrize("answer", [201, 204, 302, 500, CLOSE])
def test_only_200_counts_and_no_redirect_is_followed(shop: Shop, receiver: Receiver, answer: int | str) -> None:
    receiver.answer = answer
    before = SystemClock().now()
    subscribe(shop, receiver.url)
    receiver.wait_for(1)
    assert eventually(lambda: kept_webhooks(shop.process.database, shop.shop_id)[0].attempts == 1, 5)
    [webhook] = kept_webhooks(shop.process.database, shop.shop_id)
    assert webhook.state == PENDING
    assert webhook.last_status == (None if answer == CLOSE else answer)
    assert (webhook.last_error is not None) == (answer == CLOSE)
    assert webhook.due_at is not None
    assert before + 16_000 <= webhook.due_at <= SystemClock().now() + (16 + 29 * 2) * 1000
    assert len(receiver.received) == 1


@pytest.mark.parametrize("answer", [ENDLESS, SLOW])
def test_the_status_counts_whatever_the_body_is(shop: Shop, receiver: Receiver, answer: str) -> None:
    receiver.answer = answer
    subscribe(shop, receiver.url)
    assert eventually(lambda: [w.state for w in kept_webhooks(shop.process.database, shop.shop_id)] == ["delivered"], 6)
    assert len(receiver.received) == 1


@given(st.integers(1, RETRIES), st.integers())
def test_the_nth_retry_waits_n_to_the_fourth_and_15_seconds_and_a_chance(n: int, seed: int) -> None:
    delay = retry_delay(n, random.Random(seed))
    chance, rest = divmod(delay - (n**4 + 15) * 1000, (n + 1) * 1000)
    assert rest == 0
    assert 0 <= chance <= 29


def test_every_chance_is_taken() -> None:
    assert {retry_delay(1, random.Random(seed)) // 2000 - 8 for seed in range(2000)} == set(range(30))


def test_after_25_retries_it_is_given_up_the_next_one_goes_and_a_command_sends_it_again(
    sandbox: ServerProcess, receiver: Receiver, master_key: MasterKey
) -> None:
    def dead_to_the_first(received: Received) -> int:
        return 503 if b"created.subscription" in received.body else 200

    merchant = shop_on(sandbox, master_key)

    def clock(act: str, **body: str) -> None:
        moved = httpx.post(
            f"{sandbox.url}/sandbox/clock/{act}", json=body, auth=(str(merchant.shop_id), merchant.secret_key), timeout=60
        )
        assert moved.status_code == 200

    receiver.answer = dead_to_the_first
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
    """Attempts that were not made are counted apart, the retry schedule goes on, and the next move tries again."""
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
    assert "not made while the sandbox clock was moved" in shown_webhook(merchant, waiting[0]["id"])

    clock("advance", step="5d")
    [again] = [webhook for webhook in webhooks_of(merchant) if webhook["id"] == waiting[0]["id"]]
    assert again["attempts"] == waiting[0]["attempts"] + 1
    clock("resume")


def shown_webhook(shop: Shop, webhook_id: str) -> str:
    done = ecomcharge(
        shop.process.database, "webhooks", "show", webhook_id, "--shop-id", str(shop.shop_id), environment=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@given(
    attempts=st.integers(0, RETRIES), skipped=st.integers(0, RETRIES), length=st.integers(0, 40 * DAY * 1000), seed=st.integers()
)
def test_skipped_attempts_end_where_the_schedule_does_or_past_the_move(
    attempts: int, skipped: int, length: int, seed: int
) -> None:
    webhook = Webhook(1, "whk_1", "sbs_1", 1, "created.subscription", "http://a/", "{}", PENDING, attempts, 0, 1000)
    webhook = msgspec.structs.replace(webhook, attempts_skipped=min(skipped, RETRIES - attempts))
    changed, last = skip_attempts(webhook, 1000, 1000 + length, "ConnectError", random.Random(seed))
    scheduled = changed.attempts + changed.attempts_skipped
    assert (changed.attempts, 1000 <= last <= 1000 + length) == (attempts, True)
    assert webhook.attempts_skipped < changed.attempts_skipped
    if changed.due_at is None:
        assert (changed.state, scheduled) == (GIVEN_UP, 1 + RETRIES)
    else:
        assert (changed.state, scheduled <= RETRIES) == (PENDING, True)
        assert last <= 1000 + length < changed.due_at


def test_a_page_that_nobody_paid_on_is_told_as_the_checkout_object(
    sandbox: ServerProcess, receiver: Receiver, master_key: MasterKey
) -> None:
    shop = shop_on(sandbox, master_key)
    subscription = subscribe(shop, receiver.url, card=None)
    moved = httpx.post(f"{sandbox.url}/sandbox/clock/advance", json={"step": "25h"}, auth=(str(shop.shop_id), shop.secret_key))
    assert moved.status_code == 200
    [received] = receiver.wait_for(1)
    told = json.loads(received.body)
    expected = {"token": subscription["token"], "shop_id": shop.shop_id, "finished": False, "expired": True, "status": "error"}
    assert expected.items() <= told.items()
    assert told["message"] == "Token is expired."
    assert parse_checkout_webhook(received.body.decode()).token == subscription["token"]


def test_the_next_attempt_counts_from_the_time_of_a_clock_that_was_set_during_the_attempt(
    database_url: str, receiver: Receiver, master_key: MasterKey
) -> None:
    shop = add_shop(database_url, master_key)
    put_in_outbox(database_url, shop.shop_id, [receiver.url])
    moved_to = SystemClock().now() - DAY * 1000

    def set_clock_and_fail(_: Received) -> int:
        done = ecomcharge(database_url, "clock", "set", iso(moved_to), environment={**ENVIRONMENT, "ECOMCHARGE_SANDBOX": "true"})
        assert done.returncode == 0, done.stderr
        return 500

    async def deliver(database: Database) -> None:
        clock = SandboxClock(database)
        sender = Delivery(database, master_key, clock, allow_private=True)
        assert await sender.round(await clock.read()) == 1
        await sender.wait()
        await sender.close()

    receiver.answer = set_clock_and_fail
    with_database(database_url, deliver)
    [webhook] = kept_webhooks(database_url, shop.shop_id)
    assert (webhook.attempts, webhook.last_status) == (1, 500)
    assert webhook.due_at is not None
    assert 16_000 <= webhook.due_at - moved_to < 600_000


# Order and fairness


@pytest.mark.parametrize("moved_back", [0, 365 * DAY * 1000])
def test_ids_of_one_objects_events_rise_with_its_sequence_whichever_process_mints_them(
    sandbox: ServerProcess, master_key: MasterKey, moved_back: int
) -> None:
    """Two processes write in the same millisecond, the second with low random bits; or after the clock was set back."""
    shop = shop_on(sandbox, master_key)
    created = subscribe(shop, "http://127.0.0.1:9/")
    high, low = EventRecorder(sandbox.url), EventRecorder(sandbox.url)
    for id_generator in (high.event_ids, high.webhook_ids):
        id_generator._random = itertools.repeat((1 << 32) - 1)
    for id_generator in (low.event_ids, low.webhook_ids):
        id_generator._random = itertools.repeat(0)
    now = SystemClock().now() + 60_000

    async def work(database: Database) -> None:
        found = await subscriptions.find(database, shop.shop_id, created["id"])
        assert found is not None
        for sequence, (event_recorder, moment) in enumerate([(high, now), (low, now - moved_back), (low, now), (high, now)], 2):
            changed = msgspec.structs.replace(found, sequence=sequence)

            async def unit(
                tx: Transaction, event_recorder: EventRecorder = event_recorder, changed: Any = changed, moment: int = moment
            ) -> None:
                await event_recorder.record(tx, changed, "renewed.subscription", moment)

            await database.write(unit)

    with_database(sandbox.database, work)
    with shop.client() as http:
        told = http.get(f"/events?object={created['id']}").json()
    assert [event["sequence"] for event in told] == [5, 4, 3, 2, 1]
    assert [webhook["id"].removeprefix("whk_") for webhook in webhooks_of(shop)] == [
        event["id"].removeprefix("evt_") for event in told
    ]


def test_later_webhooks_of_a_subscription_wait_for_an_earlier_one_that_failed(shop: Shop, receiver: Receiver) -> None:
    receiver.answer = 500
    subscription = subscribe(shop, receiver.url)
    receiver.wait_for(1)
    cancel(shop, subscription)
    subscribe(shop, receiver.url)  # another subscription's does not wait
    assert [json.loads(each.body)["id"] == subscription["id"] for each in receiver.wait_for(2)] == [True, False]
    time.sleep(1.5)
    receiver.answer = 200
    assert len(receiver.received) == 2
    [failing] = [
        webhook for webhook in webhooks_of(shop) if (webhook["subscription_id"], webhook["attempts"]) == (subscription["id"], 1)
    ]
    done = ecomcharge(
        shop.process.database, "webhooks", "redeliver", failing["id"], "--shop-id", str(shop.shop_id), environment=ENVIRONMENT
    )
    assert done.returncode == 0
    told = [json.loads(each.body) for each in receiver.wait_for(4)[2:]]
    assert [(each["id"], each["event"]) for each in told] == [
        (subscription["id"], "created.subscription"),
        (subscription["id"], "canceled.subscription"),
    ]


def test_a_hanging_receiver_with_a_long_queue_holds_up_nobody_else(shop: Shop, receiver: Receiver, master_key: MasterKey) -> None:
    with Receiver(HANG) as hanging:
        other = add_shop(shop.process.database, master_key)
        put_in_outbox(shop.process.database, other.shop_id, [f"{hanging.url}/{number}" for number in range(2_000)])
        hanging.wait_for(delivery.AT_ONCE_PER_RECEIVER)
        began = time.monotonic()
        subscribe(shop, receiver.url)
        [received] = receiver.wait_for(1, 20)
        assert received.at - began < 10  # the queue takes an hour
        assert len(hanging.received) == delivery.AT_ONCE_PER_RECEIVER


def test_a_shop_with_many_hanging_receivers_has_its_share_and_no_more(
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
        assert received.at - began < 10  # the queue takes an hour
        assert len(hanging.received) == delivery.AT_ONCE_PER_SHOP


def test_where_it_takes_long_to_look_past_a_queue_it_is_done_less_often(
    database_url: str, master_key: MasterKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches = 0

    async def slow_search(*_: object) -> list[tuple[int, str]]:
        nonlocal searches
        searches += 1
        await asyncio.sleep(0.15)
        return []

    async def work(database: Database) -> None:
        sender = Delivery(database, master_key, SystemClock(), allow_private=True)
        until = time.monotonic() + 1.6
        while time.monotonic() < until:
            assert await sender.round(SystemClock().now()) == 0
            await asyncio.sleep(0.001)
        await sender.close()

    monkeypatch.setattr(store, "due", slow_search)
    with_database(database_url, work)
    assert 1 < searches <= 1 + 1.6 / 0.15 * delivery.SHARE_OF_SEARCH


def test_a_dead_receiver_with_many_webhooks_behind_one_another_keeps_others_waiting_for_a_moment_only(
    shop: Shop, receiver: Receiver, master_key: MasterKey
) -> None:
    """Of one subscription, so that only the first may be sent, and the rest is looked past at every search."""
    with Receiver(503) as dead:
        other = add_shop(shop.process.database, master_key)
        put_in_outbox(shop.process.database, other.shop_id, [dead.url] * 5_000, of_one_subscription=True)
        dead.wait_for(1)
        began = time.monotonic()
        subscribe(shop, receiver.url)
        [received] = receiver.wait_for(1, 20)
        assert received.at - began < 10
        assert len(dead.received) == 1


@pytest.mark.parametrize("rest", ["", "/", "/a/b", "?a=//b", "#a"])
def test_the_origin_of_a_url_is_what_stands_before_its_path(rest: str) -> None:
    assert origin_of(f"https://shop.example:8443{rest}") == "https://shop.example:8443"
    assert origin_of("nonsense") == ""


# Many workers


def test_two_workers_send_each_webhook_once(database_url: str, receiver: Receiver, master_key: MasterKey, tmp_path: Path) -> None:
    shop = add_shop(database_url, master_key)
    ids = put_in_outbox(database_url, shop.shop_id, [receiver.url] * 400)
    workers = [WorkerProcess(database_url, tmp_path, PRIVATE, environment=ENVIRONMENT) for _ in range(2)]
    with workers[0], workers[1]:
        receiver.wait_for(400, 40)
        time.sleep(1)
        assert [worker.stop() for worker in workers] == [0, 0]
    told = Counter(each.headers["webhook-id"] for each in receiver.received)
    assert told == Counter(ids)
    assert {webhook.state for webhook in kept_webhooks(database_url, shop.shop_id)} == {"delivered"}
    assert "exception" not in "".join(worker.log() for worker in workers)


def test_what_a_killed_worker_had_begun_another_sends_when_the_lease_is_over(
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
        time.sleep(2.5)
        assert len(receiver.received) == 1
        assert 60_000 < with_database(database_url, two_minutes_later) < 120_000
        assert len(receiver.wait_for(2)) == 2
        assert eventually(lambda: kept_webhooks(database_url, shop.shop_id)[0].state == "delivered", 5)
    assert {each.headers["webhook-id"] for each in receiver.received} == {id}


def test_no_webhook_is_lost_or_sent_twice_when_postgresql_stops_and_comes_back(
    receiver: Receiver, master_key: MasterKey, tmp_path: Path
) -> None:
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
            time.sleep(2)
            postgres.start()
            receiver.wait_for(200, 40)
            assert eventually(lambda: {w.state for w in kept_webhooks(url, shop.shop_id)} == {"delivered"}, 10), worker.log()
            assert worker.stop() == 0
    assert Counter(each.headers["webhook-id"] for each in receiver.received) == Counter(ids)


# Where webhooks do not go


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.1.1", "100.64.0.1"),
        *("224.0.0.1", "240.0.0.1", "255.255.255.255", "198.18.0.1", "192.0.2.1", "203.0.113.1", "192.88.99.1"),
        *("169.254.169.254", "100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254"),  # metadata of clouds
        *("::", "::1", "fe80::1", "fec0::1", "fc00::1", "fd12::1", "ff02::1", "2001:db8::1", "100::1", "::127.0.0.1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0.0.0.0"),
        *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808", "2002:7f00:1::", "2002:a00:1::1", "2001:0:1::1"),
    ],
)
def test_an_address_that_is_nobodys_out_there_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses())
def test_every_address_is_judged_and_no_private_one_is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if isinstance(address, ipaddress.IPv6Address) and address.sixtofour is not None:
        # As public as the address within it; Python 3.11.2 takes all of them for private.
        assert is_public(str(address)) == is_public(str(address.sixtofour))
        return
    assert not (is_public(str(address)) and (address.is_private or address.is_loopback or address.is_link_local))


def test_private_addresses_are_refused_unless_the_operator_allows_them(server: Shop, receiver: Receiver) -> None:
    for url in (receiver.url, f"http://localhost:{receiver.port}/", f"http://0.0.0.0:{receiver.port}/"):
        subscribe(server, url)
    assert eventually(lambda: {w.attempts for w in kept_webhooks(server.process.database, server.shop_id)} == {1}, 10)
    for webhook in kept_webhooks(server.process.database, server.shop_id):
        assert webhook.last_error == "the address is not public; --webhooks-to-private-addresses allows it"
    assert receiver.connections == 0


# How a request travels


def post(*urls: str, allow_private: bool = True) -> list[tuple[int | None, str | None]]:
    async def work() -> list[tuple[int | None, str | None]]:
        sender = Sender(256, allow_private=allow_private)
        try:
            return await asyncio.gather(*(sender.post(url, {"Authorization": "Basic x"}, b"{}") for url in urls))
        finally:
            await sender.close()

    return asyncio.run(work())


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST", "127.0.0.1", "127.1", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]"]
)
def test_no_way_to_write_loopback_leads_there(receiver: Receiver, host: str) -> None:
    [(status, fault)] = post(f"http://{host}:{receiver.port}/", allow_private=False)
    assert status is None
    assert fault is not None
    assert receiver.connections == 0


def test_credentials_and_fragment_of_a_url_are_not_sent(receiver: Receiver) -> None:
    assert post(f"http://user:secret@127.0.0.1:{receiver.port}/a%20b?c=d#e") == [(200, None)]
    [received] = receiver.received
    assert received.line == "POST /a%20b?c=d HTTP/1.1"
    assert received.headers["authorization"] == "Basic x"
    assert received.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert b"secret" not in received.head


def test_a_name_beyond_ascii_is_asked_for_in_its_ascii_form(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def look_up(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    monkeypatch.setattr(sender, "_look_up", look_up)
    assert post(f"http://bücher.example:{receiver.port}/ä") == [(200, None)]
    assert asked == ["xn--bcher-kva.example"]
    assert receiver.received[0].headers["host"] == f"xn--bcher-kva.example:{receiver.port}"


def test_the_next_address_of_a_name_is_tried_when_the_first_does_not_answer(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "_look_up", lambda host, port: ["::1", "127.0.0.2", "127.0.0.1"])
    assert post(f"http://shop.example:{receiver.port}/") == [(200, None)]


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://a:99999/", "ftp://a/", "http://a\r\nX: y/", "", "http://", "http://\x00/"]
)
def test_a_url_that_is_none_is_a_fault_and_no_accident(url: str) -> None:
    [(status, fault)] = post(url)
    assert status is None
    assert fault


def test_no_connection_and_no_answer_in_time_count_as_unreachable_and_a_broken_connection_does_not(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "TIMEOUT_SECONDS", 1.0)
    [(_, refused)], [(_, unknown)] = post(f"http://127.0.0.1:{free_port()}/"), post("http://nobody.invalid/")
    receiver.answer = HANG
    [(_, hung)] = post(receiver.url)
    receiver.answer = CLOSE
    [(_, closed)] = post(receiver.url)
    assert [isinstance(fault, Unreachable) for fault in (refused, unknown, hung, closed)] == [True, True, True, False]


def test_dead_names_hold_up_nobody(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(host: str, port: int) -> list[str]:
        time.sleep(3)
        return ["127.0.0.1"]

    monkeypatch.setattr(sender, "_look_up", look_up)
    monkeypatch.setattr(sender, "TIMEOUT_SECONDS", 1.0)

    async def work() -> float:
        sender = Sender(256, allow_private=True)
        dead = [asyncio.create_task(sender.post(f"http://dead{n}.example/", {}, b"{}")) for n in range(200)]
        await asyncio.sleep(0.2)
        began = time.monotonic()
        assert await sender.post(receiver.url, {}, b"{}") == (200, None)
        took = time.monotonic() - began
        assert set(await asyncio.gather(*dead)) == {(None, "no answer within 1 seconds")}
        await sender.close()
        return took

    assert asyncio.run(work()) < 1


def test_connections_are_kept_for_the_next_and_none_is_lost_to_receivers_that_hang(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "TIMEOUT_SECONDS", 0.5)

    async def work() -> None:
        sender = Sender(8, allow_private=True)
        for _ in range(10):
            assert await sender.post(receiver.url, {}, b"{}") == (200, None)
        assert receiver.connections == 1
        receiver.answer = HANG
        for _ in range(2):
            hung = await asyncio.gather(*(sender.post(receiver.url, {}, b"{}") for _ in range(8)))
            assert {status for status, _ in hung} == {None}
        cut = [asyncio.create_task(sender.post(receiver.url, {}, b"{}")) for _ in range(8)]
        await asyncio.sleep(0.2)
        for task in cut:
            task.cancel()
        await asyncio.gather(*cut, return_exceptions=True)
        receiver.answer = 200
        assert set(await asyncio.gather(*(sender.post(receiver.url, {}, b"{}") for _ in range(8)))) == {(200, None)}
        await sender.close()

    asyncio.run(work())


def test_tls_is_verified_against_the_name_and_connections_go_by_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = certificate_for("one.example", tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    monkeypatch.setattr(sender, "_look_up", lambda host, port: ["127.0.0.1"])
    with Receiver(tls=context) as receiver:
        one, two = (f"https://{name}.example:{receiver.port}/" for name in ("one", "two"))
        [(status, fault)] = post(one)
        assert status is None
        assert "self-signed certificate" in (fault or "")

        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

        async def work() -> list[tuple[int | None, str | None]]:
            sender = Sender(8, allow_private=True)
            answers = [await sender.post(url, {}, b"{}") for url in (one, two, one)]
            await sender.close()
            return answers

        good, bad, again = asyncio.run(work())
        assert good == again == (200, None)
        assert bad[0] is None
        assert "Hostname mismatch" in (bad[1] or "")
        assert len(receiver.received) == 2


def certificate_for(name: str, folder: Path) -> tuple[Path, Path]:
    """A certificate that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / "certificate.pem", folder / "key.pem"
    certificate_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    pkcs8 = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    key_file.write_bytes(key.private_bytes(*pkcs8))
    return certificate_file, key_file
