"""Send commands through the SDK, as fast as they are taken or at a rate, and time their results.

Open loop: a paced command is sent when its time has come, and its latency runs from that intended
time, so a stalled service cannot hide behind a polite sender.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from nocturne.client import Client, Level, Result
from nocturne.core.commands import SignedCommand
from nocturne.core.errors import Unavailable

DEADLINE_SECONDS: Final = 60.0
SECONDS_MAX: Final = 120.0
"""For all results, from the first command on."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one command at the level awaited, and after how long."""

    result: Result
    wait: Level
    ms: float


@dataclass(frozen=True, slots=True)
class Command:
    """A command to be: `make` signs it when it is sent, `due` is when (seconds on the clock of
    `time.perf_counter`), None for at once.
    """

    make: Callable[[], SignedCommand]
    due: float | None


async def offer(
    client: Client, commands: Sequence[Command], wait: Level, count: Callable[[], None]
) -> list[Answer]:
    """The answers to `commands`, sent in their order, in that order. `count` is told of each.
    `Unavailable` when they do not come in time.
    """
    sent: dict[int, tuple[int, SignedCommand, float]] = {}
    answers: dict[int, Answer] = {}
    results = client.submit_many(
        _when_due(commands, sent), wait=wait, deadline_seconds=DEADLINE_SECONDS
    )
    try:
        async with asyncio.timeout(SECONDS_MAX), aclosing(results) as arriving:
            async for signed, result in arriving:
                now = time.perf_counter()
                # By the object: the same command may be sent twice.
                index, _, intended = sent.pop(id(signed))
                answers[index] = Answer(result, wait, (now - intended) * 1000)
                count()
    except TimeoutError as fault:
        raise Unavailable(
            f"{len(answers)} of {len(commands)} commands were decided within {SECONDS_MAX:.0f} s"
        ) from fault
    return [answers[index] for index in range(len(commands))]


async def _when_due(
    commands: Sequence[Command], sent: dict[int, tuple[int, SignedCommand, float]]
) -> AsyncIterator[SignedCommand]:
    """The commands, each signed and noted when its time has come."""
    for index, command in enumerate(commands):
        if command.due is not None:
            await asyncio.sleep(max(0.0, command.due - time.perf_counter()))
        signed = command.make()
        sent[id(signed)] = (index, signed, command.due or time.perf_counter())
        yield signed
