"""Blocks: header, record dispositions, and the hashes that bind a block to the log it answers.

Rules: docs/spec/blocks.md. The header is what validators certify and the transparency log's leaf;
everything else in a published block is checked against it by `check_body`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from nocturne.core import merkle
from nocturne.core.certificates import (
    CommitProof,
    Epoch,
    Link,
    commit_proof_from_avro,
    commit_proof_to_avro,
    epoch_from_avro,
    epoch_to_avro,
)
from nocturne.core.encoding import (
    INTEGER_MAX,
    TIME_MAX,
    ZERO_HASH,
    AvroRecord,
    Codec,
    array_to_avro,
    bytes_to_avro,
    codecs_of_parts,
    domain,
    long_to_avro,
    optional,
    sha256,
    u32,
    u64,
    union_to_avro,
    variable,
)
from nocturne.core.errors import Malformed
from nocturne.core.events import Position, hash_event
from nocturne.core.identifiers import Hash, LedgerId
from nocturne.core.keys import (
    Key,
    Signatures,
    Signer,
    encode_signatures,
    signatures_bytes,
    signatures_from_avro,
    signatures_to_avro,
    verify,
)
from nocturne.core.receipts import encode_position, hash_receipt

FORMAT_VERSION: Final = 1
RULES_VERSION: Final = 1
LOG_EPOCH_MAX: Final = 2**31 - 1
PARTITIONS_MAX: Final = 256
HEADER_BYTES_MAX: Final = 1024 * 1024
BLOCK_BYTES_MAX: Final = 12 * 1024 * 1024

_BLOCK: Final = domain("nocturne/block/v1")
_PROPOSAL: Final = domain("nocturne/proposal/v1")
_RECORD: Final = domain("nocturne/record/v1")
_LOG: Final = domain("nocturne/log/v1")
_LOG_START: Final = domain("nocturne/log-epoch/v1")
_CONTROL: Final = domain("nocturne/control/v1")
_SIGNATURES: Final = domain("nocturne/signatures/v1")
_SEAL: Final = domain("nocturne/seal/v1")
_HEADER_CODEC: Final = Codec("block_header", HEADER_BYTES_MAX)
_FRONT_CODEC, _PROOF_CODEC, _BODY_CODEC = codecs_of_parts(
    "block", BLOCK_BYTES_MAX, slice(1, 3), slice(2, 3), slice(3, None)
)
_SEAL_CODEC: Final = Codec("seal", 64 * 1024)


class BlockKind(IntEnum):
    """A tail block commits its ledger ancestor past an epoch's end and is no ledger block."""

    LEDGER = 0
    TAIL = 1


@dataclass(frozen=True, slots=True)
class Range:
    """Offsets [start, end) of one partition, and the running log hash at `end`."""

    log_epoch: int
    topic_uuid: bytes
    partition: int
    start: int
    end: int
    log_hash: Hash


@dataclass(frozen=True, slots=True)
class BlockHeader:
    """What a block's digest covers. `time` is ms since 1970 UTC."""

    kind: BlockKind
    format_version: int
    rules_version: int
    ledger_id: LedgerId
    epoch: Epoch
    validator_set_hash: Hash
    next_validator_set_hash: Hash
    view: int
    height: int
    parent_digest: Hash
    parent_view: int
    time: int
    ranges: tuple[Range, ...]
    control_hash: Hash
    record_count: int
    dispositions_root: Hash
    state_root: Hash
    leader_proof: bytes


@dataclass(frozen=True, slots=True)
class ProofPointer:
    """The commit proof stands in the block of this height and digest."""

    height: int
    digest: Hash


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One record of the commands topic as the broker delivers it. Headers keep their order."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class RecordDisposition:
    """What became of one offset: event headers, one receipt header, or neither for a gap.

    `record_hash` is None exactly for a gap. `key`, `value`, `headers` are the record's own bytes;
    all three are empty when the record was too large to carry.
    `command_length` is the length of the Command record in `value` after its prefix, 0 if none.
    """

    key: bytes | None
    value: bytes | None
    headers: bytes
    record_hash: Hash | None
    events: tuple[bytes, ...]
    receipt: bytes | None
    command_length: int


