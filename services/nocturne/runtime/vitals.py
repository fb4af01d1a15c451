"""Whether a process lives and takes work: one truth for gRPC health, for `/readyz` and for metrics.

Rules: docs/guides/observability.md. It *lives* while its event loop turns; it is *ready* while its
service says SERVING. A process that was told to stop is not ready from that moment on, whatever its
service says after.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

TURN_SECONDS_MAX: Final = 15.0
"""An event loop that has not turned for so long is stuck: the longest work that is done in one turn
(a full block of the largest commands) takes a second here, and a machine can be ten times slower.
"""
STARTING: Final = "starting"
STOPPING: Final = "stopping"
NOT_SERVING: Final = "not serving"


@dataclass(frozen=True, slots=True)
class Answer:
    """To a question about the process: yes, or no with the reason in words."""

    yes: bool
    why: str = ""


class Vitals:
    """What the process says of itself. Written by the event loop, read by any thread: each field is
    one reference, replaced whole.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._turned_at = clock()
        self._serving = Answer(False, STARTING)
        self._stopping = False
        self._halted: str | None = None
        self._told: list[Callable[[], None]] = []

    # What the process says --------------------------------------------------------------------

    def turned(self) -> None:
        """The event loop has turned."""
        self._turned_at = self._clock()

    def set_serving(self, serving: bool, why: str = "") -> None:
        """What the service says of itself; `why` when it does not serve, or what else is to be
        known of one that does.
        """
        self._serving = Answer(serving, why or ("" if serving else NOT_SERVING))

    def stop(self) -> None:
        """The process was told to stop: not ready from now on, for ever."""
        if self._stopping:
            return
        self._stopping = True
        for told in self._told:
            told()

    def when_stopping(self, told: Callable[[], None]) -> None:
        """Call `told` when the process is told to stop; at once when it was already."""
        self._told.append(told)
        if self._stopping:
            told()

    def halt(self, cause: str) -> None:
        """The service halted; the process may stay, so that people and probes see why."""
        self._halted = cause

    # What is asked ----------------------------------------------------------------------------

    def live(self) -> Answer:
        """Yes while the event loop turns. A halted process lives: a new start heals nothing."""
        if self._halted is not None:
            return Answer(True)
        still = self._clock() - self._turned_at
        if still > TURN_SECONDS_MAX:
            return Answer(False, f"the event loop has not turned for {still:.1f} s")
        return Answer(True)

    def ready(self) -> Answer:
        """Yes while gRPC health says SERVING."""
        if self._halted is not None:
            return Answer(False, f"halted: {self._halted}")
        if self._stopping:
            return Answer(False, STOPPING)
        return self._serving

    @property
    def is_halted(self) -> bool:
        """Whether the service halted."""
        return self._halted is not None
