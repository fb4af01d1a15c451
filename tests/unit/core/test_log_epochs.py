"""A log that the broker lost goes on in a new log epoch, by the operators' word and no other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.ledger_factory import (
    ALICE,
    BOB,
    OPERATORS,
    OTHER_TOPIC_UUID,
    TOPIC_UUID,
    Ledger,
    make_genesis,
    record_value,
)

from nocturne.core import snapshot
from nocturne.core.block_intake import BlockIntake
from nocturne.core.blocks import LOG_EPOCH_MAX, Block, log_continued, log_next
from nocturne.core.control import Control, sign_control
from nocturne.core.encoding import INTEGER_MAX
from nocturne.core.errors import Halt, Malformed
from nocturne.core.events import Position
from nocturne.core.log_epochs import ACTION, LogOpening, opened, opening_fields
from nocturne.core.receipts import Reason, ReceiptHeader, decode_receipt_header
from nocturne.core.state_leaf import LogPosition


@pytest.fixture
def ledger() -> Ledger:
    """One partition, in which two sessions were opened."""
    made = Ledger(make_genesis(partitions=1))
    made.append(made.opening("a"))
    made.append(made.opening("b", author=BOB))
    made.commit()
    return made


def intake_of(ledger: Ledger) -> BlockIntake:
    return BlockIntake(
        ledger.ledger_id,
        ledger.genesis.founding_sets,
        1,
        positions=ledger.founding.positions,
    )


def read(ledger: Ledger, intake: BlockIntake | None = None) -> BlockIntake:
    """All of the ledger's blocks, given out."""
    intake = intake or intake_of(ledger)
    given = [one for block in ledger.blocks for one in intake.offer(record_value(block))]
    assert [one.block.digest for one in given] == [one.digest for one in ledger.blocks]
    return intake


def test_the_log_goes_on_from_its_last_hash_at_the_offset_that_the_operators_said(
    ledger: Ledger,
) -> None:
    (before,) = ledger.state.positions
    ledger.lose_log(0)
    block = ledger.commit(control=[ledger.opening_of_log(0, start=3)])
    assert block.header.ranges == ()
    start = log_continued(before.log_hash, OTHER_TOPIC_UUID, 2)
    assert ledger.state.positions == (LogPosition(0, 2, OTHER_TOPIC_UUID, 3, start),)
    ledger.log[0] = [None, None, None]
    signed = ledger.command("a", number=2)
    ledger.append(signed)
    (one,) = ledger.commit().header.ranges
    record = ledger.log[0][3]
    assert record is not None
    expected = log_next(start, 3, ledger.prepare(0, record).record_hash)
    assert (one.log_epoch, one.topic_uuid, one.start, one.end, one.log_hash) == (
        2, OTHER_TOPIC_UUID, 3, 4, expected,
    )  # fmt: skip
    answer = ledger.answers[0, 3]
    assert isinstance(answer, tuple)
    assert answer[0].position == Position(2, 0, 3)
    assert read(ledger).positions == ledger.state.positions


def test_records_of_one_block_stand_before_the_log_epoch_that_it_opens(ledger: Ledger) -> None:
    ledger.append(ledger.command("a", number=2))
    block = ledger.commit(control=[ledger.opening_of_log(0)])
    (one,) = block.header.ranges
    assert (one.log_epoch, one.start, one.end) == (1, 2, 3)
    assert ledger.state.positions[0].log_hash == log_continued(one.log_hash, OTHER_TOPIC_UUID, 2)
    assert read(ledger).positions == ledger.state.positions


def test_a_log_that_was_lost_goes_on_in_the_same_topic_too(ledger: Ledger) -> None:
    """What the broker still has of it is executed again, and changes nothing."""
    heads = [ledger.session(name).head_hash for name in "ab"]
    ledger.lose_log(0, TOPIC_UUID, kept=1)
    ledger.commit(control=[ledger.opening_of_log(0, TOPIC_UUID)])
    block = ledger.commit()
    (one,) = block.header.ranges
    assert (one.log_epoch, one.topic_uuid, one.start, one.end) == (2, TOPIC_UUID, 0, 1)
    receipt = decode_receipt_header(block.records[0].receipt or b"")
    assert receipt.reason is Reason.REPEATED
    assert receipt.first_position == Position(1, 0, 0)
    assert [ledger.session(name).head_hash for name in "ab"] == heads
    read(ledger)


def test_commands_that_are_appended_again_are_accepted_once(ledger: Ledger) -> None:
    ledger.append(ledger.command("a", number=2))
    lost = ledger.lose_log(0, kept=2)
    ledger.log[0].clear()
    ledger.commit(control=[ledger.opening_of_log(0)])
    # By each of two who held it.
    for record in (*lost, *lost):
        ledger.append(record, 0)
    ledger.commit()
    first, second = ledger.answers[0, 0], ledger.answers[0, 1]
    assert isinstance(first, tuple)
    assert first[0].position == Position(2, 0, 0)
    assert isinstance(second, ReceiptHeader)
    assert (second.reason, second.first_position) == (Reason.REPEATED, Position(2, 0, 0))
    assert ledger.session("a").sequence == 2


