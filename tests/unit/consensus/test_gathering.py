"""Gathering records: offsets, gaps, bounds, and the comparison with what is certified."""

from dataclasses import replace

import pytest
from tests.unit.consensus.ledgers import TOPIC, Ledger

from nocturne.client.validators import TEXT_CHARACTERS_MAX
from nocturne.consensus import gathering
from nocturne.consensus.gathering import CertifiedRange, Gathering, LogLost, newest_ranges
from nocturne.core.blocks import Block, Range
from nocturne.core.errors import Halt, Unavailable
from nocturne.core.identifiers import Hash
from nocturne.core.intake import Prepared
from nocturne.core.state_leaf import LogPosition

OTHER = bytes(range(16, 32))
SESSION_OF = {0: "s0", 1: "s1"}


def positions(*following: int) -> tuple[LogPosition, ...]:
    return tuple(
        LogPosition(partition, 1, TOPIC, offset, Hash(bytes(32)))
        for partition, offset in enumerate(following)
    )


def prepared(ledger: Ledger) -> Prepared:
    partition, record = ledger.record("a")
    return ledger.log(partition, record)[1]


def taken(start: int, end: int, partition: int = 0) -> Range:
    return Range(1, TOPIC, partition, start, end, Hash(bytes(32)))


def hash_of(number: int) -> Hash:
    return Hash(bytes(31) + bytes([number]))


@pytest.fixture
def one() -> Prepared:
    return prepared(Ledger())


def test_nothing_waits_at_first() -> None:
    subject = Gathering(TOPIC, positions(5, 0), {}, {})
    assert (subject.has_offsets, subject.waiting) == (False, 0)
    assert subject.batches_after(positions(5, 0)) == []
    assert subject.starts == {0: 5, 1: 0}


def test_records_wait_with_their_offsets_and_skipped_ones_are_gaps(one: Prepared) -> None:
    subject = Gathering(TOPIC, positions(5, 0), {}, {})
    subject.admit(0, 5, one)
    subject.admit(0, 8, one)
    subject.admit(1, 2, one)
    first, second = subject.batches_after(positions(5, 0))
    assert (first.partition, [at for at, _ in first.records], first.end) == (0, [5, 8], 9)
    assert (second.partition, [at for at, _ in second.records], second.end) == (1, [2], 3)
    assert first.topic_uuid == TOPIC


def test_what_a_block_took_waits_no_longer(one: Prepared) -> None:
    subject = Gathering(TOPIC, positions(0, 0), {}, {})
    for offset in range(5):
        subject.admit(0, offset, one)
    subject.taken([taken(0, 3)])
    (batch,) = subject.batches_after(positions(3, 0))
    assert ([at for at, _ in batch.records], subject.waiting) == ([3, 4], 2)
    subject.taken([taken(3, 5)])
    assert not subject.has_offsets
    assert subject.batches_after(positions(5, 0)) == []


def test_what_is_executed_above_the_committed_block_is_not_offered_again(one: Prepared) -> None:
    subject = Gathering(TOPIC, positions(0, 0), {}, {})
    for offset in range(5):
        subject.admit(0, offset, one)
    (batch,) = subject.batches_after(positions(3, 0))
    assert [at for at, _ in batch.records] == [3, 4]
    assert (subject.has_after(positions(4, 0)), subject.has_after(positions(5, 0))) == (True, False)
    assert subject.waiting == 5


def test_a_blocks_ranges_are_there_once_all_their_offsets_came(one: Prepared) -> None:
    subject = Gathering(TOPIC, positions(0, 0), {}, {})
    subject.admit(0, 0, one)
    subject.admit(0, 2, one)
    assert subject.batches_of([taken(0, 4)]) is None
    assert subject.batches_of([taken(0, 3), taken(0, 1, partition=1)]) is None
    assert subject.batches_of([taken(0, 1, partition=7)]) is None
    found = subject.batches_of([taken(1, 3)])
    assert found is not None
    assert [(one.end, [at for at, _ in one.records]) for one in found] == [(3, [2])]
    subject.taken([taken(0, 1)])
    assert subject.batches_of([taken(0, 3)]) is None
    assert subject.batches_of([]) == []


