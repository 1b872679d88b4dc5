"""Imports of files that spreadsheets, shops and payment services write."""

from __future__ import annotations

from typing import Any

import pytest

from ecomcharge.base.errors import ConfigurationError
from ecomcharge.customers.bulk.csv_file import SPREADSHEET_NUMBER
from ecomcharge.customers.bulk.formats import Format
from ecomcharge.customers.bulk.options import ReadingOptions, Rules
from ecomcharge.customers.bulk.transfer import ImportSummary
from ecomcharge.customers.bulk.validation_pool import RejectedRecord
from support.bulk import DATA, fields_of, imported, line, lines, stored

ZOE: dict[str, Any] = {"email": "zoe@shop.test", "ip": "198.51.100.7", "first_name": "Zoë"}


def imported_file(url: str, name: str, **options: Any) -> ImportSummary:
    format: Format = "csv" if name.endswith(".csv") else "jsonl"
    return imported(url, (DATA / name).read_bytes(), **{"format": format, **options})


@pytest.mark.parametrize(
    ("name", "customers"),
    [
        ("semicolon.csv", [{**ZOE, "city": "Brno, Líšeň"}]),
        ("tab.csv", [{**ZOE, "first_name": None}, {"email": "max@shop.test", "ip": "2001:db8::5", "last_name": "O'Neil"}]),
        ("pipe.csv", [{**ZOE, "first_name": "Zoë; Anna, too"}]),
        ("delimiter-line.csv", [{**ZOE, "first_name": "Zoë; Anna"}]),
        ("delimiter-line-comma.csv", [ZOE]),
        ("blank-rows.csv", [ZOE]),
        ("utf-16.csv", [ZOE, {"email": "anna@shop.test", "ip": "198.51.100.8", "first_name": "Анна"}]),
        ("utf-16-big-endian.csv", [ZOE]),
        ("utf-16.jsonl", [ZOE]),
        ("byte-order-mark.jsonl", [ZOE]),
        (
            "carriage-returns.csv",
            [{**ZOE, "address": "Main St 1 Flat 2"}, {"email": "max@shop.test", "ip": "198.51.100.8", "first_name": "Max"}],
        ),
        ("line-breaks.csv", [{**ZOE, "first_name": None, "address": "Main St 1 Flat 2", "city": "Ri ga"}]),
    ],
)
def test_a_file_with_one_meaning_is_read_without_options(url: str, name: str, customers: list[dict[str, str]]) -> None:
    passed_over: list[str] = []
    count = len(customers)
    assert imported_file(url, name, passed_over=passed_over) == ImportSummary(read=count, added=count)
    assert fields_of(stored(url)) == [{key: value for key, value in each.items() if value} for each in customers]
    assert passed_over == []
    assert imported_file(url, name) == ImportSummary(read=count, already_imported=count)


def test_the_delimiter_of_the_option_precedes_the_header(url: str) -> None:
    content = b"email;ip,email,ip\nzoe@shop.test;198.51.100.7,max@shop.test,::1\n"
    imported(url, content, format="csv", options=ReadingOptions(delimiter=","))
    assert fields_of(stored(url)) == [{"email": "max@shop.test", "ip": "::1"}]
    with pytest.raises(ConfigurationError, match="email and ip not found"):
        imported(url, b"email;ip\n", format="csv", options=ReadingOptions(delimiter="|"))


@pytest.mark.parametrize(
    ("name", "added", "passed_over"),
    [
        ("nameless-columns.csv", 2, ["(no name)"]),
        ("unknown-columns.csv", 1, ["note", "Note", "Favourite colour"]),
    ],
)
def test_columns_without_a_field_are_passed_over_and_listed(url: str, name: str, added: int, passed_over: list[str]) -> None:
    found: list[str] = []
    assert imported_file(url, name, passed_over=found) == ImportSummary(read=added, added=added)
    assert found == passed_over
    assert fields_of(stored(url))[0]["email"] == "zoe@shop.test"


def test_keys_without_a_field_are_listed(url: str) -> None:
    found: list[str] = []
    content = line("a@shop.test", note="x", Note=1) + line("b@shop.test") + line("c@shop.test", note="y")
    assert imported(url, content, passed_over=found).added == 3
    assert found == ["Note", "note"]


