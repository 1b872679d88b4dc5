"""Imports of customers from files: duplicates, ids, limits and refused lines."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from concurrent import futures
from functools import partial
from typing import Any

import msgspec
import pytest

from ecomcharge.customers import store
from ecomcharge.customers.actions import ChangeRequest, change_customer
from ecomcharge.customers.bulk import validation_pool
from ecomcharge.customers.bulk.files import LINE_MAXIMUM_BYTES
from ecomcharge.customers.bulk.options import ReadingOptions, Rules
from ecomcharge.customers.bulk.transfer import DuplicateCustomer, ImportSummary
from ecomcharge.customers.bulk.validation_pool import RejectedRecord
from ecomcharge.customers.model import Customer, CustomerFields
from ecomcharge.customers.store import Filter
from ecomcharge.events.recorder import CustomerEventRecorder
from ecomcharge.events.store import of_object
from ecomcharge.storage.database import Database
from support.bulk import OTHER_SHOP, SHOP, imported, line, lines, stored
from support.shops import Shop, with_database


def test_repeated_imports_of_one_file_add_it_once(url: str) -> None:
    content = lines(2_500)
    assert imported(url, content) == ImportSummary(read=2_500, added=2_500)
    assert imported(url, content) == ImportSummary(read=2_500, already_imported=2_500)
    assert imported(url, content.rstrip(b"\n")) == ImportSummary(read=2_500, already_imported=2_500)
    assert [customer.email for customer in stored(url)] == [f"c{number}@shop.test" for number in range(2_500)]


def test_a_different_file_of_the_same_length_is_imported(url: str) -> None:
    assert imported(url, lines(3)) == ImportSummary(read=3, added=3)
    assert imported(url, lines(3, "d")) == ImportSummary(read=3, added=3)


def test_the_same_lines_under_a_different_header_are_imported(url: str) -> None:
    wrong = b"ip,email\n" + b"a@shop.test,127.0.0.1\n" * 2
    assert imported(url, wrong, format="csv") == ImportSummary(read=2, rejected=2)
    assert imported(url, wrong.replace(b"ip,email", b"email,ip"), format="csv") == ImportSummary(read=2, added=2)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["line feed", "carriage return and line feed"])
def test_lines_appended_after_an_unterminated_last_line_are_imported(url: str, end: bytes) -> None:
    assert imported(url, lines(3).replace(b"\n", end).removesuffix(end)) == ImportSummary(read=3, added=3)
    assert imported(url, lines(5).replace(b"\n", end)) == ImportSummary(read=5, added=2, already_imported=3)


def test_lines_appended_to_an_imported_file_are_imported(url: str) -> None:
    imported(url, lines(2_300))
    imported(url, lines(100, "another-"))
    assert imported(url, lines(4_100)) == ImportSummary(read=4_100, added=1_800, already_imported=2_300)
    assert imported(url, lines(4_100)) == ImportSummary(read=4_100, already_imported=4_100)
    assert len({customer.email for customer in stored(url)}) == len(stored(url)) == 4_200


class PromptPool(futures.ProcessPoolExecutor):
    """A process that reports that it has started."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> futures.Future[Any]:
        future = super().submit(fn, *args, **kwargs)
        if fn is os.getpid:
            assert future.result(60) != os.getpid()
        return future


def test_validation_in_other_processes_gives_the_same_result(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation_pool, "ProcessPoolExecutor", PromptPool)
    count = validation_pool.POOL_MINIMUM_RECORDS + 4_321
    content = lines(count) + b"nonsense\n" + line("last@shop.test")
    rejected: list[RejectedRecord] = []
    assert imported(url, content, rejected=rejected) == ImportSummary(read=count + 2, added=count + 1, rejected=1)
    assert rejected == [RejectedRecord(count + 1, "Body is not valid JSON (line 1, column 1): a value is expected")]
    assert [customer.email for customer in stored(url)][-2:] == [f"c{count - 1}@shop.test", "last@shop.test"]


