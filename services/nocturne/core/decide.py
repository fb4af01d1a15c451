"""Decide one command against one session. Pure: the caller brings state; there is no time.

Rules: docs/spec/ledger.md §5. Everything that can refuse a well-formed, signed command is in this
file; what can refuse a record before that is in `intake`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from nocturne.core.author_keys import AUTHOR_ACTS, apply_author_act, current_key_id
from nocturne.core.commands import SEALED_CONTENT_TYPE, Command
from nocturne.core.events import Position
from nocturne.core.identifiers import LEDGER_SESSION, AuthorId, Hash, is_reserved_session
from nocturne.core.intake import Prepared
from nocturne.core.keys import key_id
from nocturne.core.kinds import Kind, Violation
from nocturne.core.receipts import Reason
from nocturne.core.sparse_tree import SparseTree
from nocturne.core.state import IdWindow, LedgerView, Role

ACT_PREFIX: Final = "nocturne."
"""Event types of the ledger's own acts; a kind cannot use them."""
MEMBER_ADDED: Final = "nocturne.MemberAdded"
MEMBER_REMOVED: Final = "nocturne.MemberRemoved"
SESSION_CLOSED: Final = "nocturne.SessionClosed"

_ROLES: Final = {"owner": Role.OWNER, "writer": Role.WRITER, "reader": Role.READER}
_MEMBER_ADDED: Final = re.compile(
    rb'\{"author":"sha256-([0-9a-f]{64})","role":"(owner|writer|reader)"\}\Z'
)
_MEMBER_REMOVED: Final = re.compile(rb'\{"author":"sha256-([0-9a-f]{64})"\}\Z')
_NO_WINDOW: Final = IdWindow()


class SessionView(Protocol):
    """What `decide` reads of an open session."""

    @property
    def kind(self) -> str:
        """The kind it was opened with."""

    @property
    def kind_version(self) -> int:
        """The version of the kind it was opened with."""

    @property
    def closed(self) -> bool:
        """Whether its owner closed it."""

    @property
    def sequence(self) -> int:
        """The sequence of its last event, 0 before the first."""

    @property
    def members(self) -> SparseTree[Role]:
        """Its members, by author id."""

    @property
    def owners(self) -> int:
        """How many of them are owners."""

    def id_window(self, author: AuthorId) -> IdWindow | None:
        """The command ids kept for an author."""

    def item(self, key: bytes) -> bytes | None:
        """An item of its kind's state."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The command becomes the events its author listed, and these changes of the session."""

    members: Mapping[AuthorId, Role | None]
    items: Mapping[bytes, bytes | None]
    closed: bool
    owners: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """The command becomes a receipt. `authenticated`: its author's signature and key passed.
    `keeps_id`: it reached the id check, so its id is used up.
    """

    reason: Reason
    violated_invariant: str = ""
    authenticated: bool = True
    keeps_id: bool = False
    first_position: Position | None = None


Decision = Accepted | Rejected


def decide(view: LedgerView, session: SessionView | None, prepared: Prepared) -> Decision:
    """What becomes of one record that is addressed to `session` (None: never opened).

    Order: form, partition, signature (`intake`); author's key; session, kind, opening; role; id;
    expected sequence; invariant. The first that fails names the receipt.
    """
    signed = prepared.signed
    if prepared.fault is not None or signed is None:
        reason = prepared.fault if prepared.fault is not None else Reason.MALFORMED
        return Rejected(reason, authenticated=False)
    command = signed.command
    if not _is_current_key(view, command):
        return Rejected(Reason.UNKNOWN_AUTHOR, authenticated=False)
    refusal = _check_session(view, session, command)
    if refusal is None:
        refusal = _check_role(session, command)
    if refusal is None:
        refusal = _check_id(session, command, signed.command_hash)
    if refusal is None:
        refusal = _check_expected(session, command)
    if refusal is not None:
        return refusal
    return _check_invariants(view, session, command, prepared)


def _is_current_key(view: LedgerView, command: Command) -> bool:
    """As of the parent block: whatever `~ledger` changes counts from the next block on."""
    if not view.items.size:
        return AuthorId(key_id(command.key)) == command.author
    return key_id(command.key) == current_key_id(view.items, command.author)


def _check_session(
    view: LedgerView, session: SessionView | None, command: Command
) -> Rejected | None:
    if session is not None:
        return Rejected(Reason.SESSION_CLOSED) if session.closed else None
    opening = command.opening
    if opening is None:
        # Nobody is a member of a session that was never opened.
        return Rejected(Reason.NOT_A_MEMBER)
    if is_reserved_session(command.session):
        return Rejected(Reason.NOT_PERMITTED_TO_OPEN)
    if (opening.kind, opening.version) not in view.kinds:
        return Rejected(Reason.UNKNOWN_KIND)
    if not view.may_open(command.author, opening.kind, command.session):
        return Rejected(Reason.NOT_PERMITTED_TO_OPEN)
    return None


def _check_role(session: SessionView | None, command: Command) -> Rejected | None:
    if command.session == LEDGER_SESSION:
        # Open from the start, to every author, for its own keys: it has no members.
        acts_only = all(draft.event_type in AUTHOR_ACTS for draft in command.events)
        permitted = acts_only and command.opening is None
        return None if permitted else Rejected(Reason.NOT_A_MEMBER)
    role = Role.OWNER if session is None else session.members.get(command.author)
    acts = any(draft.event_type.startswith(ACT_PREFIX) for draft in command.events)
    needed = (Role.OWNER,) if acts else (Role.OWNER, Role.WRITER)
    return None if role in needed else Rejected(Reason.NOT_A_MEMBER)


