"""One of four hears nobody and is not heard for three seconds of load. It comes back as itself."""

from __future__ import annotations

from tests.simulation.scenario import (
    Scenario,
    blocks_at_least,
    counted,
    groups,
    joined,
    kept_its_votes,
    load,
)

SCENARIO = Scenario(
    n=4,
    timeline=(*load(50, 5_000), (500, groups((0, 1, 2), (3,))), (3_500, joined)),
    expected=(
        blocks_at_least(30),
        counted("row: of a later epoch: CatchUp"),
        kept_its_votes(3, until_ms=3_500),
    ),
)
