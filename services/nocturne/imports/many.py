"""Bring records into their sessions: many sessions at once, each in order, each record once.

Rules: docs/guides/importing.md, run again. The source is read in rounds. In a round every session
gets what it lacks, until the ledger refuses one of its commands because one before it got lost, or
somebody else wrote; the rest of that session waits for the next round. What is kept of a session
is a number and a hash, never its records.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, closing
from dataclasses import dataclass
from typing import Final, Protocol

from nocturne.client.building import Author
from nocturne.client.results import Committed, Refused, Result, Session, Status, Undecided
from nocturne.core.commands import Opening, SignedCommand
from nocturne.core.encoding import sha256, u64, variable
from nocturne.core.errors import NocturneError, Unavailable
from nocturne.core.events import Event
from nocturne.core.genesis import Genesis
from nocturne.core.identifiers import LedgerId, SessionId
from nocturne.imports.drafts import Draft, attempt_of, command_of, payload_bytes_max
from nocturne.imports.into import ImportRefused, check_attempt, mends
from nocturne.imports.records import CONTENT_TYPE, Record, Source, SourceFault, record_name

DEADLINE_SECONDS: Final = 120.0
"""Longer than a ledger takes to start again, broker included."""
IN_FLIGHT_MAX: Final = 1024
"""Commands unanswered at a time: half of what a block may hold, while another is certified."""
BATCH_RECORDS_MAX: Final = 64
"""Records between two chances for everything else in the event loop: about 10 ms."""
LOOKS_AT_ONCE_MAX: Final = 32
"""Questions for where a session stands: as many as keep a query service busy."""
SESSIONS_MAX: Final = 1_000_000
"""Sessions of one source: about 400 bytes are kept of each."""
SILENCE_SECONDS_MAX: Final = 60.0
"""A round without anything read, sent or answered; the client itself gives up sooner."""
PAUSE_SECONDS: Final = 0.1
PAUSE_SECONDS_MAX: Final = 2.0
LOOK_SECONDS: Final = 0.1
LOOK_SECONDS_MAX: Final = 50.0
"""Until the read side shows what the ledger has, and all events of a session are read."""


class Target(Protocol):
    """The ledger that an import writes to."""

    @property
    def ledger_id(self) -> LedgerId:
        """The hash of the genesis."""

    @property
    def genesis(self) -> Genesis:
        """Limits and kinds."""

    def submit_many(
        self, commands: AsyncIterator[SignedCommand], in_flight_max: int
    ) -> AsyncGenerator[tuple[SignedCommand, Result], None]:
        """Publish in order; each command with its result, once certified, as they come."""

    async def session(self, session: SessionId) -> Session | None:
        """The session as the read side has it."""

    async def status(self) -> Status:
        """How far the read side is."""

    def events(self, session: SessionId, from_sequence: int) -> AsyncGenerator[Event, None]:
        """The events of a session that exists."""


class NotThisSource(NocturneError):  # noqa: N818
    """A session holds something else than the source: says which, and the way out."""


class NoSuchKind(NocturneError):  # noqa: N818
    """The ledger's genesis lacks the kind that the sessions are to have."""


@dataclass(frozen=True, slots=True)
class Brought:
    """How many events an import wrote, how many were there before, and in how many sessions."""

    imported: int
    skipped: int
    sessions: int


class ImportStopped(NocturneError):  # noqa: N818
    """The source broke off at `fault`; all records before it are in the ledger: `brought`."""

    def __init__(self, fault: SourceFault, brought: Brought) -> None:
        super().__init__(str(fault))
        self.fault = fault
        self.brought = brought


async def bring_all(
    target: Target,
    source: Source,
    kind: str,
    author: Author,
    progress: Callable[[int], None] = lambda _: None,
    deadline_seconds: float = DEADLINE_SECONDS,
) -> Brought:
    """Write every record of `source` that its session lacks; sessions that do not exist are opened
    with the newest version of `kind`.

    `progress` is told how many records are in the ledger. Whatever of the ledger is away is asked
    again; when nothing came of that for `deadline_seconds`: `Unavailable`, and running again goes
    on. `ImportStopped` when the source is broken, `NotThisSource` when a session holds something
    else, `ImportRefused` when the ledger refuses what no second try would change.
    """
    opening = Opening(kind, _newest(target.genesis, kind))
    return await _Bringing(target, source, opening, author, progress).run(deadline_seconds)


