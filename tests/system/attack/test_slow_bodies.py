"""Requests whose bodies do not arrive."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from ecomcharge.shops.keys import MasterKey
from support.caller import JSON
from support.process import ServerProcess
from support.shops import ENVIRONMENT, add_shop
from support.wire import Wire, basic, head, request

LIMIT = 8
SLOW = 5 * LIMIT


def test_requests_that_wait_for_their_body_do_not_use_up_the_requests_in_progress(tmp_path: Path, master_key: MasterKey) -> None:
    options = ("--max-concurrent-requests", str(LIMIT))
    with ServerProcess(f"sqlite:///{tmp_path}/test.db", tmp_path, *options, environment=ENVIRONMENT) as process:
        shop = add_shop(process.database, master_key)
        login = ("Authorization", basic(shop.shop_id, shop.secret_key))
        with contextlib.ExitStack() as stack:
            slow = [stack.enter_context(Wire(process.port)) for _ in range(SLOW)]
            for wire in slow:
                wire.send(head("POST", "/customers", login, JSON, ("Content-Length", "2")))
            for _ in range(5):
                started = time.monotonic()
                with Wire(process.port) as wire:
                    wire.send(request("GET", "/customers", login))
                    assert wire.answer().status == 200
                assert time.monotonic() - started < 5
            for wire in slow:
                wire.send(b"{}")
            assert {wire.answer().status for wire in slow} == {422}
