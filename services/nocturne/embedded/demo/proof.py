"""The chain of one event as the report draws it, read from the two lines of its proof. Pure."""

from __future__ import annotations

from typing import Final

from nocturne.core.blocks import (
    Disposition,
    disposition_leaf,
)
from nocturne.core.events import decode_event_header, hash_event
from nocturne.core.exports import BlockLine, EventsLine, Placement, parse_line
from nocturne.core.identifiers import format_hash
from nocturne.core.json_forms import format_signature
from nocturne.core.keys import format_key
from nocturne.embedded.demo.findings import Field, Link, Proof

MERKLE_PATH: Final = "Merkle path"
_PAYLOAD_SHOWN_MAX: Final = 400


def chain_of(block_line: bytes, events_line: bytes, index: int, author: str) -> Proof:
    """The chain of event `index` of a disposition; `author` is the name the reader knows."""
    block, line = parse_line(block_line), parse_line(events_line)
    if not isinstance(block, BlockLine) or not isinstance(line, EventsLine):
        raise ValueError("a proof is a block line and an events line")
    header_bytes = line.headers()[index]
    header = decode_event_header(header_bytes)
    payload = line.payloads[index].data.decode("utf-8", "replace")
    links = (
        _author(line, author),
        _command(line, index),
        _disposition(line, index),
        Link(
            MERKLE_PATH,
            "Hashed together with what stands beside it, level by level, the disposition gives the "
            f"root over all {block.header.record_count} dispositions of the block.",
            (),
            "its root stands in the block's header",
        ),
        _header(block),
        _commit_proof(block),
        _authority(line, index),
    )
    return Proof(
        header.session,
        header.sequence,
        header.event_type,
        payload[:_PAYLOAD_SHOWN_MAX],
        links,
        format_hash(_leaf(line)),
        tuple(map(format_hash, line.placement.path)),
        format_hash(block.header.dispositions_root),
    )


def _author(line: EventsLine, author: str) -> Link:
    key = line.command.key[0]
    return Link(
        "Author's signature",
        f"The department {author} signed the command with a key that only it holds.",
        (
            Field("author", format_hash(line.command.author), is_hash=True),
            Field("public key", format_key(key), is_hash=True),
            Field("signature", format_signature(line.author_signatures[0]), is_hash=True),
        ),
        "signs the command's hash",
    )


def _command(line: EventsLine, index: int) -> Link:
    draft = line.command.events[index]
    expected = line.command.expected_sequence
    return Link(
        "Command",
        "Names the session, the events it asks for and the hash of each payload with its salt.",
        (
            Field("command hash", format_hash(line.command_hash), is_hash=True),
            Field("payload hash", format_hash(draft.payload_hash), is_hash=True),
            Field("expected sequence", "any" if expected is None else str(expected)),
        ),
        "stands in the log at one position, which gets one disposition",
    )


def _disposition(line: EventsLine, index: int) -> Link:
    headers = line.headers()
    return Link(
        "Disposition",
        "What became of that position, by the ledger's rules: this event, chained to the one "
        "before it.",
        (
            Field("position", _position(line.placement)),
            Field("event hash", format_hash(hash_event(headers[index])), is_hash=True),
            Field(
                "previous hash",
                format_hash(decode_event_header(headers[index]).previous_hash),
                is_hash=True,
            ),
        ),
        "is a leaf of the block's tree",
    )


def _header(block: BlockLine) -> Link:
    header = block.header
    return Link(
        "Block header",
        "Binds the log's bytes, what became of them, and the whole state after them, to the block "
        "before.",
        (
            Field("height", str(header.height)),
            Field("digest", format_hash(block.digest), is_hash=True),
            Field("parent digest", format_hash(header.parent_digest), is_hash=True),
            Field("state root", format_hash(header.state_root), is_hash=True),
        ),
        "its digest is what the validators finalize",
    )


def _commit_proof(block: BlockLine) -> Link:
    certificate = block.proof.finalization
    votes = len(certificate.votes)
    _, signatures = certificate.votes[0]
    headers = len(block.proof.headers)
    through = f", through {headers} later headers" if headers else ""
    return Link(
        "Commit proof",
        f"A quorum of the validators named in the genesis ({votes} of {votes} needed) finalized "
        f"the block{through}.",
        (
            Field("validator set", format_hash(certificate.validator_set_hash), is_hash=True),
            Field("vote", format_signature(signatures[0]), is_hash=True),
        ),
        "only then does the authority sign",
    )


def _authority(line: EventsLine, index: int) -> Link:
    attestation = line.attestations[index]
    return Link(
        "Authority's signature",
        "The signing service, which signs one event a sequence and never another, signed the "
        "event's hash with the block's height and time.",
        (
            Field("public key", format_key(attestation.key[0]), is_hash=True),
            Field("signature", format_signature(attestation.signatures[0]), is_hash=True),
        ),
        "",
    )


def _leaf(line: EventsLine) -> bytes:
    hashes = tuple(map(hash_event, line.headers()))
    return disposition_leaf(Disposition(line.placement.position, line.command_hash, hashes, None))


def _position(placement: Placement) -> str:
    at = placement.position
    return f"log epoch {at.log_epoch}, partition {at.partition}, offset {at.offset}"
