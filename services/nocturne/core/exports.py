"""Exports: what anyone can check offline, as lines of text. And the JSON forms of L-1 and L-3.

Rules: docs/spec/exports.md. A line is one object in RFC 8785 form and a line feed. It has one
encoding: `parse_line` reads the fields that say something new, prints the line from them again and
refuses any other bytes, so that every redundant field is checked. Whether a line is *true* is for
`audit.verify`.

An export's lines, in order: `export`; for each block with dispositions of the session `block` and
then its `events` and `receipt` lines; the `block` of the export's height, if it was not among
them; `receipts` (all receipt hashes of the session, in groups of 1 000); `state`.
A disposition proof is one `block` line and one `events` or `receipt` line.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

from nocturne.core.blocks import (
    BlockHeader,
    RecordDisposition,
    decode_block_header,
    hash_block,
    hash_record,
)
from nocturne.core.certificates import CommitProof, decode_commit_proof, encode_commit_proof
from nocturne.core.commands import (
    Command,
    Opening,
    Payload,
    command_from_avro,
    encode_command,
    hash_command,
)
from nocturne.core.encoding import INTEGER_MAX, TIME_MAX
from nocturne.core.errors import Malformed
from nocturne.core.events import (
    Event,
    EventHeader,
    Position,
    decode_event_header,
    encode_event_header,
    hash_event,
    header_of,
)
from nocturne.core.genesis import ledger_id_of
from nocturne.core.identifiers import (
    Hash,
    LedgerId,
    SessionId,
    format_hash,
    format_id,
    is_session_id,
    parse_hash,
    parse_id,
)
from nocturne.core.intake import signed_command_of
from nocturne.core.keys import (
    SUITE_NAMES,
    Key,
    PublicKey,
    Signature,
    Signatures,
    format_key,
    key_id,
    key_to_avro,
    parse_key,
)
from nocturne.core.receipts import (
    PAPER_REASONS,
    Head,
    Reason,
    Receipt,
    ReceiptHeader,
    decode_receipt_header,
    encode_receipt_header,
    hash_receipt,
)
from nocturne.core.sparse_tree import Proof
from nocturne.core.state_leaf import SessionLeaf
from nocturne.core.strict_json import JsonValue, canonical_json, parse_json

EXPORT_VERSION: Final = 1
LINE_BYTES_MAX: Final = 64 * 1024 * 1024
"""Beyond what the JSON of any block's events can be: a block has at most 12 MiB."""
RECEIPTS_PER_LINE: Final = 1_000
"""Receipt hashes of a `receipts` line; only the last line has fewer."""
PAYLOAD_DEPTH_MAX: Final = 64
"""A JSON payload nested deeper stands as base64."""

JsonObject: TypeAlias = dict[str, JsonValue]

_LINE_DEPTH_MAX: Final = PAYLOAD_DEPTH_MAX + 3
"""A payload stands in an event, in the list of events, in the line."""
_PATH_MAX: Final = 64
_SIBLINGS_MAX: Final = 256
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3})Z\Z", re.ASCII)
_SIGNATURE: Final = re.compile(r"([a-z0-9]+)-((?:[0-9a-f]{2})+)\Z")
_SUITE_OF_NAME: Final = {name: suite for suite, name in SUITE_NAMES.items()}
_SHOWN_MAX: Final = 80


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a disposition stands: block height and time (ms), position in the log, index among the
    leaves of the block's disposition tree, and the RFC 6962 path from that leaf up.
    """

    height: int
    timestamp: int
    position: Position
    leaf_index: int
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Attestation:
    """The authority's key and its signatures under it; both empty when it has not signed yet."""

    key: Key
    signatures: Signatures


UNSIGNED: Final = Attestation((), ())


@dataclass(frozen=True, slots=True)
class ExportLine:
    """The first line: which session of which ledger, up to which block."""

    session: SessionId
    height: int
    genesis_bytes: bytes

    @property
    def ledger_id(self) -> LedgerId:
        """The hash of the genesis."""
        return ledger_id_of(self.genesis_bytes)


@dataclass(frozen=True, slots=True)
class BlockLine:
    """A block's header and the proof that it is committed."""

    header: BlockHeader
    header_bytes: bytes
    digest: Hash
    proof: CommitProof


