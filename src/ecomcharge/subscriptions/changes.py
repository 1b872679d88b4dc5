"""Changes of a stored subscription."""

from __future__ import annotations

import msgspec

from ecomcharge.gateways.base import Card
from ecomcharge.payments import model as payments_model
from ecomcharge.payments.model import Payment
from ecomcharge.subscriptions.lifecycle import Transition
from ecomcharge.subscriptions.model import Subscription
from ecomcharge.subscriptions.personal_data import without_personal_data


def apply_transition(
    subscription: Subscription, transition: Transition, payment: Payment | None = None, card: Card | None = None
) -> Subscription:
    """The subscription after a transition, ready for ``store.update``.

    ``payment`` becomes its last transaction. ``card`` is the card that the gateway charged.
    """
    changed = msgspec.structs.replace(
        subscription,
        billing_state=transition.billing_state,
        sequence=subscription.sequence + (1 if transition.event is not None else 0),
    )
    if payment is not None:
        last_transaction = msgspec.json.encode(payments_model.to_json(payment)).decode()
        changed = msgspec.structs.replace(changed, last_transaction=last_transaction)
    if card is not None:
        if subscription.checkout_token is not None:  # entered on our page: the merchant does not see these two [P]
            card = msgspec.structs.replace(card, stamp=None, bin=None)
        changed = msgspec.structs.replace(changed, card=msgspec.json.encode(card).decode())
    if changed.erased_customer_id is not None:  # the outcome of a charge that was in progress at the erasure
        changed = without_personal_data(changed)
    return changed


def after_update(subscription: Subscription) -> Subscription:
    """The subscription as ``store.update`` leaves it in the database: with the next version."""
    return msgspec.structs.replace(subscription, version=subscription.version + 1)
