"""The domain errors."""

from __future__ import annotations

from ecomcharge.base.errors import EcomchargeError


def test_every_domain_error_has_a_unique_code() -> None:
    family = EcomchargeError.__subclasses__()
    assert len({kind.code for kind in family}) == len(family)