def test_a_log_epoch_may_be_opened_before_the_partition_had_a_record() -> None:
    ledger = Ledger(make_genesis(partitions=1))
    ledger.commit(control=[ledger.opening_of_log(0, start=5)])
    (position,) = ledger.state.positions
    assert position.log_hash == log_continued(ledger.founding.positions[0].log_hash,
                                              OTHER_TOPIC_UUID, 2)  # fmt: skip
    ledger.lose_log(0)
    ledger.log[0] = [None] * 5
    ledger.append(ledger.opening("a"))
    assert ledger.commit().header.ranges[0].start == 5
    read(ledger)


def test_several_log_epochs_open_one_after_the_other_in_one_block(ledger: Ledger) -> None:
    records = [
        ledger.opening_of_log(0, number=1),
        ledger.opening_of_log(0, TOPIC_UUID, 7, number=2, log_epoch=3),
    ]
    (position,) = ledger.state.positions
    ledger.commit(control=records)
    for opening in (LogOpening(0, 2, OTHER_TOPIC_UUID, 0), LogOpening(0, 3, TOPIC_UUID, 7)):
        position = opened(position, opening)
    assert ledger.state.positions == (position,)
    assert read(ledger).positions == (position,)


def test_a_log_epoch_that_is_not_the_next_one_makes_the_block_invalid(ledger: Ledger) -> None:
    wrong = {
        "expected 2 of partition 0 next, got 3": ledger.opening_of_log(0, log_epoch=3),
        "expected 2 to 2147483647, got 1": ledger.opening_of_log(0, log_epoch=1),
        "no partition 1": _of_another_partition(ledger, 1),
        "no partition has the number 256": _of_another_partition(ledger, 256),
        "names no topic": ledger.opening_of_log(0, bytes(16)),
        "got -1": ledger.opening_of_log(0, start=-1),
        f"up to {INTEGER_MAX}": ledger.opening_of_log(0, start=INTEGER_MAX + 1),
        "number 1, got 2": ledger.opening_of_log(0, number=2),
        "valid up to height 1": ledger.opening_of_log(0, last_valid_height=1),
        "signatures of 2 of 3 operators": ledger.opening_of_log(0, signers=OPERATORS[:1]),
        "and of nobody else": ledger.opening_of_log(0, signers=(*OPERATORS[:2], ALICE)),
    }
    for message, record in wrong.items():
        with pytest.raises(Malformed, match=message):
            ledger.execute(control=[record])
    stale = ledger.opening_of_log(0)
    ledger.lose_log(0)
    ledger.commit(control=[stale])
    with pytest.raises(Malformed, match="number 2, got 1"):
        ledger.execute(control=[stale])
    with pytest.raises(Malformed, match="expected 3 of partition 0 next, got 2"):
        ledger.execute(control=[ledger.opening_of_log(0, number=2, log_epoch=2)])


def _of_another_partition(ledger: Ledger, partition: int) -> bytes:
    fields = opening_fields(LogOpening(partition, 2, OTHER_TOPIC_UUID, 0))
    return sign_control(Control(ledger.ledger_id, 1, 100, ACTION, fields), OPERATORS[:2])


def test_after_the_last_log_epoch_there_is_none() -> None:
    ledger = Ledger(make_genesis(partitions=1))
    (position,) = ledger.state.positions
    last = replace(position, log_epoch=LOG_EPOCH_MAX)
    ledger.state = replace(ledger.state, positions=(last,))
    with pytest.raises(Malformed):
        ledger.execute(control=[ledger.opening_of_log(0)])


def test_records_of_the_topic_before_are_no_part_of_the_new_log_epoch(ledger: Ledger) -> None:
    ledger.commit(control=[ledger.opening_of_log(0)])
    ledger.append(ledger.command("a", number=2))
    with pytest.raises(Halt, match="made anew"):
        ledger.commit()


def test_a_snapshot_keeps_the_open_log_epoch(ledger: Ledger) -> None:
    ledger.commit(control=[ledger.opening_of_log(0, start=4)])
    again = snapshot.decode(ledger.genesis_bytes, snapshot.encode(ledger.state), ledger.registry)
    assert again.root_hash == ledger.state.root_hash
    assert again.positions == ledger.state.positions


# Readers ---------------------------------------------------------------------------------------


