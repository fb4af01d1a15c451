"""A small deterministic ledger for tests: fixed keys, signed commands, a log, committed blocks.

Nothing here is random and nothing reads a clock: the same calls give the same bytes. Import it as
`from tests.ledger_factory import Ledger, ALICE, command_id`.

    ledger = Ledger()
    answer = ledger.answer(ledger.opening("orders/1", author=ALICE))     # its events
    block = ledger.commit()                                              # what waits, as a block
    value = record_value(block)                                          # of the blocks topic
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from nocturne.core import log_epochs
from nocturne.core.blocks import (
    FORMAT_VERSION,
    RULES_VERSION,
    Block,
    BlockHeader,
    BlockKind,
    LogRecord,
    ProofPointer,
    RecordDisposition,
    StateChange,
    encode_block,
    encode_block_header,
    hash_block,
    positions_of,
    sign_proposal,
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
from nocturne.core.encoding import sha256
from nocturne.core.events import EventHeader, Position, decode_event_header
from nocturne.core.execution import Execution, PartitionBatch, execute
from nocturne.core.genesis import (
    FinalityPolicy,
    Genesis,
    KindEntry,
    Limits,
    OpenRule,
    encode_genesis,
)
from nocturne.core.governing import ControlBatch
from nocturne.core.identifiers import AuthorId, CommandId, Hash, LedgerId, SessionId
from nocturne.core.intake import IntakeContext, Prepared, prepare
from nocturne.core.keys import Ed25519Signer, key_id, prove_possession
from nocturne.core.kinds import Kind, KindChanges, KindItems, KindRegistry, Violation, builtin_kinds
from nocturne.core.log_epochs import LogOpening
from nocturne.core.receipts import ReceiptHeader, decode_receipt_header
from nocturne.core.state import LedgerState, SessionState
from nocturne.core.strict_json import JsonValue
from nocturne.core.topics import (
    BLOCKS,
    COMMANDS,
    FIXED_SCHEMA_IDS,
    cloud_event_headers,
    frame,
    partition_of,
)
from nocturne.core.validator_sets import ACTION, set_fields
from nocturne.runtime.kinds import builtin_entries

TOPIC_UUID: Final = bytes(range(16))
OTHER_TOPIC_UUID: Final = bytes(range(16, 32))
"""Of the commands topic once it was made anew."""
FIRST_TIME_MS: Final = 1_700_000_000_000


def signer(number: int) -> Ed25519Signer:
    """The key whose seed is 32 times this byte."""
    return Ed25519Signer(bytes((number,)) * 32)


AUTHORITY: Final = signer(2)
OPERATORS: Final = (signer(3), signer(4), signer(5))
ALICE: Final = signer(17)
BOB: Final = signer(18)
CAROL: Final = signer(19)
VALIDATORS: Final = tuple(signer(32 + number) for number in range(7))


def author_id(author: Ed25519Signer) -> AuthorId:
    """The id of an author whose first key this is."""
    return AuthorId(key_id(author.key))


def command_id(number: int) -> CommandId:
    """Ids that rise with the number."""
    return CommandId(number.to_bytes(16, "big"))


@dataclass(frozen=True, slots=True)
class Draft:
    """One event a command asks for."""

    event_type: str = "Paid"
    data: bytes = b'{"amount":1}'
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Balances:
    """A kind with an invariant: `name:+5` and `name:-3` move a balance that never falls below 0."""

    name: str = "balances"
    version: int = 1
    reads_payloads: bool = True
    invariants: tuple[str, ...] = ("balances.form", "balances.non_negative")

    def apply(
        self,
        items: KindItems,
        event_type: str,
        content_type: str,
        payload: bytes,
        author: bytes,
        sequence: int,
    ) -> KindChanges | Violation:
        account, _, amount = payload.partition(b":")
        try:
            moved = int(amount)
        except ValueError:
            return Violation("balances.form")
        key = sha256(account)
        balance = int.from_bytes(items.get(key) or b"", "big") + moved
        if not 0 <= balance < 2**64:
            return Violation("balances.non_negative")
        return {key: None if balance == 0 else balance.to_bytes(8, "big")}

    def initial(self) -> JsonValue:
        return {}

    def fold(
        self,
        state: JsonValue,
        event_type: str,
        content_type: str,
        payload: bytes,
        author: bytes,
        sequence: int,
    ) -> JsonValue:
        return state


BALANCES: Final[Kind] = Balances()
# A reader has states of a kind only if its code is the one that the genesis names.
_CODE_HASHES: Final = {entry.name: entry.code_hash for entry in builtin_entries()}


def make_genesis(
    *,
    validators: Sequence[Ed25519Signer] = VALIDATORS[:1],
    partitions: int = 4,
    limits: Limits | None = None,
    open_policy: tuple[OpenRule, ...] = (OpenRule(None, "", ""),),
    nonce: int = 0,
    epoch_length: int = 1000,
) -> Genesis:
    """A genesis with the kinds facts, document and balances."""
    return Genesis(
        FORMAT_VERSION,
        RULES_VERSION,
        bytes((nonce,)) * 32,
        partitions,
        epoch_length,
        Limits() if limits is None else limits,
        tuple((one.key, prove_possession(one)) for one in validators),
        AUTHORITY.key,
        prove_possession(AUTHORITY),
        (),
        tuple(one.key for one in OPERATORS),
        2,
        tuple(
            KindEntry(name, 1, _CODE_HASHES.get(name, Hash(sha256(name.encode("ascii")))))
            for name in ("facts", "document", "balances")
        ),
        open_policy,
        FinalityPolicy(),
    )


Answer = tuple[EventHeader, ...] | ReceiptHeader
"""What became of a record: the headers of its events, or of its receipt."""


class Ledger:
    """A ledger of one or more validators, its log and its chain, all in memory."""

    def __init__(
        self, genesis: Genesis | None = None, validators: Sequence[Ed25519Signer] = VALIDATORS[:1]
    ) -> None:
        self.genesis = make_genesis(validators=validators) if genesis is None else genesis
        self.genesis_bytes = encode_genesis(self.genesis)
        self.registry = KindRegistry((*builtin_kinds().values(), BALANCES))
        self.founding = LedgerState.founding(self.genesis_bytes, self.registry)
        self.state = self.founding
        self.ledger_id: LedgerId = self.state.ledger_id
        self.context = IntakeContext.of(self.ledger_id, self.genesis)
        self.validators: ValidatorSet = self.genesis.validator_set
        self.signers = tuple(validators)
        self.keys = {one.key: one for one in (*VALIDATORS, *validators)}
        """Whose votes the blocks of any epoch may carry."""
        self.log: dict[int, list[LogRecord | None]] = {
            partition: [] for partition in range(self.genesis.partitions)
        }
        self.topics = dict.fromkeys(self.log, TOPIC_UUID)
        """The topic that each partition's log is of."""
        self.blocks: list[Block] = []
        self.answers: dict[tuple[int, int], Answer | None] = {}

    # Commands and records ----------------------------------------------------------------------

    def command(
        self,
        session: str,
        *drafts: Draft,
        author: Ed25519Signer = ALICE,
        number: int = 1,
        expected: int | None = None,
        opening: Opening | None = None,
        ledger_id: LedgerId | None = None,
        identity: AuthorId | None = None,
        salts: int = 0,
    ) -> SignedCommand:
        """A signed command; `number` makes its id. Without drafts it asks for one `Paid`."""
        payloads = tuple(
            Payload(sha256(b"%s/%d/%d/%d" % (session.encode(), number, index, salts)), draft.data)
            for index, draft in enumerate(drafts or (Draft(),))
        )
        events = tuple(
            EventDraft(draft.event_type, draft.content_type, payload_hash(payload))
            for draft, payload in zip(drafts or (Draft(),), payloads, strict=True)
        )
        command = Command(
            self.ledger_id if ledger_id is None else ledger_id,
            SessionId(session),
            author_id(author) if identity is None else identity,
            author.key,
            command_id(number),
            expected,
            opening,
            FIRST_TIME_MS + number,
            events,
        )
        return sign_command(command, payloads, author)

    def opening(
        self,
        session: str,
        *drafts: Draft,
        kind: str = "facts",
        version: int = 1,
        author: Ed25519Signer = ALICE,
        number: int = 1,
        expected: int | None = None,
    ) -> SignedCommand:
        """A signed command that opens a session."""
        return self.command(
            session,
            *drafts,
            author=author,
            number=number,
            expected=expected,
            opening=Opening(kind, version),
        )

    def partition_of(self, session: str) -> int:
        """Where records of a session belong."""
        return partition_of(session.encode("ascii"), self.genesis.partitions)

    def append(
        self, item: SignedCommand | LogRecord | None, partition: int | None = None
    ) -> Position:
        """Put a command, a record or a gap (None, with its partition) at the end of the log."""
        if isinstance(item, SignedCommand) and partition is None:
            partition = self.partition_of(item.command.session)
        assert partition is not None
        record = log_record(item) if isinstance(item, SignedCommand) else item
        self.log[partition].append(record)
        epoch = self.state.positions[partition].log_epoch
        return Position(epoch, partition, len(self.log[partition]) - 1)

    def session(self, name: str) -> SessionState:
        """A session that was opened, as it is now."""
        state = self.state.session(SessionId(name))
        assert state is not None, f"{name} was never opened"
        return state

    # Blocks ------------------------------------------------------------------------------------

    def waiting(self, end: dict[int, int] | None = None) -> list[PartitionBatch]:
        """The records that are not executed yet, up to `end` of each partition (else all)."""
        batches = []
        for position in self.state.positions:
            records = self.log[position.partition]
            last = len(records) if end is None else end.get(position.partition, 0)
            if last > position.next_offset:
                prepared = [
                    (offset, self.prepare(position.partition, record))
                    for offset in range(position.next_offset, last)
                    if (record := records[offset]) is not None
                ]
                topic = self.topics[position.partition]
                batches.append(PartitionBatch(position.partition, topic, last, prepared))
        return batches

    def prepare(self, partition: int, record: LogRecord) -> Prepared:
        """A record, read."""
        return prepare(self.context, partition, record)

    def execute(
        self, end: dict[int, int] | None = None, control: Sequence[bytes] = ()
    ) -> Execution:
        """What a block over the waiting records would be; nothing is kept."""
        batch = ControlBatch(len(self.blocks) + 1, tuple(control))
        return execute(self.state, self.waiting(end), batch)

    def commit(self, end: dict[int, int] | None = None, control: Sequence[bytes] = ()) -> Block:
        """The next block over the waiting records (as much as its limits allow), committed, with
        control records.
        """
        execution = self.execute(end, control)
        block = self.block_of(execution)
        self.state = execution.state
        self.blocks.append(block)
        for position, record in zip(positions_of(block.header), block.records, strict=True):
            self.answers[position.partition, position.offset] = answer_of(record)
        return block

    def lose_log(
        self, partition: int, topic_uuid: bytes = OTHER_TOPIC_UUID, kept: int = 0
    ) -> list[LogRecord | None]:
        """The broker loses what a partition has from offset `kept` on, and has another topic from
        now on. What it lost.
        """
        lost = self.log[partition][kept:]
        del self.log[partition][kept:]
        self.topics[partition] = topic_uuid
        return lost

    def answer(
        self, item: SignedCommand | LogRecord | None, partition: int | None = None
    ) -> Answer:
        """Append, commit, and say what became of it."""
        position = self.append(item, partition)
        self.commit()
        answer = self.answers[position.partition, position.offset]
        assert answer is not None
        return answer

    def block_of(self, execution: Execution) -> Block:
        """The block of an execution on the newest one, committed by a quorum of its own."""
        parent = self.blocks[-1] if self.blocks else None
        height = len(self.blocks) + 1
        sets = self.state.view.validator_sets
        epoch = sets.epoch_at(height)
        before = epoch * sets.epoch_length
        header = BlockHeader(
            BlockKind.LEDGER,
            FORMAT_VERSION,
            RULES_VERSION,
            self.ledger_id,
            Epoch(0, epoch),
            sets.of(epoch).hash,
            sets.of(epoch + 1).hash,
            height - before,
            height,
            Hash(self.ledger_id) if parent is None else parent.digest,
            0 if parent is None or parent.header.height == before else parent.header.view,
            FIRST_TIME_MS + height,
            execution.ranges,
            execution.control_hash,
            execution.record_count,
            execution.dispositions_root,
            execution.state_root,
            b"",
        )
        return self.certified(header, execution.records, execution.state_changes, execution.control)

    def certified(
        self,
        header: BlockHeader,
        records: tuple[RecordDisposition, ...],
        changes: tuple[StateChange, ...],
        control: tuple[bytes, ...] = (),
    ) -> Block:
        """A block with any header and body, really signed by the leader and by a quorum of the set
        that its header names.
        """
        header_bytes = encode_block_header(header)
        digest = hash_block(header_bytes)
        return Block(
            header,
            header_bytes,
            digest,
            sign_proposal(self.voters(header)[0], digest),
            CommitProof(self.certificate(header, digest), ()),
            control,
            records,
            changes,
        )

    def certificate(
        self, header: BlockHeader, digest: Hash, kind: VoteKind = VoteKind.FINALIZE
    ) -> Certificate:
        """A quorum of votes of one kind for a block."""
        ballot = Ballot(
            kind, self.ledger_id, header.epoch, header.validator_set_hash, header.view, digest
        )
        return Certificate(
            kind,
            header.epoch,
            header.validator_set_hash,
            header.view,
            digest,
            tuple((index, sign_vote(one, ballot)) for index, one in enumerate(self.voters(header))),
        )

    def voters(self, header: BlockHeader) -> list[Ed25519Signer]:
        """The first quorum of the set that a header names; this ledger's own first signers when
        it names no decided one, or one whose keys are not here.
        """
        for one in self.state.view.validator_sets.decided:
            if one.validators.hash == header.validator_set_hash:
                quorum = one.validators.keys[: one.validators.quorum]
                if all(key in self.keys for key in quorum):
                    return [self.keys[key] for key in quorum]
        return list(self.signers[: self.validators.quorum])

    def opening_of_log(
        self,
        partition: int,
        topic_uuid: bytes = OTHER_TOPIC_UUID,
        start: int = 0,
        number: int = 1,
        signers: Sequence[Ed25519Signer] = OPERATORS[:2],
        last_valid_height: int = 1_000_000,
        log_epoch: int | None = None,
    ) -> bytes:
        """The control record that lets a partition go on in its next log epoch."""
        following = self.state.positions[partition].log_epoch + 1
        opening = LogOpening(partition, log_epoch or following, topic_uuid, start)
        control = Control(
            self.ledger_id,
            number,
            last_valid_height,
            log_epochs.ACTION,
            log_epochs.opening_fields(opening),
        )
        return sign_control(control, tuple(signers))

    def change_of(
        self,
        validators: Sequence[Ed25519Signer],
        number: int = 1,
        signers: Sequence[Ed25519Signer] = OPERATORS[:2],
        last_valid_height: int = 1_000_000,
    ) -> bytes:
        """The control record that makes these the validators, two epochs after its block's."""
        members = tuple((one.key, prove_possession(one)) for one in validators)
        control = Control(self.ledger_id, number, last_valid_height, ACTION, set_fields(members))
        return sign_control(control, tuple(signers))


def log_record(signed: SignedCommand) -> LogRecord:
    """The record of the commands topic, with the headers the command service writes."""
    session = signed.command.session
    headers = cloud_event_headers(
        COMMANDS, signed.command.command_id.hex(), "nocturne:test", session, None
    )
    return LogRecord(
        session.encode("ascii"),
        frame(FIXED_SCHEMA_IDS[COMMANDS], encode_signed_command(signed)),
        tuple(headers),
    )


def record_value(block: Block) -> bytes:
    """The value of the block's record in the blocks topic."""
    return frame(FIXED_SCHEMA_IDS[BLOCKS], encode_block(block))


def pointing(block: Block, last: Block) -> Block:
    """The block with its commit proof replaced by a pointer to a later block's."""
    return replace(block, proof=ProofPointer(last.header.height, last.digest))


def answer_of(record: RecordDisposition) -> Answer | None:
    """What a record became; None for a gap."""
    if record.events:
        return tuple(decode_event_header(one) for one in record.events)
    return None if record.receipt is None else decode_receipt_header(record.receipt)
