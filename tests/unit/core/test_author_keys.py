"""Keys act at block ends: equal to a model for every batching; everything else ignores batching."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.core import governed_logs
from tests.unit.core.governed_logs import (
    Outcome,
    blocks_between,
    expected,
    random_blocks,
    random_log,
    run,
)

from nocturne.core.identifiers import LEDGER_SESSION
from nocturne.core.receipts import Reason, decode_receipt_header

reproducible = settings(derandomize=True, deadline=None, max_examples=40, print_blob=True)
seeds = st.integers(0, 2**32)
ROOT = Path(__file__).parents[3]


def answers(outcome: Outcome) -> dict[tuple[int, int], str]:
    found = {}
    for position, record in outcome.dispositions.items():
        said = "ok"
        if record.receipt is not None:
            header = decode_receipt_header(record.receipt)
            said = header.violated_invariant or header.reason.name
        found[position.partition, position.offset] = said
    return found


@given(seeds, seeds)
@reproducible
def test_a_key_counts_to_the_end_of_the_block_that_ends_it_in_every_batching(
    seed: int, cuts: int
) -> None:
    log = random_log(seed, 80)
    for number in range(3):
        blocks = random_blocks(log, Random(cuts + number))
        assert answers(run(log, blocks)) == expected(log, blocks)


def test_the_logs_have_every_outcome_there_is() -> None:
    found: Counter[str] = Counter()
    for seed in range(20):
        log = random_log(seed, 80)
        found.update(expected(log, random_blocks(log, Random(seed))).values())
    assert set(found) == {"ok", Reason.UNKNOWN_AUTHOR.name, "author_key.own", "author_key.revoked"}
    assert min(found.values()) >= 5, found


@given(seeds, seeds)
@reproducible
def test_any_split_that_keeps_the_blocks_that_change_the_ledger_gives_the_same(
    seed: int, cuts: int
) -> None:
    """And so does starting again from a snapshot after any of the blocks."""
    log = random_log(seed, 80)
    dice = Random(cuts)
    blocks = random_blocks(log, dice)
    one = run(log, blocks)
    for _ in range(3):
        other_blocks = _cut_again(blocks, one.changing, dice)
        other = run(log, other_blocks, restart=dice)
        assert other.dispositions == one.dispositions
        assert _leaves(other) == _leaves(one)
        assert other.state.view.items.root_hash == one.state.view.items.root_hash


def _cut_again(
    blocks: list[governed_logs.Ends], changing: list[int], dice: Random
) -> list[governed_logs.Ends]:
    """The same log in other blocks, but for those that change `~ledger`."""
    start: governed_logs.Ends = (0,) * governed_logs.PARTITIONS
    again: list[governed_logs.Ends] = []
    for number, ends in enumerate(blocks):
        if number in changing:
            before = blocks[number - 1]
            again += [*blocks_between(start, before, dice), ends]
            start = ends
    return again + blocks_between(start, blocks[-1], dice)


def _leaves(outcome: Outcome) -> dict[str, bytes]:
    return {
        session.session: session.leaf().encode()
        for _, session in outcome.state.tree.items()
        if session is not None and session.session != LEDGER_SESSION
    }


# Machines --------------------------------------------------------------------------------------


def _digest(python: str, hash_seed: str, seed: int) -> str:
    done = subprocess.run(
        [python, "-m", "tests.unit.core.governed_logs", str(seed)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_another_hash_seed_changes_nothing(hash_seed: str) -> None:
    assert _digest(sys.executable, hash_seed, 7) == governed_logs.digest(7)
