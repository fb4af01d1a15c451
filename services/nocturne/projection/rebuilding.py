"""Rebuild the read model beside the live one, compare the two, swap.

Rules: docs/spec/services.md, rebuild. The same reading, folding and writing as the projection's,
from the first record on, into a schema of its own. It never passes the live one: at the end both
stand at one height, and every row must be the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, Final, TypeVar

import psycopg
import structlog

from nocturne.core.errors import NocturneError, Unavailable
from nocturne.projection.comparing import Comparison
from nocturne.projection.fold import FirstState
from nocturne.projection.reading import REBUILD_GROUP, TOPICS, Reading, partitions_of
from nocturne.projection.rows import batch_of
from nocturne.projection.store import Standing, Store
from nocturne.projection.swapping import OLD, REBUILT, Exchange, Live, OnlyOne, prepare
from nocturne.runtime.cluster import Cluster
from nocturne.runtime.kafka import watermarks
from nocturne.runtime.postgres import Database

TRANSACTION_RECORDS_MAX: Final = 8192
"""Records of one transaction: nobody reads yet what is written."""
NEAR_BLOCKS: Final = 4
"""So close to the live one, what lacks is applied in less time than an attempt to swap takes."""
QUIET_SECONDS: Final = 5.0
"""Everything is read and nothing has become whole for so long: the log holds no further block."""
LOOK_SECONDS: Final = 0.1
TELL_SECONDS: Final = 0.25
HOLD_SECONDS_MAX: Final = 5.0
"""For the last blocks, while the live one's commits are held; then they go on, and it is tried
again."""
ATTEMPTS_MAX: Final = 120
PAUSE_SECONDS: Final = 0.25
"""Between attempts to swap, at least: readers and the projection go first."""
RETRY_SECONDS_MAX: Final = 120.0
"""How long PostgreSQL may be away."""
RATE_SECONDS: Final = 10.0
"""Over which the speed is told."""

Result = TypeVar("Result")
Tell = Callable[["Progress"], None]

log = structlog.get_logger()


class Outcome(StrEnum):
    """How a rebuild ends."""

    SWAPPED = "swapped"
    """Equal, and live now."""
    REPLACED = "replaced"
    """Different, and live now all the same."""
    DIFFERS = "differs"
    """Different: nothing was swapped, and what was rebuilt is kept for the next run."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the person asks for."""

    replace: bool = False
    keep_old: bool = False
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is. `total` is the live one's height, None when it has none to say."""

    stage: str
    height: int
    total: int | None
    events: int
    events_per_second: float
    eta_seconds: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """What a rebuild did. `went_on_from` is the height where an interrupted one was, or None."""

    outcome: Outcome
    went_on_from: int | None
    height: int
    blocks: int
    events: int
    seconds: float
    comparison: Comparison
    attempts: int = 0
    commits_held_ms: float | None = None
    readers_held_ms: float | None = None
    kept: str | None = None


class _TryAgain(Exception):  # noqa: N818
    """Someone was inside for too long, or the last blocks did not come in time."""


