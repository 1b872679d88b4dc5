"""The process of the billing worker."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import time
from collections.abc import AsyncIterator
from typing import Final

import structlog

from ecomcharge.base.clock import Clock, SystemClock
from ecomcharge.base.errors import ConfigurationError, EcomchargeError
from ecomcharge.base.logs import configure_logging
from ecomcharge.base.settings import Settings
from ecomcharge.runtime import backlog
from ecomcharge.runtime.backlog import read_and_keep_backlog
from ecomcharge.runtime.composition import billing_services
from ecomcharge.runtime.processes import read_arguments, run_until_signalled
from ecomcharge.runtime.scheduling import NICENESS, tune_garbage_collector
from ecomcharge.sandbox.clock import SandboxClock
from ecomcharge.shops.keys import master_key_of
from ecomcharge.storage.database import Database
from ecomcharge.storage.opening import open_configured
from ecomcharge.web.metrics import SNAPSHOT_SECONDS, Metrics

log = structlog.get_logger()

RETRY_SECONDS: Final = 1.0


async def work(
    settings: Settings, stopped: asyncio.Event, metrics_directory: str | None = None, adopted_pid: int | None = None
) -> None:
    """Charge and deliver what is due until it is stopped. Raises ``ConfigurationError`` when settings or database cannot be used.

    Metrics are written for the server in ``metrics_directory``, or served on ``metrics_port`` if there is one.
    """
    master_key = master_key_of(settings)
    database = await open_configured(settings, commit_in_thread=False)
    try:
        clock = SandboxClock(database) if settings.sandbox else SystemClock()
        metrics = Metrics(metrics_directory, adopted_pid)
        services = billing_services(settings, database, master_key, clock, metrics)
        tune_garbage_collector()
        try:
            async with contextlib.AsyncExitStack() as stack:
                if settings.metrics_port:
                    from ecomcharge.runtime.metrics_endpoint import metrics_endpoint  # a worker beside a server has none

                    exposition = functools.partial(metrics.exposition, database.stats)
                    await stack.enter_async_context(metrics_endpoint(settings.metrics_host, settings.metrics_port, exposition))
                if settings.metrics_port or metrics_directory is not None:
                    await stack.enter_async_context(_measured(database, clock, metrics))
                await services.worker.run(stopped)
        finally:
            await services.close()
    finally:
        await database.close()


@contextlib.asynccontextmanager
async def _measured(database: Database, clock: Clock, metrics: Metrics) -> AsyncIterator[None]:
    """Until the end of the ``with``, keep a billing worker's metrics up to date."""

    async def read_now_and_then() -> None:
        while True:
            try:
                await read_and_keep_backlog(database, clock, metrics)
            except (EcomchargeError, OSError) as error:
                log.warning("the backlog cannot be read", reason=str(error))
            except Exception:  # whatever it was, the next round tries again
                log.exception("the backlog cannot be read")
            await asyncio.sleep(backlog.REFRESH_SECONDS)

    async def write_now_and_then() -> None:
        while True:
            with contextlib.suppress(OSError):
                metrics.write()
            await asyncio.sleep(SNAPSHOT_SECONDS)

    tasks = [asyncio.create_task(read_now_and_then()), asyncio.create_task(write_now_and_then())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(OSError):
            metrics.write()


def _work_beside_server() -> None:
    os.nice(NICENESS)
    given = read_arguments()
    configure_logging(given.settings.log_format)
    while True:
        try:
            run_until_signalled(lambda stopped: work(given.settings, stopped, given.metrics_directory, given.adopted_pid))
            return
        except ConfigurationError as error:  # the settings were good when the server was prepared
            log.warning("the worker waits for the database", reason=str(error))
            time.sleep(RETRY_SECONDS)


if __name__ == "__main__":
    _work_beside_server()
