"""Composition: everything is wired here, by hand, top to bottom."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import gc
import multiprocessing
import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec
import structlog
from granian.constants import HTTPModes, Interfaces, Loops, SSLProtocols
from granian.http import HTTP1Settings
from granian.log import LogLevels

from ecomcharge import backlog, idempotency, observability
from ecomcharge.checkout.pages import CheckoutPages
from ecomcharge.clock import Clock, SystemClock
from ecomcharge.customers.routes import CustomerRoutes
from ecomcharge.errors import EcomchargeError, Unusable
from ecomcharge.events import store as events
from ecomcharge.events.routes import EventRoutes
from ecomcharge.gateways.directory import Gateways
from ecomcharge.keys import MasterKey, master_key_of
from ecomcharge.metrics_endpoint import metrics_endpoint
from ecomcharge.plans.routes import PlanRoutes
from ecomcharge.sandbox.clock import SandboxClock
from ecomcharge.sandbox.moves import ClockMoves
from ecomcharge.sandbox.routes import ClockRoutes
from ecomcharge.settings import Settings
from ecomcharge.shops import store as shops
from ecomcharge.shops.actions import check_master_key, check_no_real_gateway, create_shop
from ecomcharge.shops.model import Credentials
from ecomcharge.storage import open_database
from ecomcharge.storage.database import Database
from ecomcharge.storage.migrate import migrate
from ecomcharge.subscriptions.actions import Mints
from ecomcharge.subscriptions.billing import Billing
from ecomcharge.subscriptions.routes import SubscriptionRoutes
from ecomcharge.supervisor import Supervisor
from ecomcharge.web.auth import Authenticator, PerAddress, RequestRate, trusted_networks
from ecomcharge.web.html import DocsRoutes
from ecomcharge.web.openapi import OpenApiRoutes
from ecomcharge.web.operations import OperationRoutes
from ecomcharge.web.server import AsgiDoor, Limits, RsgiDoor, Server
from ecomcharge.webhooks import store as webhooks
from ecomcharge.webhooks.actions import Teller
from ecomcharge.webhooks.delivery import Delivery
from ecomcharge.worker import Worker, run_until_signalled

log = structlog.get_logger()

HOUSEKEEPING_SECONDS = 60.0
FORGOTTEN_PER_COMMIT = 500
RETRY_SECONDS: Final = 1.0
SANDBOX_SHOP_ID: Final = 1
STARTED_FILE: Final = "started"  # in the metrics directory, once a server process was ready
WORKER_STOP_SECONDS: Final = 40.0
NICENESS: Final = 10  # where cores are short, requests go before charges
SWITCH_INTERVAL_SECONDS: Final = 0.001  # how long granian's thread and the committing one wait for the interpreter at most
_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True)
class Engine:
    """What moves money and tells of it, wired up: for a server's worker, a billing worker, and the command line."""

    database: Database
    clock: Clock
    gateways: Gateways
    billing: Billing
    delivery: Delivery
    worker: Worker

    async def close(self) -> None:
        await self.delivery.close()
        await self.gateways.close()


def engine_of(
    settings: Settings, database: Database, master_key: MasterKey, clock: Clock, metrics: observability.Metrics | None = None
) -> Engine:
    """``metrics`` counts the outcomes of charges."""
    base_url = settings.base_url()
    gateways = Gateways(database, master_key, base_url, settings.gateway_timeout_seconds, sandbox_mode=settings.sandbox)
    lease = settings.lease_seconds * 1000
    billing = Billing(
        *(database, gateways, Teller(base_url), clock, settings.zone(), lease),
        gateway_timeout_seconds=settings.gateway_timeout_seconds,
    )
    if metrics is not None:
        billing = replace(billing, on_outcome=metrics.count_charge)
    allow_private = settings.webhooks_to_private_addresses or settings.sandbox
    delivery = Delivery(database, master_key, clock, lease, allow_private=allow_private)
    return Engine(database, clock, gateways, billing, delivery, Worker(database, billing, delivery, clock))


