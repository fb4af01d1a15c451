"""Commands: what an author signs, and the envelope that carries it.

Rules: docs/spec/ledger.md §2. The hashed record is the first field of its envelope, so its bytes
are a prefix slice of the envelope's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nocturne.core.encoding import (
    INTEGER_MAX,
    TIME_MAX,
    AvroRecord,
    Codec,
    array_to_avro,
    bytes_to_avro,
    codecs_of_parts,
    domain,
    long_to_avro,
    sha256,
    union_to_avro,
    variable,
)
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import (
    AuthorId,
    CommandId,
    Hash,
    LedgerId,
    SessionId,
    is_content_type,
    is_session_id,
    is_type_name,
)
from nocturne.core.keys import (
    Key,
    Signatures,
    Signer,
    encode_key,
    encode_signatures,
    is_valid_key,
    key_from_avro,
    signatures_from_avro,
    verify,
)

ENVELOPE_BYTES_MAX: Final = 16 * 1024 * 1024
"""A bound of the parser; the ledger's own limit (genesis) is far lower."""
SEALED_CONTENT_TYPE: Final = "application/vnd.nocturne.sealed.v1"
KIND_VERSION_MAX: Final = 2**31 - 1
EXPECTED_SEQUENCE_MAX: Final = INTEGER_MAX - 1
"""The sequence after it stands in a receipt, and must print exactly in JSON too."""

_COMMAND: Final = domain("nocturne/command/v1")
_SIGNATURE: Final = domain("nocturne/command-signature/v1")
_PAYLOAD: Final = domain("nocturne/payload/v1")
_COMMAND_CODEC: Final = Codec("command", ENVELOPE_BYTES_MAX)
_SIGNED_CODEC: Final = Codec("signed_command", ENVELOPE_BYTES_MAX)
(_REST_CODEC,) = codecs_of_parts("signed_command", ENVELOPE_BYTES_MAX, slice(1, None))


@dataclass(frozen=True, slots=True)
class Opening:
    """The kind and version a session is opened with."""

    kind: str
    version: int


@dataclass(frozen=True, slots=True)
class EventDraft:
    """One event the author asks for; its payload rides beside, bound by the hash."""

    event_type: str
    content_type: str
    payload_hash: Hash


@dataclass(frozen=True, slots=True)
class Command:
    """The signed part. `occurred_at` is the author's claim in ms since 1970 UTC."""

    ledger_id: LedgerId
    session: SessionId
    author: AuthorId
    key: Key
    command_id: CommandId
    expected_sequence: int | None
    opening: Opening | None
    occurred_at: int
    events: tuple[EventDraft, ...]


@dataclass(frozen=True, slots=True)
class Payload:
    """Salt and payload as carried (plain, or a sealed payload's bytes)."""

    salt: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class SignedCommand:
    """The envelope: the command, its signatures, one payload a drafted event."""

    command: Command
    signatures: Signatures
    payloads: tuple[Payload, ...]
    command_bytes: bytes
    command_hash: Hash


@dataclass(frozen=True, slots=True)
class Evidence:
    """The parts of an envelope that stand beside its events, for one who needs no field of it."""

    command_bytes: bytes
    signatures: Signatures
    payloads: tuple[Payload, ...]


def payload_hash(payload: Payload) -> Hash:
    """SHA-256 of domain ‖ salt ‖ variable payload: guessing the payload needs the salt."""
    return Hash(sha256(_PAYLOAD + payload.salt + variable(payload.data)))


def hash_command(command_bytes: bytes) -> Hash:
    """The command's hash: domain ‖ variable record."""
    return Hash(sha256(_COMMAND + variable(command_bytes)))


def sign_command(command: Command, payloads: tuple[Payload, ...], signer: Signer) -> SignedCommand:
    """The envelope of `command`, signed with every suite of the signer's key. `ValueError` on ids,
    hashes and salts of another length than theirs.
    """
    fixed = (command.ledger_id, command.author, *[one.payload_hash for one in command.events])
    if len(command.command_id) != 16 or not all(
        len(one) == 32 for one in (*fixed, *[payload.salt for payload in payloads])
    ):
        raise ValueError("command: expected an id of 16 bytes, hashes and salts of 32")
    data = encode_command(command)
    command_hash = hash_command(data)
    signatures = signer.sign(_SIGNATURE, command_hash)
    return SignedCommand(command, signatures, payloads, data, command_hash)


def author_signed(signed: SignedCommand, key: Key) -> bool:
    """Every suite of `key` signed the command."""
    return verify(key, _SIGNATURE, signed.command_hash, signed.signatures)


def author_signed_hash(command_hash: Hash, key: Key, signatures: Signatures) -> bool:
    """As `author_signed`, for one who holds the parts."""
    return verify(key, _SIGNATURE, command_hash, signatures)


def encode_command(command: Command) -> bytes:
    """The hashed record."""
    opening = command.opening
    expected = command.expected_sequence
    return b"".join(
        (
            command.ledger_id,
            bytes_to_avro(command.session.encode()),
            command.author,
            encode_key(command.key),
            command.command_id,
            union_to_avro(None if expected is None else long_to_avro(expected)),
            union_to_avro(None if opening is None else encode_opening(opening)),
            long_to_avro(command.occurred_at),
            array_to_avro(
                [
                    bytes_to_avro(draft.event_type.encode())
                    + bytes_to_avro(draft.content_type.encode())
                    + draft.payload_hash
                    for draft in command.events
                ]
            ),
        )
    )


