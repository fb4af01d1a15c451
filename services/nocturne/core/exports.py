"""Exports: what anyone can check offline, as lines of text. And the JSON forms of L-1 and L-3.

Rules: docs/spec/exports.md. A line is one object in RFC 8785 form and a line feed. It has one
encoding: `parse_line` reads the fields that say something new, prints the line from them again and
refuses any other bytes, so that every redundant field is checked. Whether a line is *true* is for
`audit.verify`.

An export's lines, in order: `export`; for each change of the validators up to its height
`validators`; for each block with dispositions of the session `block` and
then its `events` and `receipt` lines; the `block` of the export's height, if it was not among
them; `receipts` (all receipt hashes of the session, in groups of 1 000); `state`.
A disposition proof is the `validators` lines before its block, one `block` line and one `events`
or `receipt` line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    Payload,
    encode_command,
    hash_command,
)
from nocturne.core.errors import Malformed
from nocturne.core.events import (
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
)
from nocturne.core.intake import signed_command_of
from nocturne.core.json_fields import Fields, JsonObject, base64_text, difference, format_time
from nocturne.core.json_forms import (
    PAYLOAD_DEPTH_MAX,
    UNSIGNED,
    Attestation,
    attestation_from,
    command_from,
    command_json,
    event_fields,
    payload_from,
    position_from,
    position_json,
    receipt_fields,
    receipt_header_from,
)
from nocturne.core.keys import SUITE_NAMES, Key, Signatures, format_key, parse_key
from nocturne.core.receipts import (
    Reason,
    ReceiptHeader,
    decode_receipt_header,
    encode_receipt_header,
    hash_receipt,
)
from nocturne.core.sparse_tree import Proof
from nocturne.core.state_leaf import SessionLeaf
from nocturne.core.strict_json import JsonValue, canonical_json, parse_json
from nocturne.core.validator_sets import VALIDATORS_MAX

EXPORT_VERSION: Final = 1
LINE_BYTES_MAX: Final = 64 * 1024 * 1024
"""Beyond what the JSON of any block's events can be: a block has at most 12 MiB."""
VALIDATORS_LINES_MAX: Final = 4_096
"""`validators` lines of an export or a proof."""
PROOF_BYTES_MAX: Final = 2 * LINE_BYTES_MAX
RECEIPTS_PER_LINE: Final = 1_000
"""Receipt hashes of a `receipts` line; only the last line has fewer."""

_LINE_DEPTH_MAX: Final = PAYLOAD_DEPTH_MAX + 3
"""A payload stands in an event, in the list of events, in the line."""
_PATH_MAX: Final = 64
_SIBLINGS_MAX: Final = 256


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
class ValidatorsLine:
    """The last block of an epoch, which names other validators for the next one, and their keys."""

    block: BlockLine
    keys: tuple[Key, ...]

    @property
    def first_epoch(self) -> int:
        """The first epoch that they certify."""
        return self.block.header.epoch.number + 1


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
Line: TypeAlias = (
    ExportLine | ValidatorsLine | BlockLine | EventsLine | ReceiptLine | ReceiptsLine | StateLine
)


# Builders: from what services hold to lines --------------------------------------------------


def export_line(genesis_bytes: bytes, session: SessionId, height: int) -> bytes:
    """The first line of an export of `session` as of block `height` (its state line's)."""
    return print_line(ExportLine(session, height, genesis_bytes))


def block_line(header_bytes: bytes, proof: CommitProof) -> bytes:
    """A block's line. The proof is whole: a pointer is resolved by the caller."""
    return print_line(_block_of(header_bytes, proof))


def validators_line(header_bytes: bytes, proof: CommitProof, keys: Sequence[Key]) -> bytes:
    """The line of an epoch's last block that names other validators, with their keys."""
    return print_line(ValidatorsLine(_block_of(header_bytes, proof), tuple(keys)))


def _block_of(header_bytes: bytes, proof: CommitProof) -> BlockLine:
    header = decode_block_header(header_bytes)
    return BlockLine(header, header_bytes, hash_block(header_bytes), proof)


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


def disposition_proof(block: bytes, disposition: bytes, validators: bytes = b"") -> bytes:
    """A block's line and the line of one of its dispositions, after the `validators` lines of the
    changes before the block.
    """
    return validators + block + disposition


def split_proof(data: bytes) -> tuple[bytes, bytes]:
    """The last two lines of a disposition proof, of the block and of the disposition; `Malformed`
    unless there are two. Those before them are `proof_lines`' alone.
    """
    lines = proof_lines(data)
    return lines[-2], lines[-1]


