"""Every interleaving of what is published, and of what strangers add, gives the same blocks."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.ledger_factory import AUTHORITY, pointing, record_value, signer
from tests.unit.projection.chains import Chain, every_outcome
from tests.unit.projection.published import publish
from tests.unit.projection.topics_in_memory import Message, Reader, tree_after, with_offsets

from nocturne.core import topics
from nocturne.core.blocks import StateChange, encode_seal, sign_seal
from nocturne.core.conflicts import check_conflict
from nocturne.core.errors import Halt
from nocturne.core.execution import PartitionBatch, execute
from nocturne.core.identifiers import Hash
from nocturne.core.modes import DegradedFound
from nocturne.core.state import LedgerState
from nocturne.projection import collector as collector_module
from nocturne.projection.collector import Cause

STRANGER = signer(99)
EXAMPLES = settings(max_examples=60, deadline=None)


@cache
def chain() -> Chain:
    made = every_outcome()
    made.grow(4, seed=11)
    return made


def genuine(made: Chain, number: int) -> list[Message]:
    """Everything published of one block, in its order, the block first."""
    block, published = made.published[number]
    return [
        Message(topics.BLOCKS, 0, record_value(block)),
        *map(Message.of, published.records),
        Message(topics.SEALS, 0, published.seal_value),
    ]


def forgeries(made: Chain, number: int) -> list[Message]:
    """Records of a stranger who knows the block."""
    block, _ = made.published[number]
    false = publish(block, STRANGER)
    records = [Message.of(record) for record in false.records]
    first = records[0]
    altered = replace(block, state_changes=(StateChange(Hash(bytes(32)), b"x"),))
    return [
        *records,
        replace(first, height=10**12),
        replace(first, value=b"junk"),
        replace(first, record_id=b"unknown"),
        replace(first, topic=topics.RECEIPTS, partition=3),
        Message(topics.SEALS, 0, false.seal_value),
        Message(topics.SEALS, 0, b""),
        Message(topics.BLOCKS, 0, b"\x00\x00\x00\x00\x02"),
        Message(topics.BLOCKS, 0, record_value(altered)),
    ]


def interleaved(queues: list[list[Message]], dice: random.Random) -> list[Message]:
    """One order of all, each queue in its own."""
    waiting = [list(queue) for queue in queues if queue]
    mixed = []
    while waiting:
        queue = dice.choice(waiting)
        mixed.append(queue.pop(0))
        waiting = [one for one in waiting if one]
    return mixed


def by_partition(messages: list[Message]) -> list[list[Message]]:
    queues: dict[tuple[str, int], list[Message]] = {}
    for message in messages:
        queues.setdefault((message.topic, message.partition), []).append(message)
    return list(queues.values())


def assert_all_signed(reader: Reader, made: Chain, first: int = 0) -> None:
    expected = made.published[first:]
    assert [one.folded.block.header.height for one in reader.signed] == [
        block.header.height for block, _ in expected
    ]
    for signed, (block, published) in zip(reader.signed, expected, strict=True):
        assert signed.folded.block.digest == block.digest
        assert tuple(signed.signatures) == published.signatures
        assert signed.seal == published.seal


@EXAMPLES
@given(st.integers(0, 2**32))
def test_partitions_may_be_read_in_any_interleaving(seed: int) -> None:
    made = chain()
    messages = [one for number in range(len(made.published)) for one in genuine(made, number)]
    reader = Reader(made)
    reader.read_all(with_offsets(interleaved(by_partition(messages), random.Random(seed))))
    assert_all_signed(reader, made)
    assert reader.refusals == []
    assert reader.collector.held == 0


@EXAMPLES
@given(st.integers(0, 2**32))
def test_records_may_come_twice_and_out_of_order(seed: int) -> None:
    made = chain()
    dice = random.Random(seed)
    blocks = [Message(topics.BLOCKS, 0, record_value(block)) for block, _ in made.published]
    others = [
        one
        for number in range(len(made.published))
        for one in genuine(made, number)[1:]
        for _ in range(dice.choice((1, 1, 2)))
    ]
    dice.shuffle(others)
    reader = Reader(made)
    reader.read_all(with_offsets(interleaved([blocks, others], dice)))
    assert_all_signed(reader, made)
    assert reader.refusals == []


@EXAMPLES
@given(st.integers(0, 2**32))
# One false receipt in two partitions: the second copy was taken for a repetition, and not counted.
@example(80621822)
def test_strangers_records_are_refused_and_only_they(seed: int) -> None:
    made = chain()
    dice = random.Random(seed)
    messages: list[Message] = []
    for number in range(len(made.published)):
        messages += genuine(made, number)
    false = [one for number in range(len(made.published)) for one in forgeries(made, number)]
    chosen = dice.sample(false, 12)
    mixed = with_offsets(interleaved([*by_partition(messages), chosen], dice))
    forged_values = {(one.topic, one.record_id, one.height, one.value) for one in chosen}
    forged = {
        one.place
        for one in mixed
        if (one.topic, one.record_id, one.height, one.value) in forged_values
    }
    reader = Reader(made)
    reader.read_all(mixed)
    reader.tick()
    assert_all_signed(reader, made)
    # A false copy that waited beside the true block is refused when that one's turn comes.
    places = {(one.topic, one.partition, one.offset) for one in reader.refusals}
    assert of_signatures(places) == of_signatures(forged)
    assert len(places - of_signatures(places)) == len(forged - of_signatures(forged))
    assert len(places) == len(reader.refusals)
    assert reader.collector.held == 0


def of_signatures(places: set[tuple[str, int, int]]) -> set[tuple[str, int, int]]:
    return {place for place in places if place[0] != topics.BLOCKS}


@EXAMPLES
@given(st.integers(0, 2**32), st.data())
def test_a_restart_from_the_low_waters_loses_nothing(seed: int, data: st.DataObject) -> None:
    made = chain()
    dice = random.Random(seed)
    messages: list[Message] = []
    last = made.published[-1][0]
    for number in range(len(made.published)):
        records = genuine(made, number)
        if number in (4, 5, 6):
            # The proof of these stands in the last block: they wait in the intake.
            records[0] = replace(
                records[0], value=record_value(pointing(made.published[number][0], last))
            )
        messages += records
        if dice.random() < 0.5:
            # Published again by a signing service that was killed.
            messages += records[1:]
    mixed = with_offsets(interleaved(by_partition(messages), dice))
    cut = data.draw(st.integers(0, len(mixed)))
    first = Reader(made)
    first.read_all(mixed[:cut])
    applied = len(first.signed)
    low = first.low_waters()
    second = Reader(
        made,
        applied,
        made.published[applied - 1][0].digest if applied else b"",
        tree_after(state_at(made, applied)),
    )
    second.read_all([one for one in mixed if one.offset >= low.get((one.topic, one.partition), 0)])
    assert_all_signed(second, made, applied)
    assert second.refusals == []


def state_at(made: Chain, height: int) -> LedgerState:
    """The state after a block, by executing the log again."""
    state = made.ledger.founding
    for block in made.ledger.blocks[:height]:
        batches = []
        for one in block.header.ranges:
            records = [
                (offset, made.ledger.prepare(one.partition, record))
                for offset in range(one.start, one.end)
                if (record := made.ledger.log[one.partition][offset]) is not None
            ]
            batches.append(PartitionBatch(one.partition, one.topic_uuid, one.end, records))
        state = execute(state, batches).state
    return state


def test_a_block_waits_for_its_last_signature_and_holds_the_next_ones_back() -> None:
    made = chain()
    first, second = genuine(made, 0), genuine(made, 1)
    reader = Reader(made)
    missing = first.pop(1)
    reader.read_all(with_offsets([*first, *second]))
    assert reader.signed == []
    assert reader.collector.waiting == 2
    reader.read_all([replace(missing, offset=100)])
    assert [one.folded.block.header.height for one in reader.signed] == [1, 2]


def test_a_block_waits_for_its_seal() -> None:
    made = chain()
    *records, seal = genuine(made, 0)
    reader = Reader(made)
    reader.read_all(with_offsets(records))
    assert reader.signed == []
    reader.read_all([seal])
    assert len(reader.signed) == 1


def test_two_seals_of_one_height_halt() -> None:
    made = chain()
    _, published = made.published[0]
    seal = published.seal
    other = sign_seal(AUTHORITY, seal.ledger_id, 1, Hash(bytes(32)), seal.signatures_hash)
    value = topics.frame(3, encode_seal(other))
    reader = Reader(made)
    with pytest.raises(Halt, match="sealed"):
        reader.read_all([Message(topics.SEALS, 0, value), *genuine(made, 0)])


def test_two_seals_of_a_height_whose_block_is_not_here_are_a_proof() -> None:
    """Whoever reads the block first has only its own word against the authority's."""
    made = chain()
    _, published = made.published[0]
    seal = published.seal
    other = sign_seal(AUTHORITY, seal.ledger_id, 1, Hash(bytes(32)), seal.signatures_hash)
    value = topics.frame(3, encode_seal(other))
    messages = [
        Message(topics.SEALS, 0, value),
        Message(topics.SEALS, 0, published.seal_value),
    ]
    for each in (messages, messages[::-1]):
        with pytest.raises(DegradedFound, match="sealed two blocks") as found:
            Reader(made).read_all(with_offsets(each))
        conflict = found.value.degraded.conflict
        assert conflict is not None
        sets = made.ledger.genesis.founding_sets
        check_conflict(conflict, seal.ledger_id, sets, AUTHORITY.key)


