"""The process of one server: granian in front of the application."""

from __future__ import annotations

import asyncio
import functools
import os
import resource
import time
from pathlib import Path

import structlog
from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces, Loops, RuntimeModes, SSLProtocols
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.mp import MPServer

from ecomcharge.base.errors import ConfigurationError
from ecomcharge.base.logs import configure_logging, granian_logging
from ecomcharge.base.settings import Settings
from ecomcharge.runtime.client_connections import ClientConnections, ConnectionRules, set_descriptor_limit
from ecomcharge.runtime.composition import App
from ecomcharge.runtime.listening import LOCALHOST, listen_on_both_loopback_addresses
from ecomcharge.runtime.processes import ProcessArguments, read_arguments
from ecomcharge.runtime.scheduling import tune_garbage_collector, use_batch_scheduling
from ecomcharge.runtime.supervisor import STOPS_SOON, started_file
from ecomcharge.web.rate_limits import ClientAddresses
from ecomcharge.web.response_files import connections_for
from ecomcharge.web.rsgi import RsgiAdapter

log = structlog.get_logger()

RETRY_SECONDS = 1.0
LISTENS_FILE = "listens"  # in the metrics directory, created by the first process that is ready
ACCEPT_QUEUE = 4096  # the kernel lowers it to net.core.somaxconn


class _ServerApplication(RsgiAdapter):
    """granian's view of a server process: an adapter that closes the application behind it."""

    def __init__(self, app: App) -> None:
        settings = app.settings
        super().__init__(app.dispatcher, app.limits, settings.max_concurrent_requests)
        self._app = app
        connections = self._connections = ClientConnections(
            ConnectionRules(
                port=settings.port,
                most=_most_connections(settings),
                most_per_address=settings.connections_per_address,
                first_byte_seconds=settings.first_byte_timeout_seconds,
                stall_seconds=settings.stall_timeout_seconds,
                uses_tls=settings.tls_certificate is not None,
            ),
            ClientAddresses(settings.trusted_proxies),
            self.ports_in_progress,
        )
        self._watch = asyncio.get_event_loop().create_task(connections.watch())

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """The supervisor sends this signal with SIGTERM, whose handler is granian's."""
        loop.add_signal_handler(STOPS_SOON, self._connections.hurry)

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._watch.cancel()
        loop.run_until_complete(self._app.stop())


def load_application(arguments: ProcessArguments) -> _ServerApplication:
    """Called by granian, with the process's event loop set and not yet running."""
    configure_logging(arguments.settings.log_format)
    use_batch_scheduling()
    app = App(arguments.settings, metrics_directory=arguments.metrics_directory, adopted_pid=arguments.adopted_pid)
    _start_when_database_answers(app)
    _warn_of_few_descriptors(arguments.settings)
    _log_first_start(arguments)
    tune_garbage_collector()
    return _ServerApplication(app)


def _log_first_start(arguments: ProcessArguments) -> None:
    """Tell the supervisor that a process is ready. The first one of a server logs where the server listens."""
    settings = arguments.settings
    Path(started_file(arguments.metrics_directory, os.getpid())).touch()
    try:
        Path(arguments.metrics_directory, LISTENS_FILE).touch(exist_ok=False)
    except FileExistsError:
        return
    host = f"[{arguments.address}]" if ":" in arguments.address else arguments.address
    address = f"{'https' if settings.tls_certificate else 'http'}://{host}:{settings.port}"
    log.info("the server listens", address=address, links_begin_with=settings.base_url(), server_processes=settings.workers)


def _start_when_database_answers(app: App) -> None:
    """Start the application. Wait while the database is not available, so that the server survives an outage."""
    while True:
        try:
            asyncio.get_event_loop().run_until_complete(app.start())
            return
        except ConfigurationError as error:  # the settings were good when the server was prepared
            log.warning("a worker waits for the database", reason=str(error))
            time.sleep(RETRY_SECONDS)


def _most_connections(settings: Settings) -> int:
    """``--max-connections``, or fewer if the limit of open files is too low for it."""
    return min(settings.max_connections, connections_for(resource.getrlimit(resource.RLIMIT_NOFILE)[0]))


def _warn_of_few_descriptors(settings: Settings) -> None:
    possible = _most_connections(settings)
    if possible < settings.max_connections:
        log.warning(
            "the limit of open files is too low for --max-connections; raise it (ulimit -Hn)",
            descriptors=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            max_connections=possible,
        )


def serve(arguments: ProcessArguments) -> None:
    """Serve until SIGTERM or SIGINT, then finish what was accepted.

    granian's own supervisor is not used: it would hold granian and the application, and it ends the server when a process
    dies twice within 5.5 seconds. This process runs what granian's supervisor would start as a process.
    """
    settings = arguments.settings
    uses_tls = settings.tls_certificate is not None
    descriptors = set_descriptor_limit(reserve=uses_tls)
    accept_queue = min(ACCEPT_QUEUE, descriptors // 8) if uses_tls else ACCEPT_QUEUE  # less than the reserve of descriptors
    granian = MPServer(
        "ecomcharge",
        address="::1" if arguments.address == LOCALHOST else arguments.address,
        port=settings.port,
        interface=Interfaces.RSGI,
        loop=Loops.uvloop,
        runtime_mode=RuntimeModes.st,
        http=HTTPModes.http1,
        websockets=False,
        backlog=accept_queue,
        backpressure=_most_connections(settings),
        http1_settings=HTTP1Settings(
            header_read_timeout=settings.header_timeout_seconds * 1000,
            max_buffer_size=max(8192, settings.max_header_bytes),
        ),
        ssl_cert=Path(settings.tls_certificate) if settings.tls_certificate else None,
        ssl_key=Path(settings.tls_key) if settings.tls_key else None,
        ssl_protocol_min=SSLProtocols.tls12,
        log_dictconfig=granian_logging(settings.log_format),
        log_level=LogLevels.warning,
    )
    if arguments.address == LOCALHOST:
        descriptor = listen_on_both_loopback_addresses(settings.port).detach()
        granian._shd, granian._sso = SocketHolder(descriptor, False, accept_queue), None  # type: ignore[assignment, call-arg]
    else:
        granian._init_shared_socket()  # type: ignore[no-untyped-call]
    loader = functools.partial(load_application, arguments)
    granian._spawn_worker(0, MPServer._spawn_rsgi_worker, loader).inner.run()


if __name__ == "__main__":
    serve(read_arguments())
