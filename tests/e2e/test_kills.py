"""`kill -9` of every process at random moments under load: nothing acknowledged is lost, nothing
appears twice, chains are unbroken, and each validator's own is the same. Up to three are away at
once: a moment without a quorum, a broker that is gone with its readers.

`NOCTURNE_KILLS` sets how many (25; `make kills` has 200), `NOCTURNE_SEED` replays one run's dice.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets

import pytest
from tests.e2e.conftest import Running
from tests.e2e.driver import Answer
from tests.e2e.killing import kill
from tests.e2e.loads import Load, checked
from tests.e2e.places import check_journals

KILLS = int(os.environ.get("NOCTURNE_KILLS", "25"))
AT_ONCE = 3
SEED = int(os.environ.get("NOCTURNE_SEED", secrets.randbelow(2**32)))
pytestmark = [pytest.mark.integration, pytest.mark.timeout(240 + 30 * KILLS)]


def test_nothing_acknowledged_is_lost_or_doubled_by_kills(running: Running) -> None:
    print(f"NOCTURNE_SEED={SEED} NOCTURNE_KILLS={KILLS}")
    dice = random.Random(SEED)
    every = [one.name for one in running.status.services]

    async def scenario() -> list[Answer]:
        load = Load(running, dice)
        writing = asyncio.create_task(load.run())
        numbers = iter(range(KILLS))
        names: list[str] = []

        async def killer() -> None:
            for number in numbers:
                await asyncio.sleep(dice.uniform(0.05, 1.2))
                if not names:
                    # Each once before any twice.
                    names.extend(dice.sample(every, len(every)))
                await kill(running, names.pop(), number)

        killing = asyncio.gather(*(killer() for _ in range(AT_ONCE)))
        await asyncio.wait((writing, killing), return_when=asyncio.FIRST_COMPLETED)
        if writing.done():
            killing.cancel()
        else:
            killing.result()
        return await load.finish(writing)

    answers = asyncio.run(scenario())
    found = checked(running, answers)
    check_journals(running, found, running.validators)
    print(f"{len(answers)} commands answered, {len(found.events)} events, {KILLS} kills")
