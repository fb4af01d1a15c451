"""How many commands of one (session, author) are in flight: fewer than the ledger remembers.

Rules: docs/spec/ledger.md §2. The ledger keeps the W largest ids of a (session, author). With fewer
than W in flight none of them can fall out of that window before it is looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from nocturne.core.commands import SignedCommand


class Windows:
    """Commands in flight by (session, author). Lives in one event loop."""

    def __init__(self, window: int) -> None:
        self._room = max(1, window - 1)
        self._in_flight: dict[tuple[str, bytes], int] = {}
        self._listeners: set[Callable[[], None]] = set()

    def try_enter(self, signed: SignedCommand) -> bool:
        """Take a place if there is one."""
        place = _place(signed)
        taken = self._in_flight.get(place, 0)
        if taken >= self._room:
            return False
        self._in_flight[place] = taken + 1
        return True

    async def enter(self, signed: SignedCommand) -> None:
        """Take a place, waiting for one."""
        if self.try_enter(signed):
            return
        freed = asyncio.Event()
        self.listen(freed.set)
        try:
            while not self.try_enter(signed):
                freed.clear()
                await freed.wait()
        finally:
            self.unlisten(freed.set)

    def leave(self, signed: SignedCommand) -> None:
        """The command has its answer: give its place back."""
        place = _place(signed)
        left = self._in_flight[place] - 1
        if left:
            self._in_flight[place] = left
        else:
            del self._in_flight[place]
        for freed in tuple(self._listeners):
            freed()

    def listen(self, freed: Callable[[], None]) -> None:
        """Call `freed` whenever a place is given back."""
        self._listeners.add(freed)

    def unlisten(self, freed: Callable[[], None]) -> None:
        """The reverse of `listen`."""
        self._listeners.discard(freed)


def _place(signed: SignedCommand) -> tuple[str, bytes]:
    return signed.command.session, signed.command.author
