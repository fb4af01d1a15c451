"""Recurring work of one process falls on the same moments."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nocturne.runtime.ticks import EARLY_SHARE, next_tick, seconds_to_tick


@given(st.floats(0, 1e9), st.sampled_from([0.5, 1.0, 2.0, 5.0]))
def test_a_tick_is_a_multiple_and_never_just_ahead(now: float, every: float) -> None:
    wait = seconds_to_tick(now, every)
    assert EARLY_SHARE * every < wait <= (1 + EARLY_SHARE) * every + 1e-6
    assert (now + wait) % every == pytest.approx(0, abs=1e-6) or (
        (now + wait) % every == pytest.approx(every, abs=1e-6)
    )


def test_what_recurs_every_second_meets_what_recurs_every_half() -> None:
    assert 7.3 + seconds_to_tick(7.3, 1.0) == pytest.approx(8.0)
    assert 7.6 + seconds_to_tick(7.6, 0.5) == pytest.approx(8.0)


def test_a_timer_that_fired_early_does_not_fire_twice() -> None:
    assert seconds_to_tick(7.999, 1.0) == pytest.approx(1.001)


def test_who_waits_for_a_tick_goes_on_at_it() -> None:
    async def test() -> float:
        await next_tick(0.5)
        return asyncio.get_running_loop().time() % 0.5

    assert asyncio.run(test()) < 0.25
