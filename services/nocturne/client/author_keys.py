"""Which keys authors have had, folded from the events of `~ledger`. Pure.

Rules: docs/spec/ledger.md §6, author keys. Only what an author says of its own keys is followed
here; what operators revoke takes a threshold of them, and the ledger's own state says it.
"""

from __future__ import annotations

from typing import Final

from nocturne.core.author_keys import ACT_BYTES_MAX, AUTHOR_KEY_REVOKED, AUTHOR_KEY_ROTATED
from nocturne.core.events import Event
from nocturne.core.identifiers import AuthorId, format_hash
from nocturne.core.json_fields import Fields
from nocturne.core.keys import SUITE_NAMES, Key, parse_key
from nocturne.core.strict_json import parse_json

_DEPTH_MAX: Final = 2


class AuthorKeys:
    """Takes the events of `~ledger` one after the other, checked before."""

    def __init__(self) -> None:
        self._authors: dict[Key, AuthorId] = {}
        self._current: dict[AuthorId, Key] = {}
        self._revoked: set[AuthorId] = set()

    def take(self, event: Event) -> None:
        """One more event; `Malformed` for an act that the ledger would not have taken."""
        header = event.header
        if header.event_type not in (AUTHOR_KEY_ROTATED, AUTHOR_KEY_REVOKED):
            return
        where = f"event {header.sequence} of {header.session}"
        fields = Fields.of(parse_json(event.payload.data, ACT_BYTES_MAX, _DEPTH_MAX), where)
        if fields.text("author") != format_hash(header.author):
            return
        if header.event_type == AUTHOR_KEY_REVOKED:
            self._revoked.add(header.author)
            return
        key = tuple(map(parse_key, fields.texts("key", len(SUITE_NAMES))))
        self._authors[key] = header.author
        self._current[header.author] = key

    def author_of(self, key: Key) -> AuthorId | None:
        """The author that was rotated to `key`, the latest one that said so."""
        return self._authors.get(key)

    def current(self, author: AuthorId) -> Key | None:
        """The key that the author was rotated to last; None when it has its first one."""
        return self._current.get(author)

    def has_revoked_itself(self, author: AuthorId) -> bool:
        """No key signs for it any more, by its own word."""
        return author in self._revoked
