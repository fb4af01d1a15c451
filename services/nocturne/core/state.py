"""The state of a ledger: everything `decide` reads, as one persistent tree with a root.

Rules: docs/spec/ledger.md §5 and docs/spec/blocks.md, state tree. States are values: executing a
block makes a new one and leaves the old one as it was, so forks and snapshots cost nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

from nocturne.core.encoding import ZERO_HASH, domain, optional, sha256, u8, u32, u64, variable
from nocturne.core.events import Position
from nocturne.core.genesis import Genesis, OpenRule, decode_genesis, ledger_id_of
from nocturne.core.governing import open_policy, validator_sets
from nocturne.core.identifiers import (
    LEDGER_SESSION,
    AuthorId,
    Hash,
    KeyId,
    LedgerId,
    SessionId,
    session_key,
)
from nocturne.core.keys import key_id
from nocturne.core.kinds import KindRegistry, builtin_kinds
from nocturne.core.merkle import Frontier
from nocturne.core.sparse_tree import EMPTY, SparseTree
from nocturne.core.state_leaf import (
    LogPosition,
    SessionLeaf,
    encode_positions,
    positions_key,
)
from nocturne.core.validator_sets import ValidatorSets

LEDGER_KIND: Final = "ledger"
ID_ENTRY_BYTES: Final = 64
LEDGER_ID_WINDOW: Final = 4
"""Command ids kept for an author in `~ledger`, at most: keys change one after the other."""

_REST: Final = domain("nocturne/session-rest/v1")
_IDS: Final = domain("nocturne/ids/v1")


class Role(IntEnum):
    """What a member may do: a reader reads sealed payloads, a writer appends, an owner decides."""

    OWNER = 1
    WRITER = 2
    READER = 3


@dataclass(frozen=True, slots=True)
class IdWindow:
    """The largest command ids of one author in one session, ascending, each with its command's hash
    and position, as 64 bytes; and the largest id that is no longer kept.
    """

    entries: tuple[bytes, ...] = ()
    floor: bytes | None = None

    def find(self, command_id: bytes) -> tuple[Hash, Position] | None:
        """The command hash and first position of an id that is kept."""
        index = bisect_left(self.entries, command_id)
        if index == len(self.entries) or not self.entries[index].startswith(command_id):
            return None
        entry = self.entries[index]
        return Hash(entry[16:48]), Position(
            int.from_bytes(entry[48:52], "big"),
            int.from_bytes(entry[52:56], "big"),
            int.from_bytes(entry[56:64], "big"),
        )

    def is_stale(self, command_id: bytes) -> bool:
        """At or below the largest id that was let go: whether it was seen cannot be known."""
        return self.floor is not None and command_id <= self.floor

    def keep(
        self, command_id: bytes, command_hash: Hash, position: Position, size: int
    ) -> IdWindow:
        """The window with one more id, which is neither kept nor stale; at most `size` remain."""
        entry = (
            command_id
            + command_hash
            + u32(position.log_epoch)
            + u32(position.partition)
            + u64(position.offset)
        )
        index = bisect_left(self.entries, entry)
        entries = (*self.entries[:index], entry, *self.entries[index:])
        if len(entries) <= size:
            return IdWindow(entries, self.floor)
        return IdWindow(entries[1:], entries[0][:16])

    def digest(self) -> bytes:
        """SHA-256 of domain ‖ optional floor ‖ the entries."""
        return sha256(_IDS + optional(self.floor) + b"".join(self.entries))


@dataclass(frozen=True, slots=True)
class SessionState:
    """One open session. Trees hold the value that is hashed and the object that is read."""

    session: SessionId
    kind: str
    kind_version: int
    closed: bool
    sequence: int
    head_hash: Hash
    events: Frontier
    receipts: Frontier
    members: SparseTree[Role]
    ids: SparseTree[IdWindow]
    items: SparseTree[bytes]
    owners: int
    """How many members are owners: follows from `members`, and is not hashed."""

    def id_window(self, author: AuthorId) -> IdWindow | None:
        """The command ids kept for an author."""
        return self.ids.get(author)

    def item(self, key: bytes) -> bytes | None:
        """An item of the kind's state."""
        return self.items.get(key)

    def leaf(self) -> SessionLeaf:
        """What the state tree says of the session."""
        return SessionLeaf(
            self.sequence,
            self.head_hash,
            Hash(self.events.root()),
            self.receipts.size,
            Hash(self.receipts.root()),
            self._rest_hash(),
        )

    def _rest_hash(self) -> Hash:
        """SHA-256 of domain ‖ variable session ‖ variable kind ‖ u64 version ‖ u8 closed ‖ members
        root ‖ ids root ‖ kind root.
        """
        return Hash(
            sha256(
                _REST
                + variable(self.session.encode("ascii"))
                + variable(self.kind.encode("ascii"))
                + u64(self.kind_version)
                + u8(self.closed)
                + self.members.root_hash
                + self.ids.root_hash
                + self.items.root_hash
            )
        )


