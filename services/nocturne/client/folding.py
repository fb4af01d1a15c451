"""Fold a session's events at the reader, with the subject keys it has. Pure.

Rules: docs/spec/ledger.md §6 and §7. The query service has no keys, so its fold sees a sealed
payload as bytes of another type. A reader with the keys folds what was sealed, and gets the state
that plain payloads would have given.
"""

from __future__ import annotations

from dataclasses import dataclass

from nocturne.client.sealing import Closed, Opened, SubjectKeys, payload_of
from nocturne.core.events import Event
from nocturne.core.identifiers import Hash
from nocturne.core.kinds import Kind
from nocturne.core.strict_json import JsonValue


@dataclass(frozen=True, slots=True)
class Folded:
    """A state after `sequence`; `unsealed` payloads were opened for it, `sealed` were not."""

    sequence: int
    head_hash: Hash
    value: JsonValue
    unsealed: int
    sealed: int


class Folding:
    """Takes a session's events one after the other, checked before."""

    def __init__(self, kind: Kind, keys: SubjectKeys) -> None:
        self._kind = kind
        self._keys = keys
        self._folded = Folded(0, Hash(b""), kind.initial(), 0, 0)

    @property
    def folded(self) -> Folded:
        """The state so far."""
        return self._folded

    def take(self, event: Event) -> None:
        """One more event."""
        header, before = event.header, self._folded
        content_type, data = header.content_type, event.payload.data
        unsealed, sealed = before.unsealed, before.sealed
        match payload_of(event, self._keys):
            case Opened(subject_key=None):
                pass
            case Opened() as opened:
                content_type, data = opened.content_type, opened.data
                unsealed += 1
            case Closed():
                sealed += 1
        value = self._kind.fold(
            before.value, header.event_type, content_type, data, header.author, header.sequence
        )
        self._folded = Folded(header.sequence, event.event_hash, value, unsealed, sealed)
