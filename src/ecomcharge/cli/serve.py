"""The two commands that run until they are stopped: ``ecomcharge serve`` and ``ecomcharge worker``."""

from __future__ import annotations

import asyncio
import functools
from typing import Annotated

import cyclopts
from cyclopts import Parameter

from ecomcharge.base.clock import SystemClock
from ecomcharge.base.logs import configure_logging
from ecomcharge.base.settings import Settings
from ecomcharge.cli.database_options import settings_from_environment
from ecomcharge.runtime import server as runtime_server
from ecomcharge.runtime import worker_process
from ecomcharge.runtime.preparation import SANDBOX_SHOP_ID, prepare, prepare_database
from ecomcharge.runtime.processes import run_until_signalled
from ecomcharge.shops.model import Credentials

server = cyclopts.App(name="serve", config=settings_from_environment)
worker = cyclopts.App(name="worker", config=settings_from_environment)


@server.default
def serve(settings: Annotated[Settings, Parameter(name="*")] = Settings()) -> None:  # noqa: B008 - frozen
    """Migrate the database and serve the API until SIGTERM."""
    configure_logging(settings.log_format)
    credentials = asyncio.run(prepare(settings, SystemClock().now()))
    if settings.sandbox:
        _print_welcome(settings, credentials)
    runtime_server.serve(settings)


@worker.default
def work(settings: Annotated[Settings, Parameter(name="*")] = Settings()) -> None:  # noqa: B008 - frozen
    """Migrate the database, then charge and send what is due until SIGTERM. Its help is in ``cli``, beside the others'."""
    configure_logging(settings.log_format)
    asyncio.run(prepare_database(settings))
    run_until_signalled(functools.partial(worker_process.work, settings))


def _print_welcome(settings: Settings, credentials: Credentials | None) -> None:
    scheme = "https" if settings.tls_certificate else "http"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    base = f"{scheme}://{host}:{settings.port}"
    print(f"ecomcharge sandbox on {base}   (try it in a browser: {base}/docs)")
    if credentials is None:
        print("The shops are as you left them; a key is shown only once. For a new one, in another terminal:")
        database = settings.database if settings.database.startswith("sqlite:") else "..."  # others hold a password
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