class App:
    """One worker: a database, the server in front of it, and the housekeeping beside it."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock | None = None,
        metrics_directory: str | None = None,
        housekeeping_seconds: float = HOUSEKEEPING_SECONDS,
        adopted_pid: int | None = None,
    ) -> None:
        self.settings = settings
        self._housekeeping_seconds = housekeeping_seconds
        self._given_clock = clock
        self.clock: Clock
        self.database: Database
        self.engine: Engine
        self.server: Server
        self.metrics = observability.Metrics(metrics_directory, adopted_pid)
        self.journal = observability.Journal(settings.log_format, self.metrics)
        self._beside: list[asyncio.Task[None]] = []
        self.clock_moves: ClockMoves | None = None

    async def start(self) -> None:
        """Open the database and be ready for requests. Raises ``Unusable``."""
        settings = self.settings
        master_key = master_key_of(settings)
        self.database = await open_database(settings.database, postgres_connections=settings.postgres_connections)
        failed_logins = PerAddress("failed-logins", settings.failed_logins_per_minute, settings.trusted_proxies)
        payments = PerAddress("checkout", settings.checkouts_per_minute, settings.trusted_proxies)
        authenticator = Authenticator(self.database, master_key, SystemClock(), failed_logins)
        sandbox_clock = SandboxClock(self.database) if settings.sandbox and self._given_clock is None else None
        self.clock = self._given_clock or sandbox_clock or SystemClock()
        engine = self.engine = engine_of(settings, self.database, master_key, self.clock, self.metrics)
        self.clock_moves = ClockMoves(sandbox_clock, engine.worker.advance) if sandbox_clock else None
        mints = Mints()
        routes = [
            *CustomerRoutes(self.database, self.clock, mints.customer).routes(),
            *PlanRoutes(self.database, self.clock, settings.base_url(), mints.plan).routes(),
            *SubscriptionRoutes(engine.billing, master_key, mints).routes(),
            *EventRoutes(self.database, self.clock).routes(),
            *CheckoutPages(engine.billing, master_key, mints, payments).routes(),
            *(ClockRoutes(self.clock_moves, settings.zone()).routes() if self.clock_moves else ()),
            *OperationRoutes(self.database, self.journal, self.metrics).routes(),
            *OpenApiRoutes().routes(),
            *DocsRoutes().routes(),
        ]
        rate = RequestRate(settings.requests_per_second / max(1, settings.workers))
        self.server = Server(routes, authenticator, rate, self.journal, sandbox_clock.refresh if sandbox_clock else None)
        self._beside = [
            asyncio.create_task(self._every(self._housekeeping_seconds, self._forget_what_is_old)),
            asyncio.create_task(self._every(observability.SNAPSHOT_SECONDS, self._write_metrics)),
            asyncio.create_task(self._every(backlog.REFRESH_SECONDS, self._read_backlog)),
        ]

    async def stop(self) -> None:
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
        try:
            with contextlib.suppress(OSError):
                await self._write_metrics()
            if self.clock_moves is not None:
                await self.clock_moves.close()
            await self.engine.worker.finish()  # what a move of the clock began
            await self.engine.close()
        finally:
            await self.database.close()

    @property
    def limits(self) -> Limits:
        settings = self.settings
        return Limits(settings.max_body_bytes, settings.body_timeout_seconds, settings.stall_timeout_seconds)

    def rsgi(self) -> RsgiDoor:
        return RsgiDoor(self.server, self.limits)

    def asgi(self) -> AsgiDoor:
        return AsgiDoor(self.server, self.limits)

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await work()
            except EcomchargeError as error:
                log.warning("housekeeping put off", reason=error.code)
            except Exception:  # whatever it was, the next round tries again
                log.exception("housekeeping failed")

    async def _forget_what_is_old(self) -> None:
        """Idempotency keys are kept for a day, events and webhooks for thirty; what is older goes, a little at a time."""
        for shop in await shops.all_shops(self.database):
            for forget_some_old in (idempotency.forget_some_old, events.forget_some_old, webhooks.forget_some_old):
                forgotten = FORGOTTEN_PER_COMMIT
                while forgotten == FORGOTTEN_PER_COMMIT:
                    now = await self.clock.read()  # before each transaction: another process may set a sandbox clock back
                    forgotten = await forget_some_old(self.database, shop.shop_id, now, FORGOTTEN_PER_COMMIT)
                    await asyncio.sleep(0.1 if forgotten else 0)  # lets others commit

    async def _read_backlog(self) -> None:
        """Only where no other process of the server does: it is kept for all."""
        if self.metrics.backlog_age_seconds() >= backlog.STALE_SECONDS:
            await read_and_keep_backlog(self.database, self.clock, self.metrics)

    async def _write_metrics(self) -> None:
        self.journal.flush()
        self.metrics.write(self.database.load)


async def read_and_keep_backlog(database: Database, clock: Clock, metrics: observability.Metrics) -> None:
    if isinstance(clock, SandboxClock):
        await clock.refresh()
    metrics.keep_backlog(await backlog.read_backlog(database, clock.now()))


class _Worker(RsgiDoor):
    """granian's view of a worker: a door that closes the application behind it."""

    def __init__(self, app: App) -> None:
        super().__init__(app.server, app.limits)
        self._app = app

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.run_until_complete(self._app.stop())
        self.close()


