"""Take blocks from the blocks topic, in height order, believing nothing but commit proofs.

Rules: docs/spec/blocks.md, what a consumer checks. Pure: the shell brings record values, counts
what is refused (`Malformed`, and `dropped`), and stops on `Halt`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from nocturne.core.blocks import (
    FORMAT_VERSION,
    RULES_VERSION,
    Block,
    BlockFront,
    BlockHeader,
    BlockKind,
    Disposition,
    ProofPointer,
    Range,
    RecordDisposition,
    check_body,
    decode_block,
    decode_block_body,
    decode_block_front,
    hash_record,
    log_next,
    log_start,
    proposal_signed,
)
from nocturne.core.certificates import CommitProof
from nocturne.core.commands import author_signed, check_payloads, decode_signed_command
from nocturne.core.conflicts import Certified, CertifiedBlocks
from nocturne.core.encoding import ZERO_HASH, sha256
from nocturne.core.errors import Halt, Malformed
from nocturne.core.identifiers import Hash, LedgerId
from nocturne.core.intake import command_hash_of_value, is_carried
from nocturne.core.log_epochs import NO_TOPIC, known_positions_after
from nocturne.core.modes import two_histories
from nocturne.core.receipts import Reason, decode_receipt_header
from nocturne.core.state_leaf import LogPosition
from nocturne.core.topics import unframe
from nocturne.core.validator_sets import ValidatorSets
from nocturne.core.waiting_blocks import (
    HELD_BLOCKS_MAX,
    LET_GO_HEIGHTS_MAX,
    Standing,
    Waiting,
    WaitingBlocks,
)

KNOWN_BLOCKS_MAX: Final = 4096
"""Heights below the next one at which a second, different block is noticed."""


@dataclass(frozen=True, slots=True)
class CheckedBlock:
    """A block whose commit proof and body hold, its whole proof, its dispositions, their leaves.

    Two parts of `block` are not checked here. The leader's signatures: the commit proof stands for
    them, nothing may rest on them. The state changes: whoever keeps the state tree applies them and
    compares the root with the header's.
    """

    block: Block
    proof: CommitProof
    dispositions: Sequence[Disposition]
    leaves: Sequence[bytes]


class BlockIntake:
    """Give it every record of the blocks topic; get each committed block once, in height order.

    The chain continues from `next_height`, `parent_digest` (the ledger id before block 1) and
    `positions`; `sets` are the validators as of the block before `next_height`, or of a later one
    of the same chain. `next_height` None is for a service that needs no past: it starts at the
    first block that proves itself, and a block before that one which comes later is given out late,
    if the chain links it. Where the position of a partition is not known, a record's key, headers
    and prefix are believed for its first range, and so is all that stands beside a refused command;
    commands, payloads and signatures of events are not. `check` is the caller's own last check of a
    block whose turn has come: `Malformed` drops that block, and the height stays open for the right
    one.

    Blocks wait for their turn in bounded room. When `read_again_from` names an offset, one that
    found no place is missing: the topic is to be read again from there, after `read_again`.
    """

    def __init__(
        self,
        ledger_id: LedgerId,
        sets: ValidatorSets,
        next_height: int | None,
        parent_digest: Hash | None = None,
        positions: Iterable[LogPosition] = (),
        check: Callable[[CheckedBlock], None] | None = None,
    ) -> None:
        self._ledger_id = ledger_id
        self._check = check
        self._sets = sets
        self._next_height = next_height
        self._parent_digest = parent_digest
        self._positions = {one.partition: one for one in positions}
        self._waiting = WaitingBlocks(self._ledger_id)
        self._earlier: _Earlier | None = None
        self._known: OrderedDict[int, _Known] = OrderedDict()
        self._certified = CertifiedBlocks()
        self.dropped = 0
        """Blocks that waited and turned out not to be the certified ones."""

    @property
    def next_height(self) -> int | None:
        """The height that comes next, None before the first block of an intake without a past."""
        return self._next_height

    @property
    def holds_blocks(self) -> bool:
        """Whether blocks wait for others."""
        return len(self._waiting) > 0

    @property
    def let_go(self) -> int:
        """Records that found no place to wait."""
        return self._waiting.let_go

    @property
    def positions(self) -> tuple[LogPosition, ...]:
        """The log positions after the last block given out, as far as they are known."""
        return tuple(self._positions[key] for key in sorted(self._positions))

    @property
    def sets(self) -> ValidatorSets:
        """The validators after the last block given out."""
        return self._sets

    def low_water(self, following: int) -> int:
        """The first offset of the topic that a reader must read who goes on from the last block
        given out, when `following` is the offset after the last record offered.
        """
        return self._waiting.low_water(following)

    @property
    def read_again_from(self) -> int | None:
        """The offset from which the topic must be read again, for a block that found no place;
        None when none is missing, or when it would find none again. Each time there is more room
        or more is known than the time before, so that this ends.
        """
        return (
            None if self._next_height is None else self._waiting.read_again_from(self._next_height)
        )

    def read_again(self, offset: int) -> None:
        """The next record offered is the one at `offset`, which `read_again_from` named."""
        self._waiting.read_again(offset)

    def offer(self, value: bytes | None, offset: int = 0) -> list[CheckedBlock]:
        """The blocks whose turn has come with this record. `Malformed`: the record is no block of
        this ledger's chain. `DegradedFound`, with the proof, or without it `Halt`: two certified
        blocks contradict each other.
        """
        front = decode_block_front(unframe(value))
        _check_header(front.header, self._ledger_id)
        if self._next_height is not None and not self._is_decided(front.header.height):
            self._pass_by(front, offset, self._next_height)
            return []
        if isinstance(front.proof, CommitProof):
            self._check_proof(front.proof, front)
        elif self._next_height is None:
            return []
        following = self._next_height
        height = front.header.height
        if following is not None and height < following:
            return self._offer_again(front)
        if following is not None and height >= following + HELD_BLOCKS_MAX:
            self._pass_by(front, offset, following)
            return []
        assert value is not None
        held = _waiting(front, len(value), offset)
        return self._start(held) if following is None else self._hold(held, following)

    def _start(self, held: Waiting) -> list[CheckedBlock]:
        """The first block of an intake without a past; one that is refused fixes nothing."""
        self._next_height = held.height
        self._earlier = _Earlier(held.height, held.block.header.parent_digest, {})
        try:
            return self._hold(held, held.height)
        except Malformed:
            self._next_height = self._earlier = None
            self._waiting = WaitingBlocks(self._ledger_id)
            raise

    def _is_decided(self, height: int) -> bool:
        """Whether the validators of this height's epoch are decided by the block before the next:
        those of its epoch and of the one after.
        """
        assert self._next_height is not None
        return self._sets.epoch_at(height) <= self._sets.epoch_at(self._next_height) + 1

    def _check_proof(self, proof: CommitProof, block: Block | BlockFront) -> None:
        _check_proof(self._ledger_id, self._sets, proof, block)

    # Blocks that were given out -------------------------------------------------------------------

    def _offer_again(self, front: BlockFront) -> list[CheckedBlock]:
        """A block below the next height. The same bytes as before need no second look."""
        known = self._known.get(front.header.height)
        if known is not None:
            if (known.digest, known.body_hash) != (front.digest, sha256(front.body)):
                self._check_again(known, front)
            return []
        held = _waiting(front, len(front.body), 0)
        check_unlinked(held.block.records)
        return [] if self._earlier is None else self._take_earlier(held, self._earlier)

    def _check_again(self, known: _Known, front: BlockFront) -> None:
        """Another record of a height that was given out: the same block, `Malformed`, or, if it is
        another and certified, `Halt`. Of heights that are not remembered nothing more can be said.
        """
        height = front.header.height
        if known.digest != front.digest:
            if isinstance(front.proof, ProofPointer):
                raise Malformed(f"block {height}: not the committed one")
            raise two_histories(
                self._ledger_id,
                self._certified.get(height),
                Certified(front.header_bytes, front.proof),
                f"two certified blocks at height {height}: {known.digest.hex()} and "
                f"{front.digest.hex()}",
            )
        block = _waiting(front, 0, 0).block
        for record in block.records:
            _check_bytes(record)
        if known.records_hash != _records_hash(block):
            raise Malformed(f"block {height}: its records are not the log's")
        if self._check is not None:
            # What else stands in a body, the state changes, was the caller's to check.
            raise Malformed(f"block {height}: its state changes are not the certified ones")

    def _take_earlier(self, held: Waiting, earlier: _Earlier) -> list[CheckedBlock]:
        """Blocks from before the first one, each linked to by the one after it."""
        given: list[CheckedBlock] = []
        if held.proof is None or earlier.height - held.height > HELD_BLOCKS_MAX:
            return given
        if len(earlier.held) < HELD_BLOCKS_MAX:
            earlier.held[held.block.digest] = held
        while (found := earlier.held.pop(earlier.parent_digest, None)) is not None:
            assert found.proof is not None
            given.append(CheckedBlock(found.block, found.proof, found.dispositions, found.leaves))
            earlier.height, earlier.parent_digest = found.height, found.block.header.parent_digest
            self._sets = self._sets.after_earlier(found.height, found.block.control)
            self._remember(found)
        return given

    # Blocks whose turn comes ----------------------------------------------------------------------

    def _pass_by(self, front: BlockFront, offset: int, following: int) -> None:
        """A block that is too far ahead to wait; one whose validators are not decided yet proves
        nothing either.
        """
        height = front.header.height
        standing = Standing.CERTIFIED
        if not self._is_decided(height):
            standing = Standing.UNKNOWN
        elif isinstance(front.proof, ProofPointer):
            standing = Standing.PROPOSED
            self._check_pointer(front, front.proof)
        if standing is not Standing.CERTIFIED and height >= following + LET_GO_HEIGHTS_MAX:
            raise Malformed(f"block {height}: expected {following} next")
        self._waiting.pass_by(height, offset, standing, following)

    def _hold(self, held: Waiting, next_height: int) -> list[CheckedBlock]:
        if isinstance(held.block.proof, ProofPointer):
            self._check_pointer(held.block, held.block.proof)
        self._waiting.add(held, next_height)
        try:
            return self._drain(held)
        finally:
            self._waiting.make_room()

    def _check_pointer(self, block: Block | BlockFront, pointer: ProofPointer) -> None:
        """Until its proof comes, a validator's signature keeps strangers from filling the room."""
        height = block.header.height
        if not height < pointer.height < height + HELD_BLOCKS_MAX:
            raise Malformed(f"block {height}: its proof is said to stand in block {pointer.height}")
        if not any(
            proposal_signed(key, block.digest, block.leader_signatures)
            for key in self._sets.of_block(block.header).keys
        ):
            raise Malformed(f"block {height}: no validator signed it")

    def _drain(self, offered: Waiting) -> list[CheckedBlock]:
        given: list[CheckedBlock] = []
        fault: Malformed | None = None
        assert self._next_height is not None
        while (held := self._waiting.proved(self._next_height)) is not None:
            try:
                checked = self._checked(held)
                self._check_link(checked.block, checked.proof)
                positions = self._check_log(checked.block)
                if self._check is not None:
                    self._check(checked)
            except Malformed as malformed:
                self._waiting.drop(held, has_waited=held is not offered)
                if held is offered:
                    fault = malformed
                else:
                    self.dropped += 1
                continue
            self._advance(held, positions, self._sets_after(checked.block))
            given.append(checked)
        if fault is not None:
            if not given:
                raise fault
            self.dropped += 1
        return given

    def _checked(self, held: Waiting) -> CheckedBlock:
        """The block with its whole proof, which may stand in a later one."""
        assert held.proof is not None
        if held.proof is not held.block.proof:
            self._check_proof(held.proof, held.block)
        return CheckedBlock(held.block, held.proof, held.dispositions, held.leaves)

    def _check_link(self, block: Block, proof: CommitProof) -> None:
        if self._parent_digest not in (None, block.header.parent_digest):
            height = block.header.height
            raise two_histories(
                self._ledger_id,
                self._certified.get(height - 1),
                Certified(block.header_bytes, proof),
                f"the certified block {height} does not continue the certified block before it",
            )

    def _sets_after(self, block: Block) -> ValidatorSets:
        """A quorum certified what the header says: another next set than the one that the control
        records before it decided is a contradiction.
        """
        try:
            self._sets.check_next(block.header)
            return self._sets.after(block.header.height, block.control)
        except Malformed as fault:
            raise Halt(f"certified: {fault}") from fault

    def _check_log(self, block: Block) -> dict[int, LogPosition]:
        """The positions after the block; `Malformed` when its records are not those of its log
        hashes, `Halt` when the certified ranges do not continue the certified ones before them, or
        an opened log epoch is not the next one.
        """
        positions = dict(self._positions)
        first = 0
        for one in block.header.ranges:
            records = block.records[first : first + one.end - one.start]
            first += len(records)
            log_hash = _log_before(self._ledger_id, one, positions.get(one.partition))
            if log_hash is None:
                check_unlinked(records)
            elif _log_after(log_hash, one, records) != one.log_hash:
                raise Malformed(f"block {block.header.height}: its records are not the log's")
            positions[one.partition] = LogPosition(
                one.partition, one.log_epoch, one.topic_uuid, one.end, one.log_hash
            )
        try:
            return known_positions_after(positions, block.control)
        except Malformed as fault:
            raise Halt(f"certified: block {block.header.height}: {fault}") from fault

    def _advance(
        self, held: Waiting, positions: dict[int, LogPosition], sets: ValidatorSets
    ) -> None:
        self._sets = sets
        self._positions = positions
        self._parent_digest = held.block.digest
        self._next_height = held.height + 1
        self._remember(held)
        for other in self._waiting.take(held.height):
            if (other.block.digest, other.body_hash) != (held.block.digest, held.body_hash):
                self.dropped += 1

    def _remember(self, held: Waiting) -> None:
        block = held.block
        if held.proof is not None:
            self._certified.add(held.height, Certified(block.header_bytes, held.proof))
        self._known[held.height] = _Known(block.digest, held.body_hash, _records_hash(block))
        if len(self._known) > KNOWN_BLOCKS_MAX:
            self._known.popitem(last=False)


