"""The routes of the checkout: the payment page, the sandbox's 3-D Secure step, the result, and the pay link of a plan.

The routes need no credentials: the token of a page permits its payment. The pages are forms that work without JavaScript.
"""

from __future__ import annotations

import contextlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlsplit
from zoneinfo import ZoneInfo

from ecomcharge.base.clock import Clock
from ecomcharge.base.errors import (
    BadParameter,
    RecordNotFound,
    RouteNotFound,
    ShopClosed,
    TooManyRequests,
    Unavailable,
    ValidationFailed,
)
from ecomcharge.base.ids import PAYMENT_ID, PLAN_ID
from ecomcharge.base.validation import ValidationErrors
from ecomcharge.checkout import forms, results
from ecomcharge.checkout.limits import CARD_POLICY, PaymentLimits
from ecomcharge.checkout.look_ups import LookUps
from ecomcharge.checkout.pay_links import PayLinks, query_of
from ecomcharge.checkout.rendering import Asset, Renderer
from ecomcharge.checkout.results import Outcome
from ecomcharge.checkout.summary import Summary, summarize
from ecomcharge.checkout.translations import preferred_language, translation_for
from ecomcharge.customers import store as customers
from ecomcharge.gateways import base, sandbox
from ecomcharge.gateways.registry import GatewayRegistry
from ecomcharge.payments import store as payments
from ecomcharge.payments.model import Payment
from ecomcharge.plans import store as plans
from ecomcharge.shops import store as shops
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database
from ecomcharge.subscriptions import actions, buyer_actions, lifecycle, model, requests, store
from ecomcharge.subscriptions.actions import IdGenerators
from ecomcharge.subscriptions.app_links import is_app_link
from ecomcharge.subscriptions.buyer_actions import LinkedPlan
from ecomcharge.subscriptions.charging import Charging
from ecomcharge.subscriptions.model import Subscription
from ecomcharge.web.error_responses import rate_limit_headers
from ecomcharge.web.messages import NO_STORE, Request, Response, Stream, without_blanks
from ecomcharge.web.router import Handler, Route

HTML: Final = ("content-type", "text/html; charset=utf-8")
ANSWERS: Final = {"accept": True, "refuse": False}  # to the sandbox's 3-D Secure step


@dataclass(frozen=True, slots=True)
class _Visit:
    """A visited payment page. The page of a pay link has a ``link`` and a subscription that is not stored yet."""

    subscription: Subscription
    token: str
    link: LinkedPlan | None

    @property
    def query(self) -> str:
        return f"token={self.token}" if self.link is None else query_of(self.link)


