"""Snapshots: a ledger's whole state as bytes, so that a start replays only what came after it.

Rules: docs/spec/blocks.md, snapshots. What is read back is believed only if its state root is the
one in a certified header, so the format carries no hash of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from nocturne.core.encoding import HASH_BYTES, domain, optional, u8, u32, u64, variable
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import Hash, SessionId, is_session_id, session_key
from nocturne.core.kinds import KindRegistry
from nocturne.core.merkle import Frontier
from nocturne.core.sparse_tree import SparseTree
from nocturne.core.state import ID_ENTRY_BYTES, IdWindow, LedgerState, Role, SessionState
from nocturne.core.state_leaf import decode_positions, encode_positions

SESSION_BYTES_MAX: Final = 1024 * 1024 * 1024
"""A bound of the parser; a session's members, ids and items set its true size."""

_SNAPSHOT: Final = domain("nocturne/snapshot/v1")


def encode(state: LedgerState) -> Iterator[bytes]:
    """First the domain, ledger id and positions; then each session, in the order of their keys."""
    yield _SNAPSHOT + state.ledger_id + variable(encode_positions(state.positions))
    for _, session in state.tree.items():
        if session is not None:
            yield _encode_session(session)


def decode(
    genesis_bytes: bytes, chunks: Iterable[bytes], registry: KindRegistry | None = None
) -> LedgerState:
    """The state of what `encode` gave; `Malformed` on what it would not write. The caller compares
    the root with a certified one: only that shows that nothing was changed.
    """
    founding = LedgerState.founding(genesis_bytes, registry)
    parts = iter(chunks)
    head = _Reader(next(parts, b""))
    if head.take(len(_SNAPSHOT)) != _SNAPSHOT or head.take(HASH_BYTES) != founding.ledger_id:
        raise Malformed("snapshot: of another format or ledger")
    positions = decode_positions(head.variable())
    head.end()
    if [one.partition for one in positions] != [one.partition for one in founding.positions]:
        raise Malformed("snapshot: of another number of partitions")
    sessions: dict[SessionId, SessionState] = {}
    last = b""
    for part in parts:
        session = _decode_session(part)
        last = _ascending(last, session_key(founding.ledger_id, session.session))
        sessions[session.session] = session
    return founding.after(sessions, positions)[0]


def _encode_session(state: SessionState) -> bytes:
    members = list(state.members.items())
    windows = list(state.ids.items())
    items = list(state.items.items())
    return b"".join(
        (
            variable(state.session.encode("ascii")),
            variable(state.kind.encode("ascii")),
            u64(state.kind_version),
            u8(state.closed),
            u64(state.sequence),
            state.head_hash,
            _encode_frontier(state.events),
            _encode_frontier(state.receipts),
            u32(len(members)),
            *(author + u8(role) for author, role in members),
            u32(len(windows)),
            *(
                author + optional(one.floor) + u32(len(one.entries)) + b"".join(one.entries)
                for author, one in windows
            ),
            u32(len(items)),
            *(key + variable(value) for key, value in items),
        )
    )


def _encode_frontier(frontier: Frontier) -> bytes:
    return u64(frontier.size) + b"".join(frontier.peaks)


def _decode_session(data: bytes) -> SessionState:
    reader = _Reader(data)
    session = reader.text()
    if not is_session_id(session):
        raise Malformed("snapshot: not a session id")
    kind = reader.text()
    version = reader.number(8)
    closed = reader.flag()
    sequence = reader.number(8)
    head = Hash(reader.take(HASH_BYTES))
    events = _decode_frontier(reader)
    receipts = _decode_frontier(reader)
    if events.size != sequence:
        # The leaf binds the sequence and the root, which does not bind the number of its leaves.
        raise Malformed(f"snapshot: expected {sequence} events, got {events.size}")
    members: dict[bytes, tuple[bytes, Role] | None] = {}
    last = b""
    for _ in range(reader.number(4)):
        author = last = _ascending(last, reader.take(HASH_BYTES))
        role = reader.number(1)
        if role not in Role._value2member_map_:
            raise Malformed(f"snapshot: unknown role {role}")
        members[author] = (u8(role), Role(role))
    windows: dict[bytes, tuple[bytes, IdWindow] | None] = {}
    last = b""
    for _ in range(reader.number(4)):
        author = last = _ascending(last, reader.take(HASH_BYTES))
        window = _decode_window(reader)
        windows[author] = (window.digest(), window)
    items: dict[bytes, tuple[bytes, bytes] | None] = {}
    last = b""
    for _ in range(reader.number(4)):
        key = last = _ascending(last, reader.take(HASH_BYTES))
        value = reader.variable()
        items[key] = (value, value)
    reader.end()
    none: SparseTree[Role] = SparseTree()
    no_ids: SparseTree[IdWindow] = SparseTree()
    no_items: SparseTree[bytes] = SparseTree()
    return SessionState(
        SessionId(session),
        kind,
        version,
        closed,
        sequence,
        head,
        events,
        receipts,
        none.update(members),
        no_ids.update(windows),
        no_items.update(items),
        sum(one is not None and one[1] is Role.OWNER for one in members.values()),
    )


def _decode_frontier(reader: _Reader) -> Frontier:
    size = reader.number(8)
    return Frontier(size, tuple([reader.take(HASH_BYTES) for _ in range(size.bit_count())]))


def _decode_window(reader: _Reader) -> IdWindow:
    floor = reader.variable() if reader.flag() else None
    return IdWindow(
        tuple([reader.take(ID_ENTRY_BYTES) for _ in range(reader.number(4))]),
        floor,
    )


def _ascending(last: bytes, key: bytes) -> bytes:
    if not last < key:
        raise Malformed("snapshot: its keys do not ascend")
    return key


class _Reader:
    """Reads a chunk from its beginning; `Malformed` when it is cut or continued."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        if len(data) > SESSION_BYTES_MAX:
            raise Malformed(f"snapshot: expected at most {SESSION_BYTES_MAX} bytes")
        self._data = data
        self._at = 0

    def take(self, length: int) -> bytes:
        end = self._at + length
        if end > len(self._data):
            raise Malformed("snapshot: a chunk is cut")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def number(self, length: int) -> int:
        return int.from_bytes(self.take(length), "big")

    def flag(self) -> bool:
        number = self.number(1)
        if number > 1:
            raise Malformed(f"snapshot: expected 0 or 1, got {number}")
        return number == 1

    def variable(self) -> bytes:
        return self.take(self.number(4))

    def text(self) -> str:
        try:
            return self.variable().decode("ascii")
        except UnicodeDecodeError as fault:
            raise Malformed("snapshot: a name is not ASCII") from fault

    def end(self) -> None:
        if self._at != len(self._data):
            raise Malformed("snapshot: a chunk is continued")
