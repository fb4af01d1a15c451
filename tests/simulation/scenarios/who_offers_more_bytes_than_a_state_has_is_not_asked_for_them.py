"""A validator that was away finds the log's old records gone. One of four offers the newest block
with three times the bytes of a state: the joiner goes on from what another one offers.
"""

from __future__ import annotations

from tests.simulation.joining import Gift
from tests.simulation.plan import Fault
from tests.simulation.scenario import (
    Scenario,
    blocks_at_least,
    committed_between,
    counted,
    down,
    halted,
    load,
    never,
    old_records_gone,
    up,
)

SCENARIO = Scenario(
    n=4,
    has_ledger=True,
    faults={1: Fault.LIAR},
    gifts={1: Gift.MUCH},
    timeline=(
        *load(50, 8_000),
        (1_500, down(3)),
        (1_900, old_records_gone),
        (4_000, up(3)),
        (6_500, down(0)),
        (9_000, up(0)),
    ),
    expected=(
        blocks_at_least(40),
        committed_between(7_000, 9_000),
        counted("joined"),
        never("snapshot refused: state"),
        halted(),
    ),
)
