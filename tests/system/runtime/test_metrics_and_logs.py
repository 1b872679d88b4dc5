"""Metrics over several server processes, and the access log."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import httpx

from ecomcharge.shops.keys import MasterKey
from support.operations import GOOD, auth, counted, get
from support.process import ServerProcess
from support.shops import ENVIRONMENT, add_shop
from support.waiting import eventually
from support.wire import basic


def test_metrics_are_summed_over_the_workers(pair: ServerProcess, master_key: MasterKey) -> None:
    shop = add_shop(pair.database, master_key)
    kinds = [("/customers", "GET", 200), ("/customers", "POST", 422), ("/customers/{}", "GET", 404), ("-", "GET", 404)]
    before = [counted(pair, *kind) for kind in kinds]

    def grown() -> list[int]:
        return [counted(pair, *kind) - earlier for kind, earlier in zip(kinds, before, strict=True)]

    for _ in range(40):
        get(pair, "/customers", shop)
    for _ in range(7):
        httpx.post(f"{pair.url}/customers", json={}, auth=auth(shop), verify=False)
        get(pair, "/customers/cst_0000000000000000", shop)
        get(pair, "/nope/some/where")

    assert eventually(lambda: grown() == [40, 7, 7, 7], 3)
    assert [grown() for _ in range(6)] == [[40, 7, 7, 7]] * 6
    assert get(pair, "/metrics").headers["content-type"].startswith("text/plain")
    assert "cst_" not in get(pair, "/metrics").text


def test_there_is_one_json_line_for_each_request(pair: ServerProcess, master_key: MasterKey) -> None:
    process = pair
    shop = add_shop(process.database, master_key)
    asked: dict[str, tuple[str, str, str, int, int]] = {}
    with httpx.Client(base_url=process.url) as client:
        for number, (method, path, route, login, status) in enumerate(
            [
                ("POST", "/customers", "/customers", auth(shop), 201),
                ("POST", "/customers", "/customers", None, 401),
                ("GET", "/customers?email=jane%40example.com", "/customers", auth(shop), 200),
                ("GET", "/customers/cst_0123456789abcdef", "/customers/{}", auth(shop), 404),
                ("DELETE", "/customers", "-", auth(shop), 405),
                ("GET", "/secret/path", "/{}/{}", None, 404),
                ("HEAD", "/healthz", "/healthz", None, 200),
                ("BREW", "/customers", "-", None, 405),
            ]
        ):
            body = GOOD if method == "POST" else None
            headers = {"x-request-id": f"request-{number}"}
            assert client.request(method, path, auth=login, content=body, headers=headers).status_code == status
            shop_id = shop.shop_id if login and status not in (401, 405) else 0
            asked[f"request-{number}"] = (method if method != "BREW" else "OTHER", route, "info", status, shop_id)

    def lines() -> list[dict[str, Any]]:
        parsed = [json.loads(line) for line in process.log().splitlines()]
        return [line for line in parsed if line.get("request_id") in asked]

    assert eventually(lambda: len(lines()) >= len(asked), 3)
    time.sleep(0.3)
    logged = lines()
    assert len(logged) == len(asked)
    for line in logged:
        method, route, level, status, shop_id = asked[line["request_id"]]
        assert (line["method"], line["status"], line["event"]) == (method, status, "request")
        assert line["level"] == level
        assert line["route"] == route or status == 405
        assert line.get("shop", 0) == shop_id
        assert 0 < line["ms"] < 5000
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])


def test_logs_contain_no_secret_and_no_customer_data(pair: ServerProcess, master_key: MasterKey) -> None:
    process = pair
    shop = add_shop(process.database, master_key)
    customer = {
        "first_name": "Zacharias",
        "email": "zacharias@private.example",
        "phone": "+15550001234",
        "ip": "203.0.113.77",
        "address": "Hidden Lane 7",
        "external_id": "ext-9876",
    }
    key = {"Idempotency-Key": "attempt-424242"}
    with httpx.Client(base_url=process.url, auth=auth(shop)) as client:
        created = client.post("/customers", json=customer, headers=key).json()
        client.post("/customers", json=customer, headers=key)
        client.post("/customers", json={**customer, "phone": "+15550009999"}, headers=key)
        client.post("/customers", json={**customer, "ip": "zacharias", "country": "US", "zip": "Hidden Lane"})
        client.post("/customers", content=json.dumps(customer)[:-3].encode())
        client.post("/customers", content=b'{"email":"zacharias@private.example\xff"}')
        client.post(
            "/customers", content=json.dumps(customer)[:-1] + ',"x":1e400}', headers={"Idempotency-Key": "attempt-424243"}
        )
        client.post("/customers", data=customer)
        client.get("/customers", params={"email": "zacharias@private.example", "external_id": "ext-9876"})
        client.get("/customers", params={"limit": "zacharias"})
        client.get(f"/customers/{created['id']}")
        client.get("/zacharias@private.example")
        client.get("/customers", auth=(str(shop.shop_id), "wrong-key-zacharias"))
        client.get("/customers", headers={"Authorization": "Bearer zacharias-token"}, auth=None)
        client.get("/healthz", headers={"X-Request-Id": "the-last-one"})
    assert eventually(lambda: "the-last-one" in process.log(), 3)
    log = process.log()

    assert f'"shop":{shop.shop_id}' in log
    secrets = [shop.secret_key, basic(*auth(shop)), basic(*auth(shop))[6:], ENVIRONMENT["ECOMCHARGE_MASTER_KEY"]]
    secrets += [basic(str(shop.shop_id), "wrong-key-zacharias")[6:], "attempt-4242", created["id"]]
    for text in [*secrets, *customer.values(), "zacharias", "Hidden Lane", "Authorization", "Basic "]:
        assert text.lower() not in log.lower(), text