def _waiting(front: BlockFront, size: int, offset: int) -> Waiting:
    """The whole block, its body checked against its header; `Malformed` if it is another's."""
    block = decode_block_body(front)
    hashes = [command_hash_of_value(record) for record in block.records]
    dispositions, leaves = check_body(block, hashes)
    proof = block.proof if isinstance(block.proof, CommitProof) else None
    return Waiting(block, dispositions, leaves, sha256(front.body), size, offset, proof)


@dataclass(slots=True)
class _Earlier:
    """Before which block the chain is not known, and blocks from before it that wait to be linked,
    by digest.
    """

    height: int
    parent_digest: Hash
    held: dict[Hash, Waiting]


@dataclass(frozen=True, slots=True)
class _Known:
    """A block that was given out. With the digest, the records' hashes bind all of its body but
    its state changes.
    """

    digest: Hash
    body_hash: bytes
    records_hash: bytes


def _records_hash(block: Block) -> bytes:
    return sha256(b"".join([record.record_hash or ZERO_HASH for record in block.records]))


def _log_before(ledger_id: LedgerId, one: Range, known: LogPosition | None) -> Hash | None:
    """The log hash before a range, None where it is not known."""
    if known is None or known.topic_uuid == NO_TOPIC:
        if (one.log_epoch, one.start) == (1, 0):
            return log_start(ledger_id, one.topic_uuid, 1)
        if known is None:
            return None
    elif (one.log_epoch, one.topic_uuid, one.start) == (
        known.log_epoch,
        known.topic_uuid,
        known.next_offset,
    ):
        return known.log_hash
    raise Halt(
        f"partition {one.partition}: a certified range starts at {one.start} of log epoch "
        f"{one.log_epoch}, expected {known.next_offset} of log epoch {known.log_epoch}"
    )


