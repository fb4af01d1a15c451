"""Validators change while they certify: without I/O, by the operators' records, on one log."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from tests.unit.consensus.committees import Committee, Member
from tests.unit.consensus.ledgers import OPERATOR

from nocturne.consensus.store import Store
from nocturne.core import topics
from nocturne.core.block_intake import BlockIntake
from nocturne.core.blocks import Block, decode_block
from nocturne.core.certificates import ValidatorSet
from nocturne.core.certified_snapshot import prove
from nocturne.core.control import Control, sign_control
from nocturne.core.identifiers import Hash
from nocturne.core.keys import prove_possession
from nocturne.core.kinds import KindRegistry, builtin_kinds
from nocturne.core.validator_sets import ACTION, set_fields
from nocturne.runtime import journal

E = 4
KINDS = KindRegistry(builtin_kinds().values())


def committee_of(n: int, seed: int) -> Committee:
    """Four validators, and so many more members with empty homes that there are `n`."""
    committee = Committee(4, seed, epoch_length=E)
    for number in range(4, n):
        committee.join(200 + number)
    return committee


def decide(committee: Committee, *numbers: int) -> None:
    """The operators' next control record comes to all who live: these are the validators."""
    members = [committee.members[number].signer for number in numbers]
    fields = set_fields([(one.key, prove_possession(one)) for one in members])
    number = 1 + sum(
        len(made.block.control) for made in max((m.published for m in committee.members), key=len)
    )
    control = Control(committee.ledger.ledger_id, number, 10_000, ACTION, fields)
    record = sign_control(control, (OPERATOR,))
    for member in committee.members:
        if member.alive:
            committee.do(member, member.replica.add_control(record, committee.clock))


def share(committee: Committee) -> None:
    """Published blocks come to every living member that lacks them, as from the topic."""
    longest = max((one.published for one in committee.members), key=len)
    for member in committee.members:
        if member.alive:
            for made in longest[member.replica.height :]:
                if member.replica.is_behind:
                    break
                committee.bring(member, made)


def grow(committee: Committee, through: int) -> None:
    """Commands come one by one until so many blocks are certified."""
    for number in range(1_000):
        if height(committee) >= through:
            return
        committee.write(f"s{number % 5}")
        committee.run(150)
        share(committee)
    raise AssertionError(f"the committee stands at {height(committee)}")


def height(committee: Committee) -> int:
    return max(len(one.published) for one in committee.members)


def settle(committee: Committee) -> None:
    for _ in range(20):
        committee.run(500)
        share(committee)


def sets_of(committee: Committee, *numbers: int) -> ValidatorSet:
    return ValidatorSet.of(tuple(committee.members[one].signer.key for one in numbers))


def blocks_of(committee: Committee, member: Member) -> list[Block]:
    """What it published, as a reader of the topic takes it from genesis on."""
    ledger = committee.ledger
    intake = BlockIntake(ledger.ledger_id, ledger.genesis.founding_sets, 1, Hash(ledger.ledger_id))
    blocks = []
    for made in member.published:
        assert intake.offer(topics.frame(2, made.encoded)), made.block.header.height
        blocks.append(decode_block(made.encoded))
    assert intake.sets == made.state.view.validator_sets
    return blocks


def certified_by(blocks: list[Block]) -> list[bytes]:
    """The set of each epoch, in order."""
    return [block.header.validator_set_hash for block in blocks[::E]]


@pytest.mark.parametrize("seed", range(4))
def test_a_rotated_key_and_a_new_validator_take_part_two_epochs_later(seed: int) -> None:
    committee = committee_of(6, seed)
    grow(committee, 2)
    decide(committee, 0, 1, 2, 4)
    grow(committee, E + 1)
    decide(committee, 0, 1, 2, 4, 5)
    grow(committee, 5 * E + 1)
    settle(committee)
    digests = {tuple(committee.digests(one)) for one in committee.members}
    assert len(digests) == 1
    blocks = blocks_of(committee, committee.members[0])
    old, rotated = sets_of(committee, 0, 1, 2, 3), sets_of(committee, 0, 1, 2, 4)
    grown = sets_of(committee, 0, 1, 2, 4, 5)
    assert certified_by(blocks) == [one.hash for one in (old, old, rotated, grown, grown, grown)]
    # Who has gone follows, and has no voice; who came has one.
    assert committee.members[3].replica.machine.index is None
    assert [committee.members[one].replica.machine.index for one in (4, 5)] == [3, 4]


