"""The commands of shops, and settings of commands."""

from __future__ import annotations

import asyncio
import base64
import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ecomcharge.base.settings import Settings
from ecomcharge.cli.serve import _print_welcome
from ecomcharge.runtime.preparation import prepare
from ecomcharge.shops import keys
from ecomcharge.shops.actions import close_shop
from ecomcharge.shops.keys import make_master_key, master_key_of
from support.commands import ecomcharge
from support.postgres import free_port
from support.shops import ENVIRONMENT, add_shop, with_database

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cli(database_url: str) -> Cli:
    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return ecomcharge(database_url, *arguments, environment={**ENVIRONMENT, **environment})

    return run


def test_commands_create_list_rotate_and_close_shops(cli: Cli) -> None:
    created = json.loads(cli("shops", "create", "--name", "My shop", "--shop-id", "361", "--json").stdout)
    assert created["shop_id"] == 361
    assert keys.is_made_key(created["secret_key"])
    rotated = json.loads(cli("shops", "rotate-key", "361", "--overlap", "60", "--json").stdout)
    assert rotated["secret_key"] != created["secret_key"]
    assert "closed" in cli("shops", "close", "361").stdout
    [shop] = json.loads(cli("shops", "list", "--json").stdout)
    assert (shop["shop_id"], shop["name"], shop["closed_at"] is None) == (361, "My shop", False)
    assert "My shop" in cli("shops", "list").stdout


def test_credentials_are_printed_in_a_readable_format(cli: Cli) -> None:
    printed = cli("shops", "create", "--name", "x", "--secret-key", "own-sandbox-key", "--sandbox").stdout
    assert "own-sandbox-key" in printed
    assert "shown this once" in printed


def test_the_key_for_standard_webhooks_is_printed_on_request_only(cli: Cli) -> None:
    created = json.loads(cli("shops", "create", "--name", "x", "--shop-id", "7", "--json").stdout)
    assert created["webhook_key"] == "whsec_" + base64.b64encode(created["secret_key"].encode()).decode()
    assert created["webhook_key"] in cli("shops", "show", "7", "--webhook-key").stdout
    assert json.loads(cli("shops", "show", "7", "--webhook-key", "--json").stdout)["webhook_key"] == created["webhook_key"]
    for arguments in ((), ("--json",)):
        assert "whsec_" not in cli("shops", "show", "7", *arguments).stdout
    rotated = json.loads(cli("shops", "rotate-key", "7", "--overlap", "60", "--json").stdout)
    assert rotated["webhook_key"] in cli("shops", "show", "7", "--webhook-key").stdout
    own = cli("shops", "create", "--name", "x", "--secret-key", "own-sandbox-key", "--sandbox").stdout
    assert "whsec_b3duLXNhbmRib3gta2V5 " in own


def test_an_operator_error_prints_one_sentence_and_exits_with_1(cli: Cli) -> None:
    cli("shops", "create", "--name", "x", "--shop-id", "1")
    for arguments in (
        ("shops", "create", "--name", "x", "--shop-id", "1"),
        ("shops", "create", "--name", "x", "--secret-key", "short"),
        ("shops", "rotate-key", "2"),
        ("shops", "close", "2"),
        ("shops", "list", "--database", "mysql://x"),
        ("shops", "list", "--database", "postgresql://postgres@127.0.0.1:1/x"),
        ("shops", "create", "--name", "x", "--master-key", "nonsense"),
    ):
        done = cli(*arguments)
        assert done.returncode == 1, arguments
        assert done.stderr.startswith("ecomcharge: ")
        assert done.stderr.count("\n") == 1
        assert "Traceback" not in done.stderr


def test_migrate_prints_the_applied_migrations(cli: Cli) -> None:
    assert cli("migrate").stdout.startswith("applied 0001 shops_customers_idempotency")
    assert cli("migrate").stdout == "nothing to apply\n"


def test_a_new_master_key_is_32_bytes_of_base64(cli: Cli) -> None:
    first, second = (cli("master-key", "new").stdout.strip() for _ in range(2))
    assert len(base64.b64decode(first)) == 32
    assert first != second


def test_shop_commands_read_only_the_database_and_master_key_settings(cli: Cli) -> None:
    cli("shops", "create", "--name", "x", "--shop-id", "77")
    stray = {"ECOMCHARGE_SHOP": "77", "ECOMCHARGE_NAME": "y", "ECOMCHARGE_SHOP_ID": "78", "ECOMCHARGE_SECRET_KEY": "my-own-key"}
    assert cli("shops", "close", **stray).returncode != 0
    assert cli("shops", "create", **stray).returncode != 0
    assert "my-own-key" not in cli("shops", "rotate-key", "77", **stray).stdout
    assert [shop["closed_at"] for shop in json.loads(cli("shops", "list", "--json").stdout)] == [None]


def test_shop_names_with_markup_and_out_of_range_ids_are_handled(cli: Cli) -> None:
    cli("shops", "create", "--name", "[/foo] bar")
    assert "[/foo] bar" in cli("shops", "list").stdout
    for command in (("close", "9" * 20), ("rotate-key", "9" * 20), ("rotate-key", "1", "--overlap", "9" * 20)):
        done = cli("shops", *command)
        assert (done.returncode, "Traceback" in done.stderr) == (1, False)


def test_a_master_key_that_differs_from_the_databases_is_refused(cli: Cli) -> None:
    cli("shops", "create", "--name", "x", "--shop-id", "1")
    for command in (("shops", "create", "--name", "y"), ("shops", "rotate-key", "1"), ("serve", "--port", "1")):
        done = cli(*command, ECOMCHARGE_MASTER_KEY=make_master_key())
        assert done.returncode == 1
    assert "sealed under another master key" in cli("shops", "rotate-key", "1", ECOMCHARGE_MASTER_KEY=make_master_key()).stderr


@pytest.mark.parametrize("setting", ["--workers=0", "--port=99999", "--max-body-bytes=-1", "--header-timeout-seconds=-1"])
def test_a_setting_out_of_its_range_is_refused(cli: Cli, setting: str) -> None:
    done = cli("serve", setting)
    assert done.returncode == 1
    assert done.stderr == f"ecomcharge: {setting.partition('=')[0]} must be between {done.stderr.partition('between ')[2]}"


@pytest.mark.parametrize("closed", [False, True])
def test_the_hint_of_a_sandbox_with_other_shops_works(tmp_path: Path, capsys: pytest.CaptureFixture[str], closed: bool) -> None:
    """It names a shop that is open, or creates one, and the file of the database from any folder."""
    database = f"sqlite:///{tmp_path}/it's ~here.db".replace("~", "%7E").replace(" ", "%20")
    shop = add_shop(database, master_key_of(Settings(database=database)))
    if closed:
        with_database(database, lambda opened: close_shop(opened, 0, shop_id=shop.shop_id))
    settings = Settings(database=database, sandbox=True, port=free_port())
    found = asyncio.run(prepare(settings, 0))
    assert found is not None
    _print_welcome(settings, found)

    hint = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("  ecomcharge "))
    assert (f"rotate-key {shop.shop_id} " in hint) is not closed
    done = ecomcharge("", *shlex.split(hint)[1:], environment={})
    assert "secret key: eck_" in done.stdout, done.stderr
