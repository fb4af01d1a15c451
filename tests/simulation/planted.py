"""Plant bugs, one at a time, and see what catches each: make planted.

Those of the validators' machine and the simulator's host (`bugs`) are sought in small worlds, every
other one with as many liars as there may be; where a bug takes a certain lie, in those where all
that may be lie so. Unit tests hunt those of production's other modules (`production_bugs`).
Prints for each what was violated, or which test failed, and after how many seeds and seconds. The
exit code fails when a bug that ought to be caught survives, when one that nobody can notice is
caught (its explanation is wrong then), or when the text that a bug replaces is not there exactly
once.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.pool import Pool
from pathlib import Path
from types import ModuleType
from typing import Final

from tests.simulation import hunting
from tests.simulation.bugs import BUGS, MACHINE, Bug
from tests.simulation.edits import SOURCES, edited
from tests.simulation.liars import Way
from tests.simulation.log import LOSSES
from tests.simulation.plan import Fault, Plan
from tests.simulation.production_bugs import HUNTED_BUGS, HuntedBug
from tests.simulation.run import BROKEN, outcome
from tests.simulation.scenario import Scenario, Scripted
from tests.simulation.variant import Variant

from nocturne.core import certificates, certified_snapshot, log_epochs

ORDER: Final = (
    "core/certificates.py",
    "consensus/quorum/tally.py",
    "consensus/quorum/leaders.py",
    "consensus/quorum/machine.py",
    "core/log_epochs.py",
    "core/certified_snapshot.py",
)
"""The machine imports those before it."""
MORE_PATIENCE: Final = 4
SCENARIO_SEEDS: Final = 5
OPERATORS_MS: Final = (500, 500)
"""In worlds whose log is lost twice."""
EVENTS_OF_A_BROKEN_WORLD_MAX: Final = 100_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a bug; `violation` is None when it survived. `tried` is what it was sought in,
    for people.
    """

    bug: Bug | HuntedBug
    violation: str | None
    tried: str
    seconds: float

    @property
    def is_expected(self) -> bool:
        """Caught, or known to be beyond notice."""
        return (self.violation is None) == (self.bug.expected is not None)


