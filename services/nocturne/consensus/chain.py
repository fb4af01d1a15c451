"""One validator's chain: the state after its newest committed block, and what it has executed on
top of it.

Rules: docs/spec/consensus.md. Pure: records come in, contents of blocks come out. A block is
executed to propose it or to vote for it, before anybody knows whether it is committed; several may
stand on one parent. Committed blocks are taken in height order, and what they say must be what
executing them here gave. What is in the journal is executed again, and must give the same roots.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from nocturne.consensus.gathering import NOT_THE_LOG, LogLost
from nocturne.consensus.quorum.messages import Committed, Contents, Proposal
from nocturne.core.blocks import (
    Block,
    BlockHeader,
    LogRecord,
    ProofPointer,
    Range,
    RecordDisposition,
    encode_around_proof,
    encode_proof,
)
from nocturne.core.certificates import CommitProof
from nocturne.core.commands import decode_signed_command_trusted
from nocturne.core.control import Control, decode_control
from nocturne.core.errors import Halt, Malformed
from nocturne.core.execution import Execution, PartitionBatch, execute
from nocturne.core.governing import ControlBatch, check_control, control_number
from nocturne.core.identifiers import Hash
from nocturne.core.intake import IntakeContext, Prepared, is_carried, prepare
from nocturne.core.log_epochs import NO_TOPIC, positions_after
from nocturne.core.modes import LogRewritten
from nocturne.core.receipts import Reason
from nocturne.core.record_headers import parse_headers
from nocturne.core.state import LedgerState
from nocturne.core.topics import unframe
from nocturne.core.validator_sets import ValidatorSets

BRANCHES_MAX: Final = 64
"""Executed blocks above the committed one; more are forgotten, lowest first, and executed again
should they be committed after all."""


@dataclass(frozen=True, slots=True)
class Made:
    """A committed block as it is published, and the state after it. `before` and `after` are what
    stands around the commit proof: others may publish the block with another one.
    """

    block: Block
    before: bytes
    after: bytes
    state: LedgerState

    @property
    def encoded(self) -> bytes:
        """The published record."""
        return self.before + encode_proof(self.block.proof) + self.after

    @property
    def committed(self) -> Committed:
        """The block's header with its proof."""
        block = self.block
        assert isinstance(block.proof, CommitProof), "a block that was made has its proof"
        signatures = block.leader_signatures
        proposal = Proposal(block.header, block.header_bytes, block.digest, signatures)
        return Committed(proposal, block.proof)


@dataclass(frozen=True, slots=True)
class Tip:
    """The newest block: height, digest, and its time in ms; at genesis 0, the ledger id, 0."""

    height: int
    digest: Hash
    time: int


@dataclass(frozen=True, slots=True)
class Executed:
    """A proposed block and what executing it here gave. The block's records are what has to be
    durable before it is voted for.
    """

    proposal: Proposal
    state: LedgerState
    block: Block
    """With a pointer to itself where its commit proof will stand."""
    before: bytes
    after: bytes
    """The published record before the proof, and behind it."""

    @property
    def encoded(self) -> bytes:
        """As `block`, for the journal."""
        return self.before + encode_proof(self.block.proof) + self.after

    def proved(self, proof: CommitProof) -> Made:
        """The block as it is published."""
        block = self.block
        made = Block(
            block.header,
            block.header_bytes,
            block.digest,
            block.leader_signatures,
            proof,
            block.control,
            block.records,
            block.state_changes,
        )
        return Made(made, self.before, self.after, self.state)


