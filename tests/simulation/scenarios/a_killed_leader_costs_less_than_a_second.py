"""Each of four in turn loses power for a while, so each leader is lost once: somebody commits
within a second of it.
"""

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

KILLS_MS = tuple(enumerate(range(1_000, 9_000, 2_000)))

SCENARIO = Scenario(
    n=4,
    timeline=(
        *load(50, 9_000),
        *((ms, down(number)) for number, ms in KILLS_MS),
        *((ms + 1_000, up(number)) for number, ms in KILLS_MS),
    ),
    expected=(
        blocks_at_least(30),
        *(committed_between(ms + 30, ms + 1_000) for _, ms in KILLS_MS),
        halted(),
    ),
)
