"""Verify every session's export offline, on all processors, and name what does not hold.

The processes that verify know the ledger id and the exports, and nothing else.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Final

from nocturne.audit.verify import Verdict, verify_export
from nocturne.core.identifiers import LedgerId, SessionId
from nocturne.embedded.demo.findings import Audit
from nocturne.embedded.demo.tampering import lines_of

EXPORTS_AT_A_TIME: Final = 8
"""Asked for and not verified yet: enough to keep both sides busy, and little memory."""
VERIFY_SECONDS_MAX: Final = 60.0
"""For one export."""


async def audit(
    sessions: Sequence[SessionId],
    ledger_id: LedgerId,
    export: Callable[[SessionId], Awaitable[bytes]],
    count: Callable[[int, int], None],
) -> Audit:
    """Export and verify all `sessions`; `count` is told how far it is."""
    began = time.perf_counter()
    room = asyncio.Semaphore(EXPORTS_AT_A_TIME)
    loop = asyncio.get_running_loop()
    done: list[tuple[SessionId, Verdict, int]] = []

    async def one(session: SessionId) -> None:
        async with room:
            data = await export(session)
            async with asyncio.timeout(VERIFY_SECONDS_MAX):
                verdict = await loop.run_in_executor(pool, _verify, data, ledger_id)
        done.append((session, verdict, len(data)))
        count(len(done), len(sessions))

    # Spawned, not forked: this process has threads (gRPC, Kafka).
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), spawning, _ignore_interrupts) as pool:
        async with asyncio.TaskGroup() as group:
            for session in sessions:
                group.create_task(one(session))
    failures = sorted(f"{session}: {v.sentence}" for session, v, _ in done if not v.holds)
    return Audit(
        len(sessions),
        sum(verdict.holds for _, verdict, _ in done),
        sum(verdict.events for _, verdict, _ in done),
        sum(verdict.receipts for _, verdict, _ in done),
        sum(size for _, _, size in done),
        time.perf_counter() - began,
        tuple(failures),
    )


def against(audit: Audit, events: int, receipts: int) -> Audit:
    """The audit, with a failure if all exports together lack or exceed what Postgres counts."""
    if (audit.events, audit.receipts) == (events, receipts):
        return audit
    failure = (
        f"all exports together: expected {events} events and {receipts} receipts as Postgres "
        f"counts, got {audit.events} and {audit.receipts}"
    )
    return replace(audit, failures=(*audit.failures, failure))


def _verify(export: bytes, ledger_id: LedgerId) -> Verdict:
    return verify_export(lines_of(export), ledger_id)


def _ignore_interrupts() -> None:
    """Ctrl-C is answered by the demonstration, which then ends its processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
