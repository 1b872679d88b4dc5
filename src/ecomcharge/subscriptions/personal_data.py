"""Which parts of a subscription, its events and its webhooks are personal data, and what stays of them for the books.

Ids, amounts, dates, states, the brand and the last four digits of the card stay, and the merchant's ``tracking_id`` [D].
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ecomcharge.gateways import base
from ecomcharge.payments.model import REFUND_MESSAGES
from ecomcharge.subscriptions.model import EMPTY_OBJECT, Subscription

_KEPT_OF_CARD: Final = frozenset(("brand", "last_4"))
_KEPT_OF_OPTIONS: Final = frozenset(("language",))
_MESSAGES: Final = {
    base.SUCCESSFUL: base.SUCCESS_MESSAGE,
    base.FAILED: base.DECLINE_MESSAGE,
    base.ERROR: base.ERROR_MESSAGE,
    base.INCOMPLETE: base.EXPIRED_MESSAGE,
}
_REFUND_MESSAGES: Final = frozenset(REFUND_MESSAGES.values())


def without_personal_data(subscription: Subscription) -> Subscription:
    """The subscription of an erased customer."""
    options = msgspec.json.decode(subscription.options)
    kept = {name: value for name, value in options.items() if name in _KEPT_OF_OPTIONS}
    return msgspec.structs.replace(
        subscription,
        customer_id=None,
        erased_customer_id=subscription.customer_id or subscription.erased_customer_id,
        device_id=None,
        card=card_without_personal_data(subscription.card),
        additional_data=EMPTY_OBJECT,
        options=_text(kept),
        last_transaction=_text(_transaction(msgspec.json.decode(subscription.last_transaction))),
        return_url=None,
        checkout_token=None,
    )


def card_without_personal_data(card: str) -> str:
    """The card object as JSON text. Its keys stay; without the token the card cannot be charged."""
    return _text(_card(msgspec.json.decode(card)))


def body_without_personal_data(body: str) -> str:
    """The body of an event or a webhook: a subscription object, or the checkout object of an expired payment page."""
    content: dict[str, Any] = msgspec.json.decode(body)
    if "order" in content:
        customer = {"id": content["customer"]["id"]} if content["customer"] else {}
        return _text(content | {"customer": customer, "token": None})
    changes: dict[str, Any] = {"device_id": None, "additional_data": {}}
    changes["card"] = _card(content.get("card") or {})
    if content.get("last_transaction"):
        changes["last_transaction"] = _transaction(content["last_transaction"])
    kept = {name: value for name, value in content.items() if name not in ("redirect_url", "token")}
    return _text({name: changes.get(name, value) for name, value in kept.items()})


def message_of_status(status: str) -> str | None:
    """The general message of a payment, in place of the gateway's own text."""
    return _MESSAGES.get(status)


def _card(card: dict[str, Any]) -> dict[str, Any]:
    return {name: value if name in _KEPT_OF_CARD else None for name, value in card.items()}


def _transaction(transaction: dict[str, Any] | None) -> dict[str, Any] | None:
    """The last transaction without the gateway's own text and without the address of the 3-D Secure step."""
    if not transaction:
        return transaction
    kept = {name: value for name, value in transaction.items() if name != "redirect_url"}
    if kept["message"] in _REFUND_MESSAGES:  # it reports that the money was returned
        return kept
    return kept | {"message": _MESSAGES[transaction["status"]]}


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()
