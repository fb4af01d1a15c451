"""Validators change two epochs after the operators say so, for everyone who follows the chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ledger_factory import (
    ALICE,
    OPERATORS,
    VALIDATORS,
    Ledger,
    make_genesis,
    pointing,
    record_value,
    signer,
)
from tests.mutation import mutated
from tests.unit.core.test_several_publishers import Reader, narrow_to_four

from nocturne.core import snapshot
from nocturne.core.block_intake import BlockIntake, check_alone
from nocturne.core.blocks import (
    Block,
    BlockHeader,
    BlockKind,
    encode_block_header,
    hash_block,
    link_of,
    link_to,
)
from nocturne.core.certificates import (
    Ballot,
    CommitProof,
    Epoch,
    ValidatorSet,
    check_commit_proof,
    sign_vote,
)
from nocturne.core.control import Control, decode_control, sign_control
from nocturne.core.errors import Halt, Malformed
from nocturne.core.identifiers import Hash
from nocturne.core.keys import Ed25519Signer, prove_possession
from nocturne.core.validator_sets import (
    ACTION,
    SETS_KEPT_MAX,
    VALIDATORS_MAX,
    Member,
    ValidatorSets,
    acts_from,
    check_members,
    members_of,
    set_fields,
    with_added,
    with_removed,
    with_rotated,
)

reproducible = settings(derandomize=True, deadline=None, max_examples=200, print_blob=True)

E = 3
"""Heights an epoch has in these ledgers."""
OLD = VALIDATORS[:4]
NEW = (*VALIDATORS[:3], VALIDATORS[5])
"""The fourth validator's key was rotated."""


def founded(validators: Sequence[Ed25519Signer] = OLD, epoch_length: int = E) -> Ledger:
    return Ledger(make_genesis(validators=validators, epoch_length=epoch_length), validators)


def set_of(validators: Sequence[Ed25519Signer]) -> ValidatorSet:
    return ValidatorSet.of(tuple(one.key for one in validators))


def grow(ledger: Ledger, through: int, **control: bytes) -> None:
    """Blocks up to a height, each with one record; `h5=record` goes into block 5."""
    while len(ledger.blocks) < through:
        height = len(ledger.blocks) + 1
        ledger.append(ledger.command("a/1", number=height, opening=None))
        record = control.get(f"h{height}")
        ledger.commit(control=() if record is None else (record,))


def changed(through: int = 3 * E, at: int = 2) -> Ledger:
    """A ledger whose operators decided NEW in block `at`."""
    ledger = founded()
    grow(ledger, through, **{f"h{at}": ledger.change_of(NEW)})
    return ledger


def intake_of(ledger: Ledger, after: int = 0) -> BlockIntake:
    """Follows from the beginning, and has taken the blocks up to `after`."""
    intake = BlockIntake(ledger.ledger_id, ledger.genesis.founding_sets, 1, Hash(ledger.ledger_id))
    for block in ledger.blocks[:after]:
        assert len(intake.offer(record_value(block))) == 1
    return intake


def epochs_of(ledger: Ledger) -> list[bytes]:
    return [ledger.blocks[first].header.validator_set_hash for first in range(0, 3 * E, E)]


def certified_anew(ledger: Ledger, block: Block, **fields: object) -> Block:
    """The block with another header, certified by the set that it names then."""
    header = replace(block.header, **fields)  # type: ignore[arg-type]
    return ledger.certified(header, block.records, block.state_changes, block.control)


# When a change takes effect -----------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 2, E])
def test_a_set_that_is_decided_in_an_epoch_certifies_from_the_second_after_it(at: int) -> None:
    ledger = changed(at=at)
    old, new = set_of(OLD).hash, set_of(NEW).hash
    assert epochs_of(ledger) == [old, old, new]
    named = [block.header.next_validator_set_hash for block in ledger.blocks]
    assert named == [old] * E + [new] * (2 * E)
    intake = intake_of(ledger, after=3 * E)
    assert intake.sets.of(2) == set_of(NEW)
    assert intake.sets == ledger.state.view.validator_sets


def test_a_change_in_the_first_block_of_an_epoch_counts_from_that_epoch() -> None:
    ledger = founded()
    grow(ledger, 4 * E, h4=ledger.change_of(NEW))
    old, new = set_of(OLD).hash, set_of(NEW).hash
    assert epochs_of(ledger) == [old, old, old]
    assert ledger.blocks[3 * E].header.validator_set_hash == new
    intake_of(ledger, after=4 * E)


