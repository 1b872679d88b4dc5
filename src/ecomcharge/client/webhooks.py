"""Verifies the signatures of a webhook and reads it. It needs no client and does no I/O."""

from __future__ import annotations

import base64
import binascii
import hmac
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from ecomcharge.client.errors import WebhookVerificationError
from ecomcharge.client.model import ExpiredCheckout, Subscription

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

TOLERANCE_SECONDS: Final = 300
KEY_PREFIX: Final = "whsec_"
EXPIRED: Final = "expired.subscription"


class Headers(Protocol):
    """The headers of a request, such as those of Flask, Django, Starlette and FastAPI, or a dictionary."""

    def items(self) -> Iterable[tuple[str, str]]: ...


class SubscriptionEvent(msgspec.Struct, frozen=True):
    """A webhook about a subscription. ``webhook_id`` is the same in every attempt: use it to recognise a repetition.

    ``type`` is such as ``renewed.subscription``.
    """

    webhook_id: str | None
    type: str
    subscription: Subscription


class CheckoutExpiredEvent(msgspec.Struct, frozen=True):
    """A webhook about a payment page that expired without a payment."""

    webhook_id: str | None
    checkout: ExpiredCheckout
    type: str = EXPIRED


WebhookEvent = SubscriptionEvent | CheckoutExpiredEvent


class WebhookVerifier:
    """Verifies webhooks with the keys of one shop. Threads may share it.

    ``secret`` is the secret key of the shop or its form with ``whsec_``, or several keys while they are being changed. It
    verifies ``webhook-signature`` (Standard Webhooks), which contains the time of the attempt: more than ``tolerance_seconds``
    ago is refused. ``public_key`` is the public key of the shop, as PEM or as bare base64. It verifies ``Content-Signature``,
    which contains no time, so that an old webhook stays valid. At least one is needed. With both, both must be valid.
    """

    def __init__(
        self,
        *,
        secret: str | Sequence[str] = (),
        public_key: str | None = None,
        tolerance_seconds: float = TOLERANCE_SECONDS,
    ) -> None:
        secrets = [secret] if isinstance(secret, str) else secret
        self._hmac_keys = [_hmac_key(each) for each in secrets]
        self._public_key = None if public_key is None else _public_key(public_key)
        self._tolerance_seconds = tolerance_seconds
        if not self._hmac_keys and self._public_key is None:
            raise ValueError("secret or public_key is needed")

    def verify(self, headers: Headers, body: bytes | str) -> WebhookEvent:
        """The event of an authentic webhook. ``body`` is the raw body of the request, not the decoded JSON.

        Raises ``WebhookVerificationError``.
        """
        if not isinstance(body, bytes | str):
            raise TypeError("body must be the raw body of the request (bytes), not the decoded JSON")
        content = body.encode(errors="replace") if isinstance(body, str) else body
        values = {name.lower(): value for name, value in headers.items()}
        if self._hmac_keys:
            self._verify_hmac(values, content)
        if self._public_key is not None:
            _verify_rsa(self._public_key, values, content)
        return _event(values.get("webhook-id"), content)

    def _verify_hmac(self, headers: dict[str, str], body: bytes) -> None:
        """The signatures of Standard Webhooks 1.0.0: any of them may be made with any of the keys."""
        id, timestamp = _header(headers, "webhook-id"), _header(headers, "webhook-timestamp")
        versions = [each.partition(",") for each in _header(headers, "webhook-signature").split()]
        given = [signature.encode(errors="replace") for version, _, signature in versions if version == "v1"]
        signed = f"{id}.{timestamp}.".encode(errors="replace") + body
        wanted = [base64.b64encode(hmac.digest(key, signed, "sha256")) for key in self._hmac_keys]
        if not any(hmac.compare_digest(one, other) for one in given for other in wanted):
            raise WebhookVerificationError("webhook-signature is not valid")
        if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) < 16):
            raise WebhookVerificationError("webhook-timestamp is not a time")
        if abs(time.time() - int(timestamp)) > self._tolerance_seconds:
            raise WebhookVerificationError(f"webhook-timestamp differs by more than {self._tolerance_seconds:.0f} seconds")


def _verify_rsa(key: RSAPublicKey, headers: dict[str, str], body: bytes) -> None:
    """``Content-Signature``: RSA-SHA256 with PKCS#1 v1.5 over the raw body."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        signature = base64.b64decode(_header(headers, "content-signature"), validate=True)
        key.verify(signature, body, PKCS1v15(), SHA256())
    except (binascii.Error, ValueError, InvalidSignature) as error:
        raise WebhookVerificationError("Content-Signature is not valid") from error


def _header(headers: dict[str, str], name: str) -> str:
    value = headers.get(name)
    if not value:
        raise WebhookVerificationError(f"the header {name} is missing")
    return value


def _event(webhook_id: str | None, body: bytes) -> WebhookEvent:
    try:
        found: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
        if "event" in found:
            return SubscriptionEvent(webhook_id, str(found["event"]), msgspec.convert(found, Subscription))
        return CheckoutExpiredEvent(webhook_id, msgspec.convert(found, ExpiredCheckout))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WebhookVerificationError("the body is not a documented webhook") from error


def _hmac_key(secret: str) -> bytes:
    """The bytes of a key. An empty key is refused, because everyone could sign with it."""
    key = secret.encode()
    if secret.startswith(KEY_PREFIX):
        try:
            encoded = secret.removeprefix(KEY_PREFIX)
            key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        except binascii.Error as error:
            raise ValueError("secret is not base64 after whsec_") from error
    if not key:
        raise ValueError("secret must not be empty")
    return key


def _public_key(text: str) -> RSAPublicKey:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key

    key = load_pem_public_key(text.encode()) if "-----" in text else load_der_public_key(base64.b64decode(text))
    if not isinstance(key, RSAPublicKey):
        raise ValueError("public_key is not an RSA key")
    return key
