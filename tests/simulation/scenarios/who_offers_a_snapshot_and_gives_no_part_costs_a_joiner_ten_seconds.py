"""A validator that was away finds the log's old records gone. One of four offers what the others do
and gives nothing: what it was asked for is asked of those others, and who joined is needed then.
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
    gifts={1: Gift.NO_PARTS},
    timeline=(
        *load(50, 3_000),
        (1_500, down(3)),
        (1_900, old_records_gone),
        (4_000, up(3)),
        (18_000, down(0)),
        *load(18_500, 19_500),
        (20_000, up(0)),
    ),
    heal_ms=21_000,
    expected=(
        blocks_at_least(40),
        committed_between(18_600, 19_900),
        counted("joined"),
        never("snapshot refused: part"),
        halted(),
    ),
)