def test_control_markers_at_the_end_are_offsets_to_dispose_of(one: Prepared) -> None:
    subject = Gathering(TOPIC, positions(0, 0), {}, {})
    subject.admit(0, 0, one)
    subject.taken([taken(0, 1)])
    subject.reach(0, 1)
    assert not subject.has_offsets
    subject.reach(0, 3)
    (batch,) = subject.batches_after(positions(1, 0))
    assert (batch.end, list(batch.records)) == (3, [])
    subject.reach(0, 2)
    subject.admit(0, 3, one)
    assert subject.batches_after(positions(1, 0))[0].end == 4


def test_an_offset_that_came_already_asks_for_a_new_start(one: Prepared) -> None:
    subject = Gathering(TOPIC, positions(5, 0), {}, {})
    subject.admit(0, 5, one)
    with pytest.raises(Unavailable, match="expected offset 6 or later, got 5"):
        subject.admit(0, 5, one)


def test_waiting_is_bounded_in_records_and_bytes(
    one: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "WAITING_RECORDS_MAX", 3)
    subject = Gathering(TOPIC, positions(0, 0), {}, {})
    subject.admit(0, 0, one)
    subject.admit(0, 1, one)
    assert not subject.is_full(False)
    subject.admit(1, 0, one)
    assert subject.is_full(False)
    assert not subject.is_full(True)
    for offset in range(1, 10):
        subject.admit(1, offset, one)
    assert subject.is_full(True)
    subject.taken([taken(0, 2), taken(0, 9, partition=1)])
    assert not subject.is_full(False)
    monkeypatch.setattr(gathering, "WAITING_BYTES_MAX", len(one.value or b"") + 10)
    assert not subject.is_full(False)
    subject.admit(1, 10, one)
    assert subject.is_full(False)


# What is certified ------------------------------------------------------------------------------


def certified() -> Gathering:
    """Partition 0 is certified up to 8, its newest range is [5, 8): two records and a gap."""
    ranges = {0: CertifiedRange(0, 5, (hash_of(5), None, hash_of(7)))}
    return Gathering(TOPIC, positions(8, 0), ranges, {0: 0, 1: 0})


def test_the_newest_certified_range_is_read_again_and_executed_no_more(one: Prepared) -> None:
    subject = certified()
    assert subject.starts == {0: 5, 1: 0}
    assert subject.is_certified(0, 7)
    assert not subject.is_certified(0, 8)
    assert not subject.is_certified(1, 0)
    subject.compare(0, 5, hash_of(5))
    subject.compare(0, 7, hash_of(7))
    assert not subject.has_offsets
    subject.admit(0, 8, one)
    assert [at for at, _ in subject.batches_after(positions(8, 0))[0].records] == [8]


def test_a_changed_byte_is_a_halt() -> None:
    with pytest.raises(Halt, match="the log was changed"):
        certified().compare(0, 5, hash_of(6))


def test_what_is_said_of_a_changed_byte_is_shown_whole() -> None:
    start = 2**63 - 4
    ranges = {0: CertifiedRange(0, start, (hash_of(5), None, hash_of(7)))}
    subject = Gathering(TOPIC, positions(start + 3, 0), ranges, {0: start, 1: 0})
    with pytest.raises(LogLost) as lost:
        subject.compare(0, start, hash_of(6))
    assert len(f"its intake stands: {lost.value}") <= TEXT_CHARACTERS_MAX


def test_a_record_where_a_gap_is_certified_is_a_halt() -> None:
    subject = certified()
    subject.compare(0, 5, hash_of(5))
    with pytest.raises(Halt, match="the log was changed"):
        subject.compare(0, 6, hash_of(6))


def test_a_certified_record_that_is_gone_is_a_halt(one: Prepared) -> None:
    with pytest.raises(Halt, match=r"offset 5 .* no longer has it"):
        certified().compare(0, 7, hash_of(7))
    with pytest.raises(Halt, match=r"offset 5 .* no longer has it"):
        certified().admit(0, 8, one)
    with pytest.raises(Halt, match=r"offset 5 .* no longer has it"):
        certified().reach(0, 8)