@dataclass(frozen=True, slots=True)
class Disposition:
    """A leaf of the disposition tree."""

    position: Position
    command_hash: Hash | None
    events: tuple[Hash, ...]
    receipt: Hash | None


@dataclass(frozen=True, slots=True)
class StateChange:
    """A leaf of the state tree that the block changed; None removes it."""

    key: Hash
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Block:
    """A published block."""

    header: BlockHeader
    header_bytes: bytes
    digest: Hash
    leader_signatures: Signatures
    proof: CommitProof | ProofPointer
    control: tuple[bytes, ...]
    records: tuple[RecordDisposition, ...]
    state_changes: tuple[StateChange, ...]


@dataclass(frozen=True, slots=True)
class BlockFront:
    """A published block whose body is not read: what stands before it, and its bytes."""

    header: BlockHeader
    header_bytes: bytes
    digest: Hash
    leader_signatures: Signatures
    proof: CommitProof | ProofPointer
    body: bytes


@dataclass(frozen=True, slots=True)
class Seal:
    """The authority's one signature for all its signatures in a block."""

    ledger_id: LedgerId
    height: int
    block_digest: Hash
    signatures_hash: Hash
    signatures: Signatures


# The log -------------------------------------------------------------------------------------


def headers_bytes(headers: Sequence[tuple[str, bytes | None]]) -> bytes:
    """Count, then for each header its variable UTF-8 name and its optional value."""
    return u32(len(headers)) + b"".join(
        [
            variable(name.encode("utf-8", "surrogatepass")) + optional(value)
            for name, value in headers
        ]
    )


def hash_record(key: bytes | None, value: bytes | None, headers: bytes) -> Hash:
    """Hash of one record: domain ‖ optional key ‖ optional value ‖ headers; null is not empty."""
    return Hash(sha256(_RECORD + optional(key) + optional(value) + headers))


def log_start(ledger_id: LedgerId, topic_uuid: bytes, log_epoch: int) -> Hash:
    """The log hash before the first record of log epoch 1 of a partition's topic."""
    return Hash(sha256(_LOG_START + ledger_id + topic_uuid + u64(log_epoch)))


def log_continued(last: Hash, topic_uuid: bytes, log_epoch: int) -> Hash:
    """The log hash before the first record of a later log epoch: it continues the last one."""
    return Hash(sha256(_LOG_START + last + topic_uuid + u64(log_epoch)))


def log_next(previous: Hash, offset: int, record_hash: Hash) -> Hash:
    """The log hash after the record at `offset`. Gaps add nothing; their offsets are skipped."""
    return Hash(sha256(_LOG + previous + u64(offset) + record_hash))


# Hashes of the header and its parts ------------------------------------------------------------


def hash_block(header_bytes: bytes) -> Hash:
    """The block's digest: domain ‖ variable header. The leader's signature is no part of it."""
    return Hash(sha256(_BLOCK + variable(header_bytes)))


def hash_control(control: Sequence[bytes]) -> Hash:
    """32 zero bytes when there is none; else domain ‖ count ‖ variable signed control records."""
    if not control:
        return Hash(ZERO_HASH)
    return Hash(sha256(_CONTROL + u32(len(control)) + b"".join(map(variable, control))))


def encode_disposition(disposition: Disposition) -> bytes:
    """The leaf's bytes. A leaf holds its own position: RFC 6962 does not bind positions."""
    return b"".join(
        (
            encode_position(disposition.position),
            union_to_avro(disposition.command_hash),
            array_to_avro(disposition.events),
            union_to_avro(disposition.receipt),
        )
    )


def disposition_leaf(disposition: Disposition) -> bytes:
    """RFC 6962 leaf hash of the encoded disposition."""
    return merkle.leaf_hash(encode_disposition(disposition))


def sign_proposal(signer: Signer, digest: Hash) -> Signatures:
    """The leader's signature of its proposal."""
    return signer.sign(_PROPOSAL, digest)


def proposal_signed(key: Key, digest: Hash, signatures: Signatures) -> bool:
    """The leader `key` proposed the block `digest`."""
    return verify(key, _PROPOSAL, digest, signatures)