def test_the_list_of_passed_over_keys_has_a_limit(url: str) -> None:
    found: list[str] = []
    imported(url, line("a@shop.test", **{f"{number:03}" * 30: 1 for number in range(300)}), passed_over=found)
    assert (len(found), {len(name) for name in found}) == (100, {60})


@pytest.mark.parametrize(
    ("name", "encoding", "likely", "line"),
    [("windows-1251.csv", "cp1251", "cp1251", 2), ("windows-1252.csv", "cp1252", "cp1252", 2)],
)
def test_another_encoding_is_named_and_read_with_the_option(url: str, name: str, encoding: str, likely: str, line: int) -> None:
    with pytest.raises(ConfigurationError, match=rf"not UTF-8 \(line {line}\); it is probably {likely}: give --encoding"):
        imported_file(url, name)
    assert stored(url) == []
    assert imported_file(url, name, options=ReadingOptions(encoding=encoding)) == ImportSummary(read=2, added=2)
    assert {customer.first_name for customer in stored(url)} in ({"Анна", "Bob"}, {"Zoë", "José"})


def test_damaged_lines_of_a_utf_8_file_are_refused_alone(url: str) -> None:
    content = "email,ip,city\na@shop.test,::1,Rīga\nb@shop.test,::1,Rīga\n".encode() + b"c@shop.test,::1,R\xeega\n"
    rejected: list[RejectedRecord] = []
    assert imported(url, content, format="csv", rejected=rejected).added == 2
    assert rejected == [RejectedRecord(4, "Line is not valid UTF-8")]
    damaged = (DATA / "windows-1252.csv").read_bytes()
    assert imported(url, damaged, format="csv", options=ReadingOptions(encoding="utf-8")).rejected == 2
    undefined = b"email,ip,city\nz@shop.test,::1,\x98\n"
    assert imported(url, undefined, format="csv", options=ReadingOptions(encoding="cp1251"), rejected=rejected).rejected == 1
    assert rejected[1] == RejectedRecord(2, "Line is not valid CP1251")


def test_utf_16_without_a_mark_is_named(url: str) -> None:
    content = "email,ip\nzoe@shop.test,::1\n".encode("utf-16-le")
    with pytest.raises(ConfigurationError, match="probably utf-16-le without a byte order mark; give --encoding utf-16-le"):
        imported(url, content, format="csv")
    assert imported(url, content, format="csv", options=ReadingOptions(encoding="utf-16-le")).added == 1


