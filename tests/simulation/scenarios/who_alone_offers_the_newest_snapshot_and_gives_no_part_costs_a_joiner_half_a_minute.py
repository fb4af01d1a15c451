"""A validator that was away finds the log's old records gone. One of four offers the newest block,
as nobody else does, and gives nothing: it is refused as too slow, the others are not, and who
joined is needed then.
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
    gifts={1: Gift.NO_PARTS_OF_THE_NEWEST},
    timeline=(
        *load(50, 3_000),
        (1_500, down(3)),
        (1_900, old_records_gone),
        (4_000, up(3)),
        (38_000, down(0)),
        *load(38_500, 39_500),
        (40_000, up(0)),
    ),
    heal_ms=41_000,
    expected=(
        blocks_at_least(40),
        committed_between(38_600, 39_900),
        counted("joined"),
        counted("snapshot refused: slow"),
        halted(),
    ),
)
