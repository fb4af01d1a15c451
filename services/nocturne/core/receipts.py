"""Receipts: why a command did not become events, signed by the authority.

Rules and the closed enum of reasons: docs/spec/ledger.md §4.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from nocturne.core.encoding import (
    AvroRecord,
    Codec,
    bytes_to_avro,
    codecs_of_parts,
    domain,
    long_to_avro,
    sha256,
    u8,
    u64,
    union_to_avro,
    variable,
)
from nocturne.core.errors import Malformed
from nocturne.core.events import Position
from nocturne.core.identifiers import Hash, LedgerId
from nocturne.core.keys import (
    Key,
    Signatures,
    Signer,
    encode_signatures,
    one_ed25519_from_avro,
    signatures_from_avro,
    verify,
)

RECEIPT_BYTES_MAX: Final = 64 * 1024

_REASON_AT: Final = 64
_RECEIPT: Final = domain("nocturne/receipt/v1")
_SIGNATURE: Final = domain("nocturne/receipt-signature/v1")
_HEADER_CODEC: Final = Codec("receipt_header", RECEIPT_BYTES_MAX)
_REST_CODEC, _SIGNATURES_CODEC = codecs_of_parts(
    "receipt", RECEIPT_BYTES_MAX, slice(1, None), slice(1, 2)
)


class Reason(IntEnum):
    """Why a command was refused. Closed: a new reason is a new rules version."""

    MALFORMED = 1
    TOO_LARGE = 2
    WRONG_PARTITION = 3
    SIGNATURE_INVALID = 4
    UNKNOWN_AUTHOR = 5
    SESSION_CLOSED = 6
    UNKNOWN_KIND = 7
    NOT_PERMITTED_TO_OPEN = 8
    NOT_A_MEMBER = 9
    REPEATED = 10
    ID_REUSED = 11
    STALE_ID = 12
    DUPLICATE_SEQ = 13
    INVARIANT_VIOLATION = 14


PAPER_REASONS: Final = {
    Reason.MALFORMED: "INVARIANT_VIOLATION",
    Reason.TOO_LARGE: "INVARIANT_VIOLATION",
    Reason.WRONG_PARTITION: "INVARIANT_VIOLATION",
    Reason.SIGNATURE_INVALID: "SIGNATURE_INVALID",
    Reason.UNKNOWN_AUTHOR: "SIGNATURE_INVALID",
    Reason.SESSION_CLOSED: "INVARIANT_VIOLATION",
    Reason.UNKNOWN_KIND: "INVARIANT_VIOLATION",
    Reason.NOT_PERMITTED_TO_OPEN: "INVARIANT_VIOLATION",
    Reason.NOT_A_MEMBER: "INVARIANT_VIOLATION",
    Reason.REPEATED: "DUPLICATE_SEQ",
    Reason.ID_REUSED: "DUPLICATE_SEQ",
    Reason.STALE_ID: "DUPLICATE_SEQ",
    Reason.DUPLICATE_SEQ: "DUPLICATE_SEQ",
    Reason.INVARIANT_VIOLATION: "INVARIANT_VIOLATION",
}
"""Each reason's name among the three of the papers (L-3)."""


@dataclass(frozen=True, slots=True)
class Head:
    """A session's last sequence and event hash."""

    sequence: int
    hash: Hash


@dataclass(frozen=True, slots=True)
class ReceiptHeader:
    """What a receipt's hash covers. With `claimed`, session and sequence are only what the record
    says: its author was not authenticated.
    """

    ledger_id: LedgerId
    command_hash: Hash
    reason: Reason
    violated_invariant: str
    session: str
    attempted_sequence: int | None
    claimed: bool
    head: Head | None
    position: Position
    first_position: Position | None


@dataclass(frozen=True, slots=True)
class Receipt:
    """The envelope: header, the authority's signatures, block height and time."""

    header: ReceiptHeader
    signatures: Signatures
    height: int
    timestamp: int
    header_bytes: bytes
    receipt_hash: Hash


def hash_receipt(header_bytes: bytes) -> Hash:
    """The receipt's hash: domain ‖ variable header."""
    return Hash(sha256(_RECEIPT + variable(header_bytes)))