def test_an_odd_byte_at_the_end_of_utf_16_is_a_refused_line(url: str) -> None:
    content = "\ufeffemail,ip\nzoe@shop.test,::1\n".encode("utf-16-le") + b"x"
    assert imported(url, content, format="csv") == ImportSummary(read=2, added=1, rejected=1)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ((DATA / "compressed.csv.gz").read_bytes(), r"the file is compressed \(gzip\); decompress it first"),
        (b"PK\x03\x04", "the file is a ZIP archive or an Excel workbook"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "the file is an Excel workbook"),
        (b"<!DOCTYPE html>\n", "the file is an HTML or XML document"),
        (b"", "the file is empty"),
        (b"\n \n", "the file is empty"),
        (b'{"email":"a@shop.test"}\n', "the file looks like JSON, not CSV: give --format jsonl"),
    ],
)
def test_a_file_that_is_not_csv_is_refused_with_one_sentence(url: str, start: bytes, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as refusal:
        imported(url, start, format="csv")
    assert "\n" not in str(refusal.value)


def test_a_file_with_only_a_header_has_no_customers(url: str) -> None:
    assert imported(url, b"email,ip", format="csv") == ImportSummary()
    assert imported(url, b"", format="jsonl") == ImportSummary()
    assert imported(url, b"[]", format="jsonl") == ImportSummary()


def test_an_export_of_shopify_is_read_without_options(url: str) -> None:
    found: list[str] = []
    assert imported_file(url, "shopify.csv", passed_over=found) == ImportSummary(read=2, added=2)
    assert fields_of(stored(url)) == [
        {
            "first_name": "Zoë",
            "last_name": "Müller",
            "address": "1 Harbour Way, Flat 5",
            "country": "US",
            "city": "Boston",
            "zip": "02139",
            "state": "MA",
            "phone": "+16175550101",
            "email": "zoe@shop.test",
            "ip": "198.51.100.7",
            "external_id": "7123450001",
        },
        {
            "first_name": "Max",
            "address": "Brīvības 1",
            "country": "LV",
            "city": "Rīga",
            "zip": "LV-1010",
            "email": "max@shop.test",
            "ip": "198.51.100.8",
            "external_id": "7123450002",
        },
    ]
    assert found == ["Accepts Email Marketing", "Default Address Company", "Default Address Phone", "Total Spent", "Tags"]


def test_an_export_of_stripe_needs_options_for_its_ids_and_the_missing_addresses(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"ip not found: .*--allow-missing ip"):
        imported_file(url, "stripe.csv")
    without_ip = Rules(allow_missing=frozenset({"ip"}))
    rejected: list[RejectedRecord] = []
    assert imported_file(url, "stripe.csv", rules=without_ip, rejected=rejected).rejected == 2
    assert rejected[0] == RejectedRecord(2, "Id is invalid", {"id": ["is invalid"]})
    found: list[str] = []
    rules = Rules("external", frozenset({"ip"}))
    assert imported_file(url, "stripe.csv", rules=rules, passed_over=found) == ImportSummary(read=2, added=2)
    assert fields_of(stored(url)) == [
        {
            "first_name": "Zoë",
            "last_name": "van der Berg",
            "address": "1 Harbour Way",
            "country": "US",
            "city": "Boston",
            "zip": "02139",
            "state": "MA",
            "email": "zoe@shop.test",
            "external_id": "cus_Zoe00000000001",
        },
        {"first_name": "Max", "email": "max@shop.test", "external_id": "cus_Max00000000002"},
    ]
    assert found == ["Description", "Created (UTC)", "Status"]


def test_an_export_of_woocommerce_is_read(url: str) -> None:
    found: list[str] = []
    rules = Rules(allow_missing=frozenset({"ip"}))
    assert imported_file(url, "woocommerce.csv", rules=rules, passed_over=found).added == 1
    assert fields_of(stored(url)) == [
        {
            "first_name": "Zoë",
            "last_name": "Müller",
            "address": "1 Harbour Way, Flat 5",
            "country": "US",
            "city": "Boston",
            "zip": "02139",
            "state": "MA",
            "phone": "+16175550100",
            "email": "zoe@shop.test",
            "external_id": "41",
        }
    ]
    assert found == ["username", "billing_email", "shipping_city"]


def test_mapped_columns_and_keys_become_fields(url: str) -> None:
    options = ReadingOptions(mapping={"Given": "first_name", "name": "", "E": "email"})
    found: list[str] = []
    content = b"Given,name,E,ip,email\nZoe,Company,zoe@shop.test,::1,other@shop.test\n"
    assert imported(url, content, format="csv", options=options, passed_over=found).added == 1
    row = line("other@shop.test", Given="Zoe", name="Company", E="zoe@shop.test")
    assert imported(url, row, options=options, passed_over=found).added == 1
    assert {tuple(each.items()) for each in fields_of(stored(url))} == {
        (("first_name", "Zoe"), ("email", "zoe@shop.test"), ("ip", "::1")),
        (("first_name", "Zoe"), ("email", "zoe@shop.test"), ("ip", "127.0.0.1")),
    }
    assert found == ["name", "email", "email", "name"]


def test_a_mapping_that_does_not_fit_the_file_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="--map: the file has no column 'Given'"):
        imported(url, b"email,ip\n", format="csv", options=ReadingOptions(mapping={"Given": "first_name"}))
    with pytest.raises(ConfigurationError, match="must name each column once; twice: first_name"):
        imported(url, b"email,ip,Given,given\n", format="csv", options=ReadingOptions(mapping={"Given": "first_name"}))


