"""Five commands, then nothing ever again."""

from __future__ import annotations

from tests.simulation.scenario import Scenario, append, blocks_at_least, silent_after

SCENARIO = Scenario(
    n=4,
    timeline=((100, append(4)), (700, append(1))),
    expected=(blocks_at_least(2), silent_after(1_500)),
)
