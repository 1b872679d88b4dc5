"""The buyer's pages: the payment page, the sandbox's 3-D Secure step, the result, and the pay link of a plan.

No credentials: whoever knows the page's token may pay. The pages are plain forms that work without JavaScript.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit
from zoneinfo import ZoneInfo

import msgspec

from ecomcharge.base.calendar import HOUR
from ecomcharge.base.clock import Clock
from ecomcharge.base.errors import BadParameter, EcomchargeError, RecordNotFound, RouteNotFound, ShopClosed
from ecomcharge.base.ids import PAYMENT_ID, PLAN_ID
from ecomcharge.base.validation import BLANK, INVALID, ValidationErrors, read_integer
from ecomcharge.checkout import texts
from ecomcharge.checkout.rendering import Asset, Renderer
from ecomcharge.customers import store as customers
from ecomcharge.customers.model import FIELDS as CUSTOMER_FIELDS
from ecomcharge.customers.model import CustomerBody, validate_partial
from ecomcharge.gateways import base, sandbox
from ecomcharge.gateways.base import CardDetails
from ecomcharge.gateways.registry import GatewayRegistry
from ecomcharge.payments import store as payments
from ecomcharge.payments.model import Payment
from ecomcharge.plans import store as plans
from ecomcharge.shops import store as shops
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database
from ecomcharge.subscriptions import actions, lifecycle, model, requests, store
from ecomcharge.subscriptions.actions import IdGenerators
from ecomcharge.subscriptions.charging import Charging
from ecomcharge.subscriptions.model import Subscription
from ecomcharge.web.messages import NO_STORE, Request, Response
from ecomcharge.web.rate_limits import AddressRateLimiter
from ecomcharge.web.router import Route

HTML: Final = ("content-type", "text/html; charset=utf-8")
FORM_MAXIMUM_FIELDS: Final = 50
FORM: Final = "application/x-www-form-urlencoded"
CARD_NAMES: Final = ("number", "exp_month", "exp_year", "verification_value", "holder")
ECHOED: Final = ("exp_month", "exp_year", "holder")  # what a page may show again of a card; never the rest
ASKED_FIRST: Final = ("email",)  # what a subscription's customer has at least
ANSWERS: Final = {"accept": True, "refuse": False}  # to the sandbox's 3-D Secure step
NOT_ASKED: Final = ("ip", "external_id")  # no matter of the buyer's
RETURN_SECONDS: Final = 6  # how long the result is shown before the buyer goes back to the merchant
RETURN_SECONDS_MAXIMUM: Final = 600
DAY: Final = 24 * HOUR
_ENDS: Final = {  # what the result page says of a first charge that was not taken, by state
    lifecycle.FAILED: "failed",
    lifecycle.ERROR: "failed",
    lifecycle.EXPIRED: "expired",
    lifecycle.CANCELED: "canceled",
}


class CheckoutPages:
    """``base_url`` is the address of this server for browsers; ``zone`` is the time zone of the dates on the pages."""

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
        limit: AddressRateLimiter,
    ) -> None:
        self._database = database
        self._charging = charging
        self._gateways = gateways
        self._clock = clock
        self._zone = zone
        self._base_url = base_url
        self._master_key = master_key
        self._id_generators = id_generators
        self._limit = limit
        self._renderer = Renderer()
        self._root = urlsplit(base_url).path  # a proxy may serve the program under a path of its own

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
        found = await plans.owner_of(self._database, plan_id) if PLAN_ID.match(plan_id) else None
        if found is None or (shop_id is not None and shop_id != str(found[0])):
            raise RecordNotFound
        if not await self._is_open(found[0]):
            return self._shop_closed(found[1].language)
        if not await self._gateways.has_gateway_for(found[0], test=found[1].test):
            return self._unavailable(found[1].language)
        if request.method == "HEAD":  # somebody looks whether the link is good; nobody subscribes
            return Response(200, b"", [NO_STORE])
        self._limit.count(request)
        faults = ValidationErrors()
        return_url = requests.RETURN_URL.read(request.query().get("return_url"), faults)
        if faults.to_dict():
            raise BadParameter("Return url is invalid")
        try:
            subscription = await actions.subscribe_by_link(self._charging, self._id_generators, found[0], found[1], return_url)
        except ShopClosed:
            return self._shop_closed(found[1].language)
        return _redirect(302, model.checkout_url(subscription.checkout_token or "", self._base_url))

    # The payment page

    async def page(self, request: Request) -> Response:
        subscription = await self._subscription(request)
        if subscription is None:
            return self._not_found(request)
        if not await self._is_open(subscription.shop_id):
            return self._shop_closed(subscription.language)
        return await self._shown(subscription)

    async def pay(self, request: Request) -> Response:
        """Charge the card, once; then 303, so that reloading repeats nothing."""
        subscription = await self._subscription(request)
        if subscription is None:
            return self._not_found(request)
        if not await self._is_open(subscription.shop_id):
            return self._shop_closed(subscription.language)
        token = subscription.checkout_token or ""
        if not self._waits_for_buyer(subscription) or await self._challenge_of(subscription) is not None:
            return self._back_to(token)
        if not await self._is_chargeable(subscription):
            return self._result(subscription, "unavailable", 409)
        form = await _form(request)
        if not hmac.compare_digest(form.get("form_token", "").encode(), self._form_token(token).encode()):
            return await self._form(subscription, 403, form, {}, "form_is_old")
        faults = ValidationErrors()
        card = self._validate_card(form, faults)
        missing = await self._missing(subscription)
        customer = self._validate_customer(form, missing, faults)
        if faults.to_dict() or card is None:
            return await self._form(subscription, 422, form, faults.to_dict((*missing, *CARD_NAMES)), None)
        self._limit.count(request)
        try:
            paid = await actions.pay(self._charging, self._id_generators, token, card, customer)
        except ShopClosed:
            return self._shop_closed(subscription.language)
        sent_on = paid is not None and paid.billing_state.state == lifecycle.REDIRECTING  # and not canceled meanwhile
        challenge = await self._challenge_of(paid) if paid is not None and sent_on else None
        return self._to_challenge(challenge) if challenge is not None else self._back_to(token)

    async def _shown(self, subscription: Subscription) -> Response:
        """The form, or where the buyer has to go instead, or how it went."""
        if not self._waits_for_buyer(subscription):
            return self._result(subscription)
        challenge = await self._challenge_of(subscription)
        if challenge is not None:
            return self._to_challenge(challenge)
        if not await self._is_chargeable(subscription):
            return self._result(subscription, "unavailable", 409)
        return await self._form(subscription, 200, {}, {}, None)

    async def _is_chargeable(self, subscription: Subscription) -> bool:
        """Whether its charge would be sent; a charge that is refused would end the subscription."""
        name, shop_id, account = subscription.gateway, subscription.shop_id, subscription.gateway_account
        return await self._gateways.charges(name, shop_id, account, test=subscription.plan.test)

    def _waits_for_buyer(self, subscription: Subscription) -> bool:
        return lifecycle.waits_for_buyer(subscription.billing_state, self._clock.now())

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
            order=self._order(subscription),
            fields=missing,
            values={name: form.get(name, "") for name in (*ECHOED, *missing)},
            problems=texts.in_language(subscription.language).problems(errors),
            message=message,
            form_token=self._form_token(token),
            action=f"{self._root}/v2/checkout?token={token}",
            test=_is_test(subscription),
        )

    def _result(self, subscription: Subscription, outcome: str | None = None, status: int = 200) -> Response:
        return self._rendered(
            "result.html",
            subscription.language,
            status,
            outcome=outcome or _outcome(subscription),
            order=self._order(subscription),
            return_url=_return_url(subscription),
            return_seconds=_return_seconds(subscription),
            test=_is_test(subscription),
        )

    def _order(self, subscription: Subscription) -> texts.Shown:
        return texts.order_of(subscription, self._clock.now(), self._zone)

    async def _missing(self, subscription: Subscription) -> list[str]:
        """The customer's fields that the page asks for: what the merchant wants, or at least an e-mail address [P]."""
        known = None
        if subscription.customer_id is not None:
            known = await customers.find(self._database, subscription.shop_id, subscription.customer_id)
        wanted = [*ASKED_FIRST, *model.visible_customer_fields(subscription)]
        names = [field.name for field in CUSTOMER_FIELDS if field.name in wanted and field.name not in NOT_ASKED]
        return [name for name in names if known is None or getattr(known, name) is None]

    def _validate_card(self, form: Mapping[str, str], faults: ValidationErrors) -> CardDetails | None:
        """As the API checks it, and what a page can tell a buyer before the bank does: a first decline is for good."""
        card = requests.validate_card({name: form.get(name) for name in CARD_NAMES}, faults, hosted=True)
        if not form.get("verification_value", "").strip():
            faults.add("verification_value", BLANK)
        number = requests.NUMBER.read(form.get("number"), ValidationErrors())
        if number is not None and not _adds_up(number):
            faults.add("number", INVALID)
        today = datetime.fromtimestamp((self._clock.now() - DAY) / 1000, UTC)  # somewhere it still is yesterday
        if card is not None and (card.exp_year, card.exp_month) < (today.year, today.month):
            faults.add("exp_month", texts.EXPIRED_CARD)
        return card

    def _validate_customer(self, form: Mapping[str, str], missing: list[str], faults: ValidationErrors) -> dict[str, str | None]:
        given = validate_partial(CustomerBody(**{name: form.get(name) for name in missing}), faults)
        for name in missing:
            if getattr(given, name) is None and not faults.has(name) and name in ASKED_FIRST:
                faults.add(name, BLANK)
        return {name: getattr(given, name) for name in missing}

    # 3-D Secure

    async def challenge(self, request: Request) -> Response:
        """The sandbox's step; from a real gateway's the buyer comes back here."""
        found = await self._payment(request)
        if found is None:
            return self._not_found(request)
        shop_id, payment = found
        if payment.gateway != sandbox.NAME:
            return await self._after_challenge(await actions.answer_challenge(self._charging, shop_id, payment, accepted=None))
        subscription = await actions.read_subscription(self._charging, shop_id, payment.subscription_id)
        if not await self._is_open(shop_id):  # the sandbox's step is a page of ours, and takes no money for a closed shop
            return self._shop_closed(subscription.language)
        if payment.status != base.INCOMPLETE or not self._waits_for_buyer(subscription):
            return await self._after_challenge(subscription)
        return self._rendered(
            "challenge.html",
            subscription.language,
            200,
            form_action=_target_after_challenge(subscription),
            order=self._order(subscription),
            form_token=self._form_token(payment.id),
            action=f"{self._root}/process/{payment.id}",
            test=True,
        )

    async def answer(self, request: Request) -> Response:
        found = await self._payment(request)
        if found is None:
            return self._not_found(request)
        shop_id, payment = found
        if not await self._is_open(shop_id):
            return await self.challenge(request)
        form = await _form(request)
        is_ours = hmac.compare_digest(form.get("form_token", "").encode(), self._form_token(payment.id).encode())
        if not is_ours or form.get("answer") not in ANSWERS:
            return self._to_challenge(payment)
        accepted = ANSWERS[form["answer"]]
        return await self._after_challenge(await actions.answer_challenge(self._charging, shop_id, payment, accepted=accepted))

    async def _after_challenge(self, subscription: Subscription) -> Response:
        if not await self._is_open(subscription.shop_id):
            return self._shop_closed(subscription.language)
        if self._waits_for_buyer(subscription):  # the gateway does not know yet; asked again at each refresh
            return self._result(subscription, "waiting")
        if subscription.checkout_token is not None:
            return self._back_to(subscription.checkout_token)
        return_url = _return_url(subscription)
        if return_url is not None:
            return _redirect(303, return_url)
        return self._result(subscription)

    # Common

    async def asset(self, request: Request) -> Response:
        asset: Asset | None = self._renderer.assets.get(request.argument)
        if asset is None:
            raise RouteNotFound
        return asset.answer(request.header("if-none-match"))

    async def _subscription(self, request: Request) -> Subscription | None:
        token = request.query().get("token", "")
        if not (token.isascii() and token.isalnum() and len(token) == 64):
            return None
        return await store.by_token(self._database, token)

    async def _payment(self, request: Request) -> tuple[int, Payment] | None:
        """The shop and its payment."""
        if not PAYMENT_ID.match(request.argument):
            return None
        return await payments.owner_of(self._database, request.argument)

    async def _challenge_of(self, subscription: Subscription) -> Payment | None:
        """The payment that waits for 3-D Secure, or is under way."""
        return await payments.live(self._database, subscription.shop_id, subscription.id, subscription.billing_state.period)

    def _form_token(self, of: str) -> str:
        return self._master_key.fingerprint(f"form {of}".encode()).hex()

    def _back_to(self, token: str) -> Response:
        return _redirect(303, f"{self._root}/v2/checkout?token={token}")

    def _to_challenge(self, payment: Payment) -> Response:
        """To the gateway's step, or to ours: on the host where the buyer is, whatever we take ours to be called."""
        if payment.gateway == sandbox.NAME or payment.redirect_url is None:
            return _redirect(303, f"{self._root}/process/{payment.id}")
        return _redirect(303, payment.redirect_url)

    async def _is_open(self, shop_id: int) -> bool:
        return await shops.is_open(self._database, shop_id)

    def _shop_closed(self, language: str) -> Response:
        return self._rendered(
            "result.html", language, 410, outcome="closed", order=None, return_url=None, return_seconds=None, test=False
        )

    def _not_found(self, request: Request) -> Response:
        language = texts.preferred(request.header("accept-language") or "")
        return self._rendered(
            "result.html", language, 404, outcome="unknown", order=None, return_url=None, return_seconds=None, test=False
        )

    def _unavailable(self, language: str) -> Response:
        """The page for a buyer who opens the pay link of a shop without a gateway for the plan."""
        return self._rendered(
            "result.html", language, 409, outcome="unavailable", order=None, return_url=None, return_seconds=None, test=False
        )

    def _rendered(self, template: str, language: str, status: int, *, form_action: str = "'self'", **context: Any) -> Response:
        page = self._renderer.render(template, language, assets=f"{self._root}/v2/checkout", **context)
        return Response(status, page, [HTML, NO_STORE, *_guards(form_action)])


