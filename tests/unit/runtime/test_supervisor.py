"""The delay before a server process is replaced."""

from __future__ import annotations

from ecomcharge.runtime.supervisor import LONGEST_DELAY_SECONDS, respawn_delay_seconds


def test_the_delay_doubles_up_to_a_limit() -> None:
    delays = [respawn_delay_seconds(deaths) for deaths in range(1, 40)]

    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == LONGEST_DELAY_SECONDS
    assert delays == sorted(delays)
