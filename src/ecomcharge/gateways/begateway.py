"""The card API of the platform: payments and look-ups over HTTPS, as documented [P].

An uncertain outcome is ``UNKNOWN``: a time-out, a status of 500 and above, an answer that is not the documented JSON or that
is about another order, amount or currency. The status is an error only if no money can have moved: the request was not sent, or
the gateway rejected it.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any, Final

import httpx
import msgspec
import structlog

from ecomcharge.base.calendar import HOUR, iso
from ecomcharge.gateways import base
from ecomcharge.gateways.base import TIMEOUT_SECONDS, Card, CardDetails, Order, Result
from ecomcharge.gateways.scrubbing import contains_number_of, scrub

log = structlog.get_logger()

NAME: Final = "begateway"
API_VERSION: Final = "3"
CONNECT_SECONDS: Final = 10.0
CONNECTIONS: Final = 1_000  # many, so that orders to a gateway that hangs do not delay orders to others
ANSWER_MAXIMUM_BYTES: Final = 256 * 1024
URL_MAXIMUM: Final = 2_000
TEXT_MAXIMUM: Final = 255
BIN_LONGEST: Final = 8
VERIFIED_AMOUNT: Final = 1  # of a tokenization, which charges nothing: the documentation requires an amount above 0 [P][D]
CHALLENGE_EXPIRES: Final = 24 * HOUR  # the subscription waits so long for the buyer; the gateway must not charge later

PAYMENT: Final = "payment"
TOKENIZATION: Final = "tokenization"
REFUND: Final = "refund"

_STATUSES: Final = {  # the first three are statuses of cards, the others of further payment methods [P]
    "successful": base.SUCCESSFUL,
    "failed": base.FAILED,
    "incomplete": base.INCOMPLETE,
    "expired": base.FAILED,
    "error": base.ERROR,
}
# Of several transactions of one order, the one whose status comes first here is the result.
_PRECEDENCE: Final = (base.SUCCESSFUL, base.UNKNOWN, base.INCOMPLETE, base.FAILED, base.ERROR)
# Statuses of an interrupted or repeated request. The gateway may still process the first one.
_UNCLEAR_REJECTIONS: Final = frozenset((408, 409, 499))
_NOT_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol, httpx.InvalidURL)
_ADDRESS: Final = ("first_name", "last_name", "address", "country", "city", "zip", "state", "phone")
_DIGITS: Final = re.compile(r"[0-9]+\Z")
_SCRUBBED_MAXIMUM: Final = 4_096  # characters of a text of the gateway that are read
_UNKNOWN: Final = Result(base.UNKNOWN, base.TIMEOUT_MESSAGE)


class _Unclear(Exception):
    """There is no answer, or the answer does not contain the outcome of the charge."""


@dataclass(frozen=True, slots=True)
class _Expected:
    """The attributes of the expected transaction."""

    id: str
    amount: int
    currency: str

    @property
    def kind(self) -> str:
        return PAYMENT if self.amount else TOKENIZATION

    def is_in(self, transaction: dict[str, Any]) -> bool:
        return transaction.get("tracking_id") == self.id and transaction.get("type", self.kind) == self.kind

    def agrees_with(self, transaction: dict[str, Any]) -> bool:
        """Whether amount and currency match. A tokenization moves no money, so its amount does not count."""
        actual = (transaction.get("amount"), transaction.get("currency"))
        return self.kind == TOKENIZATION or actual == (self.amount, self.currency)


def shared_client(timeout_seconds: float = TIMEOUT_SECONDS) -> httpx.AsyncClient:
    """The HTTP client of all gateways. It follows no redirects and ignores proxies of the environment."""
    timeout = httpx.Timeout(timeout_seconds, connect=min(CONNECT_SECONDS, timeout_seconds))
    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=20)
    return httpx.AsyncClient(timeout=timeout, limits=limits, follow_redirects=False, trust_env=False)


class BegatewayGateway:
    """One shop's account at a gateway. ``timeout_seconds`` limits the time of a whole answer."""

    name = NAME

    def __init__(
        self, client: httpx.AsyncClient, url: str, user: str, secret_key: str, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> None:
        self._client = client
        self._url = url.rstrip("/")
        self._auth = httpx.BasicAuth(user, secret_key)
        self._timeout_seconds = timeout_seconds

    async def charge(self, order: Order, card: CardDetails | str, now: int) -> Result:
        expected = _Expected(order.id, order.amount, order.currency)
        body = {"request": _request(order, card, now)}
        try:
            status, answer = await self._ask("POST", f"/transactions/{expected.kind}s", body, order.id)
        except _NOT_SENT:
            return Result(base.ERROR, base.ERROR_MESSAGE)
        except _Unclear:
            return _UNKNOWN
        transaction = answer.get("transaction")
        if isinstance(transaction, dict):
            return _charged(transaction, expected, order, card)
        if 400 <= status < 500 and status not in _UNCLEAR_REJECTIONS:  # rejected before any processing
            return Result(base.ERROR, _sentence(answer, card) or base.ERROR_MESSAGE)
        return _UNKNOWN

    async def look_up(self, shop_id: int, order_id: str, now: int, *, amount: int, currency: str) -> Result | None:
        try:
            status, answer = await self._ask("GET", f"/v2/transactions/tracking_id/{order_id}", None, None)
        except (*_NOT_SENT, _Unclear):
            return _UNKNOWN
        if status == 404 and _sentence(answer):  # the answer of the gateway itself, not of a proxy
            return None
        found = answer.get("transactions")
        if status != 200 or not isinstance(found, list):
            return _UNKNOWN
        expected = _Expected(order_id, amount, currency)
        ours = [entry for entry in found if isinstance(entry, dict) and expected.is_in(entry)]
        if not ours:
            return _UNKNOWN if any(not _is_secondary(entry, order_id) for entry in found) else None
        _warn_of_duplicates(shop_id, order_id, ours)
        results = [_result(entry) if expected.agrees_with(entry) else _UNKNOWN for entry in ours]
        return min(results, key=lambda result: _PRECEDENCE.index(result.status))

    async def refund(
        self, shop_id: int, order_id: str, uid: str | None, now: int, *, amount: int, currency: str, attempt: int
    ) -> Result:
        """Refund the rest of a payment. The answer of an earlier refund may be lost, so look for earlier refunds first [P]."""
        try:
            transactions = await self._transactions_of(order_id)
        except (*_NOT_SENT, _Unclear):
            return _UNKNOWN
        uid = uid or _uid_of_success(transactions)
        if uid is None:
            return Result(base.FAILED, "The gateway gave no id of the payment")
        refunds = [entry for entry in transactions if entry.get("type") == REFUND and entry.get("parent_uid", uid) == uid]
        results = [_refund_result(entry) for entry in refunds]
        if any(result.status == base.UNKNOWN for result in results):
            return _UNKNOWN
        rest = amount - sum(entry["amount"] for entry in refunds if _status_of(entry) == base.SUCCESSFUL)
        if rest <= 0:
            return Result(base.SUCCESSFUL, base.SUCCESS_MESSAGE)
        body = {"request": {"parent_uid": uid, "amount": rest, "reason": base.REFUND_REASON, "tracking_id": order_id}}
        try:
            status, answer = await self._ask("POST", "/transactions/refunds", body, f"{order_id}-refund-{attempt}")
        except (*_NOT_SENT, _Unclear):
            return _UNKNOWN
        transaction = answer.get("transaction")
        if isinstance(transaction, dict):
            is_meant = transaction.get("type", REFUND) == REFUND and transaction.get("parent_uid", uid) == uid
            return _refund_result(transaction) if is_meant and transaction.get("amount") == rest else _UNKNOWN
        refused = 400 <= status < 500 and status not in _UNCLEAR_REJECTIONS
        return Result(base.FAILED, _sentence(answer) or base.ERROR_MESSAGE) if refused else _UNKNOWN

    async def _transactions_of(self, order_id: str) -> list[dict[str, Any]]:
        """All transactions of the gateway with this id of ours. Raises the errors of ``_ask``."""
        status, answer = await self._ask("GET", f"/v2/transactions/tracking_id/{order_id}", None, None)
        found = answer.get("transactions")
        if status != 200 or not isinstance(found, list):
            raise _Unclear
        return [entry for entry in found if isinstance(entry, dict)]

    async def _ask(self, method: str, path: str, body: Any, request_id: str | None) -> tuple[int, dict[str, Any]]:
        """Send a request. Raises one of ``_NOT_SENT`` if nothing was sent, and ``_Unclear`` if the outcome is not known."""
        # No compression: a small compressed answer could become a huge one.
        headers = {"X-API-Version": API_VERSION, "Accept": "application/json", "Accept-Encoding": "identity"}
        if request_id is not None:
            headers["RequestID"] = request_id  # for a day the platform answers a repeated request with the first answer [P]
        try:
            async with asyncio.timeout(self._timeout_seconds):
                request = self._client.build_request(method, self._url + path, json=body, headers=headers)
                response = await self._client.send(request, auth=self._auth, stream=True)
                try:
                    content = await _whole(response)
                finally:
                    await response.aclose()
        except _NOT_SENT:
            raise
        except (httpx.HTTPError, TimeoutError, OSError) as error:
            raise _Unclear from error
        if not (200 <= response.status_code < 300 or 400 <= response.status_code < 500):
            raise _Unclear
        try:
            answer = msgspec.json.decode(content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            if 400 <= response.status_code < 500:
                return response.status_code, {}
            raise _Unclear from error
        return response.status_code, answer if isinstance(answer, dict) else {}


async def _whole(response: httpx.Response) -> bytes:
    content = bytearray()
    async for chunk in response.aiter_raw():
        content += chunk
        if len(content) > ANSWER_MAXIMUM_BYTES:
            raise _Unclear
    return bytes(content)


def _request(order: Order, card: CardDetails | str, now: int) -> dict[str, Any]:
    request: dict[str, Any] = {
        "amount": order.amount or VERIFIED_AMOUNT,
        "currency": order.currency,
        "description": order.description,
        "tracking_id": order.id,
        "duplicate_check": False,  # renewals may have equal amounts; RequestID and tracking_id distinguish them
        "language": order.language,
        "test": order.test,
        "credit_card": _credit_card(card, recurring=order.recurring),
        "additional_data": {"contract": ["recurring"]},  # required to get a token and to use one [P]
    }
    parts = {"customer": ("ip", "email"), "billing_address": _ADDRESS}
    for part, names in parts.items():
        known = {name: order.customer[name] for name in names if order.customer.get(name)}
        if known:
            request[part] = known
    if order.descriptor:
        request["dynamic_billing_descriptor"] = order.descriptor
    if not order.recurring:
        request["return_url"] = order.return_url
        if order.amount:
            request["expired_at"] = iso(now + CHALLENGE_EXPIRES)
    return request


def _credit_card(card: CardDetails | str, *, recurring: bool) -> dict[str, Any]:
    if isinstance(card, str):
        return {"token": card, "skip_three_d_secure_verification": recurring}
    given = {
        "number": card.number,
        "verification_value": card.verification_value,
        "holder": card.holder,
        "exp_month": f"{card.exp_month:02d}",
        "exp_year": str(card.exp_year),
    }
    return {name: value for name, value in given.items() if value is not None}


def _charged(transaction: dict[str, Any], expected: _Expected, order: Order, card: CardDetails | str) -> Result:
    """The result of a charge. ``UNKNOWN`` if the answer is about another charge or is incomplete."""
    if not (expected.is_in(transaction) and expected.agrees_with(transaction)):
        return _UNKNOWN
    result = _result(transaction, card)
    without_token = result.status == base.SUCCESSFUL and result.card is None and not order.recurring
    without_redirect = result.status == base.INCOMPLETE and result.redirect_url is None
    return _UNKNOWN if without_token or without_redirect else result  # a look-up may return the complete answer


def _result(transaction: dict[str, Any], card: CardDetails | str | None = None) -> Result:
    """The result that a transaction contains. ``card`` is the one that was sent, whose data its texts must not contain."""
    status = _status_of(transaction)
    by_default = {base.SUCCESSFUL: base.SUCCESS_MESSAGE, base.FAILED: base.DECLINE_MESSAGE, base.ERROR: base.ERROR_MESSAGE}
    return Result(
        status,
        _harmless(transaction.get("message"), card) or by_default.get(status, ""),
        _unchanged(transaction.get("uid"), card),
        _card(transaction.get("credit_card"), card),
        _web_address(transaction.get("redirect_url"), card) if status == base.INCOMPLETE else None,
    )


def _status_of(transaction: dict[str, Any]) -> str:
    return _STATUSES.get(str(transaction.get("status")), base.UNKNOWN)


def _uid_of_success(transactions: list[dict[str, Any]]) -> str | None:
    """The id of the payment that moved the money, if the answer of the charge did not contain it."""
    paid = (entry for entry in transactions if entry.get("type", PAYMENT) == PAYMENT and _status_of(entry) == base.SUCCESSFUL)
    return next((uid for entry in paid if (uid := _text(entry.get("uid")))), None)


def _refund_result(transaction: dict[str, Any]) -> Result:
    """The result of a refund. ``UNKNOWN`` if the bank has not decided or the amount is missing; then it is repeated later."""
    result = _result(transaction)
    unclear = result.status == base.INCOMPLETE or not isinstance(transaction.get("amount"), int)
    return Result(base.UNKNOWN, base.TIMEOUT_MESSAGE) if unclear else result


def _is_secondary(entry: Any, order_id: str) -> bool:
    """Whether a transaction of another kind, such as a refund, has the id of this order."""
    return isinstance(entry, dict) and entry.get("tracking_id") == order_id


def _warn_of_duplicates(shop_id: int, order_id: str, ours: list[dict[str, Any]]) -> None:
    taken = {_text(entry.get("uid")) for entry in ours if entry.get("status") == "successful"}
    if len(taken) > 1:
        log.error("the gateway took the money of one order more than once", shop=shop_id, order=order_id, times=len(taken))


def _card(given: Any, card: CardDetails | str | None) -> Card | None:
    token = _unchanged(given.get("token"), card) if isinstance(given, dict) else None
    if not token:
        return None
    return Card(
        holder=_harmless(given.get("holder"), card),
        stamp=_unchanged(given.get("stamp"), card),
        brand=_harmless(given.get("brand"), card) or "unknown",
        last_4=_digits(given.get("last_4"), 4) or "",
        first_1=_digits(given.get("first_1"), 1) or "",
        bin=_digits(given.get("bin"), BIN_LONGEST),
        issuer_country=_harmless(given.get("issuer_country"), card),
        issuer_name=_harmless(given.get("issuer_name"), card),
        product=_harmless(given.get("product"), card),
        token=token,
        token_provider=_harmless(given.get("token_provider"), card),
        exp_month=_number(given.get("exp_month")),
        exp_year=_number(given.get("exp_year")),
        sub_brand=_harmless(given.get("sub_brand"), card),
    )


def _text(value: Any) -> str | None:
    return value[:TEXT_MAXIMUM].replace("\0", "") if isinstance(value, str) else None


def _harmless(value: Any, card: CardDetails | str | None = None) -> str | None:
    """A text of the gateway, with everything removed that could be a card number or a security code."""
    if not isinstance(value, str) or not value:
        return None
    return scrub(value[:_SCRUBBED_MAXIMUM].replace("\0", ""), card)[:TEXT_MAXIMUM]


def _unchanged(value: Any, card: CardDetails | str | None) -> str | None:
    """A text that the gateway must get back as it is: an id, a token. ``None`` if it contains the number of the card."""
    text = _text(value)
    return None if text is None or contains_number_of(card, text) else text


def _digits(value: Any, longest: int) -> str | None:
    """Some digits of a card number; ``None`` for more of them than a gateway is to return."""
    return value if isinstance(value, str) and len(value) <= longest and _DIGITS.match(value) else None


def _number(value: Any) -> int:
    """A month or a year from a number or a text of digits; 0 for anything else."""
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 4 else 0


def _web_address(value: Any, card: CardDetails | str | None) -> str | None:
    known = isinstance(value, str) and value.startswith(("https://", "http://")) and len(value) <= URL_MAXIMUM
    return value if known and value.isprintable() and " " not in value and not contains_number_of(card, value) else None


def _sentence(answer: dict[str, Any], card: CardDetails | str | None = None) -> str | None:
    response = answer.get("response", answer)
    return _harmless(response.get("message"), card) if isinstance(response, dict) else None