def hash_signatures(signatures: Sequence[Signatures]) -> Hash:
    """The authority's signatures of a block's events and receipts, in block order, each list's
    bytes a variable field.
    """
    body = b"".join(variable(signatures_bytes(one)) for one in signatures)
    return Hash(sha256(_SIGNATURES + u32(len(signatures)) + body))


# Header and block records ----------------------------------------------------------------------


def encode_block_header(header: BlockHeader) -> bytes:
    """The hashed record."""
    return _HEADER_CODEC.encode(_header_to_avro(header))


def decode_block_header(data: bytes) -> BlockHeader:
    """The reverse of `encode_block_header`; `Malformed` on anything else."""
    return _header_from_avro(_HEADER_CODEC.decode(data))


def link_to(header: BlockHeader, digest: Hash) -> Link:
    """What `check_commit_proof` asks of a header with this digest."""
    return Link(
        digest,
        header.parent_digest,
        header.ledger_id,
        (header.format_version, header.rules_version),
        header.kind is BlockKind.TAIL,
        header.epoch,
        header.validator_set_hash,
        header.view,
        header.height,
    )


def link_of(header_bytes: bytes) -> Link:
    """`link_to` of a header's bytes; `Malformed` when they are none."""
    return link_to(decode_block_header(header_bytes), hash_block(header_bytes))


def encode_block(block: Block) -> bytes:
    """The published record. Its first bytes are the header's."""
    return block.header_bytes + _encode_rest(block)


def encode_around_proof(block: Block) -> tuple[bytes, bytes]:
    """What of the published record stands before the proof, and what behind it: a block's proof is
    known after the block, and whoever certifies it may have another one.
    """
    return block.header_bytes + encode_signatures(block.leader_signatures), _encode_body(block)


def encode_proof(proof: CommitProof | ProofPointer) -> bytes:
    """What stands between the two parts of `encode_around_proof`."""
    return _PROOF_CODEC.encode({"proof": _proof_to_avro(proof)})


def decode_proof(data: bytes) -> CommitProof | ProofPointer:
    """The reverse of `encode_proof`; `Malformed` unless `data` is the one encoding of a proof."""
    record, length = _PROOF_CODEC.read(data)
    proof = _proof_from_avro(record["proof"])
    if length != len(data) or encode_proof(proof) != data:
        raise _PROOF_CODEC.not_canonical()
    return proof


def decode_block_header_prefix(data: bytes) -> tuple[BlockHeader, bytes]:
    """The header that a published record begins with, and its bytes; the rest is not looked at."""
    record, length = _HEADER_CODEC.decode_prefix(data[:HEADER_BYTES_MAX])
    return _header_from_avro(record), data[:length]


def decode_block(data: bytes) -> Block:
    """The block of `data`; `Malformed` unless it is the one encoding of a block. Its body is not
    checked against its header here (`check_body`), nor its proof (`check_commit_proof`).
    """
    return decode_block_body(decode_block_front(data))


def decode_block_front(data: bytes) -> BlockFront:
    """A block without a look at its body: enough to know it again. `Malformed` as `decode_block`,
    as far as that does not rest on the body.
    """
    if len(data) > BLOCK_BYTES_MAX:
        raise Malformed(f"block: expected at most {BLOCK_BYTES_MAX} bytes, got {len(data)}")
    header, header_bytes = decode_block_header_prefix(data)
    record, length = _FRONT_CODEC.decode_prefix(data[len(header_bytes) :])
    return BlockFront(
        header,
        header_bytes,
        hash_block(header_bytes),
        signatures_from_avro(record["leaderSignatures"]),
        _proof_from_avro(record["proof"]),
        data[len(header_bytes) + length :],
    )


def decode_block_body(front: BlockFront) -> Block:
    """The whole block. `Malformed` as `decode_block`."""
    record, _ = _BODY_CODEC.read(front.body)
    block = Block(
        front.header,
        front.header_bytes,
        front.digest,
        front.leader_signatures,
        front.proof,
        tuple(record["control"]),
        tuple(
            [
                RecordDisposition(
                    one["key"],
                    one["value"],
                    one["headers"],
                    one["recordHash"],
                    tuple(one["events"]),
                    one["receipt"],
                    one["commandLength"],
                )
                for one in record["records"]
            ]
        ),
        tuple([StateChange(one["key"], one["value"]) for one in record["stateChanges"]]),
    )
    if _encode_body(block) != front.body:
        raise _BODY_CODEC.not_canonical()
    return block


