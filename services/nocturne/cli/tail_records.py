"""What a record of a topic is, said as it is: readable or not, and whose signature holds. Pure.

Rules: docs/guides/consuming.md. A topic is written by whoever the broker lets write: nothing in a
record is taken for true here. Key and headers are claims that no signature covers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from nocturne.core import topics
from nocturne.core.block_intake import check_alone
from nocturne.core.blocks import (
    BlockHeader,
    BlockKind,
    ProofPointer,
    Seal,
    decode_block,
    decode_block_header,
    decode_seal,
    hash_block,
    seal_signed,
)
from nocturne.core.certificates import VoteKind
from nocturne.core.commands import (
    author_signed,
    author_signed_hash,
    check_payloads,
    decode_signed_command,
    payload_hash,
)
from nocturne.core.errors import Malformed
from nocturne.core.events import decode_event, event_signed
from nocturne.core.evidence import (
    Evidence,
    Offence,
    SignedProposal,
    SignedVote,
    check_evidence,
    decode_evidence,
    offence_of,
)
from nocturne.core.genesis import Genesis
from nocturne.core.identifiers import LedgerId, format_hash
from nocturne.core.json_fields import JsonObject, format_time
from nocturne.core.json_forms import command_json, event_json, payload_json, receipt_json
from nocturne.core.receipts import decode_receipt, receipt_signed
from nocturne.core.strict_json import JsonValue

HEADERS_SHOWN_MAX: Final = 16
"""Ours are eight at most."""
TEXT_CHARACTERS_MAX: Final = 200
"""Of a key, a header's name or its value; a session id has 128."""
UNREADABLE_BYTES_SHOWN: Final = 32

Headers = tuple[tuple[str, bytes | None], ...]


class Check(StrEnum):
    """How far a record can be believed by itself."""

    VERIFIED = "verified"
    REFUSED = "refused"
    UNCHECKED = "unchecked"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Record:
    """A record as the broker delivers it; `timestamp` is the broker's or the producer's, ms."""

    topic: str
    partition: int
    offset: int
    timestamp: int | None
    key: bytes | None
    value: bytes | None
    headers: Headers | None
    """None: a name is not UTF-8, as only a stranger writes it."""


@dataclass(frozen=True, slots=True)
class Trust:
    """What records are checked against."""

    ledger_id: LedgerId
    genesis: Genesis


@dataclass(frozen=True, slots=True)
class Told:
    """What a record is. `says` is one clause; `content` None when nothing of it can be printed."""

    check: Check
    says: str
    content: JsonObject | None
    summary: str = ""


def told_of(record: Record, trust: Trust | None) -> Told:
    """Say what `record` is, whatever its bytes are."""
    try:
        avro = topics.unframe(record.value)
        return _READERS[record.topic](avro, record.value or b"", trust)
    except Malformed as fault:
        return Told(Check.UNREADABLE, str(fault), None, _first_bytes(record.value))


def record_json(record: Record, told: Told) -> JsonObject:
    """A record and what it is, as one object."""
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": _time_text(record.timestamp),
        "key": None if record.key is None else shown(record.key),
        "headers": headers_json(record.headers),
        "schemaId": schema_id_of(record.value),
        "bytes": None if record.value is None else len(record.value),
        "check": told.check.value,
        "says": told.says,
        "record": told.content,
    }


def headers_json(headers: Headers | None) -> JsonValue:
    """The headers by name, the first of a name; null when they cannot be read."""
    if headers is None:
        return None
    found: JsonObject = {}
    for name, value in headers[:HEADERS_SHOWN_MAX]:
        found.setdefault(_cut(name), None if value is None else shown(value))
    return found


def schema_id_of(value: bytes | None) -> int | None:
    """The id in the Confluent prefix: a registry's own, or the fixed one."""
    if value is None or len(value) < topics.PREFIX_BYTES or value[0] != 0:
        return None
    return int.from_bytes(value[1 : topics.PREFIX_BYTES], "big")


def shown(data: bytes) -> str:
    """Bytes as text, cut; what is no UTF-8 is written out."""
    return _cut(data[: 4 * TEXT_CHARACTERS_MAX].decode("utf-8", "backslashreplace"))


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_CHARACTERS_MAX else text[: TEXT_CHARACTERS_MAX - 1] + "…"


def _time_text(ms: int | None) -> str | None:
    try:
        return None if ms is None else format_time(ms)
    except Malformed:
        # A producer may write any time.
        return None


def _first_bytes(value: bytes | None) -> str:
    if value is None:
        return "no value"
    first = value[:UNREADABLE_BYTES_SHOWN].hex()
    return f"{len(value)} bytes: {first}" + ("…" if len(value) > UNREADABLE_BYTES_SHOWN else "")