class Rebuild:
    """One rebuild of one database."""

    def __init__(
        self,
        cluster: Cluster,
        database: Database,
        first_state: FirstState,
        wishes: Wishes,
        tell: Tell,
    ) -> None:
        self._cluster = cluster
        self._first_state = first_state
        self._wishes = wishes
        self._tell_person = tell
        self._closing = threading.Event()
        self._store = Store(database, self._closing, REBUILT, OnlyOne())
        self._exchange = Exchange(database)
        # One thread: what is begun there ends before a connection is closed.
        self._database = ThreadPoolExecutor(1, "postgres")
        self._began = time.monotonic()
        self._blocks = self._events = 0
        self._speed = _Speed()
        self._told = 0.0
        self._ends: Mapping[tuple[str, int], int] = {}
        self._exhausted = False
        self._kept: str | None = None
        self._height, self._digest, self._time = 0, b"", 0
        self._reading: Reading | None = None

    async def run(self) -> Report:
        """From the beginning, or where an interrupted one was, to the swap. `RebuildRuns`,
        `MigrationFault`, `NocturneError`: refused; `Unavailable`: Kafka or PostgreSQL is away.
        """
        try:
            self._ends = await asyncio.to_thread(self._log_ends)
            went_on, standing = await self._in_database(self._start)
            self._height, self._digest, self._time = standing.height, standing.digest, standing.time
            self._reading = Reading(self._cluster, REBUILD_GROUP, self._first_state, standing)
            self._reading.open()
            try:
                return await self._beside_reading(standing.height if went_on else None)
            finally:
                await self._reading.close()
        finally:
            self._closing.set()
            with contextlib.suppress(psycopg.Error):
                await asyncio.to_thread(self._exchange.interrupt)
            await self._in_database(self._let_go)
            self._database.shutdown(wait=False)

    def _log_ends(self) -> dict[tuple[str, int], int]:
        """The offsets after the log's last records. `NocturneError` when it has lost the first."""
        ends = {}
        for topic in TOPICS:
            for partition in partitions_of(topic, self._first_state.genesis.partitions):
                low, high = watermarks(self._cluster, topic, partition)
                if low > 0:
                    raise NocturneError(
                        f"partition {partition} of topic {topic} begins at offset {low}, expected "
                        "0: nothing can be rebuilt from a log without its beginning; restore it"
                    )
                ends[topic, partition] = high
        return ends

    def _start(self) -> tuple[bool, Standing]:
        ledger_id = self._first_state.ledger_id
        went_on = self._store.ask(
            lambda connection: prepare(connection, ledger_id, self._wishes.fresh), "be prepared"
        )
        return went_on, self._store.load(self._first_state)

    def _let_go(self) -> None:
        self._exchange.close()
        self._store.close()

    async def _beside_reading(self, went_on_from: int | None) -> Report:
        assert self._reading is not None
        work = asyncio.ensure_future(self._work(went_on_from))
        parts = [asyncio.ensure_future(part) for part in self._reading.parts()]
        everything: list[asyncio.Future[Any]] = [work, *parts]
        try:
            await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
            for part in parts:
                if part.done():
                    part.result()
            return await work
        finally:
            for one in everything:
                one.cancel()
            await asyncio.gather(*everything, return_exceptions=True)

    # Stages -------------------------------------------------------------------------------------

    async def _work(self, went_on_from: int | None) -> Report:
        found = Comparison()
        compared = await self._compared_bulk()
        if compared is None:
            # There is no live read model that anything could differ from, or that could answer.
            through = 0
        else:
            found, through = compared
        if found.differences and not self._wishes.replace:
            return self._report(Outcome.DIFFERS, went_on_from, found, 0)
        for attempt in range(1, ATTEMPTS_MAX + 1):
            await self._catch_up("catching up")
            self._tell("swapping", None)
            try:
                return await self._attempt(went_on_from, found, through, attempt)
            except (_TryAgain, psycopg.OperationalError) as fault:
                log.info("swap_tried_again", attempt=attempt, cause=str(fault).split("\n")[0])
                if await self._was_swapped():
                    return await self._ended(went_on_from, found, attempt, None)
            await asyncio.sleep(PAUSE_SECONDS * random.uniform(1.0, 2.0))
        raise Unavailable(
            f"the read model was in use at each of {ATTEMPTS_MAX} attempts to swap it: what was "
            "rebuilt is kept; run it again when there is less to do"
        )

    async def _compared_bulk(self) -> tuple[Comparison, int] | None:
        await self._catch_up("building")
        if not await self._asked(self._exchange.exists):
            return None
        through = self._height
        self._tell("comparing", None)
        return await self._asked(partial(self._exchange.compare_bulk, through)), through

    async def _attempt(
        self, went_on_from: int | None, found: Comparison, through: int, attempt: int
    ) -> Report:
        # The lock that makes this rebuild the only one is held by the connection that writes.
        await self._in_database(partial(self._store.ask, _is_there, "be asked"))
        if self._wishes.keep_old:
            self._kept = f"{OLD}_{await self._in_database(self._exchange.server_time)}"
        began = time.monotonic()
        try:
            live = await self._in_database(self._exchange.hold)
            began = time.monotonic()
            await self._reach(live)
            rest = await self._in_database(partial(self._exchange.compare_rest, through))
            found = found.then(rest)
            if found.differences and not self._wishes.replace:
                await self._in_database(self._exchange.release)
                return self._report(Outcome.DIFFERS, went_on_from, found, attempt)
            await self._in_database(partial(self._exchange.swap, self._kept))
        except BaseException:
            # The connection ends the transaction, whatever became of it.
            await self._in_database(self._exchange.close)
            raise
        held_ms = (time.monotonic() - began) * 1000
        return await self._ended(went_on_from, found, attempt, held_ms)

    async def _ended(
        self,
        went_on_from: int | None,
        found: Comparison,
        attempt: int,
        held_ms: float | None,
    ) -> Report:
        kept = self._kept
        if kept is None and not await self._asked(self._exchange.drop_old):
            kept = OLD
        outcome = Outcome.REPLACED if found.differences else Outcome.SWAPPED
        readers_ms = None if held_ms is None else self._exchange.readers_held_ms
        return self._report(outcome, went_on_from, found, attempt, held_ms, readers_ms, kept)

    async def _was_swapped(self) -> bool:
        return await self._asked(self._exchange.is_swapped)

    def _report(
        self,
        outcome: Outcome,
        went_on_from: int | None,
        found: Comparison,
        attempts: int,
        held_ms: float | None = None,
        readers_ms: float | None = None,
        kept: str | None = None,
    ) -> Report:
        return Report(
            outcome,
            went_on_from,
            self._height,
            self._blocks,
            self._events,
            time.monotonic() - self._began,
            found,
            attempts,
            held_ms,
            readers_ms,
            kept,
        )

    # Applying -----------------------------------------------------------------------------------

    async def _catch_up(self, stage: str) -> None:
        """Apply until the live one is near, or the log is at its end."""
        quiet_since = time.monotonic()
        while True:
            live = await self._asked(self._exchange.live)
            if live.height is not None and self._height >= live.height - NEAR_BLOCKS:
                return
            if await self._apply(live.height):
                quiet_since = time.monotonic()
                self._tell(stage, live.height)
            elif self._is_read() and time.monotonic() - quiet_since > QUIET_SECONDS:
                self._exhausted = True
                return
            else:
                await self._wait()

    async def _reach(self, live: Live) -> None:
        """Apply exactly what the live one has, while it stands still."""
        deadline = time.monotonic() + HOLD_SECONDS_MAX
        while live.height is not None and self._height < live.height and not self._exhausted:
            if await self._apply(live.height):
                continue
            if time.monotonic() > deadline:
                raise _TryAgain(f"block {self._height + 1} did not come in time")
            await self._wait()

    async def _apply(self, through: int | None) -> bool:
        assert self._reading is not None
        collector = self._reading.collector
        blocks = collector.take(TRANSACTION_RECORDS_MAX, through)
        refusals = collector.take_refusals()
        if not blocks and not refusals:
            return False
        at = (self._height, self._digest, self._time)
        batch = batch_of(*at, blocks, self._reading.low_waters(), refusals)
        # Room was made: whoever waits for it goes on while the transaction runs.
        self._reading.changed.set()
        await self._in_database(partial(self._store.write, at[:2], batch))
        self._height, self._digest, self._time = batch.height, batch.digest, batch.time
        self._blocks += batch.blocks
        self._events += batch.events
        self._speed.add(self._height, self._events)
        return bool(blocks)

    async def _wait(self) -> None:
        assert self._reading is not None
        self._reading.changed.clear()
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._reading.changed.wait()
        except TimeoutError:
            # The live one may have moved, which nothing here is told of.
            return

    def _is_read(self) -> bool:
        """Every record that was in the log at the beginning, and all known of since."""
        assert self._reading is not None
        following = self._reading.following()
        return all(following[place] >= end for place, end in self._ends.items()) and not any(
            self._reading.lags().values()
        )

    # The database -------------------------------------------------------------------------------

    async def _in_database(self, step: Callable[[], Result]) -> Result:
        # To its end, also when nobody waits any more: a connection is never used by two.
        return await asyncio.shield(
            asyncio.get_running_loop().run_in_executor(self._database, step)
        )

    async def _asked(self, step: Callable[[], Result]) -> Result:
        """The answer to what may be asked twice, asked again while PostgreSQL is away."""
        deadline = time.monotonic() + RETRY_SECONDS_MAX
        while True:
            try:
                return await self._in_database(step)
            except psycopg.OperationalError as fault:
                await self._in_database(self._exchange.close)
                if time.monotonic() > deadline:
                    cause = str(fault).strip().split("\n")[0]
                    raise Unavailable(f"PostgreSQL does not answer: {cause}") from fault
                await asyncio.sleep(PAUSE_SECONDS * random.uniform(1.0, 2.0))

    def _tell(self, stage: str, total: int | None) -> None:
        now = time.monotonic()
        if total is not None and now - self._told < TELL_SECONDS:
            return
        self._told = now
        blocks, events = self._speed.per_second()
        eta = None
        if total is not None and blocks > 0:
            eta = max(0, total - self._height) / blocks
        self._tell_person(Progress(stage, self._height, total, self._events, events, eta))


def _is_there(connection: psycopg.Connection) -> None:
    connection.execute("SELECT 1")


class _Speed:
    """Blocks and events a second, over the last `RATE_SECONDS`."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, int, int]] = []

    def add(self, height: int, events: int) -> None:
        """So far it is now."""
        now = time.monotonic()
        self._seen.append((now, height, events))
        while self._seen[0][0] < now - RATE_SECONDS:
            del self._seen[0]

    def per_second(self) -> tuple[float, float]:
        """(blocks, events); 0 while there is nothing to say."""
        if len(self._seen) < 2:
            return 0.0, 0.0
        (began, first, few), (ended, last, many) = self._seen[0], self._seen[-1]
        seconds = max(ended - began, 1e-3)
        return (last - first) / seconds, (many - few) / seconds
