"""A server for the eComCharge Customers API, and a client of it: ``ecomcharge.Client`` and ``ecomcharge.AsyncClient``.

The client is imported at its first use, because the modules of the server do not need it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = [
    "ApiError",
    "AsyncClient",
    "AuthenticationError",
    "Card",
    "ChangedError",
    "CheckoutExpiredEvent",
    "Client",
    "Clock",
    "ClockMove",
    "ClockMoveError",
    "ConflictError",
    "Customer",
    "ErasedError",
    "Event",
    "ExpiredCheckout",
    "Fault",
    "NewCard",
    "NewCustomer",
    "NewPlan",
    "NotFoundError",
    "Plan",
    "Price",
    "RateLimitedError",
    "StillRunningError",
    "Subscription",
    "SubscriptionEvent",
    "Transaction",
    "TransportError",
    "Trial",
    "UnavailableError",
    "ValidationError",
    "WebhookEvent",
    "WebhookVerificationError",
    "WebhookVerifier",
    "__version__",
]

if TYPE_CHECKING:
    from ecomcharge.client import (
        ApiError,
        AsyncClient,
        AuthenticationError,
        Card,
        ChangedError,
        CheckoutExpiredEvent,
        Client,
        Clock,
        ClockMove,
        ClockMoveError,
        ConflictError,
        Customer,
        ErasedError,
        Event,
        ExpiredCheckout,
        Fault,
        NewCard,
        NewCustomer,
        NewPlan,
        NotFoundError,
        Plan,
        Price,
        RateLimitedError,
        StillRunningError,
        Subscription,
        SubscriptionEvent,
        Transaction,
        TransportError,
        Trial,
        UnavailableError,
        ValidationError,
        WebhookEvent,
        WebhookVerificationError,
        WebhookVerifier,
    )

    __version__: str

else:  # hidden from the type checker, which would otherwise accept every name

    def __getattr__(name: str) -> object:
        if name == "__version__":
            from importlib.metadata import version

            return version("ecomcharge")
        if name in __all__:
            from ecomcharge import client

            return getattr(client, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
