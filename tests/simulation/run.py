"""Run worlds: make sim SEEDS=2000 FIRST=1. Replay one and see its trace: make sim SEED=7."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from typing import Final

from tests.simulation.liars import Way
from tests.simulation.network import PARTITIONS
from tests.simulation.plan import Fault, Plan
from tests.simulation.variant import PRODUCTION, Variant
from tests.simulation.watch import Violation
from tests.simulation.world import World

from nocturne.core.errors import NocturneError

FAILURES_MAX: Final = 10
ENOUGH_SEEDS: Final = 1_000
"""So many meet every fault; one that none of them met is no fault of this simulator any more."""
FAULTS: Final = (
    *(f"faulty: {fault.value}" for fault in Fault),
    *(f"lie: {way.value}" for way in Way),
    *(f"partition: {kind}" for kind in PARTITIONS),
    *("lost", "duplicated", "late", "cut off", "slow node", "clock jump", "crash"),
    *("unsynced tail lost", "disk full", "bit rot", "rollback", "twins", "halted"),
    *("log withheld", "log truncated", "set change", "accused", "fetch", "catch up", "refused"),
)
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
    parser.add_argument("--seed", type=int, help="replay this one and print its trace")
    parser.add_argument("--traces", action="store_true", help="print the SHA-256 of each trace")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    if options.seed is not None:
        sys.exit(replay(options.seed))
    sys.exit(run(options.first, options.seeds, options.workers, options.traces))


def outcome(plan: Plan, variant: Variant = PRODUCTION, events_max: int | None = None) -> Outcome:
    """Run one world to its end."""
    world = World(plan, variant, events_max=events_max)
    violation = None
    try:
        world.run()
    except BROKEN as fault:
        violation = str(fault)
        if not isinstance(fault, Violation):
            place = traceback.extract_tb(fault.__traceback__)[-1]
            violation = f"breaks: {fault!r} at {place.name}:{place.lineno}"
    return Outcome(plan, violation, world.trace, len(world.truth), world.counted)


def replay(seed: int) -> int:
    """One world, told line by line."""
    world = World(Plan.of(seed), tell=print)
    print(world.plan)
    try:
        world.run()
    except BROKEN:
        traceback.print_exc()
        return 1
    print(f"seed {seed}: every rule held, {len(world.truth)} blocks, {world.trace}")
    return 0


def of_seed(seed: int) -> Outcome:
    """The world of a seed."""
    return outcome(Plan.of(seed))


def run(first: int, seeds: int, workers: int, traces: bool) -> int:
    """All of them, by as many processes; the figures at the end."""
    started = time.monotonic()
    total: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    done, failed, blocks, reached = 0, 0, 0, 0
    with multiprocessing.Pool(workers) as pool:
        for one in pool.imap(of_seed, range(first, first + seeds), chunksize=1):
            done += 1
            blocks += one.blocks
            reached += one.counted["heights with faults"] >= one.plan.heights
            total += one.counted
            sizes["n ≤ 7" if one.plan.n <= 7 else "n ≤ 16" if one.plan.n <= 16 else "n ≤ 31"] += 1
            total.update(f"faulty: {fault.value}" for fault in one.plan.faulty)
            if traces:
                print(f"{one.plan.seed} {one.trace}")
            if one.violation is not None:
                failed += 1
                print(f"seed {one.plan.seed}: {one.violation}\n  {one.plan}", flush=True)
                if failed >= FAILURES_MAX:
                    pool.terminate()
                    break
    seconds = time.monotonic() - started
    if traces and not failed:
        return 0
    for name, count in sorted((total | sizes).items()):
        print(f"{count:>10}  {name}")
    never = [name for name in FAULTS if not total[name]] if done >= ENOUGH_SEEDS else []
    for name in never:
        print(f"NEVER MET: {name}")
    print(
        f"{done} seeds from {first}, {failed} failed, {blocks} blocks, {reached} seeds with their "
        f"heights reached under faults; {seconds:.1f} s, {done / seconds:.1f} seeds/s by {workers} "
        f"processes"
    )
    return 1 if failed or never else 0


if __name__ == "__main__":
    main()
