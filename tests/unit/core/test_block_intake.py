"""The blocks topic as anybody may write it: only the committed chain comes out, once, in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ledger_factory import (
    ALICE,
    TOPIC_UUID,
    VALIDATORS,
    Draft,
    Ledger,
    make_genesis,
    pointing,
    record_value,
    signer,
)
from tests.mutation import mutated

from nocturne.core import block_intake, waiting_blocks
from nocturne.core.block_intake import BlockIntake, CheckedBlock
from nocturne.core.blocks import (
    Block,
    BlockKind,
    LogRecord,
    ProofPointer,
    RecordDisposition,
    decode_block,
    encode_block,
    encode_block_header,
    hash_block,
    hash_record,
    headers_bytes,
    link_of,
    link_to,
    sign_proposal,
)
from nocturne.core.certificates import CommitProof, Epoch, VoteKind, check_commit_proof
from nocturne.core.commands import Payload, encode_signed_command
from nocturne.core.errors import Halt, Malformed
from nocturne.core.genesis import Limits
from nocturne.core.identifiers import Hash
from nocturne.core.keys import Signature
from nocturne.core.state_leaf import LogPosition
from nocturne.core.topics import frame, unframe
from nocturne.core.waiting_blocks import (
    HELD_BLOCKS_MAX,
    HELD_COPIES_MAX,
    HELD_RECORDS_MAX,
    LET_GO_HEIGHTS_MAX,
)

reproducible = settings(derandomize=True, deadline=None, max_examples=80, print_blob=True)


@pytest.fixture(scope="module")
def chain() -> Ledger:
    """Twelve blocks in two sessions, with events, receipts, a gap and a record too large."""
    # Its one epoch is longer than anything is remembered.
    ledger = Ledger(make_genesis(partitions=2, epoch_length=10_000))
    assert {ledger.partition_of(session) for session in ("s", "a")} == {0, 1}
    for number in range(1, 13):
        for session in ("s", "a"):
            make = ledger.opening if number == 1 else ledger.command
            ledger.append(make(session, Draft(), Draft("Other"), number=number))
        if number == 3:
            ledger.append(ledger.command("s", number=100, expected=77))
            ledger.append(None, 0)
            ledger.append(LogRecord(b"junk", b"bytes", (("h", None),)), 1)
            ledger.append(LogRecord(b"s", bytes(300_000), ()), 1)
        ledger.commit()
    return ledger


def intake_of(ledger: Ledger, after: int = 0, **more: object) -> BlockIntake:
    """Continues the chain after this height, knowing all that a consumer keeps."""
    if after == 0:
        return BlockIntake(
            ledger.ledger_id,
            ledger.genesis.founding_sets,
            1,
            Hash(ledger.ledger_id),
            ledger.founding.positions,
        )
    past = intake_of(ledger)
    for block in ledger.blocks[:after]:
        past.offer(record_value(block))
    digest = ledger.blocks[after - 1].digest
    return BlockIntake(
        ledger.ledger_id, ledger.genesis.founding_sets, after + 1, digest, past.positions
    )


def heights(given: list[CheckedBlock]) -> list[int]:
    return [checked.block.header.height for checked in given]


def offer_all(intake: BlockIntake, blocks: list[Block]) -> list[int]:
    return [height for block in blocks for height in heights(intake.offer(record_value(block)))]


def refuses(intake: BlockIntake, value: bytes | None) -> None:
    """The record is counted and changes nothing."""
    before = intake.next_height
    with pytest.raises(Malformed):
        intake.offer(value)
    assert intake.next_height == before


# The chain --------------------------------------------------------------------------------------


def test_each_block_comes_out_once_with_its_proof_and_dispositions(chain: Ledger) -> None:
    intake = intake_of(chain)
    for block in chain.blocks:
        (checked,) = intake.offer(record_value(block))
        assert checked.block == block
        assert checked.proof == block.proof
        assert len(checked.dispositions) == len(checked.leaves) == len(block.records)
    assert intake.positions == chain.state.positions
    assert (intake.next_height, intake.dropped, intake.holds_blocks) == (13, 0, False)


@given(st.integers(0, 2**32))
@reproducible
def test_any_order_and_any_repetition_gives_the_chain_in_order(seed: int) -> None:
    ledger = _chain_once()
    dice = Random(seed)
    records = [block for block in ledger.blocks for _ in range(dice.choice((1, 1, 2, 3)))]
    dice.shuffle(records)
    intake = intake_of(ledger)
    assert offer_all(intake, records) == list(range(1, 13))
    assert (intake.dropped, intake.holds_blocks) == (0, False)


_CHAINS: dict[str, Ledger] = {}


def _chain_once() -> Ledger:
    """Hypothesis takes no fixtures of this scope."""
    if not _CHAINS:
        ledger = Ledger()
        for number in range(1, 13):
            make = ledger.opening if number == 1 else ledger.command
            ledger.answer(make("s", number=number))
        _CHAINS["chain"] = ledger
    return _CHAINS["chain"]


def test_a_chain_continues_from_any_height(chain: Ledger) -> None:
    for after in (1, 5, 11):
        intake = intake_of(chain, after)
        assert offer_all(intake, chain.blocks) == list(range(after + 1, 13))


def test_without_a_past_it_starts_at_the_first_block_that_proves_itself(chain: Ledger) -> None:
    intake = BlockIntake(chain.ledger_id, chain.genesis.founding_sets, None)
    assert intake.offer(record_value(pointing(chain.blocks[3], chain.blocks[5]))) == []
    assert intake.next_height is None
    refuses(intake, record_value(_with_proof(chain.blocks[4], VoteKind.NOTARIZE, chain)))
    assert offer_all(intake, chain.blocks[5:]) == list(range(6, 13))
    assert intake.positions == chain.state.positions


def test_without_a_past_a_bad_body_does_not_fix_the_start(chain: Ledger) -> None:
    intake = BlockIntake(chain.ledger_id, chain.genesis.founding_sets, None)
    block = chain.blocks[5]
    refuses(intake, record_value(replace(block, records=block.records[::-1])))
    assert intake.next_height is None
    assert offer_all(intake, chain.blocks[7:]) == list(range(8, 13))


def test_quorums_of_several_validators_prove_blocks() -> None:
    ledger = Ledger(validators=VALIDATORS[:4])
    for number in range(1, 4):
        ledger.answer((ledger.opening if number == 1 else ledger.command)("s", number=number))
    assert offer_all(intake_of(ledger), ledger.blocks) == [1, 2, 3]
    block = ledger.blocks[0]
    assert isinstance(block.proof, CommitProof)
    final = block.proof.finalization
    assert len(final.votes) == 3
    for votes in (
        final.votes[:2],
        (*final.votes, final.votes[0]),
        (final.votes[0], final.votes[0], final.votes[2]),
        final.votes[::-1],
        (final.votes[0], (3, final.votes[1][1]), final.votes[2]),
        ((-1, final.votes[0][1]), *final.votes[1:]),
    ):
        proof = CommitProof(replace(final, votes=votes), ())
        refuses(intake_of(ledger), record_value(replace(block, proof=proof)))


# Records that are no block ----------------------------------------------------------------------


def test_what_is_no_block_is_malformed(chain: Ledger) -> None:
    intake = intake_of(chain)
    value = record_value(chain.blocks[0])
    for bad in (None, b"", b"\x00" * 5, value[5:], b"\x01" + value[1:], value + b"\x00"):
        refuses(intake, bad)
    assert heights(intake.offer(value)) == [1]


def test_every_cut_of_a_block_is_malformed(chain: Ledger) -> None:
    value = record_value(chain.blocks[1])
    intake = intake_of(chain, 1)
    for end in range(len(value)):
        refuses(intake, value[:end])


@given(st.binary(max_size=400))
@reproducible
def test_any_bytes_are_malformed(data: bytes) -> None:
    refuses(intake_of(_chain_once()), data)
    refuses(intake_of(_chain_once()), frame(2, data))


@given(st.integers(0, 2**32), st.integers(1, 5))
@settings(reproducible, max_examples=400)
def test_a_mutated_block_is_malformed_or_brings_the_same_content(seed: int, edits: int) -> None:
    ledger = _chain_once()
    block = ledger.blocks[1]
    value = mutated(Random(seed), record_value(block), edits)
    intake = intake_of(ledger, 1)
    try:
        given = intake.offer(value)
    except Malformed:
        assert heights(intake.offer(record_value(block))) == [2]
    else:
        for checked in given:
            assert_same_content(checked, block)


def assert_same_content(checked: CheckedBlock, block: Block) -> None:
    """All but what is said not to be checked: the leader's signatures and the state changes."""
    assert replace(
        checked.block, leader_signatures=block.leader_signatures, state_changes=()
    ) == replace(block, state_changes=())
    assert checked.proof == block.proof


