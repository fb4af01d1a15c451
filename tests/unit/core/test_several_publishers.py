"""The blocks topic as several validators publish it, and strangers with them: whatever stands in
it, in whatever order, every height comes out once, in order, though next to nothing may wait.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ledger_factory import VALIDATORS, Ledger, pointing, record_value

from nocturne.core import block_intake, waiting_blocks
from nocturne.core.block_intake import BlockIntake
from nocturne.core.blocks import (
    Block,
    ProofPointer,
    encode_block_header,
    hash_block,
    hash_record,
    headers_bytes,
    sign_proposal,
)
from nocturne.core.certificates import Ballot, CommitProof, sign_vote
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import Hash

reproducible = settings(derandomize=True, deadline=None, max_examples=150, print_blob=True)

BLOCKS = 14
NEAR = 4
"""How far ahead of its turn a block may come here."""


@pytest.fixture(scope="module")
def chain() -> Ledger:
    return _chain()


_MADE: list[Ledger] = []


def _chain() -> Ledger:
    """Four validators, so that a block has four commit proofs of different signers."""
    if not _MADE:
        ledger = Ledger(validators=VALIDATORS[:4])
        for number in range(1, BLOCKS + 1):
            ledger.answer((ledger.opening if number == 1 else ledger.command)("s", number=number))
        _MADE.append(ledger)
    return _MADE[0]


def proved_by(ledger: Ledger, block: Block, absent: int) -> Block:
    """The block as it is published by who has the votes of all but this one."""
    assert isinstance(block.proof, CommitProof)
    final = block.proof.finalization
    ballot = Ballot(
        final.kind,
        ledger.ledger_id,
        final.epoch,
        final.validator_set_hash,
        final.view,
        final.digest,
    )
    votes = tuple(
        (index, sign_vote(one, ballot))
        for index, one in enumerate(ledger.signers)
        if index != absent
    )
    return replace(block, proof=CommitProof(replace(final, votes=votes), ()))


def with_other_bytes(block: Block, number: int) -> Block:
    """A stranger's copy: the true header and proof, and a body that hashes to the header and is not
    the log's.
    """
    record = block.records[0]
    headers = headers_bytes((("n", b"%d" % number),))
    forged = replace(
        record, headers=headers, record_hash=hash_record(record.key, record.value, headers)
    )
    return replace(block, records=(forged, *block.records[1:]))


def proposal(ledger: Ledger, height: int, number: int) -> Block:
    """What one validator signs that no quorum ever does."""
    block = ledger.blocks[0]
    header = replace(block.header, height=height, time=block.header.time + number)
    data = encode_block_header(header)
    digest = hash_block(data)
    return replace(
        block,
        header=header,
        header_bytes=data,
        digest=digest,
        leader_signatures=sign_proposal(VALIDATORS[3], digest),
        proof=ProofPointer(height + 1, Hash(bytes(32))),
    )


def intake_of(ledger: Ledger, next_height: int | None = 1) -> BlockIntake:
    if next_height is None:
        return BlockIntake(ledger.ledger_id, ledger.genesis.founding_sets, None)
    return BlockIntake(
        ledger.ledger_id,
        ledger.genesis.founding_sets,
        1,
        Hash(ledger.ledger_id),
        ledger.founding.positions,
    )


class Reader:
    """A consumer of a topic that stands still: reads it once, and again where it is told to."""

    def __init__(self, intake: BlockIntake, topic: Sequence[bytes | None]) -> None:
        self.intake = intake
        self.topic = topic
        self.heights: list[int] = []
        self.reads = 0
        self.low_water = 0

    def read(self) -> list[int]:
        offset = 0
        while offset < len(self.topic):
            self.reads += 1
            try:
                given = self.intake.offer(self.topic[offset], offset)
            except Malformed:
                given = []
            self.heights += [one.block.header.height for one in given]
            offset += 1
            self.low_water = self.intake.low_water(offset)
            again = self.intake.read_again_from
            if again is not None:
                assert self.low_water <= again < offset
                self.intake.read_again(again)
                offset = again
        return self.heights


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow_to_four(monkeypatch)


def narrow_to_four(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (waiting_blocks, block_intake):
        monkeypatch.setattr(module, "HELD_BLOCKS_MAX", NEAR)
    monkeypatch.setattr(waiting_blocks, "HELD_RECORDS_MAX", NEAR + 1)
    monkeypatch.setattr(waiting_blocks, "HELD_COPIES_MAX", 2)


def in_batches(ledger: Ledger, dice: Random) -> Iterator[Block]:
    """One publisher's records: each batch points to the proof of its last block."""
    cuts = sorted({0, BLOCKS, *(dice.randrange(BLOCKS) for _ in range(BLOCKS // 2))})
    for start, end in pairwise(cuts):
        for first in range(start, end, NEAR - 1):
            some = ledger.blocks[first : min(first + NEAR - 1, end)]
            yield from (pointing(one, some[-1]) for one in some[:-1])
            yield proved_by(ledger, some[-1], dice.randrange(4))


def a_topic(ledger: Ledger, dice: Random, disorder: int, noise: int) -> list[bytes | None]:
    """Every block from one publisher, some from others, out of order by at most `disorder` records,
    with a stranger's records between.
    """
    blocks = list(in_batches(ledger, dice))
    blocks += [
        proved_by(ledger, one, dice.randrange(4))
        for one in ledger.blocks
        for _ in range(dice.choice((0, 0, 1, 3)))
    ]
    for number in range(noise):
        block = dice.choice(ledger.blocks)
        forged = with_other_bytes(block, number)
        height = dice.randrange(1, BLOCKS + 9)
        blocks.append(
            dice.choice(
                (
                    forged,
                    pointing(forged, ledger.blocks[-1]),
                    replace(forged, proof=ProofPointer(block.header.height + 1, Hash(bytes(32)))),
                    proposal(ledger, height, number),
                    replace(block, records=block.records[:-1]),
                )
            )
        )
    places = [
        (one.header.height * 2 + dice.uniform(0, disorder), number)
        for number, one in enumerate(blocks)
    ]
    order = [number for _, number in sorted(places)]
    values: list[bytes | None] = [record_value(blocks[number]) for number in order]
    for _ in range(noise):
        values.insert(dice.randrange(len(values)), dice.choice((None, b"", b"\0" * 9)))
    return values


@given(st.integers(0, 2**32), st.sampled_from((1, 6, 40, 1000)), st.sampled_from((0, 5, 60)))
@reproducible
def test_every_height_comes_out_once_in_order_whatever_else_the_topic_holds(
    seed: int, disorder: int, noise: int
) -> None:
    ledger = _chain()
    topic = a_topic(ledger, Random(seed), disorder, noise)
    with pytest.MonkeyPatch.context() as patch:
        narrow_to_four(patch)
        reader = Reader(intake_of(ledger), topic)
        assert reader.read() == list(range(1, BLOCKS + 1))
        assert reader.intake.positions == ledger.state.positions
        # Once for each height and, at the worst, once for each place in the room.
        assert reader.reads <= len(topic) * BLOCKS * (NEAR + 2)


@given(st.integers(0, 2**32), st.integers(0, 200))
@reproducible
def test_a_restart_from_the_low_water_loses_no_height(seed: int, stop: int) -> None:
    ledger = _chain()
    topic = a_topic(ledger, Random(seed), 40, 20)
    with pytest.MonkeyPatch.context() as patch:
        narrow_to_four(patch)
        first = Reader(intake_of(ledger), topic[: stop % len(topic)])
        first.read()
        following = first.intake.next_height
        assert following is not None
        digest = ledger.blocks[following - 2].digest if following > 1 else Hash(ledger.ledger_id)
        intake = BlockIntake(
            ledger.ledger_id, first.intake.sets, following, digest, first.intake.positions
        )
        assert Reader(intake, topic[first.low_water :]).read() == list(range(following, BLOCKS + 1))


@given(st.integers(0, 2**32))
@reproducible
def test_without_a_past_blocks_from_before_the_first_come_late_and_none_twice(seed: int) -> None:
    ledger = _chain()
    dice = Random(seed)
    blocks = [
        proved_by(ledger, one, dice.randrange(4))
        for one in ledger.blocks
        for _ in range(dice.choice((1, 2)))
    ]
    places = [(one.header.height + dice.uniform(0, 5), number) for number, one in enumerate(blocks)]
    topic = [record_value(blocks[number]) for _, number in sorted(places)]
    found = Reader(intake_of(ledger, None), topic).read()
    assert sorted(found) == list(range(1, BLOCKS + 1))
    first = found[0]
    assert [one for one in found if one >= first] == list(range(first, BLOCKS + 1))
    assert [one for one in found if one < first] == list(range(first - 1, 0, -1))


# What happened, or could ------------------------------------------------------------------------


def read(ledger: Ledger, blocks: Sequence[Block]) -> Reader:
    reader = Reader(intake_of(ledger), [record_value(one) for one in blocks])
    reader.read()
    return reader


def test_the_same_block_from_each_validator_with_its_own_proof_takes_one_place(
    chain: Ledger,
) -> None:
    """Four publishers, four proofs; the height before it comes last."""
    copies = [proved_by(chain, chain.blocks[1], absent) for absent in range(4)]
    reader = read(chain, [*copies, pointing(chain.blocks[1], chain.blocks[3]), chain.blocks[0]])
    assert reader.heights == [1, 2]
    assert (reader.intake.let_go, reader.intake.dropped) == (0, 0)


def test_a_height_that_comes_after_more_than_may_wait_is_not_the_last(
    chain: Ledger, narrow: None
) -> None:
    """One block is missing for long; what came meanwhile is read again."""
    reader = read(chain, [*chain.blocks[1:], chain.blocks[0]])
    assert reader.heights == list(range(1, BLOCKS + 1))
    assert reader.reads < 3 * BLOCKS


def test_forged_copies_with_pointers_that_lead_nowhere_keep_no_place(
    chain: Ledger, narrow: None
) -> None:
    """They come first and fill the room of their height; the genuine one is read again."""
    last = chain.blocks[2]
    first = chain.blocks[0]
    forged = [
        replace(with_other_bytes(first, number), proof=ProofPointer(2, Hash(bytes(32))))
        for number in range(6)
    ]
    reader = read(chain, [*forged, pointing(first, last), pointing(chain.blocks[1], last), last])
    assert reader.heights == [1, 2, 3]


def test_a_validator_that_signs_proposals_without_end_keeps_out_nothing_certified(
    chain: Ledger, narrow: None
) -> None:
    junk = [proposal(chain, height, number) for number in range(20) for height in (1, 2, 3)]
    last = chain.blocks[2]
    batch = [pointing(chain.blocks[0], last), pointing(chain.blocks[1], last), last]
    for topic in ([*junk, *batch], [*batch[:2], *junk, last], [*junk, *batch[::-1]]):
        reader = read(chain, topic)
        assert reader.heights == [1, 2, 3]
        assert reader.reads < 6 * len(topic)


def test_what_is_let_go_and_never_certified_is_not_read_again(chain: Ledger, narrow: None) -> None:
    """Proposals far ahead pin nothing for ever, and cost no second reading of their own."""
    junk = [proposal(chain, height, number) for number in range(10) for height in range(2, 40)]
    reader = read(chain, [*junk, *chain.blocks])
    assert reader.heights == list(range(1, BLOCKS + 1))
    assert reader.reads == len(junk) + BLOCKS
