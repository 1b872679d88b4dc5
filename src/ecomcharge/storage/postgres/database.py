"""The implementation of ``Database`` for PostgreSQL."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import asyncpg

from ecomcharge.base.errors import ConfigurationError, Unavailable
from ecomcharge.base.settings import Pooler
from ecomcharge.storage.database import DatabaseStats, Migration, Params, ReplicaReader, Row, SettingWarning, Unit
from ecomcharge.storage.postgres import distribution, server_settings
from ecomcharge.storage.postgres.batching import Batcher, Pending
from ecomcharge.storage.postgres.by_shop import ExecutorByShop
from ecomcharge.storage.postgres.connecting import OF_BACKGROUND, OF_REQUESTS, Connector, probe
from ecomcharge.storage.postgres.errors import GRANTS, RETRYABLE, UNAVAILABLE, explain, to_domain_error
from ecomcharge.storage.postgres.migrations import apply_migrations
from ecomcharge.storage.postgres.pool import ConnectionPool
from ecomcharge.storage.postgres.recovery import CommitInDoubt, ensure_committed
from ecomcharge.storage.postgres.replica import Replica
from ecomcharge.storage.postgres.statements import Executor, numbered
from ecomcharge.storage.postgres.transaction import BatchTransaction, PendingUnit, RetryIndividually
from ecomcharge.storage.postgres.url import read_url
from ecomcharge.storage.statements import PointRead, TermIndex

T = TypeVar("T")

# A second batch, so that one that waits for a lock or for the disk does not hold up all others.
READS_IN_FLIGHT: Final = 2
TRANSACTIONS_IN_FLIGHT: Final = 2
MAX_BATCH: Final = 256
STALLED: Final = 0.9  # of the limit of a statement: a batch that took as long had no answer from the server
MAX_ATTEMPTS: Final = 5  # to run one unit, if the server aborts its transaction because of a deadlock or a conflict

_ABOUT_SERVER: Final = "SELECT version(), pg_backend_pid(), EXISTS (SELECT 1 FROM pg_extension WHERE extname = 'citus')"

_CAN_WRITE: Final = (
    "SELECT current_setting('transaction_read_only'), quote_ident(current_user), has_table_privilege('customers', 'INSERT')"
    " FROM schema_migrations LIMIT 1"
)


@dataclass(eq=False, slots=True)
class _PendingRead(Pending):
    read: PointRead
    key: Row


class PostgresDatabase:
    """Implements ``Database``; ``open`` creates it. Point reads and units of work are batched, lists are not."""

    engine = "postgresql"

    def __init__(self, pool: ConnectionPool, *, has_transaction_status: bool, is_distributed: bool = False) -> None:
        self.stats = DatabaseStats()
        self.is_distributed = is_distributed
        self._pool = pool
        self._executor = ExecutorByShop() if is_distributed else Executor()
        self._has_transaction_status = has_transaction_status
        stalled = self._stalled_seconds = STALLED * pool.limits.statement_seconds
        self._reads = Batcher(self._flush_reads, max_in_flight=READS_IN_FLIGHT, max_batch=MAX_BATCH, stalled_seconds=stalled)
        self._units = Batcher(
            self._flush_units, max_in_flight=TRANSACTIONS_IN_FLIGHT, max_batch=MAX_BATCH, stalled_seconds=stalled
        )
        self._recoveries: set[asyncio.Task[None]] = set()
        self._replica: Replica | None = None

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        connections: int,
        for_requests: bool = False,
        pooler: Pooler = "auto",
        read_from: str | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> PostgresDatabase:
        """Connect, and check the version of the server, if it has Citus and if a pooler is in between.

        Raises ``ConfigurationError``.

        ``read_from`` is the URL of a standby, which is used only with ``for_requests``. ``warn`` gets a sentence for each
        parameter of the URL that is not used.
        """
        settings = read_url(url)
        settings_of_replica = read_url(read_from) if read_from else None
        try:
            connection, settings = await probe(settings)
            try:
                version = connection.get_server_version()
                # A pooler has process ids of its own.
                product, process_id, has_citus = await connection.fetchrow(_ABOUT_SERVER)
                is_pooled = process_id != connection.get_server_pid()
            finally:
                await connection.close(timeout=settings.connect_timeout_seconds)
        except (*UNAVAILABLE, asyncpg.PostgresError, ssl.SSLError) as error:
            raise ConfigurationError(f"cannot use the PostgreSQL database: {explain(error)}") from error
        except ValueError as error:  # its text may quote a part of the password
            raise ConfigurationError(
                "cannot understand the PostgreSQL URL; special characters in it must be percent-encoded"
            ) from error
        if version.major < 14:
            raise ConfigurationError(f"PostgreSQL {version.major} is too old; 14 or newer is needed")
        if settings_of_replica is not None and (has_citus or not str(product).startswith("PostgreSQL")):
            raise ConfigurationError(
                "--read-from needs plain PostgreSQL: the standbys of this engine do not tell how old they are"
            )
        if warn is not None:
            for warning in (*settings.warnings, *(settings_of_replica.warnings if settings_of_replica is not None else ())):
                warn(warning)
        connector = Connector(
            settings,
            limits=OF_REQUESTS if for_requests else OF_BACKGROUND,
            in_transactions=pooler == "transaction" or (pooler == "auto" and is_pooled),
        )
        # Other engines that speak the protocol, such as CockroachDB, have no pg_xact_status. With Citus it knows the transaction
        # of the coordinator only: a worker may have committed although the coordinator did not.
        has_transaction_status = str(product).startswith("PostgreSQL") and not has_citus
        pool = ConnectionPool(connector, connections)
        database = cls(pool, has_transaction_status=has_transaction_status, is_distributed=has_citus)
        if settings_of_replica is not None and for_requests:
            database._replica = Replica(settings_of_replica, connections, pooler, pool, database.stats)
            database._replica.start()
        return database

    async def replica_reader(self, stale_seconds: int) -> ReplicaReader | None:
        return None if self._replica is None else await self._replica.reader(stale_seconds)

    async def find(self, read: PointRead, key: Row) -> Row | None:
        return await self._reads.submit(_PendingRead(read, key))

    async def _flush_reads(self, pending: list[_PendingRead]) -> None:
        groups: dict[PointRead, list[_PendingRead]] = {}
        for each in pending:
            groups.setdefault(each.read, []).append(each)
        self.stats.finds += len(pending)
        self.stats.find_statements += len(groups)
        async with self._pool.lend() as connection:
            for read, group in groups.items():
                rows = await self._executor.find(connection, read, [each.key for each in group])
                for each, row in zip(group, rows, strict=True):
                    each.resolve(row)

    async def rows(self, sql: str, params: Params) -> Sequence[Row]:
        statement = numbered(sql)
        seconds = self._pool.limits.list_seconds
        try:
            async with self._pool.lend() as connection:
                return await connection.fetch(statement.text, *statement.values(params), timeout=seconds)
        except Exception as error:
            raise to_domain_error(error) from error

    async def rows_in_background(self, sql: str, params: Params) -> Sequence[Row]:
        """The server reads, and this process waits. A request waits for it too, so that it has the limit of ``rows``."""
        return await self.rows(sql, params)

    async def write(self, unit: Unit[T]) -> T:
        return await self._units.submit(PendingUnit(unit))

    async def _flush_units(self, units: list[PendingUnit]) -> None:
        try:
            await self._run_transaction(units)
        except (RetryIndividually, *RETRYABLE):
            loop = asyncio.get_running_loop()
            for number, unit in enumerate(units, 1):
                started = loop.time()
                await self._run_alone(unit)
                if loop.time() - started > self._stalled_seconds:  # each of the others would wait as long
                    for other in units[number:]:
                        other.fail(Unavailable())
                    return

    async def _run_alone(self, unit: PendingUnit) -> None:
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                await self._run_transaction([unit])
                return
            except Exception as error:
                if attempt == MAX_ATTEMPTS or not isinstance(error, RETRYABLE):
                    unit.fail(error)
                    return

    async def _run_transaction(self, units: list[PendingUnit]) -> None:
        """Run the units in one transaction and set their outcomes after COMMIT."""
        try:
            async with self._pool.lend() as connection:
                await BatchTransaction(
                    connection,
                    units,
                    self._executor,
                    begin=self._pool.begin,
                    has_transaction_status=self._has_transaction_status,
                ).run()
        except CommitInDoubt as doubt:  # while it is cleared up, other units use the batcher
            recovery = asyncio.create_task(self._recover(units, doubt))
            self._recoveries.add(recovery)
            recovery.add_done_callback(self._recoveries.discard)
        else:
            self._set_outcomes(units)

    async def _recover(self, units: list[PendingUnit], doubt: CommitInDoubt) -> None:
        try:
            await ensure_committed(self._pool, doubt)
        except Exception as error:
            for unit in units:
                unit.fail(error)
        else:
            self._set_outcomes(units)

    def _set_outcomes(self, units: list[PendingUnit]) -> None:
        self.stats.commits += 1
        self.stats.units += len(units)
        for unit in units:
            if unit.error is not None:
                unit.fail(unit.error)
            else:
                unit.resolve(unit.result)

    async def migrate(self, migrations: Sequence[Migration]) -> list[Migration]:
        """Raises ``Unavailable`` when the database cannot be written now."""
        try:
            async with self._pool.lend() as connection:
                return await apply_migrations(connection, migrations, begin=self._pool.begin)
        except UNAVAILABLE as error:
            raise to_domain_error(error) from error

    async def distribute(self, report: Callable[[str], None], *, dry_run: bool) -> None:
        """Distribute the tables over a cluster with Citus (``storage.postgres.distribution``)."""
        async with self._pool.lend() as connection:
            await distribution.distribute(connection, report, dry_run=dry_run)

    async def merge_terms(self, index: TermIndex, *, all_segments: bool = False) -> bool:
        """Autovacuum does it."""
        return False

    async def overwrite_deleted(self) -> None:
        """The server does it: VACUUM removes deleted rows from the files."""

    async def ping(self) -> None:
        """Raise ``Unavailable`` unless the database can be written."""
        try:
            async with self._pool.lend() as connection:
                read_only, role, may_write = await connection.fetchrow(_CAN_WRITE)
                if read_only == "on":
                    raise asyncpg.ReadOnlySQLTransactionError("cannot write in a read-only transaction")
        except Exception as error:
            raise to_domain_error(error) from error
        if not may_write:
            raise Unavailable(f"the role {role} may not write to the tables; as their owner run: {GRANTS} {role}")

    async def setting_warnings(self) -> Sequence[SettingWarning]:
        return server_settings.warnings_of(list(await self.rows(server_settings.READ, {})))

    async def close(self) -> None:
        await self._units.drain()
        if self._recoveries:
            await asyncio.wait(self._recoveries)
        await self._reads.drain()
        if self._replica is not None:
            await self._replica.close()
        await self._pool.close()
