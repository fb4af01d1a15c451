"""Records: what a source says about events before they have a place in the ledger. Pure.

Rules: docs/guides/importing.md, run again. A record's name is a hash over itself and all records
of its session before it, so that the same words at another place are another record.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Final, Protocol

from nocturne.core.encoding import domain, sha256, u64, variable
from nocturne.core.errors import NocturneError
from nocturne.core.identifiers import SessionId

CONTENT_TYPE: Final = "application/json"

_RECORD: Final = domain("nocturne/import-record/v1")


class SourceFault(NocturneError):  # noqa: N818
    """The source is not what it must be: says where, what is wrong and, if it can, the way out."""

    def __init__(self, place: str, what: str) -> None:
        super().__init__(f"{place}: {what}" if place else what)


@dataclass(frozen=True, slots=True)
class Record:
    """One event to be: its payload is JSON; `place` names it to a person, as `line 7`."""

    session: SessionId
    event_type: str
    payload: bytes
    occurred_at: int
    place: str


class Source(Protocol):
    """Where records come from."""

    def records(self) -> Generator[Record, None, None]:
        """All records from the first on, the same each time; `SourceFault` where they end badly."""


def record_name(before: bytes, record: Record) -> bytes:
    """32 bytes: a hash over the record and the name `before`, that of the session's record before
    it, or nothing for the first."""
    return sha256(
        _RECORD
        + variable(before)
        + variable(record.event_type.encode())
        + variable(record.payload)
        + u64(record.occurred_at)
    )
