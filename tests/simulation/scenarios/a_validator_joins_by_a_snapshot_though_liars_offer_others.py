"""The log's old records are gone when a new key's validator starts with nothing; it certifies from
the fifth epoch on. One of seven offers a newer block that nobody certified, another one the state
of none. It goes on from what is proved, and without it there would be no quorum any more.
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
    kept_its_votes,
    load,
    old_records_gone,
    up,
)

SCENARIO = Scenario(
    n=7,
    spares=1,
    sets=dict.fromkeys(range(4, 100), (0, 1, 2, 3, 4, 5, 7)),
    has_ledger=True,
    faults={1: Fault.LIAR, 2: Fault.LIAR},
    gifts={1: Gift.UNCERTIFIED, 2: Gift.OTHER_STATE},
    timeline=(
        (0, down(7)),
        *load(50, 8_000),
        (4_000, old_records_gone),
        (4_500, up(7)),
        (6_500, down(0, 5)),
        (9_000, up(0, 5)),
    ),
    expected=(
        blocks_at_least(40),
        committed_between(7_000, 9_000),
        counted("snapshot refused: claim"),
        counted("snapshot refused: state"),
        counted("joined"),
        kept_its_votes(7, until_ms=7_000),
        halted(),
    ),
)
