"""Request bodies with known keys in the wrong place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.builders import a_card, a_plan, a_price

CAPTURED = json.loads(Path(__file__).parents[1].joinpath("data/misplaced-keys.json").read_text())
PRICE: dict[str, Any] = a_price(4900)
A_PLAN: dict[str, Any] = a_plan(title="P", plan=PRICE)
CARD = a_card(exp_month="12", exp_year="2039")
JANE = {"email": "a@shop.test", "ip": "203.0.113.1"}
TRUE = [True, "true", " True ", 1, "1"]
