"""Fewer commands of one (session, author) are in flight than the ledger remembers."""

from __future__ import annotations

import asyncio

from tests.vectors.synthetic import SyntheticLedger

from nocturne.client.windows import Windows

LEDGER = SyntheticLedger()


def test_a_session_has_one_place_less_than_the_window() -> None:
    windows = Windows(4)
    one, other = LEDGER.command("a", b"{}"), LEDGER.command("b", b"{}")
    assert [windows.try_enter(one) for _ in range(4)] == [True, True, True, False]
    assert windows.try_enter(other)
    windows.leave(one)
    assert windows.try_enter(one)


def test_authors_have_windows_of_their_own() -> None:
    windows = Windows(2)
    assert windows.try_enter(LEDGER.command("a", b"{}", author="alice"))
    assert windows.try_enter(LEDGER.command("a", b"{}", author="bob"))
    assert not windows.try_enter(LEDGER.command("a", b"{}", author="alice"))


def test_a_window_of_one_still_lets_one_pass() -> None:
    assert Windows(1).try_enter(LEDGER.command("a", b"{}"))


def test_who_finds_no_place_waits_for_one() -> None:
    async def test() -> None:
        windows = Windows(2)
        signed = LEDGER.command("a", b"{}")
        await windows.enter(signed)
        waiting = [asyncio.ensure_future(windows.enter(signed)) for _ in range(3)]
        await asyncio.sleep(0)
        assert not any(one.done() for one in waiting)
        waiting[0].cancel()
        windows.leave(signed)
        await asyncio.wait(waiting, return_when=asyncio.ALL_COMPLETED, timeout=0.05)
        assert sum(one.done() and not one.cancelled() for one in waiting) == 1
        windows.leave(signed)
        await asyncio.gather(*waiting, return_exceptions=True)
        windows.leave(signed)
        assert not windows._in_flight
        assert not windows._listeners

    asyncio.run(asyncio.wait_for(test(), 5))
