"""What a certified block means for the read model: its events, receipts, sessions, leaves. Pure.

Rules: docs/spec/services.md, projection. The block's dispositions are proved by its header; its
state changes stand beside and are believed only when the state tree they make has the root that
the header certifies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from nocturne.core.block_intake import CheckedBlock
from nocturne.core.blocks import Block
from nocturne.core.decide import SESSION_CLOSED
from nocturne.core.errors import Halt, Malformed
from nocturne.core.events import decode_event_header
from nocturne.core.genesis import Genesis
from nocturne.core.identifiers import (
    LEDGER_SESSION,
    EventId,
    Hash,
    LedgerId,
    SessionId,
    session_key,
)
from nocturne.core.receipts import ReceiptHeader, decode_receipt_header
from nocturne.core.sparse_tree import SparseTree
from nocturne.core.state import LEDGER_KIND, LedgerState
from nocturne.core.state_leaf import SessionLeaf

_CLOSED: Final = SESSION_CLOSED.encode("ascii")

StateTree = SparseTree[SessionId | None]
"""The leaves of the state tree; the item is the session whose leaf it is, None for any other."""


@dataclass(frozen=True, slots=True)
class FoldedEvent:
    """One event: where its header's hash and place in the block stand in the read model."""

    session: SessionId
    sequence: int
    event_id: EventId
    event_hash: Hash
    leaf_index: int
    event_index: int
    header: bytes


@dataclass(frozen=True, slots=True)
class FoldedReceipt:
    """One receipt, and the place among the receipts of its home session, from 0."""

    header: ReceiptHeader
    home: SessionId
    home_index: int
    receipt_hash: Hash
    leaf_index: int
    header_bytes: bytes


@dataclass(frozen=True, slots=True)
class SessionChange:
    """A session's leaf after the block. `opened` is its kind when the block opened it."""

    session: SessionId
    key: Hash
    leaf_bytes: bytes
    leaf: SessionLeaf
    opened: tuple[str, int] | None
    closed: bool
    height: int
    time: int


@dataclass(frozen=True, slots=True)
class FoldedBlock:
    """A checked block and what follows from it."""

    checked: CheckedBlock
    events: Sequence[FoldedEvent]
    receipts: Sequence[FoldedReceipt]
    sessions: Sequence[SessionChange]
    leaves: Sequence[tuple[bytes, bytes | None]]
    """Changed leaves of the state tree that are no session's; None removes one."""

    @property
    def block(self) -> Block:
        """The block itself."""
        return self.checked.block


@dataclass(slots=True)
class _Touched:
    """What the block's dispositions say of one session."""

    sequence: int = 0
    head_hash: bytes = b""
    receipts: int = 0
    opened: tuple[str, int] | None = None
    closed: bool = False


@dataclass(frozen=True, slots=True)
class FirstState:
    """The read model before block 1: `~ledger` and the log positions, as genesis defines them."""

    genesis: Genesis
    ledger_id: LedgerId
    ledger_key: Hash
    ledger_leaf: bytes
    leaves: tuple[tuple[bytes, bytes], ...]

    @staticmethod
    def of(genesis_bytes: bytes) -> FirstState:
        """What `LedgerState.founding` says of every leaf."""
        state = LedgerState.founding(genesis_bytes)
        key = session_key(state.ledger_id, LEDGER_SESSION)
        leaf = state.tree.value(key)
        assert leaf is not None
        others = []
        for other, _ in state.tree.items():
            value = state.tree.value(other)
            if other != key and value is not None:
                others.append((other, value))
        return FirstState(state.view.genesis, state.ledger_id, key, leaf, tuple(others))

    @property
    def kind(self) -> tuple[str, int]:
        """Kind and version of `~ledger`."""
        return LEDGER_KIND, 1


def home_of(header: ReceiptHeader) -> SessionId:
    """The session whose receipts_root holds the receipt: its own if that is open and the author
    was authenticated, else `~ledger`.
    """
    if not header.claimed and header.head is not None:
        return SessionId(header.session)
    return LEDGER_SESSION


def fold_block(
    ledger_id: LedgerId, tree: StateTree, checked: CheckedBlock
) -> tuple[FoldedBlock, StateTree]:
    """The block's meaning and the state tree after it.

    `Malformed`: its state changes are not the certified ones. `Halt`: what is certified contradicts
    itself.
    """
    block = checked.block
    header = block.header
    touched: dict[SessionId, _Touched] = {}
    events: list[FoldedEvent] = []
    found: list[tuple[ReceiptHeader, SessionId, int, Hash, int, bytes]] = []
    for leaf_index, (record, disposition) in enumerate(
        zip(block.records, checked.dispositions, strict=True)
    ):
        if record.events:
            _fold_events(record.events, disposition.events, leaf_index, events, touched)
        elif record.receipt is not None and disposition.receipt is not None:
            receipt = _certified_receipt(record.receipt, header.height)
            home = home_of(receipt)
            place = touched.setdefault(home, _Touched())
            found.append(
                (receipt, home, place.receipts, disposition.receipt, leaf_index, record.receipt)
            )
            place.receipts += 1
    sessions_by_key = {bytes(session_key(ledger_id, session)): session for session in touched}
    after = _after(tree, block, sessions_by_key)
    counts = {session: _receipt_count(tree, ledger_id, session) for session in touched}
    receipts = [
        FoldedReceipt(receipt, home, counts[home] + index, receipt_hash, leaf_index, data)
        for receipt, home, index, receipt_hash, leaf_index, data in found
    ]
    sessions, leaves = _changes_of(block, after, touched, counts, sessions_by_key)
    return FoldedBlock(checked, events, receipts, sessions, leaves), after


