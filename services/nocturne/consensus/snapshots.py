"""Writing snapshots beside everything else, and forgetting what they cover."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import structlog

from nocturne.consensus.chain import Made
from nocturne.consensus.measures import Measures
from nocturne.consensus.published import Published
from nocturne.consensus.quorum.messages import Committed, Record
from nocturne.consensus.snapshot_files import Abandoned
from nocturne.consensus.store import Store
from nocturne.core.state import LedgerState

ASKED_SECONDS: Final = 10.0
"""Between two snapshots that are written because another validator cannot go on without one."""

log = structlog.get_logger()


class Snapshots:
    """One at a time, in a thread of its own, from states that never change."""

    def __init__(
        self,
        store: Store,
        on_disk: Callable[[Callable[[], None]], Awaitable[None]],
        live_records: Callable[[], tuple[Record, ...]],
        measures: Measures,
    ) -> None:
        """`on_disk` runs what touches the journal, in its turn; `live_records`: `Replica`'s."""
        self._store = store
        self._on_disk = on_disk
        self._live_records = live_records
        self._measures = measures
        self._abandon = threading.Event()
        self._writing: asyncio.Future[None] | None = None
        self._asked_at: float | None = None

    def look(self, newest: Made | None, published: Published | None) -> None:
        """Write one of the newest published block, if one is due."""
        if newest is not None and self._store.snapshot_due:
            self._begin(newest.committed, newest.state, published)

    def asked(self, block: Committed, state: LedgerState, published: Published | None) -> None:
        """Another validator needs one: write one of this published block, if the last one for such
        a reason was some time ago.
        """
        now = time.monotonic()
        if self._asked_at is None or now - self._asked_at >= ASKED_SECONDS:
            self._asked_at = now
            self._begin(block, state, published)

    def _begin(self, block: Committed, state: LedgerState, published: Published | None) -> None:
        if self._writing is None or self._writing.done():
            self._store.begin_snapshot()
            self._writing = asyncio.ensure_future(self._write(block, state, published))

    def check(self) -> None:
        """Raises what went wrong with the last one."""
        if self._writing is not None and self._writing.done():
            self._writing.result()

    async def close(self) -> None:
        """What is not finished is not needed."""
        self._abandon.set()
        if self._writing is not None:
            await asyncio.gather(self._writing, return_exceptions=True)

    async def _write(
        self, block: Committed, state: LedgerState, published: Published | None
    ) -> None:
        started = time.monotonic()
        header = block.proposal.header
        await _in_daemon_thread(
            partial(
                self._store.write_snapshot,
                block,
                state,
                published,
                self._abandon,
            )
        )
        # Every block up to here is published: the topic has them, and the snapshot the rest.
        live = self._live_records()
        await self._on_disk(partial(self._store.forget_before, header.height, live))
        seconds = time.monotonic() - started
        self._measures.snapshot_seconds.observe(seconds)
        log.info("snapshot", height=header.height, seconds=round(seconds, 3))


async def _in_daemon_thread(function: Callable[[], None]) -> None:
    """Run `function` in a thread that does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def finish(error: BaseException | None) -> None:
        if done.done():
            return
        if error is None or isinstance(error, Abandoned):
            done.set_result(None)
        else:
            done.set_exception(error)

    def work() -> None:
        error: BaseException | None = None
        try:
            function()
        except BaseException as fault:
            error = fault
        loop.call_soon_threadsafe(finish, error)

    threading.Thread(target=work, name="snapshot", daemon=True).start()
    await done