@dataclass(frozen=True, slots=True)
class EventsLine:
    """The events of one accepted command. `sequence` and `previous_hash` are the first event's."""

    placement: Placement
    command: Command
    command_hash: Hash
    author_signatures: Signatures
    payloads: tuple[Payload, ...]
    sequence: int
    previous_hash: Hash
    attestations: tuple[Attestation, ...]

    def headers(self) -> tuple[bytes, ...]:
        """The event headers: the command leaves no choice in them."""
        headers = []
        previous = self.previous_hash
        for index in range(len(self.command.events)):
            header = header_of(
                self.command,
                self.command_hash,
                self.placement.position,
                index,
                self.sequence + index,
                previous,
            )
            headers.append(encode_event_header(header))
            previous = hash_event(headers[-1])
        return tuple(headers)


@dataclass(frozen=True, slots=True)
class RefusedRecord:
    """A refused record that is no command: its bytes, which hash to the receipt's command hash."""

    key: bytes | None
    value: bytes | None
    headers: bytes


@dataclass(frozen=True, slots=True)
class ReceiptLine:
    """A receipt and what it refused: the command with its author's signatures (none when the
    receipt is `claimed`: nothing binds them), the record that is no command, or None for a record
    that is too large to be looked at, of which only the hash is known.
    """

    placement: Placement
    header: ReceiptHeader
    refused: Command | RefusedRecord | None
    author_signatures: Signatures
    attestation: Attestation


@dataclass(frozen=True, slots=True)
class ReceiptsLine:
    """Receipt hashes of the session in their order; `first` counts from 1."""

    first: int
    hashes: tuple[Hash, ...]


@dataclass(frozen=True, slots=True)
class StateLine:
    """The session's place in the state tree at the export's height. With `leaf` None the session
    is absent, and `other` is what stands on its key's way: another key's leaf or nothing.
    """

    session: SessionId
    height: int
    leaf: SessionLeaf | None
    siblings: tuple[bytes, ...]
    other: tuple[bytes, bytes] | None


Disposition: TypeAlias = EventsLine | ReceiptLine
Line: TypeAlias = ExportLine | BlockLine | EventsLine | ReceiptLine | ReceiptsLine | StateLine


# Builders: from what services hold to lines --------------------------------------------------


def export_line(genesis_bytes: bytes, session: SessionId, height: int) -> bytes:
    """The first line of an export of `session` as of block `height` (its state line's)."""
    return print_line(ExportLine(session, height, genesis_bytes))


def block_line(header_bytes: bytes, proof: CommitProof) -> bytes:
    """A block's line. The proof is whole: a pointer is resolved by the caller."""
    header = decode_block_header(header_bytes)
    return print_line(BlockLine(header, header_bytes, hash_block(header_bytes), proof))


def disposition_line(
    placement: Placement,
    record: RecordDisposition,
    authority: Key,
    signatures: Sequence[Signatures],
) -> bytes:
    """The `events` or `receipt` line of a block's record.

    `signatures` has the authority's list for each event, or for the one receipt; it is empty when
    the authority has not signed yet, which only a disposition proof may be, never an export.
    `Malformed` for a gap, and for a record that is not what its hash says.
    """
    if record.receipt is not None:
        return print_line(_receipt_of(placement, record, record.receipt, authority, signatures))
    if not record.events:
        raise Malformed(f"disposition at {placement.position}: a gap has no line")
    return print_line(_events_of(placement, record, authority, signatures))


def receipts_line(first: int, hashes: Sequence[Hash]) -> bytes:
    """Receipt hashes `first`, `first + 1`, …: `RECEIPTS_PER_LINE` in all lines but the last."""
    return print_line(ReceiptsLine(first, tuple(hashes)))


def state_line(session: SessionId, height: int, key: bytes, proof: Proof) -> bytes:
    """The last line. `key` is `identifiers.session_key`, `proof` the state tree's for it."""
    present = proof.leaf is not None and proof.leaf[0] == key
    leaf = SessionLeaf.decode(proof.leaf[1]) if present and proof.leaf is not None else None
    other = None if present else proof.leaf
    return print_line(StateLine(session, height, leaf, proof.siblings, other))