def _reopened(ledger: Ledger) -> list[Block]:
    """Blocks of log epoch 1, its end, and blocks of log epoch 2 at the same offsets."""
    ledger.lose_log(0)
    ledger.log[0].clear()
    ledger.commit(control=[ledger.opening_of_log(0)])
    for number in range(2, 5):
        ledger.append(ledger.command("a", number=number))
        ledger.commit()
    return ledger.blocks


def test_a_reader_that_knows_the_positions_takes_the_new_log_epoch_wherever_it_begins(
    ledger: Ledger,
) -> None:
    blocks = _reopened(ledger)
    intake = intake_of(ledger)
    for height, block in enumerate(blocks, 1):
        (given,) = intake.offer(record_value(block))
        assert given.block.header.height == height
        later = BlockIntake(
            ledger.ledger_id,
            intake.sets,
            height + 1,
            block.digest,
            intake.positions,
        )
        for following in blocks[height:]:
            assert later.offer(record_value(following))
        assert later.positions == ledger.state.positions


def test_a_reader_without_a_past_takes_ranges_of_any_log_epoch(ledger: Ledger) -> None:
    blocks = _reopened(ledger)
    for first in range(len(blocks)):
        intake = BlockIntake(ledger.ledger_id, ledger.genesis.founding_sets, None)
        given = [one for block in blocks[first:] for one in intake.offer(record_value(block))]
        assert len(given) == len(blocks) - first


def test_a_certified_range_of_a_log_epoch_that_nobody_opened_halts(ledger: Ledger) -> None:
    blocks = _reopened(ledger)
    block = blocks[2]
    positions = [replace(one, log_epoch=1) for one in intake_at(ledger, 2).positions]
    intake = BlockIntake(
        ledger.ledger_id, ledger.genesis.founding_sets, 3, blocks[1].digest, positions
    )
    with pytest.raises(Halt, match="of log epoch 2, expected 0 of log epoch 1"):
        intake.offer(record_value(block))


def test_a_certified_opening_that_is_not_the_next_log_epoch_halts(ledger: Ledger) -> None:
    blocks = _reopened(ledger)
    positions = [replace(one, log_epoch=5) for one in intake_at(ledger, 1).positions]
    intake = BlockIntake(
        ledger.ledger_id, ledger.genesis.founding_sets, 2, blocks[0].digest, positions
    )
    with pytest.raises(Halt, match="expected 6 of partition 0 next, got 2"):
        intake.offer(record_value(blocks[1]))


def intake_at(ledger: Ledger, height: int) -> BlockIntake:
    intake = intake_of(ledger)
    for block in ledger.blocks[:height]:
        intake.offer(record_value(block))
    return intake


# Where blocks end ------------------------------------------------------------------------------


@given(st.integers(min_value=0, max_value=2**32))
def test_where_blocks_end_changes_no_event_and_no_receipt_across_log_epochs(seed: int) -> None:
    """The same logs and openings, cut into blocks in two ways, come to the same state."""
    dice = Random(seed)
    records = [dice.randrange(1, 6) for _ in range(3)]
    repeated = dice.randrange(0, 4)
    starts = [0, dice.randrange(3), dice.randrange(3)]
    one, other = (_run(records, repeated, starts, Random(f"{seed}/{way}")) for way in range(2))
    assert one.state.root_hash == other.state.root_hash
    assert one.state.positions == other.state.positions
    for ledger in (one, other):
        assert read(ledger).positions == ledger.state.positions
        positions = list(_positions(ledger))
        assert len(positions) == len(set(positions)), "each has one disposition"
        assert positions == sorted(positions, key=lambda at: (at.log_epoch, at.offset))
        # With gaps below where a log epoch starts nothing else is left.
        assert [at.log_epoch for at in positions].count(1) == records[0]


def _run(records: list[int], repeated: int, starts: list[int], dice: Random) -> Ledger:
    ledger = Ledger(make_genesis(partitions=1))
    number = 1
    held: list[object] = []
    for epoch, (count, start) in enumerate(zip(records, starts, strict=True), 1):
        if epoch > 1:
            topic = bytes([epoch] * 16)
            ledger.lose_log(0, topic)
            ledger.commit(control=[ledger.opening_of_log(0, topic, start, number=epoch - 1)])
            ledger.log[0] = [None] * start
            for record in held[-repeated:] if repeated else ():
                ledger.append(record, 0)  # type: ignore[arg-type]
        for _ in range(count):
            ledger.append(
                ledger.opening("a") if number == 1 else ledger.command("a", number=number)
            )
            number += 1
        held = list(ledger.log[0][start:])
        while (at := ledger.state.positions[0].next_offset) < len(ledger.log[0]):
            ledger.commit({0: dice.randint(at + 1, len(ledger.log[0]))})
    return ledger


def _positions(ledger: Ledger) -> Iterator[Position]:
    for block in ledger.blocks:
        for one in block.header.ranges:
            for offset in range(one.start, one.end):
                yield Position(one.log_epoch, one.partition, offset)
