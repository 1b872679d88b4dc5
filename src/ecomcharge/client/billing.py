"""The calls about plans, subscriptions and events."""

from __future__ import annotations

from datetime import datetime
from typing import Unpack

import httpx
import msgspec

from ecomcharge.client.bodies import (
    ById,
    ByToken,
    CancelSubscription,
    NewCard,
    NewCustomer,
    NewPlan,
    NewPlanFields,
    NewSubscription,
    SubscriptionOptions,
)
from ecomcharge.client.calls import Call, Created, Order, Repeat, Requests, json_of, query_of, segment
from ecomcharge.client.model import Event, Plan, Subscription
from ecomcharge.client.pages import PAGE_SIZE, Pages, page_of


class SubscriptionFilters(Created, total=False):
    """Which subscriptions: in this state, of this customer, to this plan (ids), with this ``tracking_id``."""

    state: str | None
    customer: str | None
    plan: str | None
    tracking_id: str | None


class EventFilters(Created, total=False):
    """Which events: of the object with this id, of this type."""

    object: str | None
    type: str | None


class BillingCalls(Requests):
    def create_plan(self, *, idempotency_key: str | None = None, **fields: Unpack[NewPlanFields]) -> Call[Plan]:
        """Create a plan. Raises ``ValidationError``."""
        return self.keyed("POST", "plans", NewPlan(**fields), json_of(Plan), idempotency_key)

    def get_plan(self, plan_id: str) -> Call[Plan]:
        """The plan with this id. Raises ``NotFoundError``."""
        return self.reading(f"plans/{segment('plan_id', plan_id)}", json_of(Plan))

    def list_plans(
        self,
        *,
        limit: int | None = None,
        after: str | None = None,
        before: str | None = None,
        order: Order | None = None,
        stale: int | None = None,
        **filters: Unpack[Created],
    ) -> Call[list[Plan]]:
        """Plans in order of creation: all of them, or one page with ``limit``, ``after`` or ``before`` (an id)."""
        position = {"limit": limit, "after": after, "before": before, "order": order}
        return self.reading("plans", json_of(list[Plan]), {**position, **filters}, stale)

    def plans(
        self, *, order: Order | None = None, page_size: int = PAGE_SIZE, stale: int | None = None, **filters: Unpack[Created]
    ) -> Pages[Plan]:
        """Every plan in order of creation, with ``page_size`` (1 to 1000) of them in memory at a time."""
        query = query_of({"limit": page_size, "order": order, **filters})
        return Pages(lambda query: self.reading("plans", _PLANS, query, stale), query)

    def count_plans(self, *, stale: int | None = None, **filters: Unpack[Created]) -> Call[int]:
        """The number of plans."""
        return self.counting("plans", filters, stale)

    def create_subscription(
        self,
        plan: str | NewPlan,
        *,
        customer: str | NewCustomer | None = None,
        card: str | NewCard | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[SubscriptionOptions],
    ) -> Call[Subscription]:
        """Create a subscription: to the plan with this id, or to a new plan.

        ``customer`` is an id or a new customer. ``card`` is the token of a card that was charged before, or a card. Without a
        card the buyer pays at ``redirect_url``. A declined card is not an error: ``state`` is ``failed``, and the idempotency
        key is used up. Raises ``ValidationError``.
        """
        body = NewSubscription(
            plan=ById(plan) if isinstance(plan, str) else plan,
            customer=ById(customer) if isinstance(customer, str) else customer,
            card=ByToken(card) if isinstance(card, str) else card,
            **options,
        )
        return self.keyed("POST", "subscriptions", body, _subscription, idempotency_key)

    def get_subscription(self, subscription_id: str) -> Call[Subscription]:
        """The subscription with this id. Raises ``NotFoundError``."""
        return self.reading(_path(subscription_id), _subscription)

    def list_subscriptions(
        self,
        *,
        limit: int | None = None,
        after: str | None = None,
        before: str | None = None,
        order: Order | None = None,
        stale: int | None = None,
        **filters: Unpack[SubscriptionFilters],
    ) -> Call[list[Subscription]]:
        """Subscriptions in order of creation: all of them, or one page with ``limit``, ``after`` or ``before`` (an id).

        The filters are those of ``SubscriptionFilters``.
        """
        position = {"limit": limit, "after": after, "before": before, "order": order}
        return self.reading("subscriptions", json_of(list[Subscription]), {**position, **filters}, stale)

    def subscriptions(
        self,
        *,
        order: Order | None = None,
        page_size: int = PAGE_SIZE,
        stale: int | None = None,
        **filters: Unpack[SubscriptionFilters],
    ) -> Pages[Subscription]:
        """Every subscription in order of creation, with ``page_size`` (1 to 1000) of them in memory at a time."""
        query = query_of({"limit": page_size, "order": order, **filters})
        return Pages(lambda query: self.reading("subscriptions", _SUBSCRIPTIONS, query, stale), query)

    def count_subscriptions(self, *, stale: int | None = None, **filters: Unpack[SubscriptionFilters]) -> Call[int]:
        """The number of subscriptions that the filters select."""
        return self.counting("subscriptions", filters, stale)

    def cancel_subscription(self, subscription_id: str, reason: str | None = None) -> Call[Subscription]:
        """Cancel a subscription. A second call changes nothing. Raises ``ValidationError`` if the subscription has ended."""
        path = _path(subscription_id)
        if reason is None:
            return self.unkeyed("DELETE", path, _subscription, Repeat.SAFE)
        return self.unkeyed("POST", f"{path}/cancel", _subscription, Repeat.SAFE, CancelSubscription(reason))

    def list_events(
        self,
        *,
        limit: int | None = None,
        after: str | None = None,
        before: str | None = None,
        order: Order | None = None,
        stale: int | None = None,
        **filters: Unpack[EventFilters],
    ) -> Call[list[Event]]:
        """The newest events first: at most ``limit`` (20 unless given), older than ``before`` or newer than ``after`` (an id).

        ``order="asc"`` is the oldest first.
        """
        position = {"limit": limit, "after": after, "before": before, "order": order}
        return self.reading("events", json_of(list[Event]), {**position, **filters}, stale)

    def events(
        self, *, order: Order | None = None, page_size: int = PAGE_SIZE, stale: int | None = None, **filters: Unpack[EventFilters]
    ) -> Pages[Event]:
        """Every event of the last 30 days, the newest first, with ``page_size`` (1 to 1000) of them in memory at a time."""
        query = query_of({"limit": page_size, "order": order, **filters})
        return Pages(lambda query: self.reading("events", _EVENTS, query, stale), query)

    def count_events(self, *, stale: int | None = None, **filters: Unpack[EventFilters]) -> Call[int]:
        """The number of events of the last 30 days that the filters select."""
        return self.counting("events", filters, stale)


_PLANS = page_of(Plan)
_SUBSCRIPTIONS = page_of(Subscription)
_EVENTS = page_of(Event)
_decode = json_of(Subscription)


def _path(subscription_id: str) -> str:
    return f"subscriptions/{segment('subscription_id', subscription_id)}"


def _subscription(response: httpx.Response) -> Subscription:
    next_attempt = response.headers.get("x-next-attempt-at")
    if next_attempt is None:
        return _decode(response)
    return msgspec.structs.replace(_decode(response), next_attempt_at=msgspec.convert(next_attempt, datetime))