def disposition_proof(block: bytes, disposition: bytes) -> bytes:
    """A block's line and the line of one of its dispositions."""
    return block + disposition


def split_proof(data: bytes) -> tuple[bytes, bytes]:
    """The two lines of a disposition proof; `Malformed` unless there are exactly two."""
    lines = data.splitlines(keepends=True) if len(data) <= 2 * LINE_BYTES_MAX else []
    if len(lines) != 2:
        raise Malformed("disposition proof: expected a block line and a disposition line")
    return lines[0], lines[1]


def _attestations(
    authority: Key, signatures: Sequence[Signatures], count: int
) -> tuple[Attestation, ...]:
    if not signatures:
        return (UNSIGNED,) * count
    if len(signatures) != count:
        raise Malformed(f"authority's signatures: expected {count}, got {len(signatures)}")
    return tuple(Attestation(authority, one) for one in signatures)


def _events_of(
    placement: Placement,
    record: RecordDisposition,
    authority: Key,
    signatures: Sequence[Signatures],
) -> EventsLine:
    signed = signed_command_of(record)
    if signed is None:
        raise Malformed(f"disposition at {placement.position}: events of no command")
    first = decode_event_header(record.events[0])
    line = EventsLine(
        placement,
        signed.command,
        signed.command_hash,
        signed.signatures,
        signed.payloads,
        first.sequence,
        first.previous_hash,
        _attestations(authority, signatures, len(record.events)),
    )
    if line.headers() != record.events:
        raise Malformed(f"disposition at {placement.position}: events of another command")
    return line


def _receipt_of(
    placement: Placement,
    record: RecordDisposition,
    header_bytes: bytes,
    authority: Key,
    signatures: Sequence[Signatures],
) -> ReceiptLine:
    header = decode_receipt_header(header_bytes)
    signed = signed_command_of(record)
    refused: Command | RefusedRecord | None = None
    if signed is not None:
        refused = signed.command
    elif header.reason is not Reason.TOO_LARGE:
        refused = RefusedRecord(record.key, record.value, record.headers)
    return ReceiptLine(
        placement,
        header,
        refused,
        () if signed is None or header.claimed else signed.signatures,
        _attestations(authority, signatures, 1)[0],
    )


# JSON forms of L-1 and L-3 ---------------------------------------------------------------------


def event_json(event: Event, authority: Key) -> JsonObject:
    """The event in the names of L-1, as in REST, on the command line and in exports.

    `authority` is the key that signed (genesis; `~ledger` once it was changed).
    """
    attestation = Attestation(authority, event.signatures) if event.signatures else UNSIGNED
    return _event_json(
        event.header,
        event.event_hash,
        event.command.command_id,
        event.author_signatures,
        event.payload,
        attestation,
        event.height,
        event.timestamp,
    )


def receipt_json(receipt: Receipt, authority: Key) -> JsonObject:
    """The receipt in the names of L-3, as in REST, on the command line and in exports."""
    attestation = Attestation(authority, receipt.signatures) if receipt.signatures else UNSIGNED
    return _receipt_json(
        receipt.header, receipt.receipt_hash, attestation, receipt.height, receipt.timestamp
    )


def payload_json(content_type: str, data: bytes) -> JsonObject:
    """`{"payload": value}` for a JSON content type (`application/json`, `…+json`) whose bytes are
    the RFC 8785 form of a value at most 64 deep; `{"payloadBase64": text}` for all else.
    """
    if content_type == "application/json" or content_type.endswith("+json"):
        try:
            value = parse_json(data, LINE_BYTES_MAX, PAYLOAD_DEPTH_MAX)
            if canonical_json(value) == data:
                return {"payload": value}
        except Malformed:
            # Not JSON within the rules: it is carried as bytes, whatever its type promises.
            pass
    return {"payloadBase64": _base64(data)}


def format_time(ms: int) -> str:
    """RFC 3339, UTC, milliseconds: `2026-11-21T08:59:00.000Z`; `Malformed` outside 1970 to 9999."""
    if not 0 <= ms <= TIME_MAX:
        raise Malformed(f"time: expected 0 to {TIME_MAX} ms, got {ms}")
    moment = _EPOCH + timedelta(milliseconds=ms)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"


