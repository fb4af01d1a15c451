"""The set changes in every epoch from the third on. One of the old set hears nobody while it
happens, and is out of the set when it comes back.
"""

from __future__ import annotations

from tests.simulation.scenario import Scenario, blocks_at_least, counted, groups, joined, load

SCENARIO = Scenario(
    n=4,
    spares=2,
    sets={2: (0, 1, 2, 4), 3: (5, 1, 2, 4), 4: (5, 3, 2, 4), 5: (5, 3, 0, 1)},
    timeline=(
        *load(50, 8_000),
        (400, groups((0, 1, 2, 4, 5), (3,))),
        (3_000, joined),
    ),
    heal_ms=20_000,
    expected=(blocks_at_least(40), counted("row: of a later epoch: CatchUp")),
)
