"""The commands of an operator whose server charges: worker, clock, gateways, public keys, webhooks."""

from __future__ import annotations

import base64
import json

from cryptography.hazmat.primitives.serialization import load_pem_public_key

from ecomcharge.base.clock import SystemClock
from ecomcharge.base.ids import WEBHOOK_PREFIX, IdGenerator
from ecomcharge.shops.keys import MasterKey, make_master_key
from ecomcharge.shops.store import find_account
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.webhooks import store
from ecomcharge.webhooks.model import PENDING, Webhook
from support.cli import Command, refused
from support.shops import add_shop, with_database


def test_a_shop_has_one_public_key_created_on_first_use(command: Command, database_url: str, master_key: MasterKey) -> None:
    shop = add_shop(database_url, master_key, name="[b]BillingShop")
    first = json.loads(command("shops", "show", str(shop.shop_id), "--json").stdout)
    printed = command("shops", "show", str(shop.shop_id)).stdout
    assert "[b]BillingShop" in printed
    assert first["public_key"] in printed
    assert first["public_key_pem"] in printed
    assert (first["gateway"], first["gateway_url"], first["closed_at"]) == ("sandbox", None, None)
    assert first["created_at"].endswith("Z")
    key = load_pem_public_key(first["public_key_pem"].encode())
    assert key == load_pem_public_key(pem(base64.b64decode(first["public_key"])))
    assert getattr(key, "key_size", None) == 2048
    assert refused(command("shops", "show", "7")) == "no shop 7"
    assert "another master key" in refused(command("shops", "show", "7", ECOMCHARGE_MASTER_KEY=make_master_key()))


def pem(der: bytes) -> bytes:
    return b"-----BEGIN PUBLIC KEY-----\n" + base64.encodebytes(der) + b"-----END PUBLIC KEY-----\n"


def test_a_gateway_secret_key_is_read_only_from_the_environment(
    command: Command, database_url: str, master_key: MasterKey
) -> None:
    shop = str(add_shop(database_url, master_key).shop_id)
    account = ("begateway", "--url", "https://gateway.example", "--user", "361")
    assert "ECOMCHARGE_GATEWAY_SECRET_KEY" in refused(command("shops", "gateway", shop, *account))
    assert command("shops", "gateway", shop, *account, "--secret-key", "x").returncode != 0
    secret = {"ECOMCHARGE_GATEWAY_SECRET_KEY": "gateway-secret"}
    assert "gateway must be one of" in refused(command("shops", "gateway", shop, "bank", **secret))
    assert refused(command("shops", "gateway", "7", *account, **secret)) == "no shop 7"

    done = command("shops", "gateway", shop, *account, **secret)
    assert (done.returncode, "gateway-secret" in done.stdout + done.stderr) == (0, False)
    kept = with_database(database_url, lambda database: find_account(database, int(shop), "1"))
    assert kept is not None
    assert kept.sealed_key is not None
    assert (kept.url, kept.user) == ("https://gateway.example", "361")
    assert master_key.unseal(int(shop), kept.sealed_key, kept.purpose) == "gateway-secret"
    assert "begateway https://gateway.example as 361" in command("shops", "show", shop).stdout

    assert command("shops", "gateway", shop, "sandbox").returncode == 0
    assert "begateway" not in command("shops", "show", shop).stdout.partition("public key")[0]
    # The account stays for its subscriptions.
    assert with_database(database_url, lambda database: find_account(database, int(shop), "1")) == kept


def put(url: str, shop_id: int, **fields: object) -> Webhook:
    now = SystemClock().now()
    given = {"sequence": 1, "event": "created.subscription", "url": "http://127.0.0.1:9/", "body": '{"a":"[/b]"}', **fields}
    webhook = Webhook(
        **{  # type: ignore[arg-type]
            "shop_id": shop_id,
            "id": IdGenerator(WEBHOOK_PREFIX).generate(now),
            "subscription_id": "sbs_0000000000000000",
            "state": PENDING,
            "attempts": 0,
            "created_at": now,
            "due_at": now,
            **given,
        }
    )

    async def work(database: Database) -> None:
        async def unit(tx: Transaction) -> None:
            assert await store.insert(tx, webhook)

        await database.write(unit)

    with_database(url, work)
    return webhook


