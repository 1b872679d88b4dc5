"""The tables of the documentation agree with the program."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from ecomcharge.base import calendar, errors, money
from ecomcharge.base.faults import CODES
from ecomcharge.base.settings import Settings
from ecomcharge.base.validation import (
    BLANK,
    INVALID,
    INVALID_IP,
    MAXIMUM_LENGTH,
    NOT_A_BOOLEAN,
    NOT_A_NUMBER,
    NOT_A_STRING,
    NOT_AN_INTEGER,
    NOT_AN_OBJECT,
    TOO_LARGE,
    TOO_LONG,
    TOO_SMALL,
)
from ecomcharge.checkout.forms import CARD_NAMES
from ecomcharge.customers import model as customers
from ecomcharge.customers.model import FIELD_NAMES
from ecomcharge.customers.openapi import CUSTOMER
from ecomcharge.events.model import CUSTOMER_CREATED, KEPT_MILLISECONDS
from ecomcharge.events.openapi import example_of
from ecomcharge.gateways.base import Card
from ecomcharge.gateways.sandbox import TEST_CARDS
from ecomcharge.plans import model as plans
from ecomcharge.plans.model import PlanBody
from ecomcharge.plans.openapi import LEAST_PLAN, NEW_PLAN, PLAN
from ecomcharge.runtime.api_description import describe_api
from ecomcharge.subscriptions import lifecycle
from ecomcharge.subscriptions.openapi import ACTIVE, CANCELED, MESSAGES, REDIRECTING
from ecomcharge.subscriptions.requests import HOLDER_MAXIMUM, NO_SUCH_TOKEN, URL_MAXIMUM, SubscriptionBody
from ecomcharge.subscriptions.routes import FILTERS
from ecomcharge.web.error_responses import STATUS_OF
from ecomcharge.web.listing import DEEPEST_OFFSET, DEFAULT_LIMIT, MAXIMUM_LIMIT
from ecomcharge.web.problems import problem_of
from ecomcharge.webhooks.model import RETRIES, SigningKey, Webhook, headers_of
from ecomcharge.webhooks.sender import TIMEOUT_SECONDS
from support.documents import ROOT, text_of

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def written(default: object) -> str:
    if default is None:
        return ""
    return str(default).lower() if isinstance(default, bool) else str(default)


def test_every_setting_is_documented_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `--([a-z-]+)` \| `ECOMCHARGE_[A-Z_]+` \|(.*?)\|", text_of("docs/operations.md"), re.MULTILINE))
    for setting in dataclasses.fields(Settings):
        name = setting.name.replace("_", "-")
        assert f"`ECOMCHARGE_{setting.name.upper()}`" in text_of("docs/operations.md")
        default = rows.pop(name).strip(" `")
        if setting.name != "master_key_file":  # its default is a path, described in words
            assert default == written(setting.default)
        assert re.search(rf"^    {setting.name}\n        \S", Settings.__doc__ or "", re.MULTILINE), setting.name
    assert rows == {}


def test_every_error_is_documented_with_its_status_code_and_sentence() -> None:
    table = text_of("docs/api.md")
    for kind, status in STATUS_OF.items():
        row = re.search(rf"^\| {status} \| `{kind.code}` \| (.*?) \|", table, re.MULTILINE)
        assert row is not None, kind
        if kind is errors.ConfigurationError:  # its sentence is for the operator
            assert row[1] == "Internal server error"
        elif kind not in (errors.BadParameter, errors.ValidationFailed):
            assert row[1] == kind.message


def test_every_error_has_a_status() -> None:
    assert set(STATUS_OF) == set(errors.EcomchargeError.__subclasses__())


def test_every_field_text_and_limit_is_documented() -> None:
    document = text_of("docs/api.md")
    for name in (*FIELD_NAMES, BLANK, INVALID, INVALID_IP, NOT_A_STRING):
        assert f"`{name}`" in document
    for text in (NOT_A_NUMBER, NOT_AN_INTEGER, NOT_A_BOOLEAN, NOT_AN_OBJECT):
        assert f"`{text}`" in document
    assert f"`{TOO_SMALL.format(bound=0)}`, `{TOO_LARGE.format(bound=100)}`" in document
    for maximum in (MAXIMUM_LENGTH, HOLDER_MAXIMUM):
        assert TOO_LONG.format(maximum=maximum) in document
    assert f"{DEFAULT_LIMIT} unless given; at most {DEEPEST_OFFSET:,} can be skipped" in document
    assert f"1 to {MAXIMUM_LIMIT}; {DEFAULT_LIMIT} when only a cursor is given" in document


def section_of(title: str) -> str:
    """The text under a heading of the reference, up to the next heading of its level."""
    text = text_of("docs/api.md")
    level = re.search(rf"^(#+) {re.escape(title)}$", text, re.MULTILINE)
    assert level is not None, title
    return re.split(rf"^#{{1,{len(level[1])}}} ", text[level.end() :], maxsplit=1, flags=re.MULTILINE)[0]


def rows_of(title: str) -> dict[str, str]:
    """The rows of a section's tables, by each name in their first cell."""
    rows = re.findall(r"^\| (.*?) \| (.*) \|$", section_of(title), re.MULTILINE)
    return {name: rest for first, rest in rows for name in re.findall(r"`([^`]+)`", first)}


