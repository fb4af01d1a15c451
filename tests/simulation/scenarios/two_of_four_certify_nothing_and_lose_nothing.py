"""Two of four lose power. Nothing is certified until one of them returns; then all of it is."""

from __future__ import annotations

from tests.simulation.scenario import (
    Scenario,
    append,
    blocks_at_least,
    committed_between,
    down,
    nothing_committed_between,
    up,
)

SCENARIO = Scenario(
    n=4,
    timeline=(
        (50, append(3)),
        (1_000, down(2, 3)),
        (1_500, append(3)),
        (2_000, append(3)),
        (5_000, up(2)),
        (12_000, up(3)),
    ),
    heal_ms=12_000,
    expected=(
        blocks_at_least(2),
        nothing_committed_between(1_100, 5_000),
        committed_between(5_000, 12_000),
    ),
)
