"""What the authority may sign: never two things for one place. Pure.

Rules: docs/spec/signing.md. For each height one block, by its digest; in each session only the
event after the head that it has signed, linked to it. A receipt's place is its position within the
one block of its height. A block that was signed may be signed again, in full and with the same
digest: its signatures come out the same, byte for byte. Anything else would be a signing conflict
(docs/spec/modes.md): the ledger is DEGRADED. A block that leaves out heights is a `Halt`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from nocturne.core.blocks import Block
from nocturne.core.encoding import HASH_BYTES, long_to_avro
from nocturne.core.errors import Halt
from nocturne.core.events import decode_event_header
from nocturne.core.identifiers import Hash, LedgerId, SessionId, session_key
from nocturne.core.modes import Cause, Degraded, DegradedFound

EVENT_ID_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Head:
    """The last event of a session that was signed."""

    sequence: int
    hash: Hash


def sessions_of(block: Block) -> set[SessionId]:
    """The sessions that the block has events of."""
    return {session_of(header_bytes) for record in block.records for header_bytes in record.events}


def is_signed(height: int, digest: Hash, recorded: Hash | None) -> bool:
    """Whether this very block was signed before; `DegradedFound` if another one was at its
    height.
    """
    if recorded is None:
        return False
    if recorded != digest:
        raise _conflict(
            f"block {height}: this authority signed {recorded.hex()}, a commit proof now stands "
            f"for {digest.hex()}"
        )
    return True


def check_next(last_height: int, height: int) -> None:
    """`Halt` unless the block that was not signed yet is the one after the last that was."""
    if height != last_height + 1:
        raise Halt(f"block {height} is to be signed, but the last one signed is {last_height}")


def heads_after(
    ledger_id: LedgerId,
    block: Block,
    event_hashes: Iterable[Iterable[Hash]],
    heads: Mapping[SessionId, Head],
) -> dict[SessionId, Head]:
    """The heads of the block's sessions once its events are signed. `heads` has those of its
    sessions that had events before. `DegradedFound` when an event is not its head's next, or not
    linked.

    `event_hashes` are the events' hashes, record by record, as the block's dispositions have them.
    """
    after: dict[SessionId, Head] = {}
    for record, hashes in zip(block.records, event_hashes, strict=True):
        for header_bytes, event_hash in zip(record.events, hashes, strict=True):
            session, end = _session_at(header_bytes)
            head = after.get(session) or heads.get(session)
            if head is None:
                head = Head(0, session_key(ledger_id, session))
            # The header is a record: its fields in order, each in its one encoding. Comparing the
            # bytes of sequence and previousHash is comparing the fields, at a tenth of the cost.
            link = long_to_avro(head.sequence + 1) + head.hash
            if not header_bytes.startswith(link, end):
                raise _broken(block, header_bytes, head)
            after[session] = Head(head.sequence + 1, event_hash)
    return after


def session_of(header_bytes: bytes) -> SessionId:
    """The session of an event header, without decoding the rest."""
    return _session_at(header_bytes)[0]


def event_id_of(header_bytes: bytes) -> bytes:
    """The event id of an event header, without decoding the rest."""
    position = _session_at(header_bytes)[1]
    while header_bytes[position] & 0x80:
        position += 1
    start = position + 1 + HASH_BYTES
    return header_bytes[start : start + EVENT_ID_BYTES]


def _session_at(header_bytes: bytes) -> tuple[SessionId, int]:
    """The session, which stands after the ledger id, and where it ends: a string's length is a
    zigzag number, of one byte below 64 and of two up to the 128 that a session id may have.
    """
    length = header_bytes[HASH_BYTES]
    start = HASH_BYTES + 1
    if length & 0x80:
        length = (length & 0x7F) | header_bytes[start] << 7
        start += 1
    end = start + (length >> 1)
    return SessionId(header_bytes[start:end].decode("ascii")), end


def _conflict(text: str) -> DegradedFound:
    """What is recorded as signed stands against it: the authority's own word, and no proof."""
    return DegradedFound(Degraded(Cause.SIGNING_CONFLICT, text))


def _broken(block: Block, header_bytes: bytes, head: Head) -> DegradedFound:
    header = decode_event_header(header_bytes)
    return _conflict(
        f"block {block.header.height}, session {header.session}: expected event "
        f"{head.sequence + 1} after {head.hash.hex()}, got {header.sequence} after "
        f"{header.previous_hash.hex()}"
    )
