"""End one process of a running ledger, by force or by request, and wait until it serves again."""

from __future__ import annotations

import asyncio
import os
import signal
import time

from tests.e2e.conftest import Running

from nocturne.embedded import up
from nocturne.embedded.processes import birth
from nocturne.embedded.status import Health

# A kill costs at most a recovery; one that takes longer is a finding.
RECOVERY_SECONDS_MAX = 60.0


async def kill(running: Running, name: str, number: int) -> None:
    """Kill a process and wait until it serves again; other processes may be down meanwhile."""
    await _end(running, name, number, signal.SIGKILL)


async def stop(running: Running, name: str, number: int, word: signal.Signals) -> float:
    """Tell a process to stop by `word` and wait until the next one serves; how many seconds the
    process took to end.
    """
    return await _end(running, name, number, word)


async def _end(running: Running, name: str, number: int, word: signal.Signals) -> float:
    victim = running.status.service(name)
    deadline = time.monotonic() + RECOVERY_SECONDS_MAX
    while victim.pid is None or victim.health is not Health.HEALTHY:
        assert time.monotonic() < deadline, (
            f"{name} did not become healthy before {word.name} {number}"
        )
        await asyncio.sleep(0.05)
        victim = running.status.service(name)
    told = time.monotonic()
    os.kill(victim.pid, word)
    while birth(victim.pid) == victim.birth:
        assert time.monotonic() < deadline, f"{name} did not end after {word.name} {number}"
        await asyncio.sleep(0.01)
    took = time.monotonic() - told
    while True:
        status = up.status(running.home.root)
        now = status.service(name)
        if now.pid not in (None, victim.pid) and now.health is Health.HEALTHY:
            return took
        assert now.health is not Health.GIVEN_UP, f"{name} was given up after {word.name} {number}"
        assert time.monotonic() < deadline, (
            f"{name} did not come back within {RECOVERY_SECONDS_MAX} s after {word.name} {number}; "
            f"its log: {running.home.log(name)}"
        )
        await asyncio.sleep(0.05)
