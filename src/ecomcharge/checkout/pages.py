"""The buyer's pages: the payment page, the sandbox's 3-D Secure step, the result, and the pay link of a plan.

No credentials: whoever knows the page's token may pay. The pages are plain forms that work without JavaScript.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from ecomcharge.checkout import texts
from ecomcharge.checkout.rendering import Asset, Renderer
from ecomcharge.customers import store as customers
from ecomcharge.customers.model import FIELDS as CUSTOMER_FIELDS
from ecomcharge.customers.model import CustomerBody, checked_if_given
from ecomcharge.errors import BadParameter, EcomchargeError, RecordNotFound, RouteNotFound
from ecomcharge.fields import BLANK, Faults
from ecomcharge.gateways import base, sandbox
from ecomcharge.gateways.base import CardDetails
from ecomcharge.ids import PAYMENT_ID, PLAN_ID
from ecomcharge.keys import MasterKey
from ecomcharge.payments import store as payments
from ecomcharge.payments.model import Payment
from ecomcharge.plans import store as plans
from ecomcharge.subscriptions import actions, lifecycle, model, store
from ecomcharge.subscriptions.actions import Mints
from ecomcharge.subscriptions.billing import Billing
from ecomcharge.subscriptions.model import Subscription
from ecomcharge.web.server import Route
from ecomcharge.web.wire import NO_STORE, Request, Response

HTML: Final = ("content-type", "text/html; charset=utf-8")
FORM_MAXIMUM_FIELDS: Final = 50
FORM: Final = "application/x-www-form-urlencoded"
CARD_NAMES: Final = ("number", "verification_value", "holder", "exp_month", "exp_year")
ASKED_FIRST: Final = ("email",)  # what a subscription's customer has at least
_HOLDS_FOR: Final = {  # what the result page says, by state
    lifecycle.ACTIVE: "success",
    lifecycle.TRIAL: "success",
    lifecycle.FAILED: "failed",
    lifecycle.ERROR: "failed",
    lifecycle.EXPIRED: "expired",
    lifecycle.CANCELED: "canceled",
}


class CheckoutPages:
    def __init__(self, billing: Billing, master_key: MasterKey, mints: Mints) -> None:
        self._billing = billing
        self._master_key = master_key
        self._mints = mints
        self._renderer = Renderer()

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/v2/checkout", self.page, needs_shop=False),
            Route("POST", "/v2/checkout", self.pay, needs_shop=False),
            Route("GET", "/v2/checkout/{}", self.asset, needs_shop=False),
            Route("GET", "/process/{}", self.challenge, needs_shop=False),
            Route("POST", "/process/{}", self.answer, needs_shop=False),
            Route("GET", "/plans/{}/pay", self.subscribe, needs_shop=False),
            Route("POST", "/plans/{}/pay", self.subscribe, needs_shop=False),
            Route("GET", "/v2/confirm_order/{}/{}", self.confirm, needs_shop=False),
            Route("POST", "/v2/confirm_order/{}/{}", self.confirm, needs_shop=False),
        ]

    # The pay link

    async def subscribe(self, request: Request) -> Response:
        """A new subscription, and the buyer to its page: a 302 with an empty body, for a client breaks on any other [W]."""
        return await self._subscribe(request, request.argument, None)

    async def confirm(self, request: Request) -> Response:
        plan_id, _, shop_id = request.argument.partition("/")
        return await self._subscribe(request, plan_id, shop_id)

    async def _subscribe(self, request: Request, plan_id: str, shop_id: str | None) -> Response:
        found = await plans.owner_of(self._billing.database, plan_id) if PLAN_ID.match(plan_id) else None
        if found is None or (shop_id is not None and shop_id != str(found[0])):
            raise RecordNotFound
        faults = Faults()
        return_url = model.RETURN_URL.read(request.query().get("return_url"), faults)
        if faults.told():
            raise BadParameter("Return url is invalid")
        subscription = await actions.subscribe_by_link(self._billing, self._mints, found[0], found[1], return_url)
        return _redirect(302, model.checkout_url(subscription.checkout_token or "", self._base_url))

    # The payment page

    async def page(self, request: Request) -> Response:
        subscription = await self._subscription(request)
        if subscription is None:
            return self._not_found()
        return await self._shown(subscription)

    async def pay(self, request: Request) -> Response:
        """Charge the card, once; then 303, so that reloading repeats nothing."""
        subscription = await self._subscription(request)
        if subscription is None:
            return self._not_found()
        token = subscription.checkout_token or ""
        if subscription.standing.state != lifecycle.REDIRECTING or await self._challenge_of(subscription) is not None:
            return self._back_to(token)
        form = await _form(request)
        if not hmac.compare_digest(form.get("form_token", "").encode(), self._form_token(token).encode()):
            return await self._form(subscription, 403, form, {}, "form_is_old")
        faults = Faults()
        card = model.checked_card({name: form.get(name) for name in CARD_NAMES}, faults, hosted=True)
        missing = await self._missing(subscription)
        customer = self._checked_customer(form, missing, faults)
        if faults.told() or card is None:
            return await self._form(subscription, 422, form, faults.told(), None)
        paid = await self._paid(token, card, customer)
        challenge = await self._challenge_of(paid) if paid is not None else None
        if challenge is not None and challenge.redirect_url is not None:
            return _redirect(303, challenge.redirect_url)
        return self._back_to(token)

    async def _paid(self, token: str, card: CardDetails, customer: Mapping[str, str | None]) -> Subscription | None:
        return await actions.pay(self._billing, self._mints, token, card, customer)

    async def _shown(self, subscription: Subscription) -> Response:
        """The form, or where the buyer has to go instead, or how it went."""
        state = subscription.standing.state
        if state == lifecycle.REDIRECTING:
            challenge = await self._challenge_of(subscription)
            if challenge is not None and challenge.redirect_url is not None:
                return _redirect(303, challenge.redirect_url)
            return await self._form(subscription, 200, {}, {}, None)
        return self._result(subscription)

    async def _form(
        self, subscription: Subscription, status: int, form: Mapping[str, str], errors: Mapping[str, Any], message: str | None
    ) -> Response:
        token = subscription.checkout_token or ""
        missing = await self._missing(subscription)
        return self._rendered(
            "checkout.html",
            subscription.language,
            status,
            form_action=_form_target(subscription),
            order=texts.order_of(subscription, self._billing.clock.now()),
            fields=[field for field in CUSTOMER_FIELDS if field.name in missing],
            values={name: form.get(name, "") for name in ("holder", "exp_month", "exp_year", *missing)},
            errors=errors,
            message=message,
            form_token=self._form_token(token),
            action=f"/v2/checkout?token={token}",
            test=subscription.plan.test or subscription.gateway == sandbox.NAME,
        )

    def _result(self, subscription: Subscription) -> Response:
        outcome = _HOLDS_FOR.get(subscription.standing.state, "waiting")
        return self._rendered(
            "result.html",
            subscription.language,
            200,
            outcome=outcome,
            order=texts.order_of(subscription, self._billing.clock.now()),
            return_url=_return_url(subscription),
        )

    async def _missing(self, subscription: Subscription) -> list[str]:
        """The customer's fields that the page asks for: what the merchant wants, or at least an e-mail address [P]."""
        known = None
        if subscription.customer_id is not None:
            known = await customers.find(self._billing.database, subscription.shop_id, subscription.customer_id)
        wanted = [*ASKED_FIRST, *model.visible_customer_fields(subscription)]
        names = [field.name for field in CUSTOMER_FIELDS if field.name in wanted and field.name not in ("ip", "external_id")]
        return [name for name in names if known is None or getattr(known, name) is None]

    def _checked_customer(self, form: Mapping[str, str], missing: list[str], faults: Faults) -> dict[str, str | None]:
        given = checked_if_given(CustomerBody(**{name: form.get(name) for name in missing}), faults)
        for name in missing:
            if getattr(given, name) is None and not faults.about(name) and name in ASKED_FIRST:
                faults.add(name, BLANK)
        return {name: getattr(given, name) for name in missing}

    # 3-D Secure

    async def challenge(self, request: Request) -> Response:
        """The sandbox's step; from a real gateway's the buyer comes back here."""
        found = await self._payment(request)
        if found is None:
            return self._not_found()
        shop_id, payment = found
        if payment.gateway != sandbox.NAME:
            return await self._after_challenge(await actions.answer_challenge(self._billing, shop_id, payment, accepted=None))
        subscription = await actions.read_subscription(self._billing, shop_id, payment.subscription_id)
        if payment.status != base.INCOMPLETE or subscription.standing.state != lifecycle.REDIRECTING:
            return await self._after_challenge(subscription)
        return self._rendered(
            "challenge.html",
            subscription.language,
            200,
            form_action="'self' " + _form_target(subscription),
            order=texts.order_of(subscription, self._billing.clock.now()),
            form_token=self._form_token(payment.id),
            action=f"/process/{payment.id}",
        )

    async def answer(self, request: Request) -> Response:
        found = await self._payment(request)
        if found is None:
            return self._not_found()
        shop_id, payment = found
        form = await _form(request)
        if not hmac.compare_digest(form.get("form_token", "").encode(), self._form_token(payment.id).encode()):
            return _redirect(303, f"/process/{payment.id}")
        accepted = form.get("answer") == "accept"
        return await self._after_challenge(await actions.answer_challenge(self._billing, shop_id, payment, accepted=accepted))

    async def _after_challenge(self, subscription: Subscription) -> Response:
        if subscription.checkout_token is not None:
            return self._back_to(subscription.checkout_token)
        return_url = _return_url(subscription)
        if return_url is not None and subscription.standing.state != lifecycle.REDIRECTING:
            return _redirect(303, return_url)
        return self._result(subscription)

    # Common

    @property
    def _base_url(self) -> str:
        return self._billing.teller.base_url

    async def asset(self, request: Request) -> Response:
        asset: Asset | None = self._renderer.assets.get(request.argument)
        if asset is None:
            raise RouteNotFound
        return asset.answer(request.header("if-none-match"))

    async def _subscription(self, request: Request) -> Subscription | None:
        token = request.query().get("token", "")
        if not (token.isascii() and token.isalnum() and len(token) == 64):
            return None
        return await store.by_token(self._billing.database, token)

    async def _payment(self, request: Request) -> tuple[int, Payment] | None:
        """The shop and its payment."""
        if not PAYMENT_ID.match(request.argument):
            return None
        return await payments.owner_of(self._billing.database, request.argument)

    async def _challenge_of(self, subscription: Subscription) -> Payment | None:
        """The payment that waits for 3-D Secure, or is under way."""
        return await payments.live(self._billing.database, subscription.shop_id, subscription.id, subscription.standing.period)

    def _form_token(self, of: str) -> str:
        return self._master_key.fingerprint(f"form {of}".encode()).hex()

    def _back_to(self, token: str) -> Response:
        return _redirect(303, f"/v2/checkout?token={token}")

    def _not_found(self) -> Response:
        return self._rendered("result.html", "en", 404, outcome="unknown", order=None, return_url=None)

    def _rendered(self, template: str, language: str, status: int, *, form_action: str = "'self'", **context: Any) -> Response:
        return Response(status, self._renderer.render(template, language, **context), [HTML, NO_STORE, *_guards(form_action)])


