"""``GET /customers?q=``, and ``email`` without regard to case."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from support.shops import Shop

NAMES = ["Jane Doe", "Ian Doe", "José Ñandú", "Иван Иванов", "Jane O'Neil"]


def created(http: httpx.Client, **fields: object) -> str:
    answer = http.post("/customers", json={"email": "x@shop.test", "ip": "::1", **fields})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def ids(response: httpx.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [customer["id"] for customer in response.json()]


@pytest.fixture
def people(http: httpx.Client) -> list[str]:
    """The ids of customers with these names, e-mail addresses, phone numbers and external ids."""
    found = []
    for number, name in enumerate(NAMES):
        first, _, last = name.partition(" ")
        fields = {"email": f"No{number}+shop@shop.test", "phone": f"+1 (555) 010-{number}", "external_id": f"user-{number}"}
        found.append(created(http, first_name=first, last_name=last, **fields))
    return found


@pytest.mark.parametrize(
    ("q", "numbers"),
    [
        ("jane", [0, 4]),
        ("JAN do", [0]),
        ("doe", [0, 1]),
        ("neil", [4]),
        ("JOSÉ", [2]),
        ("jose\u0301", [2]),
        ("jose", []),
        ("иван", [3]),
        ("no1+", [1]),
        ("NO2+SHOP@SHOP.TEST", [2]),
        ("+1 (555) 0103", [3]),
        ("1-555", [0, 1, 2, 3, 4]),
        ("user-", [0, 1, 2, 3, 4]),
        ("USER-3", [3]),
        ("%\x00\n\"'*", []),
    ],
)
def test_customers_are_found_by_the_beginnings_of_words(
    q: str, numbers: list[int], http: httpx.Client, people: list[str]
) -> None:
    expected = [people[number] for number in numbers]
    assert ids(http.get("/customers", params={"q": q})) == expected
    counted = http.get("/customers", params={"q": q, "limit": 2, "order": "desc", "count": "true"})
    assert ids(counted) == expected[::-1][:2]
    assert counted.headers["x-total-count"] == str(len(expected))


def test_a_customer_is_found_by_its_id(http: httpx.Client, people: list[str]) -> None:
    moved = created(http, external_id=people[1])
    assert ids(http.get("/customers", params={"q": people[1].upper()})) == [people[1], moved]
    assert ids(http.get("/customers", params={"q": people[1], "limit": 1})) == [people[1]]
    assert ids(http.get("/customers", params={"q": people[1], "email": "x@shop.test"})) == [moved]
    assert ids(http.get("/customers", params={"q": people[1], "external_id": "user-1"})) == [people[1]]
    assert http.get("/customers", params={"q": people[1], "count": "true"}).headers["x-total-count"] == "2"
    assert ids(http.get("/customers", params={"q": people[1][:-1]})) == [moved]


def test_pages_of_a_search_link_to_each_other(http: httpx.Client, people: list[str]) -> None:
    first = http.get("/customers?q=1+555&limit=2")
    assert ids(first) == people[:2]
    second = http.get(first.links["next"]["url"])
    assert ids(second) == people[2:4]
    assert ids(http.get(second.links["next"]["url"])) == people[4:]
    assert ids(http.get(second.links["prev"]["url"])) == people[:2]
    numbered = http.get("/customers?q=1+555&page=2&per_page=2")
    assert ids(numbered) == people[2:4]
    assert ids(http.get(numbered.links["next"]["url"])) == people[4:]
    assert ids(http.get("/customers?q=jane&created_to=2020-01-01")) == []
    assert ids(http.get("/customers?q=jane&created_from=2020-01-01")) == [people[0], people[4]]


def test_filters_and_a_search_can_be_combined(http: httpx.Client, people: list[str]) -> None:
    assert ids(http.get("/customers?q=doe&external_id=user-1")) == [people[1]]
    assert ids(http.get("/customers?q=doe&external_id=user-2")) == []
    assert ids(http.get("/customers?q=doe&email=NO0+shop@shop.test")) == [people[0]]
    assert ids(http.get("/customers?q=doe&email=no0+shop@shop.test&external_id=user-0")) == [people[0]]
    assert ids(http.get("/customers?email=no0+SHOP@shop.test&external_id=user-1")) == []
    assert ids(http.get("/customers?q=doe&external_id=%00")) == []


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("q=", "Q can't be blank"),
        ("q=+%20%09", "Q can't be blank"),
        (f"q={'a' * 256}", "Q is too long (maximum is 255 characters)"),
        (f"q={'a+' * 11}", "Q has too many words (maximum is 10)"),
        ("q=a&limit=0", "Limit must be a whole number between 1 and 1000"),
    ],
)
def test_a_search_that_is_refused(query: str, message: str, http: httpx.Client) -> None:
    response = http.get(f"/customers?{query}")
    assert (response.status_code, response.json()) == (400, {"message": message})


def test_a_long_search_result_is_complete(http: httpx.Client) -> None:
    """It is read in several chunks."""
    many = [created(http, first_name=f"Ann{number % 3}") for number in range(450)]
    assert ids(http.get("/customers?q=ann")) == many
    assert ids(http.get("/customers?q=ANN1&order=desc")) == many[1::3][::-1]


def test_a_shop_does_not_find_the_customers_of_another(new_shop: Callable[[], Shop]) -> None:
    with new_shop().client() as ours, new_shop().client() as theirs:
        id = created(ours, first_name="Jane", email="jane@shop.test", external_id="x")
        for query in ("q=jane", "q=x", f"q={id}", "email=JANE@shop.test"):
            assert ids(ours.get(f"/customers?{query}")) == [id]
            assert ids(theirs.get(f"/customers?{query}")) == []


def test_a_changed_customer_is_found_by_its_new_fields_only(http: httpx.Client) -> None:
    id = created(http, first_name="Jane", email="jane@shop.test")
    assert http.patch(f"/customers/{id}", json={"first_name": "Mary", "email": "mary@shop.test"}).status_code == 200
    for found, gone in (("q=mary", "q=jane"), ("email=MARY@shop.test", "email=jane@shop.test")):
        assert ids(http.get(f"/customers?{found}")) == [id]
        assert ids(http.get(f"/customers?{gone}")) == []
    assert http.delete(f"/customers/{id}").status_code == 204
    for query in ("q=mary", "email=mary@shop.test", f"q={id}"):
        assert ids(http.get(f"/customers?{query}")) == []
