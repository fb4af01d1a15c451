"""A lost log: validators take no more of it, certify the operators' record that opens the next log
epoch, and go on with the new log.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.consensus.committees import Committee, Member, committed
from tests.unit.consensus.ledgers import OPERATOR, PARTITIONS

from nocturne.consensus.offers import Part
from nocturne.consensus.quorum.messages import Cast, Vote
from nocturne.consensus.replica import BODY_COPIES_MAX, Say
from nocturne.core.block_intake import BlockIntake
from nocturne.core.blocks import LogRecord, encode_block
from nocturne.core.certificates import VoteKind
from nocturne.core.control import Control, sign_control
from nocturne.core.log_epochs import ACTION, LogOpening, opening_fields
from nocturne.core.receipts import Reason, decode_receipt_header
from nocturne.core.topics import BLOCKS, FIXED_SCHEMA_IDS, frame, partition_of

ANEW = bytes(range(16, 32))


def opening(committee: Committee, partition: int, number: int, start: int = 0) -> bytes:
    """The operators' record that lets a partition go on with the new topic."""
    fields = opening_fields(LogOpening(partition, 2, ANEW, start))
    control = Control(committee.ledger.ledger_id, number, 1_000, ACTION, fields)
    return sign_control(control, (OPERATOR,))


def open_all(committee: Committee) -> None:
    """The log epochs of all partitions, one after the other."""
    for partition in range(PARTITIONS):
        committee.control(opening(committee, partition, partition + 1))
        committee.run(2_000)


def again(committee: Committee, records: list[LogRecord]) -> None:
    """Records that are appended again to the new topic."""
    for record in records:
        assert record.key is not None
        committee.ledger.log(partition_of(record.key, PARTITIONS), record)


def read_by(member: Member, committee: Committee) -> BlockIntake:
    """All that a member published, as a consumer takes it."""
    ledger = committee.ledger
    intake = BlockIntake(
        ledger.ledger_id, ledger.genesis.founding_sets, 1, positions=ledger.founding.positions
    )
    for made in member.published:
        value = frame(FIXED_SCHEMA_IDS[BLOCKS], encode_block(made.block))
        assert [one.block.digest for one in intake.offer(value)] == [made.block.digest]
    return intake


def agreed(committee: Committee, heights: int) -> None:
    """All living members have the same chain of at least so many blocks; consumers take it."""
    living = [one for one in committee.members if one.alive]
    chains = [committee.digests(one) for one in living]
    assert all(one == chains[0] for one in chains), [len(one) for one in chains]
    assert len(chains[0]) >= heights
    for one in living:
        positions = read_by(one, committee).positions
        assert positions == one.replica.chain.state.positions


@pytest.mark.parametrize("n", [1, 4])
def test_after_a_recreated_topic_the_chain_goes_on_in_the_next_log_epoch(n: int) -> None:
    committee = Committee(n)
    for number in range(8):
        committee.write(f"s{number % 4}")
        committee.run(100)
    committee.run(1_000)
    before = [len(one.published) for one in committee.members]
    committee.lose_log(ANEW)
    committee.write("new", "s1", "s2")
    committee.run(5_000)
    assert [len(one.published) for one in committee.members] == before, "no record of the new topic"
    open_all(committee)
    committee.begin_anew()
    committee.run(2_000)
    for one in committee.members:
        newest = one.replica.chain.state.positions
        assert {(at.log_epoch, at.topic_uuid) for at in newest} == {(2, ANEW)}
        assert sum(at.next_offset for at in newest) == 3
    agreed(committee, before[0] + PARTITIONS + 1)


def test_a_standing_validator_takes_part_in_the_blocks_without_ranges_alone() -> None:
    committee = Committee(4)
    committee.write("a")
    committee.run(1_000)
    height = committee.members[0].replica.height
    # These records reach everyone, who stand before any block has them.
    committee.ledger.write("b", "c")
    for member in committee.members:
        member.replica.gathering.stand()
        committee.do(member, member.replica.look(committee.clock))
    committee.run(10_000)
    assert {one.replica.height for one in committee.members} == {height}
    committee.control(opening(committee, 0, 1))
    committee.run(5_000)
    for member in committee.members:
        carried = member.published[-1].block
        assert (carried.header.ranges, len(carried.control)) == ((), 1)


def test_a_record_for_another_log_epoch_or_twice_is_dismissed() -> None:
    committee = Committee(4)
    committee.write("a", "b")
    committee.run(1_000)
    committee.lose_log(ANEW)
    first = opening(committee, 0, 1)
    committee.control(first)
    committee.run(2_000)
    height = committee.members[0].replica.height
    committee.control(first)
    committee.control(opening(committee, 0, 2))
    committee.run(10_000)
    assert {one.replica.height for one in committee.members} == {height}
    committee.control(opening(committee, 1, 2))
    committee.run(2_000)
    assert {one.replica.height for one in committee.members} == {height + 1}


