"""The client has a call for every operation of the API description that needs a shop's credentials."""

from __future__ import annotations

import re
from typing import Any, Final

import httpx

from ecomcharge import NewPlan, Price
from ecomcharge.client.clients import Calls
from ecomcharge.client.model import Customer
from ecomcharge.runtime.api_description import describe_api

ID: Final = "cst_7aee5afb954c7ef7"
PRICE: Final = Price(999, 1, "month")
JANE: Final[Any] = {"email": "jane@shop.test", "ip": "::1"}
OTHER_FORM: Final = {"POST /customers/{}"}  # PATCH, for clients that cannot send it


def requests_of_the_client() -> set[str]:
    """Method and path of every request that the calls of the client make, with ``{}`` for an id."""
    with httpx.Client(base_url="http://shop.test") as http:
        calls = Calls(http, 0)
        fields: dict[str, Any] = dict.fromkeys(Customer.__struct_fields__[1:11])
        customer = Customer(ID, **fields, etag='"1"')
        made = [
            *(calls.create_customer(**JANE), calls.get_customer(ID), calls.refresh_customer(customer)),
            *(calls.get_customer_by_external_id(ID), calls.get_or_create_customer(ID, **JANE)),
            *(calls.update_customer(ID, city=None), calls.replace_customer(ID, **JANE)),
            *(calls.delete_customer(ID), calls.export_customer(ID)),
            *(calls.list_customers(), calls.customers().next(), calls.count_customers()),
            *(calls.create_plan(title="Basic", currency="EUR", plan=PRICE), calls.get_plan(ID)),
            *(calls.list_plans(), calls.plans().next(), calls.count_plans()),
            calls.create_subscription(NewPlan(title="Basic", currency="EUR", plan=PRICE)),
            *(calls.get_subscription(ID), calls.cancel_subscription(ID), calls.cancel_subscription(ID, "enough")),
            *(calls.list_subscriptions(), calls.subscriptions().next(), calls.count_subscriptions()),
            *(calls.list_events(), calls.events().next(), calls.count_events()),
            *(calls.get_clock(), calls.freeze_clock(), calls.resume_clock(), calls.get_clock_move(ID)),
            *(calls.start_clock_move(step="1d"), calls.start_clock_move(to="2027-01-01")),
        ]
    sent = [call.request for call in made if call is not None]
    return {f"{request.method} {request.url.path.replace(ID, '{}')}" for request in sent}


def test_the_client_makes_every_request_that_needs_credentials() -> None:
    operations = {
        f"{method.upper()} {re.sub(r'{[a-z_]+}', '{}', path)}"
        for path, methods in describe_api()["paths"].items()
        for method, operation in methods.items()
        if isinstance(operation, dict) and operation.get("security") != []
    }
    assert requests_of_the_client() == operations - OTHER_FORM


def test_a_call_that_a_replica_may_answer_can_send_the_preference() -> None:
    with httpx.Client(base_url="http://shop.test") as http:
        calls = Calls(http, 0)
        sent = [
            *(calls.list_customers(stale=30), calls.customers(stale=30).next(), calls.count_customers(stale=30)),
            *(calls.list_plans(stale=30), calls.plans(stale=30).next(), calls.count_plans(stale=30)),
            *(calls.list_subscriptions(stale=30), calls.subscriptions(stale=30).next(), calls.count_subscriptions(stale=30)),
            *(calls.list_events(stale=30), calls.events(stale=30).next(), calls.count_events(stale=30)),
            calls.export_customer(ID, stale=30),
        ]
        assert "prefer" not in calls.list_customers().request.headers
    requests = [call.request for call in sent if call is not None]
    assert {request.headers["prefer"] for request in requests} == {"stale=30"}
    described = {
        re.sub(r"{[a-z_]+}", "{}", path)
        for path, methods in describe_api()["paths"].items()
        if "Prefer" in [parameter["name"] for parameter in methods.get("get", {}).get("parameters", [])]
    }
    assert {request.url.path.replace(ID, "{}") for request in requests} == described
