"""Going on from a snapshot of others instead of executing everything since one's own.

Rules: docs/spec/peers.md §5. At a start, before anything else: the others are asked what they have,
the best offer is proved, fetched part by part, loaded and compared with the certified state root,
and only then taken. Whoever offers what does not hold is asked no more, and another one is.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import structlog

from nocturne.consensus import codec
from nocturne.consensus.fetching import Download, candidate, chosen, sources
from nocturne.consensus.measures import Measures
from nocturne.consensus.offers import (
    PART_BYTES,
    AskPart,
    AskSnapshot,
    Part,
    Snapshot,
    SnapshotOffer,
)
from nocturne.consensus.published import Published
from nocturne.consensus.snapshot_files import (
    Abandoned,
    PartsFile,
    chunks_of,
    drop_parts,
    pieces_of,
)
from nocturne.consensus.store import Store
from nocturne.core.certificates import ValidatorSet
from nocturne.core.certified_snapshot import Proved, load, prove
from nocturne.core.errors import Malformed, PeerFault
from nocturne.core.identifiers import format_hash
from nocturne.core.keys import Key, key_id
from nocturne.core.kinds import KindRegistry
from nocturne.runtime.settings import Founding

ANSWERS_SECONDS_MAX: Final = 2.0
"""For what others offer, where the own log would do as well: a start waits no longer."""
ASK_SECONDS: Final = 0.5
"""Between two questions to one that has not answered."""
URGENT_SECONDS: Final = 2.0
"""Between two rounds where nothing goes on without a snapshot: one may be being written."""
URGENT_SECONDS_MAX: Final = 300.0
"""From the beginning, where others have more and give no snapshot that holds."""
ALONE_SECONDS_MAX: Final = 15.0
"""Without an answer of anybody who has more: the others have had time to start, too."""
LOOK_SECONDS: Final = 0.05

log = structlog.get_logger()


class Joining:
    """One start's search for a snapshot."""

    def __init__(
        self,
        founding: Founding,
        registry: KindRegistry,
        store: Store,
        connected: Callable[[], frozenset[Key]],
        send: Callable[[Key, codec.Value], None],
        on_disk: Callable[[Callable[[], None]], Awaitable[None]],
        measures: Measures,
    ) -> None:
        """`on_disk` runs what touches the journal, in its turn."""
        self._founding = founding
        self._registry = registry
        self._store = store
        self._connected = connected
        self._send = send
        self._on_disk = on_disk
        self._measures = measures
        self._asked: dict[Key, float] = {}
        self._answers: dict[Key, SnapshotOffer] = {}
        self._refused: set[Key] = set()
        self._lost: set[bytes] = set()
        """Candidates that nobody who offered them gave. Each costs a key its place among those that
        are asked, so there are no more of them than keys.
        """
        self._download: Download | None = None
        self._came: list[Part] = []
        self._abandon = threading.Event()
        self._alone_since = 0.0

    def hear(self, sender: Key, value: SnapshotOffer | Part) -> None:
        """Another validator answers. What was not asked for is not kept."""
        if isinstance(value, SnapshotOffer):
            if sender in self._asked:
                self._answers.setdefault(sender, value)
            return
        if self._download is None:
            return
        try:
            if self._download.take(sender, value):
                self._came.append(value)
        except PeerFault as fault:
            self._refuse(sender, "part", str(fault))

    async def run(self, height: int, validators: ValidatorSet, own: Key, urgent: bool) -> bool:
        """Look for a snapshot above `height`, which is committed here; whether the journal goes on
        from one now: then it is to be read again.

        `urgent`: the own log lacks what comes after `height`. Then this asks on until a quorum,
        itself counted, has nothing above it, nobody answers who has, or the time is over. Else
        nobody is waited for that does not answer at once.
        """
        began = self._alone_since = time.monotonic()
        self._abandon.clear()
        try:
            while True:
                await self._ask(height, validators, own, urgent)
                best = chosen(self._offers(), height, urgent, validators, self._lost)
                if best is not None and await self._take(best):
                    return True
                if best is None:
                    now = time.monotonic()
                    late = now - began >= URGENT_SECONDS_MAX
                    if not urgent or late or self._is_hopeless(height, validators, own, now):
                        drop_parts(self._store.folder)
                        return False
                    log.info("waiting_for_a_snapshot", height=height)
                    await asyncio.sleep(URGENT_SECONDS)
        finally:
            self._abandon.set()
            # Offers may have megabytes, and answers that come late are wanted no more.
            self._asked.clear()
            self._answers.clear()

    def _is_hopeless(self, height: int, validators: ValidatorSet, own: Key, now: float) -> bool:
        """Whether a quorum has nothing, now or later, or nobody has answered for some time that
        has.
        """
        nothing = {key for key, one in self._answers.items() if one.height <= height} | {own}
        helpful = {key: one for key, one in self._answers.items() if key not in self._refused}
        if any(one.height > height for one in helpful.values()):
            self._alone_since = now
        return (
            len(nothing.intersection(validators.keys)) >= validators.quorum
            or now - self._alone_since >= ALONE_SECONDS_MAX
        )

    def _offers(self) -> dict[Key, Snapshot]:
        return {
            key: one.snapshot
            for key, one in self._answers.items()
            if one.snapshot is not None and key not in self._refused
        }

    async def _ask(self, height: int, validators: ValidatorSet, own: Key, urgent: bool) -> None:
        """Until everyone who is there has answered and a quorum is, or the time is over."""
        self._asked.clear()
        self._answers.clear()
        end = time.monotonic() + ANSWERS_SECONDS_MAX
        while (now := time.monotonic()) < end:
            for key in self._connected():
                if key not in self._answers and now - self._asked.get(key, 0.0) >= ASK_SECONDS:
                    self._asked[key] = now
                    self._send(key, AskSnapshot(height, urgent))
            answered = self._answers.keys() | {own}
            is_quorum = len(answered & set(validators.keys)) >= validators.quorum
            if is_quorum and self._connected() <= answered:
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def _take(self, best: Snapshot) -> bool:
        """Prove, fetch, load and take it; False when something of it does not hold."""
        started = time.monotonic()
        offers = self._offers()
        try:
            proved = await asyncio.to_thread(
                prove, best.claim(), self._founding.genesis, self._founding.ledger_id
            )
        except Malformed as fault:
            for key in [key for key, one in offers.items() if one == best]:
                self._refuse(key, "claim", str(fault))
            return False
        keys = sources(offers, best)
        parts = await asyncio.to_thread(PartsFile, self._store.folder, best.manifest)
        try:
            if not await self._fetch(best, parts, keys):
                return False
            try:
                await asyncio.to_thread(self._load, proved, parts)
            except Malformed as fault:
                for key in keys:
                    self._refuse(key, "state", str(fault))
                parts.remove()
                return False
            await self._on_disk(partial(self._join, best, parts))
            parts.remove()
        finally:
            parts.close()
        self._measures.snapshots_joined.inc()
        log.info(
            "joined",
            height=best.height,
            bytes=best.manifest.size,
            seconds=round(time.monotonic() - started, 3),
        )
        return True

    async def _fetch(self, best: Snapshot, parts: PartsFile, keys: list[Key]) -> bool:
        """Until every part is on the disk; False when nobody gives them."""
        present = await asyncio.to_thread(parts.present)
        download = self._download = Download(best.manifest, present, keys)
        log.info(
            "fetching_a_snapshot",
            height=best.height,
            bytes=best.manifest.size,
            here_bytes=len(present) * PART_BYTES,
            offered_by=len(keys),
        )
        try:
            while True:
                came, self._came = self._came, []
                for part in came:
                    await asyncio.to_thread(parts.put, part.index, part.data)
                    self._measures.snapshot_bytes_fetched.inc(len(part.data))
                if download.is_done and not self._came:
                    return True
                for key, index in download.asks(time.monotonic()):
                    self._send(key, AskPart(download.digest, index))
                for key in download.slow:
                    self._refuse(key, "slow", "it gave no parts in time, or too few")
                if download.is_lost:
                    self._lost.add(candidate(best))
                    return False
                if not self._came:
                    await asyncio.sleep(LOOK_SECONDS)
        finally:
            self._download = None
            self._came.clear()

    def _load(self, proved: Proved, parts: PartsFile) -> None:
        """In a thread. What is loaded is read again from the file that it goes to."""
        load(proved, self._founding.data, self._chunks(parts), self._registry)

    def _chunks(self, parts: PartsFile) -> Any:
        for chunk in chunks_of(parts.path):
            if self._abandon.is_set():
                raise Abandoned
            yield chunk

    def _join(self, best: Snapshot, parts: PartsFile) -> None:
        known = best.published_height
        published = Published(known, best.published_offset) if known >= best.height else None
        content = pieces_of(parts.path)
        self._store.join(best.block, best.changes, published, content, self._abandon)

    def _refuse(self, key: Key, cause: str, reason: str) -> None:
        """Ask this one no more, at this start."""
        if key in self._refused:
            return
        self._refused.add(key)
        if self._download is not None:
            self._download.drop(key)
        self._measures.snapshots_refused.labels(cause).inc()
        log.warning(
            "snapshot_refused", key=format_hash(key_id(key)), cause=cause, reason=reason[:200]
        )