def test_what_the_broker_has_deleted_by_its_retention_is_not_asked_for(one: Prepared) -> None:
    ranges = {0: CertifiedRange(0, 5, (hash_of(5), None, hash_of(7)))}
    subject = Gathering(TOPIC, positions(8, 0), ranges, {0: 7, 1: 0})
    assert subject.starts == {0: 7, 1: 0}
    subject.compare(0, 7, hash_of(7))
    everything_gone = Gathering(TOPIC, positions(8, 0), ranges, {0: 8, 1: 0})
    assert everything_gone.starts == {0: 8, 1: 0}
    everything_gone.admit(0, 8, one)


def test_a_blocks_ranges_are_compared_record_by_record() -> None:
    ledger = Ledger()
    ledger.write("a", "b", "c", "d")
    partition, record = ledger.record("a")
    ledger.log(partition, record, gap=2)
    made = ledger.extend()
    blocks: list[Block] = [made.block]
    newest = newest_ranges(blocks)
    assert {one.partition for one in made.block.header.ranges} == set(newest)
    assert newest[partition].records[-3:-1] == (None, None)
    assert newest[partition].end == ledger.ends[partition]


# Log epochs ------------------------------------------------------------------------------------


def test_what_stands_offers_nothing_and_still_has_what_was_gathered(one: Prepared) -> None:
    subject = Gathering(TOPIC, positions(0, 0), {}, {})
    subject.admit(0, 0, one)
    (batch,) = subject.batches_after(positions(0, 0))
    subject.stand()
    assert subject.stands
    assert (subject.has_after(positions(0, 0)), subject.batches_after(positions(0, 0))) == (
        False,
        [],
    )
    assert subject.batches_of([taken(0, 1)]) == [batch]


def test_an_opened_log_epoch_forgets_the_records_of_the_one_before(one: Prepared) -> None:
    subject = Gathering(TOPIC, positions(0, 0), {}, {})
    for partition in (0, 1):
        subject.admit(partition, 0, one)
    opened = replace(positions(0, 0)[0], log_epoch=2, topic_uuid=OTHER, next_offset=7)
    subject.reopen(opened)
    assert (subject.waiting, subject.generation) == (1, 1)
    assert subject.batches_of([taken(0, 1)]) is None
    assert not subject.has_after([opened])
    subject.begin(OTHER, [opened, positions(0, 0)[1]], {})
    assert (subject.topic_uuid, subject.starts) == (OTHER, {0: 7, 1: 0})
    subject.admit(0, 7, one)
    (batch,) = subject.batches_after([opened, positions(0, 0)[1]])
    assert (batch.topic_uuid, batch.partition, batch.end) == (OTHER, 0, 8)
    assert subject.batches_of([replace(taken(7, 8), log_epoch=2)]) == [batch]
    assert subject.batches_of([taken(7, 8)]) is None
    # A state of a block that opens another one yet has nothing here.
    assert not subject.has_after([replace(opened, log_epoch=3)])


def test_what_was_certified_is_compared_again_until_more_is_and_not_in_a_new_log_epoch(
    one: Prepared,
) -> None:
    certified = {0: CertifiedRange(0, 3, (hash_of(1), None))}
    subject = Gathering(TOPIC, positions(5, 0), certified, {})
    assert subject.starts[0] == 3
    with pytest.raises(LogLost, match="the log was changed"):
        subject.compare(0, 3, hash_of(2))
    opened = replace(positions(5, 0)[0], log_epoch=2, next_offset=0)
    subject.reopen(opened)
    subject.begin(TOPIC, [opened, positions(0, 0)[1]], {})
    assert subject.starts[0] == 0
    assert not subject.is_certified(0, 3)
    subject.admit(0, 0, one)


def test_commands_of_a_log_epoch_that_is_over_are_left_until_the_new_log_shows_them() -> None:
    ledger = Ledger()
    commands = [prepared(ledger) for _ in range(3)]
    subject = Gathering(TOPIC, positions(0, 0), {}, {})
    for offset, command in enumerate(commands):
        subject.admit(0, offset, command)
    subject.taken([taken(0, 1)])
    assert subject.left == []
    opened = replace(positions(0, 0)[0], log_epoch=2)
    subject.reopen(opened)
    assert subject.left == [(0, commands[1]), (0, commands[2])]
    subject.begin(OTHER, [opened, positions(0, 0)[1]], {})
    subject.admit(0, 0, commands[2])
    assert subject.left == [(0, commands[1])]
    subject.forget_left()
    assert subject.left == []