# One reader a topic ------------------------------------------------------------------------------


def _event(avro: bytes, _: bytes, trust: Trust | None) -> Told:
    event = decode_event(avro)
    header = event.header
    signed = trust is not None and (
        header.ledger_id == trust.ledger_id
        and event_signed(
            trust.genesis.authority,
            event.event_hash,
            event.timestamp,
            event.height,
            event.signatures,
        )
    )
    # The form pairs the authority's key with its signatures: of a stranger's there are none.
    printed = event if signed else replace(event, signatures=())
    key = trust.genesis.authority if signed and trust is not None else ()
    check, says = _authority(trust, header.ledger_id, signed)
    # The authority signs the header: what rides beside it is bound by the hashes in the header.
    if check is not Check.REFUSED and payload_hash(event.payload) != header.payload_hash:
        check, says = Check.REFUSED, "the payload is not the one that was signed"
    elif check is not Check.REFUSED and not author_signed_hash(
        header.command_hash, header.key, event.author_signatures
    ):
        check, says = Check.REFUSED, "the author's signature beside it does not verify"
    return Told(
        check,
        says,
        _printed(lambda: event_json(printed, key)),
        _cut(f"{header.session} {header.sequence} {header.event_type}"),
    )


def _receipt(avro: bytes, _: bytes, trust: Trust | None) -> Told:
    receipt = decode_receipt(avro)
    header = receipt.header
    signed = trust is not None and (
        header.ledger_id == trust.ledger_id
        and receipt_signed(
            trust.genesis.authority,
            receipt.receipt_hash,
            receipt.timestamp,
            receipt.height,
            receipt.signatures,
        )
    )
    printed = receipt if signed else replace(receipt, signatures=())
    key = trust.genesis.authority if signed and trust is not None else ()
    check, says = _authority(trust, header.ledger_id, signed)
    at = header.position
    return Told(
        check,
        says,
        _printed(lambda: receipt_json(printed, key)),
        f"{_cut(header.session) or '(none)'} {header.reason.name} at {at.partition}/{at.offset}",
    )


def _seal(avro: bytes, _: bytes, trust: Trust | None) -> Told:
    seal = decode_seal(avro)
    signed = (
        trust is not None
        and seal.ledger_id == trust.ledger_id
        and seal_signed(trust.genesis.authority, seal)
    )
    check, says = _authority(trust, seal.ledger_id, signed)
    return Told(check, says, _seal_json(seal), f"block {seal.height}")


def _command(avro: bytes, _: bytes, trust: Trust | None) -> Told:
    signed = decode_signed_command(avro)
    command = signed.command
    summary = f"{command.session} {', '.join(one.event_type for one in command.events)}"
    check, says = Check.VERIFIED, "its author signed it; whether it was accepted, a block says"
    try:
        check_payloads(signed)
    except Malformed as fault:
        check, says = Check.REFUSED, str(fault)
    if not author_signed(signed, command.key):
        check, says = Check.REFUSED, "the author's signature does not verify"
    elif trust is not None and command.ledger_id != trust.ledger_id:
        check, says = Check.REFUSED, _of_another(command.ledger_id)
    content = _printed(lambda: command_json(command, signed.command_hash, signed.signatures))
    if content is not None:
        content["payloads"] = [
            payload_json(draft.content_type, payload.data)
            for draft, payload in zip(command.events, signed.payloads, strict=True)
        ]
    return Told(check, says, content, _cut(summary))


def _block(avro: bytes, value: bytes, trust: Trust | None) -> Told:
    block = decode_block(avro)
    header = block.header
    content: JsonObject = {
        "ledgerId": format_hash(header.ledger_id),
        "height": header.height,
        "view": header.view,
        "digest": format_hash(block.digest),
        "parentDigest": format_hash(header.parent_digest),
        "timestamp": _time_text(header.time),
        "ranges": [
            {
                "logEpoch": one.log_epoch,
                "partition": one.partition,
                "from": one.start,
                "to": one.end,
                "logHash": format_hash(one.log_hash),
            }
            for one in header.ranges
        ],
        "events": sum(len(one.events) for one in block.records),
        "receipts": sum(one.receipt is not None for one in block.records),
        "dispositionsRoot": format_hash(header.dispositions_root),
        "stateRoot": format_hash(header.state_root),
    }
    check, says = _certified(value, trust, header, block.proof)
    summary = f"block {header.height} {content['events']} events {content['receipts']} receipts"
    return Told(check, says, content, summary)