def parse_time(text: str) -> int:
    """The reverse of `format_time`, ms since 1970; `Malformed` on anything it would not write."""
    found = _TIME.match(text)
    if found is None:
        raise Malformed(f"time: expected like 2026-11-21T08:59:00.000Z, got {text[:_SHOWN_MAX]!r}")
    try:
        moment = datetime.fromisoformat(found[1]).replace(tzinfo=UTC)
    except ValueError as fault:
        raise Malformed(f"time: no such date: {text!r}") from fault
    ms = (moment - _EPOCH) // timedelta(milliseconds=1)
    if ms < 0:
        raise Malformed(f"time: expected one since 1970, got {text!r}")
    return ms


def format_signature(signature: Signature) -> str:
    """`ed25519-` and lower-case hex."""
    return f"{SUITE_NAMES[signature.suite]}-{signature.data.hex()}"


def _event_json(
    header: EventHeader,
    event_hash: Hash,
    command_id: bytes,
    author_signatures: Signatures,
    payload: Payload,
    attestation: Attestation,
    height: int,
    timestamp: int,
) -> JsonObject:
    return {
        "eventId": format_id(header.event_id),
        "sessionId": header.session,
        "sequenceNumber": header.sequence,
        "timestamp": format_time(timestamp),
        "eventType": header.event_type,
        "contentType": header.content_type,
        **payload_json(header.content_type, payload.data),
        "salt": _base64(payload.salt),
        "payloadHash": format_hash(header.payload_hash),
        "previousHash": format_hash(header.previous_hash),
        "eventHash": format_hash(event_hash),
        **_attestation_json(attestation, "publicKey"),
        "author": format_hash(header.author),
        "authorKeys": [format_key(part) for part in header.key],
        "authorSignatures": [format_signature(one) for one in author_signatures],
        "commandId": format_id(command_id),
        "commandHash": format_hash(header.command_hash),
        "occurredAt": format_time(header.occurred_at),
        "opening": _opening_json(header.opening),
        "height": height,
        "position": _position_json(header.position),
        "index": header.index,
    }


def _receipt_json(
    header: ReceiptHeader,
    receipt_hash: Hash,
    attestation: Attestation,
    height: int,
    timestamp: int,
) -> JsonObject:
    head = header.head
    return {
        "receiptHash": format_hash(receipt_hash),
        "eventHash": format_hash(header.command_hash),
        "reason": PAPER_REASONS[header.reason],
        "detail": header.reason.name,
        "context": {
            "sessionId": header.session,
            "attemptedSequence": header.attempted_sequence,
            "violatedInvariant": header.violated_invariant,
        },
        "claimed": header.claimed,
        "head": None
        if head is None
        else {"sequenceNumber": head.sequence, "eventHash": format_hash(head.hash)},
        "position": _position_json(header.position),
        "firstPosition": _optional_position_json(header.first_position),
        "height": height,
        "timestamp": format_time(timestamp),
        **_attestation_json(attestation, "authority"),
    }


def _attestation_json(attestation: Attestation, key_name: str) -> JsonObject:
    """The first suite's key and signature by name, and every suite's in a list."""
    pairs = [
        (format_key(part), format_signature(one))
        for part, one in zip(attestation.key, attestation.signatures, strict=True)
    ]
    return {
        key_name: pairs[0][0] if pairs else None,
        "signature": pairs[0][1] if pairs else None,
        "signatures": [{"publicKey": key, "signature": signature} for key, signature in pairs],
    }


def _command_json(command: Command, command_hash: Hash, signatures: Signatures) -> JsonObject:
    return {
        "commandHash": format_hash(command_hash),
        "ledgerId": format_hash(command.ledger_id),
        "sessionId": command.session,
        "author": format_hash(command.author),
        "authorKeys": [format_key(part) for part in command.key],
        "commandId": format_id(command.command_id),
        "expectedSequence": command.expected_sequence,
        "opening": _opening_json(command.opening),
        "occurredAt": format_time(command.occurred_at),
        "events": [
            {
                "eventType": draft.event_type,
                "contentType": draft.content_type,
                "payloadHash": format_hash(draft.payload_hash),
            }
            for draft in command.events
        ],
        "authorSignatures": [format_signature(one) for one in signatures],
    }


