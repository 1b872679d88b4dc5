"""The family of errors."""

from __future__ import annotations

from ecomcharge.base.errors import EcomchargeError


def test_every_error_of_the_family_has_a_code_of_its_own() -> None:
    family = EcomchargeError.__subclasses__()
    assert len({kind.code for kind in family}) == len(family)