def test_foreign_ids_become_external_ids(url: str) -> None:
    rules = Rules("external")
    rejected: list[RejectedRecord] = []
    content = (
        line("a@shop.test", id="cus_1")
        + line("b@shop.test", id=7)
        + line("c@shop.test", id="cst_00000000000000c1")
        + line("d@shop.test", id="cus_2", external_id="other")
        + line("e@shop.test", id="cus_3", external_id="cus_3")
        + line("f@shop.test", id="")
        + line("g@shop.test", id=True)
    )
    assert imported(url, content, rules=rules, rejected=rejected) == ImportSummary(read=7, added=5, rejected=2)
    assert {customer.email: customer.external_id for customer in stored(url)} == {
        "a@shop.test": "cus_1",
        "b@shop.test": "7",
        "c@shop.test": None,
        "e@shop.test": "cus_3",
        "f@shop.test": None,
    }
    two_ids = "cannot become the external id, because the line has another one"
    assert rejected == [
        RejectedRecord(4, f"Id {two_ids}", {"id": [two_ids]}),
        RejectedRecord(7, "Id is invalid", {"id": ["is invalid"]}),
    ]


def test_fields_that_may_be_missing_are_still_checked_when_given(url: str) -> None:
    rules = Rules(allow_missing=frozenset({"email", "ip", "state"}))
    rejected: list[RejectedRecord] = []
    content = b'{"country":"US"}\n{"email":"nonsense"}\n{"ip":"x","country":"US","state":"ZZ"}\n{"city":"Riga"}\n'
    assert imported(url, content, rules=rules, rejected=rejected) == ImportSummary(read=4, added=2, rejected=2)
    assert [refusal.errors for refusal in rejected] == [
        {"email": ["is invalid"]},
        {"state": ["is invalid"], "ip": ["address is invalid"]},
    ]
    assert fields_of(stored(url)) == [{"country": "US"}, {"city": "Riga"}]


def test_numbers_that_a_spreadsheet_changed_are_refused_and_protected_ones_are_read(url: str) -> None:
    rejected: list[RejectedRecord] = []
    assert imported_file(url, "spreadsheet.csv", rejected=rejected) == ImportSummary(read=5, added=3, rejected=2)
    assert [(refusal.line, refusal.errors) for refusal in rejected] == [
        (2, {"phone": [SPREADSHEET_NUMBER]}),
        (5, {"ip": ["address is invalid"], "phone": [SPREADSHEET_NUMBER], "external_id": [SPREADSHEET_NUMBER]}),
    ]
    assert "spreadsheet" in rejected[0].message
    found = [(customer.phone, customer.zip, customer.external_id) for customer in stored(url)]
    assert found == [("+16175550100", "02139", "0042"), ("+16175550101", "02139", None), ("1E5", "=1+1", "12E3")]


def test_texts_of_our_own_export_are_not_changed(url: str) -> None:
    content = b'id,email,phone,first_name\ncst_00000000000000a1,a@shop.test,3.7E+11,"=""x"""\n'
    imported(url, content, format="csv", rules=Rules(allow_missing=frozenset({"ip"})))
    assert [(customer.phone, customer.first_name) for customer in stored(url)] == [("3.7E+11", '="x"')]


def test_an_array_is_read_like_lines(url: str) -> None:
    assert imported_file(url, "array.json") == ImportSummary(read=2, added=2)
    assert [customer.id for customer in stored(url)] == ["cst_00000000000000a1", "cst_00000000000000a2"]
    assert imported_file(url, "array.json") == ImportSummary(read=2, already_imported=2)


def test_only_the_objects_of_an_array_that_cannot_be_read_are_refused(url: str) -> None:
    rejected: list[RejectedRecord] = []
    assert imported_file(url, "array-over-lines.json", rejected=rejected) == ImportSummary(read=5, added=2, rejected=3)
    assert [(refusal.line, refusal.message) for refusal in rejected] == [
        (2, "Ip address is invalid"),
        (3, "Body must be a JSON object"),
        (4, "Body is not valid JSON (line 1, column 56): a comma or the closing bracket is expected"),
    ]
    assert [customer.email for customer in stored(url)] == ["zoe@shop.test", "ida@shop.test"]
    assert stored(url)[0].address == 'Unit [5] {"West"}'


