"""Databases with shops that import customers."""

from __future__ import annotations

import pytest

from ecomcharge.shops.keys import MasterKey
from support.bulk import OTHER_SHOP, SHOP
from support.shops import add_shop


@pytest.fixture
def url(database_url: str, master_key: MasterKey) -> str:
    add_shop(database_url, master_key, shop_id=SHOP)
    add_shop(database_url, master_key, shop_id=OTHER_SHOP)
    return database_url
