"""How long a view may take: a policy beside the safety rules.

Rules: docs/spec/quorum.md §6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

DOUBLINGS_MAX: Final = 6


class Pacing(Protocol):
    """How long to wait in a view."""

    def delay_ms(self, stage: int, failures: int) -> int:
        """Of the wait number `stage` (from 0) in a view, after `failures` views since the last
        commit that were given up.
        """


@dataclass(frozen=True, slots=True)
class Doubling:
    """Half of `view_ms` until votes are sent again, another half until the view is given up; twice
    as long for each view given up and for each two waits, at most 64 times.
    """

    view_ms: int

    def delay_ms(self, stage: int, failures: int) -> int:
        """As the class says."""
        return int((self.view_ms // 2) << min(failures + stage // 2, DOUBLINGS_MAX))
