"""Secret keys and the master key."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecomcharge.base.errors import ConfigurationError
from ecomcharge.base.settings import Settings
from ecomcharge.shops import keys
from ecomcharge.shops.keys import MasterKey, load_master_key, make_master_key, make_secret_key, master_key_of


def test_a_generated_key_has_a_prefix_256_random_bits_and_a_checksum() -> None:
    made = {make_secret_key() for _ in range(100)}
    assert len(made) == 100
    assert all(key.startswith("eck_") and len(key) == 53 and keys.is_made_key(key) for key in made)


@given(st.integers(0, 52), st.sampled_from("0aZ"))
def test_a_mistyped_generated_key_is_recognised(position: int, character: str) -> None:
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


def test_the_key_file_is_created_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    database_file = str(tmp_path / "x.db")
    first = load_master_key(None, None, database_file=database_file)
    again = load_master_key(None, None, database_file=database_file)
    assert first.hash(1, "secret") == again.hash(1, "secret")
    file = tmp_path / "x.db.master-key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("bad", ["x", "!!!!", base64.b64encode(b"short").decode(), ""])
def test_a_malformed_master_key_is_refused_with_instructions(tmp_path: Path, bad: str) -> None:
    file = tmp_path / "key"
    file.write_text(bad)
    with pytest.raises(ConfigurationError, match="ecomcharge master-key new"):
        load_master_key(bad or None, None if bad else str(file), database_file=None)


def test_without_a_master_key_postgresql_is_refused_with_the_generating_command() -> None:
    with pytest.raises(ConfigurationError, match="ecomcharge master-key new"):
        load_master_key(None, None, database_file=None)


def test_a_database_has_one_master_key_under_all_its_paths(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    first = master_key_of(Settings(database=f"sqlite:///{tmp_path}/real/a.db"))
    (tmp_path / "real" / "a.db").touch()
    (tmp_path / "b.db").symlink_to(tmp_path / "real" / "a.db")
    second = master_key_of(Settings(database=f"sqlite:///{tmp_path}/b.db"))
    assert first.hash(1, "secret key") == second.hash(1, "secret key")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["b.db", "real"]