def main() -> None:
    """As the module says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=150, help="the most that are tried for a bug")
    parser.add_argument(
        "--seconds", type=float, default=60, help="of a processor, the most for a bug"
    )
    parser.add_argument("--only", default="", help="bugs whose name or rule contains this")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    simulated = [bug for bug in BUGS if options.only in bug.name or options.only in bug.rule]
    hunted = [bug for bug in HUNTED_BUGS if options.only in bug.name or options.only in bug.rule]
    for bug in simulated:
        variant_of(bug)
    for one in hunted:
        for edit in one.edits:
            edited(edit.file, one.edits)
    with (
        tempfile.TemporaryDirectory(prefix="nocturne-planted-") as folder,
        multiprocessing.Pool(options.workers) as pool,
    ):
        clean = hunting.copied(Path(folder))
        # Beside the worlds; and what it compiles is there for every other copy.
        checked = pool.apply_async(hunting.check_tests, (clean, hunted))
        in_worlds = _in_worlds(pool, simulated, options.seeds, options.seconds)
        checked.get()
        by_tests = _by_tests(pool, hunted, clean)
    wrong = [one.bug.name for one in (*in_worlds, *by_tests) if not one.is_expected]
    print(f"in worlds: {summary(in_worlds)}; by unit tests: {summary(by_tests)}")
    for name in wrong:
        print(f"UNEXPECTED: {name}")
    sys.exit(1 if wrong else 0)


def _in_worlds(pool: Pool, bugs: Sequence[Bug], seeds: int, seconds: float) -> list[Verdict]:
    # One that nobody is expected to notice is given up sooner.
    patience = [1 if bug.expected else MORE_PATIENCE for bug in bugs]
    jobs = [(bug, seeds * more, seconds * more) for bug, more in zip(bugs, patience, strict=True)]
    verdicts: list[Verdict] = []
    for verdict in pool.imap(hunt, jobs, chunksize=1):
        verdicts.append(verdict)
        print(line(verdict), flush=True)
    return verdicts


def _by_tests(pool: Pool, bugs: Sequence[HuntedBug], clean: Path) -> list[Verdict]:
    jobs = [(bug, clean) for bug in bugs]
    verdicts: list[Verdict] = []
    for bug, found in zip(bugs, pool.imap(hunting.hunt, jobs, chunksize=1), strict=True):
        verdict = Verdict(bug, found.failed, bug.file, found.seconds)
        verdicts.append(verdict)
        print(line(verdict), flush=True)
    return verdicts


def summary(verdicts: Sequence[Verdict]) -> str:
    """How many, for people."""
    caught = sum(one.violation is not None for one in verdicts)
    return f"{len(verdicts)} bugs, {caught} caught, {len(verdicts) - caught} survive"


def line(verdict: Verdict) -> str:
    """For people."""
    bug = verdict.bug
    cost = f"{verdict.tried}, {verdict.seconds:.1f} s"
    if verdict.violation is None:
        return f"survives  {bug.rule}: {bug.name} ({cost}): {bug.expected or 'NOT EXPLAINED'}"
    return f"caught    {bug.rule}: {bug.name} ({cost}) by {verdict.violation:.110}"


def hunt(job: tuple[Bug, int, float]) -> Verdict:
    """Try seeds until one shows the bug."""
    bug, seeds_max, seconds_max = job
    variant = variant_of(bug)
    ways = frozenset[Way]() if bug.lie is None else frozenset((bug.lie,))
    started = time.process_time()
    if bug.scenario is not None:
        return _staged(bug, bug.scenario, variant)
    tried = 0
    for seed in range(1, seeds_max + 1):
        plan = Plan.of(seed)
        if bug.n is not None:
            plan = replace(plan, n=bug.n, faulty=plan.faulty[: (bug.n - 1) // 3])
        elif plan.n > 7 or (ways and plan.n < 4):
            continue
        elif ways or seed % 2:
            plan = replace(plan, faulty=(Fault.LIAR,) * ((plan.n - 1) // 3))
        if bug.operators:
            how = LOSSES[seed % len(LOSSES)]
            plan = replace(plan, loss_of_log=how, operators_ms=OPERATORS_MS)
        tried += 1
        found = outcome(plan, variant, EVENTS_OF_A_BROKEN_WORLD_MAX, ways=ways)
        seconds = time.process_time() - started
        if found.violation is not None:
            return Verdict(bug, found.violation, _seeds(tried), seconds)
        if seconds > seconds_max:
            break
    return Verdict(bug, None, _seeds(tried), time.process_time() - started)


def _staged(bug: Bug, name: str, variant: Variant) -> Verdict:
    """Play the scenario with other delays each time until it shows the bug."""
    scenario = importlib.import_module(f"tests.simulation.scenarios.{name}").SCENARIO
    assert isinstance(scenario, Scenario)
    started = time.process_time()
    for seed in range(1, SCENARIO_SEEDS + 1):
        try:
            found = "; ".join(Scripted(scenario, seed, variant).check())
        except BROKEN as fault:
            found = str(fault)
        if found:
            return Verdict(bug, found, _seeds(seed), time.process_time() - started)
    return Verdict(bug, None, _seeds(SCENARIO_SEEDS), time.process_time() - started)


def _seeds(count: int) -> str:
    return f"{count} seeds"


def variant_of(bug: Bug) -> Variant:
    """The code with the bug in it. Production's own modules stay as they are."""
    host = frozenset() if bug.host is None else frozenset((bug.host,))
    if not bug.edits:
        return Variant(host=host)
    loaded: dict[str, ModuleType] = {}
    for file in ORDER:
        if file == MACHINE or any(edit.file == file for edit in bug.edits):
            loaded[_name(file)] = _load(file, bug, loaded)

    def found(module: ModuleType) -> ModuleType:
        return loaded.get(module.__name__, module)

    return Variant(
        loaded[_name(MACHINE)].Machine,
        found(certificates),
        host,
        found(log_epochs).check_opening,
        found(certified_snapshot),
    )


def _name(file: str) -> str:
    return "nocturne." + file.removesuffix(".py").replace("/", ".")


def _load(file: str, bug: Bug, others: dict[str, ModuleType]) -> ModuleType:
    """The edited module, under a name of its own, that sees `others` in place of production's."""
    source = edited(file, bug.edits)
    name = _name(file)
    module = ModuleType(f"planted.{name}")
    module.__file__ = str(SOURCES / file)
    sys.modules[module.__name__] = module
    production = {one: importlib.import_module(one) for one in others}
    sys.modules.update(others)
    try:
        exec(compile(source, module.__file__, "exec"), module.__dict__)
    finally:
        sys.modules.update(production)
    if name == certificates.__name__:
        _share_types(module)
    return module


def _share_types(module: ModuleType) -> None:
    """Its functions work on production's types, so that the messages of both are the same; but the
    set's quorum is its own.
    """
    for name, value in vars(certificates).items():
        if isinstance(value, type) and name != "ValidatorSet":
            setattr(module, name, value)


if __name__ == "__main__":
    main()