def test_a_false_record_that_came_first_gives_way_to_the_true_one() -> None:
    made = chain()
    block, _ = made.published[0]
    false = [Message.of(record) for record in publish(block, STRANGER).records]
    reader = Reader(made)
    messages = with_offsets([*false, *genuine(made, 0)])
    reader.read_all(messages)
    assert_all_signed(reader, Chain(made.ledger, made.published[:1]))
    assert [one.cause for one in reader.refusals] == [Cause.EVENT_SIGNATURE] * len(false)


def test_a_copy_with_another_payload_is_refused_before_and_after_its_block() -> None:
    made = chain()
    messages = genuine(made, 0)
    record = next(one for one in messages if one.topic == topics.EVENTS)
    copy = replace(record, value=record.value[:-1] + b"!")
    reader = Reader(made)
    reader.read_all(with_offsets([record, copy, *messages, copy, record]))
    assert len(reader.signed) == 1
    assert [one.cause for one in reader.refusals] == [Cause.EVENT_SIGNATURE] * 2


def test_a_record_of_a_block_that_never_comes_is_judged_and_dropped() -> None:
    made = chain()
    block, published = made.published[0]
    far = replace(Message.of(publish(block, STRANGER).records[0]), height=10**9)
    lying = replace(Message.of(published.records[0]), height=10**9)
    early = Message.of(made.published[3][1].records[0])
    reader = Reader(made)
    reader.read_all(with_offsets([far, lying, early]))
    assert reader.refusals == []
    assert reader.collector.held == 3
    assert reader.collector.judge(100) == 0
    assert reader.collector.judge(100) == 3
    reader.take()
    # What the authority signed is still awaited.
    assert reader.collector.held == 1
    assert len(reader.refusals) == 2
    assert reader.collector.judge(100) == 0


