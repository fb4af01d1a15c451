"""Each of four in turn loses power for a second: somebody commits in each of these seconds."""

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
        *load(50, 6_000),
        *((1_000 * (number + 1), down(number)) for number in range(4)),
        *((1_000 * (number + 1) + 950, up(number)) for number in range(4)),
    ),
    expected=(
        blocks_at_least(30),
        *(committed_between(1_000 * second, 1_000 * second + 950) for second in range(1, 5)),
        halted(),
    ),
)
