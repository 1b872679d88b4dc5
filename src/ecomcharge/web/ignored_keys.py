"""Known keys at the wrong place of a request body. They are ignored, as the platform does [W], and listed in a response header.

Only names from the lists below are listed, so that no data of a client gets into a header or the log.
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
MORE: Final = "..."  # replaces the names above the maximum
MOST_SHOPS: Final = 10_000
TRUE_WORDS: Final = frozenset(("true", "1"))


@dataclass(frozen=True, slots=True)
class Level:
    """The keys that are allowed in an object of a body, and the levels of its nested objects."""

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
    ("first_name", "last_name", "address", "country", "city", "zip", "state", "phone", "email", "ip", "external_id", "metadata")
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

# Unknown keys are skipped with any value, as in the decoders of the bodies themselves.
_KNOWN_KEYS: Final = msgspec.json.Decoder(msgspec.defstruct("KnownKeys", [(key, Any, msgspec.UNSET) for key in KNOWN]))


@dataclass(frozen=True, slots=True)
class Misplaced:
    """Misplaced keys of a body, with dotted ``paths`` (``plan.plan.test``). ``asks_for_test``: a ``test`` among them is true."""

    paths: tuple[str, ...] = ()
    asks_for_test: bool = False

    @property
    def headers(self) -> list[tuple[str, str]]:
        return [(HEADER, _bounded(self.paths))] if self.paths else []


def misplaced_in(body: bytes, level: Level) -> Misplaced:
    """The known keys at the wrong place of a body. Raises ``MalformedBody`` or ``NotAnObject``."""
    decoded = decode_body(body, _KNOWN_KEYS)
    given = {key: value for key, value in msgspec.structs.asdict(decoded).items() if value is not msgspec.UNSET}
    found = tuple(_misplaced(given, level, ""))
    asks_for_test = any(path.rpartition(".")[2] == "test" and _is_true(value) for path, value in found)
    return Misplaced(tuple(path for path, _ in found), asks_for_test)


def _misplaced(given: Mapping[str, Any], level: Level, prefix: str) -> Iterator[tuple[str, Any]]:
    belongs = level.keys
    if level is PLAN and given.get("id") not in (None, ""):
        belongs = ()  # an existing plan of the shop: keys beside its id do not change it
    for key in KNOWN:
        if key not in given:
            continue
        if key not in belongs:
            if not (level is PLAN and key == "amount" and _is_first_amount(given)):
                yield f"{prefix}{key}", given[key]
        elif key in level.inner and isinstance(given[key], dict):
            yield from _misplaced(given[key], level.inner[key], f"{prefix}{key}.")


def _is_first_amount(plan: Mapping[str, Any]) -> bool:
    """Whether ``amount`` is the one that a plan has in responses; a client may send it back."""
    prices = [plan.get("trial"), plan.get("plan")]
    return any(isinstance(price, dict) and price.get("amount") == plan["amount"] for price in prices)


def _is_true(value: object) -> bool:
    """Whether a value means true: ``true``, 1, or one of the texts that forms and scripts send."""
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
    """Logs each ignored key once per shop and process, so that an operator can inform the shop's developers."""

    def __init__(self) -> None:
        self._logged: dict[int, set[str]] = {}

    def note(self, shop_id: int, misplaced: Misplaced) -> None:
        logged = self._logged.get(shop_id)
        if logged is None:
            if len(self._logged) >= MOST_SHOPS:
                self._logged.clear()
            logged = self._logged[shop_id] = set()
        new = [path for path in misplaced.paths if path not in logged]
        if new:
            logged.update(new)
            log.warning("known keys in the wrong place are ignored", shop=shop_id, keys=new)
