"""What PostgreSQL refuses at the start is reported in one sentence; a current schema needs the rights of rows only."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import asyncpg
import pytest
import structlog

from ecomcharge.base.errors import ConfigurationError, Unavailable
from ecomcharge.base.settings import Settings
from ecomcharge.runtime.preparation import prepare_database
from ecomcharge.storage.database import Database
from ecomcharge.storage.migrate import migrate
from ecomcharge.storage.opening import open_database
from ecomcharge.storage.postgres import database as postgres_database
from ecomcharge.storage.postgres.connecting import OF_BACKGROUND
from ecomcharge.storage.postgres.migrations import LOCK
from support.certificates import certificate_for
from support.commands import ecomcharge
from support.forwarder import Forwarder
from support.postgres import PostgresServer
from support.shops import ENVIRONMENT, MASTER_KEY, with_database
from support.waiting import eventually

_roles = itertools.count(1)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    return certificate_for("localhost", tmp_path)


@pytest.fixture
def tls_url(own_postgres: PostgresServer, postgres_url: str, certificate: tuple[Path, Path]) -> Iterator[str]:
    with Forwarder(own_postgres.port, certificate) as forwarder:
        yield f"postgresql://postgres@localhost:{forwarder.port}/{postgres_url.rpartition('/')[2]}"


@pytest.fixture
def role(own_postgres: PostgresServer) -> str:
    """A new role with no rights but those of every role."""
    name = f"role{next(_roles)}"
    own_postgres.sql("postgres", f"CREATE ROLE {name} LOGIN")
    return name


async def ping(database: Database) -> None:
    await database.ping()


def url_as(role: str, url: str) -> str:
    return url.replace("postgres@", f"{role}@")


def serve(url: str) -> str:
    """Start a server that cannot start. Returns the last line of its output, which follows its log."""
    done = ecomcharge(url, "serve", "--port", "1", environment=ENVIRONMENT)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def test_a_role_that_may_not_create_tables_gets_the_grant(own_postgres: PostgresServer, postgres_url: str, role: str) -> None:
    own_postgres.sql(postgres_url.rpartition("/")[2], "REVOKE CREATE ON SCHEMA public FROM PUBLIC")  # as it is since 15
    refused = ecomcharge(url_as(role, postgres_url), "migrate", environment=ENVIRONMENT)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "permission denied for schema public" in refused.stderr
    assert f"GRANT USAGE, CREATE ON SCHEMA public TO {role}" in refused.stderr

    own_postgres.sql(postgres_url.rpartition("/")[2], f"GRANT USAGE, CREATE ON SCHEMA public TO {role}")
    assert ecomcharge(url_as(role, postgres_url), "migrate", environment=ENVIRONMENT).returncode == 0


def test_a_role_without_a_schema_gets_the_grant(own_postgres: PostgresServer, postgres_url: str, role: str) -> None:
    own_postgres.sql(postgres_url.rpartition("/")[2], "REVOKE ALL ON SCHEMA public FROM PUBLIC")
    refused = ecomcharge(url_as(role, postgres_url), "migrate", environment=ENVIRONMENT)
    assert f"GRANT USAGE, CREATE ON SCHEMA public TO {role}" in refused.stderr


def test_a_role_that_may_only_change_rows_can_serve(own_postgres: PostgresServer, postgres_url: str, role: str) -> None:
    with_database(postgres_url, ping)
    database = postgres_url.rpartition("/")[2]
    refused = serve(url_as(role, postgres_url))
    assert f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}" in refused
    own_postgres.sql(database, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    refused = serve(url_as(role, postgres_url))
    assert f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}" in refused
    assert ecomcharge(url_as(role, postgres_url), "shops", "list", environment=ENVIRONMENT).returncode == 0

    own_postgres.sql(database, f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}")
    created = ecomcharge(url_as(role, postgres_url), "shops", "create", "--name", "Shop", environment=ENVIRONMENT)
    assert created.returncode == 0, created.stderr
    with_database(url_as(role, postgres_url), ping)


def test_a_standby_serves_commands_that_read_and_no_server(own_postgres: PostgresServer, postgres_url: str) -> None:
    assert ecomcharge(postgres_url, "shops", "create", "--name", "Shop of primary", environment=ENVIRONMENT).returncode == 0
    database = postgres_url.rpartition("/")[2]
    with PostgresServer(primary=own_postgres) as standby:
        url = standby.url_of(database)
        shops = eventually(
            lambda: ecomcharge(url, "shops", "list", environment=ENVIRONMENT), 10, is_good=lambda done: not done.returncode
        )
        assert "Shop of primary" in shops.stdout
        assert "the server is read-only: use the primary" in serve(url)
        refused = ecomcharge(url, "shops", "create", "--name", "Other", environment=ENVIRONMENT)
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
        assert "the server is read-only: use the primary" in refused.stderr

        both = f"postgresql://postgres@127.0.0.1:{standby.port},127.0.0.1:{own_postgres.port}/{database}?target_session_attrs=read-write"
        assert ecomcharge(both, "shops", "create", "--name", "Other", environment=ENVIRONMENT).returncode == 0


def test_processes_wait_for_a_migration_of_another_process(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than a statement may take, and longer than other locks are waited for."""
    monkeypatch.setattr(postgres_database, "OF_BACKGROUND", OF_BACKGROUND._replace(statement_seconds=0.5))
    released_at = 0.0

    async def hold() -> None:
        nonlocal released_at
        connection = await asyncpg.connect(postgres_url)
        await connection.execute(f"SELECT pg_advisory_lock({LOCK})")
        held.set()
        await asyncio.sleep(2)
        released_at = time.monotonic()
        await connection.close()

    async def migrate_now() -> int:
        database = await open_database(postgres_url)
        try:
            return len(await migrate(database))
        finally:
            await database.close()

    held = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(hold()))
    thread.start()
    held.wait(10)
    assert asyncio.run(migrate_now()) > 0
    assert time.monotonic() >= released_at > 0
    thread.join()