class Chain:
    """The newest committed state, and the blocks above it that were executed."""

    def __init__(self, state: LedgerState, newest: Committed | None) -> None:
        """From the state after `newest` (None: genesis)."""
        self._context = IntakeContext.of(state.ledger_id, state.view.genesis)
        self._state = state
        self._newest = newest
        self._built: tuple[Hash, Execution] | None = None
        self._executed: dict[Hash, Executed] = {}

    @property
    def state(self) -> LedgerState:
        """The state after the newest committed block."""
        return self._state

    @property
    def newest(self) -> Committed | None:
        """The newest committed block that was executed; None at genesis."""
        return self._newest

    @property
    def tip(self) -> Tip:
        """The same, in short."""
        if self._newest is None:
            return Tip(0, Hash(self._state.ledger_id), 0)
        proposal = self._newest.proposal
        return Tip(proposal.header.height, proposal.digest, proposal.header.time)

    @property
    def context(self) -> IntakeContext:
        """What preparing a record needs."""
        return self._context

    def state_after(self, digest: Hash) -> LedgerState | None:
        """The state after the newest committed block or one above it; None if it is not executed
        here.
        """
        if digest == self.tip.digest:
            return self._state
        found = self._executed.get(digest)
        return None if found is None else found.state

    def height_of(self, digest: Hash) -> int:
        """Of a block that was executed here: the newest committed one, or one above it."""
        found = self._executed.get(digest)
        return self.tip.height if found is None else found.block.header.height

    def executed(self, digest: Hash) -> Executed | None:
        """The block above the committed one with this digest, if it was executed here."""
        return self._executed.get(digest)

    # Blocks that may become committed -----------------------------------------------------------

    def build(
        self, parent: Hash, batches: Sequence[PartitionBatch], control: ControlBatch
    ) -> Contents:
        """Execute the beginning of `batches` on an executed `parent`: what a block on it may say.
        Without offsets and control it is empty.
        """
        state = self.state_after(parent)
        assert state is not None, "a block is built on what was executed"
        execution = execute(state, batches, control)
        self._built = (parent, execution)
        return contents_of(execution)

    def claim(self, proposal: Proposal) -> Executed | None:
        """The own proposal with what was built for it, or one that was checked; None if neither."""
        known = self._executed.get(proposal.digest)
        if known is not None or self._built is None:
            return known
        parent, execution = self._built
        header = proposal.header
        if header.parent_digest != parent or Contents.of(header) != contents_of(execution):
            return None
        return self._keep(proposal, execution)

    def check(
        self, proposal: Proposal, batches: Sequence[PartitionBatch], control: tuple[bytes, ...]
    ) -> bool:
        """Whether executing these on the block's parent, which was executed, gives what its header
        says. The batches are of the header's ranges, the control records have its hash.
        """
        try:
            execution = self._execute(proposal, batches, control)
        except Malformed:
            return False
        if contents_of(execution) != Contents.of(proposal.header):
            return False
        self._keep(proposal, execution)
        return True

    def batches_in(self, block: Block) -> list[PartitionBatch] | None:
        """The records of a published block's body, each looked at as if the log had brought it;
        None when they cannot be any block's. The execution binds them to the header.
        """
        size = sum(one.end - one.start for one in block.header.ranges)
        if size != len(block.records):
            return None
        try:
            return _batches_of(block, partial(_read, self._context))
        except Malformed:
            return None

    @property
    def sets(self) -> ValidatorSets:
        """The validators of the epochs, as of the newest committed block that was executed."""
        return self._state.view.validator_sets

    def confirm(
        self, proposal: Proposal, batches: Sequence[PartitionBatch], control: tuple[bytes, ...]
    ) -> None:
        """As `check`, of a block that is committed. `LogLost` if it has other records than the
        `batches`, which are of its ranges: the log that brought them is not the others'. `Halt` if
        the same records give something else: then this program is not theirs.
        """
        if proposal.digest in self._executed:
            return
        header = proposal.header
        for one, batch in zip(header.ranges, batches, strict=True):
            if one.topic_uuid != batch.topic_uuid:
                raise LogLost(
                    f"{NOT_THE_LOG}: block {header.height} has records of another topic, in "
                    f"partition {one.partition} of the commands topic"
                )
        try:
            execution = self._execute(proposal, batches, control)
        except Malformed as fault:
            raise Halt(f"committed block {header.height} cannot be executed: {fault}") from fault
        for one, own in zip(header.ranges, execution.ranges, strict=True):
            if one != own:
                raise LogLost(
                    f"{NOT_THE_LOG}: block {header.height} has other records from offset "
                    f"{one.start} to {one.end} of partition {one.partition} of the commands topic"
                )
        check_same(header, execution, "executing")
        self._keep(proposal, execution)

    def _execute(
        self, proposal: Proposal, batches: Sequence[PartitionBatch], control: tuple[bytes, ...]
    ) -> Execution:
        header = proposal.header
        state = self.state_after(header.parent_digest)
        assert state is not None, "a block is checked on what was executed"
        _check_place(header, self.height_of(header.parent_digest), state, batches)
        return execute(state, batches, ControlBatch(header.height, control))

    def _keep(self, proposal: Proposal, execution: Execution) -> Executed:
        header = proposal.header
        block = Block(
            header,
            proposal.header_bytes,
            proposal.digest,
            proposal.signatures,
            ProofPointer(header.height, proposal.digest),
            execution.control,
            execution.records,
            execution.state_changes,
        )
        found = Executed(proposal, execution.state, block, *encode_around_proof(block))
        self._executed[proposal.digest] = found
        if len(self._executed) > BRANCHES_MAX:
            lowest = min(self._executed.values(), key=lambda one: one.block.header.view)
            del self._executed[lowest.proposal.digest]
        return found

    # Committed blocks ---------------------------------------------------------------------------

    def commit(self, committed: Committed) -> Made:
        """Take the next committed block, which was executed here."""
        found = self._executed[committed.proposal.digest]
        self._stand_on(committed, found.state)
        return found.proved(committed.proof)

    def replay(self, block: Block, committed: Committed) -> None:
        """Take the next block of the own journal. `Halt` unless it continues the chain, is
        committed, and executing its records gives what its header says.
        """
        header = block.header
        tip = self.tip
        if (header.height, header.parent_digest) != (tip.height + 1, tip.digest):
            raise Halt(
                f"journal: expected block {tip.height + 1} on {tip.digest.hex()}, "
                f"got block {header.height} on {header.parent_digest.hex()}"
            )
        check_journalled(committed, self._state)
        try:
            self._state.view.validator_sets.check_next(header)
            execution = execute(
                self._state,
                batches_of(self._context, block),
                ControlBatch(header.height, block.control),
            )
        except Malformed as fault:
            raise Halt(f"journal: block {header.height} cannot be executed: {fault}") from fault
        check_same(header, execution, "journal: executing")
        self._stand_on(committed, execution.state)

    def take_up(self, block: Block) -> None:
        """A block above the committed one that the own journal has: it was executed here before it
        was voted for, and its records may be nowhere else by now. `Halt` if executing it again
        gives something else. One whose parent is not executed here is left to the log.
        """
        if self.state_after(block.header.parent_digest) is None:
            return
        proposal = Proposal(block.header, block.header_bytes, block.digest, block.leader_signatures)
        try:
            execution = self._execute(proposal, batches_of(self._context, block), block.control)
        except Malformed as fault:
            raise Halt(
                f"journal: block {block.header.height} cannot be executed: {fault}"
            ) from fault
        check_same(block.header, execution, "journal: executing")
        self._keep(proposal, execution)

    def _stand_on(self, committed: Committed, state: LedgerState) -> None:
        self._state = state
        self._newest = committed
        height = committed.proposal.header.height
        self._executed = {
            digest: one
            for digest, one in self._executed.items()
            if one.block.header.height > height
        }

    def check_later_control(self, record: bytes) -> None:
        """`Malformed` when no block to come can carry the record: it is none, the operators did not
        sign it, or its number or its time is over.
        """
        view = self._state.view
        control, _ = decode_control(record)
        number = max(control.number, control_number(view.items) + 1)
        check_control(record, view.ledger_id, view.genesis, number, self.tip.height + 1)

    def check_next_control(self, record: bytes) -> Control:
        """The control record of `record`; `Malformed` unless the next block may carry it."""
        return check_control_on(self._state, self.tip.height + 1, record)


