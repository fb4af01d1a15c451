"""What a forger with keys of his own can make: a whole ledger, and records for every topic. Pure.

Everything is as good as it gets without the keys of others: encodings, hashes, trees and positions
are right, and every signature is a valid one, only by the wrong key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from nocturne.core import exports, merkle
from nocturne.core.blocks import (
    Block,
    BlockHeader,
    BlockKind,
    Disposition,
    LogRecord,
    RecordDisposition,
    Seal,
    disposition_leaf,
    encode_block,
    encode_block_header,
    encode_seal,
    hash_block,
    hash_record,
    hash_signatures,
    headers_bytes,
    positions_of,
    sign_proposal,
    sign_seal,
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
from nocturne.core.commands import SignedCommand, encode_signed_command
from nocturne.core.events import (
    Position,
    decode_event_header,
    encode_event,
    encode_event_header,
    hash_event,
    header_of,
    sign_event,
)
from nocturne.core.execution import Execution, PartitionBatch, execute
from nocturne.core.exports import Placement
from nocturne.core.genesis import Genesis, encode_genesis
from nocturne.core.identifiers import Hash, LedgerId, SessionId, format_id, session_key
from nocturne.core.intake import IntakeContext, command_hash_of_value, prepare
from nocturne.core.keys import Signer, prove_possession
from nocturne.core.receipts import (
    Head,
    Reason,
    ReceiptHeader,
    encode_receipt,
    encode_receipt_header,
    hash_receipt,
    sign_receipt,
)
from nocturne.core.state import LedgerState
from nocturne.core.topics import (
    BLOCKS,
    COMMANDS,
    EVENTS,
    FIXED_SCHEMA_IDS,
    RECEIPTS,
    SEALS,
    cloud_event_headers,
    frame,
    partition_of,
)

_EPOCH: Final = Epoch(0, 0)
_TOPIC_UUID: Final = b"a forger's topic"


@dataclass(frozen=True, slots=True)
class Forger:
    """One person with a key for every role."""

    author: Signer
    validator: Signer
    authority: Signer


# A whole ledger ----------------------------------------------------------------------------------


def found(model: Genesis, forger: Forger, nonce: bytes) -> Genesis:
    """A genesis like `model`, in which every key is the forger's."""
    return replace(
        model,
        nonce=nonce,
        validators=((forger.validator.key, prove_possession(forger.validator)),),
        authority=forger.authority.key,
        authority_possession=prove_possession(forger.authority),
        operators=(forger.validator.key,),
        operator_threshold=1,
    )


def self_made_export(
    genesis: Genesis, forger: Forger, commands: Sequence[SignedCommand], time: int
) -> bytes:
    """The export of a session of a ledger that exists only here: its commands executed by the real
    rules into block 1 (at `time`, ms), certified and signed by the forger, whoever `genesis` names.
    All `commands` are of one session of that ledger.
    """
    genesis_bytes = encode_genesis(genesis)
    before = LedgerState.founding(genesis_bytes)
    session = commands[0].command.session
    done = _executed(before, genesis, session, commands)
    validators = genesis.validator_set
    header = _header(before.ledger_id, validators, 1, Hash(before.ledger_id), 0, time, done)
    header_bytes = encode_block_header(header)
    proof = _commit_proof(forger, before.ledger_id, validators, header_bytes, header.view)
    leaves = _leaves(header, done.records)
    lines = [
        exports.export_line(genesis_bytes, session, 1),
        exports.block_line(header_bytes, proof),
    ]
    for index, record in enumerate(done.records):
        placement = Placement(
            1, time, positions_of(header)[index], index, merkle.inclusion_path(leaves, index)
        )
        signatures = [
            sign_event(forger.authority, hash_event(one), time, 1) for one in record.events
        ]
        lines.append(exports.disposition_line(placement, record, forger.authority.key, signatures))
    key = session_key(before.ledger_id, session)
    lines.append(exports.state_line(session, 1, key, done.state.tree.prove(key)))
    return b"".join(lines)


