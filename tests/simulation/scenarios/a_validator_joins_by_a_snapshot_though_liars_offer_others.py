"""The log's old records are gone when a validator starts with nothing. One of seven offers a newer
block that nobody certified, another one the state of none; it goes on from what is proved, and
without it there would be no quorum any more.
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
    n=7,
    has_ledger=True,
    faults={1: Fault.LIAR, 2: Fault.LIAR},
    gifts={1: Gift.UNCERTIFIED, 2: Gift.OTHER_STATE},
    timeline=(
        (0, down(6)),
        *load(50, 8_000),
        (4_000, old_records_gone),
        (4_500, up(6)),
        (6_500, down(0, 5)),
        (9_000, up(0, 5)),
    ),
    expected=(
        blocks_at_least(40),
        committed_between(7_000, 9_000),
        counted("snapshot refused: claim"),
        counted("snapshot refused: state"),
        counted("joined"),
        halted(),
    ),
)