def _check_id(session: SessionView | None, command: Command, command_hash: Hash) -> Rejected | None:
    window = None if session is None else session.id_window(command.author)
    window = window or _NO_WINDOW
    found = window.find(command.command_id)
    if found is not None:
        first_hash, first_position = found
        reason = Reason.REPEATED if first_hash == command_hash else Reason.ID_REUSED
        return Rejected(reason, first_position=first_position)
    return Rejected(Reason.STALE_ID) if window.is_stale(command.command_id) else None


def _check_expected(session: SessionView | None, command: Command) -> Rejected | None:
    # An opening writes event 1 or nothing.
    expected = 0 if command.opening is not None else command.expected_sequence
    sequence = 0 if session is None else session.sequence
    if expected is None or expected == sequence:
        return None
    return Rejected(Reason.DUPLICATE_SEQ, "S1", keeps_id=_keeps_id(command))


@dataclass(slots=True)
class _Changes:
    """What the events of one command have changed so far."""

    members: dict[AuthorId, Role | None]
    items: dict[bytes, bytes | None]
    owners: int
    closed: bool = False


@dataclass(frozen=True, slots=True)
class _Items:
    """The session's items as the command's earlier events left them."""

    session: SessionView | None
    changed: Mapping[bytes, bytes | None]

    def get(self, key: bytes, /) -> bytes | None:
        if key in self.changed:
            return self.changed[key]
        return None if self.session is None else self.session.item(key)


def _check_invariants(
    view: LedgerView, session: SessionView | None, command: Command, prepared: Prepared
) -> Decision:
    changes = _Changes({}, {}, 0 if session is None else session.owners)
    if session is None:
        changes.members[command.author] = Role.OWNER
        changes.owners = 1
    name, version = _kind_of(session, command)
    kind = view.registry.get(name, version)
    assert prepared.signed is not None
    for index, payload in enumerate(prepared.signed.payloads):
        if changes.closed:
            return _violates(command, "session.closed_is_last")
        draft = command.events[index]
        sealed = draft.content_type == SEALED_CONTENT_TYPE
        if draft.event_type.startswith(ACT_PREFIX):
            violated = (
                "payload.plain"
                if sealed
                else _act(view, session, changes, command, draft.event_type, payload.data)
            )
        else:
            sequence = (0 if session is None else session.sequence) + index + 1
            violated = _apply_kind(
                kind, session, changes, command, index, payload.data, sequence, sealed
            )
        if violated is not None:
            return _violates(command, violated)
    return Accepted(changes.members, changes.items, changes.closed, changes.owners)


def _kind_of(session: SessionView | None, command: Command) -> tuple[str, int]:
    if session is not None:
        return session.kind, session.kind_version
    assert command.opening is not None
    return command.opening.kind, command.opening.version


def _violates(command: Command, invariant: str) -> Rejected:
    return Rejected(Reason.INVARIANT_VIOLATION, invariant, keeps_id=_keeps_id(command))


def _keeps_id(command: Command) -> bool:
    """Whether a refused command uses its id up. In `~ledger`, where every key is let in, it leaves
    nothing behind.
    """
    return command.session != LEDGER_SESSION


def _act(
    view: LedgerView,
    session: SessionView | None,
    changes: _Changes,
    command: Command,
    event_type: str,
    payload: bytes,
) -> str | None:
    """One of the ledger's own acts; the invariant it would break, or None."""
    if command.session == LEDGER_SESSION:
        result = apply_author_act(
            _Items(session, changes.items),
            view.operators,
            view.genesis.operator_threshold,
            command.author,
            event_type,
            payload,
        )
        if isinstance(result, Violation):
            return result.invariant
        changes.items.update(result)
        return None
    if event_type == SESSION_CLOSED:
        changes.closed = True
        return None if payload == b"{}" else "session.closed_form"
    if event_type == MEMBER_ADDED:
        added = _MEMBER_ADDED.match(payload)
        if added is None:
            return "members.form"
        author = AuthorId(bytes.fromhex(added[1].decode()))
        return _set_role(session, changes, author, _ROLES[added[2].decode()])
    if event_type == MEMBER_REMOVED:
        removed = _MEMBER_REMOVED.match(payload)
        if removed is None:
            return "members.form"
        author = AuthorId(bytes.fromhex(removed[1].decode()))
        return _set_role(session, changes, author, None)
    return "event_type.reserved"


def _set_role(
    session: SessionView | None, changes: _Changes, author: AuthorId, role: Role | None
) -> str | None:
    """A session always has an owner. They are counted: members may be many."""
    if author in changes.members:
        before = changes.members[author]
    else:
        before = None if session is None else session.members.get(author)
    changes.members[author] = role
    changes.owners += (role is Role.OWNER) - (before is Role.OWNER)
    return None if changes.owners else "members.owner_remains"


def _apply_kind(
    kind: Kind | None,
    session: SessionView | None,
    changes: _Changes,
    command: Command,
    index: int,
    payload: bytes,
    sequence: int,
    sealed: bool,
) -> str | None:
    assert kind is not None, "a session is opened with a kind that the ledger has"
    if not kind.reads_payloads:
        return None
    if sealed:
        return "payload.plain"

    draft = command.events[index]
    result = kind.apply(
        _Items(session, changes.items),
        draft.event_type,
        draft.content_type,
        payload,
        command.author,
        sequence,
    )
    if isinstance(result, Violation):
        return result.invariant
    changes.items.update(result)
    return None