@pytest.mark.slow
def test_no_byte_of_a_block_can_be_flipped_but_those_that_nothing_binds() -> None:
    """The registry's schema id, which no format of ours reads; the leader's signatures, for which
    the commit proof stands; and the state changes, which the state root binds for whoever keeps the
    state tree. A block with any other byte flipped, in one bit or in all, is refused.
    """
    ledger = Ledger(make_genesis(partitions=1))
    ledger.append(ledger.opening("s"))
    ledger.append(LogRecord(b"junk", b"bytes", (("h", None),)), 0)
    ledger.append(None, 0)
    block = ledger.commit()
    value = record_value(block)
    free = set(range(1, 5)) | set(_leader_bytes(block)) | set(_state_change_bytes(block))
    believed = set()
    for at in range(len(value)):
        for mask in (1 << at % 8, 0xFF):
            flipped = bytearray(value)
            flipped[at] ^= mask
            try:
                (checked,) = intake_of(ledger).offer(bytes(flipped))
            except Malformed:
                continue
            believed.add(at)
            assert_same_content(checked, block)
    assert believed <= free, sorted(believed - free)
    assert len(believed) > 200


def _leader_bytes(block: Block) -> range:
    without = encode_block(replace(block, leader_signatures=()))
    start = 5 + len(block.header_bytes)
    return range(start, start + len(encode_block(block)) - len(without) + 1)


