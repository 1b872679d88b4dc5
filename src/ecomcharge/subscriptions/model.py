"""A subscription: what may be asked for, what is kept, and what the wire shows.

Sources: [P] the platform's page on subscriptions, [C] captured traffic, [W] clients in the wild, [D] our choice.
"""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from ecomcharge import fields
from ecomcharge.customers.model import CustomerBody, CustomerFields, checked_if_given
from ecomcharge.errors import Invalid
from ecomcharge.fields import Faults, Field
from ecomcharge.gateways.base import CardDetails
from ecomcharge.plans import model as plans
from ecomcharge.plans.model import Plan, PlanBody, PlanFields
from ecomcharge.subscriptions import lifecycle
from ecomcharge.subscriptions.lifecycle import Standing
from ecomcharge.subscriptions.schedule import iso

NO_SUCH: Final = "{noun} with this ID doesn't exist for this account"  # [P] of plans, [D] of the others
NO_SUCH_TOKEN: Final = "card with this token doesn't exist for this account"  # noqa: S105 - a sentence [D]
OVER_ALREADY: Final = "Subscription is over and can't be canceled"  # [D]
URL_MAXIMUM: Final = 2_000
HOLDER_MAXIMUM: Final = 32  # [P]
EMPTY_OBJECT: Final = "{}"

_NUMBER: Final = re.compile(r"[0-9]{12,19}\Z")  # [P]
_CODE: Final = re.compile(r"[0-9]{3,4}\Z")  # [P]
_SPACES: Final = re.compile(r"[ -]+")


class SubscriptionBody(msgspec.Struct):
    """A request's body as it came: any JSON value for any field, unknown or misplaced keys ignored [W]."""

    customer: Any = None
    plan: Any = None
    tracking_id: Any = None
    device_id: Any = None
    return_url: Any = None
    notification_url: Any = None
    additional_data: Any = None
    dynamic_billing_descriptor: Any = None
    receipt_text: Any = None
    avs_cvc_verification: Any = None
    settings: Any = None
    language: Any = None
    card: Any = None


BODY: Final = msgspec.json.Decoder(SubscriptionBody)


class CancelBody(msgspec.Struct):
    cancel_reason: Any = None


CANCEL_BODY: Final = msgspec.json.Decoder(CancelBody)


class Wanted(msgspec.Struct, frozen=True):
    """A subscription that is asked for, checked. Plan and customer are told by id or by what they are made of."""

    plan: str | PlanFields
    customer: str | CustomerFields | None
    card: CardDetails | str | None
    tracking_id: str | None
    device_id: str | None
    return_url: str | None
    notification_url: str | None
    additional_data: str  # a JSON object
    options: str  # a JSON object: what is only passed on
    misplaced_test: bool = False  # the body has a true ``test`` where it is ignored

    @property
    def language(self) -> str | None:
        language: str | None = msgspec.json.decode(self.options).get("language")
        return language


class Subscription(msgspec.Struct, frozen=True):
    """A subscription as it is kept, with its plan. The texts named after JSON objects hold one."""

    shop_id: int
    id: str
    version: int
    sequence: int
    plan: Plan
    standing: Standing
    customer_id: str | None
    tracking_id: str | None
    device_id: str | None
    created_at: int  # UTC milliseconds
    gateway: str
    card: str
    additional_data: str
    options: str
    last_transaction: str
    return_url: str | None
    notification_url: str | None
    checkout_token: str | None
    gateway_account: str | None = None  # None: the shop's first one; the sandbox has none

    @property
    def card_token(self) -> str | None:
        token: str | None = msgspec.json.decode(self.card).get("token")
        return token

    @property
    def language(self) -> str:
        """Of the page that the buyer sees: as the subscription says, or else its plan."""
        return msgspec.json.decode(self.options).get("language") or self.plan.language


def _is_web_address(text: str) -> str | None:
    try:
        parts = urlsplit(text)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return None
    return text if known and not any(character.isspace() for character in text) else None


