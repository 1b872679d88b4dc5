"""Shops and their keys: made once, kept safe, felt everywhere."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecomcharge.base.clock import SystemClock
from ecomcharge.base.errors import ConfigurationError, EcomchargeError, RecordNotFound, Unauthorized
from ecomcharge.base.settings import Settings
from ecomcharge.shops import actions, keys, store
from ecomcharge.shops.keys import MasterKey, load_master_key, make_master_key, make_secret_key, master_key_of
from ecomcharge.storage.database import Database
from ecomcharge.web.auth import Authenticator, credentials_of
from ecomcharge.web.messages import Request
from ecomcharge.web.rate_limits import AddressRateLimiter
from support.shops import MASTER_KEY, add_shop, with_database

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cli(database_url: str) -> Cli:
    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ECOMCHARGE_")}
        settings = {"ECOMCHARGE_DATABASE": database_url, "ECOMCHARGE_MASTER_KEY": MASTER_KEY, **environment}
        command = [sys.executable, "-m", "ecomcharge", *arguments]
        return subprocess.run(command, env={**clean, **settings}, capture_output=True, text=True, check=False)

    return run


def test_a_made_key_has_a_prefix_256_random_bits_and_a_checksum() -> None:
    made = {make_secret_key() for _ in range(100)}
    assert len(made) == 100
    assert all(key.startswith("eck_") and len(key) == 53 and keys.is_made_key(key) for key in made)


@given(st.integers(0, 52), st.sampled_from("0aZ"))
def test_a_mistyped_made_key_is_recognised(position: int, character: str) -> None:
    key = make_secret_key()
    mistyped = key[:position] + character + key[position + 1 :]
    assert keys.is_made_key(mistyped) == (mistyped == key)


@given(st.integers(1, 2**53 - 1), st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=8))
def test_a_sealed_key_opens_for_its_shop_and_master_key_only(shop_id: int, secret: str) -> None:
    ours, other = (MasterKey(base64.b64decode(make_master_key())) for _ in range(2))
    sealed = ours.seal(shop_id, secret)
    assert ours.unseal(shop_id, sealed) == secret
    assert ours.seal(shop_id, secret) != sealed
    for master_key, shop in ((other, shop_id), (ours, shop_id + 1)):
        with pytest.raises(ConfigurationError):
            master_key.unseal(shop, sealed)
    assert ours.hash(shop_id, secret) != other.hash(shop_id, secret) != ours.hash(shop_id + 1, secret)


def test_the_key_file_beside_the_database_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    database_file = str(tmp_path / "x.db")
    first = load_master_key(None, None, database_file=database_file)
    again = load_master_key(None, None, database_file=database_file)
    assert first.hash(1, "secret") == again.hash(1, "secret")
    file = tmp_path / "x.db.master-key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("bad", ["x", "!!!!", base64.b64encode(b"short").decode(), ""])
def test_a_master_key_that_is_none_is_refused_with_a_way_out(tmp_path: Path, bad: str) -> None:
    file = tmp_path / "key"
    file.write_text(bad)
    with pytest.raises(ConfigurationError, match="ecomcharge master-key new"):
        load_master_key(bad or None, None if bad else str(file), database_file=None)


def test_postgresql_needs_a_master_key_and_is_told_how_to_make_one() -> None:
    with pytest.raises(ConfigurationError, match="ecomcharge master-key new"):
        load_master_key(None, None, database_file=None)


def test_nothing_in_the_database_gives_a_key_away(database_url: str, master_key: MasterKey) -> None:
    credentials = add_shop(database_url, master_key, secret_key="own-sandbox-key")

    async def everything(database: Database) -> str:
        return str([tuple(row) for row in await database.rows("SELECT * FROM shop_keys", {})])

    stored = with_database(database_url, everything)
    assert str(credentials.shop_id) in stored
    assert "own-sandbox-key" not in stored
    assert base64.b64encode(b"own-sandbox-key").decode() not in stored


@pytest.mark.parametrize(
    ("key", "fault"),
    [("short", "too short"), ("a" * 256, "too long"), ("schlüssel", "printable ASCII"), ("a\tbcdefgh", "printable ASCII")],
)
def test_a_key_of_ones_own_must_fit_http_basic(database_url: str, master_key: MasterKey, key: str, fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        add_shop(database_url, master_key, secret_key=key)


@pytest.mark.parametrize("chosen", [{"shop_id": 0}, {"shop_id": 2**53}, {"name": " "}, {"name": "a" * 256}, {"name": "a\nb"}])
def test_a_shop_that_cannot_be_is_refused(database_url: str, master_key: MasterKey, chosen: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        add_shop(database_url, master_key, **chosen)


def test_a_rotation_ends_older_keys_after_the_overlap_and_never_lengthens_one(database_url: str, master_key: MasterKey) -> None:
    now = SystemClock().now()

    async def work(database: Database) -> list[int | None]:
        first = await actions.create_shop(database, master_key, now, name="Test", secret_key="first-key")
        for key, overlap in (("second-key", 10), ("third-key", 3600)):
            await actions.rotate_key(database, master_key, now, shop_id=first.shop_id, secret_key=key, overlap_seconds=overlap)
        kept = {key.key_hash: key.expires_at for key in await store.keys_of_open_shop(database, first.shop_id)}
        return [kept[master_key.hash(first.shop_id, key)] for key in ("first-key", "second-key", "third-key")]

    assert with_database(database_url, work) == [now + 10_000, now + 3_600_000, None]


def test_a_closed_or_unknown_shop_gets_no_new_key(database_url: str, master_key: MasterKey) -> None:
    shop_id = add_shop(database_url, master_key).shop_id
    now = SystemClock().now()

    async def work(database: Database) -> None:
        await actions.close_shop(database, now, shop_id=shop_id)
        await actions.close_shop(database, now + 1, shop_id=shop_id)
        assert [shop.closed_at for shop in await store.all_shops(database)] == [now]
        assert not await store.keys_of_open_shop(database, shop_id)
        for unknown in (shop_id, 7):
            with pytest.raises(RecordNotFound):
                await actions.rotate_key(database, master_key, now, shop_id=unknown)

    with_database(database_url, work)


# Credentials


@pytest.mark.parametrize("user", ["1", "007", "9007199254740991"])
def test_basic_credentials_are_a_shop_id_and_a_key(user: str) -> None:
    header = "Basic " + base64.b64encode(f"{user}:a:b".encode()).decode()
    assert credentials_of(header) == (int(user), "a:b")
    assert credentials_of(header.replace("Basic ", "bAsIc   ")) == (int(user), "a:b")


@given(st.text(max_size=40) | st.binary(max_size=30).map(lambda raw: "Basic " + base64.b64encode(raw).decode()))
def test_any_other_header_is_nobodys(header: str) -> None:
    credentials = credentials_of(header)
    if credentials is not None:
        shop_id, secret_key = credentials
        assert base64.b64decode(header.partition(" ")[2]).decode().endswith(f"{shop_id}:{secret_key}")


# The command line


def test_shops_are_created_listed_rotated_and_closed_from_the_command_line(cli: Cli) -> None:
    created = json.loads(cli("shops", "create", "--name", "My shop", "--shop-id", "361", "--json").stdout)
    assert created["shop_id"] == 361
    assert keys.is_made_key(created["secret_key"])
    rotated = json.loads(cli("shops", "rotate-key", "361", "--overlap", "60", "--json").stdout)
    assert rotated["secret_key"] != created["secret_key"]
    assert "closed" in cli("shops", "close", "361").stdout
    [shop] = json.loads(cli("shops", "list", "--json").stdout)
    assert (shop["shop_id"], shop["name"], shop["closed_at"] is None) == (361, "My shop", False)
    assert "My shop" in cli("shops", "list").stdout


def test_credentials_are_printed_for_people_too(cli: Cli) -> None:
    printed = cli("shops", "create", "--name", "x", "--secret-key", "own-sandbox-key").stdout
    assert "own-sandbox-key" in printed
    assert "shown this once" in printed


def test_what_an_operator_can_mend_is_one_sentence_and_exit_code_1(cli: Cli) -> None:
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


def test_migrate_says_what_it_applied(cli: Cli) -> None:
    assert cli("migrate").stdout.startswith("applied 0001 shops_customers_idempotency")
    assert cli("migrate").stdout == "nothing to apply\n"


def test_a_new_master_key_is_32_bytes_of_base64(cli: Cli) -> None:
    first, second = (cli("master-key", "new").stdout.strip() for _ in range(2))
    assert len(base64.b64decode(first)) == 32
    assert first != second


def test_every_error_of_the_family_has_a_code_of_its_own() -> None:
    family = EcomchargeError.__subclasses__()
    assert len({kind.code for kind in family}) == len(family)


def test_only_the_database_and_the_master_key_are_taken_from_the_environment(cli: Cli) -> None:
    cli("shops", "create", "--name", "x", "--shop-id", "77")
    stray = {"ECOMCHARGE_SHOP": "77", "ECOMCHARGE_NAME": "y", "ECOMCHARGE_SHOP_ID": "78", "ECOMCHARGE_SECRET_KEY": "my-own-key"}
    assert cli("shops", "close", **stray).returncode != 0
    assert cli("shops", "create", **stray).returncode != 0
    assert "my-own-key" not in cli("shops", "rotate-key", "77", **stray).stdout
    assert [shop["closed_at"] for shop in json.loads(cli("shops", "list", "--json").stdout)] == [None]


def test_a_shop_may_be_called_what_looks_like_markup_and_ids_may_be_absurd(cli: Cli) -> None:
    cli("shops", "create", "--name", "[/foo] bar")
    assert "[/foo] bar" in cli("shops", "list").stdout
    for command in (("close", "9" * 20), ("rotate-key", "9" * 20), ("rotate-key", "1", "--overlap", "9" * 20)):
        done = cli("shops", *command)
        assert (done.returncode, "Traceback" in done.stderr) == (1, False)


def test_another_master_key_than_the_databases_is_noticed(cli: Cli) -> None:
    cli("shops", "create", "--name", "x", "--shop-id", "1")
    for command in (("shops", "create", "--name", "y"), ("shops", "rotate-key", "1"), ("serve", "--port", "1")):
        done = cli(*command, ECOMCHARGE_MASTER_KEY=make_master_key())
        assert done.returncode == 1
    assert "sealed under another master key" in cli("shops", "rotate-key", "1", ECOMCHARGE_MASTER_KEY=make_master_key()).stderr


@pytest.mark.parametrize("setting", ["--workers=0", "--port=99999", "--max-body-bytes=-1", "--header-timeout-seconds=-1"])
def test_a_setting_out_of_its_range_is_told(cli: Cli, setting: str) -> None:
    done = cli("serve", setting)
    assert done.returncode == 1
    assert done.stderr == f"ecomcharge: {setting.partition('=')[0]} must be between {done.stderr.partition('between ')[2]}"


def test_a_new_key_is_good_at_once_while_the_old_one_is_busy(database_url: str, master_key: MasterKey) -> None:
    async def work(database: Database) -> list[bool]:
        now = SystemClock().now()
        shop = await actions.create_shop(database, master_key, now, name="Test", secret_key="first-key")
        moments = [0.0]
        authenticator = Authenticator(
            database, master_key, SystemClock(), AddressRateLimiter("failed-logins", 60, ""), lambda: moments[-1]
        )
        outcomes = [await authenticator.shop_of(login(shop.shop_id, "first-key"))]
        await actions.rotate_key(database, master_key, now, shop_id=shop.shop_id, secret_key="second-key", overlap_seconds=60)
        for moment in (0.6, 0.7):
            moments.append(moment)
            outcomes += [await authenticator.shop_of(login(shop.shop_id, key)) for key in ("first-key", "second-key")]
        with pytest.raises(Unauthorized):
            await authenticator.shop_of(login(shop.shop_id, "third-key"))
        return [outcome == shop.shop_id for outcome in outcomes]

    assert all(with_database(database_url, work))


class Caller(Request):
    """A request that is headers and an address, and nothing else."""

    def __init__(self, headers: dict[str, str], address: str = "127.0.0.1") -> None:
        super().__init__("GET", "/customers", "", headers.get)
        self._address = address

    def peer(self) -> str:
        return self._address

    def forwarded_for(self) -> str:
        return self.header("x-forwarded-for") or ""


def login(shop_id: int, key: str) -> Request:
    return Caller({"authorization": "Basic " + base64.b64encode(f"{shop_id}:{key}".encode()).decode()})


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.0.0.1", None, "10.0.0.1"),
        ("::ffff:10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "9.9.9.9", "10.0.0.1"),
        ("127.0.0.1", "9.9.9.9", "9.9.9.9"),
        ("::ffff:127.0.0.1", "8.8.8.8, 9.9.9.9:567", "9.9.9.9"),
        ("127.0.0.1", "[2001:db8::1]:567", "2001:db8::/64"),
        ("127.0.0.1", "8.8.8.8, 127.0.0.2", "8.8.8.8"),
        ("2001:db8::1", None, "2001:db8::/64"),
        ("127.0.0.1", "nonsense", "unknown"),
    ],
)
def test_a_failed_login_is_counted_against_the_nearest_address_that_is_no_proxy(
    peer: str, forwarded: str | None, client: str
) -> None:
    headers = {} if forwarded is None else {"x-forwarded-for": forwarded}
    assert AddressRateLimiter("failed-logins", 60, "127.0.0.0/8").client_of(Caller(headers, peer)) == client


def test_a_database_has_one_master_key_by_whatever_name_it_is_opened(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    first = master_key_of(Settings(database=f"sqlite:///{tmp_path}/real/a.db"))
    (tmp_path / "real" / "a.db").touch()
    (tmp_path / "b.db").symlink_to(tmp_path / "real" / "a.db")
    second = master_key_of(Settings(database=f"sqlite:///{tmp_path}/b.db"))
    assert first.hash(1, "secret key") == second.hash(1, "secret key")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["b.db", "real"]