def _state_change_bytes(block: Block) -> range:
    without = encode_block(replace(block, state_changes=()))
    return range(5 + len(without) - 1, 5 + len(encode_block(block)))


def test_the_state_changes_are_for_the_caller_to_check(chain: Ledger) -> None:
    """With the tree they lead to the certified root and to no other; the caller's check drops the
    block and the height stays open.
    """
    block = chain.blocks[0]
    change = block.state_changes[0]
    assert change.value is not None
    forged = replace(change, value=bytes(len(change.value)))
    wrong = replace(block, state_changes=(forged, *block.state_changes[1:]))

    def check(checked: CheckedBlock) -> None:
        tree = chain.founding.tree.update(
            {one.key: (one.value or b"", None) for one in checked.block.state_changes}
        )
        if tree.root_hash != checked.block.header.state_root:
            raise Malformed("state changes")

    intake = BlockIntake(
        chain.ledger_id, chain.genesis.founding_sets, 1, Hash(chain.ledger_id), (), check=check
    )
    refuses(intake, record_value(wrong))
    assert heights(intake.offer(record_value(block))) == [1]


# Forged blocks ----------------------------------------------------------------------------------


def _with_proof(block: Block, kind: VoteKind, ledger: Ledger) -> Block:
    return replace(
        block, proof=CommitProof(ledger.certificate(block.header, block.digest, kind), ())
    )


@pytest.mark.parametrize("kind", [VoteKind.NOTARIZE, VoteKind.NULLIFY])
def test_only_a_finalization_commits(chain: Ledger, kind: VoteKind) -> None:
    refuses(intake_of(chain), record_value(_with_proof(chain.blocks[0], kind, chain)))


def test_another_kind_of_vote_relabelled_as_a_finalization_does_not_verify(chain: Ledger) -> None:
    block = _with_proof(chain.blocks[0], VoteKind.NOTARIZE, chain)
    assert isinstance(block.proof, CommitProof)
    relabelled = replace(block.proof.finalization, kind=VoteKind.FINALIZE)
    refuses(intake_of(chain), record_value(replace(block, proof=CommitProof(relabelled, ()))))


def test_a_block_of_strangers_or_of_another_ledger_is_refused(chain: Ledger) -> None:
    """A complete ledger of one's own, and the same one under keys that are not the validators'."""
    for other in (Ledger(make_genesis(nonce=9)), Ledger(validators=(signer(77),))):
        other.answer(other.opening("s"))
        refuses(intake_of(chain), record_value(other.blocks[0]))
        relabelled = replace(other.blocks[0].header, ledger_id=chain.ledger_id)
        forged = other.certified(relabelled, other.blocks[0].records, ())
        refuses(intake_of(chain), record_value(forged))


@pytest.mark.parametrize(
    "changes",
    [{"view": 0}, {"view": -1}, {"view": -(2**63)}, {"view": 2**62}],
    ids=str,
)
def test_a_certificate_with_an_impossible_view_is_malformed_not_an_error(
    chain: Ledger, changes: dict[str, int]
) -> None:
    block = chain.blocks[0]
    assert isinstance(block.proof, CommitProof)
    final = replace(block.proof.finalization, **changes)  # type: ignore[arg-type]
    refuses(intake_of(chain), record_value(replace(block, proof=CommitProof(final, ()))))


@pytest.mark.parametrize("recovery, number", [(-1, 0), (0, -1), (2**31, 0), (0, 2**62)])
def test_a_certificate_with_an_impossible_epoch_is_malformed_not_an_error(
    chain: Ledger, recovery: int, number: int
) -> None:
    block = chain.blocks[0]
    assert isinstance(block.proof, CommitProof)
    final = block.proof.finalization
    epoch = Epoch(recovery, number)
    proof = CommitProof(replace(final, epoch=epoch), ())
    refuses(intake_of(chain), record_value(replace(block, proof=proof)))


@pytest.mark.parametrize(
    "changes",
    [{"kind": BlockKind.TAIL}, {"format_version": 2}, {"rules_version": 2}],
    ids=str,
)
def test_a_certified_block_that_is_no_ledger_block_of_these_rules_is_refused(
    chain: Ledger, changes: dict[str, int]
) -> None:
    block = chain.blocks[0]
    header = replace(block.header, **changes)  # type: ignore[arg-type]
    refuses(intake_of(chain), record_value(chain.certified(header, block.records, ())))


