"""One of four starts from a disk that lost bits. It says so and stays away; the others go on."""

from __future__ import annotations

from tests.simulation.plan import Fault
from tests.simulation.scenario import Scenario, blocks_at_least, halted, load, rot

SCENARIO = Scenario(
    n=4,
    faults={1: Fault.ROT},
    timeline=(*load(50, 3_000), (1_000, rot(1))),
    expected=(blocks_at_least(20), halted(1)),
)
