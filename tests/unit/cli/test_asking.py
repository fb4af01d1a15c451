"""Every wait has an end, and says so."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from nocturne.cli.asking import each_within, within
from nocturne.cli.failures import ExitCode, Failure


async def numbers_then_silence() -> AsyncGenerator[int, None]:
    yield 1
    yield 2
    await asyncio.Event().wait()


async def collect(seconds: float, into: list[int]) -> None:
    async for number in each_within(numbers_then_silence(), seconds):
        into.append(number)


def test_a_list_that_falls_silent_ends_with_3_after_what_came() -> None:
    came: list[int] = []
    with pytest.raises(Failure, match=r"No answer within 0.05 s: 'nocturne status'") as caught:
        asyncio.run(collect(0.05, came))
    assert caught.value.code is ExitCode.UNAVAILABLE
    assert came == [1, 2]


def test_a_question_without_an_answer_ends_with_3() -> None:
    async def ask() -> None:
        await within(asyncio.Event().wait(), 0.05)

    with pytest.raises(Failure, match=r"No answer within 0\.05 s"):
        asyncio.run(ask())
