"""Removes the terms of customers from a server. Every Python process imports this file if PYTHONPATH has its folder."""

from __future__ import annotations

from ecomcharge.customers import store
from ecomcharge.storage.sqlite.transaction import SqliteTransaction


def no_terms(*_: object) -> str:
    return ""


def index_nothing(*_: object) -> None:
    pass


setattr(store, "terms_of", no_terms)  # noqa: B010 - mypy refuses an assignment
setattr(SqliteTransaction, "_index_terms", index_nothing)  # noqa: B010
