"""The JSON door of subscriptions."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ecomcharge.errors import RecordNotFound
from ecomcharge.fields import body_of
from ecomcharge.idempotency import attempt_of
from ecomcharge.ids import SUBSCRIPTION_ID, SUBSCRIPTION_PREFIX
from ecomcharge.keys import MasterKey
from ecomcharge.subscriptions import actions, lifecycle, model, store
from ecomcharge.subscriptions.actions import Mints
from ecomcharge.subscriptions.billing import Billing
from ecomcharge.subscriptions.model import Subscription
from ecomcharge.subscriptions.schedule import iso
from ecomcharge.subscriptions.store import Filter
from ecomcharge.web import ignored_keys
from ecomcharge.web.ignored_keys import IgnoredKeysLog
from ecomcharge.web.listing import Listing, storable
from ecomcharge.web.server import Route
from ecomcharge.web.wire import Request, Response, Stream, answer_response, json_response

_encode = msgspec.json.Encoder().encode
NEXT_ATTEMPT_HEADER = "x-next-attempt-at"
FILTERS = ("state", "customer", "plan", "tracking_id")


class SubscriptionRoutes:
    def __init__(self, billing: Billing, master_key: MasterKey, mints: Mints) -> None:
        self._billing = billing
        self._master_key = master_key
        self._mints = mints
        self._ignored_keys = IgnoredKeysLog()
        self._base_url = billing.teller.base_url
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
        given = body_of(body, model.BODY)
        misplaced = ignored_keys.misplaced_in(body, ignored_keys.SUBSCRIPTION)
        self._ignored_keys.note(request.shop_id, misplaced)
        request.answer_headers = misplaced.headers
        wanted = msgspec.structs.replace(model.checked(given), misplaced_test=misplaced.asks_for_test)
        attempt = attempt_of(request.idempotency_key(), "POST /subscriptions", body, self._master_key.fingerprint)
        return answer_response(
            await actions.create_subscription(self._billing, self._mints, request.shop_id, wanted, attempt, self._encoded)
        )

    async def read(self, request: Request) -> Response:
        subscription = await actions.read_subscription(self._billing, request.shop_id, _id(request))
        return json_response(200, self._encoded(subscription), *_next_attempt(subscription))

    async def cancel(self, request: Request) -> Response:
        reason = model.checked_reason(body_of(await request.json(), model.CANCEL_BODY))
        subscription = await actions.cancel_subscription(self._billing, request.shop_id, _id(request), reason)
        return json_response(200, self._encoded(subscription))

    async def delete(self, request: Request) -> Response:
        """Cancels, without a reason [W][D]."""
        subscription = await actions.cancel_subscription(self._billing, request.shop_id, _id(request), None)
        return json_response(200, self._encoded(subscription))

    async def list(self, request: Request) -> Response | Stream:
        query = request.query()
        values = [query.get(name) for name in FILTERS]
        filter = Filter(*values) if storable(*values) else Filter(state="")
        subscriptions = store.Subscriptions(self._billing.database, request.shop_id, filter)
        return await self._listing.answer(request, subscriptions, query, FILTERS)

    def _encoded(self, subscription: Subscription) -> bytes:
        return _encode(model.shown(subscription, self._base_url))

    def _encode_all(self, subscriptions: Sequence[Subscription]) -> bytes:
        return _encode([model.shown(each, self._base_url) for each in subscriptions])


def _next_attempt(subscription: Subscription) -> list[tuple[str, str]]:
    """When a failed charge is tried again: the object has no key for it, and ``renew_at`` is the date that was missed."""
    standing = subscription.standing
    if standing.state not in lifecycle.TRIED_AGAIN or standing.due_at is None:
        return []
    return [(NEXT_ATTEMPT_HEADER, iso(standing.due_at))]


def _id(request: Request) -> str:
    if not SUBSCRIPTION_ID.match(request.argument):
        raise RecordNotFound
    return request.argument
