"""Run worlds: make sim SEEDS=2000 FIRST=1 ED25519=50. The first 50 are run once more with Ed25519
in place of keyed hashes. With LARGE=500 worlds of more than 7 validators are among the first 500
alone: those are one in twenty and a third of the time. Replay one and see its trace: make sim
SEED=7, or with ED25519=1. New seeds for hours: make nightly HOURS=8.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import multiprocessing
import os
import resource
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.pool import Pool
from typing import Final

from tests.simulation.liars import OPENS_LOG_EPOCHS, Liar, Way
from tests.simulation.log import LOSSES, Showing
from tests.simulation.network import PARTITIONS
from tests.simulation.plan import Fault, Plan
from tests.simulation.rows import ROWS
from tests.simulation.signing import Ed25519Keys, Signing
from tests.simulation.variant import PRODUCTION, Variant
from tests.simulation.watch import Violation
from tests.simulation.world import World

from nocturne.core.errors import NocturneError

FAILURES_MAX: Final = 10
ENOUGH_SEEDS: Final = 1_000
"""So many meet every fault, every row of the transition table and every refusal; what none of them
met is not simulated any more, and the run fails.
"""
MANY_SEEDS: Final = 10_000
"""So many meet what is seldom, too: it is in 14 of them."""
BATCH_SEEDS: Final = 400
SMALL_MAX: Final = 7
GARBAGE_OBJECTS: Final = 100_000
"""Python's collector looks after so many new objects instead of 700: little of a world is garbage
before its end.
"""
REFUSALS: Final = (
    "certificate: expected … votes, got …",
    "certificate: of another validator set",
    "certificate: the vote of validator … does not verify",
    "certificate: validator … after …",
    "commit proof: of another block",
    "commit proof: only a finalization commits",
    "committed block: expected a finalization of its own epoch",
    "committed block: expected a ledger block, got a tail block",
    "proposal of view …: not signed by its leader …",
    "proposal: expected at most … certificates",
    "proposal: expected no leader proof, for leaders take turns",
    "vote of validator …: its signature does not verify",
    "vote: a nullification, and it alone, is of no block",
    "vote: expected one of … validators, got …",
)
"""What the machine refuses; numbers are left out."""
MET: Final = (
    *(f"faulty: {fault.value}" for fault in Fault),
    *(f"lie: {way.value}" for way in Way),
    *(f"partition: {kind}" for kind in PARTITIONS),
    *(f"misled: {how.value}" for how in Showing),
    *(f"log lost: {how.value}" for how in LOSSES),
    *("lost", "duplicated", "late", "cut off", "slow node", "clock jump", "crash"),
    *("unsynced tail lost", "torn write", "disk full", "bit rot", "rollback", "twins", "halted"),
    *("log withheld", "log truncated", "log tail dropped", "set change", "set decided", "accused"),
    *("fetch", "fetched", "catch up"),
    *("intake stands", "log epoch opened", "log epoch taken up", OPENS_LOG_EPOCHS),
    *ROWS,
    *(f"refused: {why}" for why in REFUSALS),
)
SELDOM: Final = ("records given",)
BROKEN: Final = (Violation, NocturneError, AssertionError, LookupError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one seed. `violation` is None when every rule held."""

    plan: Plan
    violation: str | None
    trace: str
    blocks: int
    counted: Counter[str]


