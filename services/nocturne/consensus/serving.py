"""Giving snapshots and blocks to others: what there is, and its parts, one after the other.

Rules: docs/spec/peers.md §5, §6. Off the way of votes: parts are read by a thread, go one at a time
and at a bounded rate, and none goes to a validator that much is waiting for already.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog

from nocturne.consensus import codec
from nocturne.consensus.bodies import part_of
from nocturne.consensus.measures import Measures
from nocturne.consensus.offers import CONTENT_BYTES_MAX, AskPart, AskSnapshot, Part, SnapshotOffer
from nocturne.consensus.peer_bounds import Allowance
from nocturne.consensus.snapshot_files import SnapshotFile, is_offered, read_part
from nocturne.core.identifiers import Hash
from nocturne.core.keys import Key

PARTS_ASKED_MAX: Final = 4
"""Of one validator, waiting; past it the oldest goes, and is asked for again."""
BYTES_PER_SECOND: Final = 16 * 1024 * 1024
"""To all together: a tenth of what a core seals and sends."""
BYTES_BURST: Final = 1024 * 1024
WAITING_BYTES_MAX: Final = 1024 * 1024
"""Of what is to be said to a validator: above it, its parts wait, so that votes never do."""
OFFER_SECONDS: Final = 0.2
"""Between two offers to one validator: an offer may have megabytes of lines and hashes."""
TOLD_MAX: Final = 256
WAIT_SECONDS: Final = 0.05
OPEN_MAX: Final = 2
"""Snapshots that are given: the newest, and the one before for whoever is in the middle of it."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Open:
    found: SnapshotFile
    file: int


@dataclass(slots=True)
class _Asked:
    parts: deque[AskPart] = field(default_factory=deque)


class Serving:
    """What others may have of this validator's snapshots and blocks."""

    def __init__(
        self,
        newest: Callable[[], SnapshotFile | None],
        height: Callable[[], int],
        make: Callable[[], None],
        body: Callable[[Hash], bytes | None],
        send: Callable[[Key, codec.Value], None],
        waiting_bytes: Callable[[Key], int],
        measures: Measures,
    ) -> None:
        """`height` is that of the newest block here; `make` writes a snapshot of it, if one can be
        and none is being written; `body` is the record of a block that was executed here;
        `waiting_bytes` of what is to be said to a validator.
        """
        self._newest = newest
        self._height = height
        self._make = make
        self._body = body
        self._send = send
        self._waiting_bytes = waiting_bytes
        self._measures = measures
        self._newest_body: tuple[Hash, bytes] | None = None
        """What the last part was of."""
        self._open: OrderedDict[Hash, _Open] = OrderedDict()
        self._asked: dict[Key, _Asked] = {}
        self._told: OrderedDict[Key, float] = OrderedDict()
        self._more = asyncio.Event()
        self._is_reading = False
        self._allowance = Allowance(BYTES_PER_SECOND, BYTES_BURST, time.monotonic())

    def hear(self, sender: Key, value: AskSnapshot | AskPart) -> None:
        """Another validator asks."""
        if isinstance(value, AskSnapshot):
            now = time.monotonic()
            if now - self._told.get(sender, -OFFER_SECONDS) >= OFFER_SECONDS:
                self._told[sender] = now
                self._told.move_to_end(sender)
                if len(self._told) > TOLD_MAX:
                    self._told.popitem(last=False)
                self._send(sender, self._offer(value))
            return
        asked = self._asked.setdefault(sender, _Asked())
        asked.parts.append(value)
        if len(asked.parts) > PARTS_ASKED_MAX:
            asked.parts.popleft()
        self._more.set()

    async def run(self) -> None:
        """Give what was asked for, for ever; to one after the other, a part each."""
        try:
            while True:
                await self._more.wait()
                self._more.clear()
                while self._asked:
                    if not await self._round():
                        await asyncio.sleep(WAIT_SECONDS)
        finally:
            for one in self._open.values():
                os.close(one.file)
            self._open.clear()

    async def _round(self) -> bool:
        """One part to each that has room for it; whether any went."""
        went = False
        for key in list(self._asked):
            asked = self._asked[key]
            if not asked.parts:
                del self._asked[key]
            elif self._waiting_bytes(key) < WAITING_BYTES_MAX:
                await self._give(key, asked.parts.popleft())
                went = True
        return went

    async def _give(self, key: Key, ask: AskPart) -> None:
        self._look()
        self._bound()
        found = self._open.get(ask.digest)
        if found is None and (part := self._part_of_body(ask)) is not None:
            self._measures.block_bytes_given.inc(len(part))
            await self._give_part(key, ask, part)
            return
        if found is None or ask.index >= len(found.found.manifest.parts):
            # It is a snapshot that was here: whoever asks finds no part, and looks for another.
            return
        self._is_reading = True
        try:
            data = await asyncio.to_thread(partial(read_part, found.file, found.found, ask.index))
        finally:
            self._is_reading = False
        self._measures.snapshot_bytes_given.inc(len(data))
        await self._give_part(key, ask, data)

    def _part_of_body(self, ask: AskPart) -> bytes | None:
        held = self._newest_body
        if held is None or held[0] != ask.digest:
            encoded = self._body(ask.digest)
            if encoded is None:
                return None
            held = self._newest_body = (ask.digest, encoded)
        return part_of(held[1], ask.index)

    async def _give_part(self, key: Key, ask: AskPart, data: bytes) -> None:
        self._send(key, Part(ask.digest, ask.index, data))
        wait = self._allowance.pay(len(data), time.monotonic())
        if wait > 0:
            await asyncio.sleep(wait)

    def _offer(self, ask: AskSnapshot) -> SnapshotOffer:
        self._look()
        height = self._height()
        newest = self._newest()
        if newest is not None and newest.head.height > ask.height and self._is_given(newest):
            return SnapshotOffer(height, newest.offer())
        if ask.urgent and height > ask.height:
            self._make()
        return SnapshotOffer(height, None)

    def _is_given(self, found: SnapshotFile) -> bool:
        return found.manifest.size <= CONTENT_BYTES_MAX and is_offered(found.head)

    def _look(self) -> None:
        """Hold the newest one open: it may be asked for when its file has a newer one's place."""
        newest = self._newest()
        if newest is None or not self._is_given(newest):
            return
        digest = newest.manifest.digest()
        if digest in self._open:
            return
        try:
            self._open[digest] = _Open(newest, os.open(newest.path, os.O_RDONLY | os.O_CLOEXEC))
        except FileNotFoundError:
            # A newer one took its place meanwhile.
            return
        if not self._is_reading:
            self._bound()

    def _bound(self) -> None:
        """Let the older ones go; not while a thread reads one."""
        while len(self._open) > OPEN_MAX:
            _, oldest = self._open.popitem(last=False)
            os.close(oldest.file)
