"""The command ``ecomcharge serve``."""

from __future__ import annotations

import asyncio
from typing import Annotated

import cyclopts
import msgspec
from cyclopts import Parameter

from ecomcharge.base.clock import SystemClock
from ecomcharge.base.logs import configure_logging
from ecomcharge.base.settings import Settings
from ecomcharge.cli.database_options import settings_from_environment
from ecomcharge.runtime.preparation import SANDBOX_SHOP_ID, listening_address, prepare
from ecomcharge.runtime.processes import disable_core_dumps
from ecomcharge.runtime.supervisor import exec_supervisor
from ecomcharge.shops.model import Credentials

server = cyclopts.App(name="serve", config=settings_from_environment)


@server.default
def serve(settings: Annotated[Settings, Parameter(name="*")] = Settings()) -> None:  # noqa: B008 - frozen
    """Migrate the database and serve the API until SIGTERM."""
    disable_core_dumps()
    configure_logging(settings.log_format)
    credentials = asyncio.run(prepare(settings, SystemClock().now()))
    if settings.sandbox:
        _print_welcome(settings, credentials)
    exec_supervisor(msgspec.json.encode({"settings": settings, "address": listening_address(settings)}))


def _print_welcome(settings: Settings, credentials: Credentials | None) -> None:
    base = settings.local_url()
    print(f"ecomcharge sandbox on {base}   (try it in a browser: {base}/docs)")
    if credentials is None:
        print("The database already has shops, and a secret key is printed only once. For a new key, run in another terminal:")
        database = settings.database if settings.database.startswith("sqlite:") else "..."  # other URLs contain a password
        print(f"  ecomcharge shops rotate-key {SANDBOX_SHOP_ID} --database {database}", flush=True)
        return
    print(f"shop id:    {credentials.shop_id}\nsecret key: {credentials.secret_key}   (shown this once)\n")
    print(
        f"curl {base}/customers -u {credentials.shop_id}:{credentials.secret_key} \\\n"
        "  -H 'Content-Type: application/json' \\\n"
        '  -d \'{"first_name":"John","last_name":"Doe","country":"US","state":"CO","zip":"92006",'
        '"email":"customer@example.com","ip":"127.0.0.1"}\'\n',
        flush=True,
    )