def _form_target(subscription: Subscription) -> str:
    """Where the form may lead: here, to the gateway's 3-D Secure, and back to the merchant."""
    return "'self'" if subscription.gateway == sandbox.NAME else "'self' https:"


def _target_after_challenge(subscription: Subscription) -> str:
    """Where there is no page of ours to come back to, the answer leads straight to the merchant, and on from there."""
    return "'self'" if subscription.checkout_token is not None else "'self' https: http:"


def _is_test(subscription: Subscription) -> bool:
    return subscription.plan.test or subscription.gateway == sandbox.NAME


def _outcome(subscription: Subscription) -> str:
    """What the result page says. Of a subscription that was paid once, a failed renewal is its end and no failed payment."""
    billing_state = subscription.billing_state
    if billing_state.paid_billing_cycles:
        return "canceled" if billing_state.state in lifecycle.OVER else "success"
    if billing_state.state == lifecycle.REDIRECTING:  # its day is over
        return "expired"
    return _ENDS.get(billing_state.state, "waiting")


def _adds_up(number: str) -> bool:
    """The check digit of a card number (ISO/IEC 7812-1, annex B)."""
    digits = [int(digit) for digit in reversed(number)]
    return (sum(digits[::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])) % 10 == 0


def _return_seconds(subscription: Subscription) -> int:
    """When the buyer goes back by itself: as ``settings.auto_return`` says, or else ours."""
    settings = msgspec.json.decode(subscription.options).get("settings", {})
    wanted = settings.get("auto_return") if isinstance(settings, dict) else None
    seconds = read_integer(
        "auto_return", wanted, ValidationErrors(), above=-1, most=RETURN_SECONDS_MAXIMUM, default=RETURN_SECONDS
    )
    return RETURN_SECONDS if seconds is None else seconds


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