def test_a_proposal_that_is_farther_ahead_than_anything_is_remembered_is_refused(
    chain: Ledger,
) -> None:
    last = _signed_without_proof(chain, LET_GO_HEIGHTS_MAX, 1)
    assert intake_of(chain).offer(record_value(last)) == []
    refuses(intake_of(chain), record_value(_signed_without_proof(chain, LET_GO_HEIGHTS_MAX + 1, 1)))


def test_a_proof_through_later_headers_commits_and_a_broken_chain_of_them_does_not(
    chain: Ledger,
) -> None:
    first, second, third = chain.blocks[:3]
    assert isinstance(third.proof, CommitProof)
    headers = (second.header_bytes, third.header_bytes)
    through = CommitProof(third.proof.finalization, headers)
    (checked,) = intake_of(chain).offer(record_value(replace(first, proof=through)))
    assert checked.proof == through
    for wrong in ((), headers[:1], headers[1:], headers[::-1], (b"", *headers), (*headers, b"x")):
        proof = CommitProof(third.proof.finalization, wrong)
        refuses(intake_of(chain), record_value(replace(first, proof=proof)))


# Bodies -----------------------------------------------------------------------------------------


def _first_with_events(block: Block) -> int:
    return next(at for at, record in enumerate(block.records) if record.events)


def _with_record(block: Block, at: int, record: RecordDisposition) -> Block:
    return replace(block, records=(*block.records[:at], record, *block.records[at + 1 :]))


def _rehashed(record: RecordDisposition) -> RecordDisposition:
    """A record whose own hash fits its bytes again."""
    return replace(record, record_hash=hash_record(record.key, record.value, record.headers))


def _altered(record: RecordDisposition, ledger: Ledger, number: int) -> Iterator[RecordDisposition]:
    """A record with genuine events and its bytes altered in each way that leaves them readable."""
    session = record.key.decode() if record.key else ""
    make = ledger.opening if number == 1 else ledger.command
    signed = make(session, Draft(), Draft("Other"), number=number)
    assert record.value == frame(1, encode_signed_command(signed))
    first, second = signed.payloads
    (signature,) = signed.signatures
    for other in (
        replace(signed, payloads=(replace(first, data=b"{}"), second)),
        replace(signed, payloads=(replace(first, salt=bytes(32)), second)),
        replace(signed, payloads=(second, first)),
        replace(signed, payloads=(first, second, Payload(bytes(32), b""))),
        replace(signed, payloads=(first,)),
        replace(signed, signatures=()),
        replace(signed, signatures=(replace(signature, data=bytes(64)),)),
        replace(signed, signatures=(signature, signature)),
        replace(signed, signatures=(Signature(300, signature.key_id, b""),)),
    ):
        yield replace(record, value=frame(1, encode_signed_command(other)))
    yield replace(record, value=(record.value or b"") + b"\x00")
    yield replace(record, value=(record.value or b"")[:-1])
    yield replace(record, value=(record.value or b"")[: 5 + record.command_length])
    yield replace(record, key=b"another")
    yield replace(record, key=None)
    yield replace(record, value=frame(7, (record.value or b"")[5:]))
    yield replace(record, headers=headers_bytes((("ce_id", b"other"),)))
    yield replace(record, headers=bytes(4))


def test_no_byte_of_a_record_can_be_altered_under_a_genuine_header(chain: Ledger) -> None:
    block = chain.blocks[4]
    at = _first_with_events(block)
    for record in _altered(block.records[at], chain, 5):
        intake = intake_of(chain, 4)
        refuses(intake, record_value(_with_record(block, at, record)))
        refuses(intake, record_value(_with_record(block, at, _rehashed(record))))
        assert heights(intake.offer(record_value(block))) == [5]


def test_the_first_range_of_the_log_is_linked_even_without_positions(chain: Ledger) -> None:
    block = chain.blocks[0]
    at = _first_with_events(block)
    for record in _altered(block.records[at], chain, 1):
        intake = BlockIntake(chain.ledger_id, chain.genesis.founding_sets, 1, Hash(chain.ledger_id))
        refuses(intake, record_value(_with_record(block, at, _rehashed(record))))


def test_without_the_log_hash_commands_payloads_and_signatures_are_still_proved(
    chain: Ledger,
) -> None:
    """Only key, headers and prefix are believed where no position is known, and said to be."""
    block = chain.blocks[4]
    at = _first_with_events(block)
    believed = 0
    for record in _altered(block.records[at], chain, 5):
        intake = BlockIntake(chain.ledger_id, chain.genesis.founding_sets, None)
        try:
            (checked,) = intake.offer(record_value(_with_record(block, at, _rehashed(record))))
        except Malformed:
            continue
        believed += 1
        given, genuine = checked.block.records[at], block.records[at]
        assert unframe(given.value) == unframe(genuine.value)
        assert (given.events, given.receipt) == (genuine.events, genuine.receipt)
    assert believed == 5


