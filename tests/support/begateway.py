"""A stand-in for a real gateway: it listens on a port, implements the documented card API, and records transactions.

Every merchant has a separate account, identified by the user of HTTP Basic, so that tests share one stand-in. Faults are
set per account before a request: ``account.fail(SILENT_AFTER)`` makes the next charge fail.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import threading
import uuid
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

HANGING_SECONDS = 30.0

# Faults. BEFORE: the card is not charged. AFTER: the card is charged, and the response is lost or wrong.
SILENT_BEFORE, SILENT_AFTER = "no answer, nothing charged", "no answer, charged"
FAULT_500_BEFORE, FAULT_500_AFTER = "500, nothing charged", "500, charged"
FAULT_502_BEFORE, FAULT_502_AFTER = "502, nothing charged", "502, charged"
DROPPED_UNREAD = "hangs up without reading"
DROPPED_DURING_RESPONSE = "charges, and closes the connection in the middle of the response"
LATE = "charges, and answers later than anybody waits"
HUGE = "charges, and answers without end"
NO_JSON = "charges, and answers what is no JSON"
NO_OBJECT = "charges, and answers an array"
OTHER_ORDER = "charges, and answers with another order's transaction"
OTHER_AMOUNT = "charges, and answers with another amount"
OTHER_CURRENCY = "charges, and answers with another currency"
NO_TOKEN = "charges, and tells no token"
PENDING = "charges, and calls it pending"
REDIRECTED = "redirects to another path"
DRIPPING = "charges, and answers byte by byte"
UNAUTHORIZED, UNPROCESSABLE, TOO_MANY = "401", "422", "429"
REQUEST_TIMEOUT, CONFLICT = "408", "409"
LOST_PROXY = "404 of a proxy"
ECHOES_NUMBER = "refuses, and repeats the card number and its security code"

WITHOUT_CHARGE = (SILENT_BEFORE, FAULT_500_BEFORE, FAULT_502_BEFORE, DROPPED_UNREAD, REDIRECTED, REQUEST_TIMEOUT, CONFLICT)
WITH_CHARGE = (
    *(SILENT_AFTER, FAULT_500_AFTER, FAULT_502_AFTER, DROPPED_DURING_RESPONSE, LATE, HUGE, NO_JSON, NO_OBJECT, OTHER_ORDER),
    *(OTHER_AMOUNT, OTHER_CURRENCY, NO_TOKEN, PENDING, DRIPPING),
)
REFUSED = (UNAUTHORIZED, UNPROCESSABLE, TOO_MANY, ECHOES_NUMBER, LOST_PROXY)

CHALLENGED = ("4012000000001097", "5204240000015029")
DECLINED = ("4005550000000019", "4012000000001022")
LONG_QUERY = "step=" + "a" * 700  # addresses of 3-D Secure pages are long


@dataclass
class Transaction:
    uid: str
    kind: str  # payment, tokenization or refund
    order: str
    amount: int
    currency: str
    status: str
    card: dict[str, Any]
    return_url: str | None
    parent_uid: str | None = None  # of a refund

    def to_json(self, base_url: str) -> dict[str, Any]:
        messages = {
            "successful": "Successfully processed",
            "failed": "Payment was declined",
            "incomplete": None,
            "error": "Gateway error",
        }
        fields = {
            "uid": self.uid,
            "status": self.status,
            "amount": self.amount,
            "currency": self.currency,
            "type": self.kind,
            "payment_method_type": "credit_card",
            "tracking_id": self.order,
            "message": messages[self.status],
            "test": False,
            "created_at": "2026-01-31T12:00:00.000Z",
            "credit_card": self.card,
        }
        if self.parent_uid is not None:
            fields["parent_uid"] = self.parent_uid
        if self.status == "incomplete":
            fields["redirect_url"] = f"{base_url}/process/{self.uid}?{LONG_QUERY}"
        return fields


@dataclass
class Seen:
    """A received request."""

    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class Account:
    """A merchant's account. ``declines`` and ``challenges`` apply to charges by token."""

    user: str
    secret_key: str
    transactions: list[Transaction] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    declines: bool = False
    challenges: bool = False
    refuses_refunds: bool = False
    refund_statuses: deque[str] = field(default_factory=deque)  # statuses of the next refunds; later refunds are successful
    shows_payment_for_refund: bool = False
    _tokens: dict[str, dict[str, Any]] = field(default_factory=dict)
    _numbers: dict[str, str] = field(default_factory=dict)
    _answers: dict[str, Transaction] = field(default_factory=dict)
    _faults: dict[str, deque[str]] = field(default_factory=lambda: {"POST": deque(), "GET": deque()})

    def fail(self, *faults: str, look_up: bool = False) -> None:
        """Apply one fault to each of the next charges or lookups."""
        self._faults["GET" if look_up else "POST"].extend(faults)

    def next_fault(self, method: str) -> str | None:
        faults = self._faults.get(method)
        return faults.popleft() if faults else None

    @property
    def taken(self) -> list[tuple[str, int, str]]:
        """The successful payments: order, amount and currency."""
        paid = [entry for entry in self.transactions if entry.kind == "payment" and entry.status == "successful"]
        return [(entry.order, entry.amount, entry.currency) for entry in paid]

    @property
    def refunded(self) -> list[tuple[str, int]]:
        """The refunds: order and amount."""
        done = [entry for entry in self.transactions if entry.kind == "refund" and entry.status == "successful"]
        return [(entry.order, entry.amount) for entry in done]

    @property
    def charges(self) -> list[Seen]:
        return [entry for entry in self.seen if entry.method == "POST" and not entry.path.endswith("/refunds")]

    def refund(self, request: dict[str, Any], request_id: str) -> Transaction | str:
        """Refunds once per RequestID. Returns the refund or the error [P]."""
        earlier = self._answers.get(request_id)
        if earlier is not None:
            return earlier
        if not request.get("reason"):
            return "Reason can't be blank."
        parents = [entry for entry in self.transactions if entry.uid == request["parent_uid"] and entry.status == "successful"]
        done = [entry for entry in self.transactions if entry.kind == "refund" and entry.status == "successful"]
        gone = sum(entry.amount for entry in done if entry.parent_uid == request["parent_uid"])
        if not parents or self.refuses_refunds or gone + request["amount"] > parents[0].amount:
            return "transaction can't be refunded"
        [parent] = parents
        refund = Transaction(
            *(str(uuid.uuid4()), "refund", request.get("tracking_id", parent.order), request["amount"], parent.currency),
            *(self.refund_statuses.popleft() if self.refund_statuses else "successful", parent.card, None, parent.uid),
        )
        self.transactions.append(refund)
        self._answers[request_id] = refund
        return refund

    @property
    def look_ups(self) -> list[Seen]:
        return [entry for entry in self.seen if entry.method == "GET"]

    def charge(self, kind: str, order: dict[str, Any], request_id: str) -> Transaction:
        """Charges once per RequestID, as documented."""
        earlier = self._answers.get(request_id)
        if earlier is not None:
            return earlier
        given = order["credit_card"]
        number, card = self._card(given)
        by_token = "token" in given
        status = "successful"
        if number in DECLINED or (by_token and self.declines):
            status = "failed"
        elif (number in CHALLENGED and not by_token) or (by_token and self.challenges):
            status = "incomplete"
        transaction = Transaction(
            str(uuid.uuid4()),
            kind,
            order["tracking_id"],
            order["amount"],
            order["currency"],
            status,
            card,
            order.get("return_url"),
        )
        self.transactions.append(transaction)
        self._answers[request_id] = transaction
        return transaction

    def _card(self, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        if "token" in given:
            return self._numbers[given["token"]], self._tokens[given["token"]]
        number, token = given["number"], str(uuid.uuid4())
        self._numbers[token] = number
        card = {
            "holder": given.get("holder"),
            "stamp": "3709786942408b77017a3aac8390d46d77d181e34554df527a71919a856d0f28",
            "brand": "visa" if number[0] == "4" else "master",
            "last_4": number[-4:],
            "first_1": number[0],
            "bin": number[:6],
            "issuer_country": "US",
            "issuer_name": "A Bank",
            "product": "F",
            "token": token,
            "token_provider": None,
            "exp_month": int(given["exp_month"]),
            "exp_year": int(given["exp_year"]),
        }
        self._tokens[token] = card
        return number, card


class GatewayServer:
    """The stand-in, in a separate thread. Use it in a ``with`` statement."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.accounts: dict[str, Account] = {}
        self.strangers: list[str] = []  # paths of requests without a valid key
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)

    def account(self) -> Account:
        """Add a merchant."""
        account = Account(user=str(10_000 + len(self.accounts)), secret_key=f"gw-secret-{uuid.uuid4().hex}")
        self.accounts[account.user] = account
        return account

    def __enter__(self) -> GatewayServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        async def listen() -> asyncio.Server:
            return await asyncio.start_server(self._serve_connection, sock=self._socket)

        server = self._loop.run_until_complete(listen())
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.05))
        self._loop.close()

    async def _serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._answer(reader, writer):
                pass
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request. Returns whether the connection can be reused."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        request_line, *lines = head.strip().split("\r\n")
        method, target, _ = request_line.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        content = await reader.readexactly(int(headers.get("content-length", 0)))
        if urlsplit(target).path.startswith("/process/"):
            return await _send(writer, *self._pass_challenge(target))
        account = self._account_of(headers)
        if account is None:
            self.strangers.append(target)
            return await _send(writer, 401, {"message": "Unauthorized"})
        body = json.loads(content) if content else {}
        account.seen.append(Seen(method, target, headers, body))
        return await self._execute(account, account.seen[-1], writer)

    def _account_of(self, headers: dict[str, str]) -> Account | None:
        user, _, secret_key = base64.b64decode(headers.get("authorization", "").removeprefix("Basic ")).decode().partition(":")
        account = self.accounts.get(user)
        return account if account is not None and account.secret_key == secret_key else None

    async def _execute(self, account: Account, request: Seen, writer: asyncio.StreamWriter) -> bool:
        fault = account.next_fault(request.method)
        refusals: dict[str | None, tuple[int, Any]] = {
            UNAUTHORIZED: (401, {"response": {"message": "Unauthorized"}}),
            UNPROCESSABLE: (422, {"response": {"message": "Ip can't be blank", "errors": {"ip": ["can't be blank"]}}}),
            TOO_MANY: (429, b"slow down"),
            REQUEST_TIMEOUT: (408, {"message": "Request timeout"}),
            CONFLICT: (409, {"message": "The same request is being processed"}),
            LOST_PROXY: (404, b"<html>no such page</html>"),
            ECHOES_NUMBER: (422, {"message": f"{request.body and _card_in(request.body)} is invalid"}),
            FAULT_500_BEFORE: (500, {"message": "Internal error"}),
            FAULT_502_BEFORE: (502, b"<html>Bad gateway</html>"),
        }
        if fault in refusals:
            return await _send(writer, *refusals[fault])
        if fault == REDIRECTED:
            return await _send(writer, 307, b"", f"location: {self.url}/redirected\r\n")
        if fault == DROPPED_UNREAD:
            writer.transport.abort()
            return False
        if fault == SILENT_BEFORE:
            await asyncio.sleep(HANGING_SECONDS)
            return False
        return await self._send_response(fault, *self._done(account, request), writer)

    def _done(self, account: Account, request: Seen) -> tuple[int, Any]:
        if request.headers.get("x-api-version") != "3":
            return 422, {"message": "Unknown version"}
        path = request.path
        if request.method == "POST" and path in ("/transactions/payments", "/transactions/tokenizations"):
            order = request.body["request"]
            if not order["amount"] > 0:
                return 422, {"message": "Amount must be greater than 0", "errors": {"amount": ["must be greater than 0"]}}
            kind = path.removeprefix("/transactions/").removesuffix("s")
            transaction = account.charge(kind, order, request.headers.get("requestid") or str(uuid.uuid4()))
            return 200, {"transaction": transaction.to_json(self.url)}
        if request.method == "POST" and path == "/transactions/refunds":
            refund = account.refund(request.body["request"], request.headers.get("requestid") or str(uuid.uuid4()))
            if isinstance(refund, str):
                return 422, {"message": refund, "errors": {"base": [refund]}}
            if account.shows_payment_for_refund:
                [refund] = [entry for entry in account.transactions if entry.uid == refund.parent_uid]
            return 200, {"transaction": refund.to_json(self.url)}
        if path.startswith("/v2/transactions/tracking_id/"):
            order_id = path.rpartition("/")[2]
            return 200, {"transactions": [entry.to_json(self.url) for entry in account.transactions if entry.order == order_id]}
        for entry in account.transactions:
            if path == f"/transactions/{entry.uid}":
                return 200, {"transaction": entry.to_json(self.url)}
        return 404, {"message": "Record not found"}

    async def _send_response(self, fault: str | None, status: int, answer: Any, writer: asyncio.StreamWriter) -> bool:
        """Send the response, modified by the fault."""
        for transaction in [answer.get("transaction"), *answer.get("transactions", [])]:
            if transaction is not None:
                _apply_fault(fault, transaction)
        if fault in (SILENT_AFTER, LATE):
            await asyncio.sleep(HANGING_SECONDS if fault == SILENT_AFTER else 2.0)
        elif fault == FAULT_500_AFTER:
            return await _send(writer, 500, answer)
        elif fault == FAULT_502_AFTER:
            return await _send(writer, 502, b"<html>Bad gateway</html>")
        elif fault == NO_JSON:
            return await _send(writer, 200, b"<html>Your payment is complete</html>")
        elif fault == NO_OBJECT:
            return await _send(writer, 200, [answer])
        elif fault == HUGE:
            return await _send(writer, 200, {**answer, "padding": "x" * 5_000_000})
        elif fault in (DROPPED_DURING_RESPONSE, DRIPPING):
            whole = _message(status, answer)
            await _send_slowly(writer, whole[: len(whole) // 2] if fault == DROPPED_DURING_RESPONSE else whole, fault == DRIPPING)
            return False
        return await _send(writer, status, answer)

    def _pass_challenge(self, target: str) -> tuple[int, Any, str]:
        """The 3-D Secure page: the browser sends ``answer=accept`` or ``answer=refuse`` and is redirected back."""
        uid, answer = urlsplit(target).path.rpartition("/")[2], parse_qs(urlsplit(target).query).get("answer")
        for account in self.accounts.values():
            for transaction in account.transactions:
                if transaction.uid == uid and transaction.return_url and answer:
                    if transaction.status == "incomplete":
                        transaction.status = "successful" if answer == ["accept"] else "failed"
                    return 302, b"", f"location: {transaction.return_url}\r\n"
        return 404, b"", ""


def _card_in(body: dict[str, Any]) -> str:
    card = body["request"].get("credit_card", {})
    return f"Number {card.get('number', '')} ({card.get('verification_value', '')})"


def _apply_fault(fault: str | None, transaction: dict[str, Any]) -> None:
    changes: dict[str | None, dict[str, Any]] = {
        OTHER_ORDER: {"tracking_id": str(uuid.uuid4())},
        OTHER_AMOUNT: {"amount": transaction["amount"] + 1},
        OTHER_CURRENCY: {"currency": "XTS"},
        PENDING: {"status": "pending"},
        NO_TOKEN: {"credit_card": {**transaction["credit_card"], "token": None}},
    }
    transaction.update(changes.get(fault, {}))


def _message(status: int, content: Any, headers: str = "") -> bytes:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    head = f"HTTP/1.1 {status} Status\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


async def _send(writer: asyncio.StreamWriter, status: int, content: Any, headers: str = "") -> bool:
    writer.write(_message(status, content, headers))
    await writer.drain()
    return True


async def _send_slowly(writer: asyncio.StreamWriter, message: bytes, slowly: bool) -> None:
    for start in range(0, len(message), 4 if slowly else len(message)):
        writer.write(message[start : start + (4 if slowly else len(message))])
        await writer.drain()
        await asyncio.sleep(0.05 if slowly else 0)


@contextlib.contextmanager
def refusing_address() -> Iterator[str]:
    """An address that refuses connections until the ``with`` statement ends."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"
