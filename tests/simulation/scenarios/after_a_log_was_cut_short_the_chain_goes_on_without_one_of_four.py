"""Certified records are gone while one of four is away. The other three open the next log epoch;
the one that comes back takes the lost records from the blocks, and follows.
"""

from __future__ import annotations

from tests.simulation.log import Showing
from tests.simulation.scenario import (
    Scenario,
    blocks_at_least,
    committed_between,
    counted,
    down,
    halted,
    load,
    log_epoch_decided,
    log_lost,
    up,
)

SCENARIO = Scenario(
    n=4,
    operators=True,
    timeline=(
        *load(50, 6_000),
        (1_500, down(3)),
        (2_000, log_lost(Showing.TRUNCATED)),
        (4_000, log_epoch_decided),
        (5_000, up(3)),
    ),
    expected=(
        blocks_at_least(30),
        committed_between(4_200, 6_500),
        counted("log epoch opened"),
        counted("log epoch taken up", 4),
        halted(),
    ),
)
