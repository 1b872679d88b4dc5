"""The checks and the migration before a server or a billing worker starts."""

from __future__ import annotations

import functools
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog

from ecomcharge.base.errors import ConfigurationError
from ecomcharge.base.settings import Settings
from ecomcharge.customers.actions import index_customers, merge_search_index
from ecomcharge.runtime.listening import LOCALHOST, can_listen_on_both_loopback_addresses
from ecomcharge.shops import store as shops
from ecomcharge.shops.actions import check_master_key, check_no_real_gateway, create_shop
from ecomcharge.shops.keys import MasterKey, master_key_of
from ecomcharge.shops.model import Credentials
from ecomcharge.storage.database import Database
from ecomcharge.storage.migrate import migrate
from ecomcharge.storage.opening import open_configured
from ecomcharge.web.rate_limits import trusted_networks

log = structlog.get_logger()


SANDBOX_SHOP_ID: Final = 1


@dataclass(frozen=True, slots=True)
class SandboxShop:
    """A shop to try the sandbox with. ``credentials`` if it was created now; no ``shop_id`` if every shop is closed."""

    shop_id: int | None
    credentials: Credentials | None = None


def check_tls(settings: Settings) -> None:
    if bool(settings.tls_certificate) != bool(settings.tls_key):
        raise ConfigurationError("TLS needs both --tls-certificate and --tls-key")
    if settings.tls_certificate and settings.tls_key:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_certificate, settings.tls_key)
        except OSError as error:  # ssl.SSLError is one
            raise ConfigurationError(
                f"cannot use {settings.tls_certificate} with {settings.tls_key}: {error.strerror or error}"
            ) from error


def listening_address(settings: Settings) -> str:
    """The IP address of the host, or ``LOCALHOST``. Raises ``ConfigurationError`` when it cannot be listened on.

    Server processes share the port (SO_REUSEPORT), so two servers by mistake would share it too. A bind without that
    option fails if another server has the port.
    """
    try:
        if settings.host.lower() == LOCALHOST and can_listen_on_both_loopback_addresses():
            _bind_alone(socket.AF_INET, ("127.0.0.1", settings.port))
            _bind_alone(socket.AF_INET6, ("::1", settings.port))
            return LOCALHOST
        family, _, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        _bind_alone(family, address)
        return str(address[0])
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no such host"
        raise ConfigurationError(f"cannot listen on {settings.host}:{settings.port}: {reason}") from error


def _bind_alone(family: int, address: tuple[Any, ...]) -> None:
    """Raises ``OSError`` if the address cannot be bound, for example because another server has the port."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


async def prepare(settings: Settings, now: int) -> SandboxShop | None:
    """Check what can be checked and migrate the database; in sandbox mode make a first shop where there is none.

    Returns a shop in sandbox mode. Raises ``ConfigurationError`` when a setting or the database cannot be used.
    """
    settings.check()
    check_tls(settings)
    listening_address(settings)
    trusted_networks(settings.trusted_proxies)
    _warn_of_local_links(settings)
    return await prepare_database(settings, functools.partial(_first_shop, now) if settings.sandbox else None)


def _warn_of_local_links(settings: Settings) -> None:
    """The Host header of a request is not used for links: a client can forge it, and pages and webhooks would contain it."""
    if settings.public_url is None and settings.listens_on_all_interfaces():
        log.warning(
            "links to pages work on this machine only; set --public-url to the address that browsers use",
            host=settings.host,
            links_begin_with=settings.base_url(),
        )


async def prepare_database(
    settings: Settings, then: Callable[[Database, MasterKey], Awaitable[SandboxShop]] | None = None
) -> SandboxShop | None:
    """Migrate the database, and check that the master key is its own and that a sandbox has no real gateway.

    Raises ``ConfigurationError``, or ``Unavailable`` if the database cannot be written.
    """
    settings.check()
    master_key = master_key_of(settings)
    database = await open_configured(settings, warn=lambda warning: log.warning("database URL", reason=warning))
    try:
        for migration in await migrate(database):
            log.info("migration applied", version=migration.version, name=migration.name)
        await database.ping()
        for warning in await database.setting_warnings():
            log.warning(warning.consequence, setting=warning.setting, value=warning.value, remedy=warning.remedy)
        if indexed := await index_customers(database):
            await merge_search_index(database)
            log.info("search index completed", customers=indexed)
        await check_master_key(database, master_key)
        if settings.sandbox:
            await check_no_real_gateway(database)
        return await then(database, master_key) if then is not None else None
    finally:
        await database.close()


async def _first_shop(now: int, database: Database, master_key: MasterKey) -> SandboxShop:
    if found := await shops.all_shops(database):
        return SandboxShop(next((shop.shop_id for shop in found if shop.closed_at is None), None))
    credentials = await create_shop(database, master_key, now, name="Sandbox", shop_id=SANDBOX_SHOP_ID)
    return SandboxShop(SANDBOX_SHOP_ID, credentials)