def test_of_two_changes_in_one_epoch_the_later_one_counts() -> None:
    ledger = founded()
    third = VALIDATORS[:1]
    first, second = ledger.change_of(NEW), ledger.change_of(third, number=2)
    grow(ledger, 3 * E, h1=first, h3=second)
    assert ledger.blocks[-1].header.validator_set_hash == set_of(third).hash
    intake_of(ledger, after=3 * E)

    both = founded()
    both.append(both.command("a/1"))
    both.commit(control=(both.change_of(NEW), both.change_of(third, number=2)))
    assert both.state.view.validator_sets.of(2) == set_of(third)
    assert len(both.state.view.validator_sets.decided) == 2


def test_changes_of_following_epochs_each_have_their_own_epoch() -> None:
    ledger = founded()
    sets = [OLD, OLD, NEW, VALIDATORS[:1], VALIDATORS[2:7]]
    grow(
        ledger,
        5 * E,
        h2=ledger.change_of(sets[2], 1),
        h5=ledger.change_of(sets[3], 2),
        h9=ledger.change_of(sets[4], 3),
    )
    found = [ledger.blocks[first].header.validator_set_hash for first in range(0, 5 * E, E)]
    assert found == [set_of(one).hash for one in sets]
    intake_of(ledger, after=5 * E)


def test_the_state_root_binds_the_decided_set_and_a_snapshot_keeps_it() -> None:
    ledger = founded()
    twin = founded()
    grow(ledger, 1, h1=ledger.change_of(NEW))
    grow(twin, 1, h1=twin.change_of(OLD))
    assert ledger.state.root_hash != twin.state.root_hash
    again = snapshot.decode(ledger.genesis_bytes, snapshot.encode(ledger.state), ledger.registry)
    assert again.root_hash == ledger.state.root_hash
    assert again.view.validator_sets == ledger.state.view.validator_sets


def test_what_is_decided_for_the_machine_is_told_at_an_epochs_end_alone() -> None:
    ledger = changed(through=1, at=1)
    sets = ledger.state.view.validator_sets
    assert [sets.decided_at(height) for height in (0, 1, 2)] == [None] * 3
    assert sets.decided_at(3) == (Epoch(0, 2), set_of(NEW))
    assert sets.decided_at(6) == (Epoch(0, 3), set_of(NEW))
    assert sets.known_after(2) == ((Epoch(0, 0), set_of(OLD)), (Epoch(0, 1), set_of(OLD)))
    assert sets.known_after(3) == ((Epoch(0, 1), set_of(OLD)), (Epoch(0, 2), set_of(NEW)))


# What nobody accepts ------------------------------------------------------------------------------


def refuses(ledger: Ledger, after: int, forged: Block, match: str) -> None:
    intake = intake_of(ledger, after)
    with pytest.raises(Malformed, match=match):
        intake.offer(record_value(forged))
    sets = intake.sets
    with pytest.raises(Malformed, match=match):
        check_alone(ledger.ledger_id, sets, record_value(forged))
    # And the true one is still taken.
    assert intake.offer(record_value(ledger.blocks[after]))


def test_the_old_set_certifies_nothing_after_its_last_epoch() -> None:
    ledger = changed()
    block = ledger.blocks[2 * E]
    named = certified_anew(ledger, block, validator_set_hash=set_of(OLD).hash)
    refuses(ledger, 2 * E, named, "another validator set than that of epoch 2")


def test_a_rotated_key_votes_no_more_once_the_new_one_does() -> None:
    ledger = changed()
    block = ledger.blocks[2 * E]
    certificate = ledger.certificate(block.header, block.digest)
    ballot = Ballot(
        certificate.kind,
        ledger.ledger_id,
        certificate.epoch,
        certificate.validator_set_hash,
        certificate.view,
        certificate.digest,
    )

    def voted(fourth: Ed25519Signer) -> Block:
        votes = tuple((one, sign_vote((*NEW[:3], fourth)[one], ballot)) for one in (1, 2, 3))
        return replace(block, proof=CommitProof(replace(certificate, votes=votes), ()))

    refuses(ledger, 2 * E, voted(OLD[3]), "the vote of validator 3 does not verify")
    assert intake_of(ledger, 2 * E).offer(record_value(voted(NEW[3])))


def test_a_new_set_certifies_nothing_before_its_first_epoch() -> None:
    ledger = changed()
    early = certified_anew(ledger, ledger.blocks[E], validator_set_hash=set_of(NEW).hash)
    refuses(ledger, E, early, "another validator set than that of epoch 1")