def test_records_over_the_bound_are_let_go_and_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made = chain()
    monkeypatch.setattr(collector_module, "HELD_BYTES_MAX", 4_000)
    monkeypatch.setattr(collector_module, "HELD_BYTES_LIMIT", 8_000)
    messages = with_offsets(
        [one for number in range(len(made.published)) for one in genuine(made, number)]
    )
    blocks = [one for one in messages if one.topic == topics.BLOCKS]
    others = [one for one in messages if one.topic != topics.BLOCKS]
    reader = Reader(made)
    reader.read_all(others)
    assert reader.collector.shed(topics.EVENTS)
    assert not reader.collector.wants(topics.EVENTS)
    assert reader.refusals == []
    reader.read_all(blocks)
    rounds = 0
    while reader.collector.shed(topics.EVENTS) or reader.collector.shed(topics.RECEIPTS):
        rounds += 1
        assert rounds < 100
        for topic in (topics.EVENTS, topics.RECEIPTS):
            low = reader.low_waters()
            if reader.collector.shed(topic):
                reader.collector.reread(topic)
                reader.read_all(
                    [
                        one
                        for one in others
                        if one.topic == topic and one.offset >= low[topic, one.partition]
                    ]
                )
    assert_all_signed(reader, made)
    assert reader.refusals == []


def test_while_no_block_is_wanted_signatures_still_are(monkeypatch: pytest.MonkeyPatch) -> None:
    made = chain()
    monkeypatch.setattr(collector_module, "PENDING_BYTES_MAX", 1)
    monkeypatch.setattr(collector_module, "HELD_BYTES_MAX", 1)
    reader = Reader(made)
    reader.read_all(with_offsets(genuine(made, 0)[:1]))
    assert not reader.collector.wants_blocks()
    reader.read_all([replace(genuine(made, 1)[1], offset=5)])
    assert reader.collector.wants(topics.EVENTS)


def test_refusals_that_are_not_written_yet_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector_module, "REFUSALS_MAX", 2)
    reader = Reader(chain())
    for offset in range(2):
        reader.collector.offer_seal(0, offset, b"junk")
    assert not reader.collector.wants_seals()
    assert not reader.collector.wants_blocks()
    assert not reader.collector.wants(topics.EVENTS)
    reader.collector.take_refusals()
    assert reader.collector.wants_seals()


def test_nothing_above_a_height_is_taken_while_it_is_the_bound() -> None:
    made = chain()
    reader = Reader(made)
    for number in range(len(made.published)):
        for message in with_offsets(genuine(made, number)):
            reader.read(message)

    def heights(through: int | None) -> list[int]:
        taken = reader.collector.take(10**9, through)
        return [signed.folded.block.header.height for signed in taken]

    assert heights(0) == []
    assert heights(3) == [1, 2, 3]
    assert heights(3) == []
    assert reader.collector.taken == 3
    assert heights(None) == list(range(4, len(made.published) + 1))