def test_options_apply_in_other_processes(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation_pool, "ProcessPoolExecutor", PromptPool)
    count = validation_pool.POOL_MINIMUM_RECORDS + 4_000
    rows = b"".join(b"cus_%d;Zoe;c%d@shop.test;x\n" % (number, number) for number in range(count))
    passed_over: list[str] = []
    account = imported(
        url,
        b"id;Given;email;note\n" + rows,
        format="csv",
        options=ReadingOptions(mapping={"Given": "first_name"}),
        rules=Rules("external", frozenset({"ip"})),
        passed_over=passed_over,
    )
    assert account == ImportSummary(read=count, added=count)
    last = stored(url)[-1]
    assert (last.external_id, last.first_name, last.ip) == (f"cus_{count - 1}", "Zoe", None)
    assert passed_over == ["note"]
    keys = b"".join(b'{"email":"k%d@shop.test","ip":"::1","key%d":1}\n' % (number, number // 4_000) for number in range(count))
    assert imported(url, keys, passed_over=passed_over).added == count
    assert passed_over == ["note", "key0", "key1", "key2"]


def test_refused_lines_have_the_error_messages_of_the_api(server: Shop) -> None:
    bodies = [b"{}", b"nope", b"[]", b'{"email":"a","ip":"x","zip":"1","country":"US"}', b'{"email":1.5,"ip":"::1"}', b"\xff"]
    rejected: list[RejectedRecord] = []
    account = imported(server.process.database, b"\n".join(bodies), shop_id=server.shop_id, rejected=rejected)
    assert account == ImportSummary(read=6, rejected=6)
    with server.client(headers={"content-type": "application/json"}) as http:
        for number, (body, refusal) in enumerate(zip(bodies[:5], rejected, strict=False), 1):
            answer = http.post("/customers", content=body).json()
            assert refusal == RejectedRecord(number, answer["message"], answer.get("errors", {}))
    assert rejected[5] == RejectedRecord(6, "Line is not valid UTF-8")


def test_a_valid_id_is_kept_and_a_malformed_one_is_reported_with_other_errors(url: str) -> None:
    rejected: list[RejectedRecord] = []
    content = line("a@shop.test", id="cst_0000000000000001") + line("nonsense", id="cst_1")
    assert imported(url, content, rejected=rejected) == ImportSummary(read=2, added=1, rejected=1)
    assert stored(url)[0].id == "cst_0000000000000001"
    assert rejected == [RejectedRecord(2, "Id is invalid. Email is invalid", {"id": ["is invalid"], "email": ["is invalid"]})]


@pytest.mark.parametrize("identity", [{"id": "cst_0000000000000001"}, {"external_id": "user-1"}])
def test_an_existing_customer_is_skipped_updated_or_refused(url: str, identity: dict[str, str]) -> None:
    imported(url, line("old@shop.test", **identity))
    first = stored(url)[0]
    again = line("new@shop.test", city="Minsk", **identity) + line("fresh@shop.test")
    assert imported(url, again, dry_run=True) == ImportSummary(read=2, added=1, duplicates=1)
    with pytest.raises(DuplicateCustomer) as failed:
        imported(url, line("before@shop.test") + again, on_duplicate="fail")
    assert failed.value.line == 2
    assert stored(url) == [first]
    assert imported(url, again) == ImportSummary(read=2, added=1, duplicates=1)
    assert stored(url)[0] == first
    assert imported(url, again, on_duplicate="update") == ImportSummary(read=2, updated=1, already_imported=1)
    assert (stored(url)[0].id, stored(url)[0].email, stored(url)[0].city) == (first.id, "new@shop.test", "Minsk")
    assert len(stored(url)) == 2


def test_each_change_by_an_import_is_a_version_with_an_event(url: str) -> None:
    """A line that changes nothing is no change, and neither is a dry run. The last line of one customer is kept."""
    one, two = ({"id": f"cst_{number:016x}"} for number in (1, 2))
    imported(url, line("a@shop.test", **one) + line("b@shop.test", **two))

    again = line("a@shop.test", **one) + line("c@shop.test", city="Minsk", **two) + line("d@shop.test", city="Minsk", **two)
    imported(url, again, on_duplicate="update", dry_run=True)
    imported(url, again, on_duplicate="update")

    async def work(database: Database) -> list[Any]:
        found = [await store.find_stored(database, SHOP, customer["id"]) for customer in (one, two)]
        events = [await of_object(database, SHOP, customer["id"]) for customer in (one, two)]
        versions = [(customer.version, customer.customer.email) for customer in found if customer is not None]
        return [versions, *([(event.type, event.sequence, event.data) for event in each] for each in events)]

    versions, of_one, of_two = with_database(url, work)
    assert versions == [(1, "a@shop.test"), (3, "d@shop.test")]
    assert of_one == []
    assert [(type, sequence, msgspec.json.decode(data)["changed"]) for type, sequence, data in of_two] == [
        ("customer.updated", 2, ["city", "email"]),
        ("customer.updated", 3, ["email"]),
    ]


def test_the_second_of_two_lines_with_one_identity_is_the_duplicate(url: str) -> None:
    twice = line("a@shop.test", external_id="x") + line("b@shop.test", external_id="x")
    assert imported(url, twice) == ImportSummary(read=2, added=1, duplicates=1)
    same_id = {"id": "cst_00000000000000aa"}
    twice = line("c@shop.test", **same_id) + line("d@shop.test", **same_id)
    assert imported(url, twice, on_duplicate="update") == ImportSummary(read=2, added=1, updated=1)
    assert {customer.email for customer in stored(url)} == {"a@shop.test", "d@shop.test"}


def test_a_customer_is_identified_by_id_before_external_id(url: str) -> None:
    imported(
        url, line("a@shop.test", id="cst_0000000000000001", external_id="x") + line("b@shop.test", id="cst_0000000000000002")
    )
    moved = line("c@shop.test", id="cst_0000000000000002", external_id="x")
    assert imported(url, moved, on_duplicate="update") == ImportSummary(read=1, updated=1)
    assert [customer.email for customer in stored(url)] == ["a@shop.test", "c@shop.test"]


def test_an_import_does_not_match_customers_of_another_shop(url: str) -> None:
    content = line("a@shop.test", id="cst_0000000000000001", external_id="x")
    assert imported(url, content).added == 1
    assert imported(url, content, shop_id=OTHER_SHOP).added == 1


def test_a_dry_run_changes_nothing_and_does_not_count_as_an_import(url: str) -> None:
    assert imported(url, lines(1_200), dry_run=True) == ImportSummary(read=1_200, added=1_200)
    assert stored(url) == []
    assert imported(url, lines(1_200)).added == 1_200


def test_a_too_long_line_is_refused_and_the_next_one_is_read(url: str) -> None:
    rejected: list[RejectedRecord] = []
    content = line("a@shop.test", city="x" * 3 * LINE_MAXIMUM_BYTES) + b"\n \n" + line("b@shop.test")
    assert imported(url, content, rejected=rejected) == ImportSummary(read=2, added=1, rejected=1)
    assert rejected == [RejectedRecord(1, "Line is too long (maximum is 65536 bytes)")]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["no mark", "byte order mark"])
@pytest.mark.parametrize("end", [b"", b"\n"], ids=["at the end of the file", "ended"])
def test_a_line_of_exactly_the_length_limit_is_accepted(url: str, mark: bytes, end: bytes) -> None:
    rejected: list[RejectedRecord] = []
    for excess in (0, 1, 2, 3, 4, 70_000):
        long = line(f"a{excess}@shop.test").rstrip(b"\n").ljust(LINE_MAXIMUM_BYTES + excess) + end
        following = line(f"b{excess}@shop.test") if end else b""
        account = imported(url, mark + long + following, rejected=rejected)
        assert (account.read, account.rejected) == (1 + bool(end), int(excess > 0))
    assert rejected == [RejectedRecord(1, "Line is too long (maximum is 65536 bytes)")] * 5


def test_a_record_with_an_id_has_no_other_required_field(url: str) -> None:
    ids = [f"cst_{number:016x}" for number in range(7)]
    given: list[dict[str, object]] = [
        {},
        {"country": "US", "state": "Colorado", "zip": "K1A 0B1"},
        {"email": "nonsense", "ip": "10.0.0.256", "country": "XX"},
        {"city": "x" * 256},
        {"first_name": "a\u0000b", "phone": 1.5},
        {"email": " ", "ip": "", "state": "\t"},
    ]
    content = b"".join(json.dumps({"id": id, **values}).encode() + b"\n" for id, values in zip(ids, given, strict=False))
    rejected: list[RejectedRecord] = []
    account = imported(url, content + json.dumps({"first_name": "Ann"}).encode(), rejected=rejected)
    assert account == ImportSummary(read=7, added=3, rejected=4)
    assert [(refusal.line, refusal.errors) for refusal in rejected] == [
        (3, {"country": ["is invalid"], "email": ["is invalid"], "ip": ["address is invalid"]}),
        (4, {"city": ["is too long (maximum is 255 characters)"]}),
        (5, {"first_name": ["is invalid"], "phone": ["must be a string"]}),
        (7, {"email": ["can't be blank"], "ip": ["address is invalid", "can't be blank"]}),
    ]
    assert [(customer.id, customer.state, customer.zip) for customer in stored(url)] == [
        (ids[0], None, None),
        (ids[1], "Colorado", "K1A 0B1"),
        (ids[5], None, None),
    ]


def test_only_customers_with_ids_may_share_an_external_id(url: str) -> None:
    one, two, three = (f"cst_{number:016x}" for number in (1, 2, 3))
    content = line("a@shop.test", id=one, external_id="x") + line("b@shop.test", id=two, external_id="x")
    assert imported(url, content) == ImportSummary(read=2, added=2)
    assert imported(url, content) == ImportSummary(read=2, already_imported=2)
    more = line("c@shop.test", external_id="x") + line("d@shop.test", id=three, external_id="x")
    assert imported(url, more, on_duplicate="update") == ImportSummary(read=2, added=1, updated=1)
    assert [(customer.id, customer.email) for customer in stored(url)] == [
        (one, "c@shop.test"),
        (two, "b@shop.test"),
        (three, "d@shop.test"),
    ]


def test_the_external_id_of_a_skipped_customer_stays_free(url: str) -> None:
    known = {"id": "cst_0000000000000001"}
    imported(url, line("a@shop.test", **known))
    both = line("b@shop.test", external_id="x", **known) + line("c@shop.test", external_id="x")
    assert imported(url, both) == ImportSummary(read=2, added=1, duplicates=1)
    assert {(customer.email, customer.external_id) for customer in stored(url)} == {("a@shop.test", None), ("c@shop.test", "x")}


def test_an_update_ends_while_a_customer_of_the_block_changes_all_the_time(url: str) -> None:
    """The import does not begin again with each change that another process makes in the meantime."""
    begun, ends = threading.Event(), threading.Event()

    async def change(database: Database) -> int:
        changes = 0
        [customer] = await store.Customers(database, SHOP, Filter(external_id="999")).select(1)
        while not ends.is_set():
            fields = CustomerFields(external_id="999", city=str(changes))
            request = ChangeRequest(SHOP, changes, partial(_fields, fields))
            await change_customer(database, CustomerEventRecorder(), customer.id, request)
            changes += 1
            begun.set()
        return changes

    content = b"".join(line(f"c{number}@shop.test", external_id=str(number)) for number in range(1_000))
    imported(url, content)
    with futures.ThreadPoolExecutor(2) as threads:
        changes = threads.submit(with_database, url, change)
        try:
            assert begun.wait(20)
            update = threads.submit(imported, url, content.replace(b"@shop", b"@new"), on_duplicate="update")
            assert update.result(20) == ImportSummary(read=1_000, updated=1_000)
        finally:
            ends.set()
        assert changes.result() > 0


def _fields(fields: CustomerFields, _: Customer) -> CustomerFields:
    return fields