def test_an_epochs_set_certifies_no_block_by_naming_its_own_epoch_for_it() -> None:
    ledger = changed()
    for epoch in (Epoch(0, 1), Epoch(1, 2), Epoch(0, 3)):
        posing = certified_anew(
            ledger,
            ledger.blocks[2 * E],
            epoch=epoch,
            validator_set_hash=set_of(OLD if epoch.number == 1 else NEW).hash,
        )
        refuses(ledger, 2 * E, posing, "its height is of epoch 2")


def test_a_finalization_of_the_next_epoch_commits_no_block_of_the_one_before() -> None:
    ledger = changed()
    last, following = ledger.blocks[2 * E - 1], ledger.blocks[2 * E]
    assert isinstance(following.proof, CommitProof)
    crossing = CommitProof(following.proof.finalization, (following.header_bytes,))
    link = link_to(last.header, last.digest)
    for validators in (set_of(OLD), set_of(NEW)):
        with pytest.raises(Malformed, match="another"):
            check_commit_proof(crossing, link, ledger.ledger_id, validators, link_of)
    refuses(ledger, 2 * E - 1, replace(last, proof=crossing), "another epoch than its block's")


def test_tail_blocks_of_its_own_epoch_commit_an_epochs_last_block() -> None:
    ledger = changed()
    last = ledger.blocks[2 * E - 1]
    header = last.header
    tail = BlockHeader(
        BlockKind.TAIL, 1, 1, header.ledger_id, header.epoch, header.validator_set_hash,
        header.next_validator_set_hash, header.view + 1, header.height, last.digest, header.view,
        header.time, (), Hash(bytes(32)), 0, header.dispositions_root, header.state_root, b"",
    )  # fmt: skip
    data = encode_block_header(tail)
    proof = CommitProof(ledger.certificate(tail, hash_block(data)), (data,))
    intake = intake_of(ledger, 2 * E - 1)
    assert intake.offer(record_value(replace(last, proof=proof)))
    assert intake.offer(record_value(ledger.blocks[2 * E]))


@pytest.mark.parametrize("named", [OLD, VALIDATORS[:1]])
def test_a_certified_header_that_names_another_next_set_than_was_decided_halts(
    named: Sequence[Ed25519Signer],
) -> None:
    ledger = changed()
    block = ledger.blocks[E]
    later = certified_anew(ledger, block, next_validator_set_hash=set_of(named).hash)
    with pytest.raises(Malformed, match="another validator set for epoch 2"):
        ledger.state.view.validator_sets.check_next(later.header)
    with pytest.raises(Halt, match="another validator set for epoch 2"):
        intake_of(ledger, E).offer(record_value(later))


def test_a_change_that_the_body_withholds_is_seen_by_the_header() -> None:
    ledger = changed()
    silent = replace(ledger.blocks[1], control=())
    refuses(ledger, 1, silent, "control")


def test_a_block_of_an_epoch_whose_validators_are_not_decided_waits_for_its_turn() -> None:
    ledger = changed()
    intake = intake_of(ledger)
    assert intake.offer(record_value(ledger.blocks[2 * E - 1])) == []
    # It proves nothing yet: it is read again once it does.
    assert intake.offer(record_value(ledger.blocks[2 * E]), 1) == []
    assert intake.low_water(2) == 0
    for block in ledger.blocks[: 2 * E - 1]:
        intake.offer(record_value(block))
    assert intake.next_height == 2 * E + 1
    assert intake.offer(record_value(ledger.blocks[2 * E]))


def test_a_pointed_proof_is_checked_by_the_set_of_its_own_epoch() -> None:
    ledger = changed()
    first, second = ledger.blocks[2 * E : 2 * E + 2]
    intake = intake_of(ledger, 2 * E)
    assert intake.offer(record_value(pointing(first, second))) == []
    given = intake.offer(record_value(second))
    assert [one.block.header.height for one in given] == [2 * E + 1, 2 * E + 2]
    # A pointer over an epoch's end leads to a proof that is none.
    last = ledger.blocks[2 * E - 1]
    crossing = intake_of(ledger, 2 * E - 1)
    crossing.offer(record_value(pointing(last, first)))
    assert crossing.offer(record_value(first)) == []
    assert len(crossing.offer(record_value(last))) == 2


def test_blocks_of_later_epochs_that_come_first_are_read_again_once_they_can_be_checked() -> None:
    ledger = changed()
    topic = [record_value(block) for block in reversed(ledger.blocks)]
    reader = Reader(intake_of(ledger), topic)
    assert reader.read() == list(range(1, len(topic) + 1))
    assert reader.intake.sets == ledger.state.view.validator_sets
    assert reader.reads <= 4 * len(topic)


