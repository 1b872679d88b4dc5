"""Ids contain their time and are unique."""

from __future__ import annotations

import itertools
import pickle

from ecomcharge.base.ids import CUSTOMER_PREFIX, RANDOM_BITS, IdGenerator
from support.customers import NOW


def test_reserved_ids_sort_between_earlier_and_later_ids() -> None:
    id_generator = IdGenerator(CUSTOMER_PREFIX)
    before = [id_generator.generate(NOW) for _ in range(100)]
    for process in [pickle.loads(pickle.dumps(id_generator.reserve(NOW, 1_000))) for _ in range(3)]:
        before += itertools.islice(process, 1_000)
    before += [id_generator.generate(NOW), id_generator.generate(NOW + 10_000)]
    assert before == sorted(set(before))
    assert next(iter(IdGenerator(CUSTOMER_PREFIX).reserve(NOW, 1))) > f"cst_{NOW << RANDOM_BITS:016x}"
