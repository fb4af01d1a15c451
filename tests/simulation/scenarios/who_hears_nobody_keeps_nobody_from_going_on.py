"""One of seven is deaf, and says what it knows. The others go on; it has everything in the end."""

from __future__ import annotations

from tests.simulation.scenario import (
    Scenario,
    blocks_at_least,
    committed_between,
    deaf,
    joined,
    load,
)

SCENARIO = Scenario(
    n=7,
    timeline=(*load(50, 6_000), (500, deaf(6)), (4_500, joined)),
    expected=(blocks_at_least(30), committed_between(3_500, 4_500)),
)
