"""The verification of webhooks, with messages that the server's own code signs and with forged ones."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from ecomcharge import CheckoutExpiredEvent, SubscriptionEvent, WebhookVerificationError, WebhookVerifier
from ecomcharge.subscriptions.lifecycle import EXPIRED_EVENT
from ecomcharge.subscriptions.openapi import MESSAGES
from ecomcharge.webhooks.model import SigningKey, Webhook, headers_of, pem_of

SECRET = "own-sandbox-keys"
ENCODED = f"whsec_{base64.b64encode(SECRET.encode()).decode()}"
KEY = SigningKey.new()
HMAC = WebhookVerifier(secret=SECRET)
RSA = WebhookVerifier(public_key=KEY.public_text())
BOTH = WebhookVerifier(secret=SECRET, public_key=KEY.public_text())
BODY = json.dumps(MESSAGES["renewed.subscription"])


def signed(body: str = BODY, secret: str = SECRET, key: SigningKey = KEY, ago: float = 0) -> dict[str, str]:
    """The headers of a webhook with this body, of an attempt that was ``ago`` seconds before now."""
    webhook = Webhook(361, "whk_7aee5afb954c7efb", "sbs_1", 1, "", "http://shop.test", body, "pending", 0, 0, 0)
    return headers_of(webhook, secret, key, int(time.time() - ago))


def refuses(verifier: WebhookVerifier, headers: Mapping[str, str], body: bytes | str = BODY) -> str:
    with pytest.raises(WebhookVerificationError) as caught:
        verifier.verify(headers, body)
    return str(caught.value)


@pytest.mark.parametrize("event", MESSAGES)
@pytest.mark.parametrize("verifier", [HMAC, RSA, BOTH], ids=["hmac", "rsa", "both"])
def test_each_webhook_is_read_as_its_type(verifier: WebhookVerifier, event: str) -> None:
    body = json.dumps(MESSAGES[event])
    found = verifier.verify(signed(body), body.encode())
    assert (found.type, found.webhook_id) == (event, "whk_7aee5afb954c7efb")
    if event == EXPIRED_EVENT:
        assert isinstance(found, CheckoutExpiredEvent)
        assert found.checkout.order.amount == 499
        assert found.checkout.token == MESSAGES[event]["token"]
    else:
        assert isinstance(found, SubscriptionEvent)
        assert found.subscription.id == MESSAGES[event]["id"]
        assert found.subscription.state == MESSAGES[event]["state"]


@pytest.mark.parametrize("transaction", [{}, None])
def test_a_subscription_without_a_charge_is_read(transaction: object) -> None:
    body = json.dumps({**MESSAGES["canceled.subscription"], "card": {}, "customer": {}, "last_transaction": transaction})
    found = RSA.verify(signed(body), body)
    assert isinstance(found, SubscriptionEvent)
    assert (found.subscription.card.token, found.subscription.customer.id) == (None, None)
    assert found.subscription.last_transaction is None or found.subscription.last_transaction.status is None


@pytest.mark.parametrize("secret", [SECRET, ENCODED, ENCODED.rstrip("="), ["other", SECRET]])
def test_the_key_may_be_plain_encoded_or_one_of_several(secret: str | list[str]) -> None:
    assert WebhookVerifier(secret=secret).verify(signed(), BODY).type == "renewed.subscription"


@pytest.mark.parametrize("public_key", [KEY.public_text(), pem_of(KEY.public_text())])
def test_the_public_key_may_be_bare_or_pem(public_key: str) -> None:
    assert WebhookVerifier(public_key=public_key).verify(signed(), BODY).type == "renewed.subscription"


def test_names_of_headers_may_have_any_case() -> None:
    for headers in ({name.upper(): value for name, value in signed().items()}, {n.title(): v for n, v in signed().items()}):
        assert BOTH.verify(headers, BODY) == BOTH.verify(signed(), BODY)


def test_another_body_key_or_id_is_refused() -> None:
    for verifier in (HMAC, RSA, BOTH):
        assert "not valid" in refuses(verifier, signed(), BODY + " ")
        assert "not valid" in refuses(verifier, signed(secret="stolen-key", key=SigningKey.new()))
    assert refuses(HMAC, {**signed(), "webhook-id": "whk_0"}) == "webhook-signature is not valid"
    assert refuses(HMAC, {**signed(), "webhook-timestamp": str(int(time.time()) + 1)}) == "webhook-signature is not valid"


def test_with_both_keys_one_valid_signature_is_not_enough() -> None:
    forged = signed(secret="stolen-key", key=SigningKey.new())
    assert "Content-Signature" in refuses(BOTH, {**signed(), "Content-Signature": forged["Content-Signature"]})
    assert "webhook-signature" in refuses(BOTH, {**signed(), "webhook-signature": forged["webhook-signature"]})


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature", "Content-Signature"])
def test_a_missing_header_is_named(name: str) -> None:
    headers = signed()
    del headers[name]
    assert refuses(BOTH, headers) == f"the header {name.lower()} is missing"
    assert refuses(BOTH, {**headers, name: ""}) == f"the header {name.lower()} is missing"


@pytest.mark.parametrize("ago", [301, 3600, -302])
def test_a_time_outside_the_tolerance_is_refused(ago: int) -> None:
    assert refuses(HMAC, signed(ago=ago)) == "webhook-timestamp differs by more than 300 seconds"
    assert WebhookVerifier(secret=SECRET, tolerance_seconds=7200).verify(signed(ago=ago), BODY)
    assert RSA.verify(signed(ago=ago), BODY)


def test_any_of_several_signatures_may_be_the_valid_one() -> None:
    headers = signed()
    headers["webhook-signature"] = f"v1a,x v1 v2,{headers['webhook-signature'][3:]} v1,AAAA {headers['webhook-signature']}"
    assert HMAC.verify(headers, BODY)
    headers["webhook-signature"] = headers["webhook-signature"].replace(" v1,", " v2,")
    assert refuses(HMAC, headers) == "webhook-signature is not valid"


@given(
    st.dictionaries(
        st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature", "Content-Signature"]),
        st.text(st.characters(codec=None)) | st.text("\ud800a,1"),
    )
)
def test_any_forged_header_is_refused_and_not_an_error(forged: dict[str, str]) -> None:
    for name, value in forged.items():
        if signed()[name] != value:
            refuses(BOTH, {**signed(), name: value})


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"event":1}', '{"event":"renewed.subscription"}', "[" * 100_000])
def test_an_authentic_body_of_another_kind_is_refused(body: str) -> None:
    assert refuses(HMAC, signed(body), body) == "the body is not a documented webhook"


def test_a_body_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(WebhookVerificationError):
        RSA.verify({"content-signature": KEY.signature(b'{"event":"\xff"}')}, b'{"event":"\xff"}')


def test_decoded_json_is_refused_with_a_hint() -> None:
    with pytest.raises(TypeError, match="raw body"):
        HMAC.verify(signed(), json.loads(BODY))


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_!", ["key", ""], []])
def test_a_key_that_cannot_be_used_is_refused(secret: str | list[str]) -> None:
    with pytest.raises(ValueError, match="secret"):
        WebhookVerifier(secret=secret)


def test_a_public_key_of_another_kind_is_refused() -> None:
    der = generate_private_key(SECP256R1()).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for text in (base64.b64encode(der).decode(), "", "nonsense", "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----"):
        with pytest.raises(ValueError):  # noqa: PT011 - the text is that of the library
            WebhookVerifier(public_key=text)