def _form_target(subscription: Subscription) -> str:
    """Where the form may lead: here, to the gateway's 3-D Secure, and back to the merchant."""
    return "'self'" if subscription.gateway == sandbox.NAME else "'self' https:"


def _guards(form_action: str) -> list[tuple[str, str]]:
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; base-uri 'none'; "
        f"form-action {form_action}; frame-ancestors 'none'"
    )
    return [
        ("content-security-policy", policy),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
    ]


def _return_url(subscription: Subscription) -> str | None:
    """Back to the merchant with ``id=sbs_…`` added; the query that is there is kept [P]."""
    if subscription.return_url is None:
        return None
    parts = urlsplit(subscription.return_url)
    query = "&".join(part for part in (parts.query, urlencode({"id": subscription.id})) if part)
    return parts._replace(query=query).geturl()


def _redirect(status: int, location: str) -> Response:
    return Response(status, b"", [("location", quote(location, safe="%/:=&?~#+!$,;'@()*[]")), NO_STORE])


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form. Of one that is malformed, none: the page then says what is missing."""
    media_type = (request.header("content-type") or "").partition(";")[0].strip().lower()
    if media_type != FORM:
        return {}
    body = await request.read_body()
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=FORM_MAXIMUM_FIELDS))
    except (ValueError, EcomchargeError):
        return {}