def test_a_stripped_record_is_refused_and_only_one_over_the_limits_has_no_bytes(
    chain: Ledger,
) -> None:
    block = chain.blocks[2]
    stripped = 0
    for at, record in enumerate(block.records):
        if record.record_hash is None or record.headers == b"":
            continue
        stripped += 1
        without = replace(record, key=None, value=None, headers=b"", command_length=0)
        refuses(intake_of(chain, 2), record_value(_with_record(block, at, without)))
        kept = replace(without, command_length=record.command_length)
        refuses(intake_of(chain, 2), record_value(_with_record(block, at, kept)))
    assert stripped == 4
    assert sum(one.headers == b"" and one.record_hash is not None for one in block.records) == 1


def test_a_gap_carries_nothing_and_nothing_becomes_a_gap(chain: Ledger) -> None:
    block = chain.blocks[2]
    gap = RecordDisposition(None, None, b"", None, (), None, 0)
    (at,) = [index for index, record in enumerate(block.records) if record == gap]
    for bad in (
        replace(gap, key=b"k"),
        replace(gap, value=b"v"),
        replace(gap, headers=bytes(4)),
        replace(gap, record_hash=Hash(bytes(32))),
        replace(gap, command_length=1),
        replace(gap, events=(b"",)),
        replace(gap, receipt=b""),
    ):
        refuses(intake_of(chain, 2), record_value(_with_record(block, at, bad)))
        anew = BlockIntake(chain.ledger_id, chain.genesis.founding_sets, None)
        refuses(anew, record_value(_with_record(block, at, bad)))
    for index, record in enumerate(block.records):
        if record != gap:
            refuses(intake_of(chain, 2), record_value(_with_record(block, index, gap)))
            hidden = replace(record, record_hash=None)
            refuses(intake_of(chain, 2), record_value(_with_record(block, index, hidden)))
            anew = BlockIntake(chain.ledger_id, chain.genesis.founding_sets, None)
            refuses(anew, record_value(_with_record(block, index, hidden)))


def _bodies(block: Block) -> Iterator[Block]:
    records = block.records
    at = _first_with_events(block)
    one = records[at]
    yield replace(block, records=records[::-1])
    yield replace(block, records=records[:-1])
    yield replace(block, records=(*records, records[0]))
    yield replace(block, records=(records[0], records[0], *records[2:]))
    yield replace(block, records=())
    yield replace(block, control=(b"control",))
    yield _with_record(block, at, replace(one, events=one.events[:1]))
    yield _with_record(block, at, replace(one, events=one.events[::-1]))
    yield _with_record(block, at, replace(one, events=(*one.events, one.events[0])))
    yield _with_record(block, at, replace(one, events=(), receipt=one.events[0]))
    yield _with_record(block, at, replace(one, receipt=b""))
    yield _with_record(block, at, replace(one, command_length=0))
    yield _with_record(block, at, replace(one, command_length=one.command_length - 1))
    yield _with_record(block, at, replace(one, command_length=-1))
    yield _with_record(block, at, replace(one, command_length=2**31 - 1))


def test_an_altered_body_under_a_genuine_header_is_refused(chain: Ledger) -> None:
    block = chain.blocks[2]
    for wrong in _bodies(block):
        assert wrong != block
        intake = intake_of(chain, 2)
        refuses(intake, record_value(wrong))
        assert heights(intake.offer(record_value(block))) == [3]


def test_headers_with_impossible_ranges_are_malformed_at_once(chain: Ledger) -> None:
    """A count of records bounds every loop over offsets before a body is at hand."""
    header = chain.blocks[2].header
    one = header.ranges[0]
    for ranges in (
        (replace(one, start=5, end=5),),
        (replace(one, start=-1),),
        (replace(one, start=0, end=2**60),),
        (one, one),
        header.ranges[::-1],
    ):
        forged = chain.certified(replace(header, ranges=ranges), chain.blocks[2].records, ())
        refuses(intake_of(chain, 2), record_value(forged))
    huge = replace(header, ranges=(replace(one, start=0, end=2**60),), record_count=2**60)
    forged = chain.certified(huge, chain.blocks[2].records, ())
    refuses(intake_of(chain, 2), record_value(forged))


# Repeated blocks and contradictions -------------------------------------------------------------


def test_a_repeated_block_is_skipped_and_an_altered_repetition_is_counted(chain: Ledger) -> None:
    intake = intake_of(chain)
    offer_all(intake, chain.blocks[:5])
    for block in chain.blocks[:5]:
        assert intake.offer(record_value(block)) == []
        assert intake.offer(record_value(pointing(block, chain.blocks[9]))) == []
    block = chain.blocks[2]
    for wrong in _bodies(block):
        refuses(intake, record_value(wrong))
    at = _first_with_events(block)
    for record in _altered(block.records[at], chain, 3):
        refuses(intake, record_value(_with_record(block, at, _rehashed(record))))
    assert intake.next_height == 6