def test_an_array_that_ends_early_is_reported(url: str) -> None:
    rejected: list[RejectedRecord] = []
    content = b'[{"email":"a@shop.test","ip":"::1"},\n{"email":"b@shop.test","ip":"::1"},'
    assert imported(url, content, rejected=rejected) == ImportSummary(read=3, added=2, rejected=1)
    assert rejected == [RejectedRecord(3, "The array is not closed: the file is incomplete")]


def test_columns_with_other_fields_make_it_another_file(url: str) -> None:
    content = b"first_name,last_name,email,ip\nAnn,Doe,a@shop.test,::1\n"
    swapped = ReadingOptions(mapping={"last_name": "first_name", "first_name": "last_name"})
    for _ in range(2):
        imported(url, content, format="csv")
        imported(url, content, format="csv", options=swapped)
    assert [customer.first_name for customer in stored(url)] == ["Ann", "Doe"]


def test_an_import_with_other_rules_adds_only_the_lines_that_were_refused(url: str) -> None:
    content = (
        line("plain@shop.test")
        + b'{"email":"noip@shop.test"}\n'
        + b'{"ip":"::1"}\n'
        + line("foreign@shop.test", id="cus_1")
        + line("state@shop.test", country="US")
        + line("own@shop.test", id="cst_00000000000000a1")
        + b'{"id":"cus_2","city":"both"}\n'
    )
    ip, email, state = (Rules(allow_missing=frozenset({name})) for name in ("ip", "email", "state"))
    everything = Rules("external", frozenset({"ip", "email", "state"}))
    variants = [(Rules(), 2), (ip, 1), (Rules("external"), 1), (email, 1), (Rules(), 0), (everything, 2), (state, 0)]
    for rules, added in variants:
        account = imported(url, content, rules=rules)
        assert (account.added, account.already_imported) == (added, 7 - account.rejected - added)
    assert len(stored(url)) == 7
    assert imported(url, content + line("new@shop.test"), rules=ip).added == 1
    assert imported(url, content + line("new@shop.test"), rules=everything).added == 0
    assert len(stored(url)) == 8


def test_rules_apply_to_a_block_within_which_an_earlier_import_ended(url: str) -> None:
    some = b'{"email":"x@shop.test"}\n' + lines(2_500)
    assert imported(url, some) == ImportSummary(read=2_501, added=2_500, rejected=1)
    rules = Rules(allow_missing=frozenset({"ip"}))
    account = imported(url, some + lines(5, "new"), rules=rules)
    assert account == ImportSummary(read=2_506, added=6, already_imported=2_500)
    assert imported(url, some + lines(5, "new"), rules=rules).added == 0
    assert imported(url, some + lines(5, "new")).added == 0


def test_options_without_effect_do_not_make_it_another_import(url: str) -> None:
    content = b"email,ip,first_name\na@shop.test,::1,Ann\n"
    imported(url, content, format="csv")
    for options in (
        ReadingOptions(delimiter=","),
        ReadingOptions(encoding="cp1252"),
        ReadingOptions(mapping={"First Name": "first_name"}),
    ):
        assert imported(url, content, format="csv", options=options) == ImportSummary(read=1, already_imported=1)
    assert imported(url, b"sep=,\r\n" + content, format="csv") == ImportSummary(read=1, already_imported=1)


def test_keys_are_mapped_only_in_imports_with_that_mapping(url: str) -> None:
    content = b'{"mail":"a@shop.test","email":"b@shop.test","ip":"::1"}\n'
    mapped = ReadingOptions(mapping={"mail": "email"})
    assert imported(url, content).added == 1
    assert imported(url, content, options=mapped).added == 1
    assert imported(url, content, options=mapped) == ImportSummary(read=1, already_imported=1)
    assert [customer.email for customer in stored(url)] == ["b@shop.test", "a@shop.test"]


def test_lines_appended_to_a_file_with_options_are_imported(url: str) -> None:
    options = ReadingOptions(mapping={"name": "first_name"})
    start = b"name;email;ip\n" + b"".join(b"N%d;n%d@shop.test;::1\n" % (number, number) for number in range(2_300))
    assert imported(url, start, format="csv", options=options).added == 2_300
    assert imported(url, lines(3)).added == 3
    account = imported(url, start + b"Z;z@shop.test;::1\n", format="csv", options=options)
    assert account == ImportSummary(read=2_301, added=1, already_imported=2_300)
