"""Run a command's questions to a ledger: connect, ask, and bound every wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from nocturne.cli.failures import ExitCode, Failure
from nocturne.cli.ledger import Ledger
from nocturne.cli.options import DEADLINE_SECONDS
from nocturne.cli.surroundings import Surroundings

Answer = TypeVar("Answer")
Item = TypeVar("Item")


def ask(
    around: Surroundings,
    home: Path | None,
    question: Callable[[Ledger], Awaitable[Answer]],
    deadline_seconds: float = DEADLINE_SECONDS,
) -> Answer:
    """The answer of the ledger of a home; `deadline_seconds` bounds each single wait."""

    async def asked() -> Answer:
        place = around.home(home)
        async with around.connect(place, deadline_seconds) as ledger:
            return await question(ledger)

    return asyncio.run(asked())


async def each_within(
    items: AsyncIterator[Item], seconds: float = DEADLINE_SECONDS
) -> AsyncIterator[Item]:
    """The items, none of which may keep us waiting longer than `seconds`."""
    while True:
        try:
            async with asyncio.timeout(seconds):
                item = await anext(items)
        except StopAsyncIteration:
            return
        except TimeoutError as fault:
            raise too_late(seconds) from fault
        yield item


async def within(answer: Awaitable[Answer], seconds: float = DEADLINE_SECONDS) -> Answer:
    """The answer, or exit code 3 after `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            return await answer
    except TimeoutError as fault:
        raise too_late(seconds) from fault


def too_late(seconds: float) -> Failure:
    """No answer in time."""
    return Failure(
        ExitCode.UNAVAILABLE,
        f"No answer within {seconds:g} s: 'nocturne status' shows what runs and how far it is.",
    )