def _log_after(log_hash: Hash, one: Range, records: Sequence[RecordDisposition]) -> Hash:
    for offset, record in enumerate(records, one.start):
        _check_bytes(record)
        if record.record_hash is not None:
            log_hash = log_next(log_hash, offset, record.record_hash)
    return log_hash


def _check_bytes(record: RecordDisposition) -> None:
    """`Malformed` unless the record's bytes are those of its record hash, and only a record over
    the limits, or a gap, has none.
    """
    if is_carried(record):
        if hash_record(record.key, record.value, record.headers) != record.record_hash:
            raise Malformed("block: a record's bytes are not those of its hash")
        return
    if record.key is not None or record.value is not None or record.command_length:
        raise Malformed("block: a record that is not carried has bytes")
    if record.record_hash is None:
        if record.events or record.receipt is not None:
            raise Malformed("block: a gap has a disposition")
    elif record.receipt is None or decode_receipt_header(record.receipt).reason != Reason.TOO_LARGE:
        raise Malformed("block: a record is not carried, though it is not too large")


def check_alone(ledger_id: LedgerId, sets: ValidatorSets, value: bytes | None) -> Block:
    """A record of the blocks topic by itself, without its place in the chain: `Malformed` unless it
    is a block of the ledger whose body is its header's and whose commit proof, if it carries it,
    holds by the set of its epoch. What is believed of its records: as `BlockIntake` without a past.
    """
    block = decode_block(unframe(value))
    _check_header(block.header, ledger_id)
    if isinstance(block.proof, CommitProof):
        _check_proof(ledger_id, sets, block.proof, block)
    check_body(block, [command_hash_of_value(record) for record in block.records])
    check_unlinked(block.records)
    return block


def _check_header(header: BlockHeader, ledger_id: LedgerId) -> None:
    if header.ledger_id != ledger_id:
        raise Malformed("block: of another ledger")
    if header.kind is not BlockKind.LEDGER:
        raise Malformed("block: a tail block is no ledger block")
    if (header.format_version, header.rules_version) != (FORMAT_VERSION, RULES_VERSION):
        raise Malformed("block: of another format or rules version")


def _check_proof(
    ledger_id: LedgerId, sets: ValidatorSets, proof: CommitProof, block: Block | BlockFront
) -> None:
    sets.check_proof(proof, block.header, block.digest, ledger_id)


def check_unlinked(records: Sequence[RecordDisposition]) -> None:
    """Without the log hash before it, a record's command is proved by its disposition, and its
    payloads and its author's signature by the command.
    """
    for record in records:
        _check_bytes(record)
        if not record.command_length:
            continue
        signed = decode_signed_command(unframe(record.value))
        if len(signed.command_bytes) != record.command_length:
            raise Malformed("block: a record's command has another length")
        if record.events:
            check_payloads(signed)
            if not author_signed(signed, signed.command.key):
                raise Malformed("block: an author's signature does not verify")
