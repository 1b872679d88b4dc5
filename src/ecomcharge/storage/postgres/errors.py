"""The errors of asyncpg: which mean that the database is unavailable, which end a connection, and their sentences."""

from __future__ import annotations

import ssl
import time
from typing import Final

import asyncpg
import structlog

from ecomcharge.base.errors import EcomchargeError, Unavailable

log = structlog.get_logger()

# The transaction was in conflict with another one. A foreign key is violated if another transaction deleted the row that a
# new row refers to, or added a row that refers to a deleted one; the unit of work then reads again.
RETRYABLE: Final = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, asyncpg.ForeignKeyViolationError)

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
    asyncpg.exceptions.InsufficientPrivilegeError,
)

# After these the server behind a connection is not the one that should be used: it became a standby, or is stopping.
MOVED: Final = (
    asyncpg.exceptions.ReadOnlySQLTransactionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
)

# A value was at fault, and would be at fault again.
_OF_A_VALUE: Final = (asyncpg.exceptions.DataError, asyncpg.exceptions.IntegrityConstraintViolationError)

GRANTS: Final = "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO"
LOG_AGAIN_SECONDS: Final = 10.0


def to_domain_error(error: BaseException) -> BaseException:
    """``Unavailable``, caused by the error, if the database and not the program or a value is at fault.

    Otherwise the error itself.
    """
    if isinstance(error, EcomchargeError) or not is_of_database(error):
        return error
    unavailable = Unavailable(reason=explain(error))
    unavailable.__cause__ = error
    return unavailable


def is_of_database(error: BaseException) -> bool:
    """Whether a repeated request may succeed. An error of PostgreSQL that is not known here counts as one of the database."""
    return isinstance(error, (*UNAVAILABLE, *RETRYABLE, asyncpg.PostgresError)) and not isinstance(error, _OF_A_VALUE)


def explain(error: BaseException, role: str = "ROLE") -> str:
    """One line for the operator, with what to do if that is known."""
    text = " ".join(str(error).split()) or type(error).__name__
    match error:
        case ssl.SSLCertVerificationError():
            return (
                f"the certificate of the server cannot be verified ({error.verify_message or text}); name the file of its"
                " authority with sslrootcert=FILE in the URL, or write sslrootcert=system for a public authority"
            )
        case asyncpg.exceptions.ReadOnlySQLTransactionError():
            return f"{text}; the server is read-only: use the primary, or target_session_attrs=read-write in the URL"
        case asyncpg.exceptions.InsufficientPrivilegeError():
            return f"{text}; as the owner of the tables run: {GRANTS} {role}"
        case asyncpg.exceptions.TargetServerAttributeNotMatched():
            return "no host of the URL is of the kind that target_session_attrs asks for"
        case asyncpg.TooManyConnectionsError():
            return f"{text}; lower --postgres-connections or raise max_connections of PostgreSQL"
        case TimeoutError():
            return "PostgreSQL did not answer in time"
    return text


class OutageLog:
    """Logs why requests are refused, each kind of error at most once in ``LOG_AGAIN_SECONDS``."""

    def __init__(self, event: str) -> None:
        self._event = event
        self._logged_at: dict[type[BaseException], float] = {}

    def report(self, error: BaseException) -> None:
        if isinstance(error, EcomchargeError) or not is_of_database(error) or not structlog.is_configured():
            return  # a command prints the error instead
        now, kind = time.monotonic(), type(error)
        if now - self._logged_at.get(kind, -LOG_AGAIN_SECONDS) >= LOG_AGAIN_SECONDS:
            self._logged_at[kind] = now
            log.warning(self._event, reason=explain(error), sqlstate=getattr(error, "sqlstate", None))