def _rival(ledger: Ledger, height: int) -> Block:
    """Another certified block of a height: what only a broken quorum can make."""
    block = ledger.blocks[height - 1]
    header = replace(block.header, time=block.header.time + 1)
    return ledger.certified(header, block.records, block.state_changes)


@pytest.mark.parametrize("height", [1, 3, 5])
def test_a_second_certified_block_of_a_height_halts(chain: Ledger, height: int) -> None:
    intake = intake_of(chain)
    offer_all(intake, chain.blocks[:5])
    with pytest.raises(Halt, match="two certified blocks"):
        intake.offer(record_value(_rival(chain, height)))


def test_two_certified_blocks_that_wait_together_halt(chain: Ledger) -> None:
    intake = intake_of(chain)
    assert intake.offer(record_value(chain.blocks[3])) == []
    with pytest.raises(Halt, match="two certified blocks"):
        intake.offer(record_value(_rival(chain, 4)))


def test_a_second_block_of_a_height_that_is_only_said_to_be_proved_is_counted(
    chain: Ledger,
) -> None:
    intake = intake_of(chain)
    offer_all(intake, chain.blocks[:5])
    refuses(intake, record_value(pointing(_rival(chain, 3), chain.blocks[9])))


def test_a_repeated_block_with_another_proof_is_skipped_and_with_none_that_holds_counted(
    chain: Ledger,
) -> None:
    intake = intake_of(chain)
    offer_all(intake, chain.blocks[:5])
    first, second = chain.blocks[:2]
    assert isinstance(second.proof, CommitProof)
    through = CommitProof(second.proof.finalization, (second.header_bytes,))
    assert intake.offer(record_value(replace(first, proof=through))) == []
    refuses(intake, record_value(replace(first, proof=second.proof)))


