"""SIGTERM under load: a service ends within its bound and as asked, and nothing is lost by it; and
everything is restarted, one after the other, while commands come.

`NOCTURNE_SEED` replays one run's dice.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal

import pytest
from tests.e2e.conftest import Running
from tests.e2e.driver import Answer
from tests.e2e.killing import stop
from tests.e2e.loads import Load, checked

from nocturne.embedded.services import VALIDATORS_DEFAULT, services_of
from nocturne.runtime.lifecycle import STOP_SECONDS_MAX

SERVICES = services_of(VALIDATORS_DEFAULT)
SEED = int(os.environ.get("NOCTURNE_SEED", secrets.randbelow(2**32)))
ROUNDS = 2
pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(600)]


def under_load(running: Running, dice: random.Random, names: list[str]) -> dict[str, list[float]]:
    """Stop and await each of `names` while writers write; the seconds that each took to end."""
    took: dict[str, list[float]] = {}

    async def scenario() -> list[Answer]:
        load = Load(running, dice)
        writing = asyncio.create_task(load.run())
        for number, name in enumerate(names):
            await asyncio.sleep(dice.uniform(0.5, 1.5))
            # PostgreSQL's SIGTERM waits for its clients; SIGINT is its "fast shutdown".
            word = signal.SIGINT if name == "postgres" else signal.SIGTERM
            took.setdefault(name, []).append(await stop(running, name, number, word))
            assert not writing.done(), writing.exception()
        return await load.finish(writing)

    answers = asyncio.run(scenario())
    found = checked(running, answers)
    assert sum(bool(one.events) for one in answers) > len(answers) // 2
    print(f"{len(answers)} commands answered, {len(found.events)} events; seconds to end: {took}")
    return took


def endings(running: Running, name: str) -> list[str]:
    """How the process ended each time, as its supervisor wrote it down."""
    said = running.home.log(name).read_text(encoding="utf-8", errors="replace")
    mark = f"supervisor: {name} ended with "
    return [line.partition(mark)[2] for line in said.splitlines() if mark in line]


def test_each_service_told_to_stop_under_load_drains_in_its_bound_and_loses_nothing(
    running: Running,
) -> None:
    print(f"NOCTURNE_SEED={SEED}")
    names = [service.name for service in SERVICES for _ in range(ROUNDS)]
    dice = random.Random(SEED)
    dice.shuffle(names)
    for name, seconds in under_load(running, dice, names).items():
        assert max(seconds) < STOP_SECONDS_MAX, f"{name}: {seconds}"
        assert endings(running, name) == ["exit code 0"] * ROUNDS
        said = running.home.log(name).read_text(encoding="utf-8", errors="replace")
        assert "stopping_takes_too_long" not in said


def test_a_rolling_restart_of_everything_leaves_no_command_that_a_retry_does_not_settle(
    running: Running,
) -> None:
    print(f"NOCTURNE_SEED={SEED}")
    everything = [one.name for one in running.status.services]
    assert {"kafka", "postgres"} < set(everything)
    under_load(running, random.Random(SEED + 1), everything)
