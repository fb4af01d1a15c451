"""Events: the hashed header, the envelope that carries it, and the JSON form of L-1.

Rules: docs/spec/ledger.md §3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nocturne.core.commands import (
    ENVELOPE_BYTES_MAX,
    Command,
    EventDraft,
    Evidence,
    Opening,
    Payload,
    SignedCommand,
    command_from_avro,
    encode_command,
    encode_opening,
    encode_payload,
    hash_command,
    opening_from_avro,
)
from nocturne.core.encoding import (
    AvroRecord,
    Codec,
    bytes_to_avro,
    codecs_of_parts,
    domain,
    long_to_avro,
    sha256,
    u64,
    union_to_avro,
    variable,
)
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import (
    AuthorId,
    EventId,
    Hash,
    LedgerId,
    SessionId,
    event_id,
)
from nocturne.core.keys import (
    Key,
    Signatures,
    Signer,
    encode_key,
    encode_signatures,
    key_from_avro,
    one_ed25519_from_avro,
    signatures_from_avro,
    verify,
)

_EVENT: Final = domain("nocturne/event/v1")
_SIGNATURE: Final = domain("nocturne/event-signature/v1")
_HEADER_CODEC: Final = Codec("event_header", 64 * 1024)
_REST_CODEC, _SIGNATURES_CODEC = codecs_of_parts(
    "event", ENVELOPE_BYTES_MAX, slice(1, None), slice(1, 2)
)


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where a record stands in the commands topic."""

    log_epoch: int
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class EventHeader:
    """What an event's hash covers. `index` is the event's place in its command."""

    ledger_id: LedgerId
    session: SessionId
    sequence: int
    previous_hash: Hash
    event_id: EventId
    command_hash: Hash
    position: Position
    index: int
    author: AuthorId
    key: Key
    event_type: str
    content_type: str
    payload_hash: Hash
    occurred_at: int
    opening: Opening | None


@dataclass(frozen=True, slots=True)
class Event:
    """The envelope: header, the authority's signatures, block height and time, and the evidence."""

    header: EventHeader
    signatures: Signatures
    height: int
    timestamp: int
    command: Command
    author_signatures: Signatures
    payload: Payload
    header_bytes: bytes
    event_hash: Hash


def hash_event(header_bytes: bytes) -> Hash:
    """The event's hash: domain ‖ variable header."""
    return Hash(sha256(_EVENT + variable(header_bytes)))


def header_of(
    command: Command,
    command_hash: Hash,
    position: Position,
    index: int,
    sequence: int,
    previous_hash: Hash,
) -> EventHeader:
    """The header that draft `index` of `command` gets at `sequence`: nothing in it is a choice."""
    draft: EventDraft = command.events[index]
    return EventHeader(
        command.ledger_id,
        command.session,
        sequence,
        previous_hash,
        event_id(command.ledger_id, command_hash, index),
        command_hash,
        position,
        index,
        command.author,
        command.key,
        draft.event_type,
        draft.content_type,
        draft.payload_hash,
        command.occurred_at,
        command.opening if sequence == 1 else None,
    )


def encode_event_header(header: EventHeader) -> bytes:
    """The hashed record."""
    position, opening = header.position, header.opening
    return b"".join(
        (
            header.ledger_id,
            bytes_to_avro(header.session.encode()),
            long_to_avro(header.sequence),
            header.previous_hash,
            header.event_id,
            header.command_hash,
            long_to_avro(position.log_epoch),
            long_to_avro(position.partition),
            long_to_avro(position.offset),
            long_to_avro(header.index),
            header.author,
            encode_key(header.key),
            bytes_to_avro(header.event_type.encode()),
            bytes_to_avro(header.content_type.encode()),
            header.payload_hash,
            long_to_avro(header.occurred_at),
            union_to_avro(None if opening is None else encode_opening(opening)),
        )
    )


def decode_event_header(data: bytes) -> EventHeader:
    """The reverse of `encode_event_header`; `Malformed` on anything else."""
    return _header_from_avro(_HEADER_CODEC.decode(data))


def _header_from_avro(record: AvroRecord) -> EventHeader:
    return EventHeader(
        record["ledgerId"],
        record["session"],
        record["sequence"],
        record["previousHash"],
        record["eventId"],
        record["commandHash"],
        Position(record["logEpoch"], record["partition"], record["offset"]),
        record["index"],
        record["author"],
        key_from_avro(record["key"]),
        record["eventType"],
        record["contentType"],
        record["payloadHash"],
        record["occurredAt"],
        opening_from_avro(record["opening"]),
    )


def sign_event(signer: Signer, event_hash: Hash, timestamp: int, height: int) -> Signatures:
    """The authority's signature: domain ‖ suite set ‖ event hash ‖ time ‖ height."""
    return signer.sign(_SIGNATURE, event_hash + u64(timestamp) + u64(height))


def event_signed(
    key: Key, event_hash: Hash, timestamp: int, height: int, signatures: Signatures
) -> bool:
    """The authority `key` signed this event at this height and time."""
    return verify(key, _SIGNATURE, event_hash + u64(timestamp) + u64(height), signatures)


def encode_event(
    header_bytes: bytes,
    signatures: Signatures,
    height: int,
    timestamp: int,
    evidence: Evidence | SignedCommand,
    index: int,
) -> bytes:
    """The envelope's one encoding. The header's bytes are its first bytes, not encoded again."""
    return b"".join(
        (
            header_bytes,
            encode_signatures(signatures),
            long_to_avro(height),
            long_to_avro(timestamp),
            evidence.command_bytes,
            encode_signatures(evidence.signatures),
            encode_payload(evidence.payloads[index]),
        )
    )


def decode_event(data: bytes) -> Event:
    """The envelope of `data`; `Malformed` unless it is the one encoding of an event."""
    head, length = _HEADER_CODEC.decode_prefix(data[: _HEADER_CODEC.bytes_max])
    header = _header_from_avro(head)
    header_bytes = data[:length]
    record = _REST_CODEC.decode(data[length:])
    if record["height"] < 1 or record["timestamp"] < 0:
        raise Malformed(f"event: height {record['height']}, timestamp {record['timestamp']}")
    command = command_from_avro(record["command"])
    if hash_command(encode_command(command)) != header.command_hash:
        raise Malformed("event: the command beside it is not the one its header names")
    return Event(
        header,
        signatures_from_avro(record["signatures"]),
        record["height"],
        record["timestamp"],
        command,
        signatures_from_avro(record["authorSignatures"]),
        Payload(record["payload"]["salt"], record["payload"]["bytes"]),
        header_bytes,
        hash_event(header_bytes),
    )


def decode_event_signatures(data: bytes, header_bytes: bytes) -> Signatures:
    """The authority's signatures in an envelope that must begin with `header_bytes`.

    For a reader who has the content from a certified block and needs only the signatures.
    """
    if not data.startswith(header_bytes):
        raise Malformed("event: its header is not the certified one")
    one = one_ed25519_from_avro(data, len(header_bytes))
    if one is not None:
        return one
    rest = data[len(header_bytes) :]
    record, _ = _SIGNATURES_CODEC.read(rest)
    signatures = signatures_from_avro(record["signatures"])
    if not rest.startswith(encode_signatures(signatures)):
        raise _SIGNATURES_CODEC.not_canonical()
    return signatures