TRACKING_ID: Final = Field(
    "tracking_id", "The merchant's own id of the order; an integer is taken too.", "[P][W]", example="order-42"
)
DEVICE_ID: Final = Field("device_id", "The buyer's device.", "[P]")
RETURN_URL: Final = Field(
    "return_url",
    "Where the buyer goes back to; `id=sbs_…` is added to its query.",
    "[P]",
    example="https://shop.example/thanks",
    maximum=URL_MAXIMUM,
    accept=_is_web_address,
)
NOTIFICATION_URL: Final = Field(
    "notification_url",
    "Where webhooks go.",
    "[P]",
    example="https://shop.example/webhooks",
    maximum=URL_MAXIMUM,
    accept=_is_web_address,
)
DESCRIPTOR: Final = Field("dynamic_billing_descriptor", "What the buyer's statement says.", "[P]")
CANCEL_REASON: Final = Field("cancel_reason", "Why it is canceled.", "[P]", example="Customer asked", blank=(fields.BLANK,))
HOLDER: Final = Field("holder", "Name on the card.", "[P]", example="John Doe", maximum=HOLDER_MAXIMUM)
NUMBER: Final = Field(
    "number",
    "Number of the card, 12 to 19 digits.",
    "[P]",
    example="4200000000000000",
    blank=(fields.BLANK,),
    accept=lambda text: digits if _NUMBER.match(digits := _SPACES.sub("", text)) else None,
)
VERIFICATION_VALUE: Final = Field(
    "verification_value",
    "Security code, 3 or 4 digits.",
    "[P]",
    example="123",
    accept=lambda text: text if _CODE.match(text) else None,
)
CARD_TOKEN: Final = Field("token", "Token of a card that was used before.", "[P]")

_TEXTS: Final = (TRACKING_ID, DEVICE_ID, RETURN_URL, NOTIFICATION_URL, DESCRIPTOR)
ORDER: Final = (
    *(fields.BASE, "customer", "plan"),
    *(field.name for field in _TEXTS),
    *("additional_data", "receipt_text", "avs_cvc_verification", "settings", "language", "card"),
)


def checked(body: SubscriptionBody) -> Wanted:
    """What is asked for. Raises ``Invalid`` with every fault of every field."""
    faults = Faults()
    plan = _checked_plan(body.plan, faults)
    card = _checked_card(body.card, faults)
    customer = _checked_customer(body.customer, faults, required=bool(body.card))
    texts = {field.name: field.read(getattr(body, field.name), faults) for field in _TEXTS}
    additional_data = fields.read_object("additional_data", body.additional_data, faults)
    settings = fields.read_object("settings", body.settings, faults)
    language = plans.LANGUAGE.read(body.language or settings.get("language"), Faults())  # an unknown one is no error [W]
    if body.receipt_text is not None and not isinstance(body.receipt_text, list):
        faults.add("receipt_text", "must be an array")
    faults.raise_if_any(ORDER, errors_first=True)
    assert plan is not None
    options = {
        "language": language,
        "settings": settings,
        "dynamic_billing_descriptor": texts[DESCRIPTOR.name],
        "receipt_text": body.receipt_text,
        "avs_cvc_verification": body.avs_cvc_verification,
    }
    return Wanted(
        plan=plan,
        customer=customer,
        card=card,
        tracking_id=texts[TRACKING_ID.name],
        device_id=texts[DEVICE_ID.name],
        return_url=texts[RETURN_URL.name],
        notification_url=texts[NOTIFICATION_URL.name],
        additional_data=msgspec.json.encode(additional_data).decode(),
        options=msgspec.json.encode({name: value for name, value in options.items() if value}).decode(),
    )


def _checked_plan(value: object, faults: Faults) -> str | PlanFields | None:
    """By id, or by everything that makes one; then its faults are told as sentences about the whole [P]."""
    given = fields.read_object("plan", value, faults)
    if faults.about("plan"):
        return None
    if not given:
        faults.add("plan", fields.BLANK)
        return None
    if given.get("id") not in (None, ""):
        return str(given["id"])
    inner = Faults()
    plan = plans.checked(msgspec.convert(given, PlanBody), inner)
    for sentence in fields.sentences_of(inner.told(plans.ORDER)):
        faults.add(fields.BASE, sentence)
    return plan


def _checked_customer(value: object, faults: Faults, *, required: bool) -> str | CustomerFields | None:
    """By id, or by details, of which only the given ones are checked: real clients cannot send an ip [W]."""
    given = fields.read_object("customer", value, faults)
    if faults.about("customer"):
        return None
    if given.get("id") not in (None, ""):
        return str(given["id"])
    if not any(entry not in (None, "") for entry in given.values()):
        if required:
            faults.add("customer", fields.BLANK)
        return None
    return checked_if_given(msgspec.convert(given, CustomerBody), faults.within("customer"))


