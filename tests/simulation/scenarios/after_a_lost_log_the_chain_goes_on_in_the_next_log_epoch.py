"""The topic is another one of the same name. Nobody takes anything of it; once the operators open
the next log epoch, everybody goes on with it, and nobody forks.
"""

from __future__ import annotations

from tests.simulation.log import Showing
from tests.simulation.scenario import (
    Scenario,
    blocks_at_least,
    committed_between,
    counted,
    halted,
    load,
    log_epoch_decided,
    log_lost,
    nothing_committed_between,
)

SCENARIO = Scenario(
    n=4,
    operators=True,
    timeline=(
        *load(50, 6_000),
        (2_000, log_lost(Showing.RECREATED)),
        (4_000, log_epoch_decided),
    ),
    expected=(
        blocks_at_least(30),
        nothing_committed_between(2_500, 3_999),
        committed_between(4_200, 6_500),
        counted("intake stands", 4),
        counted("log epoch opened"),
        counted("log epoch taken up", 4),
        halted(),
    ),
)