def new_session(
    ledger_id: LedgerId, session: SessionId, kind: str, kind_version: int
) -> SessionState:
    """A session before its first event: sequence 0, head = its key."""
    return SessionState(
        session,
        kind,
        kind_version,
        False,
        0,
        session_key(ledger_id, session),
        Frontier.EMPTY,
        Frontier.EMPTY,
        SparseTree(),
        SparseTree(),
        SparseTree(),
        0,
    )


@dataclass(frozen=True, slots=True)
class LedgerView:
    """The ledger-wide state that `decide` reads: always as of the parent block."""

    ledger_id: LedgerId
    genesis: Genesis
    registry: KindRegistry
    kinds: frozenset[tuple[str, int]]
    operators: frozenset[KeyId]
    open_policy: tuple[OpenRule, ...]
    validator_sets: ValidatorSets
    """Those of the current epoch, of the two after it, and of some before."""
    items: SparseTree[bytes] = EMPTY
    """The items of `~ledger`: author keys, and what the operators decided."""

    def may_open(self, author: AuthorId, kind: str, session: SessionId) -> bool:
        """Whether a rule of the open policy admits it."""
        return any(
            rule.author in (None, author)
            and rule.kind in ("", kind)
            and session.startswith(rule.prefix)
            for rule in self.open_policy
        )

    def of(self, items: SparseTree[bytes]) -> LedgerView:
        """The view once the items of `~ledger` are these."""
        return replace(
            self,
            items=items,
            open_policy=open_policy(items, self.genesis),
            validator_sets=validator_sets(items, self.genesis),
        )


@dataclass(frozen=True, slots=True)
class LedgerState:
    """The whole state after a block (or after genesis)."""

    view: LedgerView
    positions: tuple[LogPosition, ...]
    tree: SparseTree[SessionState | None]

    @staticmethod
    def founding(genesis_bytes: bytes, registry: KindRegistry | None = None) -> LedgerState:
        """The state that genesis defines: `~ledger` open, no other session, nothing consumed."""
        genesis = decode_genesis(genesis_bytes)
        ledger_id = ledger_id_of(genesis_bytes)
        view = LedgerView(
            ledger_id,
            genesis,
            KindRegistry(builtin_kinds().values()) if registry is None else registry,
            frozenset((entry.name, entry.version) for entry in genesis.kinds),
            frozenset(map(key_id, genesis.operators)),
            genesis.open_policy,
            validator_sets(EMPTY, genesis),
        )
        positions = tuple(
            LogPosition(partition, 1, bytes(16), 0, Hash(ZERO_HASH))
            for partition in range(genesis.partitions)
        )
        empty = LedgerState(view, positions, SparseTree())
        ledger = new_session(ledger_id, LEDGER_SESSION, LEDGER_KIND, 1)
        return empty.after({LEDGER_SESSION: ledger}, positions)[0]

    @property
    def ledger_id(self) -> LedgerId:
        """The ledger's identity."""
        return self.view.ledger_id

    @property
    def root_hash(self) -> Hash:
        """The state root of a block's header."""
        return Hash(self.tree.root_hash)

    def session(self, session: SessionId) -> SessionState | None:
        """The session, or None if it was never opened."""
        return self.tree.get(session_key(self.ledger_id, session))

    def after(
        self, sessions: Mapping[SessionId, SessionState], positions: tuple[LogPosition, ...]
    ) -> tuple[LedgerState, dict[bytes, bytes]]:
        """The state with these sessions and positions in place, and the leaves that changed."""
        changes: dict[bytes, tuple[bytes, SessionState | None]] = {
            session_key(self.ledger_id, session): (state.leaf().encode(), state)
            for session, state in sessions.items()
        }
        changes[positions_key(self.ledger_id)] = (encode_positions(positions), None)
        tree = self.tree.update(changes)
        leaves = {key: changes[key][0] for key in sorted(changes)}
        view = self.view
        ledger = sessions.get(LEDGER_SESSION)
        if ledger is not None and ledger.items.root_hash != view.items.root_hash:
            view = view.of(ledger.items)
        return replace(self, view=view, positions=positions, tree=tree), leaves