def load_worker(settings: Settings, metrics_directory: str, adopted_pid: int | None = None) -> _Worker:
    """Called by granian in each worker process, with the worker's event loop set and not yet running.

    ``adopted_pid`` is a process that died, whose metrics it continues.
    """
    die_with_parent()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    observability.configure_logging(settings.log_format)
    _take_turns()
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    app = App(settings, metrics_directory=metrics_directory, adopted_pid=adopted_pid)
    _start_patiently(app)
    Path(metrics_directory, STARTED_FILE).touch()
    _spare_the_collector()
    return _Worker(app)


def _take_turns() -> None:
    """On Linux, let the threads of this worker finish what they do when another of them, or of its neighbours, wakes.

    Each answer wakes granian's thread and each request ours. Where both share a core they would take it from each other
    at every one of them, and find the processor's caches full of the other's things.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # some sandboxes and C libraries refuse it
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _start_patiently(app: App) -> None:
    """Start once the database is there. A server whose new workers gave up at once would end with its database."""
    while True:
        try:
            asyncio.get_event_loop().run_until_complete(app.start())
            return
        except Unusable as error:  # the settings were good when the server was prepared
            log.warning("a worker waits for the database", reason=str(error))
            time.sleep(RETRY_SECONDS)


def _spare_the_collector() -> None:
    """Let the cyclic garbage collector pass over what lives as long as the worker, and come less often.

    Requests leave no cycles behind but those of a few errors.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def die_with_parent(supervisor_pid: int | None = None) -> None:
    """On Linux, end this process when its supervisor is killed, so that no orphan keeps the port or goes on charging.

    ``supervisor_pid`` is of a process that multiprocessing did not start.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    supervisor = multiprocessing.parent_process()
    if supervisor is not None:
        supervisor_pid = supervisor.pid
    if supervisor_pid is not None and os.getppid() != supervisor_pid:
        sys.exit("the supervisor is gone")  # it was killed before we could ask to be told


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then finish what was accepted. To be prepared first.

    Raises ``Unusable`` when no server process can start.
    """
    multiprocessing.set_start_method("spawn", force=True)
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="ecomcharge-metrics-"))
        if settings.worker:
            stack.enter_context(WorkerBeside(settings, directory))
        supervisor = Supervisor(
            "ecomcharge",
            address=listening_address(settings),
            port=settings.port,
            interface=Interfaces.RSGI,
            loop=Loops.uvloop,
            http=HTTPModes.http1,
            websockets=False,
            workers=settings.workers,
            backpressure=settings.max_concurrent_requests,
            workers_kill_timeout=settings.shutdown_timeout_seconds,
            http1_settings=HTTP1Settings(
                header_read_timeout=settings.header_timeout_seconds * 1000,
                max_buffer_size=max(8192, settings.max_header_bytes),
            ),
            ssl_cert=Path(settings.tls_certificate) if settings.tls_certificate else None,
            ssl_key=Path(settings.tls_key) if settings.tls_key else None,
            ssl_protocol_min=SSLProtocols.tls12,
            log_dictconfig=observability.granian_logging(settings.log_format),
            log_level=LogLevels.warning,
            has_started=Path(directory, STARTED_FILE).exists,
        )
        supervisor.serve(target_loader=functools.partial(load_worker, settings, directory), wrap_loader=False)
    if supervisor.could_not_start:
        raise Unusable("no server process could start; the lines above say why")


class _BesideServer(msgspec.Struct):
    """What a billing worker beside a server is started with."""

    settings: Settings
    metrics_directory: str
    supervisor_pid: int
    adopted_pid: int | None = None  # of the first one that ended, whose metrics it continues


class WorkerBeside:
    """A billing worker as a process beside the server's, so that charging never makes a request wait. Started again if it ends.

    It reads its settings from standard input: they hold the master key. Its metrics are the server's.
    """

    def __init__(self, settings: Settings, metrics_directory: str) -> None:
        self._given = _BesideServer(replace(settings, metrics_port=0), metrics_directory, os.getpid())
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._watch, name="billing-worker", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        if self._process is not None:
            self._process.terminate()
        self._thread.join(WORKER_STOP_SECONDS)
        if self._thread.is_alive() and self._process is not None:
            self._process.kill()

    def _watch(self) -> None:
        while not self._stopping.is_set():
            try:
                self._process = subprocess.Popen([sys.executable, "-m", "ecomcharge.app"], stdin=subprocess.PIPE)
            except OSError as error:  # no memory or no process left for it: later, perhaps
                log.error("the worker cannot be started", reason=error.strerror)
                self._stopping.wait(RETRY_SECONDS)
                continue
            assert self._process.stdin is not None
            with contextlib.suppress(BrokenPipeError), self._process.stdin as pipe:
                pipe.write(msgspec.json.encode(self._given))
            if self._stopping.is_set():
                self._process.terminate()
            code = self._process.wait()
            self._given.adopted_pid = self._given.adopted_pid or self._process.pid
            if not self._stopping.is_set():
                log.error("the worker ended and is started again", code=code)
                self._stopping.wait(RETRY_SECONDS)


