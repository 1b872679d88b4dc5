"""The server processes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import structlog
from granian.constants import HTTPModes, Interfaces, Loops, SSLProtocols
from granian.http import HTTP1Settings
from granian.log import LogLevels

from ecomcharge.base.errors import ConfigurationError
from ecomcharge.base.logs import configure_logging, granian_logging
from ecomcharge.base.settings import Settings
from ecomcharge.runtime.composition import App
from ecomcharge.runtime.preparation import listening_address
from ecomcharge.runtime.processes import die_with_parent
from ecomcharge.runtime.scheduling import SWITCH_INTERVAL_SECONDS, tune_garbage_collector, use_batch_scheduling
from ecomcharge.runtime.stalled_clients import StalledClients
from ecomcharge.runtime.supervisor import Supervisor
from ecomcharge.runtime.worker_supervisor import RETRY_SECONDS, WorkerSupervisor
from ecomcharge.web.response_files import connections_for
from ecomcharge.web.rsgi import RsgiAdapter

log = structlog.get_logger()


STARTED_FILE: Final = "started"  # in the metrics directory, once a server process was ready


class _ServerApplication(RsgiAdapter):
    """granian's view of a worker: a door that closes the application behind it."""

    def __init__(self, app: App) -> None:
        super().__init__(app.dispatcher, app.limits)
        self._app = app

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.run_until_complete(self._app.stop())


def load_worker(settings: Settings, metrics_directory: str, adopted_pid: int | None = None) -> _ServerApplication:
    """Called by granian in each worker process, with the worker's event loop set and not yet running.

    ``adopted_pid`` is a process that died, whose metrics it continues.
    """
    die_with_parent()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    configure_logging(settings.log_format)
    use_batch_scheduling()
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    app = App(settings, metrics_directory=metrics_directory, adopted_pid=adopted_pid)
    _start_patiently(app)
    StalledClients(settings.port, settings.stall_timeout_seconds).watch(asyncio.get_event_loop())
    Path(metrics_directory, STARTED_FILE).touch()
    tune_garbage_collector()
    return _ServerApplication(app)


def _start_patiently(app: App) -> None:
    """Start once the database is there. A server whose new workers gave up at once would end with its database."""
    while True:
        try:
            asyncio.get_event_loop().run_until_complete(app.start())
            return
        except ConfigurationError as error:  # the settings were good when the server was prepared
            log.warning("a worker waits for the database", reason=str(error))
            time.sleep(RETRY_SECONDS)


def _connections(wanted: int) -> int:
    """How many connections each server process accepts: so many as wanted, or as its descriptors suffice for."""
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    possible = connections_for(descriptors)
    if possible < wanted:
        log.warning(
            "the limit of open files is too low for --max-concurrent-requests; raise it (ulimit -Hn)",
            descriptors=descriptors,
            max_concurrent_requests=possible,
        )
    return min(wanted, possible)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then finish what was accepted. To be prepared first.

    Raises ``ConfigurationError`` when no server process can start.
    """
    multiprocessing.set_start_method("spawn", force=True)
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="ecomcharge-metrics-"))
        if settings.worker:
            stack.enter_context(WorkerSupervisor(settings, directory))
        supervisor = Supervisor(
            "ecomcharge",
            address=listening_address(settings),
            port=settings.port,
            interface=Interfaces.RSGI,
            loop=Loops.uvloop,
            http=HTTPModes.http1,
            websockets=False,
            workers=settings.workers,
            backpressure=_connections(settings.max_concurrent_requests),
            workers_kill_timeout=settings.shutdown_timeout_seconds,
            http1_settings=HTTP1Settings(
                header_read_timeout=settings.header_timeout_seconds * 1000,
                max_buffer_size=max(8192, settings.max_header_bytes),
            ),
            ssl_cert=Path(settings.tls_certificate) if settings.tls_certificate else None,
            ssl_key=Path(settings.tls_key) if settings.tls_key else None,
            ssl_protocol_min=SSLProtocols.tls12,
            log_dictconfig=granian_logging(settings.log_format),
            log_level=LogLevels.warning,
            has_started=Path(directory, STARTED_FILE).exists,
        )
        supervisor.serve(target_loader=functools.partial(load_worker, settings, directory), wrap_loader=False)
    if supervisor.could_not_start:
        raise ConfigurationError("no server process could start; the lines above say why")
