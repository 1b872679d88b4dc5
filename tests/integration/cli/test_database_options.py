"""Every command that opens a database takes the same options for it."""

from __future__ import annotations

from typing import Any, NoReturn

import pytest

from ecomcharge.base.errors import ConfigurationError
from ecomcharge.storage.postgres import PostgresDatabase
from support.commands import ecomcharge
from support.shops import ENVIRONMENT

COMMANDS = (
    *("serve --port 1", "worker", "audit", "migrate", "clock show --sandbox"),
    *("shops list", "shops create --name x", "shops show 1", "shops rotate-key 1", "shops close 1", "shops open 1"),
    *("shops gateway 1 sandbox", "shops forget-account 1 1"),
    *("customers import x.csv --shop-id 1", "customers export --shop-id 1", "customers erase cst_1 --shop-id 1"),
    *("customers export-one cst_1 --shop-id 1", "customers purge --shop-id 1 --inactive 3y"),
    *("webhooks list", "webhooks show x --shop-id 1", "webhooks redeliver x --shop-id 1", "webhooks skip x --shop-id 1"),
)


def test_every_command_takes_the_mode_of_the_pooler(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    async def refuse(url: str, *, pooler: str, **_: Any) -> NoReturn:
        asked.append(pooler)
        raise ConfigurationError("not opened")

    monkeypatch.setattr(PostgresDatabase, "open", refuse)
    for command in COMMANDS:
        url = "postgresql://127.0.0.1/shop"
        for more, settings in (("--postgres-pooler session", {}), ("", {"ECOMCHARGE_POSTGRES_POOLER": "transaction"})):
            done = ecomcharge(url, *f"{command} {more}".split(), environment={**ENVIRONMENT, **settings})
            assert done.stderr.endswith("ecomcharge: not opened\n"), done
        assert asked[-2:] == ["session", "transaction"], command