def test_what_a_block_that_is_not_committed_began_with_another_topic_does_not_go_on(
    one: Prepared,
) -> None:
    """The topic was made anew meanwhile; the partition has no certified range that says so."""
    untouched = (LogPosition(0, 1, bytes(16), 0, Hash(bytes(32))),)
    subject = Gathering(OTHER, untouched, {}, {})
    for offset in range(3):
        subject.admit(0, offset, one)
    assert subject.has_after(untouched)
    begun = positions(1)
    assert not subject.has_after(begun)
    assert subject.batches_after(begun) == []


# Bytes of others -------------------------------------------------------------------------------


def of_others(first: int, last: int) -> Block:
    """A committed block with these offsets of partition 0, none of them a gap."""
    ledger = Ledger()
    ledger.write("a")
    block = ledger.extend().block
    (record,) = block.records
    header = replace(block.header, ranges=(taken(first, last),))
    records = [replace(record, record_hash=hash_of(at)) for at in range(first, last)]
    return replace(block, header=header, records=tuple(records))


def test_what_comes_after_others_gave_it_is_compared_and_waits_for_no_block(one: Prepared) -> None:
    subject = Gathering(TOPIC, positions(0, 0), {}, {})
    for first, last in ((0, 2), (2, 4)):
        subject.expect(of_others(first, last))
        subject.taken([taken(first, last)])
    assert not subject.has_offsets
    assert subject.is_certified(0, 3)
    for offset in range(3):
        subject.compare(0, offset, hash_of(offset))
    assert (subject.waiting, subject.has_after(positions(4, 0))) == (0, False)
    with pytest.raises(LogLost, match="the log was changed"):
        subject.compare(0, 3, hash_of(7))
    with pytest.raises(LogLost, match="no longer has it"):
        subject.reach(0, 4)
    subject.compare(0, 3, hash_of(3))
    subject.admit(0, 4, one)
    (batch,) = subject.batches_after(positions(4, 0))
    assert [at for at, _ in batch.records] == [4]
    subject.taken([taken(4, 5)])
    assert not subject.is_certified(0, 3)


def test_of_what_others_gave_the_newest_hashes_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "LATE_RECORDS_MAX", 3)
    subject = Gathering(TOPIC, positions(0, 0), {}, {})
    for first, last in ((0, 2), (2, 4)):
        subject.expect(of_others(first, last))
        subject.taken([taken(first, last)])
    # The oldest is passed without a look, whatever it is, or if it is none.
    subject.compare(0, 0, hash_of(9))
    with pytest.raises(LogLost):
        subject.compare(0, 1, hash_of(9))
    later = Gathering(TOPIC, positions(0, 0), {}, {})
    for first, last in ((0, 2), (2, 4)):
        later.expect(of_others(first, last))
        later.taken([taken(first, last)])
    later.compare(0, 1, hash_of(1))


def test_what_came_before_others_gave_the_block_must_be_its_own(one: Prepared) -> None:
    subject = Gathering(TOPIC, positions(0, 0), {}, {})
    subject.check_gathered(of_others(0, 2))
    subject.admit(0, 1, one)
    with pytest.raises(LogLost, match=r"not that of the quorum: .* offset 0 of partition 0"):
        subject.check_gathered(of_others(0, 2))
    block = of_others(0, 3)
    gap, record, after = block.records
    own = replace(record, record_hash=one.record_hash)
    subject.check_gathered(replace(block, records=(replace(gap, record_hash=None), own, after)))


def test_the_log_must_have_what_it_brought_and_not_what_others_gave_beyond_it(
    one: Prepared,
) -> None:
    subject = Gathering(TOPIC, positions(0, 0), {}, {})
    subject.admit(0, 0, one)
    subject.expect(of_others(0, 4))
    subject.taken([taken(0, 4)])
    assert [at.next_offset for at in subject.brought(positions(4, 0))] == [1, 0]
    for offset in range(1, 4):
        subject.compare(0, offset, hash_of(offset))
    subject.admit(0, 4, one)
    assert subject.brought(positions(4, 0)) == list(positions(4, 0))
    reopened = replace(positions(4, 0)[0], log_epoch=2)
    assert subject.brought([reopened, positions(4, 0)[1]]) == [positions(4, 0)[1]]
