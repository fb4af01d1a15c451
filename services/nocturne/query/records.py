"""What the read model's rows say, put together as the ledger's own records. Pure.

An event's envelope is the certified header, the authority's signatures, and what stands beside in
its command, which is stored once a command.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from nocturne.core import merkle
from nocturne.core.blocks import RecordDisposition
from nocturne.core.commands import Evidence, decode_evidence
from nocturne.core.errors import Malformed
from nocturne.core.events import Position, decode_event_header, encode_event
from nocturne.core.exports import Placement, disposition_line
from nocturne.core.identifiers import AuthorId, Hash
from nocturne.core.keys import Key, Signatures, signatures_from_bytes
from nocturne.core.receipts import encode_receipt
from nocturne.core.topics import PREFIX_BYTES

HASH_BYTES: Final = 32
REMOVED: Final = b"\xff\xff\xff\xff"
"""In place of a length in `blocks.state_changes`: the leaf was removed."""


_ROW_FAULTS: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    StopIteration,
    TypeError,
    ValueError,
    struct.error,
)


@contextmanager
def reading_row(what: str) -> Iterator[None]:
    """Bytes of a row are read without the checks that the projection made before it stored them. If
    they cannot be read, somebody has put them there since: `Malformed`.
    """
    try:
        yield
    except _ROW_FAULTS as fault:
        raise Malformed(f"{what}: its row cannot be read ({fault!r})") from fault


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event with its block's time and its command's record."""

    sequence: int
    event_hash: bytes
    height: int
    leaf_index: int
    event_index: int
    header: bytes
    signatures: bytes
    time: int
    value: bytes
    command_length: int


@dataclass(frozen=True, slots=True)
class ReceiptRow:
    """A receipt with its block's time."""

    position: Position
    home_index: int
    height: int
    leaf_index: int
    receipt_hash: bytes
    header: bytes
    signatures: bytes
    time: int


@dataclass(frozen=True, slots=True)
class RecordRow:
    """One disposition: its place, the record it is of, and what became of it, with signatures."""

    position: Position
    height: int
    leaf_index: int
    command_length: int
    key: bytes | None
    value: bytes | None
    headers: bytes | None
    record_hash: bytes | None
    events: tuple[bytes, ...]
    receipt: bytes | None
    signatures: tuple[bytes, ...]


class EventRecords:
    """Makes envelopes of rows; events of one command share its evidence."""

    def __init__(self) -> None:
        self._place = (-1, -1)
        self._evidence: Evidence | None = None

    def evidence(self, row: EventRow) -> Evidence:
        """What stands beside the event in its command's record."""
        if self._evidence is None or self._place != (row.height, row.leaf_index):
            with reading_row("command"):
                self._evidence = decode_evidence(row.value[PREFIX_BYTES:], row.command_length)
            self._place = (row.height, row.leaf_index)
        return self._evidence

    def encode(self, row: EventRow) -> bytes:
        """The Event record in Avro."""
        evidence = self.evidence(row)
        with reading_row("event"):
            return encode_event(
                row.header,
                signatures_from_bytes(row.signatures),
                row.height,
                row.time,
                evidence,
                row.event_index,
            )

    def fold_input(self, row: EventRow) -> tuple[str, str, bytes, AuthorId]:
        """What a kind folds: event type, content type, payload as carried, author."""
        header = decode_event_header(row.header)
        evidence = self.evidence(row)
        if row.event_index >= len(evidence.payloads):
            raise Malformed(f"event {row.sequence}: its command has no such payload")
        payload = evidence.payloads[row.event_index]
        return header.event_type, header.content_type, payload.data, header.author


def receipt_record(row: ReceiptRow) -> bytes:
    """The Receipt record in Avro."""
    return encode_receipt(row.header, signatures_from_bytes(row.signatures), row.height, row.time)


def line_of(row: RecordRow, time: int, tree: LeafTree, authority: Key) -> bytes:
    """The disposition's line of an export; `Malformed` for a gap."""
    placement = Placement(row.height, time, row.position, row.leaf_index, tree.path(row.leaf_index))
    record = RecordDisposition(
        row.key,
        row.value,
        row.headers or b"",
        None if row.record_hash is None else Hash(row.record_hash),
        row.events,
        row.receipt,
        row.command_length,
    )
    signatures: Sequence[Signatures] = [signatures_from_bytes(one) for one in row.signatures]
    with reading_row("disposition"):
        return disposition_line(placement, record, authority, signatures)


class LeafTree:
    """A block's disposition tree with every level at hand: a path costs no hashing."""

    def __init__(self, joined_leaves: bytes) -> None:
        """`joined_leaves`: the leaf hashes, 32 bytes each."""
        level = [
            joined_leaves[at : at + HASH_BYTES] for at in range(0, len(joined_leaves), HASH_BYTES)
        ]
        self._levels = [level]
        while len(level) > 1:
            above = [
                merkle.node_hash(level[index], level[index + 1])
                for index in range(0, len(level) - 1, 2)
            ]
            if len(level) % 2:
                above.append(level[-1])
            self._levels.append(above)
            level = above

    def path(self, index: int) -> tuple[bytes, ...]:
        """`merkle.inclusion_path` of leaf `index`."""
        if not 0 <= index < len(self._levels[0]):
            raise Malformed(f"leaf {index}: the block has {len(self._levels[0])}")
        path = []
        for level in self._levels[:-1]:
            if index ^ 1 < len(level):
                path.append(level[index ^ 1])
            index >>= 1
        return tuple(path)


def unpack_state_changes(data: bytes) -> dict[bytes, bytes | None]:
    """`blocks.state_changes`: 32-byte key, four bytes of length, value, for each changed leaf."""
    changes: dict[bytes, bytes | None] = {}
    at = 0
    while at < len(data):
        key, length = data[at : at + HASH_BYTES], data[at + HASH_BYTES : at + HASH_BYTES + 4]
        at += HASH_BYTES + 4
        if length == REMOVED:
            changes[key] = None
            continue
        end = at + int.from_bytes(length, "big")
        if len(length) != 4 or end > len(data):
            raise Malformed("state changes: cut off")
        changes[key] = data[at:end]
        at = end
    return changes
