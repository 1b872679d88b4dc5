"""Parse the samples of a Prometheus page."""

from __future__ import annotations

import re

SAMPLE = re.compile(r"^(ecomcharge_\w+)(?:\{([^}]*)\})? (\S+)$", re.MULTILINE)


def samples(text: str) -> dict[str, float]:
    """Returns the samples by name and labels, as written on the page."""
    return {f"{name}{{{labels}}}" if labels else name: float(value) for name, labels, value in SAMPLE.findall(text)}
