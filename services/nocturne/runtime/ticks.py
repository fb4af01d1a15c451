"""When work that recurs is due: all of it at the same moments of one clock.

A process that has nothing to do then wakes once for everything, and what several processes of one
machine say to each other comes together too.
"""

from __future__ import annotations

import asyncio
from typing import Final

EARLY_SHARE: Final = 0.1
"""Of the time between two ticks: a timer may fire a little early, and is not to fire twice."""


def seconds_to_tick(now: float, every: float) -> float:
    """From `now` to the next multiple of `every`, both in seconds; one that is nearly there is
    passed over. More than 0.1 · `every`, at most 1.1 · `every`.
    """
    left = every - now % every
    return left + every if left <= every * EARLY_SHARE else left


async def next_tick(every: float) -> None:
    """Sleep until then, by the loop's clock."""
    await asyncio.sleep(seconds_to_tick(asyncio.get_running_loop().time(), every))