@pytest.mark.parametrize("seed", range(12))
def test_whenever_the_log_is_lost_the_chain_goes_on_and_every_held_command_is_certified(
    seed: int,
) -> None:
    """Blocks are on their way when the log is lost, and some have no records for them."""
    committee = Committee(4, seed)
    dice = committee.dice
    for number in range(dice.randint(3, 12)):
        committee.write(f"s{number % 3}")
        committee.run(dice.randint(0, 30))
    lost = committee.lose_log(ANEW)
    committee.run(dice.randint(0, 3_000))
    open_all(committee)
    committee.run(3_000)
    committee.begin_anew()
    again(committee, lost)
    committee.write("after")
    committee.run(10_000)
    agreed(committee, 4)
    (chain,) = {tuple(committee.digests(one)) for one in committee.members}
    assert chain
    accepted: list[bytes] = []
    for made in committee.members[0].published:
        for record in made.block.records:
            if record.events:
                accepted.append(record.value or b"")
            elif record.receipt is not None:
                assert decode_receipt_header(record.receipt).reason is Reason.REPEATED
    assert len(set(accepted)) == len(accepted), "each command once"
    assert len(accepted) == len(lost) + 1


def test_who_has_the_records_of_a_committed_block_from_nowhere_takes_them_from_the_topic() -> None:
    committee = Committee(4)
    committee.write("a")
    committee.run(1_000)
    late = committee.members[3]
    late.alive = False
    committee.write("b", "c")
    committee.run(2_000)
    known = len(late.published)
    missed = list(committee.members[0].published[known:])
    assert missed
    committee.lose_log(ANEW)
    open_all(committee)
    late.alive = True
    late.replica.gathering.stand()
    for made in committee.members[0].published[known:]:
        committee.bring(late, made)
    committee.begin_anew()
    committee.write("d")
    committee.run(3_000)
    agreed(committee, known + len(missed) + PARTITIONS + 1)


def test_a_body_of_strangers_is_no_committed_block() -> None:
    committee = Committee(4)
    committee.write("a")
    committee.run(1_000)
    late = committee.members[3]
    late.alive = False
    committee.write("b")
    committee.run(2_000)
    committee.lose_log(ANEW)
    late.alive = True
    (made,) = committee.members[0].published[len(late.published) :]
    block = made.block
    gone = replace(block.records[0], value=None)
    strangers = [
        replace(block, records=(gone,)),
        replace(block, records=()),
        replace(block, records=(replace(block.records[0], headers=b"x"),)),
    ]
    for body in strangers:
        committee.bring(late, replace(made, block=body))
        assert late.replica.unfinished == 1
    committee.bring(late, made)
    assert late.replica.unfinished == 0
    assert committee.digests(late) == committee.digests(committee.members[0])


def test_two_of_four_hold_what_was_notarized_and_the_chain_goes_on_by_what_they_give() -> None:
    """Its finalization is lost for ever: only a block that stands on it can commit it, and for that
    a third validator has to execute it, whose log is lost.
    """
    committee = Committee(4)
    committee.write("a")
    committee.run(1_000)
    first, second, third, without = committee.members
    without.withheld = True
    view = first.replica.machine.view

    def loses_finalizations(_: Member, __: Member, say: Say) -> bool:
        message = say.message
        if not isinstance(message, Cast) or message.vote.kind is not VoteKind.FINALIZE:
            return False
        return message.vote.view == view

    def gives_nothing(giver: Member, part: Part) -> None:
        del giver, part

    committee.loses = loses_finalizations
    committee.tampers = gives_nothing
    committee.write("b")
    committee.run(60)
    notarized = first.replica.machine.parent
    assert [one.replica.chain.executed(notarized) is None for one in committee.members] == [
        False,
        False,
        False,
        True,
    ]
    committee.kill(third)
    committee.lose_log(ANEW)
    committee.control(opening(committee, 0, 1))
    committee.run(30_000)
    living = [first, second, without]
    assert {one.replica.height for one in living} == {1}, "nobody else can execute it"
    committee.tampers = lambda giver, part: part
    committee.run(60_000)
    committee.control(opening(committee, 1, 2))
    committee.run(5_000)
    without.withheld = False
    committee.begin_anew()
    committee.write("c")
    committee.run(5_000)
    chains = [committee.digests(one) for one in living]
    assert chains == [chains[0]] * 3
    assert bytes(notarized) in chains[0]
    assert without.fetched == 1
    votes = [one for one in without.kept if isinstance(one, Vote)]
    assert notarized not in [one.digest for one in votes if one.kind is VoteKind.NOTARIZE]
    for one in living:
        assert sum(made.block.header.record_count for made in one.published) == 3
        assert read_by(one, committee).positions == one.replica.chain.state.positions


def test_few_bodies_of_one_block_are_held_however_many_come() -> None:
    committee = Committee(4)
    committee.write("a")
    committee.run(1_000)
    late = committee.members[3]
    late.alive = False
    for session in ("b", "c"):
        committee.write(session)
        committee.run(2_000)
    committee.lose_log(ANEW)
    late.alive = True
    first, second = committee.members[0].published[len(late.published) :]
    for made in (first, second):
        late.replica.hear(None, committed(made), committee.clock)
    assert late.replica.unfinished == 2
    strange = replace(second.block, records=())
    for body in [strange] * 100 + [second.block]:
        committee.bring_body(late, replace(second, block=body))
    (held,) = late.replica._bodies.values()
    assert len(held) == BODY_COPIES_MAX
    committee.bring_body(late, first)
    assert committee.digests(late) == committee.digests(committee.members[0])


def test_where_one_is_enough_an_observer_is_last() -> None:
    committee = Committee(4)
    committee.join(900)
    assert [one.replica.turn for one in committee.members] == [0, 1, 2, 3, 4]
