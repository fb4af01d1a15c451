"""A validator that was away finds the log's old records gone. One of four offers what the others do
and gives other bytes: the parts come from those others.
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
    old_records_gone,
    up,
)

SCENARIO = Scenario(
    n=4,
    has_ledger=True,
    faults={1: Fault.LIAR},
    gifts={1: Gift.OTHER_BYTES},
    timeline=(
        *load(50, 8_000),
        (1_500, down(3)),
        (4_000, old_records_gone),
        (4_500, up(3)),
        (6_500, down(0)),
        (9_000, up(0)),
    ),
    expected=(
        blocks_at_least(40),
        committed_between(7_000, 9_000),
        counted("snapshot refused: part"),
        counted("joined"),
        halted(),
    ),
)