class CheckoutPages:
    """The handlers of the checkout.

    ``base_url`` is the address of this server for browsers; ``zone`` is the time zone of the dates on the pages;
    ``frame_ancestors`` are the origins whose pages may contain these pages in a frame.
    """

    def __init__(
        self,
        database: Database,
        charging: Charging,
        gateways: GatewayRegistry,
        clock: Clock,
        zone: ZoneInfo,
        base_url: str,
        master_key: MasterKey,
        id_generators: IdGenerators,
        limits: PaymentLimits,
        frame_ancestors: Sequence[str] = (),
    ) -> None:
        self._database = database
        self._charging = charging
        self._gateways = gateways
        self._clock = clock
        self._zone = zone
        self._base_url = base_url
        self._master_key = master_key
        self._id_generators = id_generators
        self._limits = limits
        self._look_ups = LookUps()
        self._links = PayLinks(database, master_key)
        self._frame_ancestors = frame_ancestors
        self._renderer = Renderer()
        self._root = urlsplit(base_url).path  # a proxy may serve the program under a path of its own

    def routes(self) -> list[Route]:
        handlers = [
            ("GET", "/v2/checkout", self.page),
            ("POST", "/v2/checkout", self.pay),
            ("GET", "/process/{}", self.challenge),
            ("POST", "/process/{}", self.answer),
            ("GET", "/plans/{}/pay", self.follow),
            ("POST", "/plans/{}/pay", self.follow),
            ("GET", "/v2/confirm_order/{}/{}", self.confirm),
            ("POST", "/v2/confirm_order/{}/{}", self.confirm),
        ]
        pages = [Route(method, path, self._with_error_pages(handler), needs_shop=False) for method, path, handler in handlers]
        return [*pages, Route("GET", "/v2/checkout/{}", self.asset, needs_shop=False)]

    def _with_error_pages(self, handler: Handler) -> Handler:
        """The handler with pages for the errors that any request may meet, because a browser shows the response to a buyer."""

        async def handle(request: Request) -> Response | Stream:
            try:
                return await handler(request)
            except RecordNotFound as error:
                page = self._not_found(request)
                page.code = error.code
            except Unavailable as error:
                page = self._notice(results.OFFLINE, _language_of(request), 503)
                page.code = error.code
                page.headers.append(("retry-after", str(error.retry_after_seconds)))
            return page

        return handle

    # The pay link

    async def follow(self, request: Request) -> Response:
        """Redirect the buyer to a payment page: 302 with an empty body, as a real client requires [W].

        GET and HEAD write nothing, because link previews, prefetch and scanners follow links too. POST creates a subscription.
        """
        return await self._follow(request, request.argument, None)

    async def confirm(self, request: Request) -> Response:
        plan_id, _, shop_id = request.argument.partition("/")
        return await self._follow(request, plan_id, shop_id)

    async def _follow(self, request: Request, plan_id: str, of_shop: str | None) -> Response:
        found = await plans.owner_of(self._database, plan_id) if PLAN_ID.match(plan_id) else None
        if found is None or (of_shop is not None and of_shop != str(found[0])):
            raise RecordNotFound
        shop_id, plan = found
        if not await self._is_open(shop_id):
            return self._shop_closed(plan.language)
        if not await self._gateways.has_gateway_for(shop_id, test=plan.test):
            return self._notice(results.UNAVAILABLE, plan.language, 409)
        errors = ValidationErrors()
        return_url = requests.RETURN_URL_OF_LINK.read(without_blanks(request.query().get("return_url")), errors)
        if errors.to_dict():
            raise BadParameter("Return url is invalid")
        if request.method != "POST":
            return _redirect(302, f"{self._base_url}/v2/checkout?{query_of(self._links.open(shop_id, plan, return_url))}")
        try:
            self._limits.addresses.count(request)
            subscription = await buyer_actions.subscribe_by_link(self._charging, self._id_generators, shop_id, plan, return_url)
        except ShopClosed:
            return self._shop_closed(plan.language)
        except TooManyRequests as error:
            return _limited(error, self._notice(results.BUSY, plan.language, 429))
        return _redirect(302, model.checkout_url(subscription.checkout_token or "", self._base_url))

    # The payment page

    async def page(self, request: Request) -> Response:
        """The form, a redirect to the 3-D Secure step, or the result."""
        visit = await self._visit(request)
        if isinstance(visit, Response):
            return visit
        subscription = visit.subscription
        if not self._waits_for_buyer(subscription):
            return self._result(subscription)
        challenge = await self._challenge_of(subscription)
        if challenge is not None:
            return self._to_challenge(challenge)
        if not await self._is_chargeable(subscription):
            return self._unavailable(visit)
        return await self._form(visit, 200, {})

    async def pay(self, request: Request) -> Response:
        """Charge the card, once. Answers 303, so that a reload does not send the form again."""
        visit = await self._visit(request)
        if isinstance(visit, Response):
            return visit
        subscription, token = visit.subscription, visit.token
        if not self._waits_for_buyer(subscription) or await self._challenge_of(subscription) is not None:
            return self._back_to(token)
        if not await self._is_chargeable(subscription):
            return self._unavailable(visit)
        form = await forms.read_form(request)
        if not self._is_form_token(form.get("form_token", ""), token):
            return await self._form(visit, 403, form, message=forms.FORM_TOO_OLD)
        errors = ValidationErrors()
        card = forms.validate_card(form, errors, self._clock.now())
        form = forms.without_card(form)
        missing = await self._missing(subscription)
        customer = forms.validate_customer(form, missing, errors)
        if errors.to_dict() or card is None:
            return await self._form(visit, 422, form, errors=errors.to_dict((*missing, *forms.CARD_NAMES)))
        try:
            stamp = self._master_key.stamp(card.number)
            self._limits.count_card(request, subscription.shop_id, subscription.gateway, stamp)
            paid = await buyer_actions.pay(self._charging, self._id_generators, token, card, customer, visit.link)
        except ShopClosed:
            return self._shop_closed(subscription.language)
        except TooManyRequests as error:
            message = forms.CARD_TRIED_TOO_OFTEN if error.policy == CARD_POLICY else forms.TOO_MANY_PAYMENTS
            return _limited(error, await self._form(visit, 429, form, message=message))
        except ValidationFailed:  # the operator took the shop's gateway away in the meantime
            return self._notice(results.UNAVAILABLE, subscription.language, 409)
        is_challenged = paid is not None and paid.billing_state.state == lifecycle.REDIRECTING  # and not canceled in the meantime
        challenge = None
        with contextlib.suppress(Unavailable):  # the card may be charged: a 503 would say that nothing was written
            challenge = await self._challenge_of(paid) if paid is not None and is_challenged else None
        return self._to_challenge(challenge) if challenge is not None else self._back_to(token)

    async def _visit(self, request: Request) -> _Visit | Response:
        """The page that is visited, or the notice in its place."""
        query = request.query()
        token = query.get("token", "")
        if not (token.isascii() and token.isalnum() and len(token) == 64):
            return self._not_found(request)
        subscription, link = await store.by_token(self._database, token), None
        if subscription is None:
            link = await self._links.find(query)
            if link is None:
                return self._not_found(request)
            try:
                subscription = await buyer_actions.preview(self._charging, self._id_generators, link)
            except ValidationFailed:  # the shop has no gateway
                return self._notice(results.UNAVAILABLE, link.plan.language, 409)
        if not await self._is_open(subscription.shop_id):
            return self._shop_closed(subscription.language)
        return _Visit(subscription, token, link)

    async def _is_chargeable(self, subscription: Subscription) -> bool:
        """Whether a gateway would take its charge. A refused charge would end the subscription."""
        name, shop_id, account = subscription.gateway, subscription.shop_id, subscription.gateway_account
        return await self._gateways.charges(name, shop_id, account, test=subscription.plan.test)

    def _waits_for_buyer(self, subscription: Subscription) -> bool:
        return lifecycle.waits_for_buyer(subscription.billing_state, self._clock.now())

    async def _form(
        self,
        visit: _Visit,
        status: int,
        form: Mapping[str, str],
        *,
        errors: Mapping[str, Any] | None = None,
        message: str | None = None,
    ) -> Response:
        subscription = visit.subscription
        missing = await self._missing(subscription)
        return self._rendered(
            "checkout.html",
            subscription.language,
            status,
            form_action=_form_target(subscription),
            order=self._summary(subscription),
            fields=missing,
            values=forms.echo_of(form, missing),
            problems=forms.problems_of(errors or {}, translation_for(subscription.language)),
            message=message,
            form_token=self._form_token(visit.token),
            action=f"{self._root}/v2/checkout?{visit.query}",
            test=_is_test(subscription),
        )

    def _result(self, subscription: Subscription, outcome: Outcome | None = None, status: int = 200) -> Response:
        return self._rendered(
            "result.html",
            subscription.language,
            status,
            outcome=outcome or results.outcome_of(subscription),
            order=self._summary(subscription),
            receipt=model.receipt_lines(subscription),
            return_url=results.return_url_of(subscription),
            return_seconds=results.return_seconds_of(subscription),
            test=_is_test(subscription),
        )

    def _unavailable(self, visit: _Visit) -> Response:
        if visit.link is not None:  # there is no subscription whose id the merchant could be given
            return self._notice(results.UNAVAILABLE, visit.subscription.language, 409)
        return self._result(visit.subscription, results.UNAVAILABLE, 409)

    def _summary(self, subscription: Subscription) -> Summary:
        return summarize(subscription, self._clock.now(), self._zone)

    async def _missing(self, subscription: Subscription) -> list[str]:
        known = None
        if subscription.customer_id is not None:
            known = await customers.find(self._database, subscription.shop_id, subscription.customer_id)
        return forms.missing_fields(subscription, known)

    # 3-D Secure

    async def challenge(self, request: Request) -> Response:
        """The sandbox's 3-D Secure page. From the page of a real gateway the buyer comes back to this address."""
        found = await self._payment(request)
        if found is None:
            return self._not_found(request)
        shop_id, payment = found
        if payment.gateway != sandbox.NAME:
            return await self._after_challenge(await self._looked_up(shop_id, payment))
        subscription = await actions.read_subscription(self._charging, shop_id, payment.subscription_id)
        if not await self._is_open(shop_id):  # the sandbox takes no money for a closed shop
            return self._shop_closed(subscription.language)
        if payment.status != base.INCOMPLETE or not self._waits_for_buyer(subscription):
            return await self._after_challenge(subscription)
        return self._rendered(
            "challenge.html",
            subscription.language,
            200,
            form_action=_target_after_challenge(subscription),
            order=self._summary(subscription),
            form_token=self._form_token(payment.id),
            action=f"{self._root}/process/{payment.id}",
            test=True,
        )

    async def _looked_up(self, shop_id: int, payment: Payment) -> Subscription:
        """The subscription of a payment at a real gateway, which is asked unless it was asked just now."""
        found = await self._look_ups.look_up(
            payment.id, lambda: buyer_actions.answer_challenge(self._charging, shop_id, payment, accepted=None)
        )
        return found or await actions.read_subscription(self._charging, shop_id, payment.subscription_id)

    async def answer(self, request: Request) -> Response:
        found = await self._payment(request)
        if found is None:
            return self._not_found(request)
        shop_id, payment = found
        if not await self._is_open(shop_id):
            return await self.challenge(request)
        form = await forms.read_form(request)
        if not self._is_form_token(form.get("form_token", ""), payment.id) or form.get("answer") not in ANSWERS:
            return self._to_challenge(payment)
        accepted = ANSWERS[form["answer"]]
        return await self._after_challenge(
            await buyer_actions.answer_challenge(self._charging, shop_id, payment, accepted=accepted)
        )

    async def _after_challenge(self, subscription: Subscription) -> Response:
        if not await self._is_open(subscription.shop_id):
            return self._shop_closed(subscription.language)
        if self._waits_for_buyer(subscription):  # no outcome yet; a reload asks the gateway again
            return self._result(subscription, results.WAITING)
        if subscription.checkout_token is not None:
            return self._back_to(subscription.checkout_token)
        return_url = results.return_url_of(subscription)
        if return_url is not None and not is_app_link(return_url):
            return _redirect(303, return_url)
        return self._result(subscription)  # a browser opens an app after a press of a button, and often not by a redirect

    # Common

    async def asset(self, request: Request) -> Response:
        asset: Asset | None = self._renderer.assets.get(request.argument)
        if asset is None:
            raise RouteNotFound
        return asset.answer(request.header("if-none-match"))

    async def _payment(self, request: Request) -> tuple[int, Payment] | None:
        """The shop's id and its payment."""
        if not PAYMENT_ID.match(request.argument):
            return None
        return await payments.owner_of(self._database, request.argument)

    async def _challenge_of(self, subscription: Subscription) -> Payment | None:
        """The payment that waits for 3-D Secure or for its outcome."""
        return await payments.live(self._database, subscription.shop_id, subscription.id, subscription.billing_state.period)

    def _form_token(self, subject: str) -> str:
        return self._form_tokens(subject)[0]

    def _is_form_token(self, given: str, subject: str) -> bool:
        return any(hmac.compare_digest(given.encode(), token.encode()) for token in self._form_tokens(subject))

    def _form_tokens(self, subject: str) -> list[str]:
        """The token under each master key, the first one first."""
        return [fingerprint.hex() for fingerprint in self._master_key.fingerprints(f"form {subject}".encode())]

    def _back_to(self, token: str) -> Response:
        return _redirect(303, f"{self._root}/v2/checkout?token={token}")

    def _to_challenge(self, payment: Payment) -> Response:
        """Redirect to the gateway's page, or to the sandbox's on the host name that the buyer's browser uses."""
        if payment.gateway == sandbox.NAME or payment.redirect_url is None:
            return _redirect(303, f"{self._root}/process/{payment.id}")
        return _redirect(303, payment.redirect_url)

    async def _is_open(self, shop_id: int) -> bool:
        return await shops.is_open(self._database, shop_id)

    def _shop_closed(self, language: str) -> Response:
        return self._notice(results.CLOSED, language, 410)

    def _not_found(self, request: Request) -> Response:
        return self._notice(results.UNKNOWN, _language_of(request), 404)

    def _notice(self, outcome: Outcome, language: str, status: int) -> Response:
        """A result page without a subscription."""
        return self._rendered(
            "result.html", language, status, outcome=outcome, order=None, return_url=None, return_seconds=None, test=False
        )

    def _rendered(self, template: str, language: str, status: int, *, form_action: str = "'self'", **context: Any) -> Response:
        page = self._renderer.render(template, language, assets=f"{self._root}/v2/checkout", **context)
        return Response(status, page, [HTML, NO_STORE, *_security_headers(form_action, self._frame_ancestors)])