def test_with_little_room_no_block_of_a_later_epoch_is_lost_whatever_the_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    narrow_to_four(monkeypatch)
    ledger = changed()
    # Reading the fifth again once made it forget that there is more of the last epoch before it.
    orders = [[9, 8, 5, 2, 3, 1, 7, 6, 4]]
    orders += [Random(seed).sample(range(1, 10), 9) for seed in range(40)]
    for order in orders:
        reader = Reader(
            intake_of(ledger), [record_value(ledger.blocks[height - 1]) for height in order]
        )
        assert reader.read() == list(range(1, 10)), order


def test_a_reader_goes_on_from_the_sets_that_it_kept() -> None:
    ledger = changed()
    for after in range(3 * E):
        kept = intake_of(ledger, after).sets.encode()
        parent = ledger.blocks[after - 1].digest if after else Hash(ledger.ledger_id)
        again = BlockIntake(
            ledger.ledger_id, ledger.genesis.founding_sets.decoded(kept), after + 1, parent
        )
        for block in ledger.blocks[after:]:
            assert again.offer(record_value(block))


def test_a_reader_without_a_past_may_know_more_than_it_reads() -> None:
    ledger = changed()
    sets = ledger.state.view.validator_sets
    for first in range(3 * E):
        intake = BlockIntake(ledger.ledger_id, sets, None)
        for block in ledger.blocks[first:]:
            assert intake.offer(record_value(block))
        assert intake.sets == sets


def test_a_reader_that_began_too_late_learns_a_change_from_blocks_that_come_after() -> None:
    ledger = founded()
    first, second = ledger.change_of(NEW), ledger.change_of(VALIDATORS[:1], number=2)
    grow(ledger, 3 * E, h1=first, h2=second)
    for began in (2, 3):
        intake = BlockIntake(ledger.ledger_id, ledger.genesis.founding_sets, None)
        order = [began, *range(began - 1, 0, -1), *range(began + 1, 3 * E + 1)]
        for height in order:
            (checked,) = intake.offer(record_value(ledger.blocks[height - 1]), height)
            assert checked.block.header.height == height
        assert intake.sets == ledger.state.view.validator_sets


def test_a_reader_that_missed_the_change_halts_where_it_shows() -> None:
    ledger = changed()
    intake = BlockIntake(ledger.ledger_id, ledger.genesis.founding_sets, None)
    intake.offer(record_value(ledger.blocks[2]))
    with pytest.raises(Halt, match="another validator set for epoch 2"):
        intake.offer(record_value(ledger.blocks[3]))


# What operators cannot decide ---------------------------------------------------------------------


def refused(members: Sequence[Member], match: str, signers: Sequence[Ed25519Signer]) -> None:
    ledger = founded()
    control = Control(ledger.ledger_id, 1, 100, ACTION, set_fields(members))
    with pytest.raises(Malformed, match=match):
        ledger.commit(control=(sign_control(control, tuple(signers)),))
    assert not ledger.blocks


def member(one: Ed25519Signer) -> Member:
    return one.key, prove_possession(one)


def test_a_set_without_a_threshold_of_operators_or_that_cannot_be_is_no_control() -> None:
    good = [member(one) for one in NEW]
    two = OPERATORS[:2]
    refused(good, "the signatures of 2 of 3 operators", OPERATORS[:1])
    refused(good, "the signatures of 2 of 3 operators", VALIDATORS[:3])
    refused(good, "and of nobody else", (*two, ALICE))
    refused([], "expected 1 to 31, got 0", two)
    many = [member(signer(100 + number)) for number in range(VALIDATORS_MAX + 1)]
    refused(many, "expected 1 to 31, got 32", two)
    refused([*good, good[0]], "a key stands twice", two)
    refused([*good, (ALICE.key, ())], "number 4 has no proof of possession", two)
    refused([*good, (ALICE.key, good[0][1])], "number 4 has no proof of possession", two)
    refused([*good, ((), ())], "a key is not one", two)
    ledger = founded()
    ledger.commit(control=(ledger.change_of([signer(100 + one) for one in range(31)]),))


# Changes are made from the newest set -------------------------------------------------------------


def test_validators_are_added_removed_and_rotated_from_the_newest_set() -> None:
    ledger = founded()
    founding = ledger.genesis.validators
    assert ledger.state.view.validator_sets.members(founding) == founding
    added = with_added(founding, member(VALIDATORS[5]))
    assert [key for key, _ in added] == [one.key for one in (*OLD, VALIDATORS[5])]
    removed = with_removed(added, OLD[1].key)
    assert [key for key, _ in removed] == [one.key for one in (*OLD[:1], *OLD[2:], VALIDATORS[5])]
    rotated = with_rotated(founding, OLD[3].key, member(VALIDATORS[5]))
    assert [key for key, _ in rotated] == [one.key for one in NEW]

    grow(ledger, 1, h1=ledger.change_of(NEW))
    assert ledger.state.view.validator_sets.members(founding) == rotated
    control, _ = decode_control(ledger.change_of(NEW))
    assert members_of(control) == rotated
    with pytest.raises(Malformed, match="expected ValidatorSetChanged"):
        members_of(replace(control, action="EpochEnded"))


