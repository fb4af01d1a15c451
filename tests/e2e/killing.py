"""`kill -9` of one process of a running ledger, and the wait until it serves again."""

from __future__ import annotations

import asyncio
import os
import signal
import time

from tests.e2e.conftest import Running

from nocturne.embedded import up
from nocturne.embedded.status import Health

# A kill costs at most a recovery; one that takes longer is a finding.
RECOVERY_SECONDS_MAX = 60.0


async def kill(running: Running, name: str, number: int) -> None:
    """Kill a process and wait until it serves again; other processes may be down meanwhile."""
    victim = running.status.service(name)
    deadline = time.monotonic() + RECOVERY_SECONDS_MAX
    while victim.pid is None or victim.health is not Health.HEALTHY:
        assert time.monotonic() < deadline, f"{name} did not become healthy before kill {number}"
        await asyncio.sleep(0.05)
        victim = running.status.service(name)
    os.kill(victim.pid, signal.SIGKILL)
    while True:
        status = up.status(running.home.root)
        now = status.service(name)
        if now.pid not in (None, victim.pid) and now.health is Health.HEALTHY:
            return
        assert now.health is not Health.GIVEN_UP, f"{name} was given up after kill {number}"
        assert time.monotonic() < deadline, (
            f"{name} did not come back within {RECOVERY_SECONDS_MAX} s after kill {number}; "
            f"its log: {running.home.log(name)}"
        )
        await asyncio.sleep(0.05)
