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
    Block,
    BlockKind,
    Disposition,
    ProofPointer,
    Range,
    RecordDisposition,
    check_body,
    decode_block,
    hash_record,
    link_of,
    log_continued,
    log_next,
    log_start,
)
from nocturne.core.certificates import CommitProof, ValidatorSet, check_commit_proof
from nocturne.core.commands import check_payloads
from nocturne.core.errors import Halt, Malformed
from nocturne.core.identifiers import Hash, LedgerId
from nocturne.core.intake import command_hash_of_value, is_carried, signed_command_of
from nocturne.core.state_leaf import LogPosition
from nocturne.core.topics import unframe

HELD_BLOCKS_MAX: Final = 64
"""Blocks whose turn has not come: later heights, or proofs that stand in a later block."""
KNOWN_DIGESTS_MAX: Final = 4096
"""Heights below the next one at which a second, different block is noticed."""


@dataclass(frozen=True, slots=True)
class CheckedBlock:
    """A block whose commit proof and body hold, its whole proof, its dispositions, their leaves."""

    block: Block
    proof: CommitProof
    dispositions: Sequence[Disposition]
    leaves: Sequence[bytes]


class BlockIntake:
    """Give it every record of the blocks topic; get each committed block once, in height order.

    `next_height` None starts at the first block that proves itself (for a service that needs no
    past); otherwise the chain continues from `parent_digest` (the ledger id before block 1) and
    `positions`, without which bytes that only the log hash binds are believed for a partition's
    first range, payloads excepted. `check` is the caller's own last check of a block whose turn has
    come: `Malformed` drops that block, and the height stays open for the right one.
    """

    def __init__(
        self,
        ledger_id: LedgerId,
        validators: ValidatorSet,
        next_height: int | None,
        parent_digest: Hash | None = None,
        positions: Iterable[LogPosition] = (),
        check: Callable[[CheckedBlock], None] | None = None,
    ) -> None:
        self._ledger_id = ledger_id
        self._check = check
        self._validators = validators
        self._next_height = next_height
        self._parent_digest = parent_digest
        self._positions = {one.partition: one for one in positions}
        self._held: OrderedDict[Hash, CheckedBlock | _Unproved] = OrderedDict()
        self._known: OrderedDict[int, Hash] = OrderedDict()
        self.dropped = 0
        """Held blocks that turned out not to be the certified ones."""

    @property
    def next_height(self) -> int | None:
        """The height that comes next, None before the first block of an intake without a past."""
        return self._next_height

    @property
    def positions(self) -> tuple[LogPosition, ...]:
        """The log positions after the last block given out, as far as they are known."""
        return tuple(self._positions[key] for key in sorted(self._positions))

    def offer(self, value: bytes | None) -> list[CheckedBlock]:
        """The blocks whose turn has come with this record. `Malformed`: the record is no block of
        this ledger's chain. `Halt`: two certified blocks contradict each other.
        """
        block = decode_block(unframe(value))
        header = block.header
        if header.ledger_id != self._ledger_id:
            raise Malformed("block: of another ledger")
        if header.kind is not BlockKind.LEDGER:
            raise Malformed("block: a tail block is no ledger block")
        if isinstance(block.proof, CommitProof):
            self._check_proof(block.proof, block.digest)
        if self._next_height is None:
            if isinstance(block.proof, ProofPointer):
                return []
            self._next_height = header.height
        if header.height < self._next_height:
            self._check_known(block)
            return []
        if header.height >= self._next_height + HELD_BLOCKS_MAX:
            raise Malformed(f"block {header.height}: expected {self._next_height} next")
        self._hold(block)
        return self._drain()

    def _check_proof(self, proof: CommitProof, digest: Hash) -> None:
        check_commit_proof(proof, digest, self._ledger_id, self._validators, link_of)

    def _check_known(self, block: Block) -> None:
        """A block of a height that was given out is the same block or, if certified, the end."""
        known = self._known.get(block.header.height)
        if known is None or known == block.digest or isinstance(block.proof, ProofPointer):
            return
        raise Halt(
            f"two certified blocks at height {block.header.height}: "
            f"{known.hex()} and {block.digest.hex()}"
        )

    def _hold(self, block: Block) -> None:
        hashes = [command_hash_of_value(record) for record in block.records]
        dispositions, leaves = check_body(block, hashes)
        held: CheckedBlock | _Unproved
        if isinstance(block.proof, CommitProof):
            held = CheckedBlock(block, block.proof, dispositions, leaves)
        else:
            held = _Unproved(block, block.proof, dispositions, leaves)
        self._held[block.digest] = held
        if len(self._held) > HELD_BLOCKS_MAX:
            self._held.popitem(last=False)
            self.dropped += 1

    def _drain(self) -> list[CheckedBlock]:
        given: list[CheckedBlock] = []
        fault: Malformed | None = None
        while (checked := self._next_proved()) is not None:
            del self._held[checked.block.digest]
            try:
                self._check_link(checked.block)
                positions = self._check_log(checked.block)
                if self._check is not None:
                    self._check(checked)
            except Malformed as malformed:
                self.dropped += 1
                fault = malformed
                continue
            self._advance(checked.block, positions)
            given.append(checked)
        if fault is not None and not given:
            self.dropped -= 1
            raise fault
        return given

    def _next_proved(self) -> CheckedBlock | None:
        for held in self._held.values():
            if held.block.header.height == self._next_height:
                if isinstance(held, CheckedBlock):
                    return held
                proof = self._proof_from_later(held)
                if proof is not None:
                    return CheckedBlock(held.block, proof, held.dispositions, held.leaves)
        return None

    def _proof_from_later(self, held: _Unproved) -> CommitProof | None:
        """The proof that a later block carries, with the headers between it and this one."""
        last = self._held.get(held.pointer.digest)
        if not isinstance(last, CheckedBlock):
            return None
        headers: list[bytes] = []
        current: CheckedBlock | _Unproved = last
        while current.block.digest != held.block.digest:
            headers.insert(0, current.block.header_bytes)
            parent = self._held.get(current.block.header.parent_digest)
            if parent is None:
                return None
            current = parent
        proof = CommitProof(last.proof.finalization, (*headers, *last.proof.headers))
        self._check_proof(proof, held.block.digest)
        return proof

    def _check_link(self, block: Block) -> None:
        if self._parent_digest not in (None, block.header.parent_digest):
            raise Halt(
                f"the certified block {block.header.height} does not continue the certified block "
                f"before it"
            )

    def _check_log(self, block: Block) -> dict[int, LogPosition]:
        """The positions after the block; `Malformed` when its records are not those of its log
        hashes, `Halt` when the certified ranges do not continue the certified ones before them.
        """
        positions = dict(self._positions)
        first = 0
        for one in block.header.ranges:
            records = block.records[first : first + one.end - one.start]
            first += len(records)
            known = positions.get(one.partition)
            log_hash = _log_before(self._ledger_id, one, known)
            if log_hash is None:
                _check_unlinked(records)
            elif _log_after(log_hash, one, records) != one.log_hash:
                raise Malformed(f"block {block.header.height}: its records are not the log's")
            positions[one.partition] = LogPosition(
                one.partition, one.log_epoch, one.topic_uuid, one.end, one.log_hash
            )
        return positions

    def _advance(self, block: Block, positions: dict[int, LogPosition]) -> None:
        height = block.header.height
        self._positions = positions
        self._parent_digest = block.digest
        self._next_height = height + 1
        self._known[height] = block.digest
        if len(self._known) > KNOWN_DIGESTS_MAX:
            self._known.popitem(last=False)


