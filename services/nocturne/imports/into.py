"""Bring drafts into a session: in order, each once, whatever happens between two runs.

Rules: docs/guides/cli.md, import git. The ledger itself keeps order and uniqueness: every command
expects the sequence before it and has an id of its own. This file only decides what to ask next.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Protocol

from nocturne.client.building import Author
from nocturne.client.results import Committed, Refused, Result, Undecided
from nocturne.core.commands import Opening, SignedCommand
from nocturne.core.errors import NocturneError, Unavailable
from nocturne.core.events import Event
from nocturne.core.genesis import Genesis
from nocturne.core.identifiers import LedgerId, SessionId
from nocturne.core.receipts import Reason
from nocturne.imports.drafts import ATTEMPTS_END, Draft, attempt_of, command_of

IN_FLIGHT_MAX: Final = 128
"""Commands unanswered at a time: enough to fill a block while the last one is certified."""
STALLED_ROUNDS_MAX: Final = 16
"""Rounds without one event more, after which something is wrong that asking again does not mend."""
AGAIN_SECONDS: Final = 1.0
"""Between two runs of an import while the ledger is away."""
LOOKS_MAX: Final = 40
LOOK_SECONDS: Final = 0.25
"""Ten seconds for the projection to show what was certified before; it takes milliseconds."""

# Somebody else wrote, or a command before this one got lost: look again where the session stands.
_LOOK_AGAIN: Final = frozenset(
    {Reason.DUPLICATE_SEQ, Reason.REPEATED, Reason.ID_REUSED, Reason.STALE_ID}
)


class Target(Protocol):
    """The ledger that an import writes to."""

    @property
    def ledger_id(self) -> LedgerId:
        """The hash of the genesis."""

    @property
    def genesis(self) -> Genesis:
        """Limits and kinds."""

    def submit_all(
        self, commands: Iterable[SignedCommand], in_flight_max: int
    ) -> AsyncGenerator[Result, None]:
        """Publish in order; results, once certified, in the same order."""

    def events(self, session: SessionId, from_sequence: int) -> AsyncGenerator[Event, None]:
        """The session's events; none when it does not exist."""


class ImportRefused(NocturneError):  # noqa: N818
    """The ledger refused what no second try would change: `refused` says why. None where there is
    no id left to ask under; then nothing was asked.
    """

    def __init__(self, session: SessionId, number: int, refused: Refused | None) -> None:
        super().__init__(
            f"event {number} of {session} was refused: {refused.reason.name}"
            if refused is not None
            else f"event {number} of {session} cannot be asked for: all {ATTEMPTS_END} attempts "
            "of this author there are used up; import under another name or as another author"
        )
        self.session = session
        self.number = number
        self.refused = refused


@dataclass(frozen=True, slots=True)
class Place:
    """Where an import goes, and as whom."""

    session: SessionId
    opening: Opening
    author: Author


@dataclass(frozen=True, slots=True)
class Imported:
    """How many events an import wrote, and how many were there already."""

    imported: int
    skipped: int


async def bring(
    target: Target,
    place: Place,
    name_of: Callable[[Event], str],
    drafts_after: Callable[[Sequence[str]], Iterable[Draft]],
    progress: Callable[[int], None],
) -> Imported:
    """Write every draft that the session lacks.

    `name_of` reads the source's name of an event that is there; `drafts_after` gives, in order,
    the drafts that lack when those names are there, and raises when they are none of its own.
    `progress` is told how many events the session has. `Unavailable` when the ledger does not
    answer in time: running again goes on where this ended.
    """
    written = 0
    stalled = 0
    there, attempt = await _names(target, place, name_of, 0)
    while True:
        progress(len(there))
        result = await _round(target, place, drafts_after(there), attempt, len(there), progress)
        written += result.written
        if result.refused is None:
            return Imported(written, result.last - written)
        before = len(there)
        there, last = await _names(target, place, name_of, _head(result))
        # Never back to an attempt of before: its ids are below those that were refused meanwhile.
        attempt = max(attempt + 1, last)
        stalled = 0 if len(there) > before else stalled + 1
        if stalled == STALLED_ROUNDS_MAX:
            raise ImportRefused(place.session, len(there) + 1, result.refused)


