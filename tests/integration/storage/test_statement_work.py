"""No statement that a request, a page, the billing worker or housekeeping executes reads much more than it returns.

Every statement of the program is executed on large tables, with parameters as they are in service, and the work of the engine
is measured. Statements of commands that read everything on purpose are listed with their reason.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Final, cast

import msgspec
import pytest

from ecomcharge.customers import store as customers
from ecomcharge.customers.actions import index_customers
from ecomcharge.events import store as events
from ecomcharge.gateways import base, sandbox
from ecomcharge.payments import store as payments
from ecomcharge.plans import store as plans
from ecomcharge.runtime.backlog import read_backlog
from ecomcharge.sandbox import store as clock
from ecomcharge.sandbox.model import Setting
from ecomcharge.shops import store as shops
from ecomcharge.shops.model import GatewayAccount
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.storage.records import ALL_IDS, IdRange, R, Records
from ecomcharge.subscriptions import closed_shops, erasure, retention
from ecomcharge.subscriptions import store as subscriptions
from ecomcharge.web import idempotency
from ecomcharge.web.idempotency import IdempotencyKey, StoredResponse
from ecomcharge.webhooks import store as webhooks
from support.large_tables import FEW, MANY, MINUTE, NOW, analyze, fill, id_of, payment_id
from support.shops import with_database
from support.statement_work import (
    Executed,
    RecordingDatabase,
    Work,
    is_executed,
    measure_on_postgres,
    measure_on_sqlite,
    statements_in_functions,
    statements_of_program,
)

PAGE: Final = 5  # records
SHOP: Final = 1
MIDDLE: Final = MANY // 2
LAST: Final = MANY - 1

# In units of ``Work.touched``: for each statement, and for each row that it returns, changes, counts or skips. A scan of one
# shop is forty times as much as the first figure.
MOST: Final = {"sqlite": (2_000, 500), "postgresql": (500, 30)}

COMMANDS: Final = {
    "audit.": "the audit reads everything",
    "customers.store.ENDS_OF_IMPORTS": "an import reads the checkpoints of all earlier imports",
    "subscriptions.retention.INACTIVE": "a purge reads all customers",
    "shops.store.SUBSCRIPTIONS_BY_ACCOUNT": "commands on gateway accounts count their uses",
    "shops.store.UNSETTLED_PAYMENTS_BY_ACCOUNT": "commands on gateway accounts count their uses",
}


async def execute_lists(database: Database) -> None:
    """Every list, in each order, with each page and with every combination of filters. Some filters find nothing."""
    emails, external_ids = (None, f"{LAST}@shop.test", "nobody@shop.test"), (None, f"x{MIDDLE}", "x0", "nothing")
    searches = (None, f"first{LAST}", id_of("cst_", MIDDLE))  # test_search.py tests words that many customers share
    for selected in itertools.product(emails, external_ids, searches):
        await _pages(customers.Customers(database, SHOP, customers.Filter(*selected)), "cst_")
    for words, newest_first in (("first19", False), ("first1999", True)):  # the index is asked among the next customers only
        of_words = customers.Customers(database, SHOP, customers.Filter(q=words))
        await of_words.select(PAGE, offset=500, newest_first=newest_first, in_background=True)
    await _pages(plans.Plans(database, SHOP), "pln_")
    states, customer_ids = (None, "active", "failed", "unknown"), (None, id_of("cst_", 3), "cst_unknown")
    plan_ids = (None, id_of("pln_", 0), id_of("pln_", LAST))
    tracking_ids = (None, f"order-{LAST // 2}", "order-unknown")
    for values in itertools.product(states, customer_ids, plan_ids, tracking_ids):
        await _pages(subscriptions.Subscriptions(database, SHOP, subscriptions.Filter(*values)), "sbs_")
    types = (None, "renewed.subscription", "canceled.subscription", "failed.subscription", "customer.created", "unknown")
    object_ids = (None, id_of("sbs_", 0), id_of("sbs_", MIDDLE // 4), id_of("cst_", MIDDLE), "unknown")
    for object_id, type in itertools.product(object_ids, types):
        listed = events.Events(database, SHOP, NOW, object_id, type)
        for newest_first, ids in itertools.product((False, True), _ranges("evt_")):
            await listed.select(PAGE, ids, newest_first=newest_first)
        await listed.count(IdRange(after=id_of("evt_", LAST - PAGE)))
    for state in (None, "pending", "failed", "unknown"):
        await webhooks.newest(database, SHOP, PAGE, state)


async def _pages(records: Records[R], prefix: str) -> None:
    for newest_first, ids in itertools.product((False, True), _ranges(prefix)):
        await records.select(PAGE, ids, newest_first=newest_first)
    for newest_first in (False, True):
        await records.select(PAGE, offset=500, newest_first=newest_first, in_background=True)
    await records.count()
    await records.count(IdRange(after=id_of(prefix, LAST - PAGE)))


def _ranges(prefix: str) -> list[IdRange]:
    """The whole list, a page by cursor, and an empty range."""
    middle, last = id_of(prefix, MIDDLE), id_of(prefix, LAST)
    return [ALL_IDS, IdRange(middle, last), IdRange(last, middle)]


async def execute_single_records(database: Database, tx: Transaction) -> None:
    """Reads and changes of single records."""
    customer_id, plan_id, subscription_id = (id_of(prefix, MIDDLE) for prefix in ("cst_", "pln_", "sbs_"))
    await customers.find(database, SHOP, customer_id)
    stored = await customers.find_stored(database, SHOP, customer_id)
    assert stored is not None
    await customers.has(tx, SHOP, customer_id)
    changed = msgspec.structs.replace(stored, version=stored.version + 1)
    await database.write(lambda each: customers.update(each, SHOP, changed))
    await customers.lock(tx, SHOP, changed)
    await customers.lock_for_change(tx, SHOP, [customer_id], database.engine)
    await customers.find_oldest(database, SHOP, f"x{MIDDLE}")
    await customers.lock_external_id(tx, SHOP, f"x{MIDDLE}")
    await customers.unlock_external_id(tx, SHOP, f"x{MIDDLE}")
    await customers.ids_by_external_id(tx, SHOP, [f"x{MIDDLE}", "shared", "unknown"])
    await customers.known_checkpoints(tx, SHOP, [f"{MIDDLE:064x}", "unknown"])
    await plans.find(database, SHOP, plan_id)
    await plans.owner_of(database, plan_id)
    subscription = await subscriptions.find(database, SHOP, subscription_id)
    assert subscription is not None
    await subscriptions.update(tx, subscription)
    await subscriptions.chargeable_version(database, SHOP, subscription_id)
    await subscriptions.by_token(database, f"token {SHOP} {MIDDLE}")
    payment = await payments.find(database, SHOP, payment_id(SHOP, MIDDLE))
    assert payment is not None
    await payments.owner_of(database, payment.id)
    await payments.live(database, SHOP, subscription_id, 0)
    await payments.of_subscription(database, SHOP, subscription_id)
    await payments.has_rival(tx, SHOP, payment)
    await payments.write_outcome(tx, SHOP, payment, payment.status)
    await payments.check_later(tx, SHOP, payment)
    await events.id_of(tx, SHOP, subscription_id, 1)
    webhook = await webhooks.find(database, SHOP, id_of("whk_", MIDDLE))
    assert webhook is not None
    await webhooks.note_attempt(tx, msgspec.structs.replace(webhook, attempts=1))
    await webhooks.note_skipped_attempts(tx, webhook, 0)
    await webhooks.release_lease(tx, webhook)
    await webhooks.redeliver(tx, SHOP, webhook.id, NOW)
    await webhooks.skip(tx, webhook)
    await webhooks.signing_key(database, SHOP)
    await webhooks.keep_signing_key(tx, SHOP, "sealed", "public")
    await webhooks.newest_sealed_key(database, SHOP, NOW)


async def execute_erasure(database: Database, tx: Transaction) -> None:
    """The erasure of a customer, and the export of everything about it."""
    customer_id = id_of("cst_", MIDDLE // 4)
    for subscription in await subscriptions.of_customer(tx, SHOP, customer_id):
        await subscriptions.erase(tx, msgspec.structs.replace(subscription, erased_customer_id=customer_id))
        of_object = {"shop_id": SHOP, "object_id": subscription.id}
        for sql in (erasure.EVENTS_OF_OBJECT, erasure.WEBHOOKS_OF_SUBSCRIPTION, erasure.PAYMENTS_OF_SUBSCRIPTION):
            await tx.rows(sql, of_object)
        await events.of_object(database, SHOP, subscription.id)
        await webhooks.of_subscription(database, SHOP, subscription.id)
    await tx.run(erasure.CLEAR_EVENT, {"shop_id": SHOP, "id": id_of("evt_", MIDDLE), "body": "{}"})
    await tx.run(erasure.CLEAR_WEBHOOK, {"shop_id": SHOP, "id": id_of("whk_", MIDDLE), "body": "{}"})
    await tx.run(erasure.CLEAR_PAYMENT, {"shop_id": SHOP, "id": payment_id(SHOP, MIDDLE), "message": None})
    await tx.run(sandbox.CLEAR_CARD, {"shop_id": SHOP, "token": f"card {MIDDLE}", "card": "{}"})
    await tx.find_many(sandbox.CARD_OF_CHARGE, [(SHOP, payment_id(SHOP, MIDDLE))])
    location = f"/customers/{id_of('cst_', MIDDLE)}"
    await tx.run(erasure.CLEAR_RESPONSE, {"shop_id": SHOP, "location": location, "status": 410, "body": "{}"})
    await retention.is_inactive(tx, SHOP, customer_id, NOW)
    await database.write(lambda each: customers.erase(each, SHOP, customer_id, 2, NOW))
    await customers.is_erased(database, SHOP, customer_id)
    await customers.has_erased(tx, SHOP)
    await customers.erased_among(tx, SHOP, [customer_id, "cst_unknown"])
    await customers.last_erasure(database)


async def execute_worker(database: Database, tx: Transaction) -> None:
    """The billing worker, the metrics and housekeeping."""
    await subscriptions.is_due(database, NOW)
    await subscriptions.claim(tx, NOW, NOW, NOW + MINUTE, PAGE)
    await subscriptions.next_due(database)
    await subscriptions.is_held(database, NOW + MINUTE, NOW)
    await payments.is_check_due(database, NOW)
    await payments.claim_checks(tx, NOW, NOW + MINUTE, PAGE)
    await payments.next_check(database)
    await webhooks.is_due(database, NOW)
    await webhooks.is_next_and_due(database, NOW)
    await webhooks.next_due(database, NOW)
    due = await webhooks.due(database, NOW, NOW, PAGE)
    await webhooks.due(database, NOW, NOW, PAGE, [2], ["https://other.test"])
    await webhooks.claim(tx, due, NOW, NOW, NOW + MINUTE)
    await read_backlog(database, NOW)
    await customers.are_indexed(database)
    await shops.all_shops(database)
    for now in (NOW, NOW - 100 * 24 * 60 * MINUTE):
        await idempotency.forget_some_old(database, SHOP, now, PAGE)
        await events.forget_some_old(database, SHOP, now, PAGE)
        await webhooks.forget_some_old(database, SHOP, now, PAGE)


async def execute_keys_and_clock(database: Database, tx: Transaction) -> None:
    """Idempotency keys, the sandbox gateway and the sandbox clock."""
    answer = StoredResponse(201, None, b"{}")
    await idempotency.claim_or_replay(tx, SHOP, IdempotencyKey(f"key {MIDDLE}", "f"), answer, NOW)
    await idempotency.claim_or_replay(tx, SHOP, IdempotencyKey(f"key {FEW - 1}", "f"), answer, NOW)  # it has expired
    await idempotency.finish(tx, SHOP, IdempotencyKey(f"key {FEW - 1}", "f"), answer)
    for read in (sandbox.FIND_CARD, sandbox.COUNT_CHARGES):
        await tx.find(read, (SHOP, f"card {MIDDLE}"))
    charge = payment_id(SHOP, MIDDLE)
    await tx.find(sandbox.FIND_CHARGE, (SHOP, charge))
    await tx.run(sandbox.ANSWER_CHALLENGE, {"shop_id": SHOP, "id": charge, "status": base.FAILED, "message": ""})
    await tx.run(sandbox.REFUND, {"shop_id": SHOP, "id": charge, "now": NOW})
    move, setting = id_of("mov_", MIDDLE), Setting()
    await clock.find_setting(database)
    await clock.change_setting(tx, setting, setting, NOW)
    await clock.acquire_clock(tx, move, NOW, NOW + MINUTE)
    await clock.move_of_clock(database)
    await clock.change_setting_in_move(tx, move, setting, setting, NOW)
    await clock.begin_move(tx, move, NOW, NOW)
    await clock.renew_leases(tx, move, NOW + MINUTE)
    await clock.find_move(database, move)
    await clock.end_move(tx, move, None, NOW)
    await clock.delete_old_moves(tx, 100, PAGE, NOW)


async def execute_shops(database: Database, tx: Transaction) -> None:
    """Shops, their keys and gateway accounts."""
    await shops.find_shop(tx, SHOP)
    await shops.is_open(database, SHOP)
    await shops.lock_open_shop(tx, SHOP, database.engine)
    await shops.keys_of_open_shop(database, SHOP)
    await shops.newest_sealed_keys(database, 100)
    await shops.expire_other_keys(tx, SHOP, "0", NOW)
    await shops.forget_expired_keys(tx, SHOP, 0)
    await shops.gateway_choice(database, SHOP)
    await shops.choose_sandbox(tx, SHOP, NOW)
    account = GatewayAccount("1", "begateway", "https://a.test", "u", "sealed", NOW)
    await shops.choose_account(tx, SHOP, account, NOW)
    await shops.accounts(database, SHOP)
    await shops.find_account(database, SHOP, "1")
    await shops.set_account_key(tx, SHOP, account)
    await shops.replace_account_key(tx, SHOP, account, "sealed again")
    await shops.forget_account(tx, SHOP, "1")
    await shops.forget_account_of_previous_release(tx, SHOP)
    await shops.sealed_keys(tx, SHOP)
    await shops.replace_key(tx, SHOP, ("0", "sealed"), ("1", "sealed again"))
    await shops.sealed_signing_key(tx, SHOP)
    await shops.replace_signing_key(tx, SHOP, "sealed", "sealed again")
    await shops.forget_signing_key(tx, SHOP)
    await shops.accounts_of_open_shops(database)
    await shops.close_shop(tx, SHOP, NOW)
    await shops.forget_all_keys(tx, SHOP)
    await tx.run(closed_shops.PARK, {"shop_id": SHOP, "id": id_of("sbs_", MIDDLE), "version": 2})
    await tx.run(closed_shops.UNPARK, {"shop_id": SHOP})
    await shops.open_shop(tx, SHOP)


def executed_on(url: str) -> list[Executed]:
    """Every statement that the functions above execute, each with its parameters once."""

    async def work(database: Database) -> list[Executed]:
        recording = RecordingDatabase(database)
        await execute_lists(recording)
        for execute in (execute_single_records, execute_erasure, execute_worker, execute_keys_and_clock, execute_shops):
            await execute(recording, cast(Transaction, Units(recording)))
        await index_customers(recording)
        return list({repr(each): each for each in recording.executed}.values())

    return with_database(url, work)


class Units:
    """A transaction for each call."""

    def __init__(self, database: RecordingDatabase) -> None:
        self._database = database

    def __getattr__(self, name: str) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            return self._database.write(lambda tx: getattr(tx, name)(*arguments))

        return call


def work_of(url: str, engine: str, executed: list[Executed]) -> list[tuple[str, Executed, Work]]:
    if engine == "sqlite":
        return list(measure_on_sqlite(url, executed))
    found = []
    for plans_for in ("force_custom_plan", "force_generic_plan"):
        found += asyncio.run(measure_on_postgres(url, executed, plans_for))
    return found


WITHOUT, EARLY, WITH = "without statistics", "with statistics of empty tables", "with statistics"


@pytest.mark.parametrize("statistics", [WITHOUT, EARLY, WITH])
def test_no_statement_reads_much_more_than_it_returns(database_url: str, engine: str, statistics: str) -> None:
    """``ANALYZE`` was never called, or when the database was new, or just now."""
    if engine == "postgresql" and statistics == EARLY:
        pytest.skip("PostgreSQL renews its statistics by itself")
    with_database(database_url, _nothing)
    if statistics == EARLY:
        analyze(database_url)
    fill(database_url)
    executed = executed_on(database_url)
    if statistics == WITH:
        analyze(database_url)
    missing = [
        name
        for name, statement in statements_of_program().items()
        if not name.startswith(tuple(COMMANDS)) and not is_executed(statement, executed, engine)
    ]
    assert missing == [], "execute these statements above, or list them as statements of commands"
    each_statement, each_row = MOST[engine]
    slow: dict[str, str] = {}
    for text, each, work in work_of(database_url, engine, executed):
        if work.touched > each_statement + each_row * work.returned:
            slow.setdefault(text, f"{work} {each.params}")
    assert not slow, "\n\n".join(f"{text}\n{found}" for text, found in slow.items())


async def _nothing(database: Database) -> None:
    """The database is migrated before."""


def test_every_statement_is_a_constant_of_a_module() -> None:
    assert statements_in_functions() == []
