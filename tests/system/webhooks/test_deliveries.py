"""Webhooks that a merchant's server receives: body, signatures, headers, and the responses that count as delivered."""

from __future__ import annotations

import base64
import hmac
import itertools
import json
import subprocess
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import standardwebhooks
from bepaid.client import parse_checkout_webhook, parse_subscription_webhook, verify_webhook_auth, verify_webhook_signature

from ecomcharge.base.clock import SystemClock
from ecomcharge.shops import actions as shops
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.subscriptions import store as subscriptions
from ecomcharge.subscriptions.notifications import EventRecorder
from ecomcharge.webhooks.model import PENDING
from support.commands import ecomcharge
from support.process import ServerProcess
from support.receiver import CLOSE, ENDLESS, SLOW, Receiver
from support.shops import ENVIRONMENT, Shop, with_database
from support.waiting import eventually
from support.webhooks import CARD, DAY, cancel, kept_webhooks, shop_on, subscribe, webhook_key_of, webhooks_of

DECLINED = {**CARD, "number": "4005550000000019"}


class EventJson(msgspec.Struct):
    type: str
    data: msgspec.Raw


def events_of(shop: Shop, object_id: str) -> list[EventJson]:
    with shop.client() as http:
        return msgspec.json.decode(http.get(f"/events?object={object_id}").content, type=list[EventJson])


def test_the_webhook_body_is_the_object_with_the_event_name_last(shop: Shop, receiver: Receiver) -> None:
    subscription = subscribe(shop, receiver.url)
    [created] = receiver.wait_for(1)
    cancel(shop, subscription)
    [_, canceled] = receiver.wait_for(2)

    events = events_of(shop, subscription["id"])
    assert [event.type for event in events] == ["canceled.subscription", "created.subscription"]
    assert [bytes(event.data) for event in events] == [canceled.body, created.body]
    body = json.loads(created.body)
    assert list(body)[-1] == "event"
    assert {**subscription, "event": "created.subscription"} == body
    assert created.line == "POST /hook HTTP/1.1"
    assert created.headers["content-type"] == created.headers["accept"] == "application/json"
    assert created.headers["host"] == f"127.0.0.1:{receiver.port}"


def test_a_declined_first_charge_sends_one_webhook_of_a_failed_subscription(shop: Shop, receiver: Receiver) -> None:
    subscribe(shop, receiver.url, DECLINED)
    assert [json.loads(each.body)["event"] for each in receiver.wait_for(1)] == ["failed.subscription"]
    eventually(lambda: [each.state for each in kept_webhooks(shop.process.database, shop.shop_id)] == ["delivered"])
    assert len(receiver.received) == 1


def test_openssl_and_the_bepaid_package_accept_the_signature(shop: Shop, receiver: Receiver, tmp_path: Path) -> None:
    subscribe(shop, receiver.url)
    [received] = receiver.wait_for(1)
    output = ecomcharge(shop.process.database, "shops", "show", str(shop.shop_id), "--json", environment=ENVIRONMENT)
    keys = json.loads(output.stdout)
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


def test_the_standard_webhooks_headers_are_correct(shop: Shop, receiver: Receiver) -> None:
    subscribe(shop, receiver.url)
    [received] = receiver.wait_for(1)
    headers = received.headers
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + received.body
    expected = base64.b64encode(hmac.new(shop.secret_key.encode(), signed, sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 30
    assert [webhook["id"] for webhook in webhooks_of(shop)] == [headers["webhook-id"]]


def test_the_standardwebhooks_package_accepts_the_signature(shop: Shop, receiver: Receiver) -> None:
    subscribe(shop, receiver.url)
    [received] = receiver.wait_for(1)
    verifier = standardwebhooks.Webhook(webhook_key_of(shop))
    assert verifier.verify(received.body, received.headers)["event"] == "created.subscription"
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        verifier.verify(received.body + b" ", received.headers)


def test_a_rotated_signing_key_is_used_within_five_seconds(shop: Shop, receiver: Receiver, master_key: MasterKey) -> None:
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
    faults = {
        201: "answered 201; only 200 counts as delivered",
        204: "answered 204; only 200 counts as delivered",
        302: "answered 302; redirects are not followed, and only 200 counts as delivered",
        500: None,
    }
    assert webhook.last_error == faults[answer] if isinstance(answer, int) else webhook.last_error is not None
    assert webhook.due_at is not None
    assert before + 16_000 <= webhook.due_at <= SystemClock().now() + (16 + 29 * 2) * 1000
    assert len(receiver.received) == 1


@pytest.mark.parametrize("answer", [ENDLESS, SLOW])
def test_the_response_body_of_a_receiver_is_ignored(shop: Shop, receiver: Receiver, answer: str) -> None:
    receiver.answer = answer
    subscribe(shop, receiver.url)
    assert eventually(lambda: [w.state for w in kept_webhooks(shop.process.database, shop.shop_id)] == ["delivered"], 6)
    assert len(receiver.received) == 1


def test_an_expired_page_sends_a_webhook_with_the_checkout_object(
    sandbox: ServerProcess, receiver: Receiver, master_key: MasterKey
) -> None:
    shop = shop_on(sandbox, master_key)
    subscription = subscribe(shop, receiver.url, card=None)
    moved = httpx.post(f"{sandbox.url}/sandbox/clock/advance", json={"step": "25h"}, auth=(str(shop.shop_id), shop.secret_key))
    assert moved.status_code == 200
    [received] = receiver.wait_for(1)
    body = json.loads(received.body)
    expected = {"token": subscription["token"], "shop_id": shop.shop_id, "finished": False, "expired": True, "status": "error"}
    assert expected.items() <= body.items()
    assert body["message"] == "Token is expired."
    assert parse_checkout_webhook(received.body.decode()).token == subscription["token"]


@pytest.mark.parametrize("moved_back", [0, 365 * DAY * 1000])
def test_event_ids_of_one_object_rise_across_processes(sandbox: ServerProcess, master_key: MasterKey, moved_back: int) -> None:
    """Two processes write in the same millisecond, the second with low random bits, or after the clock was set back."""
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
        body = http.get(f"/events?object={created['id']}").json()
    assert [event["sequence"] for event in body] == [5, 4, 3, 2, 1]
    assert [webhook["id"].removeprefix("whk_") for webhook in webhooks_of(shop)] == [
        event["id"].removeprefix("evt_") for event in body
    ]


def test_private_addresses_are_refused_unless_the_operator_allows_them(server: Shop, receiver: Receiver) -> None:
    for url in (receiver.url, f"http://localhost:{receiver.port}/", f"http://0.0.0.0:{receiver.port}/"):
        subscribe(server, url)
    assert eventually(lambda: {w.attempts for w in kept_webhooks(server.process.database, server.shop_id)} == {1}, 10)
    for webhook in kept_webhooks(server.process.database, server.shop_id):
        assert webhook.last_error == "the address is not public; --webhooks-to-private-addresses allows it"
    assert receiver.connections == 0
