"""One of four votes for everything, twice and against itself. All agree, and it is accused."""

from __future__ import annotations

from tests.simulation.liars import Way
from tests.simulation.plan import Fault
from tests.simulation.scenario import Scenario, blocks_at_least, counted, halted, load

SCENARIO = Scenario(
    n=4,
    faults={2: Fault.LIAR},
    ways=frozenset((Way.VOTES,)),
    timeline=load(50, 3_000),
    expected=(blocks_at_least(15), counted("row: a second vote: Accuse"), halted()),
)
