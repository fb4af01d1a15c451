"""What the command line asks of a running ledger, and what it gets: the boundary to the SDK.

`connection.py` meets it with `nocturne.client`; tests meet it with a ledger in memory.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from nocturne.core.commands import SignedCommand
from nocturne.core.events import Event, EventHeader, Position
from nocturne.core.genesis import Genesis
from nocturne.core.identifiers import Hash, LedgerId, SessionId
from nocturne.core.receipts import Receipt, ReceiptHeader
from nocturne.core.strict_json import JsonValue


class Level(IntEnum):
    """Finality levels, in their order; UNKNOWN before the log has the command."""

    UNKNOWN = 0
    ACCEPTED = 1
    CERTIFIED = 2
    SIGNED = 3
    LOGGED = 4
    WITNESSED = 5
    ANCHORED = 6


REACHABLE: tuple[Level, ...] = (Level.ACCEPTED, Level.CERTIFIED, Level.SIGNED)
"""The levels that a ledger of this version has; the others are "not configured"."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a command, as far as is known.

    `decided` is False while the deadline came before the command was certified. `receipt` is there
    once the authority signed it. Times in ms since 1970.
    """

    level: Level
    decided: bool
    command_hash: Hash
    position: Position | None
    height: int | None
    timestamp: int | None
    events: tuple[EventHeader, ...]
    refusal: ReceiptHeader | None
    receipt: Receipt | None
    repeated: bool


@dataclass(frozen=True, slots=True)
class Session:
    """One session as the projection has it. Times in ms since 1970."""

    session: SessionId
    kind: str
    kind_version: int
    sequence: int
    head_hash: Hash
    receipts: int
    closed: bool
    opened_at: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class State:
    """A session's state folded to a sequence."""

    session: SessionId
    sequence: int
    head_hash: Hash
    value: JsonValue


@dataclass(frozen=True, slots=True)
class Totals:
    """What the projection holds, and what it refused, by cause."""

    height: int
    block_digest: bytes
    timestamp: int
    sessions: int
    events: int
    receipts: int
    records: int
    refused_records: Mapping[str, int]


class Ledger(Protocol):
    """A running ledger; `Unavailable` when it is not, or gives no answer in time."""

    @property
    def ledger_id(self) -> LedgerId:
        """The hash of the genesis."""

    @property
    def genesis(self) -> Genesis:
        """Limits, kinds and the authority's key."""

    async def submit(self, signed: SignedCommand, wait: Level, deadline_ms: int) -> Outcome:
        """Publish one command and wait for `wait`, at most `deadline_ms`."""

    def submit_all(
        self, commands: Iterable[SignedCommand], wait: Level, deadline_ms: int, in_flight_max: int
    ) -> AsyncGenerator[Outcome, None]:
        """Publish commands in their order, at most `in_flight_max` unanswered; their outcomes, in
        the order of the commands."""

    async def session(self, session: SessionId) -> Session | None:
        """One session, None if there is none."""

    def sessions(self, limit: int) -> AsyncGenerator[Session, None]:
        """Sessions by their ids, at most `limit`."""

    def events(
        self, session: SessionId, from_sequence: int, follow: bool
    ) -> AsyncGenerator[Event, None]:
        """Events from a sequence on; with `follow`, without an end."""

    def receipts(self, session: SessionId | None) -> AsyncGenerator[Receipt, None]:
        """Receipts of a session, or of all, by position."""

    async def state(self, session: SessionId, at_sequence: int | None) -> State:
        """The state at a sequence, or at the head."""

    def export(self, session: SessionId) -> AsyncGenerator[bytes, None]:
        """The pieces of the session's export file."""

    async def totals(self) -> Totals:
        """What the projection holds."""
