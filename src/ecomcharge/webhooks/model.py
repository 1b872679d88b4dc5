"""A webhook: one message to a merchant, its signatures and its retry schedule.

Sources: [P] the platform's page on webhooks, [C] captured traffic, [D] our choice (Standard Webhooks beside the rest).
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
import random
from dataclasses import dataclass
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from ecomcharge.base.calendar import iso

PENDING: Final = "pending"
DELIVERED: Final = "delivered"
GIVEN_UP: Final = "failed"
SKIPPED: Final = "skipped"  # by an operator

RETRIES: Final = 25  # [P]
SUCCESS: Final = 200  # and no other status [P]
KEY_BITS: Final = 2048  # [P]


class Webhook(msgspec.Struct, frozen=True):
    """A message in the outbox. ``attempts`` counts the attempts so far; times are UTC milliseconds.

    ``attempts_skipped`` counts the attempts that became due during a move of the sandbox clock and were not made.
    """

    shop_id: int
    id: str
    subscription_id: str
    sequence: int
    event: str
    url: str
    body: str
    state: str
    attempts: int
    created_at: int
    due_at: int | None
    last_status: int | None = None
    last_error: str | None = None
    delivered_at: int | None = None
    attempts_skipped: int = 0

    @property
    def attempts_scheduled(self) -> int:
        """The number of retries of the schedule that were made or skipped."""
        return self.attempts + self.attempts_skipped


class Unreachable(str):
    """The receiver gave no answer: no connection could be opened, or the answer did not come in time."""


def fault_of_status(status: int | None) -> str | None:
    """Why an answer that looks like a success does not count as one [P]. ``None`` if the status says enough."""
    if status is None or status == SUCCESS or not 200 <= status < 400:
        return None
    redirected = "redirects are not followed, and " if status >= 300 else ""
    return f"answered {status}; {redirected}only {SUCCESS} counts as delivered"


def skip_webhook(webhook: Webhook, now: int) -> Webhook:
    """The webhook after an operator skipped it at ``now``; ``last_error`` says so, with the last fault."""
    before = webhook.last_error or (f"answered {webhook.last_status}" if webhook.last_status else "")
    text = f"skipped by an operator at {iso(now)}"
    return msgspec.structs.replace(
        webhook, state=SKIPPED, due_at=None, last_error=f"{text}; before: {before}" if before else text
    )


def retry_delay(retry: int, chance: random.Random) -> int:
    """Milliseconds before the nth retry: n⁴ + 15 + rand(0…29)·(n + 1) seconds [P]."""
    return (retry**4 + 15 + chance.randint(0, 29) * (retry + 1)) * 1000


def skip_attempts(webhook: Webhook, since: int, until: int, fault: str, chance: random.Random) -> tuple[Webhook, int]:
    """The webhook after all attempts from ``since`` to ``until`` were skipped, and the time of the last one.

    It is given up if the schedule has no further attempt.
    """
    due_at: int | None = since
    last, skipped = since, webhook.attempts_skipped
    while due_at is not None and due_at <= until:
        last = due_at
        skipped += 1
        scheduled = webhook.attempts + skipped
        due_at = None if scheduled > RETRIES else due_at + retry_delay(scheduled, chance)
    changed = msgspec.structs.replace(
        webhook,
        state=GIVEN_UP if due_at is None else PENDING,
        due_at=due_at,
        attempts_skipped=skipped,
        last_error=f"{fault} (attempts not made while the sandbox clock was moved: {skipped})",
    )
    return changed, last


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A shop's RSA key for ``Content-Signature``."""

    key: RSAPrivateKey

    @classmethod
    def new(cls) -> SigningKey:
        return cls(generate_private_key(65537, KEY_BITS))

    @classmethod
    def of_text(cls, text: str) -> SigningKey:
        key = load_der_private_key(base64.b64decode(text), None)
        assert isinstance(key, RSAPrivateKey)
        return cls(key)

    def as_text(self) -> str:
        """The private key for encrypted storage: base64 of PKCS#8."""
        return base64.b64encode(self.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())).decode()

    def public_text(self) -> str:
        """The public key as the platform publishes it: base64 of its DER (SPKI) [P]."""
        der = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return base64.b64encode(der).decode()

    def signature(self, body: bytes) -> str:
        """Base64 of RSA-SHA256, PKCS#1 v1.5, over the raw body [P]."""
        return base64.b64encode(self.key.sign(body, PKCS1v15(), SHA256())).decode()


def pem_of(public_text: str) -> str:
    """The same public key as PEM, as openssl and most clients read it."""
    lines = [public_text[start : start + 64] for start in range(0, len(public_text), 64)]
    return "\n".join(["-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----"]) + "\n"


def standard_webhooks_key(secret_key: str) -> str:
    """The secret key in the form that libraries of Standard Webhooks want: ``whsec_`` and base64 of the bytes of the key."""
    return f"whsec_{base64.b64encode(secret_key.encode()).decode()}"


def headers_of(webhook: Webhook, secret_key: str, signing_key: SigningKey, timestamp: int) -> dict[str, str]:
    """``timestamp`` in seconds since 1970, of this attempt.

    The last three headers are those of Standard Webhooks 1.0.0. The key of their HMAC-SHA256 is the shop's secret key.
    """
    body = webhook.body.encode()
    credentials = base64.b64encode(f"{webhook.shop_id}:{secret_key}".encode()).decode()
    signed = f"{webhook.id}.{timestamp}.".encode() + body
    return {
        "Authorization": f"Basic {credentials}",  # [P]
        "Content-Signature": signing_key.signature(body),
        "Content-Type": "application/json",  # [C]
        "Accept": "application/json",
        "webhook-id": webhook.id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": "v1," + base64.b64encode(hmac.digest(secret_key.encode(), signed, "sha256")).decode(),
    }


def is_public(address: str) -> bool:
    """Whether an IP address is public: not loopback, private, link-local or similar."""
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return is_public(str(parsed.ipv4_mapped))
        if parsed in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)))
        if parsed.sixtofour is not None:
            return is_public(str(parsed.sixtofour))
    if any(parsed in network for network in _SPECIAL):
        return False
    return parsed.is_global and not parsed.is_multicast and not parsed.is_reserved


_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
# Networks that older Python versions or the IANA registry call global: protocol assignments with the metadata service of a
# cloud, the host agent of another cloud, 6to4 relays, NAT64 for local use, Teredo, site-local addresses.
_SPECIAL: Final = tuple(
    ipaddress.ip_network(text)
    for text in ("192.0.0.0/24", "168.63.129.16/32", "192.88.99.0/24", "64:ff9b:1::/48", "2001::/32", "fec0::/10")
)
