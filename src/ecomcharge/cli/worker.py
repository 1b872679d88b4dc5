"""The command ``ecomcharge worker``."""

from __future__ import annotations

import asyncio
import functools
from typing import Annotated

import cyclopts
from cyclopts import Parameter

from ecomcharge.base.logs import configure_logging
from ecomcharge.base.settings import Settings
from ecomcharge.cli.database_options import settings_from_environment
from ecomcharge.runtime import worker_process
from ecomcharge.runtime.preparation import prepare_database
from ecomcharge.runtime.processes import disable_core_dumps, run_until_signalled

worker = cyclopts.App(name="worker", config=settings_from_environment)


@worker.default
def work(settings: Annotated[Settings, Parameter(name="*")] = Settings()) -> None:  # noqa: B008 - frozen
    """Migrate the database and run a billing worker until SIGTERM. The help text is in ``cli.commands``."""
    disable_core_dumps()
    configure_logging(settings.log_format)
    asyncio.run(prepare_database(settings))
    run_until_signalled(functools.partial(worker_process.work, settings))
