"""The routes of the subscriptions API."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import msgspec

from ecomcharge.base.calendar import iso
from ecomcharge.base.card_numbers import may_contain
from ecomcharge.base.errors import RecordNotFound
from ecomcharge.base.ids import SUBSCRIPTION_ID, SUBSCRIPTION_PREFIX
from ecomcharge.base.validation import decode_body
from ecomcharge.customers import store as customers
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database
from ecomcharge.subscriptions import actions, lifecycle, model, requests, store
from ecomcharge.subscriptions.actions import IdGenerators
from ecomcharge.subscriptions.charging import Charging
from ecomcharge.subscriptions.model import Subscription
from ecomcharge.subscriptions.store import Filter
from ecomcharge.web import ignored_keys
from ecomcharge.web.filters import Filters
from ecomcharge.web.idempotency import idempotency_key_of
from ecomcharge.web.ignored_keys import IgnoredKeysLog
from ecomcharge.web.listing import Listing, storable
from ecomcharge.web.messages import Request, Response, Stream, json_response, stored_response
from ecomcharge.web.router import Route
from ecomcharge.web.stale_reads import reader_for

_encode = msgspec.json.Encoder().encode
NEXT_ATTEMPT_HEADER = "x-next-attempt-at"
FILTERS: Final = Filters("subscriptions", ("state", "customer", "plan", "tracking_id"), model.SubscriptionObject.__annotations__)


class SubscriptionRoutes:
    def __init__(
        self, database: Database, charging: Charging, base_url: str, master_key: MasterKey, id_generators: IdGenerators
    ) -> None:
        self._database = database
        self._charging = charging
        self._base_url = base_url
        self._master_key = master_key
        self._id_generators = id_generators
        self._ignored_keys = IgnoredKeysLog()
        self._listing: Listing[Subscription]
        self._listing = Listing("subscription", "subscriptions", SUBSCRIPTION_ID, SUBSCRIPTION_PREFIX, self._encode_all)

    def routes(self) -> list[Route]:
        return [
            Route("POST", "/subscriptions", self.create),
            Route("GET", "/subscriptions", self.list),
            Route("GET", "/subscriptions/{}", self.read),
            Route("DELETE", "/subscriptions/{}", self.delete),
            Route("POST", "/subscriptions/{}/cancel", self.cancel),
        ]

    async def create(self, request: Request) -> Response:
        body = await request.json()
        given = decode_body(body, requests.BODY)
        misplaced = ignored_keys.misplaced_in(body, ignored_keys.SUBSCRIPTION)
        self._ignored_keys.note(request.shop_id, misplaced)
        request.answer_headers = misplaced.headers
        validated = requests.validate(given, look_for_cards=may_contain(body))
        wanted = msgspec.structs.replace(validated, misplaced_test=misplaced.asks_for_test)
        idempotency_key = idempotency_key_of(
            request.idempotency_key(), "POST /subscriptions", body, self._master_key.fingerprints
        )
        given.card, body = None, b""  # they contain the number of the card
        return stored_response(
            await actions.create_subscription(
                self._charging, self._id_generators, request.shop_id, wanted, idempotency_key, self._encoded
            )
        )

    async def read(self, request: Request) -> Response:
        subscription = await actions.read_subscription(self._charging, request.shop_id, _id(request))
        return json_response(200, self._encoded(subscription), *_next_attempt(subscription))

    async def cancel(self, request: Request) -> Response:
        reason = requests.validate_reason(decode_body(await request.json(), requests.CANCEL_BODY))
        subscription = await actions.cancel_subscription(self._charging, request.shop_id, _id(request), reason)
        return json_response(200, self._encoded(subscription))

    async def delete(self, request: Request) -> Response:
        """Cancels, without a reason [W][D]."""
        subscription = await actions.cancel_subscription(self._charging, request.shop_id, _id(request), None)
        return json_response(200, self._encoded(subscription))

    async def list(self, request: Request) -> Response | Stream:
        query = FILTERS.query_of(request)
        values = [query.get(name) for name in FILTERS.names]
        filter = Filter(*values) if storable(*values) else Filter(state="")
        reader = await reader_for(request, self._database)
        if filter.customer_id and await customers.is_erased(reader, request.shop_id, filter.customer_id):
            filter = replace(filter, customer_id=None, erased_customer_id=filter.customer_id)
        subscriptions = store.Subscriptions(reader, request.shop_id, filter)
        return await self._listing.answer(request, subscriptions, query, FILTERS.names)

    def _encoded(self, subscription: Subscription) -> bytes:
        return _encode(model.to_json(subscription, self._base_url))

    def _encode_all(self, subscriptions: Sequence[Subscription]) -> bytes:
        return _encode([model.to_json(each, self._base_url) for each in subscriptions])


def _next_attempt(subscription: Subscription) -> list[tuple[str, str]]:
    """When a failed charge is tried again: the object has no key for it, and ``renew_at`` is the date that was missed."""
    billing_state = subscription.billing_state
    if billing_state.state not in lifecycle.TRIED_AGAIN or billing_state.due_at is None:
        return []
    return [(NEXT_ATTEMPT_HEADER, iso(billing_state.due_at))]


def _id(request: Request) -> str:
    if not SUBSCRIPTION_ID.match(request.argument):
        raise RecordNotFound
    return request.argument