def decode_command(data: bytes) -> Command:
    """The reverse of `encode_command`."""
    return command_from_avro(_COMMAND_CODEC.decode(data))


def encode_signed_command(signed: SignedCommand) -> bytes:
    """The envelope's one encoding, without the Confluent prefix."""
    return (
        signed.command_bytes
        + encode_signatures(signed.signatures)
        + array_to_avro([encode_payload(payload) for payload in signed.payloads])
    )


def decode_signed_command(data: bytes, bytes_max: int = ENVELOPE_BYTES_MAX) -> SignedCommand:
    """The envelope of `data`. `Malformed` when it is not the one encoding of a well-formed command:
    names, numbers and counts within their limits, one payload a draft. Whether the payloads have
    the promised hashes is `check_payloads`; whether the signature holds is `author_signed`.
    """
    if len(data) > bytes_max:
        raise Malformed(f"signed command: expected at most {bytes_max} bytes, got {len(data)}")
    record, _ = _SIGNED_CODEC.read(data)
    command = command_from_avro(record["command"])
    signed = _signed_from_avro(command, encode_command(command), record)
    if encode_signed_command(signed) != data:
        raise _SIGNED_CODEC.not_canonical()
    return signed


def decode_signed_command_trusted(data: bytes) -> SignedCommand:
    """The envelope of bytes that a commit proof already covers."""
    record, length = _COMMAND_CODEC.read(data)
    rest, _ = _REST_CODEC.read(data[length:])
    return _signed_from_avro(command_from_avro(record), data[:length], rest)


def decode_evidence(data: bytes, command_length: int) -> Evidence:
    """The evidence in an envelope that a commit proof already covers."""
    rest, _ = _REST_CODEC.read(data[command_length:])
    return Evidence(
        data[:command_length],
        signatures_from_avro(rest["signatures"]),
        tuple([Payload(p["salt"], p["bytes"]) for p in rest["payloads"]]),
    )


def check_payloads(signed: SignedCommand) -> None:
    """`Malformed` when a payload beside the command is not the one its author signed."""
    for index, (draft, payload) in enumerate(
        zip(signed.command.events, signed.payloads, strict=True)
    ):
        if payload_hash(payload) != draft.payload_hash:
            raise Malformed(f"payload {index}: its hash is not the signed one")


def _signed_from_avro(command: Command, command_bytes: bytes, rest: AvroRecord) -> SignedCommand:
    payloads = tuple([Payload(p["salt"], p["bytes"]) for p in rest["payloads"]])
    if len(payloads) != len(command.events):
        raise Malformed(f"payloads: expected {len(command.events)}, got {len(payloads)}")
    return SignedCommand(
        command,
        signatures_from_avro(rest["signatures"]),
        payloads,
        command_bytes,
        hash_command(command_bytes),
    )


def encode_opening(opening: Opening) -> bytes:
    """The encoded `Opening` record."""
    return bytes_to_avro(opening.kind.encode()) + long_to_avro(opening.version)


def encode_payload(payload: Payload) -> bytes:
    """The encoded `Payload` record."""
    return payload.salt + bytes_to_avro(payload.data)


def opening_from_avro(record: AvroRecord | None) -> Opening | None:
    """The opening of an `Opening` record, or null."""
    return None if record is None else Opening(record["kind"], record["version"])


def command_from_avro(record: AvroRecord) -> Command:
    """The command of a `Command` record; `Malformed` as `decode_signed_command`."""
    command = Command(
        record["ledgerId"],
        record["session"],
        record["author"],
        key_from_avro(record["key"]),
        record["commandId"],
        record["expectedSequence"],
        opening_from_avro(record["opening"]),
        record["occurredAt"],
        tuple(
            [
                EventDraft(draft["eventType"], draft["contentType"], draft["payloadHash"])
                for draft in record["events"]
            ]
        ),
    )
    _check_form(command)
    return command


def _check_form(command: Command) -> None:
    """The rules of form that no schema states; the first one broken is named."""
    expected = command.expected_sequence
    opening = command.opening
    if not is_session_id(command.session):
        raise Malformed(f"session: not a session id: {command.session[:140]!r}")
    if not is_valid_key(command.key):
        raise Malformed("key: expected known suites, ascending, each with a key of its length")
    if expected is not None and not 0 <= expected <= EXPECTED_SEQUENCE_MAX:
        raise Malformed(f"expectedSequence: expected 0 to 2^53 - 2, got {expected}")
    if not 0 <= command.occurred_at <= TIME_MAX:
        raise Malformed(f"occurredAt: expected 0 to {TIME_MAX} ms, got {command.occurred_at}")
    if not command.events:
        raise Malformed("events: expected at least one, got none")
    if opening is not None:
        _check_opening(opening, expected)
    for draft in command.events:
        if not is_type_name(draft.event_type):
            raise Malformed(f"eventType: not a type name: {draft.event_type[:140]!r}")
        if not is_content_type(draft.content_type):
            raise Malformed(f"contentType: not a content type: {draft.content_type[:140]!r}")


def _check_opening(opening: Opening, expected: int | None) -> None:
    if not is_type_name(opening.kind):
        raise Malformed(f"opening.kind: not a type name: {opening.kind[:140]!r}")
    if not 1 <= opening.version <= KIND_VERSION_MAX:
        raise Malformed(f"opening.version: expected 1 to 2^31 - 1, got {opening.version}")
    # An opening writes event 1 or nothing: it carries the expectation of an unopened session.
    if expected not in (None, 0):
        raise Malformed(f"expectedSequence of an opening: expected none or 0, got {expected}")