def _executed(
    before: LedgerState, genesis: Genesis, session: SessionId, commands: Sequence[SignedCommand]
) -> Execution:
    context = IntakeContext.of(before.ledger_id, genesis)
    key = session.encode("ascii")
    partition = partition_of(key, genesis.partitions)
    prepared = [
        (offset, prepare(context, partition, LogRecord(key, _record_value(signed), ())))
        for offset, signed in enumerate(commands)
    ]
    done = execute(before, [PartitionBatch(partition, _TOPIC_UUID, len(prepared), prepared)])
    assert done.record_count == len(commands), "one session's commands fit into one block"
    assert all(record.events for record in done.records), "a forger refuses himself nothing"
    return done


def _header(
    ledger_id: LedgerId,
    validators: ValidatorSet,
    height: int,
    parent: Hash,
    parent_view: int,
    time: int,
    done: Execution,
) -> BlockHeader:
    return BlockHeader(
        BlockKind.LEDGER,
        1,
        1,
        ledger_id,
        _EPOCH,
        validators.hash,
        validators.hash,
        parent_view + 1,
        height,
        parent,
        parent_view,
        time,
        done.ranges,
        done.control_hash,
        done.record_count,
        done.dispositions_root,
        done.state_root,
        b"",
    )


def _commit_proof(
    forger: Forger, ledger_id: LedgerId, validators: ValidatorSet, header_bytes: bytes, view: int
) -> CommitProof:
    """The forger's votes as those of a quorum, whoever `validators` are."""
    digest = hash_block(header_bytes)
    ballot = Ballot(VoteKind.FINALIZE, ledger_id, _EPOCH, validators.hash, view, digest)
    vote = sign_vote(forger.validator, ballot)
    votes = tuple((index, vote) for index in range(validators.quorum))
    return CommitProof(
        Certificate(VoteKind.FINALIZE, _EPOCH, validators.hash, view, digest, votes), ()
    )


def _leaves(header: BlockHeader, records: Sequence[RecordDisposition]) -> list[bytes]:
    return [
        disposition_leaf(
            Disposition(
                position,
                command_hash_of_value(record),
                tuple(map(hash_event, record.events)),
                None if record.receipt is None else hash_receipt(record.receipt),
            )
        )
        for position, record in zip(positions_of(header), records, strict=True)
    ]