def _opening_json(opening: Opening | None) -> JsonObject | None:
    return None if opening is None else {"kind": opening.kind, "version": opening.version}


def _position_json(position: Position) -> JsonObject:
    return {
        "logEpoch": position.log_epoch,
        "partition": position.partition,
        "offset": position.offset,
    }


def _optional_position_json(position: Position | None) -> JsonObject | None:
    return None if position is None else _position_json(position)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


# Lines printed -----------------------------------------------------------------------------------


def print_line(line: Line) -> bytes:
    """The line's one encoding, line feed included; `Malformed` when it is too long or holds a
    number or a time that JSON cannot.
    """
    printed = canonical_json(_line_json(line)) + b"\n"
    if len(printed) > LINE_BYTES_MAX:
        raise Malformed(f"line: expected at most {LINE_BYTES_MAX} bytes, got {len(printed)}")
    return printed


def _line_json(line: Line) -> JsonObject:
    match line:
        case ExportLine():
            return {
                "type": "export",
                "version": EXPORT_VERSION,
                "ledgerId": format_hash(line.ledger_id),
                "sessionId": line.session,
                "height": line.height,
                "genesis": _base64(line.genesis_bytes),
            }
        case BlockLine():
            return {
                "type": "block",
                "height": line.header.height,
                "digest": format_hash(line.digest),
                "timestamp": format_time(line.header.time),
                "header": _base64(line.header_bytes),
                "commitProof": _base64(encode_commit_proof(line.proof)),
            }
        case EventsLine():
            return _events_line_json(line)
        case ReceiptLine():
            return _receipt_line_json(line)
        case ReceiptsLine():
            return {
                "type": "receipts",
                "first": line.first,
                "receiptHashes": [format_hash(one) for one in line.hashes],
            }
        case StateLine():
            return _state_line_json(line)


def _placement_json(placement: Placement) -> JsonObject:
    return {
        "height": placement.height,
        "timestamp": format_time(placement.timestamp),
        "position": _position_json(placement.position),
        "leafIndex": placement.leaf_index,
        "path": [format_hash(one) for one in placement.path],
    }


def _events_line_json(line: EventsLine) -> JsonObject:
    events: list[JsonValue] = []
    for header_bytes, payload, attestation in zip(
        line.headers(), line.payloads, line.attestations, strict=True
    ):
        events.append(
            _event_json(
                decode_event_header(header_bytes),
                hash_event(header_bytes),
                line.command.command_id,
                line.author_signatures,
                payload,
                attestation,
                line.placement.height,
                line.placement.timestamp,
            )
        )
    return {
        "type": "events",
        **_placement_json(line.placement),
        "command": _command_json(line.command, line.command_hash, line.author_signatures),
        "events": events,
    }


def _receipt_line_json(line: ReceiptLine) -> JsonObject:
    refused: JsonObject
    match line.refused:
        case Command() as command:
            command_hash = hash_command(encode_command(command))
            refused = {"command": _command_json(command, command_hash, line.author_signatures)}
        case RefusedRecord(key, value, headers):
            refused = {
                "record": {
                    "key": None if key is None else _base64(key),
                    "value": None if value is None else _base64(value),
                    "headers": _base64(headers),
                }
            }
        case None:
            refused = {"record": None}
    return {
        "type": "receipt",
        "ledgerId": format_hash(line.header.ledger_id),
        **_placement_json(line.placement),
        **refused,
        "receipt": _receipt_json(
            line.header,
            hash_receipt(encode_receipt_header(line.header)),
            line.attestation,
            line.placement.height,
            line.placement.timestamp,
        ),
    }


def _state_line_json(line: StateLine) -> JsonObject:
    place: JsonObject = {
        "type": "state",
        "sessionId": line.session,
        "height": line.height,
        "siblings": [format_hash(one) for one in line.siblings],
    }
    leaf = line.leaf
    if leaf is None:
        other = line.other
        absent: JsonObject | None = (
            None if other is None else {"key": format_hash(other[0]), "value": _base64(other[1])}
        )
        return {**place, "absent": absent}
    return {
        **place,
        "sequenceNumber": leaf.sequence,
        "headHash": format_hash(leaf.head_hash),
        "eventsRoot": format_hash(leaf.events_root),
        "receiptCount": leaf.receipt_count,
        "receiptsRoot": format_hash(leaf.receipts_root),
        "restHash": format_hash(leaf.rest_hash),
    }


