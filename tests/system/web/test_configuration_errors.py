"""An error that only the operator can fix, on a running server."""

from __future__ import annotations

import re
from pathlib import Path

from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database
from support.builders import a_card, a_plan
from support.process import ServerProcess
from support.shops import ENVIRONMENT, Shop, add_shop, with_database

INTERNAL_ERROR = {"message": "Internal server error"}


def test_a_running_server_responds_when_an_operators_setting_is_missing(
    database_url: str, master_key: MasterKey, tmp_path: Path
) -> None:
    """A shop's gateway account is missing: the response names no setting, and the log has the reason."""
    credentials = add_shop(database_url, master_key)

    async def forget_account(database: Database) -> None:
        sql = "UPDATE shops SET gateway = 'begateway' WHERE shop_id = :shop_id"
        await database.write(lambda tx: tx.run(sql, {"shop_id": credentials.shop_id}))

    with_database(database_url, forget_account)
    plan = a_plan(title="P")
    card = a_card(exp_year=2060)
    body = {"plan": plan, "customer": {"email": "a@shop.test"}, "card": card}
    with ServerProcess(database_url, tmp_path, environment=ENVIRONMENT) as process:
        shop = Shop(process.url, credentials.shop_id, credentials.secret_key, process)
        with shop.client() as http:
            answer = http.post("/subscriptions", json=body)
        log = process.log()
    assert answer.status_code in (201, 500)  # the charge may also be recorded as refused
    assert answer.status_code == 201 or answer.json() == INTERNAL_ERROR
    assert "ecomcharge shops" not in answer.text
    assert re.search(r"account", log)
