"""The log loses its newest certified records while one of four has not had them yet, and another
ends for good. The one that is behind finds others in their place; still there is a quorum for the
next log epoch.
"""

from __future__ import annotations

from tests.simulation.scenario import (
    Scenario,
    append,
    blocks_at_least,
    committed_between,
    counted,
    down,
    halted,
    load,
    log_cut_short,
    log_epoch_decided,
    shown_again,
    up,
    withheld,
)

SCENARIO = Scenario(
    n=4,
    operators=True,
    timeline=(
        *load(50, 6_000),
        (1_500, withheld(2)),
        (2_000, log_cut_short(3)),
        (2_010, down(3)),
        (2_020, shown_again(2)),
        (4_000, log_epoch_decided),
        (8_000, up(3)),
        (8_500, append(1)),
    ),
    expected=(
        blocks_at_least(30),
        committed_between(4_200, 6_500),
        counted("log epoch opened"),
        counted("log epoch taken up", 4),
        halted(),
    ),
)