def test_a_repeated_block_is_not_read_again(chain: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its body's bytes are those that were checked: no record is decoded or hashed."""
    intake = intake_of(chain)
    offer_all(intake, chain.blocks[:5])
    monkeypatch.delattr(block_intake, "decode_block_body")
    for block in chain.blocks[:5]:
        assert intake.offer(record_value(block)) == []


def test_a_certified_block_that_does_not_continue_the_chain_halts(chain: Ledger) -> None:
    block = chain.blocks[5]
    header = replace(block.header, parent_digest=Hash(bytes(32)))
    orphan = chain.certified(header, block.records, block.state_changes)
    intake = intake_of(chain)
    offer_all(intake, chain.blocks[:5])
    with pytest.raises(Halt, match="on which the certified block 6 stands"):
        intake.offer(record_value(orphan))


@pytest.mark.parametrize(
    "changes",
    [{"next_offset": 3}, {"next_offset": 0}, {"topic_uuid": bytes(15) + b"\x01"}, {"log_epoch": 2}],
    ids=str,
)
def test_a_certified_range_that_does_not_continue_the_log_halts(
    chain: Ledger, changes: dict[str, int]
) -> None:
    """The digests link and the log does not: certified data that contradicts certified data."""
    positions = [replace(one, **changes) for one in intake_of(chain, 1).positions]  # type: ignore[arg-type]
    digest = chain.blocks[0].digest
    intake = BlockIntake(chain.ledger_id, chain.genesis.founding_sets, 2, digest, positions)
    with pytest.raises(Halt, match="certified range"):
        intake.offer(record_value(chain.blocks[1]))


def test_a_first_range_that_does_not_start_at_the_first_offset_halts(chain: Ledger) -> None:
    intake = BlockIntake(
        chain.ledger_id,
        chain.genesis.founding_sets,
        2,
        chain.blocks[0].digest,
        chain.founding.positions,
    )
    with pytest.raises(Halt, match="certified range"):
        intake.offer(record_value(chain.blocks[1]))


def test_a_log_hash_that_is_not_the_consumers_refuses_the_block(chain: Ledger) -> None:
    """The consumer's own record of the past is wrong, or the block's records are: it cannot tell,
    and goes no further.
    """
    positions = [replace(one, log_hash=Hash(bytes(32))) for one in intake_of(chain, 1).positions]
    digest = chain.blocks[0].digest
    intake = BlockIntake(chain.ledger_id, chain.genesis.founding_sets, 2, digest, positions)
    refuses(intake, record_value(chain.blocks[1]))


# Proofs that stand in later blocks --------------------------------------------------------------


def batch_of(ledger: Ledger, first: int, last: int) -> list[Block]:
    """Blocks that all point to the last one's proof."""
    final = ledger.blocks[last - 1]
    return [*(pointing(one, final) for one in ledger.blocks[first - 1 : last - 1]), final]


def test_a_batch_waits_for_its_proof_and_comes_out_whole(chain: Ledger) -> None:
    intake = intake_of(chain)
    *waiting, final = batch_of(chain, 1, 12)
    for block in waiting:
        assert intake.offer(record_value(block)) == []
    assert intake.holds_blocks
    given = intake.offer(record_value(final))
    assert heights(given) == list(range(1, 13))
    for checked in given:
        link = link_to(checked.block.header, checked.block.digest)
        check_commit_proof(checked.proof, link, chain.ledger_id, chain.validators, link_of)
    assert len(given[0].proof.headers) == 11
    assert (intake.holds_blocks, intake.dropped) == (False, 0)


@given(st.integers(0, 2**32))
@reproducible
def test_batches_in_any_order_come_out_in_order(seed: int) -> None:
    ledger = _chain_once()
    dice = Random(seed)
    cuts = sorted({0, 12, *(dice.randrange(1, 12) for _ in range(3))})
    blocks = [block for start, end in pairwise(cuts) for block in batch_of(ledger, start + 1, end)]
    dice.shuffle(blocks)
    intake = intake_of(ledger)
    assert offer_all(intake, blocks) == list(range(1, 13))
    assert (intake.dropped, intake.holds_blocks) == (0, False)


def test_a_pointer_may_lead_to_a_block_that_is_proved_through_a_still_later_one(
    chain: Ledger,
) -> None:
    """The last block of the batch carries the proof of a descendant that is itself not here."""
    first, second, third = chain.blocks[:3]
    assert isinstance(third.proof, CommitProof)
    carried = CommitProof(third.proof.finalization, (third.header_bytes,))
    intake = intake_of(chain)
    assert intake.offer(record_value(pointing(first, second))) == []
    given = intake.offer(record_value(replace(second, proof=carried)))
    assert heights(given) == [1, 2]
    assert given[0].proof.headers == (second.header_bytes, third.header_bytes)


def test_a_pointer_to_a_block_that_is_no_descendant_proves_nothing(chain: Ledger) -> None:
    intake = intake_of(chain)
    rival = pointing(_rival(chain, 2), chain.blocks[3])
    assert offer_all(intake, [chain.blocks[0], rival, chain.blocks[2], chain.blocks[3]]) == [1]
    assert heights(intake.offer(record_value(chain.blocks[1]))) == [2, 3, 4]
    assert (intake.dropped, intake.holds_blocks) == (1, False)


@pytest.mark.parametrize("height", [-1, 0, 1, 1 + HELD_BLOCKS_MAX, 2**62])
def test_a_pointer_leads_to_a_later_block_within_the_bound(chain: Ledger, height: int) -> None:
    block = replace(chain.blocks[0], proof=ProofPointer(height, chain.blocks[4].digest))
    refuses(intake_of(chain), record_value(block))


def test_a_pointer_only_says_that_there_is_a_proof(chain: Ledger) -> None:
    """Anyone may alter it, for nothing binds it: the proof of any block that follows will do."""
    for pointer in (ProofPointer(4, chain.blocks[2].digest), ProofPointer(60, Hash(bytes(32)))):
        intake = intake_of(chain)
        block = replace(chain.blocks[0], proof=pointer)
        assert offer_all(intake, [block, *chain.blocks[1:5]]) == [1, 2, 3, 4, 5]
        assert (intake.dropped, intake.holds_blocks) == (0, False)


def test_without_a_validators_signature_no_block_waits_for_a_proof(chain: Ledger) -> None:
    block = pointing(chain.blocks[0], chain.blocks[4])
    stranger = sign_proposal(ALICE, block.digest)
    other = chain.blocks[1].leader_signatures
    for signatures in ((), stranger, other, block.leader_signatures * 2):
        refuses(intake_of(chain), record_value(replace(block, leader_signatures=signatures)))
    genuine = sign_proposal(VALIDATORS[0], block.digest)
    assert intake_of(chain).offer(record_value(replace(block, leader_signatures=genuine))) == []


# Bounds -----------------------------------------------------------------------------------------


def test_an_altered_copy_does_not_push_out_the_genuine_one(chain: Ledger) -> None:
    """Both wait; only when their turn comes does the log hash show which is the log's."""
    block = chain.blocks[4]
    at = _first_with_events(block)
    altered = next(iter(_altered(block.records[at], chain, 5)))
    forged = _with_record(block, at, _rehashed(altered))
    for copies in ([block, forged], [forged, block]):
        intake = intake_of(chain, 3)
        for copy in copies:
            assert intake.offer(record_value(copy)) == []
        assert heights(intake.offer(record_value(chain.blocks[3]))) == [4, 5]
        assert (intake.dropped, intake.holds_blocks) == (1, False)


def test_copies_of_one_block_are_bounded_and_the_topic_is_read_again_for_it(chain: Ledger) -> None:
    block = chain.blocks[4]
    at = _first_with_events(block)
    intake = intake_of(chain, 3)
    for number in range(10):
        record = replace(block.records[at], headers=headers_bytes((("n", bytes((number,))),)))
        forged = _with_record(block, at, _rehashed(record))
        assert intake.offer(record_value(forged), number) == []
    assert intake.let_go == 10 - HELD_COPIES_MAX
    assert intake.offer(record_value(block), 10) == []
    assert intake.read_again_from is None
    assert heights(intake.offer(record_value(chain.blocks[3]), 11)) == [4]
    assert (intake.dropped, intake.holds_blocks) == (HELD_COPIES_MAX, False)
    assert intake.read_again_from == intake.low_water(12) == HELD_COPIES_MAX
    intake.read_again(HELD_COPIES_MAX)
    assert heights(intake.offer(record_value(block), 10)) == [5]
    assert intake.read_again_from is None


def _signed_without_proof(ledger: Ledger, height: int, number: int) -> Block:
    """A proposal of a validator that never gets its proof."""
    block = ledger.blocks[0]
    header = replace(block.header, height=height, time=block.header.time + number)
    data = encode_block_header(header)
    digest = hash_block(data)
    return replace(
        block,
        header=header,
        header_bytes=data,
        digest=digest,
        leader_signatures=sign_proposal(VALIDATORS[0], digest),
        proof=ProofPointer(height + 1, Hash(bytes(32))),
    )


def test_what_waits_is_bounded_in_number_and_the_farthest_goes_first(chain: Ledger) -> None:
    """Even a validator that signs proposals without end takes no more than the room there is, and
    does not stop the chain.
    """
    intake = intake_of(chain)
    intake.offer(record_value(chain.blocks[1]))
    for number in range(HELD_RECORDS_MAX + 50):
        height = 3 + number % (HELD_BLOCKS_MAX - 3)
        assert intake.offer(record_value(_signed_without_proof(chain, height, number))) == []
    assert (intake.let_go, intake.dropped) == (51, 0)
    assert heights(intake.offer(record_value(chain.blocks[0]))) == [1, 2]
    assert offer_all(intake, chain.blocks[2:]) == list(range(3, 13))


def test_what_waits_is_bounded_in_bytes(chain: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(record_value(chain.blocks[3]))
    monkeypatch.setattr(waiting_blocks, "HELD_BYTES_MAX", 4 * size)
    intake = intake_of(chain)
    assert offer_all(intake, chain.blocks[3:12]) == []
    assert (intake.let_go, intake.dropped) == (5, 0)
    assert offer_all(intake, chain.blocks[:3]) == [1, 2, 3, 4, 5, 6, 7]
    assert offer_all(intake, chain.blocks) == [8, 9, 10, 11, 12]


def test_heights_far_below_are_forgotten(chain: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_intake, "KNOWN_BLOCKS_MAX", 3)
    intake = intake_of(chain)
    offer_all(intake, chain.blocks)
    assert intake.offer(record_value(_rival(chain, 9))) == []
    with pytest.raises(Halt):
        intake.offer(record_value(_rival(chain, 10)))


# The caller's own check -------------------------------------------------------------------------


def test_a_block_that_the_caller_refuses_leaves_its_height_open(chain: Ledger) -> None:
    refusals = [2, 2, 3]

    def check(checked: CheckedBlock) -> None:
        height = checked.block.header.height
        if height in refusals:
            refusals.remove(height)
            raise Malformed("not now")

    intake = BlockIntake(
        chain.ledger_id, chain.genesis.founding_sets, 1, Hash(chain.ledger_id), (), check=check
    )
    value = [record_value(block) for block in chain.blocks]
    assert heights(intake.offer(value[0])) == [1]
    refuses(intake, value[1])
    refuses(intake, value[1])
    assert heights(intake.offer(value[1])) == [2]
    assert intake.offer(value[3]) == []
    refuses(intake, value[2])
    assert heights(intake.offer(value[2])) == [3, 4]


# Whole ledgers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [20 * 1024, 4 * 1024 * 1024])
def test_blocks_of_a_limited_ledger_are_taken_as_they_come(limit: int) -> None:
    limits = Limits(2048, 4096, 4, 50, limit, 16, 5000)
    ledger = Ledger(make_genesis(limits=limits))
    for number in range(1, 40):
        for session in ("a", "b", "c", "d"):
            make = ledger.opening if number == 1 else ledger.command
            ledger.append(make(session, number=number))
    intake = intake_of(ledger)
    while any(one.next_offset < len(ledger.log[one.partition]) for one in ledger.state.positions):
        (checked,) = intake.offer(record_value(ledger.commit()))
        assert decode_block(encode_block(checked.block)) == checked.block
    assert intake.positions == ledger.state.positions


def test_positions_of_a_consumer_that_knows_some_partitions_only(chain: Ledger) -> None:
    """What is known is checked against the log; what is not starts with what the block says."""
    known = [one for one in intake_of(chain, 4).positions if one.partition == 0]
    assert known[0] == LogPosition(0, 1, TOPIC_UUID, known[0].next_offset, known[0].log_hash)
    intake = BlockIntake(
        chain.ledger_id, chain.genesis.founding_sets, 5, chain.blocks[3].digest, known
    )
    assert offer_all(intake, chain.blocks[4:]) == list(range(5, 13))
    assert intake.positions == chain.state.positions
