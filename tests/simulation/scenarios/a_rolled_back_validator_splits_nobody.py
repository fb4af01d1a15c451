"""One of four starts from a copy of its disk of a second before, and signs anew what it signed."""

from __future__ import annotations

from tests.simulation.plan import Fault
from tests.simulation.scenario import Scenario, blocks_at_least, copied, halted, load, restored

SCENARIO = Scenario(
    n=4,
    faults={0: Fault.ROLLBACK},
    timeline=(*load(50, 4_000, every_ms=30), (500, copied(0)), (1_500, restored(0))),
    expected=(blocks_at_least(20), halted()),
)
