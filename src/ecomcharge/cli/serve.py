"""The command ``ecomcharge serve``."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from typing import Annotated
from urllib.parse import quote

import cyclopts
import msgspec
from cyclopts import Parameter

from ecomcharge.base.clock import SystemClock
from ecomcharge.base.logs import configure_logging
from ecomcharge.base.settings import Settings
from ecomcharge.cli.database_options import settings_from_environment
from ecomcharge.runtime.preparation import SandboxShop, listening_address, prepare
from ecomcharge.runtime.processes import disable_core_dumps
from ecomcharge.runtime.supervisor import exec_supervisor
from ecomcharge.storage.opening import sqlite_path

server = cyclopts.App(name="serve", config=settings_from_environment)


@server.default
def serve(settings: Annotated[Settings, Parameter(name="*")] = Settings()) -> None:  # noqa: B008 - frozen
    """Migrate the database and serve the API until SIGTERM."""
    disable_core_dumps()
    configure_logging(settings.log_format)
    shop = asyncio.run(prepare(settings, SystemClock().now()))
    if shop is not None:
        _print_welcome(settings, shop)
    exec_supervisor(msgspec.json.encode({"settings": settings, "address": listening_address(settings)}))


def _print_welcome(settings: Settings, shop: SandboxShop) -> None:
    base = settings.local_url()
    print(f"ecomcharge sandbox on {base}   (try it in a browser: {base}/docs)")
    credentials = shop.credentials
    if credentials is None:
        print("The database already has shops, and a secret key is printed only once. For a new key, run in another terminal:")
        wanted = "create --name Sandbox" if shop.shop_id is None else f"rotate-key {shop.shop_id}"
        print(f"  ecomcharge shops {wanted} {_options_of(settings)}")
        if settings.master_key is not None:
            print("It needs the same ECOMCHARGE_MASTER_KEY.")
        sys.stdout.flush()
        return
    print(f"shop id:    {credentials.shop_id}\nsecret key: {credentials.secret_key}   (shown this once)\n")
    print(
        f"curl {base}/customers -u {credentials.shop_id}:{credentials.secret_key} \\\n"
        "  -H 'Content-Type: application/json' \\\n"
        '  -d \'{"first_name":"John","last_name":"Doe","country":"US","state":"CO","zip":"92006",'
        '"email":"customer@example.com","ip":"127.0.0.1"}\'\n',
        flush=True,
    )


def _options_of(settings: Settings) -> str:
    """The options with which another command uses the same database, in any folder. A URL may contain a password."""
    path = sqlite_path(settings.database)
    options = "--database ..." if path is None else f"--database {shlex.quote('sqlite:///' + quote(path).replace('~', '%7E'))}"
    if settings.master_key_file is not None:
        options += f" --master-key-file {shlex.quote(os.path.abspath(settings.master_key_file))}"
    return options
