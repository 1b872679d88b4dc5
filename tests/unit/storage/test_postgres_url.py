"""The URL of a PostgreSQL database is read as libpq reads it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ecomcharge.base.errors import ConfigurationError
from ecomcharge.storage.opening import open_database
from ecomcharge.storage.postgres.url import Host, Keepalives, read_url
from support.certificates import certificate_for

BASE = "postgresql://user:word@db.test/shop"


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql://u@db.test/x", [("db.test", None)]),
        ("postgresql://u@db.test:6000/x", [("db.test", 6000)]),
        ("postgresql://u@a:1,b:2,c/x", [("a", 1), ("b", 2), ("c", None)]),
        ("postgresql://u@a,b/x?port=7000", [("a", 7000), ("b", 7000)]),
        ("postgresql://u@a,b/x?port=7000,7001", [("a", 7000), ("b", 7001)]),
        ("postgresql://u@[::1]:6000,[2001:db8::1]/x", [("::1", 6000), ("2001:db8::1", None)]),
        ("postgresql://u@%2Frun%2Fpostgresql/x", [("/run/postgresql", None)]),
        ("postgresql:///x?host=/tmp&port=6000", [("/tmp", 6000)]),
        ("postgresql:///x?host=::1", [("::1", None)]),
        ("postgresql:///x?hostaddr=127.0.0.1", [("127.0.0.1", None)]),
        ("postgresql:///x", [(None, None)]),
    ],
)
def test_hosts(url: str, hosts: list[tuple[str | None, int | None]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGHOST", raising=False)
    settings = read_url(url)
    assert list(settings.hosts) == [Host(*host) for host in hosts]
    assert settings.warnings == ()


def test_the_user_and_the_parameters_of_tls_reach_the_driver() -> None:
    settings = read_url(f"{BASE}?sslmode=require&dbname=other&keepalives=1")
    assert settings.dsn == "postgresql://user:word@/shop?sslmode=require&dbname=other"


@pytest.mark.parametrize(
    "parameter",
    [
        *("channel_binding=prefer", "gssencmode=disable", "gssencmode=prefer", "client_encoding=UTF8", "keepalives=1"),
        *("load_balance_hosts=disable", "connect_timeout=10", "application_name=shop", "fallback_application_name=x"),
        "options=-csearch_path%3Dshop",
    ],
)
def test_parameters_of_libpq_are_understood_without_a_warning(parameter: str) -> None:
    assert read_url(f"{BASE}?{parameter}").warnings == ()


@pytest.mark.parametrize(
    "parameter",
    [
        *("pgbouncer=true", "schema=public", "pool_timeout=0", "connection_limit=5", "channel_binding=require", "ssl=true"),
        *("require_auth=scram-sha-256", "load_balance_hosts=random", "client_encoding=latin1"),
    ],
)
def test_parameters_of_other_programs_are_passed_over_with_a_warning(parameter: str) -> None:
    settings = read_url(f"{BASE}?{parameter}&application_name=shop")
    [warning] = settings.warnings
    assert warning.startswith(f"the parameter {parameter.partition('=')[0]} of the database URL is not used")
    assert settings.server_settings == {"application_name": "shop"}


def test_settings_of_the_session_and_times() -> None:
    settings = read_url(
        f"{BASE}?connect_timeout=3&keepalives_idle=7&keepalives_interval=2&keepalives_count=4&tcp_user_timeout=9000"
        "&options=-cstatement_timeout%3D5s+x&search_path=shop"
    )
    assert settings.connect_timeout_seconds == 3
    assert settings.keepalives == Keepalives(True, 7, 2, 4, 9000)
    assert settings.server_settings == {
        "application_name": "ecomcharge",
        "options": "-cstatement_timeout=5s+x",
        "search_path": "shop",
    }
    assert not read_url(f"{BASE}?keepalives=0").keepalives.enabled
    assert read_url(f"{BASE}?connect_timeout=0").connect_timeout_seconds == 5
    assert read_url("postgresql://u@a,b,c/x").connect_timeout_seconds == 2


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("postgresql://u:s3cr@t@db.test/x", "contains @; write it as %40"),
        ("postgresql://u:s3cr/t@db.test/x", "write / as %2F, \\? as %3F and # as %23"),
        ("postgresql://u:12/t@db.test/x", "write / as %2F"),
        ("postgresql://u:s3cr#t@db.test/x", "write / as %2F"),
        ("postgresql://u:s3cr?t@db.test/x", "write / as %2F"),
        ("postgresql://u:s3cr[t@db.test/x", "special characters percent-encoded"),
        ("postgresql://u:p@db.test:s3cr/x", "the port in the PostgreSQL URL is not a number"),
        ("postgresql://u:p@db.test:0/x", "the port in the PostgreSQL URL is not a number"),
        ("postgresql://u:p@a,b/x?port=1,2,3", "2 hosts and 3 ports"),
        (f"{BASE}?connect_timeout=soon", "connect_timeout of the PostgreSQL URL is not a whole number"),
        (f"{BASE}?sslmode", "a parameter of the PostgreSQL URL has no value"),
        (f"{BASE}?gssencmode=require", "cannot encrypt by GSSAPI"),
        (f"{BASE}?sslmode=verify-full&sslrootcert=/nowhere/ca.pem", "cannot use /nowhere/ca.pem: No such file"),
        (f"{BASE}?sslmode=prefer&sslrootcert=system", "needs sslmode=verify-full"),
        ("mysql://u:s3cr@db.test/x", "^mysql: no such engine; use sqlite"),
        ("postgresql+asyncpg://u:s3cr@db.test/x", r"^postgresql\+asyncpg: no such engine"),
        ("host=db.test password=s3cr", "^the database is not a URL"),
    ],
)
def test_a_url_with_a_mistake_gets_one_sentence_without_its_password(url: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence) as refused:
        asyncio.run(open_database(url))
    assert "s3cr" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    with pytest.raises(ConfigurationError, match=f"sslrootcert in the PostgreSQL URL: cannot use {file}: no certificate in it"):
        read_url(f"{BASE}?sslmode=verify-ca&sslrootcert={file}")


def test_sslrootcert_system_verifies_by_the_authorities_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, _ = certificate_for("localhost", tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    tls = read_url(f"{BASE}?sslmode=require&sslrootcert=system").tls
    assert tls is not None
    assert tls.check_hostname
    assert len(tls.get_ca_certs()) == 1