def main() -> None:
    """Exit code 1 when any seed fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--ed25519", type=int, default=0, help="so many with Ed25519 besides")
    parser.add_argument(
        "--large", type=int, help="after so many seeds only those of small worlds, as many in all"
    )
    parser.add_argument("--seed", type=int, help="replay this one and print its trace")
    parser.add_argument("--hours", type=float, help="new seeds, from the clock, for so long")
    parser.add_argument("--traces", action="store_true", help="print the SHA-256 of each trace")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    if options.seed is not None:
        sys.exit(replay(options.seed, options.ed25519 > 0))
    figures = Figures(options.traces)
    with multiprocessing.Pool(options.workers, gc.set_threshold, (GARBAGE_OBJECTS,)) as pool:
        if options.hours is None:
            large = options.seeds if options.large is None else options.large
            seeds = list(itertools.islice(seeds_from(options.first, large), options.seeds))
            jobs = [(seed, False) for seed in seeds]
            jobs += [(seed, True) for seed in seeds[: options.ed25519]]
            figures.take(pool, jobs)
        else:
            nightly(pool, figures, options.hours)
        pool.terminate()
        pool.join()
    if options.traces and not figures.failed:
        return
    sys.exit(figures.report())


def seeds_from(first: int, large: int) -> Iterator[int]:
    """`large` seeds, then without end those of worlds of up to `SMALL_MAX` validators."""
    yield from range(first, first + large)
    for seed in itertools.count(first + large):
        if Plan.of(seed).n <= SMALL_MAX:
            yield seed


def nightly(pool: Pool, figures: Figures, hours: float) -> None:
    """Seeds that nobody ran before, the first of each batch with Ed25519 too."""
    end = time.monotonic() + hours * 3600
    first = int(time.time()) * 1_000
    print(f"from seed {first} for {hours} hours", flush=True)
    while time.monotonic() < end and figures.failed < FAILURES_MAX:
        jobs = [(seed, False) for seed in range(first, first + BATCH_SEEDS)]
        figures.take(pool, [*jobs, (first, True)])
        first += BATCH_SEEDS


def outcome(
    plan: Plan,
    variant: Variant = PRODUCTION,
    events_max: int | None = None,
    signing: Signing | None = None,
    ways: frozenset[Way] = frozenset(),
) -> Outcome:
    """Run one world to its end; each liar lies in these `ways` besides its own."""
    world = World(plan, variant, events_max=events_max, signing=signing)
    for node in world.nodes:
        if isinstance(node, Liar):
            node.ways |= ways
    violation = None
    try:
        world.run()
    except BROKEN as fault:
        violation = str(fault)
        if not isinstance(fault, Violation):
            place = traceback.extract_tb(fault.__traceback__)[-1]
            violation = f"breaks: {fault!r} at {place.name}:{place.lineno}"
    return Outcome(plan, violation, world.trace, len(world.truth), world.counted)


def replay(seed: int, ed25519: bool) -> int:
    """One world, told line by line."""
    world = World(Plan.of(seed), tell=print, signing=Ed25519Keys() if ed25519 else None)
    print(world.plan)
    try:
        world.run()
    except BROKEN:
        traceback.print_exc()
        return 1
    print(f"seed {seed}: every rule held, {len(world.truth)} blocks, {world.trace}")
    return 0


def of_seed(seed: int, ed25519: bool = False) -> Outcome:
    """The world of a seed."""
    return outcome(Plan.of(seed), signing=Ed25519Keys() if ed25519 else None)


def _of(job: tuple[int, bool]) -> Outcome:
    return of_seed(*job)


class Figures:
    """What came of all of them."""

    def __init__(self, traces: bool) -> None:
        self._traces = traces
        self._started = time.monotonic()
        self._total: Counter[str] = Counter()
        self._done, self._blocks, self._reached = 0, 0, 0
        self._failures: list[str] = []

    @property
    def failed(self) -> int:
        """How many seeds."""
        return len(self._failures)

    def take(self, pool: Pool, jobs: Sequence[tuple[int, bool]]) -> None:
        """Run each seed with keyed hashes or with Ed25519, up to the `FAILURES_MAX`th failure."""
        for (_, ed25519), one in zip(jobs, pool.imap(_of, jobs, chunksize=1), strict=False):
            self._add(one, ed25519)
            if self.failed >= FAILURES_MAX:
                return

    def _add(self, one: Outcome, ed25519: bool) -> None:
        n = one.plan.n
        self._done += 1
        self._blocks += one.blocks
        self._reached += one.counted["heights with faults"] >= one.plan.heights
        self._total += one.counted
        self._total["n ≤ 7" if n <= SMALL_MAX else "n ≤ 16" if n <= 16 else "n ≤ 31"] += 1
        self._total["with Ed25519"] += ed25519
        self._total.update(f"faulty: {fault.value}" for fault in one.plan.faulty)
        if self._traces:
            print(f"{one.plan.seed} {one.trace}")
        if one.violation is not None:
            how = f"make sim SEED={one.plan.seed}{' ED25519=1' if ed25519 else ''}"
            self._failures.append(f"{how}: {one.violation}\n  {one.plan}")
            print(self._failures[-1], flush=True)

    def report(self) -> int:
        """For people, when the workers are gone; the exit code."""
        seconds = time.monotonic() - self._started
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor = spent.ru_utime + spent.ru_stime
        for name, count in sorted(self._total.items()):
            print(f"{count:>10}  {name}")
        never = never_met(self._total, self._done)
        for name in never:
            print(f"NEVER MET: {name}")
        for failure in self._failures:  # Once more, for who sees a log's last lines alone.
            print(failure)
        print(
            f"{self._done} worlds, {self.failed} failed, {self._blocks} blocks, "
            f"{self._reached} with their heights reached under faults; {seconds:.1f} s, "
            f"{self._done / processor:.1f} worlds in a second of a processor"
        )
        return 1 if self.failed or never else 0


def never_met(total: Counter[str], worlds: int) -> list[str]:
    """What so many worlds ought to have met, and did not."""
    wanted = (*(MET if worlds >= ENOUGH_SEEDS else ()), *(SELDOM if worlds >= MANY_SEEDS else ()))
    return [name for name in wanted if not total[name]]


if __name__ == "__main__":
    main()
