"""The terms of a plan, as the lifecycle of a subscription needs them."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import msgspec

from ecomcharge.base.calendar import Interval


class Trial(msgspec.Struct, frozen=True):
    amount: int  # minor units; 0: the card is verified only [P]
    interval: Interval
    as_first_payment: bool


class Terms(msgspec.Struct, frozen=True):
    """The terms of a plan that matter for charging. ``cycles`` is ``None`` for a plan without end."""

    amount: int  # minor units
    interval: Interval
    trial: Trial | None
    cycles: int | None
    attempts: int
    by_day: bool
    zone: ZoneInfo
