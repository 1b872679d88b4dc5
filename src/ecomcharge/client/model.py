"""The types of the client, which imports nothing of the server."""

from __future__ import annotations

import msgspec


class NewCustomer(msgspec.Struct, frozen=True):
    """The body of ``POST /customers``. ``None`` means absent."""

    first_name: str | None = None
    last_name: str | None = None
    address: str | None = None
    country: str | None = None
    city: str | None = None
    zip: str | None = None
    state: str | None = None
    phone: str | None = None
    email: str | None = None
    ip: str | None = None
    external_id: str | None = None


class Customer(msgspec.Struct, frozen=True):
    """The customer object of the API."""

    id: str
    first_name: str | None
    last_name: str | None
    address: str | None
    country: str | None
    city: str | None
    zip: str | None
    state: str | None
    phone: str | None
    email: str | None
    ip: str | None
    external_id: str | None = None
    metadata: dict[str, str] = {}
