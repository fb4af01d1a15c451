"""A small ledger made in memory by the core's own functions, the same at every run.

Every key, salt and id comes from SHA-256 of a label, so vectors made from it can be pinned. It is
also the fixture of the tests of exports and of the offline verifier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256

from nocturne.core import exports, merkle
from nocturne.core.blocks import (
    BlockHeader,
    BlockKind,
    Disposition,
    LogRecord,
    RecordDisposition,
    decode_block_header,
    disposition_leaf,
    encode_block_header,
    hash_block,
    positions_of,
)
from nocturne.core.certificates import (
    Ballot,
    Certificate,
    CommitProof,
    Epoch,
    ValidatorSet,
    VoteKind,
    sign_vote,
)
from nocturne.core.commands import (
    Command,
    EventDraft,
    Opening,
    Payload,
    SignedCommand,
    encode_signed_command,
    payload_hash,
    sign_command,
)
from nocturne.core.control import Control, sign_control
from nocturne.core.events import hash_event, sign_event
from nocturne.core.execution import PartitionBatch, execute
from nocturne.core.exports import Placement
from nocturne.core.genesis import (
    FinalityPolicy,
    Genesis,
    KindEntry,
    Limits,
    OpenRule,
    encode_genesis,
)
from nocturne.core.governing import ControlBatch
from nocturne.core.identifiers import (
    LEDGER_SESSION,
    AuthorId,
    CommandId,
    Hash,
    SessionId,
    session_key,
)
from nocturne.core.intake import IntakeContext, command_hash_of_value, prepare
from nocturne.core.keys import Ed25519Signer, Signatures, key_id, prove_possession
from nocturne.core.receipts import decode_receipt_header, hash_receipt, sign_receipt
from nocturne.core.state import LedgerState
from nocturne.core.topics import COMMANDS, FIXED_SCHEMA_IDS, frame, partition_of
from nocturne.core.validator_sets import ACTION, set_fields

FIRST_TIME_MS = 1_700_000_000_000
SMALL_LIMITS = Limits(
    command_bytes_max=4096, record_bytes_max=8192, command_events_max=4, block_bytes_max=1 << 20
)
JSON_TYPE = "application/json"


def seed_of(label: str) -> bytes:
    """32 bytes that are the same at every run."""
    return sha256(b"nocturne test vector: " + label.encode()).digest()


def signer_of(label: str) -> Ed25519Signer:
    """The key of that label."""
    return Ed25519Signer(seed_of(label))


def possession(signer: Ed25519Signer) -> tuple[object, Signatures]:
    """A key with the proof of its possession."""
    return signer.key, prove_possession(signer)


def make_genesis(
    name: str = "ledger",
    *,
    validators: int = 1,
    partitions: int = 2,
    limits: Limits = SMALL_LIMITS,
    epoch_length: int = 1_000_000,
) -> Genesis:
    """The founding record of a ledger where everybody may open everything of two kinds."""
    authority = signer_of(f"{name} authority")
    keys = [signer_of(f"{name} validator {index}") for index in range(validators)]
    return Genesis(
        1,
        1,
        seed_of(f"{name} nonce"),
        partitions,
        epoch_length,
        limits,
        tuple((one.key, prove_possession(one)) for one in keys),
        authority.key,
        prove_possession(authority),
        (),
        (signer_of(f"{name} operator").key,),
        1,
        (
            KindEntry("document", 1, Hash(seed_of("code of document"))),
            KindEntry("facts", 1, Hash(seed_of("code of facts"))),
        ),
        (OpenRule(None, "", ""),),
        FinalityPolicy(),
    )


@dataclass(frozen=True, slots=True)
class MadeBlock:
    """A certified block and everything an export needs of it."""

    header: BlockHeader
    header_bytes: bytes
    proof: CommitProof
    records: tuple[RecordDisposition, ...]
    leaves: tuple[bytes, ...]
    state: LedgerState
    control: tuple[bytes, ...] = ()


@dataclass(slots=True)
class SyntheticLedger:
    """Append records, make blocks, export. `validators` sign every block; `signed` events too."""

    name: str = "ledger"
    validators: int = 1
    partitions: int = 2
    limits: Limits = SMALL_LIMITS
    epoch_length: int = 1_000_000
    blocks: list[MadeBlock] = field(default_factory=list)
    _pending: dict[int, list[LogRecord | None]] = field(default_factory=dict)
    _commands: int = 0

    @property
    def genesis(self) -> Genesis:
        """The founding record."""
        return make_genesis(
            self.name,
            validators=self.validators,
            partitions=self.partitions,
            limits=self.limits,
            epoch_length=self.epoch_length,
        )

    @property
    def genesis_bytes(self) -> bytes:
        """Its encoding."""
        return encode_genesis(self.genesis)

    @property
    def state(self) -> LedgerState:
        """After the last block."""
        return self.blocks[-1].state if self.blocks else LedgerState.founding(self.genesis_bytes)

    @property
    def authority(self) -> Ed25519Signer:
        """The authority's key."""
        return signer_of(f"{self.name} authority")

    def command(
        self,
        session: str,
        *payloads: bytes,
        author: str = "alice",
        kind: str | None = None,
        expected: int | None = None,
        event_type: str = "Noted",
        content_type: str = JSON_TYPE,
        command_id: bytes | None = None,
        signer: Ed25519Signer | None = None,
    ) -> SignedCommand:
        """A signed command; its id and salts count up."""
        self._commands += 1
        own = signer_of(f"author {author}")
        carried = tuple(
            Payload(seed_of(f"salt {self._commands} {index}"), data)
            for index, data in enumerate(payloads)
        )
        command = Command(
            self.state.ledger_id,
            SessionId(session),
            AuthorId(key_id(own.key)),
            own.key,
            CommandId(command_id or self._commands.to_bytes(16, "big")),
            expected,
            None if kind is None else Opening(kind, 1),
            FIRST_TIME_MS - 5_000 + self._commands,
            tuple(EventDraft(event_type, content_type, payload_hash(one)) for one in carried),
        )
        return sign_command(command, carried, signer or own)

    def record_of(self, signed: SignedCommand) -> LogRecord:
        """The record a producer writes for a command."""
        value = frame(FIXED_SCHEMA_IDS[COMMANDS], encode_signed_command(signed))
        return LogRecord(signed.command.session.encode(), value, (("ce_id", b"1"), ("empty", None)))

    def submit(self, signed: SignedCommand) -> None:
        """Append a command to the partition of its session."""
        partition = partition_of(signed.command.session.encode(), self.partitions)
        self.append(partition, self.record_of(signed))

    def append(self, partition: int, record: LogRecord | None) -> None:
        """Append any record; None is a control marker, a gap."""
        self._pending.setdefault(partition, []).append(record)

    def change_of(self, number: int, validators: Sequence[Ed25519Signer]) -> bytes:
        """The operator's control record `number`: these are the validators two epochs later."""
        members = [(one.key, prove_possession(one)) for one in validators]
        control = Control(self.state.ledger_id, number, 1_000, ACTION, set_fields(members))
        return sign_control(control, (signer_of(f"{self.name} operator"),))

    def make_block(self, *control: bytes) -> MadeBlock:
        """Execute and certify what was appended since the last block, with control records."""
        parent = self.blocks[-1] if self.blocks else None
        before = self.state
        context = IntakeContext.of(before.ledger_id, self.genesis)
        batches = []
        for partition, records in sorted(self._pending.items()):
            start = before.positions[partition].next_offset
            prepared = [
                (start + index, prepare(context, partition, record))
                for index, record in enumerate(records)
                if record is not None
            ]
            topic = seed_of("topic")[:16]
            batches.append(PartitionBatch(partition, topic, start + len(records), prepared))
        self._pending.clear()
        height = len(self.blocks) + 1
        done = execute(before, batches, ControlBatch(height, control))
        sets = before.view.validator_sets
        epoch = sets.epoch_at(height)
        last_before = epoch * self.epoch_length
        header = BlockHeader(
            BlockKind.LEDGER,
            1,
            1,
            before.ledger_id,
            Epoch(0, epoch),
            sets.of(epoch).hash,
            sets.of(epoch + 1).hash,
            height - last_before,
            height,
            Hash(before.ledger_id) if parent is None else hash_block(parent.header_bytes),
            0 if parent is None or len(self.blocks) == last_before else parent.header.view,
            FIRST_TIME_MS + 1_000 * len(self.blocks),
            done.ranges,
            done.control_hash,
            done.record_count,
            done.dispositions_root,
            done.state_root,
            b"",
        )
        block = replace(self._certified(header, done.records, done.state), control=control)
        self.blocks.append(block)
        return block

    def _certified(
        self, header: BlockHeader, records: tuple[RecordDisposition, ...], state: LedgerState
    ) -> MadeBlock:
        header_bytes = encode_block_header(header)
        leaves = tuple(
            disposition_leaf(
                Disposition(
                    position,
                    command_hash_of_value(record),
                    tuple(map(hash_event, record.events)),
                    None if record.receipt is None else hash_receipt(record.receipt),
                )
            )
            for position, record in zip(positions_of(header), records, strict=True)
        )
        proof = CommitProof(self.finalize(header_bytes), ())
        return MadeBlock(header, header_bytes, proof, records, leaves, state)

    def finalize(self, header_bytes: bytes) -> Certificate:
        """The finalization of a header by a quorum of the set that it names; of genesis's, under
        its own hash, if this ledger has decided no such set.
        """
        header = decode_block_header(header_bytes)
        sets = self.state.view.validator_sets.decided
        named = [one.validators for one in sets]
        validators = next(
            (one for one in named if one.hash == header.validator_set_hash),
            self.genesis.validator_set,
        )
        return self.finalized_by(validators, header_bytes)

    def finalized_by(self, validators: ValidatorSet, header_bytes: bytes) -> Certificate:
        """The finalization of a header by the first quorum of a set of this ledger's keys."""
        header = decode_block_header(header_bytes)
        digest = hash_block(header_bytes)
        ballot = Ballot(
            VoteKind.FINALIZE,
            self.state.ledger_id,
            header.epoch,
            validators.hash,
            header.view,
            digest,
        )
        own = {one.key: one for one in self.validator_keys()}
        votes = tuple(
            (index, sign_vote(own[key], ballot))
            for index, key in enumerate(validators.keys[: validators.quorum])
        )
        return Certificate(
            VoteKind.FINALIZE, header.epoch, validators.hash, header.view, digest, votes
        )

    def validator_keys(self) -> list[Ed25519Signer]:
        """Those of genesis's validators, and of four that may come later."""
        count = self.validators + 4
        return [signer_of(f"{self.name} validator {index}") for index in range(count)]

    def validators_lines(self, height: int) -> list[bytes]:
        """The lines of the changes of the validators before a block."""
        lines = []
        sets = self.state.view.validator_sets
        for last, keys in sets.changes_before(height):
            block = self.blocks[last - 1]
            lines.append(exports.validators_line(block.header_bytes, block.proof, keys))
        return lines

    def signatures_of(self, block: MadeBlock, record: RecordDisposition) -> list[Signatures]:
        """The authority's signatures of a record's events, or of its receipt."""
        time, height = block.header.time, block.header.height
        if record.receipt is not None:
            return [sign_receipt(self.authority, hash_receipt(record.receipt), time, height)]
        return [sign_event(self.authority, hash_event(one), time, height) for one in record.events]

    def disposition(self, block: MadeBlock, index: int, *, signed: bool = True) -> bytes:
        """The line of one record of a block."""
        record = block.records[index]
        placement = Placement(
            block.header.height,
            block.header.time,
            positions_of(block.header)[index],
            index,
            merkle.inclusion_path(block.leaves, index),
        )
        signatures = self.signatures_of(block, record) if signed else []
        return exports.disposition_line(placement, record, self.authority.key, signatures)

    def export(self, session: str) -> list[bytes]:
        """The lines of a session's export as of the last block."""
        height = len(self.blocks)
        lines = [exports.export_line(self.genesis_bytes, SessionId(session), height)]
        lines += self.validators_lines(height)
        receipts: list[Hash] = []
        for block in self.blocks:
            mine = [index for index, one in enumerate(block.records) if belongs_to(one, session)]
            if mine or block.header.height == height:
                lines.append(exports.block_line(block.header_bytes, block.proof))
            for index in mine:
                lines.append(self.disposition(block, index))
                receipt = block.records[index].receipt
                if receipt is not None:
                    receipts.append(hash_receipt(receipt))
        for first in range(0, len(receipts), exports.RECEIPTS_PER_LINE):
            part = receipts[first : first + exports.RECEIPTS_PER_LINE]
            lines.append(exports.receipts_line(first + 1, part))
        key = session_key(self.state.ledger_id, SessionId(session))
        proof = self.state.tree.prove(key)
        lines.append(exports.state_line(SessionId(session), height, key, proof))
        return lines