def _encode_rest(block: Block) -> bytes:
    """All of the published record that follows the header."""
    return b"".join(
        (
            encode_signatures(block.leader_signatures),
            encode_proof(block.proof),
            _encode_body(block),
        )
    )


def _encode_body(block: Block) -> bytes:
    return b"".join(
        (
            array_to_avro([bytes_to_avro(one) for one in block.control]),
            array_to_avro([_encode_record(one) for one in block.records]),
            array_to_avro([_encode_change(one) for one in block.state_changes]),
        )
    )


def _encode_record(record: RecordDisposition) -> bytes:
    key, value, receipt = record.key, record.value, record.receipt
    return b"".join(
        (
            union_to_avro(None if key is None else bytes_to_avro(key)),
            union_to_avro(None if value is None else bytes_to_avro(value)),
            bytes_to_avro(record.headers),
            union_to_avro(record.record_hash),
            array_to_avro([bytes_to_avro(one) for one in record.events]),
            union_to_avro(None if receipt is None else bytes_to_avro(receipt)),
            long_to_avro(record.command_length),
        )
    )


def _encode_change(change: StateChange) -> bytes:
    return change.key + union_to_avro(None if change.value is None else bytes_to_avro(change.value))


def _proof_to_avro(proof: CommitProof | ProofPointer) -> tuple[str, AvroRecord]:
    if isinstance(proof, ProofPointer):
        return "nocturne.v1.ProofPointer", {"height": proof.height, "digest": proof.digest}
    return "nocturne.v1.CommitProof", commit_proof_to_avro(proof)


def _proof_from_avro(record: AvroRecord) -> CommitProof | ProofPointer:
    if "finalization" in record:
        return commit_proof_from_avro(record)
    return ProofPointer(record["height"], record["digest"])


def encode_seal_header(seal: Seal) -> bytes:
    """What the seal's signature covers, after its domain."""
    return seal.ledger_id + u64(seal.height) + seal.block_digest + seal.signatures_hash


def sign_seal(
    signer: Signer, ledger_id: LedgerId, height: int, digest: Hash, signatures_hash: Hash
) -> Seal:
    """The seal of a block."""
    unsigned = Seal(ledger_id, height, digest, signatures_hash, ())
    signatures = signer.sign(_SEAL, encode_seal_header(unsigned))
    return Seal(ledger_id, height, digest, signatures_hash, signatures)


def seal_signed(key: Key, seal: Seal) -> bool:
    """The authority `key` signed this seal."""
    return verify(key, _SEAL, encode_seal_header(seal), seal.signatures)


def encode_seal(seal: Seal) -> bytes:
    """The record of the seals topic."""
    return _SEAL_CODEC.encode(
        {
            "seal": {
                "ledgerId": seal.ledger_id,
                "height": seal.height,
                "blockDigest": seal.block_digest,
                "signaturesHash": seal.signatures_hash,
            },
            "signatures": signatures_to_avro(seal.signatures),
        }
    )


def decode_seal(data: bytes) -> Seal:
    """The reverse of `encode_seal`; `Malformed` on anything else."""
    record = _SEAL_CODEC.decode(data)
    seal = record["seal"]
    if seal["height"] < 1:
        raise Malformed(f"seal: heights start at 1, got {seal['height']}")
    return Seal(
        seal["ledgerId"],
        seal["height"],
        seal["blockDigest"],
        seal["signaturesHash"],
        signatures_from_avro(record["signatures"]),
    )


# Body against header ---------------------------------------------------------------------------


def positions_of(header: BlockHeader) -> list[Position]:
    """The position of every record of the block, in order: its ranges are dense."""
    return [
        Position(one.log_epoch, one.partition, offset)
        for one in header.ranges
        for offset in range(one.start, one.end)
    ]


