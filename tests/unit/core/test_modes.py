"""DEGRADED: its causes are a closed list, and what is kept of it goes away by nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ledger_factory import AUTHORITY, VALIDATORS, Draft, Ledger, pointing, record_value

from nocturne.core.block_intake import BlockIntake
from nocturne.core.blocks import Block, Seal, decode_block, encode_block, sign_seal
from nocturne.core.certificates import CommitProof
from nocturne.core.conflicts import (
    Certified,
    CertifiedBlocks,
    Conflict,
    ConflictingBlocks,
    check_conflict,
    conflicting_blocks,
    conflicting_seals,
    decode_conflict,
    encode_conflict,
)
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import Hash
from nocturne.core.modes import (
    RULES,
    Cause,
    Degraded,
    DegradedFound,
    Mode,
    ModeState,
    decode_degraded,
    encode_degraded,
)

reproducible = settings(derandomize=True, deadline=None, max_examples=100, print_blob=True)
SPEC = Path(__file__).resolve().parents[3] / "docs" / "spec" / "modes.md"


def _chain() -> Ledger:
    ledger = Ledger()
    for number in range(1, 6):
        make = ledger.opening if number == 1 else ledger.command
        ledger.answer(make("s", Draft(), number=number))
    return ledger


CHAIN = _chain()


def rival(height: int, ledger: Ledger = CHAIN) -> Block:
    """Another certified block of a height: what only a broken quorum can make."""
    block = ledger.blocks[height - 1]
    header = replace(block.header, time=block.header.time + 1)
    return ledger.certified(header, block.records, block.state_changes)


def certified(block: Block) -> Certified:
    assert isinstance(block.proof, CommitProof)
    return Certified(block.header_bytes, block.proof)


def seal(digest: bytes, height: int = 3) -> Seal:
    return sign_seal(AUTHORITY, CHAIN.ledger_id, height, Hash(digest), Hash(bytes(32)))


def two_blocks(height: int = 3) -> ConflictingBlocks:
    own, other = certified(CHAIN.blocks[height - 1]), certified(rival(height))
    return conflicting_blocks(CHAIN.ledger_id, own, other)


CONFLICTS: list[Conflict] = [
    two_blocks(),
    conflicting_blocks(CHAIN.ledger_id, certified(rival(2)), certified(CHAIN.blocks[2])),
    conflicting_seals(CHAIN.ledger_id, seal(b"b" * 32), seal(b"a" * 32)),
]
KEPT = [
    *map(Degraded.by, CONFLICTS),
    Degraded(Cause.SIGNING_CONFLICT, "signed 3, a proof stands for 4"),
]
PASSING = [
    Degraded(Cause.WANT_OF_A_QUORUM, "2 of 4 are here"),
    Degraded(Cause.REWRITTEN_LOG, "at 2 of 4"),
]


def check(conflict: Conflict) -> None:
    check_conflict(conflict, CHAIN.ledger_id, CHAIN.genesis.founding_sets, AUTHORITY.key)


# The causes ------------------------------------------------------------------------------------


def test_the_spec_lists_each_cause_with_its_rule() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (.+) \|$", SPEC.read_text(), re.MULTILINE)
    listed = {name: [cell.strip() for cell in rest.split(" | ")] for name, rest in rows}
    assert listed == {
        cause.name: [rule.proved_by, rule.seen_by, "yes" if rule.is_kept else "no", rule.left_by]
        for cause, rule in RULES.items()
    }
    assert set(RULES) == set(Cause)


def test_only_want_of_a_quorum_ends_without_a_person() -> None:
    assert [cause for cause, rule in RULES.items() if "by itself" in rule.left_by] == [
        Cause.WANT_OF_A_QUORUM
    ]


# The mode --------------------------------------------------------------------------------------

Step = Callable[[ModeState], ModeState]


def _keeps(degraded: Degraded) -> Step:
    def step(state: ModeState) -> ModeState:
        state.keep(degraded)
        return state

    return step


def _passes(degraded: Degraded | None) -> Step:
    def step(state: ModeState) -> ModeState:
        state.passing(degraded)
        return state

    return step


def _restart(state: ModeState) -> ModeState:
    """All that outlives a process is what was written down."""
    if state.kept is None:
        return ModeState()
    return ModeState(decode_degraded(encode_degraded(CHAIN.ledger_id, state.kept))[1])


STEPS = [*map(_keeps, KEPT), *map(_passes, [None, *PASSING]), _restart]


@given(st.lists(st.sampled_from(STEPS), max_size=20), st.sampled_from(KEPT))
@reproducible
def test_what_is_kept_goes_away_by_no_further_input_and_no_restart(
    steps: list[Step], first: Degraded
) -> None:
    state = ModeState()
    assert state.keep(first)
    for step in steps:
        state = step(state)
        assert state.degraded == state.kept == first
        assert state.mode is Mode.DEGRADED
        assert state.metadata() == (
            ("nocturne-mode", "DEGRADED"),
            ("nocturne-mode-cause", first.cause.name),
        )


@given(st.lists(st.sampled_from(STEPS[len(KEPT) :]), max_size=20))
@reproducible
def test_what_passes_is_over_when_it_is_over_and_after_a_restart(steps: list[Step]) -> None:
    state = ModeState()
    for step in steps:
        state = step(state)
        assert state.kept is None
    state.passing(PASSING[0])
    assert state.mode is Mode.DEGRADED
    assert _restart(state).mode is Mode.SYNC_WS
    state.passing(None)
    assert state.mode is Mode.SYNC_WS
    assert state.metadata() == (("nocturne-mode", "SYNC_WS"),)


def test_a_cause_is_kept_or_passes_as_its_rule_says() -> None:
    state = ModeState()
    for one in PASSING:
        with pytest.raises(ValueError, match="not kept"):
            state.keep(one)
    for one in KEPT:
        with pytest.raises(ValueError, match="does not pass"):
            state.passing(one)


# The proof -------------------------------------------------------------------------------------


@pytest.mark.parametrize("conflict", CONFLICTS, ids=str)
def test_a_proof_that_is_written_and_read_convinces(conflict: Conflict) -> None:
    found = decode_conflict(encode_conflict(conflict))
    assert found == conflict
    check(found)


@pytest.mark.parametrize("degraded", KEPT, ids=str)
def test_what_is_kept_is_read_as_it_was_written(degraded: Degraded) -> None:
    assert decode_degraded(encode_degraded(CHAIN.ledger_id, degraded)) == (
        CHAIN.ledger_id,
        degraded,
    )


@given(st.sampled_from(CONFLICTS), st.data())
@reproducible
def test_a_proof_with_another_byte_is_refused(conflict: Conflict, data: st.DataObject) -> None:
    encoded = bytearray(encode_conflict(conflict))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Malformed):
        check(decode_conflict(bytes(encoded)))


@given(st.sampled_from(CONFLICTS), st.data())
@reproducible
def test_a_proof_that_is_cut_or_goes_on_is_refused(conflict: Conflict, data: st.DataObject) -> None:
    encoded = encode_conflict(conflict)
    cut = encoded[: data.draw(st.integers(0, len(encoded) - 1))]
    for wrong in (cut, encoded + b"\0"):
        with pytest.raises(Malformed):
            decode_conflict(wrong)


def test_two_blocks_of_one_chain_are_no_proof() -> None:
    one, two, three = (certified(block) for block in CHAIN.blocks[:3])
    other = certified(rival(2))
    for first, second in [(one, one), (one, two), (one, three), (other, two), (two, one)]:
        conflict = ConflictingBlocks(CHAIN.ledger_id, first, second)
        if (first, second) == (other, two) and other.digest < two.digest:
            continue
        with pytest.raises(Malformed):
            decode_conflict(encode_conflict(conflict))


def test_two_blocks_without_a_quorum_for_each_are_no_proof() -> None:
    own, other = certified(CHAIN.blocks[2]), certified(rival(3))
    fin = other.proof.finalization
    short = replace(other.proof, finalization=replace(fin, votes=fin.votes[:-1]))
    for proof in (own.proof, short):
        unproved = Certified(other.header_bytes, proof)
        with pytest.raises(Malformed):
            check(conflicting_blocks(CHAIN.ledger_id, own, unproved))


def test_two_seals_of_one_block_or_of_two_heights_are_no_proof() -> None:
    for one, other in [(seal(b"a" * 32), seal(b"a" * 32)), (seal(b"a" * 32), seal(b"b" * 32, 4))]:
        with pytest.raises(Malformed):
            decode_conflict(encode_conflict(conflicting_seals(CHAIN.ledger_id, one, other)))


def test_a_proof_of_strangers_keys_is_refused() -> None:
    stranger = VALIDATORS[0]
    with pytest.raises(Malformed, match="the authority did not"):
        check_conflict(CONFLICTS[2], CHAIN.ledger_id, CHAIN.genesis.founding_sets, stranger.key)


# Who finds it ----------------------------------------------------------------------------------


def _intake() -> BlockIntake:
    return BlockIntake(
        CHAIN.ledger_id,
        CHAIN.genesis.founding_sets,
        1,
        Hash(CHAIN.ledger_id),
        CHAIN.founding.positions,
    )


def _found(intake: BlockIntake, block: Block) -> Degraded:
    with pytest.raises(DegradedFound) as found:
        intake.offer(record_value(block))
    degraded = found.value.degraded
    assert degraded.cause is Cause.CONFLICTING_COMMIT_PROOFS
    assert degraded.conflict is not None
    check(decode_conflict(encode_conflict(degraded.conflict)))
    return degraded


@pytest.mark.parametrize("height", [1, 3, 5])
def test_a_reader_that_meets_a_second_certified_block_has_the_proof(height: int) -> None:
    intake = _intake()
    for block in CHAIN.blocks:
        intake.offer(record_value(block))
    found = _found(intake, rival(height))
    assert f"two certified blocks at height {height}" in found.text


def test_two_certified_blocks_that_wait_are_a_proof() -> None:
    intake = _intake()
    assert intake.offer(record_value(CHAIN.blocks[3])) == []
    _found(intake, rival(4))


def test_a_certified_block_on_another_parent_is_a_proof() -> None:
    intake = _intake()
    intake.offer(record_value(rival(1)))
    _found(intake, CHAIN.blocks[1])


def test_a_parent_that_is_certified_by_the_block_on_it_alone_is_part_of_a_proof() -> None:
    """The second block of height 2 is known only as what block 3 stands on."""
    intake = _intake()
    pointer = pointing(CHAIN.blocks[2], CHAIN.blocks[3])
    assert intake.offer(record_value(pointer)) == []
    assert intake.offer(record_value(CHAIN.blocks[3])) == []
    _found(intake, rival(2))


def test_the_newest_blocks_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nocturne.core.conflicts.REMEMBERED_BYTES_MAX", 4000)
    blocks = CertifiedBlocks()
    for block in CHAIN.blocks:
        blocks.add(block.header.height, certified(block))
    assert blocks.get(1) is None
    assert blocks.get(5) == certified(CHAIN.blocks[4])


def test_a_block_reads_back_as_it_was_published() -> None:
    """The blocks of these proofs are what a topic has."""
    assert decode_block(encode_block(rival(2))) == rival(2)
