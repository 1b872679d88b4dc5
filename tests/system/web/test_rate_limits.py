"""Limits of failed logins and of requests, per address and per shop."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from ecomcharge.shops.keys import MasterKey
from support.operations import auth, get
from support.process import ServerProcess
from support.shops import ENVIRONMENT, Start, add_shop
from support.waiting import eventually


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with low limits behind proxies; each test uses separate client addresses."""
    folder = tmp_path_factory.mktemp("limited")
    options = ("--failed-logins-per-minute", "2", "--requests-per-second", "5", "--trusted-proxies", "127.0.0.0/8, 10.0.0.1")
    with ServerProcess(f"sqlite:///{folder}/test.db", folder, *options, environment=ENVIRONMENT) as process:
        yield process


def test_repeated_failed_logins_get_429_and_credentials_in_use_are_accepted(
    limited: ServerProcess, master_key: MasterKey
) -> None:
    shop, unused = add_shop(limited.database, master_key), add_shop(limited.database, master_key)
    here = {"x_forwarded_for": "198.51.100.1"}
    assert get(limited, "/customers", shop).status_code == 200

    statuses = [get(limited, "/customers", ("1", f"wrong-{number}"), **here).status_code for number in range(2)]
    refused = get(limited, "/customers", ("1", "wrong-again"), **here)

    assert statuses == [401] * 2
    assert refused.status_code == 429
    assert refused.json() == {"message": "Too many requests"}
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["ratelimit-policy"] == '"failed-logins";q=2;w=60'
    assert refused.headers["ratelimit"] == f'"failed-logins";r=0;t={refused.headers["retry-after"]}'
    assert get(limited, "/customers", shop, **here).status_code == 200
    assert get(limited, "/customers", unused, **here).status_code == 429  # it could be a guess that is right


def test_by_default_sixty_failed_logins_a_minute_are_allowed_and_x_forwarded_for_is_ignored(start: Start) -> None:
    process = start()
    with httpx.Client(base_url=process.url, auth=("1", "wrong-key")) as client:
        statuses = [client.get("/customers", headers={"x-forwarded-for": f"192.0.2.{n}"}).status_code for n in range(61)]

    assert statuses == [401] * 60 + [429]


def test_requests_without_credentials_do_not_count_as_failed_logins(limited: ServerProcess) -> None:
    assert {get(limited, "/customers", x_forwarded_for="198.51.100.2").status_code for _ in range(5)} == {401}


def test_x_forwarded_for_is_used_from_trusted_proxies(limited: ServerProcess) -> None:
    def fail(forwarded: str) -> int:
        return get(limited, "/customers", ("1", "wrong-key"), x_forwarded_for=forwarded).status_code

    assert [fail("192.0.2.1") for _ in range(3)] == [401, 401, 429]
    assert fail("192.0.2.2") == 401
    assert fail("192.0.2.7, 192.0.2.1") == 429  # the entries left of the nearest address may be forged
    assert fail("192.0.2.1, 10.0.0.1") == 429  # a second trusted proxy is skipped
    assert fail("192.0.2.1, 192.0.2.3") == 401
    assert [fail(f"2001:db8:0:1::{number}") for number in range(3)] == [401, 401, 429]  # for IPv6 the /64 network
    assert fail("2001:db8:0:2::1") == 401
    assert [fail("not an address") for _ in range(2)] == [401, 401]


def test_the_x_forwarded_for_line_of_the_proxy_is_used(limited: ServerProcess) -> None:
    """Some proxies add a second header line after the client's line, which may be forged."""

    def fail(forged: str) -> int:
        lines = [("x-forwarded-for", forged), ("x-forwarded-for", "198.51.100.3")]
        return httpx.get(f"{limited.url}/customers", auth=("1", "wrong-key"), headers=lines, verify=False).status_code

    assert [fail(f"192.0.2.{number}") for number in range(101, 104)] == [401, 401, 429]


def test_a_shop_over_its_request_rate_gets_429_and_another_is_unaffected(limited: ServerProcess, master_key: MasterKey) -> None:
    busy, calm = add_shop(limited.database, master_key), add_shop(limited.database, master_key)
    with httpx.Client(base_url=limited.url, auth=auth(busy)) as client:
        responses = [client.get("/customers") for _ in range(20)]
    refused = next(response for response in responses if response.status_code != 200)

    assert [response.status_code for response in responses][:5] == [200] * 5
    assert refused.status_code == 429
    assert refused.json() == {"message": "Too many requests"}
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["ratelimit-policy"] == '"shop";q=5;w=1'
    assert refused.headers["ratelimit"] == '"shop";r=0;t=1'
    assert get(limited, "/customers", calm).status_code == 200
    eventually(lambda: get(limited, "/customers", busy).status_code == 200, 3)  # at a rate of five a second
