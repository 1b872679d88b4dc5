"""Put load on a server during a fault, and check the results afterwards."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

from ecomcharge.shops.model import Credentials
from support.load import Ledger, Line, Load, Reply, RequestedCustomer, read_all
from support.process import ServerProcess

UNDER_LOAD_SECONDS = 0.5
DEADLINE_SECONDS = 20.0  # deadline for a service that must recover by itself
_numbers = itertools.count(1)


def line_to(process: ServerProcess, shop: Credentials) -> Line:
    return Line(process.url, shop.shop_id, shop.secret_key)


def load_on(process: ServerProcess, shop: Credentials) -> Load:
    return Load([process.url], shop.shop_id, shop.secret_key)


def new_customer_request() -> RequestedCustomer:
    number = next(_numbers)
    return RequestedCustomer(f"probe-{number}@shop.test", f"probe-{number}")


def until(asked: Callable[[], Reply], status: int, seconds: float = DEADLINE_SECONDS) -> Reply:
    """Repeat a request until its response has this status. Returns the last response."""
    deadline = time.monotonic() + seconds
    while (reply := asked()).status != status and time.monotonic() < deadline:
        time.sleep(0.05)
    return reply


def check_everything(process: ServerProcess, shop: Credentials, ledger: Ledger) -> None:
    """Check that the list and the last acknowledged customers, read one by one, agree with the ledger."""
    with line_to(process, shop) as line:
        ledger.check(line.customers())
    last = list(ledger.acknowledged.items())[-300:]
    replies = read_all(process.url, shop.shop_id, shop.secret_key, [id for _, id in last])
    assert [reply.json().get("email") for reply in replies] == [email for email, _ in last]
