"""Known keys that stand in the wrong place of a body: they are ignored, as the platform does [W], and named to the client.

Only names out of the lists below are ever named, so that nothing of a client's data gets into a header or the log.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import structlog

from ecomcharge.base.validation import decode_body

log = structlog.get_logger()

HEADER: Final = "x-ignored-keys"
HEADER_MAXIMUM: Final = 1_000  # characters
MORE: Final = "..."  # stands for the names that are too many
SHOPS_REMEMBERED: Final = 10_000
TRUE_WORDS: Final = frozenset(("true", "1"))


@dataclass(frozen=True, slots=True)
class Level:
    """An object of a body: the keys that belong there, and those of its objects."""

    keys: tuple[str, ...]
    inner: Mapping[str, Level] = field(default_factory=dict)


_PRICE: Final = Level(("amount", "interval", "interval_unit", "visible_fields"))
_TRIAL: Final = Level(("amount", "interval", "interval_unit", "as_first_payment"))
PLAN: Final = Level(
    (
        *("test", "title", "currency", "plan", "trial", "language", "infinite", "billing_cycles"),
        *("number_payment_attempts", "prevent_payments_at_night"),
    ),
    {"plan": _PRICE, "trial": _TRIAL},
)
_CUSTOMER: Final = Level(
    ("first_name", "last_name", "address", "country", "city", "zip", "state", "phone", "email", "ip", "external_id")
)
_CARD: Final = Level(("number", "verification_value", "holder", "exp_month", "exp_year", "token"))
_SETTINGS: Final = Level(("language", "customer_fields", "payment_method", "style", "auto_return"))
SUBSCRIPTION: Final = Level(
    (
        *("customer", "plan", "tracking_id", "device_id", "return_url", "notification_url", "additional_data"),
        *("dynamic_billing_descriptor", "receipt_text", "avs_cvc_verification", "settings", "language", "card"),
    ),
    {"plan": PLAN, "customer": _CUSTOMER, "card": _CARD, "settings": _SETTINGS},
)
_LEVELS: Final = (PLAN, _PRICE, _TRIAL, SUBSCRIPTION, _CUSTOMER, _CARD, _SETTINGS)
KNOWN: Final = tuple(dict.fromkeys(key for level in _LEVELS for key in level.keys))

# As the bodies themselves are decoded: unknown keys are skipped, whatever they hold.
_KNOWN_KEYS: Final = msgspec.json.Decoder(msgspec.defstruct("KnownKeys", [(key, Any, msgspec.UNSET) for key in KNOWN]))


@dataclass(frozen=True, slots=True)
class Misplaced:
    """``paths`` are dotted (``plan.plan.test``); ``asks_for_test`` tells whether one of them is ``test`` and true."""

    paths: tuple[str, ...] = ()
    asks_for_test: bool = False

    @property
    def headers(self) -> list[tuple[str, str]]:
        return [(HEADER, _bounded(self.paths))] if self.paths else []


def misplaced_in(body: bytes, level: Level) -> Misplaced:
    """The known keys of a body that stand in the wrong place. Raises ``MalformedBody``, or ``NotAnObject``."""
    decoded = decode_body(body, _KNOWN_KEYS)
    given = {key: value for key in KNOWN if (value := getattr(decoded, key)) is not msgspec.UNSET}
    found = tuple(_misplaced(given, level, ""))
    asks_for_test = any(path.rpartition(".")[2] == "test" and _is_true(value) for path, value in found)
    return Misplaced(tuple(path for path, _ in found), asks_for_test)


def _misplaced(given: Mapping[str, Any], level: Level, prefix: str) -> Iterator[tuple[str, Any]]:
    belongs = level.keys
    if level is PLAN and given.get("id") not in (None, ""):
        belongs = ()  # a plan of the shop: nothing that stands beside its id changes it
    for key in KNOWN:
        if key not in given:
            continue
        if key not in belongs:
            if not (level is PLAN and key == "amount" and _is_first_amount(given)):
                yield f"{prefix}{key}", given[key]
        elif key in level.inner and isinstance(given[key], dict):
            yield from _misplaced(given[key], level.inner[key], f"{prefix}{key}.")


def _is_first_amount(plan: Mapping[str, Any]) -> bool:
    """Whether its ``amount`` is the one that a plan shows when it is read, which changes nothing."""
    prices = [plan.get("trial"), plan.get("plan")]
    return any(isinstance(price, dict) and price.get("amount") == plan["amount"] for price in prices)


def _is_true(value: object) -> bool:
    """As forms and scripts of clients write it, too."""
    if isinstance(value, str):
        return value.strip().lower() in TRUE_WORDS
    return isinstance(value, bool | int | float) and value == 1


def _bounded(paths: tuple[str, ...]) -> str:
    text = ", ".join(paths)
    if len(text) <= HEADER_MAXIMUM:
        return text
    whole = text[: HEADER_MAXIMUM - len(MORE)].rpartition(", ")[0]
    return f"{whole}, {MORE}"


class IgnoredKeysLog:
    """Says once per shop and process which keys are ignored, so that an operator can tell the shop's developers."""

    def __init__(self) -> None:
        self._named: dict[int, set[str]] = {}

    def note(self, shop_id: int, misplaced: Misplaced) -> None:
        named = self._named.get(shop_id)
        if named is None:
            if len(self._named) >= SHOPS_REMEMBERED:
                self._named.clear()
            named = self._named[shop_id] = set()
        new = [path for path in misplaced.paths if path not in named]
        if new:
            named.update(new)
            log.warning("known keys in the wrong place are ignored", shop=shop_id, keys=new)
