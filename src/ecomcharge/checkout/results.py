"""The result page: how a payment ended, and the way back to the merchant."""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import urlencode, urlsplit

import msgspec

from ecomcharge.base.validation import ValidationErrors, read_integer
from ecomcharge.checkout.forms import TOO_MANY_PAYMENTS
from ecomcharge.checkout.translations import gettext_noop
from ecomcharge.subscriptions import lifecycle
from ecomcharge.subscriptions.model import Subscription

RETURN_SECONDS: Final = 6  # how long the result is on the screen before the buyer goes back to the merchant
RETURN_SECONDS_MAXIMUM: Final = 600


class Outcome(NamedTuple):
    """``name`` is also a CSS class. Title and text are messages that the page translates."""

    name: str
    title: str
    text: str


SUCCESS: Final = Outcome(
    "success",
    gettext_noop("Thank you, all done"),
    gettext_noop("Your subscription is active."),
)
FAILED: Final = Outcome(
    "failed",
    gettext_noop("The payment did not go through"),
    gettext_noop("Nothing was taken. You can start again from the shop, perhaps with another card."),
)
EXPIRED: Final = Outcome(
    "expired",
    gettext_noop("This payment page has expired"),
    gettext_noop("Nothing was taken. Please start again from the shop."),
)
CANCELED: Final = Outcome(
    "canceled",
    gettext_noop("This subscription has ended"),
    gettext_noop("No further payments will be taken."),
)
WAITING: Final = Outcome(
    "waiting",
    gettext_noop("Your payment is being processed"),
    gettext_noop("This page updates itself. Please do not pay a second time."),
)
UNAVAILABLE: Final = Outcome(
    "unavailable",
    gettext_noop("Payment is not possible at the moment"),
    gettext_noop("Nothing was taken. Please try again later, or ask the shop."),
)
BUSY: Final = Outcome(
    "busy",
    gettext_noop("Please wait a minute"),
    TOO_MANY_PAYMENTS,
)
OFFLINE: Final = Outcome(  # the card may have been charged before the database was lost
    "offline",
    gettext_noop("This page is not available at the moment"),
    gettext_noop("Please open it again in a minute. It then says whether you have paid."),
)
UNKNOWN: Final = Outcome(
    "unknown",
    gettext_noop("Page not found"),
    gettext_noop("This payment link is not valid. Please check the address or start again from the shop."),
)
CLOSED: Final = Outcome(
    "closed",
    gettext_noop("This shop is closed"),
    gettext_noop("It takes no payments at present. If you have questions about an order, please contact the shop."),
)
_WITHOUT_A_PAYMENT: Final = {  # by state, where the first charge did not succeed
    lifecycle.REDIRECTING: EXPIRED,  # the result page has this state only after the day of the buyer is over
    lifecycle.FAILED: FAILED,
    lifecycle.ERROR: FAILED,
    lifecycle.EXPIRED: EXPIRED,
    lifecycle.CANCELED: CANCELED,
}


def outcome_of(subscription: Subscription) -> Outcome:
    """After a first payment, a failed renewal is the end of the subscription and not a failed payment."""
    billing_state = subscription.billing_state
    if billing_state.paid_billing_cycles:
        return CANCELED if billing_state.state in lifecycle.OVER else SUCCESS
    return _WITHOUT_A_PAYMENT.get(billing_state.state, WAITING)


def return_url_of(subscription: Subscription) -> str | None:
    """The merchant's address with ``id=sbs_…`` added; the query that it has is kept [P]."""
    if subscription.return_url is None:
        return None
    parts = urlsplit(subscription.return_url)
    query = "&".join(part for part in (parts.query, urlencode({"id": subscription.id})) if part)
    return parts._replace(query=query).geturl()


def return_seconds_of(subscription: Subscription) -> int:
    """When the buyer goes back without a click: ``settings.auto_return`` if it is valid, or the default."""
    settings = msgspec.json.decode(subscription.options).get("settings", {})
    wanted = settings.get("auto_return") if isinstance(settings, dict) else None
    seconds = read_integer(
        "auto_return", wanted, ValidationErrors(), above=-1, most=RETURN_SECONDS_MAXIMUM, default=RETURN_SECONDS
    )
    return RETURN_SECONDS if seconds is None else seconds
