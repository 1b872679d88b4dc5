"""Composition: this module creates every object of a process and connects them, top to bottom."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, replace
from typing import Any

import structlog

from ecomcharge.base.clock import Clock, SystemClock
from ecomcharge.base.settings import Settings
from ecomcharge.checkout.limits import CARD_POLICY, HOUR_SECONDS, SHOP_POLICY, PaymentLimits
from ecomcharge.checkout.pages import CheckoutPages
from ecomcharge.customers.routes import CustomerRoutes
from ecomcharge.events.routes import EventRoutes
from ecomcharge.gateways.registry import GatewayRegistry
from ecomcharge.plans.routes import PlanRoutes
from ecomcharge.runtime import backlog
from ecomcharge.runtime.backlog import read_and_keep_backlog
from ecomcharge.runtime.billing_worker import BillingWorker
from ecomcharge.runtime.housekeeping import ErasedBytes, delete_old_records, every, merge_search_index
from ecomcharge.sandbox.clock import SandboxClock
from ecomcharge.sandbox.moves import ClockMoves
from ecomcharge.sandbox.routes import ClockRoutes
from ecomcharge.shops.keys import MasterKey, master_key_of
from ecomcharge.storage.database import Database
from ecomcharge.storage.opening import open_configured
from ecomcharge.subscriptions.actions import IdGenerators
from ecomcharge.subscriptions.charging import Charging
from ecomcharge.subscriptions.customer_routes import CustomerRecordRoutes
from ecomcharge.subscriptions.notifications import EventRecorder
from ecomcharge.subscriptions.routes import SubscriptionRoutes
from ecomcharge.web.access_log import AccessLog
from ecomcharge.web.asgi import AsgiAdapter
from ecomcharge.web.auth import Authenticator
from ecomcharge.web.bodies import Limits
from ecomcharge.web.dispatcher import Dispatcher
from ecomcharge.web.docs_page import DocsRoutes
from ecomcharge.web.health import HealthRoutes
from ecomcharge.web.metrics import SNAPSHOT_SECONDS, Metrics
from ecomcharge.web.openapi import OpenApiRoutes
from ecomcharge.web.rate_limits import AddressRateLimiter, ClientAddresses, EventLimiter, TokenBucket
from ecomcharge.web.rsgi import RsgiAdapter
from ecomcharge.webhooks.delivery import Delivery

log = structlog.get_logger()

HOUSEKEEPING_SECONDS = 60.0
ERASURE_CHECK_SECONDS = 5.0  # one read of an index


@dataclass(frozen=True)
class BillingServices:
    """The services that charge and report: of a server process, of a billing worker and of a command."""

    database: Database
    clock: Clock
    gateways: GatewayRegistry
    charging: Charging
    delivery: Delivery
    worker: BillingWorker

    async def close(self) -> None:
        await self.charging.unfinished.close()
        await self.delivery.close()
        await self.gateways.close()


def billing_services(
    settings: Settings, database: Database, master_key: MasterKey, clock: Clock, metrics: Metrics | None = None
) -> BillingServices:
    """Create the services of a process. ``metrics``, if given, counts the outcomes of charges."""
    base_url = settings.base_url()
    gateways = GatewayRegistry(database, master_key, base_url, settings.gateway_timeout_seconds, sandbox_mode=settings.sandbox)
    lease = settings.lease_seconds * 1000
    charging = Charging(
        *(database, gateways, EventRecorder(base_url), clock, settings.zone(), lease),
        gateway_timeout_seconds=settings.gateway_timeout_seconds,
    )
    if metrics is not None:
        charging = replace(charging, on_outcome=metrics.count_charge)
    allow_private = settings.webhooks_to_private_addresses or settings.sandbox
    delivery = Delivery(database, master_key, clock, lease, allow_private=allow_private)
    return BillingServices(database, clock, gateways, charging, delivery, BillingWorker(database, charging, delivery, clock))


class App:
    """One server process: a database, the API in front of it, and its periodic tasks."""

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
        self.services: BillingServices
        self.dispatcher: Dispatcher
        self.metrics = Metrics(metrics_directory, adopted_pid)
        self.access_log = AccessLog(settings.log_format, self.metrics.count)
        self._tasks: list[asyncio.Task[None]] = []
        self.clock_moves: ClockMoves | None = None
        self._open_until_stop = contextlib.AsyncExitStack()

    async def start(self) -> None:
        """Open the database and be ready for requests. Raises ``ConfigurationError``."""
        settings = self.settings
        master_key = master_key_of(settings)
        self.database = await open_configured(settings, for_requests=True)
        addresses = ClientAddresses(settings.trusted_proxies)
        guesses = AddressRateLimiter("failed-logins", settings.failed_logins_of_process(), addresses)
        guesses_of_shop = EventLimiter("failed-logins-shop", settings.shop_failed_logins_of_process())
        limits = PaymentLimits(
            AddressRateLimiter("checkout", settings.checkouts_per_minute, addresses),
            EventLimiter(CARD_POLICY, settings.card_attempts_per_hour, HOUR_SECONDS),
            EventLimiter(SHOP_POLICY, settings.shop_checkouts_per_minute),
        )
        authenticator = Authenticator(self.database, master_key, SystemClock(), guesses, guesses_of_shop)
        sandbox_clock = SandboxClock(self.database) if settings.sandbox and self._given_clock is None else None
        self.clock = self._given_clock or sandbox_clock or SystemClock()
        services = self.services = billing_services(settings, self.database, master_key, self.clock, self.metrics)
        self.clock_moves = ClockMoves(sandbox_clock, services.worker.advance) if sandbox_clock else None
        id_generators, base_url = IdGenerators(), settings.base_url()
        health = HealthRoutes(self.database, self.access_log, self.metrics, has_metrics=not settings.metrics_port)
        recorder = services.charging.event_recorder.of_customers
        routes = [
            *CustomerRoutes(self.database, self.clock, id_generators.customer, recorder).routes(),
            *CustomerRecordRoutes(services.charging).routes(),
            *PlanRoutes(self.database, self.clock, base_url, id_generators.plan).routes(),
            *SubscriptionRoutes(self.database, services.charging, base_url, master_key, id_generators).routes(),
            *EventRoutes(self.database, self.clock).routes(),
            *CheckoutPages(
                *(self.database, services.charging, services.gateways, self.clock, settings.zone()),
                *(base_url, master_key, id_generators, limits, settings.frame_ancestor_origins()),
            ).routes(),
            *(ClockRoutes(self.clock_moves, settings.zone()).routes() if self.clock_moves else ()),
            *health.routes(),
            *OpenApiRoutes(self._describe_api).routes(),
            *DocsRoutes().routes(),
        ]
        if settings.metrics_port:
            from ecomcharge.runtime.metrics_endpoint import metrics_endpoint  # most servers have none

            endpoint = metrics_endpoint(settings.metrics_host, settings.metrics_port, health.exposition, shared=True)
            await self._open_until_stop.enter_async_context(endpoint)
        rate = TokenBucket(settings.requests_per_second / max(1, settings.workers))
        before_each = sandbox_clock.refresh if sandbox_clock else None
        self.dispatcher = Dispatcher(routes, authenticator, rate, self.access_log, before_each, settings.security_headers())
        self._tasks = [
            asyncio.create_task(every(self._housekeeping_seconds, lambda: delete_old_records(self.database, self.clock))),
            asyncio.create_task(every(self._housekeeping_seconds, lambda: merge_search_index(self.database))),
            asyncio.create_task(every(min(self._housekeeping_seconds, ERASURE_CHECK_SECONDS), ErasedBytes(self.database).remove)),
            asyncio.create_task(every(SNAPSHOT_SECONDS, self._write_metrics)),
            asyncio.create_task(every(backlog.REFRESH_SECONDS, self._read_backlog)),
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._open_until_stop.aclose()
        try:
            with contextlib.suppress(OSError):
                await self._write_metrics()
            if self.clock_moves is not None:
                await self.clock_moves.close()
            await self.services.worker.finish()  # charges that a move of the clock started
            await self.services.close()
        finally:
            await self.database.close()

    def _describe_api(self) -> dict[str, Any]:
        from ecomcharge.runtime.api_description import describe_api  # when asked for: most processes never are

        return describe_api(self.settings.base_url())

    @property
    def limits(self) -> Limits:
        settings = self.settings
        return Limits(settings.max_body_bytes, settings.body_timeout_seconds)

    def rsgi(self) -> RsgiAdapter:
        return RsgiAdapter(self.dispatcher, self.limits, self.settings.max_concurrent_requests)

    def asgi(self) -> AsgiAdapter:
        return AsgiAdapter(self.dispatcher, self.limits)

    async def _read_backlog(self) -> None:
        """Read the backlog if no other process of the server did: all of them share it."""
        if self.metrics.backlog_age_seconds() >= backlog.STALE_SECONDS:
            await read_and_keep_backlog(self.database, self.clock, self.metrics)

    async def _write_metrics(self) -> None:
        self.access_log.flush()
        self.metrics.write(self.database.stats)