def test_commands_list_show_and_redeliver_webhooks(command: Command, database_url: str, master_key: MasterKey) -> None:
    shop, other = (add_shop(database_url, master_key).shop_id for _ in range(2))
    failed = put(database_url, shop, state="failed", attempts=26, due_at=None, last_status=503)
    pending = put(database_url, other, attempts=2, last_error="ConnectError: refused")

    def ids(*arguments: str) -> list[str]:
        done = command("webhooks", "list", "--json", *arguments)
        assert done.returncode == 0, done.stderr
        return [webhook["id"] for webhook in json.loads(done.stdout)]

    assert ids() == [pending.id, failed.id]
    assert ids("--limit", "1") == [pending.id]
    assert ids("--shop-id", str(shop)) == ids("--state", "failed") == [failed.id]
    assert ids("--shop-id", str(shop), "--state", "pending") == []
    printed = command("webhooks", "list").stdout
    for text in (failed.id, pending.id, "503", "ConnectError: refused", "sbs_0000000000000000"):
        assert text in printed
    assert refused(command("webhooks", "list", "--shop-id", "7")) == "no shop 7"
    assert "--limit must be between" in refused(command("webhooks", "list", "--limit", "0"))

    command_output = command("webhooks", "show", failed.id, "--shop-id", str(shop))
    assert command_output.stdout.endswith('\n{"a":"[/b]"}\n')
    result = json.loads(command("webhooks", "show", failed.id, "--shop-id", str(shop), "--json").stdout)
    assert (result["attempts"], result["last_status"], result["next_attempt_at"], result["body"]) == (26, 503, None, failed.body)
    strange = refused(command("webhooks", "show", failed.id, "--shop-id", str(other)))
    assert strange == refused(command("webhooks", "redeliver", failed.id, "--shop-id", str(other)))

    assert strange == refused(command("webhooks", "skip", failed.id, "--shop-id", str(other)))
    assert "is failed" in refused(command("webhooks", "skip", failed.id, "--shop-id", str(shop)))
    empty = put(database_url, shop, attempts=26, last_status=204)  # as an earlier release stored it
    assert "only 200 counts" in command("webhooks", "show", empty.id, "--shop-id", str(shop)).stdout

    assert failed.id in command("webhooks", "redeliver", failed.id, "--shop-id", str(shop)).stdout
    result = json.loads(command("webhooks", "show", failed.id, "--shop-id", str(shop), "--json").stdout)
    assert (result["state"], result["attempts"], result["last_status"]) == ("pending", 0, 503)
    assert result["next_attempt_at"].endswith("Z")


def test_commands_freeze_move_set_and_resume_the_clock(command: Command) -> None:
    def clock(*arguments: str) -> dict[str, object]:
        done = command("clock", *arguments, "--json", ECOMCHARGE_SANDBOX="true")
        assert done.returncode == 0, done.stderr
        result: dict[str, object] = json.loads(done.stdout)
        return result

    frozen = clock("freeze")
    assert frozen["frozen"] is True
    assert clock("show") == frozen
    assert clock("set", "2027-01-31T12:00:00+03:00") == {"now": "2027-01-31T09:00:00.000Z", "frozen": True}
    assert clock("advance", "1mo")["now"] == "2027-02-28T09:00:00.000Z"
    assert clock("set", "2026-12-24")["now"] == "2026-12-24T00:00:00.000Z"
    assert command("clock", "show", "--sandbox").stdout == "2026-12-24 00:00:00Z  (frozen)\n"
    assert clock("resume")["frozen"] is False


def test_clock_commands_require_the_sandbox_option_and_valid_arguments(command: Command) -> None:
    for arguments in (("show",), ("freeze",), ("advance", "1d"), ("set", "2027-01-01"), ("resume",)):
        assert "--sandbox" in refused(command("clock", *arguments))
    assert refused(command("clock", "advance", "soon", "--sandbox")).startswith("Step must be")
    assert refused(command("clock", "set", "soon", "--sandbox")).startswith("To must be")
    stray = {"ECOMCHARGE_STEP": "1d", "ECOMCHARGE_TO": "2027-01-01", "ECOMCHARGE_SANDBOX": "true"}
    assert command("clock", "advance", **stray).returncode != 0
    assert command("clock", "set", **stray).returncode != 0
