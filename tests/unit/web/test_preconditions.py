"""Entity tags, ``If-Match`` and ``If-None-Match``."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecomcharge.base.errors import BadParameter, PreconditionFailed
from ecomcharge.web.messages import Request
from ecomcharge.web.preconditions import if_match_of, none_match, validators_of


class RequestWith(Request):
    def __init__(self, if_match: str) -> None:
        super().__init__("PATCH", "/", "", {"if-match": if_match}.get)

    def has(self, name: str) -> bool:
        return self.header(name) is not None


def allows(if_match: str, version: int | None) -> bool:
    header = if_match_of(RequestWith(if_match))
    assert header is not None
    try:
        header.check(version)
    except PreconditionFailed:
        return False
    return True


@given(st.integers(0, 4_000_000_000))
def test_dates_are_those_of_the_standard_library(second: int) -> None:
    assert validators_of(1, second)[1] == ("last-modified", formatdate(second, usegmt=True))


@pytest.mark.parametrize("text", ['"3"', '"1", "3"', '"1","2",,"3",', ' "3" ', "*", '"a,b", "3"', '"3", W/"1"', '"", "3"'])
def test_if_match_allows_a_listed_version(text: str) -> None:
    assert allows(text, 3)


@pytest.mark.parametrize("text", ['"1"', 'W/"3"', '"1", W/"3"', '"33"', '"03"', '""', '"1,3"'])
def test_if_match_refuses_other_versions_and_weak_tags(text: str) -> None:
    assert not allows(text, 3)


def test_without_a_record_no_if_match_is_met() -> None:
    assert not allows("*", None)
    assert not allows('"1"', None)


@pytest.mark.parametrize("text", ["3", "", '"3', '3"', '"3" "4"', '*, "3"', 'w/"3"', '"3";', '"a b"', "null"])
def test_a_malformed_if_match_is_refused(text: str) -> None:
    with pytest.raises(BadParameter):
        if_match_of(RequestWith(text))


@pytest.mark.parametrize("text", ['"3"', 'W/"3"', '"1", "3"', "*", " * "])
def test_if_none_match_compares_weakly(text: str) -> None:
    assert not none_match(text, 3)


@pytest.mark.parametrize("text", ['"1"', "3", "", '"33"', "nonsense"])
def test_if_none_match_permits_other_versions(text: str) -> None:
    assert none_match(text, 3)


def test_a_long_list_is_read_in_little_time() -> None:
    with pytest.raises(BadParameter):
        if_match_of(RequestWith('"1"' + " ,\t" * 20_000 + "x"))