# Records for the topics of a ledger that is not his -----------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """What a forger knows of the ledger he attacks: all of it is public. `parent` is the header of
    the last block, `head` that of the session which the forged event is to continue.
    """

    genesis: Genesis
    ledger_id: LedgerId
    parent: BlockHeader
    parent_digest: Hash
    session: SessionId
    head: Head


@dataclass(frozen=True, slots=True)
class ForgedRecord:
    """A record ready to be produced."""

    topic: str
    partition: int
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


def forged_records(target: Target, forger: Forger, signed: SignedCommand) -> list[ForgedRecord]:
    """One record for each topic but commands, all about `signed`, a command that nobody accepted:
    a block that certifies it as the session's next event, its seal, its event, and a receipt that
    would refuse it.
    """
    time = target.parent.time + 1
    height = target.parent.height + 1
    header_bytes = _forged_event_header(target, signed)
    signatures = sign_event(forger.authority, hash_event(header_bytes), time, height)
    block = _forged_block(target, forger, signed, header_bytes, time)
    seal = sign_seal(
        forger.authority, target.ledger_id, height, block.digest, hash_signatures([signatures])
    )
    event = encode_event(header_bytes, signatures, height, time, signed, 0)
    receipt = _forged_receipt(target, forger, signed)
    return [
        _block_record(target, block),
        _seal_record(target, seal),
        _session_record(target, EVENTS, _event_name(header_bytes), height, event),
        _session_record(target, RECEIPTS, _receipt_name(target), height, receipt),
    ]


def forged_command(target: Target, signed: SignedCommand) -> ForgedRecord:
    """The command itself, written past the command service."""
    key = target.session.encode("ascii")
    headers = cloud_event_headers(
        COMMANDS, "forged-command", f"nocturne:{target.ledger_id.hex()}", target.session, None
    )
    partition = partition_of(key, target.genesis.partitions)
    return ForgedRecord(COMMANDS, partition, key, _record_value(signed), tuple(headers))


def _record_value(signed: SignedCommand) -> bytes:
    return frame(FIXED_SCHEMA_IDS[COMMANDS], encode_signed_command(signed))


def _forged_event_header(target: Target, signed: SignedCommand) -> bytes:
    header = header_of(
        signed.command,
        signed.command_hash,
        _next_position(target),
        0,
        target.head.sequence + 1,
        target.head.hash,
    )
    return encode_event_header(header)


def _next_position(target: Target) -> Position:
    """Where the log goes on, in a partition that the last block read."""
    last = target.parent.ranges[0]
    return Position(last.log_epoch, last.partition, last.end)


def _forged_block(
    target: Target, forger: Forger, signed: SignedCommand, event_header: bytes, time: int
) -> Block:
    """A block of one record that continues the real chain; only the vote is by the wrong key."""
    parent = target.parent
    key = target.session.encode("ascii")
    record = RecordDisposition(
        key,
        _record_value(signed),
        headers_bytes(()),
        hash_record(key, _record_value(signed), headers_bytes(())),
        (event_header,),
        None,
        len(signed.command_bytes),
    )
    last = parent.ranges[0]
    grown = replace(last, start=last.end, end=last.end + 1)
    header = replace(
        parent,
        view=parent.view + 1,
        height=parent.height + 1,
        parent_digest=target.parent_digest,
        parent_view=parent.view,
        time=time,
        ranges=(grown,),
        record_count=1,
    )
    header = replace(header, dispositions_root=Hash(merkle.root(_leaves(header, [record]))))
    header_bytes = encode_block_header(header)
    digest = hash_block(header_bytes)
    validators = target.genesis.validator_set
    return Block(
        header,
        header_bytes,
        digest,
        sign_proposal(forger.validator, digest),
        _commit_proof(forger, target.ledger_id, validators, header_bytes, header.view),
        (),
        (record,),
        (),
    )


def _forged_receipt(target: Target, forger: Forger, signed: SignedCommand) -> bytes:
    header = ReceiptHeader(
        target.ledger_id,
        signed.command_hash,
        Reason.DUPLICATE_SEQ,
        "S1",
        target.session,
        signed.command.expected_sequence,
        False,
        target.head,
        _next_position(target),
        None,
    )
    header_bytes = encode_receipt_header(header)
    time, height = target.parent.time + 1, target.parent.height + 1
    signatures = sign_receipt(forger.authority, hash_receipt(header_bytes), time, height)
    return encode_receipt(header_bytes, signatures, height, time)


def _event_name(header_bytes: bytes) -> str:
    """The CloudEvents id of an event's record."""
    return format_id(decode_event_header(header_bytes).event_id)


def _receipt_name(target: Target) -> str:
    """The CloudEvents id of a receipt's record."""
    at = _next_position(target)
    return f"{at.log_epoch}-{at.partition}-{at.offset}"


def _block_record(target: Target, block: Block) -> ForgedRecord:
    value = frame(FIXED_SCHEMA_IDS[BLOCKS], encode_block(block))
    return _record(target, BLOCKS, 0, str(block.header.height), block.header.height, value)


def _seal_record(target: Target, seal: Seal) -> ForgedRecord:
    value = frame(FIXED_SCHEMA_IDS[SEALS], encode_seal(seal))
    return _record(target, SEALS, 0, str(seal.height), seal.height, value)


def _session_record(
    target: Target, topic: str, record_id: str, height: int, avro: bytes
) -> ForgedRecord:
    partition = partition_of(target.session.encode("ascii"), target.genesis.partitions)
    value = frame(FIXED_SCHEMA_IDS[topic], avro)
    return _record(target, topic, partition, record_id, height, value)


def _record(
    target: Target, topic: str, partition: int, record_id: str, height: int, value: bytes
) -> ForgedRecord:
    source = f"nocturne:{target.ledger_id.hex()}"
    headers = cloud_event_headers(topic, record_id, source, target.session, None)
    headers.append(("nocturne-height", str(height).encode("ascii")))
    return ForgedRecord(topic, partition, target.session.encode("ascii"), value, tuple(headers))