def test_the_new_set_goes_on_without_those_who_left() -> None:
    committee = committee_of(5, 1)
    grow(committee, 1)
    decide(committee, 0, 1, 2, 4)
    grow(committee, 2 * E + 1)
    committee.kill(committee.members[3])
    grow(committee, 4 * E)
    assert certified_by(blocks_of(committee, committee.members[4]))[2] == (
        sets_of(committee, 0, 1, 2, 4).hash
    )


def test_a_set_of_strangers_takes_over_as_a_whole() -> None:
    committee = committee_of(8, 2)
    grow(committee, 2)
    decide(committee, 4, 5, 6, 7)
    grow(committee, 2 * E + 2)
    for member in committee.members[:4]:
        committee.kill(member)
    grow(committee, 4 * E)
    blocks = blocks_of(committee, committee.members[5])
    assert certified_by(blocks)[1:4] == [
        sets_of(committee, 0, 1, 2, 3).hash,
        *[sets_of(committee, 4, 5, 6, 7).hash] * 2,
    ]


def test_of_two_changes_in_one_epoch_all_take_the_later_one() -> None:
    committee = committee_of(6, 3)
    decide(committee, 0, 1, 2, 4)
    grow(committee, 1)
    decide(committee, 0, 1, 2, 5)
    grow(committee, 3 * E + 1)
    settle(committee)
    blocks = blocks_of(committee, committee.members[0])
    assert [len(block.control) for block in blocks[:E]].count(1) == 2
    assert certified_by(blocks)[2] == sets_of(committee, 0, 1, 2, 5).hash


def test_a_validator_that_was_away_over_a_change_follows_it() -> None:
    committee = committee_of(5, 4)
    away = committee.members[2]
    away.alive = False
    grow(committee, 1)
    decide(committee, 0, 1, 2, 4)
    grow(committee, 4 * E)
    away.alive = True
    committee.write("s0")
    settle(committee)
    assert committee.digests(away) == committee.digests(committee.members[0])
    assert away.replica.machine.validators.hash == sets_of(committee, 0, 1, 2, 4).hash


def test_whose_log_is_late_waits_at_an_epochs_end_for_what_decided_the_next_set() -> None:
    committee = committee_of(5, 5)
    late = committee.members[4]
    late.alive = False
    grow(committee, 1)
    decide(committee, 0, 1, 2, 4)
    grow(committee, 4 * E)
    late.alive = True
    share(committee)
    # No record has come: it holds an epoch of committed blocks, and takes no more.
    assert late.published == []
    assert late.replica.is_behind
    assert late.replica.height == E
    committee.read(late)
    settle(committee)
    assert committee.digests(late) == committee.digests(committee.members[0])
    assert not late.replica.is_behind


def test_a_snapshot_has_the_lines_of_all_changes_before_it_over_snapshots_and_restarts(
    tmp_path: Path,
) -> None:
    """What a joiner that knows genesis alone is offered leads to the third set."""
    committee = committee_of(6, 1)
    grow(committee, 2)
    decide(committee, 0, 1, 2, 4)
    grow(committee, E + 1)
    decide(committee, 0, 1, 2, 4, 5)
    grow(committee, 5 * E + 1)
    member, ledger = committee.members[0], committee.ledger
    label = journal.owner_label(ledger.ledger_id, member.signer.key)
    journal.create(tmp_path / journal.FOLDER, label)
    store = Store(tmp_path, label)
    store.recover(ledger.data, KINDS)
    store.keep(member.kept)
    lines = []
    for made in member.published:
        height = made.block.header.height
        store.note_block(made.committed, made.state.view.validator_sets)
        if height in (E + 1, 2 * E, 3 * E, 3 * E + 1, 5 * E + 1):
            store.write_snapshot(made.committed, made.state, None, threading.Event())
            assert store.snapshot is not None
            claim = store.snapshot.offer().claim()
            assert prove(claim, ledger.genesis, ledger.ledger_id).digest == made.block.digest
            lines.append(len(claim.changes))
        if height == 2 * E:
            # The block that shows the change is the snapshot's own, and a new process goes on.
            store.close()
            store = Store(tmp_path, label)
            store.recover(ledger.data, KINDS)
    store.close()
    # The sets change after the blocks 2·E and 3·E.
    assert lines == [0, 0, 1, 2, 2]
    again = Store(tmp_path, label)
    found = again.recover(ledger.data, KINDS)
    assert found.chain.tip.height == len(member.published)
    assert again.snapshot is not None
    assert len(again.snapshot.head.changes) == 2
