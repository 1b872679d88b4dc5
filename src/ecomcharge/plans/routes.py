"""The routes of plans: ``POST /plans``, ``GET /plans``, ``GET /plans/{id}``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from ecomcharge.base.card_numbers import may_contain
from ecomcharge.base.clock import Clock
from ecomcharge.base.errors import RecordNotFound
from ecomcharge.base.ids import PLAN_ID, PLAN_PREFIX, IdGenerator
from ecomcharge.base.validation import ValidationErrors, decode_body
from ecomcharge.plans import actions, model, store
from ecomcharge.plans.model import Plan
from ecomcharge.storage.database import Database
from ecomcharge.web import ignored_keys
from ecomcharge.web.filters import Filters
from ecomcharge.web.idempotency import idempotency_key_of
from ecomcharge.web.ignored_keys import IgnoredKeysLog
from ecomcharge.web.listing import Listing
from ecomcharge.web.messages import Request, Response, Stream, json_response, stored_response
from ecomcharge.web.router import Route
from ecomcharge.web.stale_reads import reader_for

_encode = msgspec.json.Encoder().encode

FILTERS: Final = Filters("plans", (), model.PlanObject.__annotations__)


class PlanRoutes:
    def __init__(self, database: Database, clock: Clock, base_url: str, id_generator: IdGenerator) -> None:
        self._database = database
        self._clock = clock
        self._base_url = base_url
        self._id_generator = id_generator
        self._ignored_keys = IgnoredKeysLog()

    def routes(self) -> list[Route]:
        return [
            Route("POST", "/plans", self.create),
            Route("GET", "/plans", self.list),
            Route("GET", "/plans/{}", self.read),
        ]

    async def create(self, request: Request) -> Response:
        body = await request.json()
        given = decode_body(body, model.BODY)
        misplaced = ignored_keys.misplaced_in(body, ignored_keys.PLAN)
        self._ignored_keys.note(request.shop_id, misplaced)
        request.answer_headers = misplaced.headers
        errors = ValidationErrors()
        fields = model.validate(given, errors, look_for_cards=may_contain(body))
        errors.raise_if_any(model.ORDER, errors_first=True)
        assert fields is not None
        idempotency_key = idempotency_key_of(request.idempotency_key(), "POST /plans", body)

        def encode(plan: Plan) -> bytes:
            return _encode(model.to_json(plan, request.shop_id, self._base_url))

        answer = await actions.create_plan(
            self._database,
            self._id_generator,
            self._clock.now(),
            request.shop_id,
            fields,
            idempotency_key,
            encode,
            misplaced_test=misplaced.asks_for_test,
        )
        return stored_response(answer)

    async def read(self, request: Request) -> Response:
        if not PLAN_ID.match(request.argument):
            raise RecordNotFound
        plan = await actions.read_plan(self._database, request.shop_id, request.argument)
        return json_response(200, _encode(model.to_json(plan, request.shop_id, self._base_url)))

    async def list(self, request: Request) -> Response | Stream:
        def encode(plans: Sequence[Plan]) -> bytes:
            return _encode([model.to_json(plan, request.shop_id, self._base_url) for plan in plans])

        listing = Listing("plan", "plans", PLAN_ID, PLAN_PREFIX, encode)
        query = FILTERS.query_of(request)
        plans = store.Plans(await reader_for(request, self._database), request.shop_id)
        return await listing.answer(request, plans, query)