def belongs_to(record: RecordDisposition, session: str) -> bool:
    """A record's disposition stands in the export of this session."""
    if record.receipt is not None:
        header = decode_receipt_header(record.receipt)
        return session == (LEDGER_SESSION if header.head is None else header.session)
    return (
        bool(record.events) and record.value is not None and session == (record.key or b"").decode()
    )


def changing_ledger() -> SyntheticLedger:
    """Four epochs of two blocks: the fourth validator's key is rotated for epoch 2, and a fifth
    validator is added for epoch 3. One session has an event in each block.
    """
    ledger = SyntheticLedger("changing", 4, epoch_length=2)
    keys = ledger.validator_keys()
    rotated = [*keys[:3], keys[4]]
    control = {1: ledger.change_of(1, rotated), 4: ledger.change_of(2, [*rotated, keys[5]])}
    for height in range(1, 9):
        kind = "facts" if height == 1 else None
        ledger.submit(ledger.command("log", b'{"height":%d}' % height, kind=kind))
        ledger.make_block(*([control[height]] if height in control else []))
    return ledger


def example_ledger(name: str = "ledger", validators: int = 1) -> SyntheticLedger:
    """Three blocks, two sessions, events, receipts of several reasons, gaps."""
    ledger = SyntheticLedger(name, validators)
    say = ledger.command
    ledger.submit(say("orders/1", b'{"item":"tea","price":1.5}', kind="document", expected=0))
    ledger.submit(say("orders/1", b'{"count":2}', b'{"count":3}', expected=1))
    late = say("orders/1", b'{"count":4}', expected=1)
    ledger.submit(late)
    ledger.append(0, None)
    ledger.submit(
        say("readings", b"\x00\xff", kind="facts", content_type="application/octet-stream")
    )
    ledger.make_block()
    ledger.submit(late)
    ledger.submit(say("orders/1", b'{"x":1}', author="mallory"))
    ledger.submit(say("orders/1", b'{"x":1}', signer=signer_of("author mallory")))
    ledger.append(1, LogRecord(b"orders/1", b"not a command", ()))
    ledger.append(0, LogRecord(None, bytes(5000), ()))
    ledger.submit(say("readings", b"{}"))
    ledger.make_block()
    ledger.submit(say("orders/1", b'{"note":"\xc3\xa9 \xf0\x9d\x84\x9e","tiny":1e-7}', expected=3))
    ledger.submit(say("readings", b"{}", kind="facts", expected=0))
    ledger.append(1, None)
    ledger.make_block()
    return ledger