def _checked_card(value: object, faults: Faults) -> CardDetails | str | None:
    given = fields.read_object("card", value, faults)
    if faults.about("card") or not given:
        return None
    if given.get("token") not in (None, ""):
        return CARD_TOKEN.read(given["token"], faults.within("card"))
    return checked_card(given, faults.within("card"))


def checked_card(given: dict[str, Any], faults: Faults, *, hosted: bool = False) -> CardDetails | None:
    """A card that its holder typed, or ``None``, and then ``faults`` knows what is wrong with it."""
    number = NUMBER.read(given.get("number"), faults)
    code = VERIFICATION_VALUE.read(given.get("verification_value"), faults)
    holder = HOLDER.read(given.get("holder"), faults)
    month = fields.read_integer("exp_month", given.get("exp_month"), faults, above=0, most=12)
    year = fields.read_integer("exp_year", given.get("exp_year"), faults, above=0, most=2199)
    if year is not None and 100 <= year < 2000:
        faults.add("exp_year", fields.INVALID)
    if faults.told() or number is None or month is None or year is None:
        return None
    return CardDetails(number, code, holder, month, year + 2000 if year < 100 else year, hosted)


def checked_reason(body: CancelBody) -> str:
    """Raises ``Invalid`` where it is missing [P]."""
    faults = Faults()
    reason = CANCEL_REASON.read(body.cancel_reason, faults)
    faults.raise_if_any(errors_first=True)
    assert reason is not None
    return reason


def refused(name: str, text: str) -> Invalid:
    """``{"errors": {"plan": {"base": [text]}}, "message": text}`` [P]."""
    return Invalid(text, {name: {fields.BASE: [text]}}, errors_first=True)


def shown(subscription: Subscription, base_url: str, event: str | None = None) -> dict[str, Any]:
    """The subscription object, keys in the documented order [P]. ``base_url`` is where browsers find this server."""
    standing = subscription.standing
    told: dict[str, Any] = {
        "id": subscription.id,
        "state": standing.state,
        "tracking_id": subscription.tracking_id,
        "device_id": subscription.device_id,
        "created_at": iso(subscription.created_at),
        "renew_at": _iso(standing.renew_at),
        "active_to": _iso(standing.active_to),
        "card": _raw(subscription.card),
        "customer": {"id": subscription.customer_id} if subscription.customer_id else {},
        "paid_billing_cycles": standing.paid_billing_cycles,
        "number_failed_payment_attempts": standing.number_failed_payment_attempts,
        "additional_data": _raw(subscription.additional_data),
    }
    if standing.cancelled_at is not None:
        told["cancel_reason"] = standing.cancel_reason
        told["cancelled_at"] = iso(standing.cancelled_at)
    told["plan"] = plans.shown(subscription.plan, subscription.shop_id, base_url)
    told["last_transaction"] = _raw(subscription.last_transaction)
    if standing.state == lifecycle.REDIRECTING:
        told.update(_where_to(subscription, base_url))
    if event is not None:
        told["event"] = event
    return told


def checkout_url(token: str, base_url: str) -> str:
    return f"{base_url}/v2/checkout?token={token}"


def _where_to(subscription: Subscription, base_url: str) -> dict[str, str]:
    """Where the buyer has to go: to the 3-D Secure step that is under way, else to the page [P][W]."""
    challenge = msgspec.json.decode(subscription.last_transaction).get("redirect_url")
    token = subscription.checkout_token
    where = {}
    if challenge or token:
        where["redirect_url"] = challenge or checkout_url(token or "", base_url)
    if token:
        where["token"] = token
    return where


def _iso(moment: int | None) -> str | None:
    return None if moment is None else iso(moment)


def _raw(json: str) -> msgspec.Raw:
    return msgspec.Raw(json.encode())


def visible_customer_fields(subscription: Subscription) -> list[str]:
    """Which of the customer's fields the merchant wants the page to ask for [P]."""
    settings = msgspec.json.decode(subscription.options).get("settings", {})
    given = settings.get("customer_fields") if isinstance(settings, dict) else None
    visible = given.get("visible") if isinstance(given, dict) else given
    return [str(name) for name in visible] if isinstance(visible, list) else []
