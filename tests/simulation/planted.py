"""Plant bugs, one at a time, and see which the simulator catches: make planted.

They are sought in small worlds, every other one with as many liars as there may be; where a bug
takes a certain lie, in those where all that may be lie so.
Prints for each what was violated, after how many seeds and seconds. The exit code fails when a bug
that ought to be caught survives, when one that nobody can notice is caught (its explanation is
wrong then), or when the text that a bug replaces is not there exactly once.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Final

from tests.simulation.bugs import BUGS, MACHINE, Bug, Edit
from tests.simulation.liars import Way
from tests.simulation.log import LOSSES
from tests.simulation.plan import Fault, Plan
from tests.simulation.run import BROKEN, outcome
from tests.simulation.scenario import Scenario, Scripted
from tests.simulation.variant import Variant

import nocturne
from nocturne.core import certificates, certified_snapshot, log_epochs

SOURCES: Final = Path(nocturne.__file__).parent
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


class NotThere(Exception):  # noqa: N818
    """A bug's text is gone from the source: mend tests/simulation/bugs.py."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a bug; `violation` is None when it survived."""

    bug: Bug
    violation: str | None
    seeds: int
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
    wanted = [bug for bug in BUGS if options.only in bug.name or options.only in bug.rule]
    for bug in wanted:
        variant_of(bug)
    # One that nobody is expected to notice is given up sooner.
    patience = [1 if bug.expected else MORE_PATIENCE for bug in wanted]
    jobs = [
        (bug, options.seeds * more, options.seconds * more)
        for bug, more in zip(wanted, patience, strict=True)
    ]
    verdicts: list[Verdict] = []
    with multiprocessing.Pool(options.workers) as pool:
        for verdict in pool.imap(hunt, jobs, chunksize=1):
            verdicts.append(verdict)
            print(line(verdict), flush=True)
    caught = sum(one.violation is not None for one in verdicts)
    wrong = [one.bug.name for one in verdicts if not one.is_expected]
    print(f"{len(verdicts)} bugs, {caught} caught, {len(verdicts) - caught} survive")
    for name in wrong:
        print(f"UNEXPECTED: {name}")
    sys.exit(1 if wrong else 0)


def line(verdict: Verdict) -> str:
    """For people."""
    bug = verdict.bug
    cost = f"{verdict.seeds} seeds, {verdict.seconds:.1f} s"
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
            return Verdict(bug, found.violation, tried, seconds)
        if seconds > seconds_max:
            break
    return Verdict(bug, None, tried, time.process_time() - started)


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
            return Verdict(bug, found, seed, time.process_time() - started)
    return Verdict(bug, None, SCENARIO_SEEDS, time.process_time() - started)


def variant_of(bug: Bug) -> Variant:
    """The code with the bug in it. Production's own modules stay as they are."""
    host = frozenset() if bug.host is None else frozenset((bug.host,))
    if not bug.edits:
        return Variant(host=host)
    loaded: dict[str, ModuleType] = {}
    for file in ORDER:
        edits = [edit for edit in bug.edits if edit.file == file]
        if edits or file == MACHINE:
            loaded[_name(file)] = _load(file, edits, loaded)

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


def _load(file: str, edits: list[Edit], others: dict[str, ModuleType]) -> ModuleType:
    """The edited module, under a name of its own, that sees `others` in place of production's."""
    source = (SOURCES / file).read_text()
    for edit in edits:
        if source.count(edit.old) != 1:
            raise NotThere(f"{file} has {source.count(edit.old)} times: {edit.old}")
        source = source.replace(edit.old, edit.new)
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
