"""Valid, wrong and malformed HTTP Basic credentials."""

from __future__ import annotations

import pytest

from support.caller import GOOD, JSON, Caller, assert_is_our_error, encoded_login
from support.wire import basic, request

CHALLENGE = 'Basic realm="ecomcharge"'


def _wrong_credentials() -> dict[str, bytes]:
    right = b"1:12345678"
    return {
        "nothing": b"",
        "the scheme alone": b"Basic",
        "the scheme and a space": b"Basic ",
        "no base64": b"Basic !!!",
        "padding alone": b"Basic ====",
        "half a base64": b"Basic MTI",
        "base64 of bytes that are no UTF-8": b"Basic /zpY/w==",
        "a key that is no UTF-8": b"Basic MTr/",
        "no colon": b"Basic MTIz",
        "another scheme": b"Bearer abcdef",
        "digest": b'Digest username="1", realm="x", nonce="y"',
        "no scheme": b"MTpYWFhYWFhYWA==",
        "latin-1": b"Basic \xff\xfe\xe9",
        "UTF-8": "Basic café".encode(),
        "a bare byte": b"\xff",
        "tabs": b"Basic\tMTpYWFhYWFhYWA==",
        "two": b"Basic MTpYWFhYWFhYWA==, Basic MTpYWFhYWFhYWA==",
        "long": b"Basic " + b"QUFB" * 1500,
        "an id beyond every integer": encoded_login(b"9" * 400 + b":x"),
        "an id just beyond": encoded_login(b"9007199254740992:x"),
        "a negative id": encoded_login(b"-1:x"),
        "a signed id": encoded_login(b"+1:x"),
        "an id in Arabic digits": encoded_login("١:x".encode()),
        "an id with a space": encoded_login(b" 1:x"),
        "an id with a line end": encoded_login(b"1\n:x"),
        "an id with a NUL": encoded_login(b"1\0:x"),
        "a float": encoded_login(b"1.0:x"),
        "SQL": encoded_login(b"1 OR 1=1:x"),
        "no id": encoded_login(b":x"),
        "no key": encoded_login(b"1:"),
        "nothing but a colon": encoded_login(b":"),
        "an unknown shop": encoded_login(right),
    }


@pytest.mark.parametrize("value", _wrong_credentials().values(), ids=_wrong_credentials().keys())
def test_wrong_credentials_get_401(caller: Caller, value: bytes) -> None:
    answer = caller.ask(request("GET", "/customers", ("Authorization", value)))

    assert_is_our_error(answer, 401)
    assert answer.json() == {"message": "Unauthorized"}
    assert answer.header("www-authenticate") == CHALLENGE


def test_missing_credentials_get_401(caller: Caller) -> None:
    answer = caller.ask(request("POST", "/customers", JSON, body=GOOD))

    assert_is_our_error(answer, 401)
    assert answer.header("www-authenticate") == CHALLENGE


@pytest.mark.parametrize("addition", ["\0", " ", "x", "\u00e9"])
def test_a_key_with_extra_characters_gets_401(caller: Caller, addition: str) -> None:
    shop = caller.credentials
    wrong = basic(shop.shop_id, shop.secret_key + addition)

    assert caller.ask(request("GET", "/customers", ("Authorization", wrong))).status == 401


def test_case_and_spaces_of_the_scheme_are_ignored(caller: Caller) -> None:
    encoded = caller.login[1][6:]

    for value in (f"basic {encoded}", f"BASIC {encoded}", f"Basic  {encoded} "):
        assert caller.ask(request("GET", "/customers", ("Authorization", value))).status == 200
