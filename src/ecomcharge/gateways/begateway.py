"""The platform's card API: payments and look-ups over HTTPS, as its documentation describes them [P].

What is not certain is ``UNKNOWN``: a time-out, a status of 500 and above, an answer that is not the documented JSON or
speaks of another order. Only what cannot have moved money is an error: a connection that was never made, a refusal.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import httpx
import msgspec

from ecomcharge.gateways import base
from ecomcharge.gateways.base import Card, CardDetails, Order, Result

NAME: Final = "begateway"
API_VERSION: Final = "3"
TIMEOUT_SECONDS: Final = 30.0
ANSWER_MAXIMUM_BYTES: Final = 256 * 1024

_STATUSES: Final = {"successful": base.SUCCESSFUL, "failed": base.FAILED, "expired": base.FAILED, "error": base.ERROR}


class _Unclear(Exception):
    """Something came back, or nothing, that does not tell what became of the charge."""


class BegatewayGateway:
    """One shop's account at a gateway. ``client`` is shared; it follows no redirects."""

    name = NAME

    def __init__(self, client: httpx.AsyncClient, url: str, user: str, secret_key: str) -> None:
        self._client = client
        self._url = url.rstrip("/")
        self._auth = httpx.BasicAuth(user, secret_key)

    async def charge(self, order: Order, card: CardDetails | str, now: int) -> Result:
        kind = "payments" if order.amount else "tokenizations"
        try:
            status, answer = await self._ask("POST", f"/transactions/{kind}", {"request": _request(order, card)}, order.id)
        except httpx.ConnectError:
            return Result(base.ERROR, base.ERROR_MESSAGE)
        except _Unclear:
            return Result(base.UNKNOWN, base.TIMEOUT_MESSAGE)
        transaction = answer.get("transaction")
        if isinstance(transaction, dict):
            return _result(transaction, order)
        if 400 <= status < 500:  # refused before anything was done
            return Result(base.ERROR, _sentence(answer))
        return Result(base.UNKNOWN, base.TIMEOUT_MESSAGE)

    async def look_up(self, shop_id: int, order_id: str, now: int) -> Result | None:
        try:
            status, answer = await self._ask("GET", f"/v2/transactions/tracking_id/{order_id}", None, None)
        except (httpx.ConnectError, _Unclear):
            return Result(base.UNKNOWN, base.TIMEOUT_MESSAGE)
        if status == 404:
            return None
        found = answer.get("transactions")
        if status != 200 or not isinstance(found, list):
            return Result(base.UNKNOWN, base.TIMEOUT_MESSAGE)
        ours = [entry for entry in found if isinstance(entry, dict) and entry.get("tracking_id") == order_id]
        if not ours:
            return None
        best = min(ours, key=lambda entry: entry.get("status") != base.SUCCESSFUL)
        return _result(best, None)

    async def _ask(self, method: str, path: str, body: Any, request_id: str | None) -> tuple[int, dict[str, Any]]:
        """Raises ``httpx.ConnectError`` when nothing was sent, ``_Unclear`` when nobody can tell what became of it."""
        headers = {"X-API-Version": API_VERSION, "Accept": "application/json"}
        if request_id is not None:
            headers["RequestID"] = request_id  # the platform answers a repeated one as it did the first [P]
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                request = self._client.build_request(method, self._url + path, json=body, headers=headers)
                response = await self._client.send(request, auth=self._auth, stream=True)
                try:
                    content = await _whole(response)
                finally:
                    await response.aclose()
        except httpx.ConnectError:
            raise
        except (httpx.HTTPError, TimeoutError, OSError) as error:
            raise _Unclear from error
        if response.status_code >= 500 or 300 <= response.status_code < 400:
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
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > ANSWER_MAXIMUM_BYTES:
            raise _Unclear
    return bytes(content)


def _request(order: Order, card: CardDetails | str) -> dict[str, Any]:
    customer = {name: order.customer.get(name) for name in ("ip", "email") if order.customer.get(name)}
    request: dict[str, Any] = {
        "amount": order.amount,
        "currency": order.currency,
        "description": order.description,
        "tracking_id": order.id,
        "duplicate_check": False,  # renewals of one amount may follow each other; RequestID and tracking_id tell them apart
        "language": order.language,
        "test": order.test,
        "credit_card": _credit_card(card, recurring=order.recurring),
        "additional_data": {"contract": ["recurring"]},
    }
    if customer:
        request["customer"] = customer
    if order.descriptor:
        request["dynamic_billing_descriptor"] = order.descriptor
    if not order.recurring:
        request["return_url"] = order.return_url
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


def _result(transaction: dict[str, Any], order: Order | None) -> Result:
    """What a transaction says, if it is the one that was asked for."""
    foreign = order is not None and (
        transaction.get("tracking_id", order.id) != order.id or transaction.get("amount", order.amount) != order.amount
    )
    if foreign:
        return Result(base.UNKNOWN, base.TIMEOUT_MESSAGE)
    given = transaction.get("status")
    uid, message = _text(transaction.get("uid")), _text(transaction.get("message"))
    card, redirect_url = _card(transaction.get("credit_card")), _text(transaction.get("redirect_url"))
    if given == base.INCOMPLETE and redirect_url:
        return Result(base.INCOMPLETE, message or "", uid, card, redirect_url)
    status = _STATUSES.get(str(given), base.UNKNOWN)
    if status == base.SUCCESSFUL and card is None and order is not None:
        return Result(base.UNKNOWN, base.TIMEOUT_MESSAGE)  # without a token it could never be renewed: ask again
    said = message or (base.SUCCESS_MESSAGE if status == base.SUCCESSFUL else base.DECLINE_MESSAGE)
    return Result(status, said, uid, card)


def _card(given: Any) -> Card | None:
    if not isinstance(given, dict) or not isinstance(given.get("token"), str) or not given["token"]:
        return None
    month, year = given.get("exp_month"), given.get("exp_year")
    return Card(
        holder=_text(given.get("holder")),
        stamp=_text(given.get("stamp")),
        brand=_text(given.get("brand")) or "unknown",
        last_4=_text(given.get("last_4")) or "",
        first_1=_text(given.get("first_1")) or "",
        bin=_text(given.get("bin")),
        issuer_country=_text(given.get("issuer_country")),
        issuer_name=_text(given.get("issuer_name")),
        product=_text(given.get("product")),
        token=given["token"],
        token_provider=_text(given.get("token_provider")),
        exp_month=month if isinstance(month, int) else 0,
        exp_year=year if isinstance(year, int) else 0,
        sub_brand=_text(given.get("sub_brand")),
    )


def _text(value: Any) -> str | None:
    return value[:255].replace("\0", "") if isinstance(value, str) else None


def _sentence(answer: dict[str, Any]) -> str:
    response = answer.get("response", answer)
    return (_text(response.get("message")) if isinstance(response, dict) else None) or base.ERROR_MESSAGE
