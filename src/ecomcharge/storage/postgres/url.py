"""Reads the URL of a PostgreSQL database, with the parameters of libpq.

https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlsplit

from ecomcharge.base.errors import ConfigurationError

CONNECT_TIMEOUT_SECONDS: Final = 5.0
CONNECT_TIMEOUT_OF_SEVERAL_SECONDS: Final = 2.0  # for each host: the next one may answer
LONGEST_CONNECT_TIMEOUT_SECONDS: Final = 60.0
APPLICATION_NAME: Final = "ecomcharge"

# asyncpg reads these from the URL itself.
_OF_ASYNCPG: Final = {
    *("user", "password", "dbname", "database", "passfile", "service", "krbsrvname", "gsslib", "sslmode", "sslnegotiation"),
    *("sslcert", "sslkey", "sslpassword", "sslrootcert", "sslcrl", "ssl_min_protocol_version", "ssl_max_protocol_version"),
}
_KEEPALIVES: Final = ("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout")
# With one of these values, a parameter asks for what this program does anyway.
_HARMLESS: Final = {
    "channel_binding": ("disable", "prefer"),
    "gssencmode": ("disable", "prefer"),
    "client_encoding": ("utf8", "utf-8", "auto"),
    "load_balance_hosts": ("disable",),
    "replication": ("false", "off", "no", "0"),
    "sslcompression": ("0",),
    "sslsni": ("1",),
    "sslcertmode": ("allow",),
}
# Parameters of libpq and of other programs that PostgreSQL itself does not know as settings.
_PASSED_OVER: Final = {
    *("hostaddr", "require_auth", "requirepeer", "requiressl", "servicefile", "sslcrldir", "sslkeylogfile", "gssdelegation"),
    *("min_protocol_version", "max_protocol_version", "scram_client_key", "scram_server_key"),
    *("pgbouncer", "schema", "pool_timeout", "connection_limit", "socket_timeout", "statement_cache_size", "ssl", "sslaccept"),
    *("sslidentity", "pool_size", "max_overflow", "prepared_statement_cache_size", "pool_max_conns", "pool_min_conns"),
}
_ADVICE: Final = {
    "channel_binding": "; to be sure of the server, write sslmode=verify-full",
    "ssl": "; write sslmode=require or sslmode=verify-full",
    "schema": "; for another schema write options=-csearch_path%3DNAME",
    "connection_limit": "; use --postgres-connections",
    "pool_size": "; use --postgres-connections",
    "pool_max_conns": "; use --postgres-connections",
}
_FORM: Final = "postgresql://user:password@host:port/name"


class Host(NamedTuple):
    """A server to try. ``None`` leaves the choice to asyncpg, which reads the environment as libpq does."""

    name: str | None
    port: int | None


class Keepalives(NamedTuple):
    """How the kernel notices that the other side is gone. The times are those of the socket options."""

    enabled: bool = True
    idle_seconds: int = 10
    interval_seconds: int = 5
    probes: int = 3
    user_timeout_milliseconds: int = 0  # 0: the kernel's own


@dataclass(frozen=True)
class ConnectionSettings:
    """What the URL asks for.

    ``dsn`` has only the parameters that asyncpg reads itself. PostgreSQL gets ``server_settings`` when a connection starts.
    ``warnings`` are sentences about parameters that are not used.
    """

    dsn: str
    hosts: tuple[Host, ...]
    connect_timeout_seconds: float
    target_session_attrs: str | None
    server_settings: Mapping[str, str]
    tls: ssl.SSLContext | None
    keepalives: Keepalives
    warnings: tuple[str, ...]


def read_url(url: str) -> ConnectionSettings:
    """Raises ``ConfigurationError`` with one sentence; no part of a password is in it."""
    parts = _split(url)
    query = _parameters(parts.query)
    warnings: list[str] = []
    hosts = _hosts(parts, query)
    timeout = _connect_timeout(query, several=len(hosts) > 1)
    keepalives = _keepalives(query)
    target = query.pop("target_session_attrs", None) or os.environ.get("PGTARGETSESSIONATTRS")
    if query.get("gssencmode") == "require":
        raise ConfigurationError("gssencmode=require: this program cannot encrypt by GSSAPI; write sslmode=verify-full")
    _check_files(query)
    tls = _tls_by_system_authorities(query)
    server_settings = {"application_name": query.pop("fallback_application_name", APPLICATION_NAME)}
    of_asyncpg = {}
    for name, value in query.items():
        if name in _OF_ASYNCPG:
            of_asyncpg[name] = value
        elif value.lower() in _HARMLESS.get(name, ()):
            continue
        elif name in _HARMLESS or name in _PASSED_OVER:
            warnings.append(not_used(name))
        else:  # PostgreSQL decides if it is one of its settings
            server_settings[name] = value
    user = parts.netloc.rpartition("@")[0]
    dsn = f"postgresql://{user + '@' if user else ''}{parts.path}"
    if of_asyncpg:
        dsn += "?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in of_asyncpg.items())
    return ConnectionSettings(dsn, hosts, timeout, target, server_settings, tls, keepalives, tuple(warnings))


def not_used(name: str) -> str:
    """The warning about a parameter that is passed over."""
    return f"the parameter {name} of the database URL is not used{_ADVICE.get(name, '')}"


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError as error:  # its text may quote a part of the password
        raise ConfigurationError(
            f"cannot understand the PostgreSQL URL; write {_FORM}, with special characters percent-encoded"
        ) from error
    if parts.netloc.count("@") > 1:
        raise ConfigurationError("the user or the password in the PostgreSQL URL contains @; write it as %40")
    if "@" not in parts.netloc and "@" in url and _is_cut_password(parts):
        raise ConfigurationError(
            "the password in the PostgreSQL URL contains a character that must be percent-encoded:"
            " write / as %2F, ? as %3F and # as %23"
        )
    return parts


def _is_cut_password(parts: SplitResult) -> bool:
    """Whether / ? or # in a password ended the part of the URL that names user and host."""
    hosts = [each for each in parts.netloc.split(",") if not each.startswith("[")]
    is_no_port = any(":" in host and not host.rpartition(":")[2].isdecimal() for host in hosts)
    is_no_query = bool(parts.query) and "=" not in parts.query.partition("&")[0]
    return is_no_port or is_no_query or "/" in parts.path.partition("@")[2] or "@" in parts.fragment