def test_every_field_of_a_new_plan_is_documented() -> None:
    documented = rows_of("Create a plan: `POST /plans`")
    prices = {"amount", "interval", "interval_unit"}
    nested = {f"plan.{name}" for name in {*prices, "visible_fields"}} | {
        f"trial.{name}" for name in {*prices, "as_first_payment"}
    }
    assert set(documented) == set(PlanBody.__struct_fields__) - {"id"} | nested
    for name, rest in documented.items():
        optional = NEW_PLAN.keys() - LEAST_PLAN.keys() | {"plan.visible_fields", "trial.as_first_payment"}
        if name in optional - {"billing_cycles"}:
            assert rest.startswith("no "), name


def test_every_limit_of_a_plan_is_documented() -> None:
    documented = rows_of("Create a plan: `POST /plans`")
    assert f"at most {money.AMOUNT_MAXIMUM:,} minor units" in documented["plan.amount"]
    longest = ", ".join(f"{calendar.LONGEST[unit]:,} {unit}s" for unit in calendar.UNITS)
    assert f"at most ten years: {longest}" in documented["plan.interval"]
    assert set(re.findall(r"`(\w+)`", documented["plan.interval_unit"])) == set(calendar.UNITS)
    assert " ".join(plans.LANGUAGES) in documented["language"]
    assert f"1 to {plans.CYCLES_MAXIMUM:,};" in documented["billing_cycles"]
    assert f"1 to {plans.ATTEMPTS_MAXIMUM} [D]; {plans.DEFAULT_ATTEMPTS} unless given" in documented["number_payment_attempts"]
    assert f"at most {plans.VISIBLE_FIELDS_MAXIMUM} texts" in documented["plan.visible_fields"]
    assert f"{calendar.DAY_BEGINS:02d}:00 to {calendar.DAY_ENDS}:00" in documented["prevent_payments_at_night"]


def test_every_field_of_a_new_subscription_is_documented() -> None:
    documented = rows_of("Create a subscription: `POST /subscriptions`")
    card = {f"card.{name}" for name in (*CARD_NAMES, "token")}
    assert set(documented) == set(SubscriptionBody.__struct_fields__) | card
    assert f"at most {URL_MAXIMUM:,} characters" in documented["return_url"]
    assert f"at most {HOLDER_MAXIMUM} characters" in documented["card.holder"]


def test_every_key_of_a_plan_and_a_subscription_is_documented_in_order() -> None:
    assert list(rows_of("The plan object")) == list(PLAN)
    whole = [*CANCELED, *REDIRECTING, "event"]
    order = sorted(set(whole), key=list(describe_api()["components"]["schemas"]["Subscription"]["properties"]).index)
    assert list(rows_of("The subscription object")) == order
    for name in (*PLAN["trial"], *PLAN["plan"]):
        assert f"`{name}`" in section_of("The plan object")
    assert ", ".join(f"`{name}`" for name in Card.__struct_fields__) in section_of("The subscription object")
    for name in ACTIVE["last_transaction"]:
        assert f"`{name}`" in rows_of("The subscription object")["last_transaction"]


