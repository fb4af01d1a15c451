"""What the command line asks of a running ledger: the boundary to the SDK, `nocturne.client`.

`connection.py` meets it with the SDK's client; tests meet it with a ledger in memory.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from pathlib import Path
from typing import Protocol

from nocturne.audit.verify import Verdict
from nocturne.client.operating import Governance, Governed, LogStands
from nocturne.client.results import Level, Result, Session, State, Status
from nocturne.core.commands import SignedCommand
from nocturne.core.events import Event
from nocturne.core.genesis import Genesis
from nocturne.core.identifiers import LedgerId, SessionId
from nocturne.core.receipts import Receipt

REACHABLE: tuple[Level, ...] = (Level.ACCEPTED, Level.CERTIFIED, Level.SIGNED)
"""The levels that a ledger of this version has; the others are "not configured"."""


class Ledger(Protocol):
    """A running ledger, whose answers are checked; `Unavailable` when there is none in time."""

    @property
    def ledger_id(self) -> LedgerId:
        """The hash of the genesis."""

    @property
    def genesis(self) -> Genesis:
        """Limits, kinds and the authority's key."""

    async def submit(self, signed: SignedCommand, wait: Level, deadline_seconds: float) -> Result:
        """Publish one command and wait for `wait`, at most `deadline_seconds`."""

    def submit_all(
        self, commands: Iterable[SignedCommand], in_flight_max: int
    ) -> AsyncGenerator[Result, None]:
        """Publish commands in their order, at most `in_flight_max` unanswered; their results once
        certified, in the order of the commands."""

    async def outcome(self, signed: SignedCommand) -> Result | None:
        """What became of a command, as far as it can be read; None if it was never decided."""

    def submit_many(
        self, commands: AsyncIterator[SignedCommand], in_flight_max: int
    ) -> AsyncGenerator[tuple[SignedCommand, Result], None]:
        """Publish commands in their order; each with its result, once certified, as they come."""

    async def session(self, session: SessionId) -> Session | None:
        """One session, None if there is none."""

    def sessions(self, limit: int) -> AsyncGenerator[Session, None]:
        """Sessions by their ids, at most `limit`."""

    def events(
        self, session: SessionId, from_sequence: int, follow: bool = False
    ) -> AsyncGenerator[Event, None]:
        """Events from a sequence on; with `follow`, without an end."""

    def receipts(self, session: SessionId | None, claimed: bool) -> AsyncGenerator[Receipt, None]:
        """Receipts of a session, or of all, by position."""

    async def state(self, session: SessionId, at_sequence: int | None) -> State | None:
        """The state at a sequence, or at the head; None if there is no such session."""

    async def export(self, session: SessionId, file: Path) -> Verdict:
        """Write the session's export, whole and verified, or leave no trace of it."""

    async def status(self) -> Status:
        """What the read side holds."""


class Operators(Protocol):
    """A validator that takes the operators' decisions; `Unavailable` when it does not certify."""

    async def governance(self) -> Governance:
        """What was decided so far."""

    async def agreed_governance(self) -> Governance:
        """What was decided so far, as more validators say than may lie."""

    async def log(self) -> LogStands:
        """Where the log stands: what is certified of it, and what the broker has."""

    async def submit(self, signed_control: bytes) -> Governed:
        """Bring a control record into a block; `Malformed` says why none may carry it."""
