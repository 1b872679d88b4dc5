"""The commands ``ecomcharge webhooks``: list, show, redeliver and skip webhooks."""

from __future__ import annotations

from typing import Any, Final, Literal

import cyclopts

from ecomcharge.base import logs
from ecomcharge.base.calendar import iso
from ecomcharge.base.clock import SystemClock
from ecomcharge.base.errors import ConfigurationError, RecordNotFound
from ecomcharge.cli.database_options import WhichDatabase, with_database
from ecomcharge.cli.terminal import AsJson, json_text, moment, print_facts, print_json, print_table
from ecomcharge.sandbox.clock import SandboxClock
from ecomcharge.storage.database import Database
from ecomcharge.webhooks import store
from ecomcharge.webhooks.model import Webhook, fault_of_status
from ecomcharge.webhooks.outbox import newest, redeliver, skip

State = Literal["pending", "delivered", "failed", "skipped"]

MAXIMUM_LIMIT: Final = 100_000

webhooks = cyclopts.App(name="webhooks")


@webhooks.command(name="list")
def list_webhooks(
    where: WhichDatabase = WhichDatabase(),
    *,
    shop_id: int | None = None,
    state: State | None = None,
    limit: int = 50,
    json: AsJson = False,
) -> None:
    """List webhooks, newest first. A webhook that is not pending is deleted thirty days after its creation.

    Parameters
    ----------
    shop_id
        List only webhooks of this shop.
    state
        ``pending``, ``delivered``, ``failed`` after all 25 retries, or ``skipped`` by an operator.
    limit
        The largest number of webhooks.
    json
        Print a JSON array.
    """
    if not 1 <= limit <= MAXIMUM_LIMIT:
        raise ConfigurationError(f"--limit must be between 1 and {MAXIMUM_LIMIT:,}")

    async def work(database: Database) -> list[Webhook]:
        return await newest(database, shop_id, limit, state)

    found = with_database(where, work)
    if json:
        print_json([to_json(webhook) for webhook in found])
        return
    columns = ("shop", "webhook", "event", "subscription", "state", "attempts", "last answer", "next attempt")
    rows = [
        (
            *(str(webhook.shop_id), webhook.id, webhook.event, webhook.subscription_id, webhook.state, str(webhook.attempts)),
            *(_last_answer(webhook), moment(webhook.due_at)),
        )
        for webhook in found
    ]
    print_table(columns, rows)


@webhooks.command(name="show")
def show_webhook(webhook_id: str, where: WhichDatabase = WhichDatabase(), *, shop_id: int, json: AsJson = False) -> None:
    """Show a webhook: its attempts, its state and its body.

    Parameters
    ----------
    webhook_id
        The id of the webhook.
    shop_id
        The id of its shop.
    json
        Print a JSON object. ``body`` is a string, byte for byte the body that is sent.
    """

    async def work(database: Database) -> Webhook:
        found = await store.find(database, shop_id, webhook_id)
        if found is None:
            raise RecordNotFound(f"shop {shop_id} has no webhook {webhook_id}")
        return found

    webhook = with_database(where, work)
    if json:
        print_json({**to_json(webhook), "body": webhook.body})
        return
    facts = {
        "webhook": webhook.id,
        "shop": str(webhook.shop_id),
        "subscription": webhook.subscription_id,
        "event": webhook.event,
        "url": webhook.url,
        "state": webhook.state,
        "attempts": str(webhook.attempts),
        "last answer": _last_answer(webhook),
        "next attempt": moment(webhook.due_at),
        "created": moment(webhook.created_at),
        "delivered": moment(webhook.delivered_at),
    }
    if webhook.attempts_skipped:
        facts["attempts"] += f", and {webhook.attempts_skipped} not made while the sandbox clock was moved"
    print_facts(facts)
    print(f"\n{json_text(webhook.body.encode())}")


@webhooks.command(name="redeliver")
def redeliver_webhook(webhook_id: str, where: WhichDatabase = WhichDatabase(), *, shop_id: int) -> None:
    """Send a webhook again, in any state, with all retries. A worker sends it at once.

    Parameters
    ----------
    webhook_id
        The id of the webhook.
    shop_id
        The id of its shop.
    """

    async def work(database: Database) -> None:
        # The worker may use the sandbox clock or the real one. The webhook must be due by both.
        now = min(await SandboxClock(database).read(), SystemClock().now())
        await redeliver(database, shop_id, webhook_id, now)

    with_database(where, work)
    print(f"webhook {webhook_id} will be sent again")


@webhooks.command(name="skip")
def skip_pending_webhook(webhook_id: str, where: WhichDatabase = WhichDatabase(), *, shop_id: int) -> None:
    """Give up a pending webhook now, so that the later ones of its subscription are sent.

    An attempt in progress is not interrupted, and its outcome is not recorded. ``redeliver`` sends the webhook after all.

    Parameters
    ----------
    webhook_id
        The id of the webhook.
    shop_id
        The id of its shop.
    """
    logs.configure_logging("auto")

    async def work(database: Database) -> Webhook:
        return await skip(database, shop_id, webhook_id, SystemClock().now())

    webhook = with_database(where, work)
    print(f"webhook {webhook_id} is skipped; later webhooks of subscription {webhook.subscription_id} are sent")


def to_json(webhook: Webhook) -> dict[str, Any]:
    """All fields except the body."""
    return {
        "id": webhook.id,
        "shop_id": webhook.shop_id,
        "subscription_id": webhook.subscription_id,
        "event": webhook.event,
        "url": webhook.url,
        "state": webhook.state,
        "attempts": webhook.attempts,
        "attempts_skipped": webhook.attempts_skipped,
        "last_status": webhook.last_status,
        "last_error": webhook.last_error,
        "next_attempt_at": _iso(webhook.due_at),
        "created_at": iso(webhook.created_at),
        "delivered_at": _iso(webhook.delivered_at),
    }


def _last_answer(webhook: Webhook) -> str:
    """Earlier releases stored no text for a status such as 204."""
    status = webhook.last_status
    return webhook.last_error or fault_of_status(status) or ("" if status is None else str(status))


def _iso(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else iso(milliseconds)