def check_body(
    block: Block, command_hashes: Sequence[Hash | None]
) -> tuple[list[Disposition], list[bytes]]:
    """The block's dispositions and their leaf hashes; `Malformed` unless they are the header's.

    `command_hashes[i]` is the command hash of record i as the caller derived it from the record's
    value (`dispositions.command_hash_of`).
    """
    header = block.header
    size = sum(one.end - one.start for one in header.ranges)
    if not size == header.record_count == len(block.records) == len(command_hashes):
        raise Malformed(f"block {header.height}: {len(block.records)} records for {size} offsets")
    if hash_control(block.control) != header.control_hash:
        raise Malformed(f"block {header.height}: its control records are not the certified ones")
    dispositions: list[Disposition] = []
    leaves: list[bytes] = []
    for position, record, command_hash in zip(
        positions_of(header), block.records, command_hashes, strict=True
    ):
        disposition = Disposition(
            position,
            command_hash,
            tuple([hash_event(one) for one in record.events]),
            None if record.receipt is None else hash_receipt(record.receipt),
        )
        dispositions.append(disposition)
        leaves.append(disposition_leaf(disposition))
    if merkle.root(leaves) != header.dispositions_root:
        raise Malformed(f"block {header.height}: its dispositions are not the certified ones")
    return dispositions, leaves


def _header_to_avro(header: BlockHeader) -> AvroRecord:
    return {
        "kind": int(header.kind),
        "formatVersion": header.format_version,
        "rulesVersion": header.rules_version,
        "ledgerId": header.ledger_id,
        "epoch": epoch_to_avro(header.epoch),
        "validatorSetHash": header.validator_set_hash,
        "nextValidatorSetHash": header.next_validator_set_hash,
        "view": header.view,
        "height": header.height,
        "parentDigest": header.parent_digest,
        "parentView": header.parent_view,
        "time": header.time,
        "ranges": [
            {
                "logEpoch": one.log_epoch,
                "topicUuid": one.topic_uuid,
                "partition": one.partition,
                "from": one.start,
                "to": one.end,
                "logHash": one.log_hash,
            }
            for one in header.ranges
        ],
        "controlHash": header.control_hash,
        "recordCount": header.record_count,
        "dispositionsRoot": header.dispositions_root,
        "stateRoot": header.state_root,
        "leaderProof": header.leader_proof,
    }


def _check_numbers(record: AvroRecord) -> None:
    view, height, time = record["view"], record["height"], record["time"]
    if view < 1 or not 1 <= height <= INTEGER_MAX or record["parentView"] < 0:
        raise Malformed(
            f"block header: height {height}, view {view}, parent view {record['parentView']}"
        )
    if not 0 <= time <= TIME_MAX:
        raise Malformed(f"block header: time: expected 0 to {TIME_MAX} ms, got {time}")


def _header_from_avro(record: AvroRecord) -> BlockHeader:
    try:
        kind = BlockKind(record["kind"])
    except ValueError as fault:
        raise Malformed(f"block header: unknown kind {record['kind']}") from fault
    _check_numbers(record)
    ranges = tuple(
        Range(
            one["logEpoch"],
            one["topicUuid"],
            one["partition"],
            one["from"],
            one["to"],
            one["logHash"],
        )
        for one in record["ranges"]
    )
    for one in ranges:
        if not 0 <= one.start < one.end <= INTEGER_MAX:
            raise Malformed(f"block header: range [{one.start}, {one.end})")
        if not 1 <= one.log_epoch <= LOG_EPOCH_MAX or not 0 <= one.partition < PARTITIONS_MAX:
            raise Malformed(f"block header: log epoch {one.log_epoch} of partition {one.partition}")
    # The count bounds every loop over a header's offsets before any body is at hand.
    if sum(one.end - one.start for one in ranges) != record["recordCount"]:
        raise Malformed("block header: its ranges do not hold its record count")
    if [one.partition for one in ranges] != sorted({one.partition for one in ranges}):
        raise Malformed("block header: its ranges are not one a partition, ascending")
    return BlockHeader(
        kind,
        record["formatVersion"],
        record["rulesVersion"],
        record["ledgerId"],
        epoch_from_avro(record["epoch"]),
        record["validatorSetHash"],
        record["nextValidatorSetHash"],
        record["view"],
        record["height"],
        record["parentDigest"],
        record["parentView"],
        record["time"],
        ranges,
        record["controlHash"],
        record["recordCount"],
        record["dispositionsRoot"],
        record["stateRoot"],
        record["leaderProof"],
    )
