"""The validation of fields: fast checks agree with the libraries, and every input gives a value or a clear error."""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from unittest import mock

import email_validator
import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ecomcharge.base.addresses import accept_email, accept_ip
from ecomcharge.base.errors import ValidationFailed
from ecomcharge.base.text_forms import fold_lines, half_width
from ecomcharge.base.validation import Field, TextFields, ValidationErrors, human_name, message_of, read_boolean, read_integer
from ecomcharge.customers.model import FIELD_NAMES, FIELDS, Customer, CustomerBody, CustomerFields, validate

WITH_PORT = re.compile(r"[0-9.]+:[0-9]{1,5}\Z")
ASCII_ADDRESSES = st.text(alphabet="abyzAZ019.-_+'@!~ \"()<>,:;[]\\", max_size=30)
DOTTED = st.lists(st.text(alphabet="ab1-_", max_size=8), min_size=1, max_size=4).map(".".join)
LIKELY_ADDRESSES = st.builds("{}@{}".format, DOTTED, DOTTED)
LONG_ADDRESSES = st.builds(
    lambda local, labels, end: f"{'l' * local}@{'.'.join('d' * length for length in labels)}.{end}",
    st.integers(60, 68),
    st.lists(st.integers(1, 66), min_size=1, max_size=5),
    st.sampled_from(["com", "c0", "0c", "c"]),
)


def library_says(address: str) -> bool:
    with mock.patch.object(email_validator, "SPECIAL_USE_DOMAIN_NAMES", []):
        try:
            email_validator.validate_email(
                address, strict=True, check_deliverability=False, allow_quoted_local=False, allow_domain_literal=False
            )
        except email_validator.EmailNotValidError:
            return False
        return True


@given(ASCII_ADDRESSES | LIKELY_ADDRESSES | LONG_ADDRESSES | st.emails())
@example("a@b.xn--p1ai")
@example("a@xn--.com")
@example("a@b.com\n")
@example("a@b.c-d")
@example("a.@b.com")
@example("a.b.@b.com")
def test_the_fast_email_check_agrees_with_the_library(address: str) -> None:
    assert (accept_email(address) is not None) == library_says(address)


@given(st.text(alphabet="jané日@.test-пошта", min_size=5, max_size=30))
def test_international_emails_are_decided_by_the_library(address: str) -> None:
    assert (accept_email(address) is not None) == library_says(address)


@pytest.mark.parametrize(
    "domain", ["shop.test", "localhost.localdomain", "shop.example", "shop.invalid", "shop.local", "a.onion"]
)
def test_emails_at_reserved_domains_are_accepted(domain: str) -> None:
    assert accept_email(f"jane@{domain}") == f"jane@{domain}"


def test_the_reserved_domains_of_the_library_are_unchanged_for_other_code() -> None:
    before = list(email_validator.SPECIAL_USE_DOMAIN_NAMES)
    assert accept_email("jané@shop.test") == "jané@shop.test"
    assert before == email_validator.SPECIAL_USE_DOMAIN_NAMES != []
    with pytest.raises(email_validator.EmailNotValidError):
        email_validator.validate_email("jané@shop.test", check_deliverability=False)


@pytest.mark.parametrize(
    "address", ["jane", "jane@localhost", '"jane doe"@shop.test', "jane@[127.0.0.1]", "Jane <jane@shop.test>"]
)
def test_a_domain_needs_a_dot_and_quotes_and_literals_are_refused(address: str) -> None:
    assert accept_email(address) is None


