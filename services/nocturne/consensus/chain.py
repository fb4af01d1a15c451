"""One validator's chain: execute records on the newest state, certify them, and make it a block.

Rules: docs/spec/consensus.md. Pure: records and the time come in, blocks come out. What was made
once is replayed from the validator's own journal: a block there was possibly published, so it is
taken as it is, and executing it again must give the same roots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from nocturne.consensus.quorum.leaders import RoundRobin
from nocturne.consensus.quorum.machine import Machine
from nocturne.consensus.quorum.messages import (
    Build,
    Built,
    Commit,
    Committed,
    Contents,
    Effect,
    LogStands,
    Proposal,
    Received,
    Rules,
    Suites,
)
from nocturne.consensus.quorum.pacing import Doubling
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
from nocturne.core.certificates import CommitProof, Epoch, ValidatorSet, check_commit_proof
from nocturne.core.commands import decode_signed_command_trusted
from nocturne.core.control import Control
from nocturne.core.errors import Halt, Malformed
from nocturne.core.execution import Execution, PartitionBatch, execute
from nocturne.core.governing import ControlBatch, check_control, control_number
from nocturne.core.identifiers import Hash, LedgerId
from nocturne.core.intake import IntakeContext, Prepared, is_carried, prepare
from nocturne.core.keys import Signer
from nocturne.core.receipts import Reason
from nocturne.core.record_headers import parse_headers
from nocturne.core.state import LedgerState
from nocturne.core.topics import unframe

_PACING: Final = Doubling(200)
"""Of timers that one validator does not wait for."""


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


@dataclass(frozen=True, slots=True)
class Tip:
    """The newest block: height, digest, and its time in ms; at genesis 0, the ledger id, 0."""

    height: int
    digest: Hash
    time: int


class Chain:
    """The newest state and the machine that certifies what comes after it.

    The machine is that of n validators (quorum.md) with n = 1: this validator leads every view and
    its vote is the quorum, so nothing is waited for, nothing sent, and its timers mean nothing.
    """

    def __init__(self, state: LedgerState, signer: Signer, newest: Block | None) -> None:
        """From the state after `newest` (None: genesis). `Halt` unless that block carries its
        commit proof.
        """
        genesis = state.view.genesis
        validators = genesis.validator_set
        if signer.key not in validators.keys:
            raise Halt("the validator's key is not one of the genesis")
        self._context = IntakeContext.of(state.ledger_id, genesis)
        self._state = state
        final = None if newest is None else _proved(newest, state.ledger_id, validators)
        epoch = Epoch(0, 0) if newest is None else newest.header.epoch
        sets = [(epoch, validators), (replace(epoch, number=epoch.number + 1), validators)]
        rules = Rules(state.ledger_id, genesis.epoch_length, genesis.limits.clock_bound_ms)
        self._machine = Machine(
            rules, sets, Suites(signer), RoundRobin(), _PACING, signer.key, final
        )

    @property
    def state(self) -> LedgerState:
        """The state after the newest block."""
        return self._state

    @property
    def tip(self) -> Tip:
        """The newest block."""
        final = self._machine.final
        if final is None:
            return Tip(0, Hash(self._state.ledger_id), 0)
        header = final.proposal.header
        return Tip(header.height, final.proposal.digest, header.time)

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
        tip = self.tip
        execution = execute(self._state, batches, ControlBatch(tip.height + 1, tuple(control)))
        contents = _contents(execution)
        asked = self._machine.step(LogStands(tip.digest, has_more=True), now)
        build = next(effect for effect in asked if isinstance(effect, Build))
        committed = _committed_by(self._machine.step(Built(build.view, tip.digest, contents), now))
        assert committed is not None, "one vote is the quorum"
        block = _block(committed.proposal, committed.proof, execution)
        self._state = execution.state
        return Made(block, encode_block(block), execution.state)

    def check_next_control(self, record: bytes) -> Control:
        """The control record of `record`; `Malformed` unless the next block may carry it."""
        view = self._state.view
        number = control_number(view.items) + 1
        height = self.tip.height + 1
        return check_control(record, view.ledger_id, view.genesis, number, height)

    def replay(self, block: Block) -> None:
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
        try:
            taken = _committed_by(
                self._machine.step(Received(None, _committed(block)), header.time)
            )
        except Malformed as fault:
            raise Halt(f"journal: block {header.height}: {fault}") from fault
        if taken is None:
            raise Halt(f"journal: block {header.height} is of another epoch than its height")
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


def _committed(block: Block) -> Committed:
    if not isinstance(block.proof, CommitProof):
        raise Halt(f"journal: block {block.header.height}: it carries no commit proof")
    proposal = Proposal(block.header, block.header_bytes, block.digest, block.leader_signatures)
    return Committed(proposal, block.proof)


def _committed_by(effects: Sequence[Effect]) -> Committed | None:
    """The one block that a step commits."""
    commits = [effect for effect in effects if isinstance(effect, Commit)]
    if not commits:
        return None
    ((committed,),) = [commit.blocks for commit in commits]
    return committed


def _proved(block: Block, ledger_id: LedgerId, validators: ValidatorSet) -> Committed:
    """As `_committed`, with its proof checked, as the machine does for what it is brought."""
    committed = _committed(block)
    try:
        link = link_to(block.header, block.digest)
        check_commit_proof(committed.proof, link, ledger_id, validators, link_of)
    except Malformed as fault:
        raise Halt(f"journal: block {block.header.height}: {fault}") from fault
    return committed


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


def _contents(execution: Execution) -> Contents:
    return Contents(
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
