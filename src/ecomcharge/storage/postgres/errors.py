"""The errors of asyncpg after which the database counts as unavailable, or a transaction is run again."""

from __future__ import annotations

from typing import Final

import asyncpg

from ecomcharge.base.errors import EcomchargeError, Unavailable

# The server aborted the transaction because it was in conflict with another one.
RETRYABLE: Final = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)

# The database is down, full, starting or read-only; the statement itself is not at fault.
UNAVAILABLE: Final = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # raised by a connection whose server has just closed it
    asyncpg.PostgresConnectionError,
    asyncpg.exceptions.OperatorInterventionError,
    asyncpg.exceptions.InsufficientResourcesError,
    asyncpg.exceptions.ReadOnlySQLTransactionError,
    asyncpg.exceptions.PostgresSystemError,
    asyncpg.exceptions.InvalidAuthorizationSpecificationError,
    asyncpg.exceptions.InvalidCatalogNameError,
    asyncpg.exceptions.LockNotAvailableError,
)


def to_domain_error(error: BaseException) -> BaseException:
    """``Unavailable``, caused by the error, if that says so; otherwise the error itself."""
    if isinstance(error, (*UNAVAILABLE, *RETRYABLE)) and not isinstance(error, EcomchargeError):
        unavailable = Unavailable()
        unavailable.__cause__ = error
        return unavailable
    return error
