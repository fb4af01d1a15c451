"""One validator's chain: execute records on the newest state, certify them, and make it a block.

Rules: docs/spec/consensus.md. Pure: records and the time come in, blocks come out. What was made
once is replayed from the validator's own journal: a block there was possibly published, so it is
taken as it is, and executing it again must give the same roots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nocturne.consensus.machine import Commit, Executed, Machine, Persist, Proposal, Rules, Tip
from nocturne.core.blocks import (
    Block,
    BlockHeader,
    LogRecord,
    Range,
    RecordDisposition,
    encode_block,
    link_of,
    link_to,
)
from nocturne.core.certificates import CommitProof, check_commit_proof
from nocturne.core.commands import decode_signed_command_trusted
from nocturne.core.control import Control
from nocturne.core.errors import Halt, Malformed
from nocturne.core.execution import Execution, PartitionBatch, execute
from nocturne.core.genesis import Genesis
from nocturne.core.governing import ControlBatch, check_control, control_number
from nocturne.core.identifiers import Hash
from nocturne.core.intake import IntakeContext, Prepared, is_carried, prepare
from nocturne.core.keys import Signer
from nocturne.core.receipts import Reason
from nocturne.core.record_headers import parse_headers
from nocturne.core.state import LedgerState
from nocturne.core.topics import unframe


@dataclass(frozen=True, slots=True)
class Made:
    """A committed block. `encoded` goes to the journal, is synced, and only then is published.

    With one validator the encoded block is all that has to be durable: it holds this validator's
    proposal, stands for its two votes (both for this block, in this view), its certificate, and
    the raw records of the range.
    """

    block: Block
    encoded: bytes
    state: LedgerState


class Chain:
    """The newest state and the machine that certifies what comes after it."""

    def __init__(self, state: LedgerState, signer: Signer, tip: Tip) -> None:
        genesis = state.view.genesis
        self._signer = signer
        self._rules = Rules(
            state.ledger_id,
            genesis.validator_set,
            genesis.epoch_length,
            genesis.limits.clock_bound_ms,
        )
        self._context = IntakeContext.of(state.ledger_id, genesis)
        self._state = state
        self._tip = tip
        self._machine = Machine(self._rules, _index_of(genesis, signer), signer, tip)

    @property
    def state(self) -> LedgerState:
        """The state after the newest block."""
        return self._state

    @property
    def tip(self) -> Tip:
        """The newest block."""
        return self._tip

    @property
    def context(self) -> IntakeContext:
        """What preparing a record needs."""
        return self._context

    def extend(
        self, batches: Sequence[PartitionBatch], now: int, control: Sequence[bytes] = ()
    ) -> Made:
        """The next block over the beginning of `batches` (its ranges say how much), at `now` in ms.
        There must be at least one offset in them, or a control record that `check_next_control`
        took at this height.
        """
        height = self._tip.height + 1
        execution = execute(self._state, batches, ControlBatch(height, tuple(control)))
        effects = self._machine.step(_executed(self._tip.digest, execution), now)
        # The quorum is one vote, so the commit ends the step, behind all that must be durable.
        *before, commit = effects
        assert isinstance(commit, Commit)
        assert all(isinstance(effect, Persist) for effect in before)
        block = _block(commit.proposal, commit.proof, execution)
        self._state = execution.state
        self._tip = Tip.of(block.header, block.digest)
        return Made(block, encode_block(block), execution.state)

    def check_next_control(self, record: bytes) -> Control:
        """The control record of `record`; `Malformed` unless the next block may carry it."""
        view = self._state.view
        number = control_number(view.items) + 1
        height = self._tip.height + 1
        return check_control(record, view.ledger_id, view.genesis, number, height)

    def replay(self, block: Block) -> None:
        """Take the next block of the own journal. `Halt` unless it continues the chain, is
        committed, and executing its records gives what its header says.
        """
        header = block.header
        if (header.height, header.parent_digest) != (self._tip.height + 1, self._tip.digest):
            raise Halt(
                f"journal: expected block {self._tip.height + 1} on {self._tip.digest.hex()}, "
                f"got block {header.height} on {header.parent_digest.hex()}"
            )
        self.check_committed(block)
        try:
            execution = execute(
                self._state,
                batches_of(self._context, block),
                ControlBatch(header.height, block.control),
            )
        except Malformed as fault:
            raise Halt(f"journal: block {header.height} cannot be executed: {fault}") from fault
        _check_same(header, execution)
        self._state = execution.state
        self._tip = Tip.of(header, block.digest)
        self._machine = Machine(
            self._rules, _index_of(self._state.view.genesis, self._signer), self._signer, self._tip
        )

    def check_committed(self, block: Block) -> None:
        """`Halt` unless a block of the own journal carries its commit proof."""
        try:
            if not isinstance(block.proof, CommitProof):
                raise Malformed("it carries no commit proof")
            link = link_to(block.header, block.digest)
            check_commit_proof(
                block.proof, link, self._rules.ledger_id, self._rules.validators, link_of
            )
        except Malformed as fault:
            raise Halt(f"journal: block {block.header.height}: {fault}") from fault


def batches_of(context: IntakeContext, block: Block) -> list[PartitionBatch]:
    """A block's records as they came from the log, for executing them again."""
    batches = []
    first = 0
    for one in block.header.ranges:
        records = block.records[first : first + one.end - one.start]
        first += len(records)
        prepared = [
            (offset, _prepared(context, one, record))
            for offset, record in zip(range(one.start, one.end), records, strict=True)
            if record.record_hash is not None
        ]
        batches.append(PartitionBatch(one.partition, one.topic_uuid, one.end, prepared))
    return batches


def _prepared(context: IntakeContext, one: Range, record: RecordDisposition) -> Prepared:
    assert record.record_hash is not None
    if not is_carried(record):
        return Prepared(
            None, None, b"", record.record_hash, record.record_hash, None, Reason.TOO_LARGE, "",
            False,
        )  # fmt: skip
    headers = parse_headers(record.headers)
    if not record.events:
        return prepare(context, one.partition, LogRecord(record.key, record.value, headers))
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


def _executed(parent: Hash, execution: Execution) -> Executed:
    return Executed(
        parent,
        execution.ranges,
        execution.control_hash,
        execution.record_count,
        execution.dispositions_root,
        execution.state_root,
    )


def _block(proposal: Proposal, proof: CommitProof, execution: Execution) -> Block:
    return Block(
        proposal.header,
        proposal.header_bytes,
        proposal.digest,
        proposal.signatures,
        proof,
        execution.control,
        execution.records,
        execution.state_changes,
    )


def _check_same(header: BlockHeader, execution: Execution) -> None:
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
            raise Halt(
                f"journal: executing block {header.height} again gives another {name}: "
                f"expected {_shown(one)}, got {_shown(other)}"
            )


def _shown(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _index_of(genesis: Genesis, signer: Signer) -> int:
    keys = genesis.validator_set.keys
    if signer.key not in keys:
        raise Halt("the validator's key is not one of the genesis")
    return keys.index(signer.key)
