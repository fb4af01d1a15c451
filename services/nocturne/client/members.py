"""Who may write to a session: its members, folded from its own events. Pure.

Rules: docs/spec/ledger.md §5 and §6. The opener is the first owner; acts add and remove members,
and give another role. An author whose key is rotated or revoked stays a member.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from nocturne.core import decide
from nocturne.core.errors import Malformed
from nocturne.core.events import Event
from nocturne.core.identifiers import AuthorId, format_hash, parse_hash
from nocturne.core.json_fields import Fields
from nocturne.core.state import Role
from nocturne.core.strict_json import canonical_json, parse_json

ROLE_NAMES: Final = {Role.OWNER: "owner", Role.WRITER: "writer", Role.READER: "reader"}
_ROLES: Final = {name: role for role, name in ROLE_NAMES.items()}
ACT_BYTES_MAX: Final = 1024
"""The longest act on members has 106 bytes."""


def added_payload(author: AuthorId, role: Role) -> bytes:
    """Of `nocturne.MemberAdded`: makes `author` a member in this role, whatever it was before."""
    return canonical_json({"author": format_hash(author), "role": ROLE_NAMES[role]})


def removed_payload(author: AuthorId) -> bytes:
    """Of `nocturne.MemberRemoved`."""
    return canonical_json({"author": format_hash(author)})


def closed_payload() -> bytes:
    """Of `nocturne.SessionClosed`."""
    return b"{}"


class Members:
    """Takes a session's events one after the other, from the first, checked before."""

    def __init__(self) -> None:
        self._roles: dict[AuthorId, Role] = {}
        self._since: dict[AuthorId, int] = {}
        self.closed = False

    @property
    def roles(self) -> Mapping[AuthorId, Role]:
        """Members by author id."""
        return self._roles

    def since(self, author: AuthorId) -> int:
        """The sequence of the event that gave a member its role."""
        return self._since[author]

    def take(self, event: Event) -> None:
        """One more event. `Malformed` for an act that the ledger would not have taken."""
        header = event.header
        if header.sequence == 1:
            self._set(header.author, Role.OWNER, 1)
        match header.event_type:
            case decide.MEMBER_ADDED:
                fields = _fields(event)
                role = _ROLES.get(fields.text("role"))
                if role is None:
                    raise Malformed(f"event {header.sequence}: not a role")
                self._set(AuthorId(parse_hash(fields.text("author"))), role, header.sequence)
            case decide.MEMBER_REMOVED:
                author = AuthorId(parse_hash(_fields(event).text("author")))
                self._roles.pop(author, None)
                self._since.pop(author, None)
            case decide.SESSION_CLOSED:
                self.closed = True
            case _:
                pass

    def _set(self, author: AuthorId, role: Role, sequence: int) -> None:
        self._roles[author] = role
        self._since[author] = sequence


def _fields(event: Event) -> Fields:
    where = f"event {event.header.sequence}"
    return Fields.of(parse_json(event.payload.data, ACT_BYTES_MAX, 2), where)
