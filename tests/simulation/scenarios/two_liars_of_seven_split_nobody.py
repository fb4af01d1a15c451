"""Two of seven do everything that a liar can do."""

from __future__ import annotations

from tests.simulation.liars import Way
from tests.simulation.plan import Fault
from tests.simulation.scenario import Scenario, blocks_at_least, counted, load

SCENARIO = Scenario(
    n=7,
    faults={0: Fault.LIAR, 4: Fault.LIAR},
    ways=frozenset(Way),
    timeline=load(50, 4_000),
    expected=(blocks_at_least(10), counted("accused"), counted(f"lie: {Way.FORGERY.value}")),
)