# Lines parsed ------------------------------------------------------------------------------------


def parse_line(data: bytes) -> Line:
    """The line of `data`, its line feed included; `Malformed` says which field is not what the rest
    of the line makes it, or that the line is not in its one encoding.
    """
    if len(data) > LINE_BYTES_MAX:
        raise Malformed(f"expected at most {LINE_BYTES_MAX} bytes, got {len(data)}")
    if not data.endswith(b"\n"):
        raise Malformed("expected a line feed at its end: the line is cut off")
    value = parse_json(data[:-1], LINE_BYTES_MAX, _LINE_DEPTH_MAX)
    line = _line_of(_Fields.of(value, "line"))
    printed = _line_json(line)
    if canonical_json(printed) + b"\n" != data:
        found = _difference("", value, printed)
        raise Malformed("not in its one encoding" if found is None else found)
    return line


def _line_of(fields: _Fields) -> Line:
    match fields.text("type"):
        case "export":
            return _export_from(fields)
        case "block":
            return _block_from(fields)
        case "events":
            return _events_from(fields)
        case "receipt":
            return _receipt_from(fields)
        case "receipts":
            first = fields.natural("first")
            return ReceiptsLine(first, fields.hashes("receiptHashes", RECEIPTS_PER_LINE))
        case "state":
            return _state_from(fields)
        case other:
            raise Malformed(f"type: expected one of an export's lines, got {other[:_SHOWN_MAX]!r}")


def _export_from(fields: _Fields) -> ExportLine:
    version = fields.natural("version")
    if version != EXPORT_VERSION:
        raise Malformed(f"version: expected {EXPORT_VERSION}, got {version}")
    return ExportLine(fields.session("sessionId"), fields.natural("height"), fields.data("genesis"))


def _block_from(fields: _Fields) -> BlockLine:
    header_bytes = fields.data("header")
    proof = decode_commit_proof(fields.data("commitProof"))
    header = decode_block_header(header_bytes)
    return BlockLine(header, header_bytes, hash_block(header_bytes), proof)


def _placement_from(fields: _Fields) -> Placement:
    return Placement(
        fields.natural("height"),
        fields.time("timestamp"),
        _position_from(fields.object("position")),
        fields.natural("leafIndex"),
        fields.hashes("path", _PATH_MAX),
    )


def _position_from(fields: _Fields) -> Position:
    return Position(
        fields.natural("logEpoch"), fields.natural("partition"), fields.natural("offset")
    )


def _events_from(fields: _Fields) -> EventsLine:
    command, signatures = _command_from(fields.object("command"))
    events = fields.objects("events", len(command.events))
    if len(events) != len(command.events):
        raise Malformed(f"events: expected {len(command.events)}, got {len(events)}")
    return EventsLine(
        _placement_from(fields),
        command,
        hash_command(encode_command(command)),
        signatures,
        tuple(_payload_from(event) for event in events),
        events[0].natural("sequenceNumber"),
        events[0].hash("previousHash"),
        tuple(_attestation_from(event) for event in events),
    )


def _payload_from(event: _Fields) -> Payload:
    salt = event.data("salt")
    if event.has("payload"):
        return Payload(salt, canonical_json(event.value("payload")))
    return Payload(salt, event.data("payloadBase64"))


def _attestation_from(fields: _Fields) -> Attestation:
    pairs = fields.objects("signatures", len(SUITE_NAMES))
    key = tuple(parse_key(pair.text("publicKey")) for pair in pairs)
    return Attestation(key, _signatures_of(key, [pair.text("signature") for pair in pairs]))


def _signatures_of(key: Key, texts: Sequence[str]) -> Signatures:
    identity = key_id(key)
    signatures = []
    for text in texts:
        found = _SIGNATURE.match(text)
        suite = None if found is None else _SUITE_OF_NAME.get(found[1])
        if found is None or suite is None:
            raise Malformed(f"signature: expected ed25519- and hex, got {text[:_SHOWN_MAX]!r}")
        signatures.append(Signature(suite, identity, bytes.fromhex(found[2])))
    return tuple(signatures)