def check_control_on(state: LedgerState, height: int, record: bytes) -> Control:
    """The control record of `record`; `Malformed` unless the block at `height` on a block with
    `state` may carry it.
    """
    view = state.view
    number = control_number(view.items) + 1
    control = check_control(record, view.ledger_id, view.genesis, number, height)
    positions_after({one.partition: one for one in state.positions}, (record,))
    return control


def _check_place(
    header: BlockHeader, parent_height: int, state: LedgerState, batches: Sequence[PartitionBatch]
) -> None:
    """`Malformed` unless the block is the one after its parent, and its ranges begin where the log
    stands in `state`, which is the parent's. A proposal may be a liar's: of such a header nothing
    else was looked at before its records are executed.
    """
    if header.height != parent_height + 1:
        raise Malformed(f"block {header.height}: its parent has the height {parent_height}")
    positions = {one.partition: one for one in state.positions}
    for one in header.ranges:
        stands = positions.get(one.partition)
        if stands is None or (one.log_epoch, one.start) != (stands.log_epoch, stands.next_offset):
            raise Malformed(f"block {header.height}: partition {one.partition} does not go on so")
    for batch in batches:
        if positions[batch.partition].topic_uuid not in (NO_TOPIC, batch.topic_uuid):
            raise Malformed(f"block {header.height}: partition {batch.partition} of another topic")


