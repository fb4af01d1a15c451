"""What a world is made of: everything that a seed decides before anything happens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from random import Random
from typing import Final

from tests.simulation.log import LOSSES, Showing

SMALL: Final = (4, 4, 4, 4, 4, 5, 6, 7, 7, 1, 2, 3)
"""So many validators in at least nine worlds of ten."""
LARGE: Final = (8, 10, 13, 16, 17, 17, 20, 25, 31)
LARGE_SHARE: Final = 0.05
CALM_LOSS: Final = 0.02
LOST_LOG_SHARE: Final = 0.04
ALONE_CRASH: Final = 0.05
"""Of one validator alone that nothing else would befall: 7 to 32 in a world."""
OPERATORS_SHARE: Final = 0.5
"""Of the worlds whose log is lost."""


class Fault(Enum):
    """What makes a validator one of the f faulty ones."""

    LIAR = "liar"
    """Says whatever its key can sign."""
    TWIN = "twin"
    """Runs twice, from copies of one disk."""
    ROT = "rot"
    """Its disk loses bits; it notices by the checksum and stays away."""
    ROLLBACK = "rollback"
    """It was restored from an old copy of its disk."""
    MISLED = "misled"
    """Its broker shows it other bytes than everyone else's."""


UNBOUND: Final = frozenset((Fault.LIAR, Fault.TWIN, Fault.ROLLBACK))
"""Who may break K1 to K3, and may be accused."""


def _operators(seed: int) -> tuple[int, ...]:
    """Dice of their own: no other world is another one by them."""
    dice = Random(f"operators/{seed}")
    if dice.random() >= OPERATORS_SHARE:
        return ()
    return tuple(dice.choices((50, 500, 5_000), k=dice.choice((1, 2))))


@dataclass(frozen=True, slots=True)
class Plan:
    """Chances are for each occasion, times in ms. `faulty` are at most f = ⌊(n-1)/3⌋.

    Faults are active until `heights` blocks are committed; those that may keep anything from being
    committed no longer than `faults_max_ms`.
    """

    seed: int
    n: int
    faulty: tuple[Fault, ...]
    spares: int
    """How many keys outside the first set that come and go with the epochs."""
    heights: int
    faults_max_ms: int
    loss: float
    duplication: float
    slow_messages: tuple[int, ...]
    """Factors of the usual delay, one drawn for each message: reordering."""
    crash: float
    """For each effect: before it, so at every boundary of persisting and sending."""
    torn: float
    """After a crash a beginning of the unsynced tail is there."""
    full: float
    """For each record written."""
    partitions: bool
    slow_nodes: int
    slow_ms: int
    clock_ms: int
    clock_jumps: bool
    lag_ms: int
    withheld: bool
    """The log shows nothing new to one node for a while."""
    truncation: bool
    """The log loses uncertified records, and other ones come in their place."""
    append_gap_ms: int
    loss_of_log: Showing | None
    """What befalls certified records as soon as the heights are reached."""
    operators_ms: tuple[int, ...] = ()
    """So long after each loss operators open the next log epoch, and the chain goes on."""

    @staticmethod
    def of(seed: int) -> Plan:
        """The plan that a seed stands for; never one without any fault."""
        dice = Random(f"plan/{seed}")
        n = dice.choice(LARGE if dice.random() < LARGE_SHARE else SMALL)
        f = (n - 1) // 3
        kinds = dice.choices(tuple(Fault), (6, 2, 1, 1, 1), k=dice.choice((f, f, f, f // 2, 0)))
        plan = Plan(
            seed=seed,
            n=n,
            faulty=tuple(kinds),
            spares=dice.choice((0, 0, 1, 2)) if n > 1 else 0,
            heights=dice.randint(30, 36),
            faults_max_ms=dice.choice((20_000, 40_000, 60_000)),
            loss=dice.choice((0.0, 0.02, 0.05, 0.2)),
            duplication=dice.choice((0.0, 0.05, 0.2)),
            slow_messages=dice.choice(((1,), (1, 1, 1, 10), (1, 1, 10, 1, 1, 1, 60))),
            crash=dice.choice((0.0, 0.0, 0.0003, 0.002)) * min(1.0, 7 / n),
            torn=dice.choice((0.0, 0.5)),
            full=dice.choice((0.0, 0.0, 0.0, 0.003)),
            partitions=dice.random() < 0.4,
            slow_nodes=dice.choice((0, 0, 0, 1, 2)),
            slow_ms=dice.choice((20, 100, 400)),
            clock_ms=dice.choice((0, 50, 2_000)),
            clock_jumps=dice.random() < 0.2,
            lag_ms=dice.choice((0, 5, 100)),
            withheld=dice.random() < 0.2,
            truncation=dice.random() < 0.3,
            append_gap_ms=dice.choice((20, 60, 60, 300)),
            loss_of_log=dice.choice(LOSSES) if dice.random() < LOST_LOG_SHARE else None,
        )
        if plan.loss_of_log is not None:
            plan = replace(plan, operators_ms=_operators(seed))
        if plan.is_faulty:
            return plan
        return replace(plan, loss=0.05) if n > 1 else replace(plan, crash=ALONE_CRASH)

    @staticmethod
    def quiet(n: int, heights: int) -> Plan:
        """No fault at all, to count what an ordinary block costs."""
        return Plan(
            seed=0,
            n=n,
            faulty=(),
            spares=0,
            heights=heights,
            faults_max_ms=600_000,
            loss=0.0,
            duplication=0.0,
            slow_messages=(1,),
            crash=0.0,
            torn=0.0,
            full=0.0,
            partitions=False,
            slow_nodes=0,
            slow_ms=0,
            clock_ms=0,
            clock_jumps=False,
            lag_ms=0,
            withheld=False,
            truncation=False,
            append_gap_ms=20,
            loss_of_log=None,
        )

    @property
    def calm(self) -> Plan:
        """What is left of the faults when no block may be kept from being committed any more: the f
        faulty, and messages that are lost, doubled and late. Of one validator alone nothing.
        """
        return replace(
            self,
            loss=CALM_LOSS,
            slow_messages=self.slow_messages[:4],
            crash=0.0,
            full=0.0,
            partitions=False,
            clock_jumps=False,
            withheld=False,
            truncation=False,
        )

    @property
    def is_faulty(self) -> bool:
        """Whether anything at all goes wrong while blocks are made. One validator alone sends no
        message that anything could befall.
        """
        befalls_messages = (
            self.loss > 0 or self.duplication > 0 or self.partitions or self.slow_nodes > 0
        )
        return (
            bool(self.faulty)
            or (self.n > 1 and befalls_messages)
            or self.crash > 0
            or self.full > 0
            or self.withheld
            or self.truncation
            or self.clock_jumps
        )
