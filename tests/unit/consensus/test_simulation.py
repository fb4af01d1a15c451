"""The simulator itself: it holds what it promises, on a few seeds (make sim runs thousands)."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from tests.simulation import hunting
from tests.simulation.bugs import BUGS
from tests.simulation.dice import Dice
from tests.simulation.edits import Edit, NotThere, edited
from tests.simulation.plan import ALONE_CRASH, Plan
from tests.simulation.production_bugs import HUNTED_BUGS
from tests.simulation.run import (
    ENOUGH_SEEDS,
    MANY_SEEDS,
    MET,
    SELDOM,
    SMALL_MAX,
    never_met,
    of_seed,
    outcome,
    seeds_from,
)

ROOT = Path(__file__).parents[3]
SEEDS = 3


def traces(hash_seed: int) -> str:
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.simulation.run",
            "--traces",
            "--workers=1",
            f"--seeds={SEEDS}",
            "--ed25519=1",
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def test_a_seed_has_one_trace_whatever_the_hash_seed() -> None:
    first, second = traces(1), traces(2)
    assert first == second
    lines = first.splitlines()
    assert len(set(lines)) == len(lines) == SEEDS + 1


def test_dice_draw_what_python_draws() -> None:
    ours, python = Dice("seed"), random.Random("seed")
    for bound in (1, 2, 3, 7, 8, 20, 1200, 2**40):
        for _ in range(200):
            assert ours.randint(-3, bound) == python.randint(-3, bound)
            assert ours.choice(range(bound)) == python.choice(range(bound))
            assert ours.below(bound) == python.randrange(bound)
            assert ours.random() == python.random()


@pytest.mark.parametrize("seed", range(1, 5))
def test_every_rule_holds_in_a_world(seed: int) -> None:
    found = of_seed(seed)
    assert found.violation is None
    assert found.counted["heights with faults"] >= 30


@pytest.mark.parametrize("seed", [15, 24, 25])
def test_every_rule_holds_in_a_world_that_signs_with_ed25519(seed: int) -> None:
    found = of_seed(seed, ed25519=True)
    assert found.violation is None
    assert found.counted["refused: vote of validator …: its signature does not verify"] > 0


def test_no_plan_is_without_faults_and_nine_of_ten_are_small() -> None:
    plans = [Plan.of(seed) for seed in range(1, 2001)]
    assert all(plan.is_faulty for plan in plans)
    assert all(plan.calm.is_faulty == (plan.n > 1) for plan in plans)
    assert all(plan.heights >= 30 for plan in plans)
    assert sum(plan.n <= 7 for plan in plans) >= 1800
    assert max(plan.n for plan in plans) == 31
    assert all(len(plan.faulty) <= (plan.n - 1) // 3 for plan in plans)


def test_messages_that_are_lost_are_no_fault_of_one_validator_alone() -> None:
    for n in (1, 4):
        quiet = Plan.quiet(n, 30)
        befallen = (
            replace(quiet, loss=0.2),
            replace(quiet, duplication=0.2),
            replace(quiet, partitions=True),
            replace(quiet, slow_nodes=1),
        )
        assert [plan.is_faulty for plan in befallen] == [n > 1] * 4
    assert replace(Plan.quiet(1, 30), crash=0.001).is_faulty


def test_one_validator_alone_that_nothing_else_befalls_crashes_and_goes_on() -> None:
    plans = [Plan.of(seed) for seed in range(1, 1001)]
    alone = [plan for plan in plans if plan.crash == ALONE_CRASH]
    assert alone
    assert all(plan.n == 1 for plan in alone)
    for plan in alone[:5]:
        found = outcome(plan)
        assert found.violation is None
        assert found.counted["crash"] > 0


def test_operators_are_in_half_of_the_worlds_whose_log_is_lost_and_change_nothing_else() -> None:
    plans = [Plan.of(seed) for seed in range(1, 5001)]
    lost = [plan for plan in plans if plan.loss_of_log is not None]
    assert 0.4 < sum(bool(plan.operators_ms) for plan in lost) / len(lost) < 0.6
    assert not any(plan.operators_ms for plan in plans if plan.loss_of_log is None)
    assert {len(plan.operators_ms) for plan in lost} == {0, 1, 2}


@pytest.mark.parametrize("seed", [16, 40])
def test_a_world_goes_on_in_the_next_log_epoch(seed: int) -> None:
    found = of_seed(seed)
    assert found.violation is None
    assert found.counted["log epoch opened"] == len(found.plan.operators_ms) > 0
    assert found.counted["heights with faults"] > found.plan.heights


def test_a_validator_whose_log_lags_has_records_from_others() -> None:
    found = of_seed(612)
    assert found.violation is None
    assert found.counted["records given"] > 0


def test_a_crash_may_leave_a_beginning_of_what_was_not_synced() -> None:
    found = of_seed(33)
    assert found.violation is None
    assert found.counted["torn write"] > 0


def test_what_enough_worlds_never_met_is_named() -> None:
    assert never_met(Counter(), ENOUGH_SEEDS - 1) == []
    assert never_met(Counter(), ENOUGH_SEEDS) == list(MET)
    assert never_met(Counter(), MANY_SEEDS) == [*MET, *SELDOM]
    assert never_met(Counter(MET), MANY_SEEDS) == list(SELDOM)


def test_what_is_committed_while_restoring_is_in_the_log_before_it_is_stored() -> None:
    """Seed 177 with a crash for each 250 effects: the block was stored, and its log knew none."""
    assert outcome(replace(Plan.of(177), crash=0.004)).violation is None


def test_who_lacks_an_empty_block_in_silence_has_it_with_the_next_record() -> None:
    """A twin showed the vote that made it final to two others alone."""
    found = of_seed(3020)
    assert found.violation is None
    assert found.counted["one lacks an empty block"] == 1


def test_a_validator_alone_that_crashes_while_it_opens_a_log_epoch_goes_on() -> None:
    """The block that opens it was notarized; nobody else says a word that wakes it."""
    found = of_seed(2401)
    assert found.violation is None
    assert found.counted["crash"] == found.counted["log epoch opened"] == 1


def test_worlds_of_many_validators_can_be_kept_to_the_first_seeds() -> None:
    seeds = list(islice(seeds_from(1, 100), 400))
    assert seeds[:100] == list(range(1, 101))
    assert len(set(seeds)) == 400
    assert any(Plan.of(seed).n > SMALL_MAX for seed in seeds[:100])
    assert all(Plan.of(seed).n <= SMALL_MAX for seed in seeds[100:])


def test_what_is_planted_stands_in_the_source_and_is_hunted_by_tests_that_there_are() -> None:
    for bug in (*BUGS, *HUNTED_BUGS):
        for edit in bug.edits:
            assert edited(edit.file, bug.edits), bug.name
    names = [bug.name for bug in (*BUGS, *HUNTED_BUGS)]
    assert len(set(names)) == len(names)
    for hunted in HUNTED_BUGS:
        assert hunted.tests, hunted.name
        for test in hunted.tests:
            file, _, name = test.partition("::")
            assert f"def {name}(" in (ROOT / file).read_text(), hunted.name


@pytest.mark.slow
def test_a_bug_is_caught_by_the_test_that_fails_and_survives_where_none_does(
    tmp_path: Path,
) -> None:
    clean = hunting.copied(tmp_path)
    caught = next(bug for bug in HUNTED_BUGS if bug.file == "signing/guard.py")
    hunting.check_tests(clean, [caught])
    found = hunting.hunt((caught, clean))
    assert found.failed is not None
    assert f"tests/unit/signing/test_guard.py::{found.failed.split()[0]}" in caught.tests
    blind = replace(caught, tests=("tests/unit/signing/test_guard.py::test_long_sequences_are",))
    with pytest.raises(hunting.Broken, match="exit code 4"):
        hunting.hunt((blind, clean))
    elsewhere = "tests/unit/signing/test_store.py::test_a_new_store_knows_nothing"
    assert hunting.hunt((replace(caught, tests=(elsewhere,)), clean)).failed is None
    assert (clean / "nocturne/signing/guard.py").read_text() == edited("signing/guard.py", ())
    lost = replace(caught, edits=(Edit("signing/guard.py", "no such text", ""),))
    with pytest.raises(NotThere):
        hunting.hunt((lost, clean))