def check_journalled(committed: Committed, state: LedgerState) -> None:
    """`Halt` unless the commit proof that the journal has of a block holds."""
    header, digest = committed.proposal.header, committed.proposal.digest
    try:
        state.view.validator_sets.check_proof(committed.proof, header, digest, state.ledger_id)
    except Malformed as fault:
        raise Halt(f"journal: block {header.height}: {fault}") from fault


def batches_of(context: IntakeContext, block: Block) -> list[PartitionBatch]:
    """A block's records as they came from the log, for executing them again."""
    return _batches_of(block, partial(_prepared, context))


def _batches_of(
    block: Block, prepared: Callable[[Range, RecordDisposition], Prepared]
) -> list[PartitionBatch]:
    batches = []
    first = 0
    for one in block.header.ranges:
        records = block.records[first : first + one.end - one.start]
        first += len(records)
        found = [
            (offset, prepared(one, record))
            for offset, record in zip(range(one.start, one.end), records, strict=True)
            if record.record_hash is not None
        ]
        batches.append(PartitionBatch(one.partition, one.topic_uuid, one.end, found))
    return batches


def _prepared(context: IntakeContext, one: Range, record: RecordDisposition) -> Prepared:
    if not is_carried(record) or not record.events:
        return _read(context, one, record)
    assert record.record_hash is not None
    # It became events, and this validator itself checked its author's signature when it did.
    signed = decode_signed_command_trusted(unframe(record.value))
    return Prepared(
        record.key,
        record.value,
        record.headers,
        record.record_hash,
        signed.command_hash,
        signed,
        None,
        "",
        True,
    )


def _read(context: IntakeContext, one: Range, record: RecordDisposition) -> Prepared:
    """The record, looked at as when it came; of one that is not carried there is only its hash."""
    assert record.record_hash is not None
    if not is_carried(record):
        return Prepared(
            None, None, b"", record.record_hash, record.record_hash, None, Reason.TOO_LARGE, "",
            False,
        )  # fmt: skip
    headers = parse_headers(record.headers)
    return prepare(context, one.partition, LogRecord(record.key, record.value, headers))


def contents_of(execution: Execution) -> Contents:
    """What a header says of it."""
    return Contents(
        execution.ranges,
        execution.control_hash,
        execution.record_count,
        execution.dispositions_root,
        execution.state_root,
    )


def check_same(header: BlockHeader, execution: Execution, what: str) -> None:
    """`Halt` unless executing the block gave what its header says; `what` was done, for people."""
    expected = (
        header.ranges,
        header.record_count,
        header.control_hash,
        header.dispositions_root,
        header.state_root,
    )
    got = (
        execution.ranges,
        execution.record_count,
        execution.control_hash,
        execution.dispositions_root,
        execution.state_root,
    )
    names = ("ranges", "record count", "control hash", "dispositions root", "state root")
    for name, one, other in zip(names, expected, got, strict=True):
        if one != other:
            raise LogRewritten(
                f"{what} block {header.height} gives another {name}: "
                f"expected {_shown(one)}, got {_shown(other)}"
            )


def _shown(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
