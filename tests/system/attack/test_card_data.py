"""Card data in places where it must not be: it is refused or removed, and never stored, logged or returned."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import pytest

from ecomcharge.shops.keys import MasterKey
from support.builders import a_card, a_customer, a_plan
from support.checkout import card_fields, form_of, subscribe, web
from support.commands import ecomcharge
from support.personal_data import columns_with
from support.shops import ENVIRONMENT, Shop, Start, add_shop

NUMBER = "5204240000015003"
WRITINGS = (
    NUMBER,
    "5204 2400 0001 5003",
    "5204-2400-0001-5003",
    "my card " + NUMBER.translate({ord(str(digit)): chr(0xFF10 + digit) for digit in range(10)}),
)
TEXT = "must not contain a card number"
NAMES = ("first_name", "last_name", "address", "city", "zip", "state", "email", "country")


@pytest.fixture
def shop(start: Start, master_key: MasterKey) -> Shop:
    process = start("--sandbox")
    credentials = add_shop(process.database, master_key)
    return Shop(process.url, credentials.shop_id, credentials.secret_key, process)


def test_a_card_number_in_a_free_text_is_refused_everywhere(shop: Shop, tmp_path: Path) -> None:
    """In each text of each request, on the payment page and in an import, in several writings."""
    good = {"plan": a_plan(), "customer": a_customer(), "card": a_card()}
    with shop.client() as http:
        customer = http.post("/customers", json=a_customer()).json()["id"]
        subscription = http.post("/subscriptions", json=good).json()["id"]

        def refused(method: str, path: str, body: Any, field: str, **headers: str) -> None:
            for escaped in (True, False) if field == "last_name" else (True,):
                content = json.dumps(body, ensure_ascii=escaped).encode()
                sent = {"content-type": "application/json", **headers}
                answer = http.request(method, path, content=content, headers=sent)
                assert answer.status_code == 422, (path, field, answer.text)
                texts = answer.json()["errors"]
                for name in field.split("."):
                    texts = texts[name]
                assert any(TEXT in text for text in texts), (path, field, texts)
                assert answer.json()["message"].count(TEXT)
                assert NUMBER not in answer.text

        for number in WRITINGS:
            refused("POST", "/customers", a_customer(last_name=number), "last_name")
        for number in WRITINGS[1:2]:
            for name in NAMES:
                refused("POST", "/customers", a_customer(**{name: number}), name)
            refused("POST", "/customers", a_customer(metadata={"note": number}), "metadata")
            refused("POST", "/customers", a_customer(metadata={number: "1"}), "metadata")
            refused("PATCH", f"/customers/{customer}", {"city": number}, "city")
            refused("PUT", f"/customers/{customer}", a_customer(address=number), "address")
            refused("PUT", "/customers/external/1", a_customer(address=number), "address")
            refused("POST", "/plans", a_plan(title=number), "title")
            refused("POST", f"/subscriptions/{subscription}/cancel", {"cancel_reason": number}, "cancel_reason")
            for name, value in (
                ("additional_data", {"a": [{"b": number}]}),
                ("receipt_text", ["Thank you", number]),
                ("settings", {"customer_fields": {"visible": [number]}}),
                ("avs_cvc_verification", {"cvc": number}),
                ("device_id", number),
                ("dynamic_billing_descriptor", number),
            ):
                refused("POST", "/subscriptions", {**good, name: value}, name)
            refused("POST", "/subscriptions", {**good, "card": a_card(holder=number[:32])}, "card.holder")
            refused("POST", "/subscriptions", {**good, "customer": a_customer(first_name=number)}, "customer.first_name")
            refused("POST", "/subscriptions", {**good, "plan": a_plan(title=number)}, "base")
        refused("POST", "/customers", a_customer(), "idempotency_key", **{"idempotency-key": f"key {NUMBER}"})
        refused("POST", "/subscriptions", {**good, "additional_data": {"card": int(NUMBER)}}, "additional_data")

        # Ids of the merchant, telephone numbers and numbers of orders may have this form.
        answer = http.post(
            "/subscriptions",
            json={
                **good,
                "tracking_id": NUMBER,
                "customer": a_customer(external_id=NUMBER, phone="+3782 822463 10005"),
                "additional_data": {"order": int(NUMBER)},
            },
            headers={"x-request-id": NUMBER},
        )
        assert answer.status_code == 201
        assert answer.headers["x-request-id"] != NUMBER
    file = tmp_path / "customers.csv"
    file.write_text(f"email,ip,first_name\njane@shop.test,127.0.0.1,Jane\njoe@shop.test,127.0.0.1,{WRITINGS[1]}\n")
    done = ecomcharge(
        *(shop.process.database, "customers", "import", str(file), "--shop-id", str(shop.shop_id)), environment=ENVIRONMENT
    )
    assert done.returncode == 3, done.stderr
    report = json.loads(Path(f"{file}.refused").read_text())
    assert report["errors"] == {"first_name": [TEXT]}
    columns = columns_with(shop.process.database, list(WRITINGS))
    ids = {"customers.external_id", "customers.search_terms", "subscriptions.tracking_id", "events.data"}
    assert columns <= {*ids, "subscriptions.additional_data"}
    assert NUMBER not in shop.process.log()


def test_a_card_number_in_another_field_of_the_page_is_refused_and_not_repeated(shop: Shop) -> None:
    asked = {"settings": {"customer_fields": {"visible": ["first_name", "email"]}}}
    url = subscribe(shop, **asked)["redirect_url"]
    form = form_of(web.get(url).text)
    for pid in shop.process.worker_pids():
        assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)

    answer = web.post(url, data={**form, **card_fields(holder=NUMBER, first_name=WRITINGS[1])})
    too_old = web.post(url, data={**card_fields(holder=NUMBER, first_name=WRITINGS[1])})

    assert answer.status_code == 422
    assert answer.text.count("Please enter the card number in its own field only.") >= 2
    for page in (answer.text, too_old.text):
        assert NUMBER not in page
        assert WRITINGS[1] not in page