def _fold_events(
    headers: Sequence[bytes],
    hashes: Sequence[Hash],
    leaf_index: int,
    events: list[FoldedEvent],
    touched: dict[SessionId, _Touched],
) -> None:
    for event_index, header_bytes in enumerate(headers):
        session, sequence, event_id = place_of(header_bytes)
        event_hash = hashes[event_index]
        events.append(
            FoldedEvent(
                session,
                sequence,
                event_id,
                event_hash,
                leaf_index,
                event_index,
                header_bytes,
            )
        )
        change = touched.get(session)
        if change is None:
            change = touched[session] = _Touched()
        change.sequence = sequence
        change.head_hash = event_hash
        # Only the few headers that may say more than their place are read whole.
        if sequence == 1 or _CLOSED in header_bytes:
            _read_act(header_bytes, change)


def place_of(header_bytes: bytes) -> tuple[SessionId, int, EventId]:
    """Session, sequence and event id of a certified event header, read from where they stand in its
    Avro bytes: ledger id (32), session, sequence, previous hash (32), event id (16). A fifth of
    the time that reading the whole record takes.
    """
    length, at = _long_at(header_bytes, 32)
    end = at + length
    session = SessionId(header_bytes[at:end].decode("ascii"))
    sequence, at = _long_at(header_bytes, end)
    return session, sequence, EventId(header_bytes[at + 32 : at + 48])


def _long_at(data: bytes, at: int) -> tuple[int, int]:
    """A non-negative Avro long, and where it ends."""
    zigzag = shift = 0
    while data[at] & 0x80:
        zigzag |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
    return (zigzag | data[at] << shift) >> 1, at + 1


def _read_act(header_bytes: bytes, change: _Touched) -> None:
    header = decode_event_header(header_bytes)
    if header.opening is not None:
        change.opened = (header.opening.kind, header.opening.version)
    if header.event_type == SESSION_CLOSED:
        change.closed = True


def _certified_receipt(data: bytes, height: int) -> ReceiptHeader:
    try:
        return decode_receipt_header(data)
    except Malformed as malformed:
        raise Halt(f"block {height} certifies a receipt that is none: {malformed}") from malformed


def _after(tree: StateTree, block: Block, sessions_by_key: dict[bytes, SessionId]) -> StateTree:
    """The tree with the block's changes; `Malformed` unless its root is the certified one."""
    changes: dict[bytes, tuple[bytes, SessionId | None] | None] = {}
    for change in block.state_changes:
        if change.value is None:
            changes[change.key] = None
        else:
            session = sessions_by_key.get(change.key) or tree.get(change.key)
            changes[change.key] = (change.value, session)
    if len(changes) != len(block.state_changes):
        raise Malformed(f"block {block.header.height}: it changes a leaf of the state twice")
    after = tree.update(changes)
    if after.root_hash != block.header.state_root:
        raise Malformed(f"block {block.header.height}: its state changes are not the certified")
    return after


def _receipt_count(tree: StateTree, ledger_id: LedgerId, session: SessionId) -> int:
    leaf = tree.value(session_key(ledger_id, session))
    return 0 if leaf is None else SessionLeaf.decode(leaf).receipt_count


def _changes_of(
    block: Block,
    after: StateTree,
    touched: dict[SessionId, _Touched],
    counts: dict[SessionId, int],
    sessions_by_key: dict[bytes, SessionId],
) -> tuple[list[SessionChange], list[tuple[bytes, bytes | None]]]:
    header = block.header
    changed = {bytes(change.key) for change in block.state_changes}
    if not sessions_by_key.keys() <= changed:
        raise Halt(f"block {header.height}: a session has events or receipts, but no new leaf")
    sessions: list[SessionChange] = []
    leaves: list[tuple[bytes, bytes | None]] = []
    for change in block.state_changes:
        session = sessions_by_key.get(change.key) or after.get(change.key)
        if session is None or change.value is None:
            leaves.append((change.key, change.value))
            continue
        leaf = SessionLeaf.decode(change.value)
        said = touched.get(session, _Touched())
        _check_leaf(header.height, session, leaf, said, counts.get(session))
        sessions.append(
            SessionChange(
                session,
                change.key,
                change.value,
                leaf,
                said.opened,
                said.closed,
                header.height,
                header.time,
            )
        )
    return sessions, leaves


def _check_leaf(
    height: int, session: SessionId, leaf: SessionLeaf, said: _Touched, count_before: int | None
) -> None:
    """The certified leaf and the certified dispositions tell the same of the session."""
    if said.sequence and (leaf.sequence, leaf.head_hash) != (said.sequence, said.head_hash):
        raise Halt(
            f"block {height}, session {session}: its events end at {said.sequence}, "
            f"its certified leaf says {leaf.sequence}"
        )
    if count_before is not None and leaf.receipt_count != count_before + said.receipts:
        raise Halt(
            f"block {height}, session {session}: {count_before} receipts and {said.receipts} new "
            f"ones, its certified leaf says {leaf.receipt_count}"
        )
