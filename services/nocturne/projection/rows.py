"""Signed blocks as rows, in the binary format of PostgreSQL's COPY. Pure.

Format: https://www.postgresql.org/docs/current/sql-copy.html, binary format: for each row a count
of fields (int16), and for each field its length (int32, -1 for null) and bytes, big-endian.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from struct import Struct
from typing import Final

from nocturne.core.blocks import Block, RecordDisposition, encode_seal
from nocturne.core.certificates import encode_commit_proof
from nocturne.core.identifiers import SessionId
from nocturne.core.keys import Signatures, signatures_bytes
from nocturne.core.validator_sets import changes_validators
from nocturne.projection.collector import Refusal, SignedBlock
from nocturne.projection.fold import FoldedBlock, FoldedEvent, FoldedReceipt, SessionChange

COPY_HEADER: Final = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
COPY_TRAILER: Final = b"\xff\xff"
REMOVED: Final = b"\xff\xff\xff\xff"
"""In place of a length: the leaf was removed."""
KIND_EVENTS: Final = 1
KIND_RECEIPT: Final = 2
KIND_GAP: Final = 3

COLUMNS: Final = {
    "blocks": "height, digest, time, view, record_count, header, proof, seal, leaves,"
    " state_changes",
    "ranges": "log_epoch, partition, first_offset, end_offset, height, first_leaf",
    "records": "height, leaf_index, kind, log_epoch, partition, record_offset, command_hash,"
    " command_length, value, key, headers",
    "events": "session, sequence, event_id, event_hash, height, leaf_index, event_index, header,"
    " signatures",
    "receipts": "log_epoch, partition, record_offset, height, leaf_index, home, home_index,"
    " session, claimed, reason, receipt_hash, header, signatures",
    "validator_changes": "height, number, record",
}
"""The tables that only grow, and the order of the fields in their rows."""

_NULL: Final = b"\xff\xff\xff\xff"
_COUNT: Final = Struct(">h")
_LENGTH: Final = Struct(">i")
_INT2: Final = Struct(">ih")
_INT4: Final = Struct(">ii")
_INT8: Final = Struct(">iq")
_RECORD_START: Final = Struct(">hiqiiihiiiiiq")
_EVENT_TEXT: Final = Struct(">hi")
_EVENT_MIDDLE: Final = Struct(">iqi")
_EVENT_PLACE: Final = Struct(">iqiiiii")


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session after the last block of a batch."""

    session: SessionId
    key: bytes
    kind: str
    kind_version: int
    sequence: int
    head_hash: bytes
    receipt_count: int
    closed: bool
    opened_at: int
    updated_at: int
    changed_height: int
    leaf: bytes


@dataclass(slots=True)
class Batch:
    """What one transaction writes."""

    height: int
    digest: bytes
    time: int
    blocks: int = 0
    records: int = 0
    events: int = 0
    receipts: int = 0
    copied: dict[str, list[bytes]] = field(default_factory=lambda: {table: [] for table in COLUMNS})
    opened: dict[SessionId, SessionRow] = field(default_factory=dict)
    changed: dict[SessionId, SessionRow] = field(default_factory=dict)
    leaves: dict[bytes, tuple[bytes | None, int]] = field(default_factory=dict)
    offsets: Sequence[tuple[str, int, int]] = ()
    refusals: Sequence[Refusal] = ()


def batch_of(
    height: int,
    digest: bytes,
    time: int,
    blocks: Sequence[SignedBlock],
    offsets: Sequence[tuple[str, int, int]],
    refusals: Sequence[Refusal],
) -> Batch:
    """The rows of `blocks`, which follow the block `height`."""
    batch = Batch(height, digest, time, offsets=offsets, refusals=refusals)
    for signed in blocks:
        _add_block(batch, signed)
    return batch


def copy_data(rows: Sequence[bytes]) -> bytes:
    """What COPY … FROM STDIN (FORMAT BINARY) reads."""
    return b"".join((COPY_HEADER, *rows, COPY_TRAILER))


def pack_state_changes(folded: FoldedBlock) -> bytes:
    """Each changed leaf: 32-byte key, four bytes of length, value; `REMOVED` for a removed one."""
    return b"".join(
        change.key + REMOVED
        if change.value is None
        else change.key + len(change.value).to_bytes(4, "big") + change.value
        for change in folded.block.state_changes
    )


def _add_block(batch: Batch, signed: SignedBlock) -> None:
    folded = signed.folded
    header = folded.block.header
    batch.height, batch.digest, batch.time = header.height, folded.block.digest, header.time
    batch.blocks += 1
    batch.records += header.record_count
    batch.events += len(folded.events)
    batch.receipts += len(folded.receipts)
    batch.copied["blocks"].append(_block_row(signed))
    batch.copied["validator_changes"] += [
        _COUNT.pack(3) + _int8(header.height) + _int4(number) + _bytes(record)
        for number, record in enumerate(folded.block.control)
        if changes_validators(record)
    ]
    _add_records(batch, folded)
    _add_signed(batch, signed)
    for change in folded.sessions:
        _add_session(batch, change)
    for key, value in folded.leaves:
        batch.leaves[key] = (value, header.height)