def test_a_current_schema_is_read_without_a_lock(postgres_url: str) -> None:
    async def work(database: Database) -> None:
        connection = await asyncpg.connect(postgres_url)
        try:
            await connection.execute(f"SELECT pg_advisory_lock({LOCK})")
            async with asyncio.timeout(2):
                assert await migrate(database) == []
        finally:
            await connection.close()

    with_database(postgres_url, work)


def ping_at(url: str) -> str:
    """The sentence of the error, or ``ready``."""

    async def work() -> None:
        database = await open_database(url)
        try:
            await migrate(database)
            await database.ping()
        finally:
            await database.close()

    try:
        asyncio.run(work())
    except ConfigurationError as error:
        return str(error)
    return "ready"


def test_the_certificate_of_the_server_is_verified(
    tls_url: str, certificate: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    authority = quote(str(certificate[0]))
    other = quote(str(certificate_for("localhost", tmp_path_factory.mktemp("other"))[0]))
    assert ping_at(f"{tls_url}?sslmode=require") == "ready"
    assert ping_at(f"{tls_url}?sslmode=verify-full&sslrootcert={authority}") == "ready"
    for parameters in (
        f"sslmode=verify-full&sslrootcert={other}",
        f"sslmode=verify-ca&sslrootcert={other}",
        "sslrootcert=system",
    ):
        sentence = ping_at(f"{tls_url}?{parameters}")
        assert "the certificate of the server cannot be verified" in sentence
        assert "sslrootcert=FILE" in sentence
    by_address = tls_url.replace("localhost", "127.0.0.1")
    assert "is not valid for '127.0.0.1'" in ping_at(f"{by_address}?sslmode=verify-full&sslrootcert={authority}")


def test_with_sslrootcert_system_the_authorities_of_the_machine_count(
    tls_url: str, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    assert ping_at(f"{tls_url}?sslmode=verify-full&sslrootcert=system") == "ready"


def test_parameters_that_postgresql_does_not_know_are_passed_over_with_a_warning(postgres_url: str) -> None:
    unknown = "pgbouncer=true&schema=public&pool_timeout=0&channel_binding=require&aplication_name=x&work_mem=8MB"
    done = ecomcharge(f"{postgres_url}?{unknown}", "migrate", environment=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    warned = {line.split(" of the database URL")[0].rpartition(" ")[2] for line in done.stderr.splitlines()}
    assert warned == {"pgbouncer", "schema", "pool_timeout", "channel_binding", "aplication_name"}


def test_a_setting_of_postgresql_applies_to_the_session(postgres_url: str) -> None:
    async def work(database: Database) -> None:
        assert await database.rows("SELECT current_setting('work_mem'), current_setting('application_name')", {}) == [
            ("8MB", "ecomcharge")
        ]

    with_database(f"{postgres_url}?work_mem=8MB", work)


def test_a_right_that_is_lost_while_the_server_runs_is_unavailable(
    own_postgres: PostgresServer, postgres_url: str, role: str
) -> None:
    own_postgres.sql(postgres_url.rpartition("/")[2], f"GRANT ALL ON SCHEMA public TO {role}")

    async def work(database: Database) -> None:
        await database.ping()
        own_postgres.sql(
            postgres_url.rpartition("/")[2], f"ALTER TABLE customers OWNER TO postgres; REVOKE ALL ON customers FROM {role}"
        )
        with pytest.raises(Unavailable) as refused:
            await database.write(lambda tx: tx.run("DELETE FROM customers", {}))
        assert "GRANT SELECT, INSERT, UPDATE, DELETE" in refused.value.reason
        with pytest.raises(Unavailable):
            await database.ping()
        with pytest.raises(Unavailable):
            await database.rows("SELECT no_such_column FROM shops", {})

    with_database(url_as(role, postgres_url), work)


def start_warnings(url: str) -> list[dict[str, str]]:
    """The warnings that a server or billing worker logs when it starts, without those about the URL."""
    with structlog.testing.capture_logs() as logs:
        asyncio.run(prepare_database(Settings(database=url, master_key=MASTER_KEY)))
    return [{str(key): str(value) for key, value in entry.items()} for entry in logs if "setting" in entry]


def test_settings_that_lose_writes_or_slow_them_down_are_warned_about_until_their_remedy_is_applied(
    own_postgres: PostgresServer, postgres_url: str, role: str
) -> None:
    database, url = postgres_url.rpartition("/")[2], url_as(role, postgres_url)
    own_postgres.sql(database, f"GRANT ALL ON SCHEMA public TO {role}", f"ALTER ROLE {role} SET synchronous_commit = off")
    for name in ("fsync", "full_page_writes"):
        own_postgres.sql(database, f"ALTER SYSTEM SET {name} = off", "SELECT pg_reload_conf()")
    warnings = eventually(lambda: start_warnings(url), 5, is_good=lambda found: len(found) == 4)
    assert {warning["setting"]: warning["value"] for warning in warnings} == {
        "synchronous_commit": "off",
        "fsync": "off",
        "full_page_writes": "off",
        "min_wal_size": "80MB",
    }
    assert warnings[0]["event"].startswith("an acknowledged write can be lost when the PostgreSQL server")
    assert {warning["log_level"] for warning in warnings} == {"warning"}
    for warning in warnings:
        own_postgres.sql(database, *warning["remedy"].split("; "))
    assert eventually(lambda: start_warnings(url), 5, is_good=lambda found: not found) == []

    own_postgres.sql(database, "ALTER SYSTEM SET synchronous_standby_names = 'standby'", "SELECT pg_reload_conf()")
    try:
        [warning] = eventually(lambda: start_warnings(f"{url}?synchronous_commit=local"), 5)
    finally:
        own_postgres.sql(database, "ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
    assert "lost when a standby takes over" in warning["event"]
    assert warning["remedy"].startswith("remove synchronous_commit from the parameters of the database URL")
