"""Imports of CSV files."""

from __future__ import annotations

import pytest

from ecomcharge.base.errors import ConfigurationError
from ecomcharge.customers.bulk.transfer import ImportSummary
from ecomcharge.customers.bulk.validation_pool import RejectedRecord
from support.bulk import DATA, HEADING, imported, stored

NOT_CSV = "Line is not valid CSV"


def test_csv_with_quotes_unusual_columns_and_a_byte_order_mark_is_imported(url: str) -> None:
    content = (
        b"\xef\xbb\xbfEmail,Nickname,ip,city,id\r\n"
        b'"a@shop.test",Al,127.0.0.1,"Saint ""Peter"", Port",\r\n'
        b'b@shop.test,,::1,"two\nlines",\r\n'
        b"c@shop.test,,::1\r\n"
        b'd@shop.test,,::1,"x"y,\r\n'
        b"e@shop.test,,::1,,\r\n"
    )
    rejected: list[RejectedRecord] = []
    assert imported(url, content, format="csv", rejected=rejected) == ImportSummary(read=5, added=3, rejected=2)
    assert [(customer.email, customer.city) for customer in stored(url)] == [
        ("a@shop.test", 'Saint "Peter", Port'),
        ("b@shop.test", "two lines"),
        ("e@shop.test", None),
    ]
    assert [(refusal.line, refusal.message) for refusal in rejected] == [
        (5, "Line has 3 cells where the header has 5"),
        (6, "Line is not valid CSV"),
    ]
    with pytest.raises(ConfigurationError, match="email and ip not found"):
        imported(url, b"a,b\n1,2\n", format="csv")
    with pytest.raises(ConfigurationError, match="each column once"):
        imported(url, b"email,ip,ip\n", format="csv")


@pytest.mark.parametrize(
    ("name", "read", "refused_line"),
    [
        ("one-inch-mark.csv", 5_000, None),
        ("two-inch-marks.csv", 5_000, None),
        ("smallest.csv", 3, None),
        ("open-quote.csv", 3, 2),
        ("quoted-unescaped.csv", 3, 2),
    ],
)
def test_a_stray_quote_affects_at_most_its_own_row(url: str, name: str, read: int, refused_line: int | None) -> None:
    rejected: list[RejectedRecord] = []
    expected = [] if refused_line is None else [RejectedRecord(refused_line, NOT_CSV)]
    account = imported(url, (DATA / name).read_bytes(), format="csv", rejected=rejected)
    assert account == ImportSummary(read=read, added=read - len(expected), rejected=len(expected))
    assert rejected == expected
    assert imported(url, (DATA / name).read_bytes(), format="csv").added == 0


def test_blanks_before_a_quoted_cell_do_not_make_its_quotes_text(url: str) -> None:
    content = (
        b'"email", "ip", "first_name", "city"\n"a@shop.test", "::1", "Ann" , 5" West\nb@shop.test, ::1, Bob "B", "Riga, LV"\n'
    )
    rejected: list[RejectedRecord] = []
    assert imported(url, content, format="csv", rejected=rejected) == ImportSummary(read=2, added=1, rejected=1)
    assert [(customer.first_name, customer.city) for customer in stored(url)] == [("Ann", '5" West')]
    assert rejected == [RejectedRecord(3, "Line has 5 cells where the header has 4")]


def test_a_quote_inside_an_unquoted_cell_is_text(url: str) -> None:
    imported(url, (DATA / "two-inch-marks.csv").read_bytes(), format="csv")
    imported(url, b'email,ip,address\na@shop.test,::1,Apt "B" 5"\n', format="csv")
    with_quotes = [customer.address for customer in stored(url) if '"' in (customer.address or "")]
    assert with_quotes == ['Unit 5" West', 'Unit 7" East', 'Apt "B" 5"']


@pytest.mark.parametrize(
    ("rows", "refused", "added"),
    [
        pytest.param(b'a@shop.test,::1,"5 West\nb@shop.test,::1,x\nc@shop.test,::1,7"\n', [2], "bc", id="closed by an inch mark"),
        pytest.param(b'a@shop.test,::1,"5 West\nc@shop.test,::1,7"\n', [2], "c", id="closed on the next line"),
        pytest.param(b'a@shop.test,"::1,5\nb@shop.test,::1,x\nc@shop.test,7",::1\n', [2, 4], "b", id="in another column"),
        pytest.param(b'"a@shop.test,::1,5\nb@shop.test,::1,x\nc",::1,x\n', [2, 4], "b", id="opened in the first column"),
        pytest.param(b'a@shop.test,::1,"5\nb@shop.test,::1,"6\nc@shop.test,::1,"7\n', [2, 3, 4], "", id="on each line"),
        pytest.param(b'a@shop.test,::1,"5\n"b@shop.test","::1","x"\n', [2], "b", id="before a row of quoted cells"),
        pytest.param(b'a@shop.test,::1,"5\n\nb@shop.test,::1,""\n', [2], "b", id="before a blank line and an empty cell"),
        pytest.param(b'a@shop.test,::1,5","x\n' * 3 + b"b@shop.test,::1,x\n", [2, 3, 4], "b", id="closed and opened again"),
        pytest.param(b'a@shop.test,::1,"5\r\nb@shop.test,::1,x\r\n', [2], "b", id="with carriage returns"),
        pytest.param(b'"', [2], "", id="nothing else"),
    ],
)
def test_only_the_row_with_an_open_quote_is_refused(url: str, rows: bytes, refused: list[int], added: str) -> None:
    rejected: list[RejectedRecord] = []
    account = imported(url, HEADING + rows, format="csv", rejected=rejected)
    assert [refusal.line for refusal in rejected] == refused
    assert account == ImportSummary(read=len(refused) + len(added), added=len(added), rejected=len(refused))
    assert [customer.email for customer in stored(url)] == [f"{name}@shop.test" for name in added]


def test_an_open_quote_far_from_the_next_one_affects_only_its_row(url: str) -> None:
    row = b"%s@shop.test,::1,%s\n"
    good = [row % (b"c%d" % number, b"x" * 40) for number in range(3_000)]
    rejected: list[RejectedRecord] = []
    content = HEADING + row % (b"a", b'"5 West') + b"".join(good) + row % (b"z", b'7"')
    assert imported(url, content, format="csv", rejected=rejected) == ImportSummary(read=3_002, added=3_001, rejected=1)
    assert rejected == [RejectedRecord(2, NOT_CSV)]