def _add_records(batch: Batch, folded: FoldedBlock) -> None:
    block = folded.block
    height = block.header.height
    ranges, records = batch.copied["ranges"], batch.copied["records"]
    first = 0
    for one in block.header.ranges:
        ranges.append(
            _COUNT.pack(6)
            + _int4(one.log_epoch)
            + _int4(one.partition)
            + _int8(one.start)
            + _int8(one.end)
            + _int8(height)
            + _int4(first)
        )
        first += one.end - one.start
    for leaf_index, (record, disposition) in enumerate(
        zip(block.records, folded.checked.dispositions, strict=True)
    ):
        at = disposition.position
        kind = KIND_EVENTS if record.events else KIND_GAP
        if record.receipt is not None:
            kind = KIND_RECEIPT
        start = _RECORD_START.pack(
            11, 8, height, 4, leaf_index, 2, kind, 4, at.log_epoch, 4, at.partition, 8, at.offset
        )
        records.append(start + _record_content(record, disposition.command_hash, kind))


def _record_content(record: RecordDisposition, command_hash: bytes | None, kind: int) -> bytes:
    content = _optional(command_hash) + _int4(record.command_length) + _optional(record.value)
    if kind == KIND_RECEIPT:
        return content + _optional(record.key) + _optional(record.headers)
    return content + _NULL + _NULL


def _add_signed(batch: Batch, signed: SignedBlock) -> None:
    """Events and receipts, each with the signatures that stand at its place in block order."""
    folded = signed.folded
    height = folded.block.header.height
    events, receipts = batch.copied["events"], batch.copied["receipts"]
    following = iter(signed.signatures)
    event_rows = iter(folded.events)
    receipt_rows = iter(folded.receipts)
    for record in folded.block.records:
        for _ in record.events:
            events.append(_event_row(height, next(event_rows), next(following)))
        if record.receipt is not None:
            receipts.append(_receipt_row(height, next(receipt_rows), next(following)))


def _block_row(signed: SignedBlock) -> bytes:
    folded = signed.folded
    block: Block = folded.block
    header = block.header
    return b"".join(
        (
            _COUNT.pack(10),
            _int8(header.height),
            _bytes(block.digest),
            _int8(header.time),
            _int8(header.view),
            _int4(header.record_count),
            _bytes(block.header_bytes),
            _bytes(encode_commit_proof(folded.checked.proof)),
            _bytes(encode_seal(signed.seal)),
            _bytes(b"".join(folded.checked.leaves)),
            _bytes(pack_state_changes(folded)),
        )
    )


def _event_row(height: int, event: FoldedEvent, signatures: Signatures) -> bytes:
    session = event.session.encode("ascii")
    signed = signatures_bytes(signatures)
    return b"".join(
        (
            _EVENT_TEXT.pack(9, len(session)),
            session,
            _EVENT_MIDDLE.pack(8, event.sequence, 16),
            event.event_id,
            b"\x00\x00\x00\x20",
            event.event_hash,
            _EVENT_PLACE.pack(
                8, height, 4, event.leaf_index, 4, event.event_index, len(event.header)
            ),
            event.header,
            _LENGTH.pack(len(signed)),
            signed,
        )
    )


def _receipt_row(height: int, receipt: FoldedReceipt, signatures: Signatures) -> bytes:
    header = receipt.header
    at = header.position
    return b"".join(
        (
            _COUNT.pack(13),
            _int4(at.log_epoch),
            _int4(at.partition),
            _int8(at.offset),
            _int8(height),
            _int4(receipt.leaf_index),
            _bytes(receipt.home.encode("ascii")),
            _int8(receipt.home_index),
            _bytes(header.session.encode("ascii")),
            b"\x00\x00\x00\x01" + bytes((header.claimed,)),
            _INT2.pack(2, header.reason),
            _bytes(receipt.receipt_hash),
            _bytes(receipt.header_bytes),
            _bytes(signatures_bytes(signatures)),
        )
    )


def _add_session(batch: Batch, change: SessionChange) -> None:
    before = batch.opened.get(change.session)
    if before is None and change.opened is None:
        known = batch.changed.get(change.session)
        batch.changed[change.session] = _session_row(
            change, ("", 0), 0, change.closed or (known is not None and known.closed)
        )
    elif before is not None:
        row = _session_row(
            change,
            (before.kind, before.kind_version),
            before.opened_at,
            change.closed or before.closed,
        )
        batch.opened[change.session] = row
    elif change.opened is not None:
        batch.opened[change.session] = _session_row(
            change, change.opened, change.time, change.closed
        )


def _session_row(
    change: SessionChange, kind: tuple[str, int], opened_at: int, closed: bool
) -> SessionRow:
    leaf = change.leaf
    return SessionRow(
        change.session,
        change.key,
        *kind,
        leaf.sequence,
        leaf.head_hash,
        leaf.receipt_count,
        closed,
        opened_at,
        change.time,
        change.height,
        change.leaf_bytes,
    )


def _int4(number: int) -> bytes:
    return _INT4.pack(4, number)


def _int8(number: int) -> bytes:
    return _INT8.pack(8, number)


def _bytes(data: bytes) -> bytes:
    return _LENGTH.pack(len(data)) + data


def _optional(data: bytes | None) -> bytes:
    return _NULL if data is None else _LENGTH.pack(len(data)) + data
