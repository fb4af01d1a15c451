"""Tells followers when their session has changed: one connection listens for all of them.

A notification only says that there is something to read. Whoever waits also looks by itself now
and then, so that a lost notification costs time and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
import structlog

from nocturne.core.errors import Unavailable
from nocturne.query.records import unpack_state_changes
from nocturne.query.store import Snapshot, Store
from nocturne.runtime.postgres import Database

APPLIED_CHANNEL: Final = "nocturne_v1_applied"
"""The projection notifies it at each commit."""
LOOK_SECONDS: Final = 2.0
"""How long a follower waits before it looks by itself."""
RECONNECT_SECONDS: Final = 0.5
BLOCKS_PER_LOOK: Final = 256
"""With more new blocks than this every follower is woken."""
FOLLOWERS_MAX: Final = 1024
"""Each holds at most one page in memory."""

log = structlog.get_logger()


class FollowersFull(Unavailable):
    """There are as many followers as one process serves."""


class Feed:
    """Wakes followers of sessions by the keys of the state tree that new blocks changed."""

    def __init__(self, database: Database, store: Store) -> None:
        self._database = database
        self._store = store
        self._followers: dict[bytes, set[asyncio.Event]] = {}
        self._count = 0
        self._seen: int | None = None

    @property
    def followers(self) -> int:
        """How many follow a session now."""
        return self._count

    @contextmanager
    def following(self, key: bytes) -> Iterator[asyncio.Event]:
        """An event that is set when the session of this key has changed. `FollowersFull`."""
        if self._count >= FOLLOWERS_MAX:
            raise FollowersFull(f"there are {FOLLOWERS_MAX} followers already")
        changed = asyncio.Event()
        self._followers.setdefault(key, set()).add(changed)
        self._count += 1
        try:
            yield changed
        finally:
            self._count -= 1
            self._followers[key].discard(changed)
            if not self._followers[key]:
                del self._followers[key]

    async def run(self) -> None:
        """Listen until cancelled; connect again whenever the connection breaks."""
        while True:
            try:
                await self._listen()
            except psycopg.Error as fault:
                log.warning("feed_disconnected", error=str(fault).strip().split("\n")[0])
            self._seen = None
            self._wake_all()
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _listen(self) -> None:
        connection = await psycopg.AsyncConnection.connect(
            self._database.address(),
            autocommit=True,
            connect_timeout=5,
            application_name="nocturne-query-feed",
            keepalives_idle=10,
        )
        async with connection:
            await connection.execute(f"LISTEN {APPLIED_CHANNEL}".encode())
            async for notified in connection.notifies():
                if not self._is_old(notified.payload):
                    await self._look()

    def _is_old(self, payload: str) -> bool:
        """The height of the notification was read with an earlier one's."""
        return self._seen is not None and payload.isdecimal() and int(payload) <= self._seen

    async def _look(self) -> None:
        if not self._followers:
            self._seen = None
            return
        try:
            self._seen, keys = await self._store.ask(self._changed_keys)
        except Unavailable:
            # Followers look by themselves, and find out.
            return
        if keys is None:
            self._wake_all()
            return
        for key in keys:
            for changed in self._followers.get(key, ()):
                changed.set()

    async def _changed_keys(self, snapshot: Snapshot) -> tuple[int, set[bytes] | None]:
        """The snapshot's height, and the keys changed since the last look; None: any may be."""
        height = snapshot.applied.height
        if self._seen is None or height - self._seen > BLOCKS_PER_LOOK:
            return height, None
        keys: set[bytes] = set()
        for _, packed in await snapshot.state_changes(self._seen, BLOCKS_PER_LOOK):
            keys.update(unpack_state_changes(packed))
        return height, keys

    def _wake_all(self) -> None:
        for events in self._followers.values():
            for changed in events:
                changed.set()
