"""Nobody appends anything: nobody says anything."""

from __future__ import annotations

from tests.simulation.scenario import Scenario, never, silent_after

SCENARIO = Scenario(
    n=7,
    timeline=(),
    expected=(silent_after(0), never("row: a quorum notarizes: Not")),
)
