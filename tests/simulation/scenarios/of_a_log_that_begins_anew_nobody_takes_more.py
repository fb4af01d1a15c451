"""The topic is another one of the same name, and empty. Nobody takes more of it, nobody forks.

In a process the intake stands (consensus.md §5.1). Without operators nothing would ever follow from
that, so a simulated one halts.
"""

from __future__ import annotations

from tests.simulation.log import Showing
from tests.simulation.scenario import Scenario, blocks_at_least, halted, load, log_lost

SCENARIO = Scenario(
    n=4,
    timeline=(*load(50, 4_000), (2_000, log_lost(Showing.RECREATED))),
    expected=(blocks_at_least(10), halted(0, 1, 2, 3)),
)
