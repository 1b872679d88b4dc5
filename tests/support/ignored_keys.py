"""Bodies with known keys in the wrong place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CAPTURED = json.loads(Path(__file__).parents[1].joinpath("data/misplaced-keys.json").read_text())
PRICE: dict[str, Any] = {"amount": 4900, "interval": 1, "interval_unit": "month"}
A_PLAN: dict[str, Any] = {"title": "P", "currency": "EUR", "plan": PRICE}
CARD = {"number": "4200000000000000", "exp_month": "12", "exp_year": "2039"}
JANE = {"email": "a@shop.test", "ip": "203.0.113.1"}
TRUE = [True, "true", " True ", 1, "1"]