def test_every_filter_of_subscriptions_is_documented() -> None:
    [row] = re.findall(r"^\| of subscriptions: (.*?) \|", section_of("Lists"), re.MULTILINE)
    assert re.findall(r"`(\w+)`", row) == list(FILTERS.names)


def test_every_error_of_plans_and_subscriptions_is_documented_verbatim() -> None:
    document = text_of("docs/api.md")
    for name in ("invalid_plan", "invalid_inline_plan", "unknown_plan", "cancel_reason_missing", "subscription_is_over"):
        body = json.dumps(describe_api()["components"]["examples"][name]["value"], separators=(",", ":"), ensure_ascii=False)
        assert f"`{body}`" in document
    assert f"`{NO_SUCH_TOKEN}`" in document


def test_every_state_is_documented() -> None:
    text = section_of("States and time").partition("### Transitions")[0]
    documented = [name for cell in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(documented) == sorted(lifecycle.STATES)


def test_every_test_card_is_documented_with_its_behaviour() -> None:
    documented = {number: rest.partition(" | ")[0] for number, rest in rows_of("Test cards").items()}
    assert documented == dict(TEST_CARDS)


def test_every_event_header_and_rule_of_webhooks_is_documented() -> None:
    documented = rows_of("Webhooks")
    webhook = Webhook(1, "whk_0", "sbs_0", 1, "created.subscription", "http://a.example", "{}", "pending", 0, 0, 0)
    headers = headers_of(webhook, "key", SigningKey.new(), 0)
    assert documented.keys() == MESSAGES.keys() | headers.keys()
    for name in MESSAGES[lifecycle.EXPIRED_EVENT]:
        assert f"`{name}`" in documented[lifecycle.EXPIRED_EVENT]
    assert f"up to {RETRIES} times" in section_of("Webhooks")
    assert f"after {TIMEOUT_SECONDS:.0f} seconds" in section_of("Webhooks")


def test_every_key_of_an_event_is_documented() -> None:
    documented = rows_of("Events")
    parameters = {
        parameter["name"] for parameter in describe_api()["paths"]["/events"]["get"]["parameters"] if parameter["in"] == "query"
    }
    assert documented.keys() == example_of(CUSTOMER_CREATED, CUSTOMER).keys() | parameters
    assert f"| `type` | `{CUSTOMER_CREATED}`" in section_of("Events")
    assert f"last {KEPT_MILLISECONDS // 86_400_000} days" in section_of("Events")


def test_every_route_is_documented() -> None:
    text = text_of("docs/api.md")
    for path, methods in describe_api()["paths"].items():
        for method in methods:
            documented = re.escape(re.sub(r"\{(\w+)\}", r":\1", path))
            assert re.search(rf"`(?:{method.upper()} )?{documented}(?:\?token=…)?`", text), f"{method} {path}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_resolve(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
        assert (document.parent / target).exists(), target


def test_the_readme_begins_with_the_two_commands() -> None:
    first = text_of("README.md").split("```")[1]
    assert [line.split("#")[0].strip() for line in first.strip().splitlines()] == ["make serve", "make test"]


def test_no_file_contains_a_download_address() -> None:
    for lock in ROOT.glob("requirements/*.txt"):
        assert "://" not in lock.read_text()
        assert lock.read_text().count("--hash=sha256:") >= lock.read_text().count("==") > 3
    npm = json.loads((ROOT / "requirements/npm/package-lock.json").read_text())["packages"]
    assert all("integrity" in package and "resolved" not in package for name, package in npm.items() if name)


def test_every_code_of_a_fault_is_documented() -> None:
    section = text_of("docs/api.md").split("### Errors for programs")[1].split("\n## ")[0]
    listed = [code for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for code in re.findall(r"`(\w+)`", row)]
    assert sorted(listed) == list(CODES)


def test_the_documented_problem_is_that_of_the_program() -> None:
    [example] = re.findall(r"```json\n(\{\"type.*)\n```", text_of("docs/api.md"))
    with pytest.raises(errors.ValidationFailed) as raised:
        customers.validate(customers.CustomerBody(email="customer@example.com", country="XX"))
    assert json.loads(example) == problem_of(raised.value, json.loads(example)["instance"])
