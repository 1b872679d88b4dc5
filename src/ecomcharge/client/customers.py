"""The calls about customers."""

from __future__ import annotations

import contextlib
from email.utils import parsedate_to_datetime
from typing import Literal, Unpack

import httpx
import msgspec
from msgspec import UNSET, UnsetType

from ecomcharge.client.bodies import CustomerChanges, CustomerPatch, NewCustomer, NewCustomerFields, WholeCustomerFields
from ecomcharge.client.calls import Call, Created, Order, Repeat, Requests, json_of, nothing, query_of, segment
from ecomcharge.client.model import Customer
from ecomcharge.client.pages import PAGE_SIZE, Pages, page_of


class CustomerFilters(Created, total=False):
    """Which customers: with this ``email`` or ``external_id``, created in a range of time, or found by ``q``.

    ``q`` is the beginning of a word of the name, of the e-mail address, of the digits of the phone, of the external id, or an
    id.
    """

    q: str | None
    email: str | None
    external_id: str | None


class CustomerCalls(Requests):
    def create_customer(self, *, idempotency_key: str | None = None, **fields: Unpack[NewCustomerFields]) -> Call[Customer]:
        """Create a customer. Raises ``ValidationError`` with every error of every field.

        With an ``idempotency_key`` (1 to 255 printable ASCII characters) the caller can repeat the call later. Without it
        the client generates one for this call and its retries.
        """
        return self.keyed("POST", "customers", NewCustomer(**fields), _customer, idempotency_key)

    def get_customer(self, customer_id: str) -> Call[Customer]:
        """The customer with this id, with its ``etag``. Raises ``NotFoundError``, and ``ErasedError`` if it was erased."""
        return self.reading(_path(customer_id), _customer)

    def get_customer_by_external_id(self, external_id: str) -> Call[Customer]:
        """The oldest customer with this external id. Raises ``NotFoundError``."""
        return self.reading(_external_path(external_id), _customer)

    def refresh_customer(self, customer: Customer) -> Call[Customer]:
        """The present state of a customer. It is transferred only if it has changed since ``customer`` was read."""
        if customer.etag is None:
            return self.get_customer(customer.id)
        return self.conditional(_path(customer.id), _customer, customer.etag, customer)

    def get_or_create_customer(
        self, external_id: str, *, idempotency_key: str | None = None, **fields: Unpack[WholeCustomerFields]
    ) -> Call[tuple[Customer, bool]]:
        """The customer with this external id, and whether it was created now. Concurrent calls create one customer.

        The fields of a customer that exists are replaced by ``fields``.
        """
        return self.keyed("PUT", _external_path(external_id), NewCustomer(**fields), _created, idempotency_key)

    def update_customer(
        self,
        customer_id: str,
        *,
        if_match: str | UnsetType | None = UNSET,
        idempotency_key: str | None = None,
        **changes: Unpack[CustomerChanges],
    ) -> Call[Customer]:
        """Change the given fields and keys of ``metadata``; ``None`` clears one. The others stay.

        With ``if_match``, the ``etag`` of a customer, it raises ``ChangedError`` if someone else changed the customer.
        """
        return self.keyed(
            *("PATCH", _path(customer_id), CustomerPatch(**changes), _customer),
            key=idempotency_key,
            if_match=_etag(if_match),
        )

    def replace_customer(
        self,
        customer_id: str,
        *,
        if_match: str | UnsetType | None = UNSET,
        idempotency_key: str | None = None,
        **fields: Unpack[NewCustomerFields],
    ) -> Call[Customer]:
        """Replace all fields: those that are not given are cleared. ``if_match`` is that of ``update_customer``."""
        return self.keyed(
            *("PUT", _path(customer_id), NewCustomer(**fields), _customer), key=idempotency_key, if_match=_etag(if_match)
        )

    def delete_customer(
        self, customer_id: str, *, subscriptions: Literal["cancel"] | None = None, if_match: str | UnsetType | None = UNSET
    ) -> Call[None]:
        """Erase the personal data of a customer. A second call changes nothing.

        Raises ``ConflictError`` while a subscription can still charge, unless ``subscriptions="cancel"`` cancels them.
        ``if_match`` is that of ``update_customer``.
        """
        query = {"subscriptions": subscriptions}
        return self.unkeyed("DELETE", _path(customer_id), nothing, Repeat.SAFE, query=query, if_match=_etag(if_match))

    def export_customer(self, customer_id: str, *, stale: int | None = None) -> Call[httpx.Response]:
        """Everything that is stored about a customer: the bytes of one JSON document, as they arrive."""
        return self.reading(f"{_path(customer_id)}/export", lambda response: response, stale=stale)

    def list_customers(
        self,
        *,
        limit: int | None = None,
        after: str | None = None,
        before: str | None = None,
        order: Order | None = None,
        stale: int | None = None,
        **filters: Unpack[CustomerFilters],
    ) -> Call[list[Customer]]:
        """Customers in order of creation: all of them, or one page with ``limit``, ``after`` or ``before`` (an id).

        ``order="desc"`` is the newest first. The filters are those of ``CustomerFilters``. With ``stale`` the answer may come
        from a replica that is at most so many seconds behind; otherwise it has every customer that exists.
        """
        position = {"limit": limit, "after": after, "before": before, "order": order}
        return self.reading("customers", json_of(list[Customer]), {**position, **filters}, stale)

    def customers(
        self,
        *,
        order: Order | None = None,
        page_size: int = PAGE_SIZE,
        stale: int | None = None,
        **filters: Unpack[CustomerFilters],
    ) -> Pages[Customer]:
        """Every customer in order of creation, with ``page_size`` (1 to 1000) of them in memory at a time."""
        query = query_of({"limit": page_size, "order": order, **filters})
        return Pages(lambda query: self.reading("customers", _PAGE, query, stale), query)

    def count_customers(self, *, stale: int | None = None, **filters: Unpack[CustomerFilters]) -> Call[int]:
        """The number of customers that the filters select."""
        return self.counting("customers", filters, stale)


_decode = json_of(Customer)
_PAGE = page_of(Customer)


def _path(customer_id: str) -> str:
    return f"customers/{segment('customer_id', customer_id)}"


def _external_path(external_id: str) -> str:
    return f"customers/external/{segment('external_id', external_id)}"


def _etag(etag: str | UnsetType | None) -> str | None:
    """The value of ``If-Match``. Raises ``ValueError`` for ``None``, which would change the customer without the condition."""
    if etag is None:
        raise ValueError("if_match must not be None: a customer from a list has no etag, so read it with get_customer")
    return None if etag is UNSET else str(etag)


def _customer(response: httpx.Response) -> Customer:
    etag, changed_at = response.headers.get("etag"), None
    with contextlib.suppress(ValueError):
        changed_at = parsedate_to_datetime(response.headers.get("last-modified", ""))
    return msgspec.structs.replace(_decode(response), etag=etag, changed_at=changed_at)


def _created(response: httpx.Response) -> tuple[Customer, bool]:
    return _customer(response), response.status_code == 201
