"""The customers API over HTTP, on both engines."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from ecomcharge.base.calendar import iso
from ecomcharge.base.ids import moment_of
from ecomcharge.storage.database import Database, Transaction
from support.builders import a_customer
from support.shops import Shop, with_database

VALID = a_customer("jane@shop.test")


def create(http: httpx.Client, **fields: Any) -> httpx.Response:
    return http.post("/customers", json={**VALID, **fields})


def created(http: httpx.Client, **fields: Any) -> dict[str, Any]:
    response = create(http, **fields)
    assert response.status_code == 201, response.text
    customer: dict[str, Any] = response.json()
    return customer


def errors_of(http: httpx.Client, body: object) -> dict[str, list[str]]:
    response = http.post("/customers", json=body)
    assert response.status_code == 422, response.text
    assert list(response.json()) == ["message", "errors"]
    errors: dict[str, list[str]] = response.json()["errors"]
    return errors


# Fields


def test_only_email_and_ip_are_required(http: httpx.Client) -> None:
    customer = created(http)
    assert {name: value for name, value in customer.items() if value is not None} == {**VALID, "id": customer["id"]}


def test_all_errors_are_returned_at_once_in_the_order_of_the_fields(http: httpx.Client) -> None:
    body = {"ip": "x", "email": "y", "zip": "1", "country": "us", "first_name": 1.5, "phone": "n" * 256}
    response = http.post("/customers", json=body)
    assert response.json() == {
        "message": "First name must be a string. Zip is invalid. State can't be blank. "
        "Phone is too long (maximum is 255 characters). Email is invalid. Ip address is invalid",
        "errors": {
            "first_name": ["must be a string"],
            "zip": ["is invalid"],
            "state": ["can't be blank"],
            "phone": ["is too long (maximum is 255 characters)"],
            "email": ["is invalid"],
            "ip": ["address is invalid"],
        },
    }
    assert list(response.json()["errors"]) == ["first_name", "zip", "state", "phone", "email", "ip"]


@pytest.mark.parametrize("blank", ["", "  ", "\t\n", "\u00a0\u2003", None])
def test_blank_and_null_count_as_absent(http: httpx.Client, blank: str | None) -> None:
    assert created(http, first_name=blank, external_id=blank)["first_name"] is None
    assert errors_of(http, {**VALID, "email": blank}) == {"email": ["can't be blank"]}
    assert errors_of(http, {**VALID, "ip": blank}) == {"ip": ["address is invalid", "can't be blank"]}


def test_text_is_trimmed_and_otherwise_kept_exactly(http: httpx.Client) -> None:
    name = "Zoë\u0308  \U0001f600 ﬁ \u200f‮x"
    customer = created(http, first_name=f" \u2003{name}\n", email="  Jane.DOE@Shop.Test ")
    assert customer["first_name"] == name
    assert customer["email"] == "Jane.DOE@Shop.Test"
    assert http.get(f"/customers/{customer['id']}").json() == customer


def test_a_text_field_holds_255_characters_and_no_more(http: httpx.Client) -> None:
    assert created(http, address="\U0001f600" * 255)["address"] == "\U0001f600" * 255
    assert errors_of(http, {**VALID, "address": "a" * 256}) == {"address": ["is too long (maximum is 255 characters)"]}


def test_integers_are_stored_as_decimal_text(http: httpx.Client) -> None:
    customer = created(http, phone=375291234567, external_id=-7, zip=10**30)
    assert (customer["phone"], customer["external_id"], customer["zip"]) == ("375291234567", "-7", str(10**30))


def test_very_long_integers_are_too_long_or_not_numbers(http: httpx.Client) -> None:
    def post(digits: int) -> httpx.Response:
        body = json.dumps({**VALID, "phone": 0}).replace(": 0", ": " + "9" * digits)
        return http.post("/customers", content=body, headers={"Content-Type": "application/json"})

    assert post(255).json()["phone"] == "9" * 255
    assert post(256).json()["errors"] == {"phone": ["is too long (maximum is 255 characters)"]}
    assert (post(5000).status_code, post(5000).json()) == (
        400,
        {"message": "Body is not valid JSON: a number has too many digits"},
    )


@pytest.mark.parametrize("value", [True, False, 1.0, 1.5, [], ["a"], {}, {"a": 1}])
def test_other_json_values_are_refused_for_text(http: httpx.Client, value: object) -> None:
    assert errors_of(http, {**VALID, "city": value}) == {"city": ["must be a string"]}


@pytest.mark.parametrize("character", ["\0", "\x01", "\x1f", "\x1b", "\x7f", "\x85", "\x9f"])
def test_control_characters_are_refused(http: httpx.Client, character: str) -> None:
    assert errors_of(http, {**VALID, "city": f"a{character}b"}) == {"city": ["is invalid"]}
    assert errors_of(http, {**VALID, "ip": f"1{character}2"}) == {"ip": ["address is invalid"]}


@pytest.mark.parametrize(("sent", "stored"), [("US", "US"), ("ca", "CA"), (" by ", "BY")])
def test_a_country_is_stored_in_capitals(http: httpx.Client, sent: str, stored: str) -> None:
    assert created(http, country=sent, state="ON" if stored == "CA" else "CO")["country"] == stored


@pytest.mark.parametrize("country", ["XX", "USA", "U", "840", "ß", "uѕ"])
def test_a_country_outside_iso_3166_is_refused(http: httpx.Client, country: str) -> None:
    assert errors_of(http, {**VALID, "country": country}) == {"country": ["is invalid"]}


@pytest.mark.parametrize("zip_code", ["92006", "92006-1234"])
def test_a_zip_of_the_us_has_five_or_nine_digits(http: httpx.Client, zip_code: str) -> None:
    assert created(http, country="US", state="CO", zip=zip_code)["zip"] == zip_code


@pytest.mark.parametrize("zip_code", ["9200", "920061", "92006-", "92006-12", "9200a", "٩٢٠٠٦", "92006 1234", "92006\u20101234"])
def test_a_us_zip_of_another_form_is_refused(http: httpx.Client, zip_code: str) -> None:
    assert errors_of(http, {**VALID, "country": "US", "state": "CO", "zip": zip_code}) == {"zip": ["is invalid"]}


def test_other_countries_accept_any_zip_and_any_state(http: httpx.Client) -> None:
    assert created(http, country="DE", zip="D-1", state="Bayern")["state"] == "Bayern"
    assert created(http, zip="D-1", state="anything")["zip"] == "D-1"


@pytest.mark.parametrize("country", ["US", "CA", "us", "ca"])
def test_the_us_and_canada_require_one_of_their_states(http: httpx.Client, country: str) -> None:
    assert errors_of(http, {**VALID, "country": country}) == {"state": ["can't be blank"]}
    assert errors_of(http, {**VALID, "country": country, "state": "XX"}) == {"state": ["is invalid"]}
    assert errors_of(http, {**VALID, "country": country, "state": 1.5}) == {"state": ["must be a string"]}
    theirs, others = ("CO", "ON") if country.upper() == "US" else ("ON", "CO")
    assert errors_of(http, {**VALID, "country": country, "state": others}) == {"state": ["is invalid"]}
    assert created(http, country=country, state=theirs.lower())["state"] == theirs


@pytest.mark.parametrize("state", ["PR", "GU", "DC", "AA", "AE", "AP"])
def test_outlying_areas_and_military_mail_codes_are_us_states(http: httpx.Client, state: str) -> None:
    assert created(http, country="US", state=state)["state"] == state


@pytest.mark.parametrize(
    ("sent", "stored"),
    [("127.0.0.1", "127.0.0.1"), ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"), ("::FFFF:1.2.3.4", "::ffff:1.2.3.4"), ("::", "::")],
)
def test_an_ip_is_stored_in_canonical_form(http: httpx.Client, sent: str, stored: str) -> None:
    assert created(http, ip=sent)["ip"] == stored


@pytest.mark.parametrize(
    "ip", ["1" * 256, "1.2.3", "256.1.1.1", "01.2.3.4", "1.2.3.4/8", "fe80::1%eth0", "::1::", "[::1", "１.2.3.4", "x", 1]
)
def test_a_malformed_ip_has_one_error_message(http: httpx.Client, ip: object) -> None:
    assert errors_of(http, {**VALID, "ip": ip}) == {"ip": ["address is invalid"]}


def test_unknown_keys_and_headers_are_ignored(http: httpx.Client) -> None:
    extra = {"id": "cst_0000000000000000", "shop_id": 1, "test": True, "auth_data": {"a": [1]}, "middle_name": None}
    response = http.post("/customers", json={**VALID, **extra}, headers={"X-API-Version": "2"})
    assert response.status_code == 201
    assert response.json()["id"] != extra["id"]


def test_a_refused_customer_is_not_stored(http: httpx.Client) -> None:
    errors_of(http, {**VALID, "ip": "x"})
    assert http.get("/customers").json() == []


# Read


@pytest.mark.parametrize(
    "unknown", ["cst_0000000000000000", "cst_1", "CST_7aee5afb954c7ef7", "1", "cst_7AEE5AFB954C7EF7", "%00", "'"]
)
def test_an_unknown_id_is_not_found(http: httpx.Client, unknown: str) -> None:
    response = http.get(f"/customers/{unknown}")
    assert (response.status_code, response.text) == (404, '{"message":"Record not found"}')


def test_a_shop_cannot_read_the_customers_of_another(new_shop: Callable[[], Shop]) -> None:
    with new_shop().client() as ours, new_shop().client() as theirs:
        customer = created(ours, external_id="x")
        assert theirs.get(f"/customers/{customer['id']}").text == '{"message":"Record not found"}'
        for query in (
            "",
            "?limit=10",
            "?page=1",
            "?email=jane@shop.test",
            "?external_id=x",
            "?shop_id=1",
            f"?after={customer['id'][:-1]}0",
        ):
            assert theirs.get(f"/customers{query}").json() == []


# List


def ids(response: httpx.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [customer["id"] for customer in response.json()]


@pytest.fixture
def many(http: httpx.Client) -> list[str]:
    """The ids of 25 customers in order of creation."""
    return [created(http, email=f"{number % 5}@shop.test", external_id=number % 3)["id"] for number in range(25)]


def test_customers_are_listed_in_order_of_creation(http: httpx.Client, many: list[str]) -> None:
    assert ids(http.get("/customers")) == many == sorted(many)


def test_a_page_after_or_before_an_id_links_to_its_neighbours(http: httpx.Client, many: list[str]) -> None:
    first = http.get("/customers", params={"limit": 10})
    assert ids(first) == many[:10]
    assert "prev" not in first.links
    second = http.get(first.links["next"]["url"])
    assert ids(second) == many[10:20]
    third = http.get(second.links["next"]["url"])
    assert ids(third) == many[20:]
    assert "next" not in third.links
    assert ids(http.get(third.links["prev"]["url"])) == many[10:20]
    assert ids(http.get(second.links["prev"]["url"])) == many[:10]
    assert "prev" not in http.get(second.links["prev"]["url"]).links


def test_previous_links_from_the_end_return_every_customer_once(http: httpx.Client, many: list[str]) -> None:
    seen: list[str] = []
    url = f"/customers?limit=7&before=cst_{'f' * 16}"
    while url:
        response = http.get(url)
        seen = ids(response) + seen
        url = response.links.get("prev", {}).get("url", "")
    assert seen == many


def test_an_empty_cursor_starts_at_the_beginning_or_the_end(http: httpx.Client, many: list[str]) -> None:
    assert ids(http.get("/customers?limit=4&after=")) == many[:4]
    last = http.get("/customers?limit=4&before=")
    assert ids(last) == many[-4:]
    assert "next" not in last.links


def test_numbered_pages_work_as_existing_clients_request_them(http: httpx.Client, many: list[str]) -> None:
    response = http.get("/customers", params={"page": 2, "per_page": 10, "shop_id": 7})
    assert ids(response) == many[10:20]
    assert ids(http.get(response.links["next"]["url"])) == many[20:]
    assert ids(http.get(response.links["prev"]["url"])) == many[:10]
    assert ids(http.get("/customers?page=1")) == many[:20]
    assert ids(http.get("/customers?per_page=3")) == many[:3]
    assert ids(http.get("/customers?page=9")) == []


def test_email_and_external_id_filter_whole_values(http: httpx.Client, many: list[str]) -> None:
    assert ids(http.get("/customers?email=3@shop.test")) == many[3::5]
    assert ids(http.get("/customers?email=3@SHOP.test")) == many[3::5]
    assert ids(http.get("/customers?external_id=2")) == many[2::3]
    assert ids(http.get("/customers?external_id=2&email=2@shop.test")) == many[2::15]
    assert ids(http.get("/customers?external_id=")) == []
    assert ids(http.get("/customers?email=%00")) == []
    assert ids(http.get("/customers?email=%FF")) == []


def test_filters_and_pages_can_be_combined(http: httpx.Client, many: list[str]) -> None:
    first = http.get("/customers?external_id=1&limit=5")
    assert ids(first) == many[1::3][:5]
    assert ids(http.get(first.links["next"]["url"])) == many[1::3][5:]
    second = http.get("/customers?external_id=1&per_page=5&page=2")
    assert ids(second) == many[1::3][5:]
    assert ids(http.get(second.links["prev"]["url"])) == many[1::3][:5]


def test_a_plus_in_an_address_needs_no_encoding(http: httpx.Client) -> None:
    customer = created(http, email="jane+shop@shop.test")
    for query in ("email=jane+shop@shop.test", "email=jane%2Bshop@shop.test", "email=jane%20shop@shop.test"):
        assert ids(http.get(f"/customers?{query}")) == [customer["id"]]


def test_the_newest_can_be_listed_first(http: httpx.Client, many: list[str]) -> None:
    newest_first = many[::-1]
    assert ids(http.get("/customers?order=desc")) == newest_first
    assert ids(http.get("/customers?order=asc")) == many
    first = http.get("/customers?order=desc&limit=10")
    assert ids(first) == newest_first[:10]
    second = http.get(first.links["next"]["url"])
    assert ids(second) == newest_first[10:20]
    assert ids(http.get(second.links["prev"]["url"])) == newest_first[:10]
    assert ids(http.get("/customers?order=desc&limit=3&before=")) == newest_first[-3:]
    page = http.get("/customers?order=desc&page=2&per_page=10")
    assert ids(page) == newest_first[10:20]
    assert ids(http.get(page.links["next"]["url"])) == newest_first[20:]
    assert ids(http.get("/customers?order=desc&email=3@shop.test")) == many[3::5][::-1]


def test_customers_of_a_time_can_be_listed(http: httpx.Client, many: list[str]) -> None:
    moment = iso(moment_of(many[10]))  # neighbours may have been created in the same millisecond
    earlier = [id for id in many if moment_of(id) < moment_of(many[10])]
    later = many[len(earlier) :]
    assert ids(http.get(f"/customers?created_from={moment}")) == later
    assert ids(http.get(f"/customers?created_to={moment}")) == earlier
    assert ids(http.get(f"/customers?created_from={moment}&created_to={moment}")) == []
    assert ids(http.get("/customers?created_from=2020-01-01&created_to=2020-12-31")) == []
    page = http.get(f"/customers?created_from={moment}&order=desc&limit=2")
    assert ids(page) == later[::-1][:2]
    assert ids(http.get(page.links["next"]["url"])) == later[::-1][2:4]
    assert ids(http.get(f"/customers?created_from={moment}&after={many[0]}&limit=3")) == later[:3]


@pytest.mark.parametrize("page", ["", "&limit=2", "&after=", "&page=2&per_page=3", "&order=desc", "&order=desc&limit=4"])
def test_the_total_of_a_list_is_counted_on_request(http: httpx.Client, many: list[str], page: str) -> None:
    assert "x-total-count" not in http.get(f"/customers?email=3@shop.test{page}").headers
    response = http.get(f"/customers?count=true{page}")
    assert response.headers["x-total-count"] == str(len(many))
    links = response.links.values()
    assert [http.get(link["url"]).headers["x-total-count"] for link in links] == [str(len(many))] * len(links)
    assert http.head(f"/customers?count=true{page}").headers["x-total-count"] == str(len(many))
    filtered = http.get(f"/customers?email=3@shop.test&count=true{page}")
    assert filtered.headers["x-total-count"] == str(len(many[3::5]))
    assert http.get(f"/customers?created_to=2020-01-01&count=true{page}").headers["x-total-count"] == "0"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("limit=0", "Limit must be a whole number between 1 and 1000"),
        ("limit=1001", "Limit must be a whole number between 1 and 1000"),
        ("limit=-1", "Limit must be a whole number between 1 and 1000"),
        ("limit=١", "Limit must be a whole number between 1 and 1000"),
        ("limit=", "Limit must be a whole number between 1 and 1000"),
        ("limit=" + "9" * 5000, "Limit must be a whole number between 1 and 1000"),
        ("per_page=1001", "Per page must be a whole number between 1 and 1000"),
        ("page=0", "Page must be a whole number between 1 and 100000"),
        ("page=100000&per_page=1000", "Page is too deep (at most 100000 customers can be skipped); use after"),
        ("after=x", "After must be a customer id"),
        ("email=%00&after=x", "After must be a customer id"),
        ("before=x", "Before must be a customer id"),
        ("after=cst_0000000000000000&before=cst_0000000000000000", "Only one of after and before can be given"),
        ("after=cst_0000000000000000&page=2", "Page and per_page cannot be combined with limit, after or before"),
        ("limit=5&per_page=5", "Page and per_page cannot be combined with limit, after or before"),
        ("order=newest", "Order must be asc or desc"),
        ("count=yes", "Count must be true or false"),
        ("created_from=1 May", "Created from must be an ISO 8601 time such as 2026-12-24T08:00:00Z"),
        ("created_to=", "Created to must be an ISO 8601 time such as 2026-12-24T08:00:00Z"),
        ("&".join("a=1" for _ in range(65)), "Too many query parameters"),
    ],
)
def test_an_invalid_parameter_is_refused(http: httpx.Client, query: str, message: str) -> None:
    response = http.get(f"/customers?{query}")
    assert (response.status_code, response.json()) == (400, {"message": message})


# Idempotency


@pytest.mark.parametrize("header", ["Idempotency-Key", "RequestID"])
def test_the_same_key_gets_the_same_response(http: httpx.Client, header: str) -> None:
    first = http.post("/customers", json=VALID, headers={header: "attempt-1"})
    second = http.post("/customers", json=VALID, headers={header: "attempt-1"})
    assert (first.status_code, first.text, first.headers["location"]) == (201, second.text, second.headers["location"])
    assert second.status_code == 201
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert len(http.get("/customers").json()) == 1


def test_a_key_is_the_same_quoted_or_not_and_in_either_header(http: httpx.Client) -> None:
    first = http.post("/customers", json=VALID, headers={"Idempotency-Key": '"k"'})
    second = http.post("/customers", json=VALID, headers={"RequestID": "k"})
    assert first.text == second.text


def test_equal_json_in_another_spelling_is_the_same_body(http: httpx.Client) -> None:
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    first = http.post("/customers", content='{"email":"a@b.cc","ip":"::1"}', headers=headers)
    second = http.post("/customers", content='{ "ip": "\\u003a:1",\n "email":"a@b.cc" }', headers=headers)
    assert first.text == second.text


def test_an_out_of_range_number_in_an_ignored_field_is_accepted_with_a_key(http: httpx.Client) -> None:
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    answers = {http.post("/customers", content='{"email":"a@b.cc","ip":"::1","x":1e999}', headers=headers).text for _ in range(2)}
    assert len(answers) == len(http.get("/customers").json()) == 1


def test_the_same_key_with_another_body_is_refused(http: httpx.Client) -> None:
    http.post("/customers", json=VALID, headers={"Idempotency-Key": "k"})
    response = http.post("/customers", json={**VALID, "city": "x"}, headers={"Idempotency-Key": "k"})
    assert response.status_code == 422
    assert response.json() == {"message": "Idempotency key was already used with a different request"}
    assert len(http.get("/customers").json()) == 1


def test_a_failed_validation_leaves_the_key_unused(http: httpx.Client) -> None:
    assert http.post("/customers", json={"email": "x"}, headers={"Idempotency-Key": "k"}).status_code == 422
    assert http.post("/customers", json=VALID, headers={"Idempotency-Key": "k"}).status_code == 201


def test_two_shops_may_use_the_same_key(new_shop: Callable[[], Shop]) -> None:
    with new_shop().client() as one, new_shop().client() as other:
        answers = {http.post("/customers", json=VALID, headers={"Idempotency-Key": "k"}).text for http in (one, other)}
    assert len(answers) == 2


@pytest.mark.parametrize("key", ["", '""', "a" * 256, "é", "a\tb"])
def test_a_malformed_key_is_refused(http: httpx.Client, key: str) -> None:
    response = http.post("/customers", json=VALID, headers={b"Idempotency-Key": key.encode("utf-8")})
    assert response.status_code == 400
    assert response.json() == {"message": "Idempotency key must be 1 to 255 printable ASCII characters"}


def change(server: Shop, sql: str, **params: object) -> None:
    async def work(database: Database) -> int:
        async def unit(tx: Transaction) -> int:
            return await tx.run(sql, {"shop_id": server.shop_id, **params})

        return await database.write(unit)

    assert with_database(server.process.database, work) == 1


def test_a_repeat_during_the_first_request_gets_409(server: Shop, http: httpx.Client) -> None:
    http.post("/customers", json=VALID, headers={"Idempotency-Key": "k"})
    change(server, "UPDATE idempotency_keys SET status = NULL, body = NULL WHERE shop_id = :shop_id")
    response = http.post("/customers", json=VALID, headers={"Idempotency-Key": "k"})
    assert response.status_code == 409
    assert response.json() == {"message": "A request with this idempotency key is still running"}


def test_a_key_can_be_reused_after_a_day(server: Shop, http: httpx.Client) -> None:
    first = http.post("/customers", json=VALID, headers={"Idempotency-Key": "k"}).json()
    age = "UPDATE idempotency_keys SET created_at = created_at - :age WHERE shop_id = :shop_id"
    change(server, age, age=24 * 3_600_000 - 60_000)
    assert http.post("/customers", json=VALID, headers={"Idempotency-Key": "k"}).json() == first
    change(server, age, age=61_000)
    assert http.post("/customers", json=VALID, headers={"Idempotency-Key": "k"}).json() != first
    assert http.post("/customers", json=VALID, headers={"Idempotency-Key": "k"}).headers["idempotent-replayed"] == "true"
    assert len(http.get("/customers").json()) == 2


def test_a_customer_links_to_its_subscriptions(http: httpx.Client) -> None:
    created = http.post("/customers", json={"email": "jane@shop.test", "ip": "::1"})
    read = http.get(created.headers["location"])
    for answer in (created, read):
        [link] = answer.links.values()
        assert (link["rel"], link["url"]) == ("related", f"/subscriptions?customer={created.json()['id']}")
        assert http.get(link["url"]).json() == []
