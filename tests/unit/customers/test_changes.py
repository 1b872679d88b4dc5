"""Merge patches of a customer, and the rules for the result of a change."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecomcharge.base.errors import ValidationFailed
from ecomcharge.customers import model
from ecomcharge.customers.model import Customer, CustomerBody, StoredCustomer

ID = "cst_7aee5afb954c7ef7"
NOBODY: dict[str, Any] = dict.fromkeys(model.FIELD_NAMES)


def a_stored_customer(**fields: Any) -> Customer:
    metadata = fields.pop("metadata", None)
    raw = None if metadata is None else msgspec.Raw(json.dumps(metadata).encode())
    return Customer(id=ID, **{**NOBODY, "email": "jane@shop.test", "ip": "127.0.0.1", **fields}, metadata=raw)


def patched(stored: Customer, **patch: Any) -> model.CustomerFields:
    body = model.PATCH.decode(json.dumps(patch))
    return model.validate_change(stored, model.merge(stored, body))


def errors_of(stored: Customer, **patch: Any) -> Any:
    with pytest.raises(ValidationFailed) as refused:
        patched(stored, **patch)
    return refused.value.errors


# RFC 7396


def merge_patch(target: Any, patch: Any) -> Any:
    """The algorithm of section 2, as it is written there."""
    if not isinstance(patch, dict):
        return patch
    target = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        else:
            target[name] = merge_patch(target.get(name), value)
    return target


TEXTS = st.text("abc é", min_size=1, max_size=3)
KEYS = st.text("xyz", min_size=1, max_size=2)
STORED = st.fixed_dictionaries({}, optional=dict.fromkeys(("first_name", "city", "phone", "external_id"), TEXTS))
METADATA = st.dictionaries(KEYS, TEXTS, min_size=1)
VALUES = st.none() | TEXTS | st.integers(0, 9) | st.lists(TEXTS, min_size=1)
PATCHES = st.fixed_dictionaries(
    {}, optional={**dict.fromkeys(model.FIELD_NAMES, VALUES), "metadata": VALUES | st.dictionaries(KEYS, VALUES), "other": VALUES}
)


@given(STORED, st.none() | METADATA, PATCHES)
def test_a_merge_patch_gives_the_result_of_rfc_7396(fields: Any, metadata: Any, patch: Any) -> None:
    stored = a_stored_customer(**fields, metadata=metadata)
    document = {name: value for name, value in json.loads(msgspec.json.encode(stored)).items() if value is not None}

    merged = model.merge(stored, model.PATCH.decode(json.dumps(patch)))

    expected = merge_patch(document, patch)
    found = {name: value for name, value in msgspec.structs.asdict(merged).items() if value is not None}
    if found.get("metadata") == {}:  # absent and empty are the same
        del found["metadata"]
    assert found == {name: value for name, value in expected.items() if name not in ("id", "other") and value != {}}


def test_metadata_is_merged_by_key() -> None:
    stored = a_stored_customer(metadata={"tier": "gold", "note": "old"})

    assert model.metadata_of(patched(stored, metadata={"note": None, "since": "2026"})) == {"tier": "gold", "since": "2026"}
    assert model.metadata_of(patched(stored, metadata={"note": " "})) == {"tier": "gold"}
    assert model.metadata_of(patched(stored, metadata={"tier": None, "note": None})) is None
    assert model.metadata_of(patched(stored, metadata=None)) is None
    assert model.metadata_of(patched(stored, metadata={"x" * 41: None})) == {"tier": "gold", "note": "old"}
    assert model.metadata_of(patched(stored, metadata=[])) == {"tier": "gold", "note": "old"}


def test_the_merged_metadata_keeps_the_limits() -> None:
    full = a_stored_customer(metadata={str(number): "x" for number in range(50)})

    assert errors_of(full, metadata={"one more": "x"}) == {"metadata": ["must have at most 50 keys"]}
    assert model.metadata_of(patched(full, metadata={"one more": "x", "0": None})) is not None
    assert errors_of(full, metadata={"1": {"a": "b"}}) == {"metadata": ["must be a string"]}
    assert errors_of(full, metadata="gold") == {"metadata": ["must be an object"]}


# The rules for the result


@pytest.mark.parametrize("blank", [None, "", "  "])
def test_blank_clears_an_optional_field_only(blank: str | None) -> None:
    stored = a_stored_customer(city="Denver", country="US", state="CO")

    assert patched(stored, city=blank).city is None
    assert errors_of(stored, email=blank, ip=blank, state=blank) == {
        "state": ["can't be blank"],
        "email": ["can't be blank"],
        "ip": ["address is invalid", "can't be blank"],
    }


@pytest.mark.parametrize("blank", [None, "", "  "])
def test_a_required_field_that_was_absent_may_stay_absent(blank: str | None) -> None:
    stored = a_stored_customer(email=None, ip=None, country="US")

    for patch in ({}, {"email": blank, "ip": blank, "state": blank}, {"country": "us"}):
        fields = patched(stored, city="Denver", **patch)
        assert (fields.city, fields.email, fields.ip, fields.state) == ("Denver", None, None, None)
    assert errors_of(stored, ip="x", email="y", state="z") == {
        "state": ["is invalid"],
        "email": ["is invalid"],
        "ip": ["address is invalid"],
    }


def test_a_change_of_the_country_needs_a_state_and_a_zip_that_fit() -> None:
    stored = a_stored_customer(country="DE", state="Bavaria", zip="1")

    assert errors_of(stored, country="US") == {"zip": ["is invalid"], "state": ["is invalid"]}
    assert errors_of(stored, country="CA", state=None) == {"state": ["can't be blank"]}
    assert errors_of(a_stored_customer(), country="US") == {"state": ["can't be blank"]}
    assert errors_of(a_stored_customer(country="US"), country="CA") == {"state": ["can't be blank"]}
    assert patched(stored, country="US", state="co", zip="80202").state == "CO"
    assert patched(a_stored_customer(state="co"), country="us").state == "CO"
    assert patched(stored, country=None).state == "Bavaria"


def test_a_field_with_a_fault_keeps_its_value_while_other_fields_change() -> None:
    """An import of customers with ids, and the hosted page, do not check state and zip against the country."""
    stored = a_stored_customer(country="US", state="Bavaria", zip="1", email="not an address")

    fields = patched(stored, city="Denver")

    assert (fields.city, fields.state, fields.zip, fields.email) == ("Denver", "Bavaria", "1", "not an address")
    assert errors_of(stored, state="Hesse") == {"state": ["is invalid"]}
    assert errors_of(stored, state=None) == {"state": ["can't be blank"]}
    assert errors_of(stored, country="CA") == {"state": ["is invalid"]}
    assert patched(stored, zip="80202", state="CO").state == "CO"


def test_the_faults_of_a_change_keep_their_places_and_rules() -> None:
    with pytest.raises(ValidationFailed) as refused:
        patched(a_stored_customer(), country="US", metadata={"a/b": 1.5})
    faults = [(fault.pointer, fault.code, fault.rule is not None) for fault in refused.value.faults]
    assert faults == [("/state", "required", True), ("/metadata/a~1b", "not_a_string", True)]


def test_every_value_of_the_metadata_has_its_faults() -> None:
    wrong = {"a": 1.5, "": "x", "b": "x" * 501, "k" * 41: "y", "c": True, "d": "right"}
    with pytest.raises(ValidationFailed) as refused:
        patched(a_stored_customer(), metadata=wrong)
    assert [(fault.pointer, fault.code) for fault in refused.value.faults] == [
        ("/metadata/a", "not_a_string"),
        ("/metadata", "invalid_key"),
        ("/metadata/b", "too_long"),
        ("/metadata/c", "not_a_string"),
    ]
    texts = ["must be a string", "must have keys of 1 to 40 characters", "is too long (maximum is 500 characters)"]
    assert refused.value.errors == {"metadata": texts}

    with pytest.raises(ValidationFailed) as refused:
        patched(a_stored_customer(), metadata={str(number): [] for number in range(1_000)})
    assert len(refused.value.faults) == 50


def test_put_replaces_all_fields_by_the_same_rules() -> None:
    stored = a_stored_customer(city="Denver", metadata={"tier": "gold"})

    fields = model.validate_change(stored, CustomerBody(email="a@b.cc", ip="::1"))

    assert fields == model.CustomerFields(email="a@b.cc", ip="::1")
    with pytest.raises(ValidationFailed):
        model.validate_change(stored, CustomerBody(ip="::1"))
    assert model.validate_change(a_stored_customer(email=None), CustomerBody(ip="::1")).email is None


@pytest.mark.parametrize(
    ("given", "path", "errors"),
    [
        (None, " 42 ", None),
        ("", "42", None),
        ("42", "42", None),
        (42, "42", None),
        (" 42 ", "42", None),
        ("43", "42", {"external_id": ["must be the one in the path"]}),
        (None, " ", {"external_id": ["can't be blank"]}),
        (None, "\x00", {"external_id": ["is invalid"]}),
        (None, "Ren\ufffd", {"external_id": ["is invalid"]}),
        ([], "42", {"external_id": ["must be a string"]}),
        (None, "x" * 256, {"external_id": ["is too long (maximum is 255 characters)"]}),
    ],
)
def test_the_external_id_of_the_body_is_absent_or_that_of_the_path(given: Any, path: str, errors: Any) -> None:
    body = CustomerBody(email="a@b.cc", ip="::1", external_id=given)
    if errors is None:
        assert model.validate_external(body, path).external_id == "42"
        return
    with pytest.raises(ValidationFailed) as refused:
        model.validate_external(body, path)
    assert refused.value.errors == errors


# The change


def test_a_change_names_the_changed_fields_in_the_order_of_the_object() -> None:
    stored = StoredCustomer(a_stored_customer(city="Denver", metadata={"a": "1", "b": "2"}), 3, None)

    change = model.change_of(
        stored, patched(stored.customer, phone="1", first_name="Jane", metadata={"a": "2"}, city="Denver"), 5
    )

    assert change.names == ["first_name", "phone", "metadata"]
    assert (change.after.version, change.after.updated_at, change.after.customer.id) == (4, 5, ID)


def test_equal_values_are_no_change() -> None:
    stored = StoredCustomer(a_stored_customer(city="Denver", metadata={"a": "1", "b": "2"}), 3, None)
    another_order = msgspec.Raw(b'{"b": "2", "a": "1"}')

    fields = msgspec.structs.replace(patched(stored.customer, city=" Denver "), metadata=another_order)

    assert model.change_of(stored, fields, 5) == model.CustomerChange(stored, stored, [])