def _certified(
    value: bytes, trust: Trust | None, header: BlockHeader, proof: object
) -> tuple[Check, str]:
    """By itself: the commit proof, and the body against the header. Not the place in the chain."""
    if trust is None:
        return Check.UNCHECKED, "not checked: no genesis"
    sets = trust.genesis.founding_sets
    if (header.ledger_id, header.kind) == (trust.ledger_id, BlockKind.LEDGER) and (
        header.validator_set_hash != sets.newest.hash
    ):
        # What changed the validators stands in blocks before this one.
        return Check.UNCHECKED, "not checked: its validators are not those of the genesis"
    try:
        check_alone(trust.ledger_id, sets, value)
    except Malformed as fault:
        return Check.REFUSED, f"not a certified block of this ledger: {fault}"
    if isinstance(proof, ProofPointer):
        return Check.UNCHECKED, f"its commit proof is said to stand in block {proof.height}"
    return Check.VERIFIED, "a quorum of the validators certified it"


def _evidence(avro: bytes, _: bytes, trust: Trust | None) -> Told:
    evidence = decode_evidence(avro)
    offence = offence_of(evidence.first, evidence.second)
    content: JsonObject = {
        "ledgerId": format_hash(evidence.ledger_id),
        "epoch": {"recovery": evidence.epoch.recovery, "number": evidence.epoch.number},
        "validatorSetHash": format_hash(evidence.validator_set_hash),
        "view": evidence.view,
        "validator": evidence.validator,
        "offence": None if offence is None else offence.name,
        "first": _statement_json(evidence.first),
        "second": _statement_json(evidence.second),
    }
    check, says = _accused(evidence, trust)
    summary = f"validator {evidence.validator} view {evidence.view}"
    return Told(check, says, content, summary)


def _accused(evidence: Evidence, trust: Trust | None) -> tuple[Check, str]:
    if trust is None:
        return Check.UNCHECKED, "not checked: no genesis"
    if evidence.ledger_id != trust.ledger_id:
        return Check.REFUSED, _of_another(evidence.ledger_id)
    validators = trust.genesis.validator_set
    if evidence.validator_set_hash != validators.hash:
        # What changed the validators stands in blocks.
        return Check.UNCHECKED, "not checked: its validators are not those of the genesis"
    try:
        offence = check_evidence(evidence, trust.ledger_id, validators)
    except Malformed as fault:
        return Check.REFUSED, f"it proves nothing: {fault}"
    did = f"validator {evidence.validator} {_DID[offence]} in view {evidence.view}"
    return Check.VERIFIED, f"{did}, and no correct one does"


_DID: Final = {
    Offence.TWO_PROPOSALS: "proposed two blocks",
    Offence.TWO_NOTARIZATIONS: "voted to notarize two blocks",
    Offence.TWO_FINALIZATIONS: "voted to finalize two blocks",
    Offence.FINALIZED_AND_NULLIFIED: "voted both to finalize and to nullify",
}


def _statement_json(statement: SignedVote | SignedProposal) -> JsonObject:
    if isinstance(statement, SignedProposal):
        header = decode_block_header(statement.header_bytes)
        return {
            "proposal": format_hash(hash_block(statement.header_bytes)),
            "height": header.height,
            "parentDigest": format_hash(header.parent_digest),
        }
    of = None if statement.kind is VoteKind.NULLIFY else format_hash(statement.digest)
    return {"vote": statement.kind.name.lower(), "digest": of}


def _seal_json(seal: Seal) -> JsonObject:
    return {
        "ledgerId": format_hash(seal.ledger_id),
        "height": seal.height,
        "blockDigest": format_hash(seal.block_digest),
        "signaturesHash": format_hash(seal.signatures_hash),
    }


def _authority(trust: Trust | None, ledger_id: LedgerId, signed: bool) -> tuple[Check, str]:
    if trust is None:
        return Check.UNCHECKED, "not checked: no genesis"
    if signed:
        return Check.VERIFIED, "the authority's signature verifies"
    if ledger_id != trust.ledger_id:
        return Check.REFUSED, _of_another(ledger_id)
    return Check.REFUSED, "the authority did not sign it: a stranger's record"


def _of_another(ledger_id: LedgerId) -> str:
    return f"of another ledger ({format_hash(ledger_id)})"


def _printed(form: Callable[[], JsonObject]) -> JsonObject | None:
    """The JSON form, None where there is none: it is made for checked records, and a stranger's
    may name times without a calendar and suites without a name.
    """
    try:
        return form()
    except (Malformed, KeyError, ValueError):
        return None


_READERS: Final[dict[str, Callable[[bytes, bytes, Trust | None], Told]]] = {
    topics.COMMANDS: _command,
    topics.BLOCKS: _block,
    topics.SEALS: _seal,
    topics.EVENTS: _event,
    topics.RECEIPTS: _receipt,
    topics.EVIDENCE: _evidence,
}