def _command_from(fields: _Fields) -> tuple[Command, Signatures]:
    keys = fields.texts("authorKeys", len(SUITE_NAMES))
    key: tuple[PublicKey, ...] = tuple(map(parse_key, keys))
    drafts = fields.objects("events", None)
    opening = fields.optional_object("opening")
    command = command_from_avro(
        {
            "ledgerId": fields.hash("ledgerId"),
            "session": fields.text("sessionId"),
            "author": fields.hash("author"),
            "key": key_to_avro(key),
            "commandId": parse_id(fields.text("commandId")),
            "expectedSequence": fields.optional_natural("expectedSequence"),
            "opening": None
            if opening is None
            else {"kind": opening.text("kind"), "version": opening.natural("version")},
            "occurredAt": fields.time("occurredAt"),
            "events": [
                {
                    "eventType": draft.text("eventType"),
                    "contentType": draft.text("contentType"),
                    "payloadHash": draft.hash("payloadHash"),
                }
                for draft in drafts
            ],
        }
    )
    return command, _signatures_of(key, fields.texts("authorSignatures", len(SUITE_NAMES)))


def _receipt_from(fields: _Fields) -> ReceiptLine:
    receipt = fields.object("receipt")
    placement = _placement_from(fields)
    refused: Command | RefusedRecord | None = None
    signatures: Signatures = ()
    if fields.has("command"):
        refused, signatures = _command_from(fields.object("command"))
        command_hash = hash_command(encode_command(refused))
    elif (record := fields.optional_object("record")) is not None:
        refused = RefusedRecord(
            record.optional_data("key"), record.optional_data("value"), record.data("headers")
        )
        command_hash = hash_record(refused.key, refused.value, refused.headers)
    else:
        command_hash = receipt.hash("eventHash")
    return ReceiptLine(
        placement,
        _receipt_header_from(fields.hash("ledgerId"), receipt, command_hash, placement.position),
        refused,
        signatures,
        _attestation_from(receipt),
    )


def _receipt_header_from(
    ledger_id: Hash, receipt: _Fields, command_hash: Hash, position: Position
) -> ReceiptHeader:
    detail = receipt.text("detail")
    if detail not in Reason.__members__:
        raise Malformed(f"detail: expected a reason of the ledger, got {detail[:_SHOWN_MAX]!r}")
    context = receipt.object("context")
    head = receipt.optional_object("head")
    first = receipt.optional_object("firstPosition")
    return ReceiptHeader(
        LedgerId(ledger_id),
        command_hash,
        Reason[detail],
        context.text("violatedInvariant"),
        context.text("sessionId"),
        context.optional_natural("attemptedSequence"),
        receipt.boolean("claimed"),
        None if head is None else Head(head.natural("sequenceNumber"), head.hash("eventHash")),
        position,
        None if first is None else _position_from(first),
    )


def _state_from(fields: _Fields) -> StateLine:
    session = fields.session("sessionId")
    height = fields.natural("height")
    siblings = fields.hashes("siblings", _SIBLINGS_MAX)
    if fields.has("absent"):
        absent = fields.optional_object("absent")
        other = None if absent is None else (bytes(absent.hash("key")), absent.data("value"))
        return StateLine(session, height, None, siblings, other)
    leaf = SessionLeaf(
        fields.natural("sequenceNumber"),
        fields.hash("headHash"),
        fields.hash("eventsRoot"),
        fields.natural("receiptCount"),
        fields.hash("receiptsRoot"),
        fields.hash("restHash"),
    )
    return StateLine(session, height, leaf, siblings, None)


