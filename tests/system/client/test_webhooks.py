"""Delivered webhooks are verified and read by the client."""

from __future__ import annotations

import json

from ecomcharge import CheckoutExpiredEvent, NewCard, NewCustomer, NewPlan, Price, SubscriptionEvent, WebhookVerifier
from support.client import Connect, as_shop
from support.commands import ecomcharge
from support.receiver import Receiver
from support.shops import ENVIRONMENT, Shop
from support.webhooks import webhook_key_of

BASIC = NewPlan(title="Basic", currency="EUR", plan=Price(999, 1, "month"))
CARD = NewCard(number="4200000000000000", exp_month=1, exp_year=2099)
JOHN = NewCustomer(email="john@shop.test")


def test_delivered_webhooks_are_verified_with_the_printed_keys(sandbox: Shop, receiver: Receiver, connect: Connect) -> None:
    command = ("shops", "show", str(sandbox.shop_id), "--json")
    keys = json.loads(ecomcharge(sandbox.process.database, *command, environment=ENVIRONMENT).stdout)
    verifiers = [
        WebhookVerifier(secret=webhook_key_of(sandbox)),
        WebhookVerifier(secret=sandbox.secret_key, public_key=keys["public_key"]),
        WebhookVerifier(public_key=keys["public_key_pem"]),
    ]
    with as_shop(connect, sandbox) as client:
        client.freeze_clock()
        paid = client.create_subscription(BASIC, customer=JOHN, card=CARD, notification_url=receiver.url)
        unpaid = client.create_subscription(BASIC, notification_url=receiver.url, tracking_id="order-7")
        client.advance_clock("32d")
        renewed = client.get_subscription(paid.id)
        client.resume_clock()
    for verifier in verifiers:
        created, expired, renewal = (verifier.verify(each.headers, each.body) for each in receiver.wait_for(3))
        assert isinstance(created, SubscriptionEvent)
        assert (created.type, created.subscription) == ("created.subscription", paid)
        assert isinstance(expired, CheckoutExpiredEvent)
        assert (expired.checkout.token, expired.checkout.order.tracking_id) == (unpaid.token, "order-7")
        assert isinstance(renewal, SubscriptionEvent)
        assert (renewal.type, renewal.subscription) == ("renewed.subscription", renewed)
        assert len({created.webhook_id, expired.webhook_id, renewal.webhook_id}) == 3