def proof_lines(data: bytes) -> list[bytes]:
    """The lines of a disposition proof; `Malformed` unless there are at least two, and at most as
    many as there may be.
    """
    lines = data.splitlines(keepends=True) if len(data) <= PROOF_BYTES_MAX else []
    if not 2 <= len(lines) <= VALIDATORS_LINES_MAX + 2:
        raise Malformed("disposition proof: expected a block line and a disposition line")
    return lines


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
                "genesis": base64_text(line.genesis_bytes),
            }
        case ValidatorsLine():
            return {
                **_block_json(line.block),
                "type": "validators",
                "firstEpoch": line.first_epoch,
                "validators": [
                    {"publicKeys": [format_key(part) for part in key]} for key in line.keys
                ],
            }
        case BlockLine():
            return {"type": "block", **_block_json(line)}
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


def _block_json(line: BlockLine) -> JsonObject:
    return {
        "height": line.header.height,
        "digest": format_hash(line.digest),
        "timestamp": format_time(line.header.time),
        "header": base64_text(line.header_bytes),
        "commitProof": base64_text(encode_commit_proof(line.proof)),
    }


def _placement_json(placement: Placement) -> JsonObject:
    return {
        "height": placement.height,
        "timestamp": format_time(placement.timestamp),
        "position": position_json(placement.position),
        "leafIndex": placement.leaf_index,
        "path": [format_hash(one) for one in placement.path],
    }


def _events_line_json(line: EventsLine) -> JsonObject:
    events: list[JsonValue] = []
    for header_bytes, payload, attestation in zip(
        line.headers(), line.payloads, line.attestations, strict=True
    ):
        events.append(
            event_fields(
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
        "command": command_json(line.command, line.command_hash, line.author_signatures),
        "events": events,
    }


def _receipt_line_json(line: ReceiptLine) -> JsonObject:
    refused: JsonObject
    match line.refused:
        case Command() as command:
            command_hash = hash_command(encode_command(command))
            refused = {"command": command_json(command, command_hash, line.author_signatures)}
        case RefusedRecord(key, value, headers):
            refused = {
                "record": {
                    "key": None if key is None else base64_text(key),
                    "value": None if value is None else base64_text(value),
                    "headers": base64_text(headers),
                }
            }
        case None:
            refused = {"record": None}
    return {
        "type": "receipt",
        "ledgerId": format_hash(line.header.ledger_id),
        **_placement_json(line.placement),
        **refused,
        "receipt": receipt_fields(
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
            None
            if other is None
            else {"key": format_hash(other[0]), "value": base64_text(other[1])}
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
    line = _line_of(Fields.of(value, "line"))
    printed = _line_json(line)
    if canonical_json(printed) + b"\n" != data:
        found = difference("", value, printed)
        raise Malformed("not in its one encoding" if found is None else found)
    return line


def _line_of(fields: Fields) -> Line:
    match fields.text("type"):
        case "export":
            return _export_from(fields)
        case "validators":
            return ValidatorsLine(_block_from(fields), _keys_from(fields))
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
            raise Malformed(f"type: expected one of an export's lines, got {other[:80]!r}")


def _export_from(fields: Fields) -> ExportLine:
    version = fields.natural("version")
    if version != EXPORT_VERSION:
        raise Malformed(f"version: expected {EXPORT_VERSION}, got {version}")
    return ExportLine(fields.session("sessionId"), fields.natural("height"), fields.data("genesis"))


def _block_from(fields: Fields) -> BlockLine:
    header_bytes = fields.data("header")
    return _block_of(header_bytes, decode_commit_proof(fields.data("commitProof")))


def _keys_from(fields: Fields) -> tuple[Key, ...]:
    return tuple(
        tuple(map(parse_key, one.texts("publicKeys", len(SUITE_NAMES))))
        for one in fields.objects("validators", VALIDATORS_MAX)
    )


def _placement_from(fields: Fields) -> Placement:
    return Placement(
        fields.natural("height"),
        fields.time("timestamp"),
        position_from(fields.object("position")),
        fields.natural("leafIndex"),
        fields.hashes("path", _PATH_MAX),
    )


def _events_from(fields: Fields) -> EventsLine:
    command, signatures = command_from(fields.object("command"))
    events = fields.objects("events", len(command.events))
    if len(events) != len(command.events):
        raise Malformed(f"events: expected {len(command.events)}, got {len(events)}")
    return EventsLine(
        _placement_from(fields),
        command,
        hash_command(encode_command(command)),
        signatures,
        tuple(payload_from(event) for event in events),
        events[0].natural("sequenceNumber"),
        events[0].hash("previousHash"),
        tuple(attestation_from(event) for event in events),
    )


def _receipt_from(fields: Fields) -> ReceiptLine:
    receipt = fields.object("receipt")
    placement = _placement_from(fields)
    refused: Command | RefusedRecord | None = None
    signatures: Signatures = ()
    if fields.has("command"):
        refused, signatures = command_from(fields.object("command"))
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
        receipt_header_from(fields.hash("ledgerId"), receipt, command_hash, placement.position),
        refused,
        signatures,
        attestation_from(receipt),
    )


def _state_from(fields: Fields) -> StateLine:
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
