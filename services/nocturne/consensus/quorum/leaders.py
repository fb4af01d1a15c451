"""Who leads a view, and whom a vote is sent to. Safety depends on neither.

Rules: docs/spec/quorum.md §5.
"""

from __future__ import annotations

from typing import Final, Protocol

from nocturne.core.certificates import Epoch, VoteKind

EVERYONE_MAX: Final = 16
"""Up to so many validators every vote goes to all: two message delays for a block. Above, messages
grow with n instead of n²."""
NULLIFY_LEADERS: Final = 4
UNANSWERED_MAX: Final = 2
"""After so many re-sends without progress a vote goes to all, whatever n is."""


class LeaderSchedule(Protocol):
    """Which validator leads a view."""

    def leader(self, epoch: Epoch, view: int, n: int) -> int:
        """The index of the leader of `view`, from 1, among `n`."""


class RoundRobin:
    """Each in turn: view v of any epoch is led by (v−1) mod n."""

    def leader(self, epoch: Epoch, view: int, n: int) -> int:
        """As the class says."""
        del epoch
        return (view - 1) % n


def relays(schedule: LeaderSchedule, epoch: Epoch, view: int, n: int) -> frozenset[int]:
    """The leaders of `view` and the next: they gather its votes into a certificate for all."""
    return frozenset(schedule.leader(epoch, later, n) for later in (view, view + 1))


def recipients(
    schedule: LeaderSchedule, epoch: Epoch, kind: VoteKind, view: int, n: int, resends: int
) -> frozenset[int]:
    """Who gets a vote of `view` that was sent `resends` times before; the sender may be in it."""
    if n <= EVERYONE_MAX or resends > UNANSWERED_MAX:
        return frozenset(range(n))
    if kind is VoteKind.NULLIFY:
        ahead = range(view + 1, view + 1 + NULLIFY_LEADERS)
        return frozenset(schedule.leader(epoch, later, n) for later in ahead)
    return relays(schedule, epoch, view, n)
