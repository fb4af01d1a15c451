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
    BlockHeader,
    BlockKind,
    Disposition,
    ProofPointer,
    Range,
    RecordDisposition,
    check_body,
    decode_block,
    hash_record,
    link_of,
    link_to,
    log_continued,
    log_next,
    log_start,
    proposal_signed,
)
from nocturne.core.certificates import CommitProof, check_commit_proof
from nocturne.core.commands import author_signed, check_payloads, decode_signed_command
from nocturne.core.encoding import ZERO_HASH, sha256
from nocturne.core.errors import Halt, Malformed
from nocturne.core.identifiers import Hash, LedgerId
from nocturne.core.intake import command_hash_of_value, is_carried
from nocturne.core.receipts import Reason, decode_receipt_header
from nocturne.core.state_leaf import LogPosition
from nocturne.core.topics import unframe
from nocturne.core.validator_sets import ValidatorSets

HELD_BLOCKS_MAX: Final = 64
"""How far ahead of its turn a block may come; a batch of blocks under one proof is shorter. No
further than into the epoch after the next block's, whose validators are decided by then.
"""
HELD_RECORDS_MAX: Final = 256
"""Blocks that wait for their turn or their proof: of each height the block and a few forgeries."""
HELD_COPIES_MAX: Final = 4
"""Different records that bring one block; only its turn shows which has the log's bytes."""
HELD_BYTES_MAX: Final = 64 * 1024 * 1024
"""Serialised bytes of the blocks that wait: 16 full ones of the default limits."""
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

    `next_height` None starts at the first block that proves itself (for a service that needs no
    past); otherwise the chain continues from `parent_digest` (the ledger id before block 1) and
    `positions`. Where the position of a partition is not known, a record's key, headers and prefix
    are believed for its first range, and so is all that stands beside a refused command; commands,
    payloads and signatures of events are not. `sets` are the validators as of the block before
    `next_height`, or of a later one of the same chain. `check` is the caller's own last check of a
    block whose turn has come: `Malformed` drops that block, and the height stays open for the right
    one.
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
        self._held: dict[int, list[_Held]] = {}
        self._known: OrderedDict[int, _Known] = OrderedDict()
        self.dropped = 0
        """Held blocks that turned out not to be the certified ones, or found no place to wait."""

    @property
    def next_height(self) -> int | None:
        """The height that comes next, None before the first block of an intake without a past."""
        return self._next_height

    @property
    def holds_blocks(self) -> bool:
        """Whether blocks wait for others: a reader who starts anew must read them again."""
        following = self._next_height or 0
        return any(height >= following for height in self._held)

    @property
    def positions(self) -> tuple[LogPosition, ...]:
        """The log positions after the last block given out, as far as they are known."""
        return tuple(self._positions[key] for key in sorted(self._positions))

    @property
    def sets(self) -> ValidatorSets:
        """The validators after the last block given out."""
        return self._sets

    def offer(self, value: bytes | None) -> list[CheckedBlock]:
        """The blocks whose turn has come with this record. `Malformed`: the record is no block of
        this ledger's chain. `Halt`: two certified blocks contradict each other.
        """
        block = decode_block(unframe(value))
        header = block.header
        _check_header(header, self._ledger_id)
        self._check_decided(header.height)
        if isinstance(block.proof, CommitProof):
            self._check_proof(block.proof, block)
        elif self._next_height is None:
            return []
        hashes = [command_hash_of_value(record) for record in block.records]
        dispositions, leaves = check_body(block, hashes)
        assert value is not None
        held = _Held(block, dispositions, leaves, len(value))
        if self._next_height is None:
            return self._start(held)
        if header.height < self._next_height:
            self._check_again(block)
            return []
        if header.height >= self._next_height + HELD_BLOCKS_MAX:
            raise Malformed(f"block {header.height}: expected {self._next_height} next")
        self._hold(held, self._next_height)
        return self._drain()

    def _start(self, held: _Held) -> list[CheckedBlock]:
        """The first block of an intake without a past; one that is refused fixes nothing."""
        height = held.block.header.height
        self._next_height = height
        try:
            self._hold(held, height)
            return self._drain()
        except Malformed:
            self._next_height = None
            raise

    def _check_decided(self, height: int) -> None:
        following = self._next_height
        if following is not None:
            known = self._sets.epoch_at(following) + 1
            if self._sets.epoch_at(height) > known:
                raise Malformed(
                    f"block {height}: expected {following} next, and the validators after epoch "
                    f"{known} are not decided before it"
                )

    def _check_proof(self, proof: CommitProof, block: Block) -> None:
        _check_proof(self._ledger_id, self._sets, proof, block)

    def _check_again(self, block: Block) -> None:
        """A block of a height that was given out: the same one, `Malformed`, or, if it is another
        and certified, `Halt`. Of heights that are not remembered nothing more can be said.
        """
        height = block.header.height
        known = self._known.get(height)
        if known is None:
            return
        if known.digest == block.digest:
            for record in block.records:
                _check_bytes(record)
            if known.records_hash != _records_hash(block):
                raise Malformed(f"block {height}: its records are not the log's")
            return
        if isinstance(block.proof, ProofPointer):
            raise Malformed(f"block {height}: not the committed one")
        raise Halt(
            f"two certified blocks at height {height}: {known.digest.hex()} and "
            f"{block.digest.hex()}"
        )

    def _hold(self, held: _Held, next_height: int) -> None:
        block = held.block
        height = block.header.height
        if isinstance(block.proof, ProofPointer):
            self._check_pointer(block, block.proof)
        others = self._held.setdefault(height, [])
        copies = 0
        for other in others:
            if other.block == block:
                return
            if other.block.digest == block.digest:
                copies += 1
            elif other.is_proved and held.is_proved:
                raise Halt(
                    f"two certified blocks at height {height}: {other.block.digest.hex()} and "
                    f"{block.digest.hex()}"
                )
        if copies == HELD_COPIES_MAX:
            raise Malformed(f"block {height}: {copies} different copies of it wait already")
        others.append(held)
        if height == next_height and held.is_proved:
            # It does not wait.
            return
        while not self._has_room():
            self._drop_farthest()

    def _check_pointer(self, block: Block, pointer: ProofPointer) -> None:
        """Until its proof comes, a validator's signature keeps strangers from filling the room."""
        height = block.header.height
        if not height < pointer.height < height + HELD_BLOCKS_MAX:
            raise Malformed(f"block {height}: its proof is said to stand in block {pointer.height}")
        if not any(
            proposal_signed(key, block.digest, block.leader_signatures)
            for key in self._sets.of_block(block.header).keys
        ):
            raise Malformed(f"block {height}: no validator signed it")

    def _has_room(self) -> bool:
        waiting = [held for copies in self._held.values() for held in copies]
        return len(waiting) <= HELD_RECORDS_MAX and sum(h.size for h in waiting) <= HELD_BYTES_MAX

    def _drop_farthest(self) -> None:
        height = max(self._held)
        self._held[height].pop()
        if not self._held[height]:
            del self._held[height]
        self.dropped += 1

    def _drain(self) -> list[CheckedBlock]:
        given: list[CheckedBlock] = []
        fault: Malformed | None = None
        while (held := self._next_proved()) is not None:
            try:
                checked = self._checked(held)
                self._check_link(checked.block)
                positions = self._check_log(checked.block)
                if self._check is not None:
                    self._check(checked)
            except Malformed as malformed:
                self._remove(held)
                self.dropped += 1
                fault = malformed
                continue
            sets = self._sets_after(checked.block)
            self._remove(held)
            self._advance(checked.block, positions, sets)
            given.append(checked)
        if fault is not None and not given:
            self.dropped -= 1
            raise fault
        return given

    def _next_proved(self) -> _Held | None:
        assert self._next_height is not None
        for held in self._held.get(self._next_height, ()):
            if held.is_proved or self._headers_to_proof(held) is not None:
                return held
        return None

    def _checked(self, held: _Held) -> CheckedBlock:
        """The block with its whole proof, which may stand in a later one."""
        proof = held.block.proof
        if isinstance(proof, ProofPointer):
            found = self._headers_to_proof(held)
            assert found is not None
            proof = found
            self._check_proof(proof, held.block)
        return CheckedBlock(held.block, proof, held.dispositions, held.leaves)

    def _headers_to_proof(self, held: _Held) -> CommitProof | None:
        """The proof of the block that `held` points to, with the headers between; None as long as
        one of them is not there.
        """
        pointer = held.block.proof
        assert isinstance(pointer, ProofPointer)
        headers: list[bytes] = []
        digest, final = pointer.digest, None
        for height in range(pointer.height, held.block.header.height, -1):
            block = next(
                (
                    one.block
                    for one in self._held.get(height, ())
                    if one.block.digest == digest and (final is not None or one.is_proved)
                ),
                None,
            )
            if block is None:
                return None
            if final is None:
                assert isinstance(block.proof, CommitProof)
                final = block.proof
            headers.append(block.header_bytes)
            digest = block.header.parent_digest
        if final is None or digest != held.block.digest:
            return None
        return CommitProof(final.finalization, (*reversed(headers), *final.headers))

    def _remove(self, held: _Held) -> None:
        height = held.block.header.height
        self._held[height] = [one for one in self._held[height] if one is not held]
        if not self._held[height]:
            del self._held[height]

    def _check_link(self, block: Block) -> None:
        if self._parent_digest not in (None, block.header.parent_digest):
            raise Halt(
                f"the certified block {block.header.height} does not continue the certified block "
                f"before it"
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
        hashes, `Halt` when the certified ranges do not continue the certified ones before them.
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
        return positions

    def _advance(
        self, block: Block, positions: dict[int, LogPosition], sets: ValidatorSets
    ) -> None:
        height = block.header.height
        self._sets = sets
        self._positions = positions
        self._parent_digest = block.digest
        self._next_height = height + 1
        self._known[height] = _Known(block.digest, _records_hash(block))
        if len(self._known) > KNOWN_BLOCKS_MAX:
            self._known.popitem(last=False)
        for other in self._held.pop(height, ()):
            try:
                self._check_again(other.block)
            except Malformed:
                self.dropped += 1


@dataclass(frozen=True, slots=True)
class _Held:
    """A block that waits, its body checked against its header, and the size of its record."""

    block: Block
    dispositions: Sequence[Disposition]
    leaves: Sequence[bytes]
    size: int

    @property
    def is_proved(self) -> bool:
        return isinstance(self.block.proof, CommitProof)


@dataclass(frozen=True, slots=True)
class _Known:
    """A block that was given out. With the digest, the records' hashes bind its whole body."""

    digest: Hash
    records_hash: bytes


def _records_hash(block: Block) -> bytes:
    return sha256(b"".join([record.record_hash or ZERO_HASH for record in block.records]))


def _log_before(ledger_id: LedgerId, one: Range, known: LogPosition | None) -> Hash | None:
    """The log hash before a range, None where it is not known."""
    if known is None or known.topic_uuid == _NO_TOPIC:
        if (one.log_epoch, one.start) == (1, 0):
            return log_start(ledger_id, one.topic_uuid, 1)
        if known is None:
            return None
    elif one.log_epoch == known.log_epoch + 1:
        return log_continued(known.log_hash, one.topic_uuid, one.log_epoch)
    elif (one.log_epoch, one.topic_uuid, one.start) == (
        known.log_epoch,
        known.topic_uuid,
        known.next_offset,
    ):
        return known.log_hash
    raise Halt(
        f"partition {one.partition}: a certified range starts at {one.start}, "
        f"the one before it ended at {known.next_offset}"
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
    ledger_id: LedgerId, sets: ValidatorSets, proof: CommitProof, block: Block
) -> None:
    validators = sets.of_block(block.header)
    check_commit_proof(proof, link_to(block.header, block.digest), ledger_id, validators, link_of)


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


_NO_TOPIC: Final = bytes(16)
