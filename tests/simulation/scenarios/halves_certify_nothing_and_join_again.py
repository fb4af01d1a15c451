"""Four in two halves: neither has a quorum. What the log got meanwhile is certified after."""

from __future__ import annotations

from tests.simulation.scenario import (
    Scenario,
    blocks_at_least,
    committed_between,
    groups,
    joined,
    load,
    nothing_committed_between,
)

SCENARIO = Scenario(
    n=4,
    timeline=(*load(50, 8_000), (1_000, groups((0, 1), (2, 3))), (4_000, joined)),
    expected=(
        blocks_at_least(10),
        nothing_committed_between(1_100, 4_000),
        committed_between(4_000, 10_000),
    ),
)
