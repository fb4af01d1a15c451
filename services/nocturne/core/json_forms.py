"""The JSON forms of events, receipts and commands: the names of L-1 and L-3, printed and read back.

Rules: docs/spec/exports.md §2. The same in exports, in REST and on the command line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from nocturne.core.commands import Command, Opening, Payload, command_from_avro
from nocturne.core.errors import Malformed
from nocturne.core.events import Event, EventHeader, Position
from nocturne.core.identifiers import Hash, LedgerId, format_hash, format_id, parse_id
from nocturne.core.json_fields import Fields, JsonObject, base64_text, format_time
from nocturne.core.keys import (
    SUITE_NAMES,
    Key,
    Signature,
    Signatures,
    format_key,
    key_id,
    key_to_avro,
    parse_key,
)
from nocturne.core.receipts import PAPER_REASONS, Head, Reason, Receipt, ReceiptHeader
from nocturne.core.strict_json import canonical_json, parse_json

PAYLOAD_BYTES_MAX: Final = 16 * 1024 * 1024
"""Beyond any record of the log."""
PAYLOAD_DEPTH_MAX: Final = 64
"""A JSON payload nested deeper stands as base64."""

_SIGNATURE: Final = re.compile(r"([a-z0-9]+)-((?:[0-9a-f]{2})+)\Z")
_SUITE_OF_NAME: Final = {name: suite for suite, name in SUITE_NAMES.items()}


@dataclass(frozen=True, slots=True)
class Attestation:
    """The authority's key and its signatures under it; both empty when it has not signed yet."""

    key: Key
    signatures: Signatures


UNSIGNED: Final = Attestation((), ())


def event_json(event: Event, authority: Key) -> JsonObject:
    """The event in the names of L-1, as in REST, on the command line and in exports.

    `authority` is the key that signed (genesis; `~ledger` once it was changed).
    """
    attestation = Attestation(authority, event.signatures) if event.signatures else UNSIGNED
    return event_fields(
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
    return receipt_fields(
        receipt.header, receipt.receipt_hash, attestation, receipt.height, receipt.timestamp
    )


def payload_json(content_type: str, data: bytes) -> JsonObject:
    """`{"payload": value}` for a JSON content type (`application/json`, `…+json`) whose bytes are
    the RFC 8785 form of a value at most 64 deep; `{"payloadBase64": text}` for all else.
    """
    if content_type == "application/json" or content_type.endswith("+json"):
        try:
            value = parse_json(data, PAYLOAD_BYTES_MAX, PAYLOAD_DEPTH_MAX)
            if canonical_json(value) == data:
                return {"payload": value}
        except Malformed:
            # Not JSON within the rules: it is carried as bytes, whatever its type promises.
            pass
    return {"payloadBase64": base64_text(data)}


def format_signature(signature: Signature) -> str:
    """`ed25519-` and lower-case hex."""
    return f"{SUITE_NAMES[signature.suite]}-{signature.data.hex()}"


def event_fields(
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
        "salt": base64_text(payload.salt),
        "payloadHash": format_hash(header.payload_hash),
        "previousHash": format_hash(header.previous_hash),
        "eventHash": format_hash(event_hash),
        **attestation_json(attestation, "publicKey"),
        "author": format_hash(header.author),
        "authorKeys": [format_key(part) for part in header.key],
        "authorSignatures": [format_signature(one) for one in author_signatures],
        "commandId": format_id(command_id),
        "commandHash": format_hash(header.command_hash),
        "occurredAt": format_time(header.occurred_at),
        "opening": _opening_json(header.opening),
        "height": height,
        "position": position_json(header.position),
        "index": header.index,
    }


def receipt_fields(
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
        "position": position_json(header.position),
        "firstPosition": _optional_position_json(header.first_position),
        "height": height,
        "timestamp": format_time(timestamp),
        **attestation_json(attestation, "authority"),
    }


def attestation_json(attestation: Attestation, key_name: str) -> JsonObject:
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


def command_json(command: Command, command_hash: Hash, signatures: Signatures) -> JsonObject:
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


def position_json(position: Position) -> JsonObject:
    return {
        "logEpoch": position.log_epoch,
        "partition": position.partition,
        "offset": position.offset,
    }


def _optional_position_json(position: Position | None) -> JsonObject | None:
    return None if position is None else position_json(position)


# Read back --------------------------------------------------------------------------------


def position_from(fields: Fields) -> Position:
    return Position(
        fields.natural("logEpoch"), fields.natural("partition"), fields.natural("offset")
    )


def payload_from(event: Fields) -> Payload:
    salt = event.data("salt")
    if event.has("payload"):
        return Payload(salt, canonical_json(event.value("payload")))
    return Payload(salt, event.data("payloadBase64"))


def attestation_from(fields: Fields) -> Attestation:
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
            raise Malformed(f"signature: expected ed25519- and hex, got {text[:80]!r}")
        signatures.append(Signature(suite, identity, bytes.fromhex(found[2])))
    return tuple(signatures)


def command_from(fields: Fields) -> tuple[Command, Signatures]:
    keys = fields.texts("authorKeys", len(SUITE_NAMES))
    key = tuple(map(parse_key, keys))
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


def receipt_header_from(
    ledger_id: Hash, receipt: Fields, command_hash: Hash, position: Position
) -> ReceiptHeader:
    detail = receipt.text("detail")
    if detail not in Reason.__members__:
        raise Malformed(f"detail: expected a reason of the ledger, got {detail[:80]!r}")
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
        None if first is None else position_from(first),
    )