async def work(
    settings: Settings, stopped: asyncio.Event, metrics_directory: str | None = None, adopted_pid: int | None = None
) -> None:
    """Charge and deliver what is due until it is stopped. Raises ``Unusable`` when settings or database cannot be used.

    Metrics are written for the server in ``metrics_directory``, or served on ``metrics_port`` if there is one.
    """
    master_key = master_key_of(settings)
    database = await open_database(settings.database, postgres_connections=settings.postgres_connections, serves=False)
    try:
        clock = SandboxClock(database) if settings.sandbox else SystemClock()
        metrics = observability.Metrics(metrics_directory, adopted_pid)
        engine = engine_of(settings, database, master_key, clock, metrics)
        _spare_the_collector()  # a full collection took 30 ms, and offers nobody the processor
        try:
            async with contextlib.AsyncExitStack() as stack:
                if settings.metrics_port:
                    exposition = functools.partial(metrics.exposition, database.load)
                    await stack.enter_async_context(metrics_endpoint(settings.metrics_host, settings.metrics_port, exposition))
                if settings.metrics_port or metrics_directory is not None:
                    await stack.enter_async_context(_measured(database, clock, metrics))
                await engine.worker.run(stopped)
        finally:
            await engine.close()
    finally:
        await database.close()


@contextlib.asynccontextmanager
async def _measured(database: Database, clock: Clock, metrics: observability.Metrics) -> AsyncIterator[None]:
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
            await asyncio.sleep(observability.SNAPSHOT_SECONDS)

    tasks = [asyncio.create_task(read_now_and_then()), asyncio.create_task(write_now_and_then())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(OSError):
            metrics.write()


def _work_beside() -> None:
    os.nice(NICENESS)
    given = msgspec.json.decode(sys.stdin.buffer.read(), type=_BesideServer)
    die_with_parent(given.supervisor_pid)
    observability.configure_logging(given.settings.log_format)
    while True:
        try:
            run_until_signalled(lambda stopped: work(given.settings, stopped, given.metrics_directory, given.adopted_pid))
            return
        except Unusable as error:  # the settings were good when the server was prepared
            log.warning("the worker waits for the database", reason=str(error))
            time.sleep(RETRY_SECONDS)


def check_tls(settings: Settings) -> None:
    if bool(settings.tls_certificate) != bool(settings.tls_key):
        raise Unusable("TLS needs both --tls-certificate and --tls-key")
    if settings.tls_certificate and settings.tls_key:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_certificate, settings.tls_key)
        except OSError as error:  # ssl.SSLError is one
            raise Unusable(f"cannot use {settings.tls_certificate} with {settings.tls_key}: {error.strerror or error}") from error


def listening_address(settings: Settings) -> str:
    """The IP address of the host. Raises ``Unusable`` when it cannot be listened on.

    Workers share the port (SO_REUSEPORT), and so would two servers without knowing; a plain bind tells.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no such host"
        raise Unusable(f"cannot listen on {settings.host}:{settings.port}: {reason}") from error
    return str(address[0])


async def prepare(settings: Settings, now: int) -> Credentials | None:
    """Check what can be checked and migrate the database; in sandbox mode make a first shop where there is none.

    Returns that shop's credentials. Raises ``Unusable`` when a setting or the database cannot be used.
    """
    settings.check()
    check_tls(settings)
    listening_address(settings)
    trusted_networks(settings.trusted_proxies)
    return await prepare_database(settings, functools.partial(_first_shop, now) if settings.sandbox else None)


async def prepare_database(
    settings: Settings, then: Callable[[Database, MasterKey], Awaitable[Credentials | None]] | None = None
) -> Credentials | None:
    """Migrate it, and see that the master key is the one of this database, and that a sandbox has no real gateway.

    Raises ``Unusable``.
    """
    settings.check()
    master_key = master_key_of(settings)
    database = await open_database(settings.database, postgres_connections=settings.postgres_connections)
    try:
        for migration in await migrate(database):
            log.info("migration applied", version=migration.version, name=migration.name)
        await check_master_key(database, master_key)
        if settings.sandbox:
            await check_no_real_gateway(database)
        return await then(database, master_key) if then is not None else None
    finally:
        await database.close()


async def _first_shop(now: int, database: Database, master_key: MasterKey) -> Credentials | None:
    if await shops.all_shops(database):
        return None
    return await create_shop(database, master_key, now, name="Sandbox", shop_id=SANDBOX_SHOP_ID)


if __name__ == "__main__":
    _work_beside()
