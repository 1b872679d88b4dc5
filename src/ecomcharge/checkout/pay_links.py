"""The page that a pay link leads to. Its address is made without a write: link previews and scanners open pay links too.

The address contains a token that this server signed, the plan and the return address. The subscription is created with this
token when the buyer submits the form, so that the address then leads to the subscription's own page.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from urllib.parse import urlencode

from ecomcharge.base.ids import PLAN_ID
from ecomcharge.base.validation import ValidationErrors
from ecomcharge.plans import store as plans
from ecomcharge.plans.model import Plan
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database
from ecomcharge.subscriptions import requests
from ecomcharge.subscriptions.buyer_actions import LinkedPlan

_HALF = 32  # hex digits of each half of a token: random digits, and their signature


class PayLinks:
    def __init__(self, database: Database, master_key: MasterKey) -> None:
        self._database = database
        self._master_key = master_key

    def open(self, shop_id: int, plan: Plan, return_url: str | None) -> LinkedPlan:
        """A page of its own for one visit of the pay link. Writes nothing."""
        nonce = secrets.token_hex(_HALF // 2)
        return LinkedPlan(shop_id, plan, return_url, nonce + self._signatures(nonce, plan.id, return_url)[0])

    async def find(self, query: Mapping[str, str]) -> LinkedPlan | None:
        """The page that this address leads to; ``None`` if this server did not sign it."""
        token, plan_id = query.get("token", ""), query.get("plan", "")
        return_url = requests.RETURN_URL_OF_LINK.read(query.get("return_url"), ValidationErrors())
        if not PLAN_ID.match(plan_id):
            return None
        signatures = self._signatures(token[:_HALF], plan_id, return_url)
        if not any(hmac.compare_digest(token[_HALF:].encode(), signature.encode()) for signature in signatures):
            return None
        found = await plans.owner_of(self._database, plan_id)
        return LinkedPlan(found[0], found[1], return_url, token) if found is not None else None

    def _signatures(self, nonce: str, plan_id: str, return_url: str | None) -> list[str]:
        """The signature under each master key, the first one first."""
        text = f"pay link {nonce} {plan_id} {return_url or ''}".encode()
        return [fingerprint.hex()[:_HALF] for fingerprint in self._master_key.fingerprints(text)]


def query_of(link: LinkedPlan) -> str:
    """The query of the address of the page."""
    named = {"token": link.token, "plan": link.plan.id, "return_url": link.return_url}
    return urlencode({name: value for name, value in named.items() if value is not None})
