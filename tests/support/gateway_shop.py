"""A shop with an account at the gateway stand-in, and checks of the records of both."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from ecomcharge.payments.store import COLUMNS
from ecomcharge.shops.actions import set_gateway
from ecomcharge.shops.keys import MasterKey, load_master_key
from ecomcharge.storage.database import Database, Row
from support.begateway import Account
from support.builders import a_card, a_customer, a_plan
from support.process import ServerProcess
from support.shops import ENVIRONMENT, add_shop, with_database

NUMBER = "4200000000000000"
CODE = "7391"
A_PERIOD = "43201min"  # thirty days and a minute
CARD = a_card(NUMBER, verification_value=CODE, holder="John Doe", exp_month="01", exp_year="2060")
PLAN: dict[str, Any] = a_plan(999, interval=30, unit="day", title="Thirty days", test=False)
TEXTS = (
    *("cards.card", "customers.first_name", "events.data", "idempotency_keys.body", "payments.message", "webhooks.body"),
    *("payments.redirect_url", "subscriptions.card", "subscriptions.last_transaction", "subscriptions.options"),
)


@dataclass
class Merchant:
    """One shop with an account at the gateway stand-in."""

    http: httpx.Client
    shop_id: int
    account: Account
    server: ServerProcess
    errors: list[str] = field(default_factory=list)
    other_accounts: list[Account] = field(default_factory=list)  # the account that the shop used later

    def subscribe(self, number: str | None = NUMBER, expect: int = 201, **changes: Any) -> dict[str, Any]:
        body: dict[str, Any] = {"plan": PLAN, "customer": a_customer(), **changes}
        if number is not None:
            body["card"] = {**CARD, "number": number}
        response = self.http.post("/subscriptions", json=body)
        assert response.status_code == expect, response.text
        return dict(response.json())

    def choose(self, account: Account | None, url: str = "") -> None:
        """Choose this account, or the sandbox, for new subscriptions."""
        known = {"gateway": "sandbox"} if account is None else at_stand_in(account, url)
        if account is not None and account is not self.account and account not in self.other_accounts:
            self.other_accounts.append(account)
        master_key = load_master_key(ENVIRONMENT["ECOMCHARGE_MASTER_KEY"], None, database_file=None)
        with_database(self.server.database, lambda database: set_gateway(database, master_key, 0, shop_id=self.shop_id, **known))

    def read(self, subscription: dict[str, Any]) -> dict[str, Any]:
        return dict(self.http.get(f"/subscriptions/{subscription['id']}").json())

    def advance(self, step: str) -> None:
        response = self.http.post("/sandbox/clock/advance", json={"step": step}, timeout=30)
        assert response.status_code == 200, response.text

    def begin_in_the_morning(self) -> None:
        """Set the clock to 10:05 of the next day, so that no step of the test falls on a full hour or into the night."""
        now = datetime.fromisoformat(self.http.get("/sandbox/clock").json()["now"])
        morning = (now + timedelta(days=1)).replace(hour=10, minute=5, second=0)
        assert self.http.post("/sandbox/clock/set", json={"to": morning.isoformat()}).status_code == 200

    def cancel_everything(self) -> None:
        for subscription in self.http.get("/subscriptions").json():
            self.http.delete(f"/subscriptions/{subscription['id']}")

    def payments(self) -> list[dict[str, Any]]:
        names = COLUMNS.split(", ")

        async def read(database: Database) -> list[Row]:
            sql = f"SELECT {COLUMNS} FROM payments WHERE shop_id = :shop_id ORDER BY created_at, id"
            return list(await database.rows(sql, {"shop_id": self.shop_id}))

        return [dict(zip(names, row, strict=True)) for row in with_database(self.server.database, read)]

    def payments_of(self, subscription: dict[str, Any]) -> list[dict[str, Any]]:
        return [payment for payment in self.payments() if payment["subscription_id"] == subscription["id"]]

    def statuses(self) -> list[tuple[int, str]]:
        return [(payment["period"], payment["status"]) for payment in self.payments()]


def at_stand_in(account: Account, url: str) -> dict[str, str]:
    return {"gateway": "begateway", "url": url, "user": account.user, "secret_key": account.secret_key}


def with_gateway(process: ServerProcess, master_key: MasterKey, account: Account, url: str) -> tuple[int, str]:
    credentials = add_shop(process.database, master_key)

    async def set_up(database: Database) -> None:
        await set_gateway(database, master_key, 0, shop_id=credentials.shop_id, **at_stand_in(account, url))

    with_database(process.database, set_up)
    return credentials.shop_id, credentials.secret_key


def assert_records_agree(merchant: Merchant) -> None:
    ours = [
        (payment["id"], payment["amount"], payment["currency"])
        for payment in merchant.payments()
        if payment["status"] == "successful" and payment["gateway"] == "begateway" and payment["amount"]
    ]
    accounts = (merchant.account, *merchant.other_accounts)
    refunded = {order for account in accounts for order, _ in account.refunded}
    taken = [charge for account in accounts for charge in account.taken if charge[0] not in refunded]
    assert sorted(taken) == sorted(ours)
    assert refunded == {payment["id"] for payment in merchant.payments() if payment["status"] == "refunded"}
    periods = [
        (payment["subscription_id"], payment["period"]) for payment in merchant.payments() if payment["status"] == "successful"
    ]
    assert len(periods) == len(set(periods))


def assert_no_secret_is_kept(merchant: Merchant) -> None:
    keys = [account.secret_key for account in (merchant.account, *merchant.other_accounts)]
    secrets = (NUMBER, f'"{CODE}"', "verification_value", *keys)
    kept = "".join(merchant.errors) + merchant.server.log() + texts_of(merchant.server.database)
    assert not [secret for secret in secrets if secret in kept]
    if merchant.server.database.startswith("sqlite:///"):
        file = Path(merchant.server.database.removeprefix("sqlite:///"))
        for part in file.parent.glob(f"{file.name}*"):
            raw = part.read_bytes()
            assert not [secret for secret in secrets if secret.encode() in raw], part


def texts_of(database_url: str) -> str:
    async def read(database: Database) -> str:
        found = []
        for text in TEXTS:
            table, _, column = text.partition(".")
            found += [str(row[0]) for row in await database.rows(f"SELECT {column} FROM {table}", {})]
        return "\n".join(found)

    return with_database(database_url, read)
