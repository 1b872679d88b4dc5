"""Changes of a customer over HTTP, on both engines."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from support.builders import a_customer
from support.checkout import post_card, read, subscribe
from support.shops import Shop

JANE = a_customer("jane@shop.test", first_name="Jane", city="Denver", metadata={"tier": "gold", "note": "old"})


def created(http: httpx.Client, **fields: Any) -> dict[str, Any]:
    response = http.post("/customers", json={**JANE, **fields})
    assert response.status_code == 201, response.text
    customer: dict[str, Any] = response.json()
    return customer


def events_of(http: httpx.Client, customer_id: str) -> list[tuple[str, int, Any]]:
    """Type, sequence and the names of the changed fields, oldest first."""
    events = http.get("/events", params={"object": customer_id}).json()[::-1]
    return [(event["type"], event["sequence"], event["data"].get("changed")) for event in events]


CREATED = ("customer.created", 1, None)


# PATCH, POST and PUT


@pytest.mark.parametrize("content_type", ["application/merge-patch+json", "application/json"])
@pytest.mark.parametrize("method", ["PATCH", "POST"])
def test_a_patch_changes_the_given_fields(http: httpx.Client, method: str, content_type: str) -> None:
    customer = created(http)
    patch = '{"first_name":null,"phone":5551234,"metadata":{"note":null,"since":"2026"},"unknown":1}'

    response = http.request(method, f"/customers/{customer['id']}", content=patch, headers={"Content-Type": content_type})

    assert response.status_code == 200, response.text
    expected = {**customer, "first_name": None, "phone": "5551234", "metadata": {"tier": "gold", "since": "2026"}}
    assert response.json() == expected
    assert list(response.json()) == list(expected)
    assert response.headers["etag"] == '"2"'
    assert "location" not in response.headers
    assert f"customer={customer['id']}" in response.headers["link"]
    assert http.get(f"/customers/{customer['id']}").json() == expected
    assert events_of(http, customer["id"]) == [CREATED, ("customer.updated", 2, ["first_name", "phone", "metadata"])]


def test_put_replaces_all_fields(http: httpx.Client) -> None:
    customer = created(http, external_id="42")

    response = http.put(f"/customers/{customer['id']}", json=a_customer("new@shop.test", phone="1"))

    assert response.status_code == 200, response.text
    assert {name: value for name, value in response.json().items() if value is not None} == {
        "id": customer["id"],
        "phone": "1",
        "email": "new@shop.test",
        "ip": "127.0.0.1",
    }
    assert "external_id" not in response.json()
    assert events_of(http, customer["id"])[1:] == [
        ("customer.updated", 2, ["first_name", "city", "phone", "email", "external_id", "metadata"])
    ]


def test_the_result_must_meet_the_rules_of_a_creation(http: httpx.Client) -> None:
    customer = created(http)
    path = f"/customers/{customer['id']}"

    for response in (http.patch(path, json={"email": "", "country": "US"}), http.put(path, json={"ip": "::1", "country": "US"})):
        assert response.status_code == 422
        assert response.json()["errors"] == {"state": ["can't be blank"], "email": ["can't be blank"]}
    assert http.get(path).json() == customer
    assert http.get(path).headers["etag"] == '"1"'


def test_a_customer_of_a_subscription_may_stay_without_required_fields(server: Shop, http: httpx.Client) -> None:
    subscription = subscribe(server, customer={"first_name": "Jane", "country": "US"})
    path = f"/customers/{read(server, subscription)['customer']['id']}"

    assert http.patch(path, json={"city": "Denver"}).json()["city"] == "Denver"
    assert http.patch(path, json={"ip": "nonsense"}).status_code == 422
    assert http.patch(path, json={"email": "jane@shop.test"}).json()["email"] == "jane@shop.test"
    assert http.patch(path, json={"email": None}).status_code == 422
    assert http.put(path, json={"country": "US", "email": "j@shop.test"}).json()["ip"] is None


def test_a_change_without_effect_makes_no_version_and_no_event(http: httpx.Client) -> None:
    customer = created(http)
    path = f"/customers/{customer['id']}"

    for response in (http.patch(path, json={}), http.patch(path, json={"city": " Denver "}), http.put(path, json=JANE)):
        assert (response.status_code, response.json(), response.headers["etag"]) == (200, customer, '"1"')
    assert events_of(http, customer["id"]) == [CREATED]


@pytest.mark.parametrize("method", ["PATCH", "POST", "PUT"])
def test_unknown_ids_and_invalid_bodies_are_refused(http: httpx.Client, method: str) -> None:
    path = f"/customers/{created(http)['id']}"

    assert http.request(method, "/customers/cst_0000000000000000", json=JANE).status_code == 404
    assert http.request(method, "/customers/nonsense", json=JANE).status_code == 404
    assert http.request(method, path, content=b"{").status_code == 400
    assert http.request(method, path, json=[1]).status_code == 422
    assert http.request(method, path, content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415


def test_a_foreign_customer_is_not_found(http: httpx.Client, server: Shop, new_shop: Any) -> None:
    customer = created(http)
    with new_shop().client() as other:
        for method in ("PATCH", "POST", "PUT"):
            assert other.request(method, f"/customers/{customer['id']}", json=JANE).status_code == 404
    assert events_of(http, customer["id"]) == [CREATED]


def test_changed_values_are_found_and_former_ones_are_not(http: httpx.Client) -> None:
    customer = created(http, external_id="before")

    changed = http.patch(f"/customers/{customer['id']}", json={"email": "after@shop.test", "external_id": "after"}).json()

    assert http.get("/customers", params={"email": "after@shop.test"}).json() == [changed]
    assert http.get("/customers", params={"external_id": "after"}).json() == [changed]
    assert http.get("/customers", params={"email": JANE["email"]}).json() == []
    assert http.get("/customers", params={"external_id": "before"}).json() == []


# Conditional requests


def test_a_customer_has_an_etag_and_a_time(http: httpx.Client) -> None:
    made = http.post("/customers", json=JANE)
    path = made.headers["location"]
    found = http.get(path)
    for name in ("etag", "last-modified", "link"):
        assert made.headers[name] == found.headers[name]
    assert found.headers["etag"] == '"1"'
    assert abs(parsedate_to_datetime(found.headers["last-modified"]).timestamp() - time.time()) < 30

    time.sleep(max(0.0, parsedate_to_datetime(found.headers["last-modified"]).timestamp() + 1.1 - time.time()))
    changed = http.patch(path, json={"city": "Minsk"})
    assert parsedate_to_datetime(changed.headers["last-modified"]) > parsedate_to_datetime(found.headers["last-modified"])
    assert http.get(path).headers["last-modified"] == changed.headers["last-modified"]


@pytest.mark.parametrize("tag", ['"1"', 'W/"1"', '"7", "1"', "*"])
def test_a_read_of_a_known_version_has_no_body(http: httpx.Client, tag: str) -> None:
    path = f"/customers/{created(http)['id']}"

    for method in ("GET", "HEAD"):
        response = http.request(method, path, headers={"If-None-Match": tag})
        assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", '"1"')
    http.patch(path, json={"city": "Minsk"})
    assert http.get(path, headers={"If-None-Match": '"1"'}).json()["city"] == "Minsk"


@pytest.mark.parametrize("method", ["PATCH", "POST", "PUT"])
def test_a_change_of_another_version_is_refused(http: httpx.Client, method: str) -> None:
    customer = created(http)
    path = f"/customers/{customer['id']}"

    for tag in ('"2"', 'W/"1"', '"0", "2"'):
        refused = http.request(method, path, json={**JANE, "city": "Minsk"}, headers={"If-Match": tag})
        assert (refused.status_code, refused.json()) == (412, {"message": "Customer was changed by someone else"})
    assert http.request(method, path, json=JANE, headers={"If-Match": "1"}).status_code == 400
    assert http.get(path).json() == customer
    for number, tag in enumerate(('"1"', '"7", "2"', "*"), 2):
        changed = http.request(method, path, json={**JANE, "city": f"City {number}"}, headers={"If-Match": tag})
        assert (changed.status_code, changed.headers["etag"]) == (200, f'"{number}"')


# Idempotency keys


@pytest.mark.parametrize("method", ["PATCH", "POST", "PUT"])
def test_a_repeated_change_gets_the_stored_response(http: httpx.Client, method: str) -> None:
    path = f"/customers/{created(http)['id']}"
    headers = {"Idempotency-Key": "key", "If-Match": '"1"'}
    body = {**JANE, "city": "Minsk"}

    first = http.request(method, path, json=body, headers=headers)
    http.patch(path, json={"city": "Brest"})
    second = http.request(method, path, json=body, headers=headers)

    assert second.content == first.content
    for name in ("etag", "last-modified", "link"):
        assert second.headers[name] == first.headers[name]
    assert second.headers["idempotent-replayed"] == "true"
    assert "location" not in second.headers
    assert http.get(path).json()["city"] == "Brest"


def test_a_key_belongs_to_method_path_and_body(http: httpx.Client) -> None:
    paths = [f"/customers/{created(http)['id']}" for _ in range(2)]
    headers = {"Idempotency-Key": "key"}
    assert http.patch(paths[0], json=JANE, headers=headers).status_code == 200

    for method, path, body in (
        ("PATCH", paths[1], JANE),
        ("PUT", paths[0], JANE),
        ("PATCH", paths[0], {}),
        ("POST", "/customers", JANE),
    ):
        assert http.request(method, path, json=body, headers=headers).status_code == 422
    assert http.patch(paths[0], json=JANE, headers=headers).status_code == 200


def test_a_refused_change_does_not_use_its_key(http: httpx.Client) -> None:
    path = f"/customers/{created(http)['id']}"

    for tag, body, status in (('"2"', {"city": "Minsk"}, 412), ('"1"', {"email": None}, 422), ('"1"', {"city": "Minsk"}, 200)):
        headers = {"Idempotency-Key": "key", "If-Match": tag}
        assert http.patch(path, json=body, headers=headers).status_code == status


# By external id


EXTERNAL_IDS = ["42", "a b", "a/b", "/a//b/", "é€😀", "100%", "%2F", "?x=1#y", "a+b", "export", ".", "..", "x" * 255, "😀" * 255]


@pytest.mark.parametrize("external_id", EXTERNAL_IDS)
def test_put_by_external_id_creates_and_then_replaces(http: httpx.Client, external_id: str) -> None:
    path = "/customers/external/" + quote(external_id, safe="").replace(".", "%2E")

    assert http.get(path).status_code == 404
    first = http.put(path, json=JANE)
    assert first.status_code == 201, first.text
    customer = first.json()
    assert customer["external_id"] == external_id
    assert first.headers["location"] == f"/customers/{customer['id']}"
    assert (first.headers["etag"], http.get(path).json()) == ('"1"', customer)

    second = http.put(path, json={**a_customer(), "external_id": external_id})
    assert (second.status_code, second.headers["etag"]) == (200, '"2"')
    assert "location" not in second.headers
    expected = {**dict.fromkeys(customer), "id": customer["id"], **a_customer(), "external_id": external_id}
    assert second.json() == {name: value for name, value in expected.items() if name != "metadata"}
    assert http.get("/customers", params={"external_id": external_id}).json() == [second.json()]
    assert http.get(f"/customers/{customer['id']}").json() == second.json()


def test_an_external_id_that_cannot_be_stored_is_refused(http: httpx.Client) -> None:
    assert http.put("/customers/external/%20", json=JANE).json()["errors"] == {"external_id": ["can't be blank"]}
    assert http.put("/customers/external/%00", json=JANE).json()["errors"] == {"external_id": ["is invalid"]}
    for latin_1 in ("Ren%E9", "Ren%E8"):  # é and è: they would be one customer
        assert http.put(f"/customers/external/{latin_1}", json=JANE).json()["errors"] == {"external_id": ["is invalid"]}
    assert http.put("/customers/external/" + "x" * 256, json=JANE).status_code == 422
    for path in ("%20", "%00", "x" * 256):
        assert http.get(f"/customers/external/{path}").status_code == 404
    other = http.put("/customers/external/42", json={**JANE, "external_id": "43"})
    assert other.json() == {
        "message": "External id must be the one in the path",
        "errors": {"external_id": ["must be the one in the path"]},
    }
    assert http.get("/customers").json() == []


def test_the_oldest_customer_with_an_external_id_is_meant(http: httpx.Client) -> None:
    older, newer = (created(http, external_id="42", first_name=name) for name in ("Older", "Newer"))

    assert http.get("/customers/external/42").json() == older
    assert http.put("/customers/external/42", json=JANE).json()["id"] == older["id"]
    assert http.get(f"/customers/{newer['id']}").json() == newer


def test_put_by_external_id_has_the_rules_of_a_creation(server: Shop, http: httpx.Client) -> None:
    subscribe(server, customer={"first_name": "Jane", "external_id": "42"})

    assert http.put("/customers/external/42", json={"first_name": "Jane"}).status_code == 422
    assert http.put("/customers/external/42", json=JANE).status_code == 200


def test_put_by_external_id_with_conditions_and_keys(http: httpx.Client) -> None:
    path = "/customers/external/42"
    assert http.put(path, json=JANE, headers={"If-Match": "*"}).status_code == 412
    assert http.get("/customers").json() == []

    keyed = [http.put(path, json=JANE, headers={"Idempotency-Key": "key"}) for _ in range(2)]
    assert [response.status_code for response in keyed] == [201, 201]
    assert keyed[0].content == keyed[1].content
    assert keyed[1].headers["location"] == keyed[0].headers["location"]
    assert keyed[1].headers["etag"] == '"1"'
    assert http.put("/customers/external/43", json=JANE, headers={"Idempotency-Key": "key"}).status_code == 422

    changed = http.put(path, json=a_customer(), headers={"If-Match": '"1"'})
    assert (changed.status_code, changed.headers["etag"]) == (200, '"2"')
    assert http.put(path, json=JANE, headers={"If-Match": '"1"'}).status_code == 412
    assert http.get(path, headers={"If-None-Match": '"2"'}).status_code == 304

    assert http.put(path, json=JANE, headers={"If-None-Match": "*"}).status_code == 412
    assert http.get(path).json() == changed.json()
    assert http.put("/customers/external/new", json=JANE, headers={"If-None-Match": "*"}).status_code == 201


# Events


def test_every_change_has_an_event_in_order(http: httpx.Client) -> None:
    customer = created(http)
    for number in range(3):
        http.patch(f"/customers/{customer['id']}", json={"city": f"City {number}", "metadata": {str(number): "x"}})

    expected = [("customer.updated", number, ["city", "metadata"]) for number in (2, 3, 4)]
    assert events_of(http, customer["id"]) == [CREATED, *expected]
    updates = http.get("/events", params={"type": "customer.updated"}).json()
    assert [event["sequence"] for event in updates] == [4, 3, 2]
    assert updates[0]["data"] == {"id": customer["id"], "changed": ["city", "metadata"]}
    assert "City" not in http.get("/events", params={"type": "customer.updated"}).text


def test_a_change_by_the_hosted_page_has_an_event(server: Shop, http: httpx.Client) -> None:
    subscription = subscribe(server, customer={"first_name": "Jane"})
    customer_id = read(server, subscription)["customer"]["id"]

    assert post_card(subscription["redirect_url"]).status_code == 303

    assert events_of(http, customer_id) == [CREATED, ("customer.updated", 2, ["email"])]
    assert http.get(f"/customers/{customer_id}").headers["etag"] == '"2"'
