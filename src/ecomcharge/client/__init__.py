"""The Python client of the API. It imports nothing of the server."""

from ecomcharge.client.clients import AsyncClient, Client
from ecomcharge.client.errors import (
    ApiError,
    AuthenticationError,
    NotFoundError,
    RateLimitedError,
    StillRunningError,
    TransportError,
    UnavailableError,
    ValidationError,
)
from ecomcharge.client.model import Customer

__all__ = [
    "ApiError",
    "AsyncClient",
    "AuthenticationError",
    "Client",
    "Customer",
    "NotFoundError",
    "RateLimitedError",
    "StillRunningError",
    "TransportError",
    "UnavailableError",
    "ValidationError",
]