def _parameters(query: str) -> dict[str, str]:
    """As libpq: a plus is a plus, and the last of several values is used."""
    found = {}
    for pair in filter(None, query.split("&")):
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigurationError("a parameter of the PostgreSQL URL has no value; write NAME=VALUE")
        if value:
            found[unquote(name)] = unquote(value)
    return found


def _hosts(parts: SplitResult, query: dict[str, str]) -> tuple[Host, ...]:
    in_query, address = query.pop("host", ""), query.get("hostaddr", "")
    given = [unquote(each) for each in parts.netloc.rpartition("@")[2].split(",")] if parts.netloc.rpartition("@")[2] else []
    names = given or (in_query or os.environ.get("PGHOST") or address).split(",")
    if names == address.split(","):
        query.pop("hostaddr", None)
    ports = [each for each in query.pop("port", "").split(",") if each]
    if len(ports) > 1 and len(ports) != len(names):
        raise ConfigurationError(f"the PostgreSQL URL has {len(names)} hosts and {len(ports)} ports")
    hosts = []
    for number, name in enumerate(names):
        bare, port = _host_and_port(name)
        port = port or (ports[number % len(ports)] if ports else "")
        if port and not (port.isascii() and port.isdecimal() and 0 < int(port) < 65_536):
            raise ConfigurationError(
                "the port in the PostgreSQL URL is not a number from 1 to 65535;"
                f" write {_FORM}, with special characters percent-encoded"
            )
        hosts.append(Host(bare or None, int(port) if port else None))
    return tuple(hosts)


def _host_and_port(text: str) -> tuple[str, str]:
    if text.startswith("/"):  # the folder of a Unix socket
        return text, ""
    if match := re.fullmatch(r"\[([^]]+)](?::(.*))?", text):
        return match[1], match[2] or ""
    if text.count(":") > 1:  # an IPv6 address without a port, as in host=::1
        return text, ""
    name, _, port = text.partition(":")
    return name, port


def _connect_timeout(query: dict[str, str], *, several: bool) -> float:
    seconds = _number(query, "connect_timeout")
    if not seconds or seconds < 0:  # to libpq: without limit
        return CONNECT_TIMEOUT_OF_SEVERAL_SECONDS if several else CONNECT_TIMEOUT_SECONDS
    return min(float(seconds), LONGEST_CONNECT_TIMEOUT_SECONDS)


def _keepalives(query: dict[str, str]) -> Keepalives:
    default = Keepalives()
    enabled, idle, interval, probes, user_timeout = (_number(query, name) for name in _KEEPALIVES)
    return Keepalives(
        enabled != 0,
        idle or default.idle_seconds,
        interval or default.interval_seconds,
        probes or default.probes,
        user_timeout or default.user_timeout_milliseconds,
    )


def _number(query: dict[str, str], name: str) -> int | None:
    text = query.pop(name, None)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise ConfigurationError(f"the parameter {name} of the PostgreSQL URL is not a whole number") from error


def _check_files(query: Mapping[str, str]) -> None:
    """asyncpg reports a missing file without its name."""
    for name in ("sslrootcert", "sslcrl"):
        file = query.get(name)
        if file is None or file == "system":
            continue
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=file)
        except OSError as error:  # ssl.SSLError is one
            reason = "no certificate in it" if isinstance(error, ssl.SSLError) else error.strerror
            raise ConfigurationError(f"{name} in the PostgreSQL URL: cannot use {file}: {reason}") from error
    for name in ("sslcert", "sslkey"):
        file = query.get(name)
        if file is not None and not os.access(file, os.R_OK):
            raise ConfigurationError(f"{name} in the PostgreSQL URL: cannot read {file}")


def _tls_by_system_authorities(query: dict[str, str]) -> ssl.SSLContext | None:
    """With ``sslrootcert=system`` the authorities of the machine count, and the name is verified whatever sslmode is."""
    if (query.get("sslrootcert") or os.environ.get("PGSSLROOTCERT")) != "system":
        return None
    query.pop("sslrootcert", None)
    if query.pop("sslmode", "verify-full") not in ("require", "verify-ca", "verify-full"):
        raise ConfigurationError("sslrootcert=system in the PostgreSQL URL needs sslmode=verify-full")
    context = ssl.create_default_context()
    certificate, key, password = (query.pop(name, None) for name in ("sslcert", "sslkey", "sslpassword"))
    if certificate is not None:
        context.load_cert_chain(certificate, key, password)
    context.set_alpn_protocols(["postgresql"])
    return context