async def until_done(
    attempt: Callable[[Callable[[int], None]], Awaitable[Imported]],
    progress: Callable[[int], None],
    deadline_seconds: float,
) -> Imported:
    """Run a resumable import until it ends; while the ledger is away run it again, and give up
    (`Unavailable`) when no event was added for `deadline_seconds`.

    `attempt` gets the function that it tells how many events the session has.
    """
    loop = asyncio.get_running_loop()
    counts: list[int] = []
    most = written = 0
    grew_at = loop.time()

    def told(count: int) -> None:
        nonlocal most, grew_at
        # The first and the last count of an attempt are what it found and what it left.
        counts[1:] = [count]
        if count > most:
            most, grew_at = count, loop.time()
        progress(count)

    while True:
        counts.clear()
        try:
            done = await attempt(told)
        except Unavailable:
            if loop.time() - grew_at >= deadline_seconds:
                raise
            written += counts[-1] - counts[0] if counts else 0
            await asyncio.sleep(AGAIN_SECONDS)
        else:
            return Imported(done.imported + written, done.skipped - written)


@dataclass(frozen=True, slots=True)
class _Round:
    """`last` is the sequence reached; with `refused` there is more to do."""

    written: int
    last: int
    refused: Refused | None


async def _round(
    target: Target,
    place: Place,
    drafts: Iterable[Draft],
    attempt: int,
    at: int,
    progress: Callable[[int], None],
) -> _Round:
    """Ask for the drafts, under the ids of this attempt, until one is refused."""
    commands = (_command(target, place, draft, attempt) for draft in drafts)
    in_flight_max = min(IN_FLIGHT_MAX, max(1, target.genesis.limits.id_window // 2))
    written = 0
    async with aclosing(target.submit_all(commands, in_flight_max)) as results:
        async for result in results:
            match result:
                case Committed():
                    at += 1
                    written += not result.repeated
                    progress(at)
                case Refused() if mends(result):
                    return _Round(written, at, result)
                case Refused():
                    raise ImportRefused(place.session, at + 1, result)
                case Undecided():
                    raise Unavailable(
                        f"The ledger did not certify event {at + 1} of {place.session} in time: "
                        "run the import again, it goes on where it ended."
                    )
    return _Round(written, at, None)


def _command(target: Target, place: Place, draft: Draft, attempt: int) -> SignedCommand:
    check_attempt(place.session, draft.number, attempt)
    return command_of(draft, target.ledger_id, place.session, place.opening, place.author, attempt)


def check_attempt(session: SessionId, number: int, attempt: int) -> None:
    """`ImportRefused` when a command id cannot hold this attempt."""
    if attempt >= ATTEMPTS_END:
        raise ImportRefused(session, number, None)


def mends(refused: Refused) -> bool:
    """Asking again from where the session stands may help: for an unopened one it may be that the
    command that opens it got lost.
    """
    unopened = refused.reason is Reason.NOT_A_MEMBER and refused.header.head is None
    return unopened or refused.reason in _LOOK_AGAIN


def _head(result: _Round) -> int:
    """The sequence that the session is known to have reached, whatever a reader shows yet."""
    head = None if result.refused is None else result.refused.header.head
    return result.last if head is None else max(result.last, head.sequence)


async def _names(
    target: Target, place: Place, name_of: Callable[[Event], str], at_least: int
) -> tuple[list[str], int]:
    """The names of all events, once a reader shows at least so many (it trails the ledger), and
    the last attempt that one of this author came from: the ids of others are theirs to choose.
    """
    for _ in range(LOOKS_MAX):
        names: list[str] = []
        attempt = 0
        async for event in target.events(place.session, 1):
            names.append(name_of(event))
            if event.header.author == place.author.id:
                attempt = max(attempt, attempt_of(event.command.command_id))
        if len(names) >= at_least:
            return names, attempt
        await asyncio.sleep(LOOK_SECONDS)
    raise Unavailable(
        f"The projection shows {len(names)} of at least {at_least} events of {place.session}: run "
        "the import again once 'nocturne status' shows no lag."
    )
