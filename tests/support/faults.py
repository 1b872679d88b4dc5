"""Load on a server while something breaks, and the checks afterwards."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

from ecomcharge.shops.model import Credentials
from support.load import Ledger, Line, Load, Reply, Wish, read_all
from support.process import ServerProcess

UNDER_LOAD_SECONDS = 0.5
DEADLINE_SECONDS = 20.0  # for what must come back by itself
_numbers = itertools.count(1)


def line_to(process: ServerProcess, shop: Credentials) -> Line:
    return Line(process.url, shop.shop_id, shop.secret_key)


def load_on(process: ServerProcess, shop: Credentials) -> Load:
    return Load([process.url], shop.shop_id, shop.secret_key)


def new_wish() -> Wish:
    number = next(_numbers)
    return Wish(f"probe-{number}@shop.test", f"probe-{number}")


def until(asked: Callable[[], Reply], status: int, seconds: float = DEADLINE_SECONDS) -> Reply:
    """Ask until the answer has this status; the last answer in any case."""
    deadline = time.monotonic() + seconds
    while (reply := asked()).status != status and time.monotonic() < deadline:
        time.sleep(0.05)
    return reply


def check_everything(process: ServerProcess, shop: Credentials, ledger: Ledger) -> None:
    """The list agrees with the ledger, and so do the last of the acknowledged, read one by one."""
    with line_to(process, shop) as line:
        ledger.check(line.customers())
    last = list(ledger.acknowledged.items())[-300:]
    replies = read_all(process.url, shop.shop_id, shop.secret_key, [id for _, id in last])
    assert [reply.json().get("email") for reply in replies] == [email for email, _ in last]
