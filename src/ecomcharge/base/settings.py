"""Every setting, each explained beside itself.

Each is an option of ``ecomcharge serve`` (``--max-body-bytes``) and an environment variable
(``ECOMCHARGE_MAX_BODY_BYTES``); the option wins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from ecomcharge.base.errors import ConfigurationError

DEFAULT_DATABASE = "sqlite:///ecomcharge.db"

# Smallest and largest value of the settings that are numbers.
RANGES = {
    "port": (1, 65_535),
    "workers": (1, 256),
    "max_body_bytes": (1, 2**30),
    "max_header_bytes": (8_192, 2**30),
    "header_timeout_seconds": (1, 86_400),
    "body_timeout_seconds": (1, 86_400),
    "stall_timeout_seconds": (1, 86_400),
    "max_concurrent_requests": (1, 1_000_000),
    "requests_per_second": (0, 1_000_000),
    "failed_logins_per_minute": (0, 1_000_000),
    "gateway_timeout_seconds": (1, 90),
    "checkouts_per_minute": (0, 1_000_000),
    "postgres_connections": (1, 10_000),
    "shutdown_timeout_seconds": (1, 86_400),
    "lease_seconds": (1, 86_400),
    "metrics_port": (0, 65_535),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the server.

    Attributes
    ----------
    host
        Address to listen on.
    port
        Port to listen on.
    database
        ``sqlite:///path/to/file.db`` or ``postgresql://user:password@host:port/name``.
    workers
        Server processes. One per core that may be used; they share the port and the database.
    sandbox
        Sandbox mode: make a first shop where there is none and print its credentials, offer a clock that can be moved,
        and send webhooks to private addresses too. It does not start where an open shop has a real gateway. Not for
        production.
    public_url
        Where browsers find this server, for the addresses of its pages. Without it ``http://host:port``.
    time_zone
        IANA name of the time zone in which the days, weeks, months and years of plans are counted, charges are repeated at
        03:00 or kept between 08:00 and 20:00, and pages write dates. Changing it keeps every date that was promised.
    worker
        Run a worker beside the server, which charges what is due and sends webhooks. Where machines are many, a few
        ``ecomcharge worker`` do as well.
    lease_seconds
        How long what a worker began is left to it; if it was killed meanwhile, another looks after it then. A call of the
        gateway ends before that, so a value below the gateway's time-out and five more gives the gateway less time. That is
        safe, and asks the gateway more often. Webhooks are left for 90 at least.
    webhooks_to_private_addresses
        Send webhooks to loopback, private and link-local addresses too; sandbox mode always does.
    master_key
        Base64 of 32 bytes under which shop keys are hashed and sealed. Better given as an environment variable.
    master_key_file
        File that holds the master key. With SQLite the default is a file beside the database, made at first need.
    tls_certificate
        PEM file with the certificate chain. With it and the key the server speaks HTTPS.
    tls_key
        PEM file with the certificate's private key.
    trusted_proxies
        Addresses or networks, separated by commas, whose X-Forwarded-For is believed. Empty: nobody's.
    max_body_bytes
        Largest request body; a larger one gets 413.
    max_header_bytes
        Largest request line and headers together, 8192 or more; larger ones get 431.
    header_timeout_seconds
        How long the headers of a request may take to arrive, and how long an idle connection is kept.
    body_timeout_seconds
        How long a request body may take to arrive; a slower one gets 408.
    stall_timeout_seconds
        How long a client may take nothing of a long answer before it is cut off.
    max_concurrent_requests
        Requests in progress in one worker; more wait in the kernel's queue.
    requests_per_second
        Requests per second that one shop may make, shared evenly by the workers; more get 429. 0: unlimited.
    failed_logins_per_minute
        Failed logins per minute and client address (IPv6: per /64) in one worker; further failures get 429,
        while right credentials still pass. 0: unlimited.
    gateway_timeout_seconds
        How long a real gateway may take to answer. A charge without an answer by then is looked up a minute later,
        before anything else is tried.
    checkouts_per_minute
        Cards that may be tried and pay links that may be opened per minute and client address (IPv6: per /64) in one
        worker; more get 429. 0: unlimited.
    postgres_connections
        Most connections of one worker to PostgreSQL.
    shutdown_timeout_seconds
        How long requests in progress may take to finish after SIGTERM.
    metrics_host
        Address on which ``ecomcharge worker`` answers ``/metrics`` and ``/healthz``.
    metrics_port
        Port on which ``ecomcharge worker`` answers them; 0: on none. ``ecomcharge serve`` answers them on its own port.
    log_format
        ``json`` (one object per line), ``console`` (for people), or ``auto``: console on a terminal.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    database: str = DEFAULT_DATABASE
    workers: int = 1
    sandbox: bool = False
    public_url: str | None = None
    time_zone: str = "UTC"
    worker: bool = True
    lease_seconds: int = 120
    webhooks_to_private_addresses: bool = False
    master_key: str | None = None
    master_key_file: str | None = None
    tls_certificate: str | None = None
    tls_key: str | None = None
    trusted_proxies: str = ""
    max_body_bytes: int = 64 * 1024
    max_header_bytes: int = 32 * 1024
    header_timeout_seconds: int = 30
    body_timeout_seconds: int = 30
    stall_timeout_seconds: int = 60
    max_concurrent_requests: int = 1024
    requests_per_second: int = 0
    failed_logins_per_minute: int = 60
    gateway_timeout_seconds: int = 30
    checkouts_per_minute: int = 30
    postgres_connections: int = 8
    shutdown_timeout_seconds: int = 30
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 0
    log_format: Literal["auto", "json", "console"] = "auto"

    def check(self) -> None:
        """Raises ``ConfigurationError`` for a number out of its range."""
        for name, (least, most) in RANGES.items():
            if not least <= getattr(self, name) <= most:
                raise ConfigurationError(f"--{name.replace('_', '-')} must be between {least} and {most}")
        self.zone()
        if self.public_url is not None and not _is_base_url(self.public_url):
            raise ConfigurationError("--public-url must be http:// or https:// with a host, and no query")

    def zone(self) -> ZoneInfo:
        """Raises ``ConfigurationError`` for a name that no time zone has."""
        try:
            return ZoneInfo(self.time_zone)
        except (KeyError, ValueError, OSError) as error:
            raise ConfigurationError(
                f"--time-zone: no time zone {self.time_zone}; write an IANA name such as Europe/Minsk"
            ) from error

    def base_url(self) -> str:
        """Where browsers find this server, without a slash at its end."""
        if self.public_url is not None:
            return self.public_url.rstrip("/")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls_certificate else 'http'}://{host}:{self.port}"


def _is_base_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment)
    except ValueError:
        return False