def _newest(genesis: Genesis, kind: str) -> int:
    versions = [entry.version for entry in genesis.kinds if entry.name == kind]
    if not versions:
        known = ", ".join(sorted({entry.name for entry in genesis.kinds}))
        raise NoSuchKind(f"This ledger has no session kind {kind!r}; it has {known}.")
    return max(versions)


@dataclass(slots=True)
class _Lane:
    """One session, as far as the import knows it.

    `read`, `name` and `sent` are of this round: records read, the last one's name, the last one
    sent. `done` events are known to be this source's. The read side showed `shown` events, and
    those after `done` have `shown_digest`; `asked` says that it need not be asked again. `digest`
    is what the source says of the same events, as far as it is read. The ledger itself said that
    there are at least `floor` events.
    """

    read: int = 0
    name: bytes = b""
    sent: int = 0
    done: int = 0
    shown: int = 0
    shown_digest: bytes = b""
    digest: bytes = b""
    asked: bool = False
    met: bool = False
    floor: int = 0
    attempt: int = 0
    held: bool = False


class _Bringing:
    """One import."""

    def __init__(
        self,
        target: Target,
        source: Source,
        opening: Opening,
        author: Author,
        progress: Callable[[int], None],
    ) -> None:
        self._target = target
        self._source = source
        self._opening = opening
        self._author = author
        self._progress = progress
        self._bytes_max = payload_bytes_max(target.genesis.limits)
        self._lanes: dict[SessionId, _Lane] = {}
        self._looks = asyncio.Semaphore(LOOKS_AT_ONCE_MAX)
        self._imported = 0
        self._skipped = 0
        self._held: Refused | str | None = None
        self._fault: SourceFault | None = None
        self._alive_at = 0.0
        self._failing_since: float | None = None
        self._pauses = 0
        self._height = 0

    async def run(self, deadline_seconds: float) -> Brought:
        """Rounds until nothing lacks."""
        while True:
            trouble: Exception
            try:
                await self._round()
                if self._held is None:
                    break
                held = self._held
                trouble = Unavailable(held) if isinstance(held, str) else self._refused(held)
            except (Unavailable, TimeoutError) as fault:
                trouble = fault
            await self._pause(trouble, deadline_seconds)
        await self._until_readable()
        brought = Brought(self._imported, self._skipped, len(self._lanes))
        if self._fault is not None:
            raise ImportStopped(self._fault, brought) from self._fault
        return brought

    async def _pause(self, trouble: Exception, deadline_seconds: float) -> None:
        """Wait before the next round; give up when rounds have come to nothing for too long."""
        now = asyncio.get_running_loop().time()
        self._failing_since = self._failing_since or now
        if now - self._failing_since >= deadline_seconds:
            if isinstance(trouble, ImportRefused):
                raise trouble
            raise Unavailable(
                f"For {deadline_seconds:g} s no event could be written ({trouble}): "
                f"{self._imported} were imported, and running the import again goes on there."
            ) from trouble
        self._pauses += 1
        bound = min(PAUSE_SECONDS * self._pauses, PAUSE_SECONDS_MAX)
        await asyncio.sleep(bound * random.uniform(0.5, 1.0))

    async def _round(self) -> None:
        """Read the source once, and send what lacks."""
        for lane in self._lanes.values():
            unknown = lane.sent > lane.done or lane.floor > lane.done
            lane.asked = lane.asked and not unknown
            lane.read, lane.name, lane.sent, lane.held = 0, b"", 0, False
            lane.digest = b""
        self._held = self._fault = None
        self._touch()
        submitted = self._target.submit_many(self._commands(), IN_FLIGHT_MAX)
        async with aclosing(submitted) as results:
            async for signed, result in self._alive(results):
                self._take(signed, result)
        await self._check_short()

    # What is sent ------------------------------------------------------------------------------

    async def _commands(self) -> AsyncGenerator[SignedCommand, None]:
        for batch in self._batches():
            self._touch()
            await self._look_at(batch)
            for record in batch:
                signed = self._command(record)
                if signed is not None:
                    yield signed
            # The one place where a long stretch of records that are there already lets others run.
            await asyncio.sleep(0)

    def _batches(self) -> Iterator[list[Record]]:
        """The source's records; a fault in it is kept for later and ends them."""
        batch: list[Record] = []
        with closing(self._source.records()) as records:
            try:
                for record in records:
                    self._check(record)
                    batch.append(record)
                    if len(batch) == BATCH_RECORDS_MAX:
                        yield batch
                        batch = []
            except SourceFault as fault:
                self._fault = fault
        yield batch

    def _check(self, record: Record) -> None:
        if len(record.payload) > self._bytes_max:
            raise SourceFault(
                record.place,
                f"this event takes {len(record.payload)} bytes, and the ledger takes at most "
                f"{self._bytes_max}: leave parts of it out, or found a ledger that takes more.",
            )
        if record.session not in self._lanes:
            if len(self._lanes) == SESSIONS_MAX:
                raise SourceFault(
                    record.place, f"more than {SESSIONS_MAX} sessions in one source: split it."
                )
            self._lanes[record.session] = _Lane()

    def _command(self, record: Record) -> SignedCommand | None:
        """The command for a record; None if it is there, or its session waits for a round."""
        lane = self._lanes[record.session]
        lane.read += 1
        lane.name = record_name(lane.name, record)
        number = lane.read
        if number <= lane.done:
            return None
        if number <= lane.shown:
            lane.digest = _digest(
                lane.digest, record.event_type, CONTENT_TYPE, record.occurred_at, record.payload
            )
            if number == lane.shown:
                self._check_is_ours(record.session, lane, lane.shown_digest)
            return None
        if lane.held:
            return None
        check_attempt(record.session, number, lane.attempt)
        lane.sent = number
        draft = Draft(
            number,
            lane.name,
            record.event_type,
            CONTENT_TYPE,
            record.payload,
            record.occurred_at,
        )
        return command_of(
            draft,
            self._target.ledger_id,
            record.session,
            self._opening,
            self._author,
            lane.attempt,
        )

    # What comes back ---------------------------------------------------------------------------

    def _take(self, signed: SignedCommand, result: Result) -> None:
        session = signed.command.session
        lane = self._lanes[session]
        if isinstance(result, Committed):
            self._height = max(self._height, result.place.height)
        match result:
            case Committed() if result.sequence <= lane.done + 1:
                self._settle(lane, result.sequence)
            case Committed():
                # One before it has no outcome of ours: whose event that is must be looked at.
                self._held = self._held or "a command was overtaken"
                lane.floor = max(lane.floor, result.sequence)
                lane.held = True
            case Refused() if mends(result):
                self._held = result
                head = result.header.head
                lane.floor = max(lane.floor, 0 if head is None else head.sequence)
                lane.attempt += not lane.held
                lane.held = True
            case Refused():
                raise self._refused(result)
            case Undecided():
                raise Unavailable("a command was not certified in time")

    def _settle(self, lane: _Lane, sequence: int, were_there: bool = False) -> None:
        """The first `sequence` events of a session are known to be this source's."""
        new = max(0, sequence - lane.done)
        lane.done += new
        if were_there:
            self._skipped += new
        else:
            self._imported += new
        if new:
            self._failing_since, self._pauses = None, 0
            self._progress(self._imported + self._skipped)

    async def _until_readable(self) -> None:
        """Wait a moment for the read side: who reads or imports next finds what this one wrote."""
        try:
            async with asyncio.timeout(LOOK_SECONDS_MAX):
                while True:
                    status = await self._target.status()
                    if status.applied_through.height >= self._height:
                        return
                    await asyncio.sleep(LOOK_SECONDS)
        except (Unavailable, TimeoutError):
            # All events are certified, whether or not anybody can read them just now.
            return

    def _refused(self, refused: Refused) -> ImportRefused:
        session = refused.header.session
        return ImportRefused(SessionId(session), self._lanes[SessionId(session)].done + 1, refused)

    # Where a session stands --------------------------------------------------------------------

    async def _look_at(self, batch: list[Record]) -> None:
        new = {record.session for record in batch if not self._lanes[record.session].asked}
        looks = [
            asyncio.ensure_future(self._look(session, self._lanes[session])) for session in new
        ]
        try:
            await asyncio.gather(*looks)
        finally:
            for look in looks:
                look.cancel()

    async def _look(self, session: SessionId, lane: _Lane) -> None:
        """Ask the read side, until it shows what the ledger is known to have."""
        async with self._looks, asyncio.timeout(LOOK_SECONDS_MAX):
            while True:
                found = await self._target.session(session)
                shown = 0 if found is None else found.sequence
                if shown >= lane.floor:
                    break
                await asyncio.sleep(LOOK_SECONDS)
            if found is not None and found.kind != self._opening.kind:
                raise NotThisSource(
                    f"{session} is open already, and of kind {found.kind}, not "
                    f"{self._opening.kind}: import under another prefix."
                )
            if shown > lane.done:
                digest, attempt = await self._digest_of(session, lane.done + 1, shown)
                lane.shown_digest = digest
                lane.attempt = max(lane.attempt, attempt)
            lane.shown = shown
            lane.asked = True

    async def _digest_of(self, session: SessionId, first: int, last: int) -> tuple[bytes, int]:
        """A hash over what the events from `first` to `last` say, and the author's last attempt.

        What they say, and not their ids: those follow from the source, so whoever has it can put
        anything else under them. Others' ids name no attempt of this author, for the same reason.
        """
        digest, attempt, number = b"", 0, first
        async with aclosing(self._target.events(session, first)) as events:
            async for event in events:
                self._touch()
                header = event.header
                if header.author == self._author.id:
                    attempt = max(attempt, attempt_of(event.command.command_id))
                digest = _digest(
                    digest,
                    header.event_type,
                    header.content_type,
                    header.occurred_at,
                    event.payload.data,
                )
                if number == last:
                    return digest, attempt
                number += 1
        raise Unavailable(f"event {number} of {session} is not readable")

    def _check_is_ours(self, session: SessionId, lane: _Lane, digest: bytes) -> None:
        """The events from `lane.done` to `lane.read` say what this source says."""
        if digest != lane.digest:
            raise NotThisSource(
                f"The first {lane.read} events of {session} are not what the source says: import "
                "under another prefix, or bring back the source that was imported before."
            )
        self._settle(lane, lane.read, were_there=not lane.met)
        lane.met = True

    async def _check_short(self) -> None:
        """Sessions that hold more than the source says must begin with what it says."""
        for session, lane in self._lanes.items():
            if self._fault is None and lane.done < lane.read < lane.shown:
                digest, _ = await self._digest_of(session, lane.done + 1, lane.read)
                self._check_is_ours(session, lane, digest)

    # Bounds ------------------------------------------------------------------------------------

    def _touch(self) -> None:
        self._alive_at = asyncio.get_running_loop().time()

    async def _alive(
        self, results: AsyncGenerator[tuple[SignedCommand, Result], None]
    ) -> AsyncIterator[tuple[SignedCommand, Result]]:
        """The results, as long as anything is read, sent or answered."""
        loop = asyncio.get_running_loop()
        while True:
            answer = asyncio.ensure_future(anext(results, None))
            try:
                while not answer.done():
                    left = self._alive_at + SILENCE_SECONDS_MAX - loop.time()
                    if left <= 0:
                        raise Unavailable(f"no answer for {SILENCE_SECONDS_MAX:g} s")
                    await asyncio.wait({answer}, timeout=left)
            finally:
                if not answer.done():
                    answer.cancel()
                    await asyncio.wait({answer})
            self._touch()
            result = answer.result()
            if result is None:
                return
            yield result


def _digest(
    before: bytes, event_type: str, content_type: str, occurred_at: int, payload: bytes
) -> bytes:
    """A hash over what one event says, and over those before it."""
    return sha256(
        variable(before)
        + variable(event_type.encode())
        + variable(content_type.encode())
        + u64(occurred_at)
        + variable(payload)
    )
