"""One of four's broker rewrites what the validator has read. It takes no more, the others go on.

In a process the intake stands (consensus.md §5.1). Without operators nothing would ever follow from
that, so a simulated one halts.
"""

from __future__ import annotations

from tests.simulation.log import Showing
from tests.simulation.plan import Fault
from tests.simulation.scenario import Scenario, blocks_at_least, halted, load, misled

SCENARIO = Scenario(
    n=4,
    faults={2: Fault.MISLED},
    timeline=(*load(50, 4_000), (2_000, misled(2, Showing.REWRITTEN))),
    expected=(blocks_at_least(20), halted(2)),
)
