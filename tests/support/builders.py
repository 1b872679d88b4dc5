"""Build valid request bodies for a plan, a card, a customer and a subscription; a test may change fields."""

from __future__ import annotations

from typing import Any


def a_price(amount: int = 100, interval: int = 1, unit: str = "month") -> dict[str, Any]:
    """A price: an amount in minor units and its interval."""
    return {"amount": amount, "interval": interval, "interval_unit": unit}


def a_plan(amount: int = 100, interval: int = 1, unit: str = "month", **fields: Any) -> dict[str, Any]:
    return {"title": "Basic", "currency": "EUR", "plan": a_price(amount, interval, unit), **fields}


def a_card(number: str = "4200000000000000", **fields: Any) -> dict[str, Any]:
    """A card; by default the sandbox card that succeeds."""
    return {"number": number, "exp_month": 12, "exp_year": 2099, **fields}


def a_customer(email: str = "john@example.com", **fields: Any) -> dict[str, Any]:
    return {"email": email, "ip": "127.0.0.1", **fields}


def a_subscription(**fields: Any) -> dict[str, Any]:
    """A subscription with a card, so that it is charged immediately."""
    return {"plan": a_plan(), "customer": a_customer(), "card": a_card(), **fields}
