"""A server that is killed loses nothing that it acknowledged."""

from __future__ import annotations

import time
from pathlib import Path

from ecomcharge.shops.keys import MasterKey
from support.faults import UNDER_LOAD_SECONDS, check_everything, line_to, load_on
from support.load import Ledger
from support.process import ServerProcess
from support.shops import ENVIRONMENT, add_shop

KILLS = 3


def test_a_killed_server_keeps_every_acknowledged_write(database_url: str, master_key: MasterKey, server_folder: Path) -> None:
    shop = add_shop(database_url, master_key)
    ledger = Ledger()
    with ServerProcess(database_url, server_folder, "--workers", "2", environment=ENVIRONMENT) as process:
        for _ in range(KILLS):
            with load_on(process, shop) as load:
                time.sleep(UNDER_LOAD_SECONDS)
                process.kill()
            process.start()
            with line_to(process, shop) as line:
                for customer_request in load.ledger.unknown:
                    if customer_request.key is not None:
                        first, second = (
                            line.create(customer_request.body, customer_request.key),
                            line.create(customer_request.body, customer_request.key),
                        )
                        assert (first.status, second.status) == (201, 201)
                        assert first.body == second.body
                        load.ledger.acknowledged[customer_request.email] = first.json()["id"]
            ledger.add(load.ledger)
            check_everything(process, shop, ledger)
    print(ledger)
    assert len(ledger.acknowledged) > 100
    assert ledger.unknown, "no kill met a request in progress"