class _Fields:
    """The members of one JSON object, each read as what it must be; `Malformed` names it."""

    __slots__ = ("_members", "_where")

    def __init__(self, members: JsonObject, where: str) -> None:
        self._members = members
        self._where = where

    @staticmethod
    def of(value: JsonValue, where: str) -> _Fields:
        """The object `value`."""
        if not isinstance(value, dict):
            raise Malformed(f"{where}: expected an object, got {_shown(value)}")
        return _Fields(value, where)

    def has(self, name: str) -> bool:
        """There is such a member."""
        return name in self._members

    def value(self, name: str) -> JsonValue:
        """Any value."""
        if name not in self._members:
            raise Malformed(f"{self._where}: expected a member {name}, got none")
        return self._members[name]

    def text(self, name: str) -> str:
        """A string."""
        value = self.value(name)
        if not isinstance(value, str):
            raise self._unexpected(name, "a string", value)
        return value

    def natural(self, name: str) -> int:
        """An integer, 0 to 2^53 - 1."""
        value = self.value(name)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= INTEGER_MAX:
            raise self._unexpected(name, "an integer from 0 to 2^53 - 1", value)
        return value

    def optional_natural(self, name: str) -> int | None:
        """An integer or null."""
        return None if self.value(name) is None else self.natural(name)

    def boolean(self, name: str) -> bool:
        """true or false."""
        value = self.value(name)
        if not isinstance(value, bool):
            raise self._unexpected(name, "true or false", value)
        return value

    def hash(self, name: str) -> Hash:
        """A hash as `format_hash` prints it."""
        return parse_hash(self.text(name))

    def time(self, name: str) -> int:
        """A time as `format_time` prints it, ms."""
        return parse_time(self.text(name))

    def session(self, name: str) -> SessionId:
        """A session id."""
        text = self.text(name)
        if not is_session_id(text):
            raise self._unexpected(name, "a session id", text)
        return SessionId(text)

    def data(self, name: str) -> bytes:
        """Bytes in base64 (RFC 4648 §4, with padding)."""
        text = self.text(name)
        try:
            return base64.b64decode(text.encode("ascii"), validate=True)
        except (binascii.Error, UnicodeEncodeError) as fault:
            raise self._unexpected(name, "base64", text) from fault

    def optional_data(self, name: str) -> bytes | None:
        """Bytes or null."""
        return None if self.value(name) is None else self.data(name)

    def object(self, name: str) -> _Fields:
        """An object."""
        return _Fields.of(self.value(name), f"{self._where}.{name}")

    def optional_object(self, name: str) -> _Fields | None:
        """An object or null."""
        return None if self.value(name) is None else self.object(name)

    def objects(self, name: str, count_max: int | None) -> list[_Fields]:
        """A list of objects."""
        where = f"{self._where}.{name}"
        return [_Fields.of(one, where) for one in self._list(name, count_max)]

    def texts(self, name: str, count_max: int) -> list[str]:
        """A list of strings."""
        texts = []
        for one in self._list(name, count_max):
            if not isinstance(one, str):
                raise self._unexpected(name, "strings", one)
            texts.append(one)
        return texts

    def hashes(self, name: str, count_max: int) -> tuple[Hash, ...]:
        """A list of hashes."""
        return tuple(map(parse_hash, self.texts(name, count_max)))

    def _list(self, name: str, count_max: int | None) -> list[JsonValue]:
        value = self.value(name)
        if not isinstance(value, list):
            raise self._unexpected(name, "a list", value)
        if count_max is not None and len(value) > count_max:
            raise Malformed(f"{self._where}.{name}: expected at most {count_max}, got {len(value)}")
        return value

    def _unexpected(self, name: str, expected: str, value: JsonValue) -> Malformed:
        return Malformed(f"{self._where}.{name}: expected {expected}, got {_shown(value)}")


def _shown(value: JsonValue) -> str:
    """A value's beginning, for a message."""
    text = repr(value) if isinstance(value, str | int | float | None) else type(value).__name__
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "…"


def _difference(where: str, given: JsonValue, printed: JsonValue) -> str | None:
    """The first place where the line differs from what its own fields make it, in words."""
    if isinstance(given, dict) and isinstance(printed, dict):
        for name in sorted(given.keys() | printed.keys()):
            path = f"{where}.{name}" if where else name
            if name not in printed:
                return f"{path}: expected no such member"
            if name not in given:
                return f"{path}: expected this member, got none"
            found = _difference(path, given[name], printed[name])
            if found is not None:
                return found
        return None
    if isinstance(given, list) and isinstance(printed, list) and len(given) == len(printed):
        for index, (one, other) in enumerate(zip(given, printed, strict=True)):
            found = _difference(f"{where}[{index}]", one, other)
            if found is not None:
                return found
        return None
    if type(given) is type(printed) and given == printed:
        return None
    return f"{where}: expected {_shown(printed)} by the rest of its line, got {_shown(given)}"