def test_changes_that_cannot_be_are_refused_when_they_are_made() -> None:
    founding = founded().genesis.validators
    with pytest.raises(Malformed, match="stands twice"):
        with_added(founding, founding[0])
    with pytest.raises(Malformed, match="no proof of possession"):
        with_added(founding, (ALICE.key, founding[0][1]))
    with pytest.raises(Malformed, match="stands twice"):
        with_rotated(founding, OLD[3].key, founding[0])
    for change in (
        lambda: with_removed(founding, ALICE.key),
        lambda: with_rotated(founding, ALICE.key, member(VALIDATORS[6])),
    ):
        with pytest.raises(Malformed, match="none has this key"):
            change()
    with pytest.raises(Malformed, match="expected 1 to 31"):
        with_removed(founding[:1], OLD[0].key)


# Kept bytes ---------------------------------------------------------------------------------------


def of_many(count: int) -> tuple[Ledger, ValidatorSets]:
    """Sets after this many changes, one an epoch."""
    ledger = founded()
    sets = ledger.genesis.founding_sets
    for number in range(count):
        record = ledger.change_of(VALIDATORS[number % 5 : number % 5 + 2], number + 1)
        sets = sets.after(number * E + 1, (record,))
    return ledger, sets


def test_the_newest_sets_are_kept_and_those_before_them_are_not_known() -> None:
    ledger, sets = of_many(SETS_KEPT_MAX + 5)
    assert len(sets.decided) == SETS_KEPT_MAX
    first = sets.decided[0].first_epoch
    assert ledger.genesis.founding_sets.decoded(sets.encode()) == sets
    sets.of(first)
    with pytest.raises(Malformed, match="not known here"):
        sets.of(first - 1)


@pytest.mark.parametrize("count", [0, 1, 3, SETS_KEPT_MAX - 1, SETS_KEPT_MAX])
def test_kept_sets_come_back_as_they_were(count: int) -> None:
    ledger, sets = of_many(count)
    assert ledger.genesis.founding_sets.decoded(sets.encode()) == sets


@reproducible
@given(st.randoms(use_true_random=False), st.integers(1, 3))
def test_altered_bytes_of_kept_sets_are_refused_or_in_one_encoding(
    random: Random, edits: int
) -> None:
    ledger, sets = of_many(3)
    data = sets.encode()
    changed_bytes = mutated(random, data, edits)
    try:
        found = ledger.genesis.founding_sets.decoded(changed_bytes)
    except Malformed:
        return
    assert found.encode() == changed_bytes


def test_the_sets_ahead_are_the_next_blocks_and_every_later_one() -> None:
    ledger = founded()
    genesis = ledger.genesis
    sets = genesis.founding_sets
    assert [one.first_epoch for one in sets.ahead(0)] == [0]
    for number, height in enumerate((1, E + 1), 1):
        sets = sets.after(height, (ledger.change_of(VALIDATORS[: 4 + number], number),))
    firsts = {
        height: [one.first_epoch for one in sets.ahead(height)]
        for height in (0, E + 1, 2 * E - 1, 2 * E, 3 * E - 1, 3 * E, 90 * E)
    }
    assert firsts == {
        0: [0, 2, 3],
        E + 1: [0, 2, 3],
        2 * E - 1: [0, 2, 3],
        2 * E: [2, 3],
        3 * E - 1: [2, 3],
        3 * E: [3],
        90 * E: [3],
    }
    for one in sets.ahead(0):
        assert tuple(key for key, _ in one.members(genesis.validators)) == one.validators.keys
        check_members(one.members(genesis.validators))


@pytest.mark.parametrize("height", [1, 2, E, E + 1, 2 * E, 7 * E])
def test_a_set_acts_with_the_first_height_of_the_second_epoch_after_its_block(height: int) -> None:
    ledger = founded()
    first_epoch, first_height = acts_from(E, height)
    sets = ledger.genesis.founding_sets.after(height, (ledger.change_of(NEW),))
    assert sets.of(sets.epoch_at(first_height)).keys == set_of(NEW).keys
    assert sets.of(sets.epoch_at(first_height - 1)).keys == set_of(OLD).keys
    assert first_epoch == sets.epoch_at(first_height)
