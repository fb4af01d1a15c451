"""Among seventeen, votes go to the leaders of the next views. When all of those lose power, votes
go to all in the end.
"""

from __future__ import annotations

from tests.simulation.scenario import Scenario, append, blocks_at_least, counted, down, load, up

SCENARIO = Scenario(
    n=17,
    timeline=(
        *load(50, 6_000, every_ms=100),
        (300, down(0, 1, 2, 3, 4)),
        (9_000, up(0, 1, 2, 3, 4)),
        (9_500, append(1)),
    ),
    expected=(
        blocks_at_least(12),
        counted("row: many validators: a certificate to all"),
        counted("row: many validators: a vote again to all"),
    ),
)