@dataclass(frozen=True, slots=True)
class _Unproved:
    """A block whose proof stands in a later one."""

    block: Block
    pointer: ProofPointer
    dispositions: Sequence[Disposition]
    leaves: Sequence[bytes]


def _log_before(ledger_id: LedgerId, one: Range, known: LogPosition | None) -> Hash | None:
    """The log hash before a range, None where it is not known."""
    if known is None:
        return (
            log_start(ledger_id, one.topic_uuid, 1)
            if (one.log_epoch, one.start) == (1, 0)
            else None
        )
    if known.topic_uuid == bytes(16) and known.next_offset == 0:
        return log_start(ledger_id, one.topic_uuid, one.log_epoch)
    if one.log_epoch == known.log_epoch + 1:
        return log_continued(known.log_hash, one.topic_uuid, one.log_epoch)
    if (one.log_epoch, one.topic_uuid, one.start) != (
        known.log_epoch,
        known.topic_uuid,
        known.next_offset,
    ):
        raise Halt(
            f"partition {one.partition}: a certified range starts at {one.start}, "
            f"the one before it ended at {known.next_offset}"
        )
    return known.log_hash


def _log_after(log_hash: Hash, one: Range, records: Sequence[RecordDisposition]) -> Hash:
    for offset, record in zip(range(one.start, one.end), records, strict=True):
        if record.record_hash is not None:
            _check_bytes(record)
            log_hash = log_next(log_hash, offset, record.record_hash)
    return log_hash


def _check_bytes(record: RecordDisposition) -> None:
    if is_carried(record):
        if hash_record(record.key, record.value, record.headers) != record.record_hash:
            raise Malformed("block: a record's bytes are not those of its hash")
    elif record.key is not None or record.value is not None or record.command_length:
        raise Malformed("block: a record that is not carried has bytes")


def _check_unlinked(records: Sequence[RecordDisposition]) -> None:
    """Without the log hash before it, a record's command is proved by its disposition, and its
    payloads by the command.
    """
    for record in records:
        if record.record_hash is not None:
            _check_bytes(record)
            signed = signed_command_of(record) if record.events else None
            if signed is not None:
                check_payloads(signed)
