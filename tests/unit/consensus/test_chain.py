"""The chain: blocks from records, and the same blocks again from the journal."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.consensus.ledgers import TOPIC, Ledger, genesis

from nocturne.consensus.chain import Chain
from nocturne.consensus.quorum.messages import Committed, Contents, Proposal
from nocturne.core import topics
from nocturne.core.block_intake import BlockIntake
from nocturne.core.blocks import Block, LogRecord, decode_block
from nocturne.core.certificates import CommitProof
from nocturne.core.errors import Halt
from nocturne.core.genesis import Limits
from nocturne.core.governing import ControlBatch
from nocturne.core.identifiers import Hash
from nocturne.core.record_headers import parse_headers


def replay(chain: Chain, block: Block) -> None:
    """Take a block as the journal has it."""
    assert isinstance(block.proof, CommitProof)
    proposal = Proposal(block.header, block.header_bytes, block.digest, block.leader_signatures)
    chain.replay(block, Committed(proposal, block.proof))


def blocks_of(ledger: Ledger) -> list[Block]:
    """Everything that waits, as blocks."""
    blocks = []
    while ledger.gathering.has_offsets:
        blocks.append(decode_block(ledger.extend().encoded))
    return blocks


def various(ledger: Ledger) -> None:
    """Records of every fate: events, receipts of all sorts, gaps."""
    ledger.write("a", "b", "c")
    ledger.log(*ledger.record("a", expected=7))
    partition, record = ledger.record("b", events=3, headers=(("x", None), ("y", b"")))
    ledger.log(partition, record, gap=2)
    ledger.log(partition, record)
    ledger.log(0, LogRecord(None, None, ()))
    ledger.log(1, LogRecord(b"key", b"no command", (("trace", b"1"),)))
    ledger.log(1 - partition, record)
    ledger.log(0, LogRecord(b"k", bytes(300_000), ()))
    ledger.log(0, LogRecord(b"k", bytes(1_100_000), ()))
    assert record.value is not None
    ledger.log(partition, replace(record, value=record.value[:-1] + b"\xff"))


def test_every_consumer_takes_the_blocks() -> None:
    ledger = Ledger()
    various(ledger)
    intake = BlockIntake(ledger.ledger_id, ledger.genesis.founding_sets, 1, Hash(ledger.ledger_id))
    made = []
    while ledger.gathering.has_offsets:
        made.append(ledger.extend())
    for one in made:
        (checked,) = intake.offer(topics.frame(2, one.encoded))
        assert checked.block == one.block


def test_replaying_the_journalled_blocks_gives_the_same_state_and_tip() -> None:
    ledger = Ledger(genesis(epoch_length=2))
    blocks = []
    for _ in range(5):
        various(ledger)
        blocks += blocks_of(ledger)
    again = ledger.fresh_chain()
    for block in blocks:
        replay(again, block)
    assert (again.tip, again.state.root_hash) == (ledger.chain.tip, ledger.chain.state.root_hash)
    assert again.state.positions == ledger.chain.state.positions
    ledger.write("a")
    batches = ledger.gathering.batches_after(again.state.positions)
    following = ControlBatch(again.tip.height + 1, ())
    contents = again.build(again.tip.digest, batches, following)
    assert contents == Contents.of(ledger.extend().block.header)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_blocks_that_limits_cut_are_replayed_whole(sizes: list[int], per_block: int) -> None:
    limits = Limits(range_records_max=per_block)
    ledger = Ledger(genesis(limits=limits))
    for size in sizes:
        ledger.write(*[f"s{number}" for number in range(size)])
    blocks = blocks_of(ledger)
    assert sum(block.header.record_count for block in blocks) == sum(sizes)
    again = ledger.fresh_chain()
    for block in blocks:
        replay(again, block)
    assert again.tip == ledger.chain.tip


def test_a_block_that_does_not_follow_is_a_halt() -> None:
    ledger = Ledger()
    ledger.write("a")
    (first,) = blocks_of(ledger)
    ledger.write("a")
    (second,) = blocks_of(ledger)
    with pytest.raises(Halt, match="expected block 1"):
        replay(ledger.fresh_chain(), second)
    again = ledger.fresh_chain()
    replay(again, first)
    with pytest.raises(Halt, match="expected block 2"):
        replay(again, first)


def test_a_journalled_block_that_executes_otherwise_is_a_halt() -> None:
    ledger = Ledger()
    ledger.write("a", "b")
    (block,) = blocks_of(ledger)
    records = (replace(block.records[0], record_hash=Hash(bytes(32))), *block.records[1:])
    with pytest.raises(Halt, match="gives another ranges"):
        replay(ledger.fresh_chain(), replace(block, records=records))
    with pytest.raises(Halt, match=r"another (ranges|record count)"):
        replay(
            ledger.fresh_chain(),
            replace(block, records=(*block.records[1:], block.records[0])),
        )


def test_a_journalled_block_without_its_proof_is_a_halt() -> None:
    ledger = Ledger()
    ledger.write("a")
    (first,) = blocks_of(ledger)
    ledger.write("a")
    (second,) = blocks_of(ledger)
    with pytest.raises(Halt, match="commit proof"):
        replay(ledger.fresh_chain(), replace(first, proof=second.proof))


def test_a_block_of_gaps_alone_is_a_block() -> None:
    ledger = Ledger()
    ledger.gathering.reach(1, 3)
    (block,) = blocks_of(ledger)
    assert [one.record_hash for one in block.records] == [None] * 3
    replay(ledger.fresh_chain(), block)


def test_headers_of_records_survive_the_block() -> None:
    ledger = Ledger()
    headers = (("a", b"1"), ("", b""), ("a", None), ("ü", b"\x00"))
    ledger.log(*ledger.record("a", headers=headers))
    (block,) = blocks_of(ledger)
    assert parse_headers(block.records[0].headers) == headers
    assert block.header.ranges[0].topic_uuid == TOPIC
