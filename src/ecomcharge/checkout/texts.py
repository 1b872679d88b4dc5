"""What the pages say, in the languages of plans; where a language has no words here, English [D]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ecomcharge import money
from ecomcharge.subscriptions.model import Subscription

_TEXTS: Final = {"en": {"pay": "Pay"}}


@dataclass(frozen=True, slots=True)
class Texts:
    language: str
    words: dict[str, str]

    def __call__(self, key: str, **values: object) -> str:
        return self.words[key].format(**values)


def in_language(language: str) -> Texts:
    words = _TEXTS.get(language)
    return Texts(language, words) if words is not None else Texts("en", _TEXTS["en"])


@dataclass(frozen=True, slots=True)
class Shown:
    """What is bought, in the words of its language."""

    title: str
    price: str


def order_of(subscription: Subscription, now: int) -> Shown:
    plan = subscription.plan
    return Shown(plan.title, money.readable((plan.trial or plan.plan).amount, plan.currency))
