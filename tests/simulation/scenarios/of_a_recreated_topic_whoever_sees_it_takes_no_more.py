"""One of four's broker shows it a new topic of the same name. It takes nothing of that.

In a process the intake stands (consensus.md §5.1). Without operators nothing would ever follow from
that, so a simulated one halts.
"""

from __future__ import annotations

from tests.simulation.log import Showing
from tests.simulation.plan import Fault
from tests.simulation.scenario import Scenario, blocks_at_least, halted, load, misled

SCENARIO = Scenario(
    n=4,
    faults={0: Fault.MISLED},
    timeline=(*load(50, 4_000), (2_000, misled(0, Showing.RECREATED))),
    expected=(blocks_at_least(20), halted(0)),
)