def _language_of(request: Request) -> str:
    """The language of a page without a plan."""
    return preferred_language(request.header("accept-language") or "")


def _form_target(subscription: Subscription) -> str:
    """The origins that the form may lead to: this server, the gateway's 3-D Secure page, and the merchant."""
    return "'self'" if subscription.gateway == sandbox.NAME else "'self' https:"


def _target_after_challenge(subscription: Subscription) -> str:
    """A subscription without a checkout page sends the buyer straight to the merchant, who may redirect again."""
    return "'self'" if subscription.checkout_token is not None else "'self' https: http:"


def _is_test(subscription: Subscription) -> bool:
    return subscription.plan.test or subscription.gateway == sandbox.NAME


def _limited(error: TooManyRequests, page: Response) -> Response:
    """The page, with the headers of the rate limit."""
    page.headers.extend(rate_limit_headers(error))
    page.code = error.code
    return page


def _security_headers(form_action: str, frame_ancestors: Sequence[str]) -> list[tuple[str, str]]:
    """``X-Frame-Options`` cannot name an origin, so it is sent only if there is none."""
    ancestors = " ".join(frame_ancestors) or "'none'"
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; base-uri 'none'; "
        f"form-action {form_action}; frame-ancestors {ancestors}"
    )
    return [
        ("content-security-policy", policy),
        *([] if frame_ancestors else [("x-frame-options", "DENY")]),
        ("referrer-policy", "no-referrer"),
    ]


def _redirect(status: int, location: str) -> Response:
    return Response(status, b"", [("location", quote(location, safe="%/:=&?~#+!$,;'@()*[]")), NO_STORE])
