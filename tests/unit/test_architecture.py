"""The arrows between modules point down: no cycle, and nobody imports from above."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "ecomcharge"

# From the bottom to the top. A module may import from lower floors, and from its own capability's floor below.
FLOORS = [
    {"errors", "clock"},
    {"ids", "fields", "settings", "money", "subscriptions.schedule"},
    {"storage.statements"},
    {"storage.database"},
    {"storage.postgres.errors"},
    {"storage.postgres.pool", "storage.postgres.batching"},
    {"storage.postgres.statements", "storage.postgres.migrations"},
    {"storage.postgres.recovery"},
    {"storage.postgres.transaction"},
    {"storage.postgres.database"},
    {"storage.sqlite", "storage.postgres", "storage"},
    {"storage.migrate", "storage.records"},
    {"keys", "idempotency", "observability", "shops.model", "customers.model", "gateways.base", "subscriptions.lifecycle"},
    {"plans.model", "payments.model", "events.model", "sandbox.clock"},
    {"subscriptions.model", "sandbox.moves"},
    {"webhooks.model"},
    {"backlog", "metrics_endpoint"},
    {"shops.store", "customers.store", "customers.files", "plans.store", "payments.store", "webhooks.store", "webhooks.sending"},
    {"events.store", "subscriptions.store"},
    {"gateways.sandbox", "gateways.begateway", "subscriptions.parking"},
    {"gateways.directory"},
    {"shops.actions", "customers.actions", "plans.actions", "webhooks.actions"},
    {"subscriptions.billing", "webhooks.delivery"},
    {"subscriptions.actions", "worker"},
    {"customers.checking", "web.ignored_keys"},
    {"customers.transfer"},
    {"web.wire"},
    {"web.auth"},
    {"web.server"},
    {"web.operations", "web.html", "web.listing", "checkout.texts"},
    {"customers.routes", "plans.routes", "subscriptions.routes", "events.routes", "sandbox.routes", "checkout.rendering"},
    {"checkout.pages", "web.openapi.parts"},
    {"web.openapi.examples"},
    {"web.openapi.customers", "web.openapi.plans", "web.openapi.events"},
    {"web.openapi.subscriptions", "web.openapi.checkout", "web.openapi.sandbox", "web.openapi.server"},
    {"web.openapi.routes"},
    {"supervisor", "audit"},
    {"app", "client", "where", "terminal"},
    {"customers.commands", "shops.commands", "webhooks.commands", "sandbox.commands", "serving", "audit_command"},
    {"cli"},
]
_ROOMS = {
    "customers",
    "shops",
    "plans",
    "payments",
    "subscriptions",
    "gateways",
    "webhooks",
    "events",
    "checkout",
    "sandbox",
    "web",
    "web.openapi",
}
EMPTY = {"", *_ROOMS}  # packages whose __init__ only names or exports


def modules() -> dict[str, Path]:
    def name(path: Path) -> str:
        return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix("__init__").removesuffix(".")

    return {name(path): path for path in SOURCE.rglob("*.py")}


def imports(path: Path, known: set[str]) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "ecomcharge":
            module = node.module.removeprefix("ecomcharge").removeprefix(".")
            named = {f"{module}.{alias.name}".removeprefix(".") for alias in node.names} & known
            found |= named or {module}
    return found


GRAPH = {name: imports(path, set(modules())) - {name} for name, path in modules().items() if name not in EMPTY}
FLOOR_OF = {module: number for number, floor in enumerate(FLOORS) for module in floor}


def test_every_module_has_its_floor() -> None:
    assert set(GRAPH) == set(FLOOR_OF)


def test_no_import_points_up_or_sideways() -> None:
    wrong = [
        f"{module} imports {other}"
        for module, others in GRAPH.items()
        for other in others - EMPTY
        if FLOOR_OF[other] >= FLOOR_OF[module] and not (module == "storage" and other.startswith("storage."))
    ]
    assert wrong == []


def test_there_is_no_cycle() -> None:
    TopologicalSorter(GRAPH).prepare()


def test_models_stores_and_actions_know_nothing_of_http() -> None:
    for module, others in GRAPH.items():
        if module.rpartition(".")[2] in ("model", "store", "actions"):
            assert not any(other.startswith("web.") for other in others), module


def test_from_the_wire_to_the_row_are_six_files() -> None:
    walk = ["web.server", "customers.routes", "customers.model", "customers.actions", "customers.store", "storage.sqlite"]
    assert len(walk) == 6
    assert {"customers.model", "customers.actions", "web.server"} <= GRAPH["customers.routes"]
    assert {"customers.store"} <= GRAPH["customers.actions"]