@given(st.ip_addresses())
def test_every_ip_is_accepted_and_stored_as_itself(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    stored = accept_ip(str(address))
    assert stored is not None
    assert ipaddress.ip_address(stored) == address
    assert accept_ip(stored) == stored
    assert accept_ip(address.exploded) == stored


@given(st.text(alphabet="0123456789abcdefABCDEF.:%/x ", max_size=24).filter(lambda text: not WITH_PORT.match(text)))
@example("1.2.3.4\0")
@example("1.2.3.4 ")
@example("0x1.2.3.4")
@example("1.2.3.0000004")
def test_a_malformed_ip_is_refused(text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        assert accept_ip(text) is None
    else:
        assert (accept_ip(text) is None) == ("%" in text)


@given(st.text(max_size=300) | st.integers() | st.floats() | st.booleans() | st.none() | st.lists(st.integers(), max_size=2))
def test_a_text_field_gives_either_text_or_an_error(value: object) -> None:
    faults = ValidationErrors()
    text = Field("city", "", "[S]").read(value, faults)
    if text is None:
        return
    assert not faults.has("city")
    assert isinstance(value, (str, int))
    assert not isinstance(value, bool)
    assert 1 <= len(text) <= 255
    assert "\n" in str(value) or text in fold_lines(str(value).strip())
    assert not any(unicodedata.category(character) in ("Cc", "Cs") for character in text)
    assert text == text.strip()


FORWARDED = st.tuples(
    st.ip_addresses(), st.none() | st.integers(0, 65535), st.lists(st.ip_addresses() | st.text(" ,a"), max_size=2)
)


@given(FORWARDED)
def test_the_first_address_of_a_list_of_a_proxy_is_stored(
    forwarded: tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int | None, list[object]],
) -> None:
    address, port, others = forwarded
    written = f"[{address}]" if address.version == 6 and port is not None else str(address)
    first = written if port is None else f"{written}:{port}"
    assert accept_ip(",".join([first, *map(str, others)])) == accept_ip(str(address))


@given(st.text(alphabet="ab,. \t\n\r\v\f\u2028\u2029\xa0", max_size=20).map(str.strip))
def test_folding_gives_one_line_and_keeps_every_other_character(text: str) -> None:
    folded = fold_lines(text)
    assert fold_lines(folded) == folded
    assert not set(folded) & set("\t\n\r\v\f\u2028\u2029")
    assert [character for character in folded if character in "ab."] == [character for character in text if character in "ab."]
    if len(text.splitlines()) <= 1 and "\t" not in text:
        assert folded == text


@pytest.mark.parametrize(
    ("text", "folded"),
    [("a\nb", "a, b"), ("a \r\n\r\n b", "a, b"), ("a,\nb,", "a, b,"), ("a\tb", "a b"), ("a \t\t b", "a b"), ("a\t\nb", "a, b")],
)
def test_lines_are_joined_by_a_comma_and_tabs_become_one_space(text: str, folded: str) -> None:
    assert fold_lines(text) == folded


def test_full_width_characters_have_an_ascii_form() -> None:
    every = "".join(map(chr, range(0xFF01, 0xFF5F)))
    assert half_width(every) == unicodedata.normalize("NFKC", every) == "".join(map(chr, range(0x21, 0x7F)))
    assert half_width("\u3000\u0661\u2460\xbd") == " \u0661\u2460\xbd"  # nothing else changes


@pytest.mark.parametrize(
    ("value", "known"),
    [(1, True), (0, False), (1.0, True), (0.0, False), ("1", True), (" 0 ", False), ("TRUE", True), (True, True), (False, False)],
)
def test_booleans_are_also_numbers_and_texts(value: object, known: bool) -> None:
    errors = ValidationErrors()
    assert read_boolean("test", value, errors, default=not known) is known
    assert not errors.has("test")


@pytest.mark.parametrize("value", [2, -1, 0.5, float("nan"), "2", "yes", [], {}, "\uff11"])
def test_other_values_are_no_booleans(value: object) -> None:
    errors = ValidationErrors()
    read_boolean("test", value, errors, default=False)
    assert errors.to_dict() == {"test": ["must be true or false"]}


@pytest.mark.parametrize(
    ("value", "number"), [("\uff11\uff12", 12), ("\u3000\uff0d\uff17 ", -7), ("\u0661\u0662", None), ("\u2460", None)]
)
def test_integers_may_have_full_width_digits(value: str, number: int | None) -> None:
    errors = ValidationErrors()
    assert read_integer("amount", value, errors, above=-100, most=100) == number
    assert errors.has("amount") == (number is None)


@given(st.characters(categories=["Cc"], exclude_characters="\t\n\r\v\f"))
def test_every_control_character_inside_a_text_is_refused(character: str) -> None:
    faults = ValidationErrors()
    assert Field("city", "", "[S]").read(f"a{character}b", faults) is None
    assert faults.has("city")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
likely_values = st.sampled_from(["US", "ca", "CO", "ON", "92006", "92006-1234", "a@b.cc", "127.0.0.1", "::1", "", " x "])
bodies = st.fixed_dictionaries({}, optional=dict.fromkeys(FIELD_NAMES, likely_values | json_values))


VALID_BODY = {
    "first_name": "Ren\u00e9",
    "address": "1 1st Street",
    "country": "US",
    "zip": "92006",
    "state": "CO",
    "email": "a.b@shop.test",
    "ip": "127.0.0.1",
}
odd_texts = st.text(alphabet="aZ \u00e9\u65e5\u0301\u200b\xa0\x85\x1f\t\ud800", max_size=6)
odd_values = (
    st.sampled_from(["", " ", "a  b", "a ", " a", "x" * 255, "x" * 256, 7, None, True])
    | st.sampled_from(["CA", "us", "SS", "DE", "ON", "co", "92006 ", "9200", "::1", "::ffff:1.2.3.4", "1.2.3", "01.2.3.4"])
    | st.sampled_from(["a@b--c.test", "jan\u00e9@b.cc", "a@b", " a@b.cc", f"{'a' * 60}@b.cc"])
)
nearly_valid = st.dictionaries(st.sampled_from(FIELD_NAMES), odd_values | odd_texts | LIKELY_ADDRESSES, max_size=2)


@given(bodies | nearly_valid.map(lambda changed: VALID_BODY | changed))
@example(VALID_BODY | {"state": None})
@settings(max_examples=300, deadline=None)
def test_a_refused_body_has_a_message_that_matches_its_errors(values: dict[str, object]) -> None:
    body = CustomerBody(**values)
    refusal: ValidationFailed | None = None
    try:
        customer = validate(body)
    except ValidationFailed as invalid:
        refusal = invalid
    if refusal is not None:
        assert refusal.message == message_of(refusal.errors)
        assert list(refusal.errors) == [name for name in FIELD_NAMES if name in refusal.errors]
        assert all(texts and len(set(texts)) == len(texts) for texts in refusal.errors.values())
    else:
        assert customer.email is not None
        assert customer.ip is not None
        again = CustomerBody(**msgspec.structs.asdict(customer))
        assert validate(again) == customer  # the stored values are valid input


def test_the_fields_are_the_same_everywhere_and_in_the_documented_order() -> None:
    documented = ("first_name", "last_name", "address", "country", "city", "zip", "state", "phone", "email", "ip", "external_id")
    assert tuple(field.name for field in FIELDS) == documented
    assert CustomerBody.__struct_fields__ == CustomerFields.__struct_fields__ == (*documented, "metadata")
    assert Customer.__struct_fields__ == ("id", *documented, "metadata")


@pytest.mark.parametrize(
    ("name", "human"), [("first_name", "First name"), ("ip", "Ip"), ("email", "Email"), ("external_id", "External id")]
)
def test_a_field_name_is_made_readable(name: str, human: str) -> None:
    assert human_name(name) == human


@given(
    st.lists(
        st.none() | st.sampled_from(["us", "CO", "a|b", "x" * 255, 5, False, []]) | st.text("a |\t\u3000\ud800", max_size=4),
        min_size=3,
        max_size=3,
    )
)
def test_fields_that_are_read_together_have_the_values_and_errors_of_each_field(values: list[object]) -> None:
    fields = [
        Field("name", "", "[D]"),
        Field("upper", "", "[D]", maximum=256, accept=lambda text: text.upper() if text.isalpha() else None),
        Field("needed", "", "[D]", blank=("can't be blank",)),
    ]
    together, apart = ValidationErrors(), ValidationErrors()
    texts = TextFields(fields).read(values, together)
    assert texts == [field.read(value, apart) for field, value in zip(fields, values, strict=True)]
    assert together.to_dict() == apart.to_dict()