def encode_receipt_header(header: ReceiptHeader) -> bytes:
    """The hashed record."""
    head = header.head
    first = header.first_position
    attempted = header.attempted_sequence
    return b"".join(
        (
            header.ledger_id,
            header.command_hash,
            long_to_avro(header.reason),
            bytes_to_avro(header.violated_invariant.encode()),
            bytes_to_avro(header.session.encode()),
            union_to_avro(None if attempted is None else long_to_avro(attempted)),
            u8(header.claimed),
            union_to_avro(None if head is None else long_to_avro(head.sequence) + head.hash),
            encode_position(header.position),
            union_to_avro(None if first is None else encode_position(first)),
        )
    )


def decode_receipt_header(data: bytes) -> ReceiptHeader:
    """The reverse of `encode_receipt_header`; `Malformed` on anything else."""
    return _header_from_avro(_HEADER_CODEC.decode(data))


def reason_of(header_bytes: bytes) -> Reason:
    """The reason in the header of a checked block's receipt, without decoding the rest: a hundredth
    of the cost, for those who count.
    """
    # Two hashes, then an int below 64: one byte of zigzag.
    return Reason(header_bytes[_REASON_AT] >> 1)


def encode_position(position: Position) -> bytes:
    """The encoded `Position` record."""
    return (
        long_to_avro(position.log_epoch)
        + long_to_avro(position.partition)
        + long_to_avro(position.offset)
    )


def position_from_avro(record: AvroRecord) -> Position:
    """The position of a `Position` record."""
    return Position(record["logEpoch"], record["partition"], record["offset"])


def _header_from_avro(record: AvroRecord) -> ReceiptHeader:
    try:
        reason = Reason(record["reason"])
    except ValueError as fault:
        raise Malformed(f"receipt: unknown reason {record['reason']}") from fault
    head = record["head"]
    first = record["firstPosition"]
    return ReceiptHeader(
        record["ledgerId"],
        record["commandHash"],
        reason,
        record["violatedInvariant"],
        record["session"],
        record["attemptedSequence"],
        record["claimed"],
        None if head is None else Head(head["sequence"], head["hash"]),
        position_from_avro(record["position"]),
        None if first is None else position_from_avro(first),
    )


def sign_receipt(signer: Signer, receipt_hash: Hash, timestamp: int, height: int) -> Signatures:
    """The authority's signature: domain ‖ suite set ‖ receipt hash ‖ time ‖ height."""
    return signer.sign(_SIGNATURE, receipt_hash + u64(timestamp) + u64(height))


def receipt_signed(
    key: Key, receipt_hash: Hash, timestamp: int, height: int, signatures: Signatures
) -> bool:
    """The authority `key` signed this receipt at this height and time."""
    return verify(key, _SIGNATURE, receipt_hash + u64(timestamp) + u64(height), signatures)


def encode_receipt(
    header_bytes: bytes, signatures: Signatures, height: int, timestamp: int
) -> bytes:
    """The envelope's one encoding; the header's bytes are its first bytes."""
    return b"".join(
        (
            header_bytes,
            encode_signatures(signatures),
            long_to_avro(height),
            long_to_avro(timestamp),
        )
    )


def decode_receipt(data: bytes) -> Receipt:
    """The envelope of `data`; `Malformed` unless it is the one encoding of a receipt."""
    head, length = _HEADER_CODEC.decode_prefix(data)
    header = _header_from_avro(head)
    header_bytes = data[:length]
    record = _REST_CODEC.decode(data[length:])
    if record["height"] < 1 or record["timestamp"] < 0:
        raise Malformed(f"receipt: height {record['height']}, timestamp {record['timestamp']}")
    return Receipt(
        header,
        signatures_from_avro(record["signatures"]),
        record["height"],
        record["timestamp"],
        header_bytes,
        hash_receipt(header_bytes),
    )


def decode_receipt_signatures(data: bytes, header_bytes: bytes) -> Signatures:
    """The authority's signatures in an envelope that must begin with `header_bytes`.

    For a reader who has the content from a certified block and needs only the signatures.
    """
    if not data.startswith(header_bytes):
        raise Malformed("receipt: its header is not the certified one")
    one = one_ed25519_from_avro(data, len(header_bytes))
    if one is not None:
        return one
    record, _ = _SIGNATURES_CODEC.decode_prefix(data[len(header_bytes) :])
    return signatures_from_avro(record["signatures"])
