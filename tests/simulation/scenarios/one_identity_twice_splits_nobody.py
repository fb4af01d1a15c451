"""One of four runs twice from one disk. Each twin talks with a half that cannot do without it."""

from __future__ import annotations

from tests.simulation.plan import Fault
from tests.simulation.scenario import Scenario, blocks_at_least, counted, divided, load

SCENARIO = Scenario(
    n=4,
    faults={3: Fault.TWIN},
    timeline=(*load(50, 4_000), (600, divided(3, 0, 1)), (2_000, divided(3, 2))),
    expected=(blocks_at_least(10), counted("twins")),
)
