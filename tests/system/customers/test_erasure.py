"""Erasure of a customer: what goes, what stays, and the answers afterwards."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from support.builders import a_card, a_plan
from support.personal_data import columns_with, tables_of, values_in_files
from support.postgres import PostgresServer
from support.process import ServerProcess
from support.shops import Shop, Start, add_shop, with_database

# Tables without personal data, and those that an erasure clears. A new table must be added to one of them.
WITHOUT_PERSONAL_DATA = {
    *("shops", "shop_keys", "gateway_accounts", "plans", "sandbox_clock", "clock_moves", "schema_migrations"),
    *("customer_imports", "erased_customers", "sandbox_charges"),
}
CLEARED = {"customers", "subscriptions", "payments", "events", "webhooks", "idempotency_keys", "cards", "external_id_locks"}

PERSON: dict[str, Any] = {
    "first_name": "Ottokar",
    "last_name": "Wyszyńska-Zöllner",
    "address": "Quellenstraße 77b",
    "country": "AT",
    "city": "Knittelfeld",
    "zip": "A-8720x",
    "phone": "+43 3512 998877",
    "email": "ottokar.zoellner@knittelfeld.test",
    "ip": "203.0.113.177",
    "external_id": "user-ottokar-4711",
    "metadata": {"nickname": "Otto the brave"},
}
VALUES = [
    *("Ottokar", "Wyszyńska", "Quellenstraße", "Knittelfeld", "A-8720x", "998877", "203.0.113.177", "user-ottokar"),
    *("Otto the brave", "OTTO ZOLLNER", "device-of-otto", "secret-note-of-otto", "otto-return"),
]


def subscription_of(customer_id: str, **fields: Any) -> dict[str, Any]:
    return {
        "plan": a_plan(),
        "customer": {"id": customer_id},
        "card": a_card(holder="OTTO ZOLLNER"),
        "tracking_id": "order-1",
        "device_id": "device-of-otto",
        "additional_data": {"note": "secret-note-of-otto"},
        "return_url": "https://shop.test/otto-return",
        "notification_url": "http://127.0.0.1:9/hook",
        **fields,
    }


def test_every_table_is_classified(server_process: ServerProcess) -> None:
    tables = {name for name in tables_of(server_process.database) if not name.startswith(("customer_search", "sqlite_"))}
    assert tables == WITHOUT_PERSONAL_DATA | CLEARED


def test_nothing_personal_is_left_of_an_erased_customer(
    database_url: str, start: Start, master_key: Any, request: pytest.FixtureRequest
) -> None:
    credentials = add_shop(database_url, master_key)
    process = start("--sandbox", "--worker", database=database_url)
    shop = Shop(process.url, credentials.shop_id, credentials.secret_key, process)
    with shop.client() as http:
        for number in range(3):  # others, so that the index has entries beside those of the person
            http.post("/customers", json={"first_name": f"Other{number}", "email": f"o{number}@shop.test", "ip": "::1"})
        key = {"Idempotency-Key": "create-otto"}
        external = "/customers/external/user-ottokar-4711"
        customer_id = http.put(external, json=PERSON, headers=key).json()["id"]
        change, change_key = {"state": "Styria"}, {"Idempotency-Key": "change-otto"}
        assert http.patch(f"/customers/{customer_id}", json=change, headers=change_key).status_code == 200
        charged = http.post("/subscriptions", json=subscription_of(customer_id), headers={"Idempotency-Key": "charge-otto"})
        assert charged.json()["state"] == "active"
        hosted = http.post("/subscriptions", json=subscription_of(customer_id, card=None))
        assert hosted.json()["state"] == "redirecting"
        if (postgres := _postgres(request, database_url)) is not None:  # autovacuum does it some time
            postgres.client("psql", database_url.rpartition("/")[2], "-c", "ANALYZE")
        assert set(values_in_files(database_url, VALUES, _postgres(request, database_url))) == set(VALUES)

        refused = http.delete(f"/customers/{customer_id}")
        assert (refused.status_code, refused.json()) == (409, {"message": "Customer has active subscriptions"})
        assert http.delete(f"/customers/{customer_id}?subscriptions=cancel").status_code == 204
        assert http.delete(f"/customers/{customer_id}").status_code == 204
        for path in (f"/customers/{customer_id}", f"/customers/{customer_id}/export"):
            gone = http.get(path)
            assert (gone.status_code, gone.json()) == (410, {"message": "Customer was erased"})
        for replay in (
            http.put(external, json=PERSON, headers=key),
            http.patch(f"/customers/{customer_id}", json=change, headers=change_key),
            http.patch(f"/customers/{customer_id}", json=change),
        ):
            assert (replay.status_code, replay.json()) == (410, {"message": "Customer was erased"})
            assert "etag" not in replay.headers
        assert http.get(external).status_code == 404
        replay = http.post("/subscriptions", json=subscription_of(customer_id), headers={"Idempotency-Key": "charge-otto"})
        assert replay.json()["id"] == charged.json()["id"]

        kept = http.get(f"/subscriptions/{charged.json()['id']}").json()
        assert (kept["state"], kept["cancel_reason"], kept["customer"]) == ("canceled", "customer erased", {"id": customer_id})
        assert (kept["card"]["last_4"], kept["card"]["token"], kept["tracking_id"]) == ("0000", None, "order-1")
        assert kept["last_transaction"]["uid"] == charged.json()["last_transaction"]["uid"]
        assert len(http.get(f"/subscriptions?customer={customer_id}").json()) == 2
        assert [each["first_name"] for each in http.get("/customers").json()] == ["Other0", "Other1", "Other2"]
        events = http.get(f"/events?object={customer_id}").json()
        assert events[0]["type"] == "customer.erased"
        assert events[0]["data"] == {"id": customer_id}
        assert [event["sequence"] for event in events] == [3, 2]
        new = http.post("/subscriptions", json=subscription_of(customer_id, card=None))
        assert new.status_code == 422
    process.end()
    assert columns_with(database_url, VALUES) == set()
    postgres = _postgres(request, database_url)
    if postgres is not None:
        cleared = f"VACUUM (FULL, ANALYZE) {', '.join(sorted(CLEARED))}"
        postgres.client("psql", database_url.rpartition("/")[2], "-c", cleared, "-c", "VACUUM FULL pg_statistic")
    with_database(database_url, lambda database: database.overwrite_deleted())
    assert values_in_files(database_url, VALUES, postgres) == {}


def _postgres(request: pytest.FixtureRequest, url: str) -> PostgresServer | None:
    return None if url.startswith("sqlite") else request.getfixturevalue("postgres")


def test_an_unknown_and_a_foreign_customer_are_not_found(http: httpx.Client, new_shop: Callable[[], Shop]) -> None:
    assert http.delete("/customers/cst_0000000000000000").status_code == 404
    assert http.delete("/customers/nonsense").status_code == 404
    assert http.delete("/customers/cst_0000000000000000?subscriptions=keep").status_code == 400
    with new_shop().client() as other:
        foreign = other.post("/customers", json=PERSON).json()["id"]
        assert http.delete(f"/customers/{foreign}").status_code == 404
        assert other.get(f"/customers/{foreign}").status_code == 200


def test_an_export_has_everything_that_the_api_answers(http: httpx.Client) -> None:
    customer = http.post("/customers", json=PERSON).json()
    card = http.post("/subscriptions", json=subscription_of(customer["id"])).json()
    hosted = http.post("/subscriptions", json=subscription_of(customer["id"], card=None)).json()
    other = http.post("/customers", json={**PERSON, "email": "other@shop.test"}).json()
    http.post("/subscriptions", json=subscription_of(other["id"], tracking_id="of-another"))
    export = http.get(f"/customers/{customer['id']}/export")
    assert export.status_code == 200
    document = export.json()
    assert list(document) == ["customer", "created_at", "updated_at", "subscriptions", "payments", "events", "webhooks"]
    assert document["customer"] == customer
    exported = {
        each["id"]: {name: value for name, value in each.items() if name != "stored"} for each in document["subscriptions"]
    }
    assert exported == {each["id"]: http.get(f"/subscriptions/{each['id']}").json() for each in (card, hosted)}
    assert [(each["subscription_id"], each["amount"], each["status"]) for each in document["payments"]] == [
        (card["id"], 100, "successful")
    ]
    events = [*http.get(f"/events?object={card['id']}").json(), *http.get(f"/events?object={hosted['id']}").json()]
    assert document["events"] == events
    assert [each["body"]["id"] for each in document["webhooks"]] == [card["id"]]
    assert "of-another" not in export.text


def test_an_erasure_of_another_version_is_refused(http: httpx.Client) -> None:
    created = http.post("/customers", json=PERSON)
    path = created.headers["location"]
    changed = http.patch(path, json={"city": "Graz"})
    refused = http.delete(path, headers={"If-Match": created.headers["etag"]})
    assert (refused.status_code, refused.json()) == (412, {"message": "Customer was changed by someone else"})
    assert http.delete(path, headers={"If-Match": changed.headers["etag"]}).status_code == 204


def test_a_customer_without_subscriptions_is_erased(http: httpx.Client) -> None:
    email = f"{uuid.uuid4().hex}@shop.test"
    customer_id = http.post("/customers", json={**PERSON, "email": email}).json()["id"]
    assert http.delete(f"/customers/{customer_id}").status_code == 204
    again = http.post("/customers", json={**PERSON, "email": email})
    assert again.status_code == 201
    assert again.json()["id"] != customer_id
