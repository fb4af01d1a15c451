"""One of four offers different blocks to different validators whenever it leads. All agree, and it
is accused.
"""

from __future__ import annotations

from tests.simulation.liars import Way
from tests.simulation.plan import Fault
from tests.simulation.scenario import Scenario, blocks_at_least, counted, halted, load

SCENARIO = Scenario(
    n=4,
    faults={1: Fault.LIAR},
    ways=frozenset((Way.EQUIVOCATION,)),
    timeline=load(50, 3_000),
    expected=(
        blocks_at_least(15),
        counted("row: a second proposal: Accuse"),
        halted(),
    ),
)
