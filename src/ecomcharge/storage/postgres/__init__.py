"""PostgreSQL 14 or newer, and engines that speak its protocol, by asyncpg.

Point reads that wait at the same moment become one statement. Units of work that wait at the same moment share one
transaction and run in step: equal statements of different units become one. Measured with 64 clients on two cores, one
statement per read and one transaction per unit reach {UNBATCHED}.
"""

from ecomcharge.storage.postgres.database import PostgresDatabase

__all__ = ["PostgresDatabase"]
