"""The settings, each with its explanation.

Each is an option of ``ecomcharge serve`` (``--max-body-bytes``) and an environment variable
(``ECOMCHARGE_MAX_BODY_BYTES``); the option wins.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from ecomcharge.base.errors import ConfigurationError

Pooler = Literal["auto", "session", "transaction"]
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
    "first_byte_timeout_seconds": (1, 86_400),
    "max_connections": (8, 1_000_000),
    "connections_per_address": (0, 1_000_000),
    "max_concurrent_requests": (1, 1_000_000),
    "requests_per_second": (0, 1_000_000),
    "failed_logins_per_minute": (0, 1_000_000),
    "shop_failed_logins_per_minute": (0, 1_000_000),
    "gateway_timeout_seconds": (1, 90),
    "checkouts_per_minute": (0, 1_000_000),
    "card_attempts_per_hour": (0, 1_000_000),
    "shop_checkouts_per_minute": (0, 1_000_000),
    "postgres_connections": (1, 10_000),
    "shutdown_timeout_seconds": (1, 86_400),
    "lease_seconds": (1, 86_400),
    "metrics_port": (0, 65_535),
    "hsts_seconds": (0, 315_360_000),
}

_ORIGIN = re.compile(
    r"(?:https://[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*|http://(?:localhost|127\.0\.0\.1))"
    r"(?::[0-9]{1,5})?\Z",
    re.IGNORECASE,
)


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
        Sandbox mode: create a first shop if there is none and print its credentials, offer a clock that can be moved, and
        send webhooks to private addresses too. It does not start if an open shop has a real gateway. Not for production.
    public_url
        Address of this server for browsers, used in links to its pages. The default is ``http://host:port``, with the loopback
        address in place of ``0.0.0.0`` and ``::``.
    time_zone
        IANA name of the time zone of the calendar: of the days, weeks, months and years of plans, of retries at 03:00, of the
        hours between 08:00 and 20:00, and of the dates on pages. A change keeps every date that is already set.
    worker
        Run a billing worker beside the server. It makes the charges that are due and sends webhooks. With many machines, a
        few processes of ``ecomcharge worker`` are enough.
    lease_seconds
        How long a worker owns the work that it started. If it was killed, another worker takes the work over after this
        time. A call of the gateway ends before the lease does, so a value below the gateway's time-out plus five gives the
        gateway less time. That is safe, but the gateway is asked more often. The lease of a webhook is at least 90.
    webhooks_to_private_addresses
        Send webhooks to loopback, private and link-local addresses too; sandbox mode always does.
    master_key
        Base64 of the 32 bytes that hash and encrypt shop keys. Prefer the environment variable.
    master_key_file
        File that holds the master key. With SQLite the default is a file beside the database, which is created when it is needed.
    tls_certificate
        PEM file with the certificate chain. With a certificate and its key the server speaks HTTPS.
    tls_key
        PEM file with the certificate's private key.
    trusted_proxies
        Addresses or networks, separated by commas, whose X-Forwarded-For header is trusted. Empty: none.
    frame_ancestors
        Origins, separated by commas, whose pages may contain the payment pages in a frame, such as https://shop.example.
        Empty: none.
    max_body_bytes
        Largest request body; a larger one gets 413.
    max_header_bytes
        Largest request line and headers together, 8192 or more; larger ones get 431.
    header_timeout_seconds
        How long the headers of a request may take to arrive, and how long an idle connection is kept.
    first_byte_timeout_seconds
        How long a new connection may send nothing. While more than half of the connections are in use: a quarter of
        a second.
    body_timeout_seconds
        How long a request body may take to arrive; a slower one gets 408.
    stall_timeout_seconds
        How long a client may read nothing of a long answer before its connection is closed.
    max_connections
        Connections of one server process. Above three quarters of them, connections that wait for a request or for the end of
        its headers are closed, those that wait for longest first. More wait in the queue of the kernel.
    connections_per_address
        Connections per client address (IPv6: per /64) in one server process. Of more, those that wait for a request are
        closed. Loopback addresses and trusted proxies have no such limit. 0: unlimited.
    max_concurrent_requests
        Requests in progress in one server process; more wait. Requests that wait for their body are not counted.
    requests_per_second
        Requests per second of one shop, divided evenly among the server processes; more get 429. 0: unlimited.
    failed_logins_per_minute
        Failed logins per minute and client address (IPv6: per /64, and ten times as many per /48), divided evenly among the
        server processes. Further attempts get 429 and are not verified, except with credentials that the process has verified
        before. 0: unlimited.
    shop_failed_logins_per_minute
        Failed logins per minute and shop, with keys that were not generated by this program, divided evenly among the server
        processes; more get 429, as above. 0: unlimited.
    gateway_timeout_seconds
        How long a real gateway may take to answer. A charge without an answer in that time is looked up a minute later,
        before anything else is tried.
    checkouts_per_minute
        Cards submitted and POSTs to pay links per minute and client address (IPv6: per /64) in one server process; more get
        429. 0: unlimited.
    card_attempts_per_hour
        How often one card may be tried per hour on the payment pages of one server process, at real gateways; more get 429.
        0: unlimited.
    shop_checkouts_per_minute
        Cards submitted per minute on the payment pages of one shop in one server process, at real gateways; more get 429.
        0: unlimited.
    postgres_connections
        Largest number of connections of one process to PostgreSQL.
    postgres_pooler
        Mode of a pooler such as PgBouncer between this program and PostgreSQL: ``session``, ``transaction``, or ``auto``: what
        works in either mode if there is a pooler.
    read_from
        URL of a standby of PostgreSQL, or of several. Lists and exports whose request allows a stale answer by
        ``Prefer: stale=SECONDS`` are read from it, if it is recent enough. The default is none.
    shutdown_timeout_seconds
        How long requests in progress may run after SIGTERM.
    metrics_host
        Address of the port for metrics.
    metrics_port
        Port on which ``/metrics`` and ``/healthz`` are served. 0: ``ecomcharge serve`` serves them on its own port, and
        ``ecomcharge worker`` does not serve them. With a port, ``serve`` has ``/metrics`` on this port only.
    hsts_seconds
        How long browsers use HTTPS only (Strict-Transport-Security), sent if the public URL is https. 0: not sent.
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
    frame_ancestors: str = ""
    max_body_bytes: int = 64 * 1024
    max_header_bytes: int = 32 * 1024
    header_timeout_seconds: int = 30
    body_timeout_seconds: int = 30
    first_byte_timeout_seconds: int = 5
    stall_timeout_seconds: int = 60
    max_connections: int = 4096
    connections_per_address: int = 256
    max_concurrent_requests: int = 1024
    requests_per_second: int = 0
    failed_logins_per_minute: int = 60
    shop_failed_logins_per_minute: int = 300
    gateway_timeout_seconds: int = 30
    checkouts_per_minute: int = 30
    card_attempts_per_hour: int = 10
    shop_checkouts_per_minute: int = 600
    postgres_connections: int = 8
    postgres_pooler: Pooler = "auto"
    read_from: str | None = None
    shutdown_timeout_seconds: int = 30
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 0
    hsts_seconds: int = 31_536_000
    log_format: Literal["auto", "json", "console"] = "auto"

    def check(self) -> None:
        """Raises ``ConfigurationError`` for a number out of its range."""
        for name, (least, most) in RANGES.items():
            if not least <= getattr(self, name) <= most:
                raise ConfigurationError(f"--{name.replace('_', '-')} must be between {least} and {most}")
        self.zone()
        if self.public_url is not None and not _is_base_url(self.public_url):
            raise ConfigurationError("--public-url must be http:// or https:// with a host, and no query")
        self.frame_ancestor_origins()

    def failed_logins_of_process(self) -> int:
        """The share of one server process in the failed logins of an address; 0: unlimited."""
        return -(-self.failed_logins_per_minute // max(1, self.workers))

    def shop_failed_logins_of_process(self) -> int:
        """The share of one server process in the failed logins of a shop; 0: unlimited."""
        return -(-self.shop_failed_logins_per_minute // max(1, self.workers))

    def zone(self) -> ZoneInfo:
        """Raises ``ConfigurationError`` for a name that is not a time zone."""
        try:
            return ZoneInfo(self.time_zone)
        except (KeyError, ValueError, OSError) as error:
            raise ConfigurationError(
                f"--time-zone: no time zone {self.time_zone}; write an IANA name such as Europe/Minsk"
            ) from error

    def frame_ancestor_origins(self) -> list[str]:
        """Raises ``ConfigurationError`` for a text that is not an origin."""
        origins = [part.strip() for part in self.frame_ancestors.split(",") if part.strip()]
        for origin in origins:
            if not _ORIGIN.match(origin):
                raise ConfigurationError(
                    f"--frame-ancestors: {origin} is not an origin; write https:// and a host name in ASCII, and a port if it has"
                    " one, without a path (http:// only for localhost and 127.0.0.1)"
                )
        return origins

    def base_url(self) -> str:
        """The address of this server for browsers, without a slash at its end."""
        if self.public_url is not None:
            return self.public_url.rstrip("/")
        return self.local_url()

    def security_headers(self) -> list[tuple[str, str]]:
        """The headers of every response."""
        headers = [("x-content-type-options", "nosniff")]
        if self.hsts_seconds and self.base_url().startswith("https:"):
            headers.append(("strict-transport-security", f"max-age={self.hsts_seconds}"))
        return headers

    def local_url(self) -> str:
        """The address of this server on its own machine, without a slash at its end.

        A browser cannot open the address of all interfaces, so that the loopback address takes its place.
        """
        host = self.host
        if self.listens_on_all_interfaces():
            host = "::1" if ":" in host else "127.0.0.1"
        return f"{'https' if self.tls_certificate else 'http'}://{f'[{host}]' if ':' in host else host}:{self.port}"

    def listens_on_all_interfaces(self) -> bool:
        """Whether the host is ``0.0.0.0`` or ``::``, in any spelling."""
        try:
            return ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return self.host == "0"  # as the C library reads it


def _is_base_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment)
    except ValueError:
        return False
