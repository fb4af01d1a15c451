"""All of four lose power in the middle of a view, three times. What was committed stays."""

from __future__ import annotations

from tests.simulation.scenario import (
    Scenario,
    blocks_at_least,
    committed_between,
    down,
    halted,
    load,
    up,
)

SCENARIO = Scenario(
    n=4,
    timeline=(
        *load(50, 5_000),
        *((ms, down(0, 1, 2, 3)) for ms in (1_003, 2_011, 3_017)),
        *((ms, up(0, 1, 2, 3)) for ms in (1_200, 2_200, 3_200)),
    ),
    expected=(blocks_at_least(20), committed_between(3_200, 5_000), halted()),
)
