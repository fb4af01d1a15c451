"""Whether what is in the log is being certified. Pure.

Rules: docs/spec/services.md, command. Without a quorum of validators commands are durable and get
no outcome. A command that comes then is refused at once, for its caller to repeat, instead of
waiting with all others: the log would grow, and nobody would know more.
"""

from __future__ import annotations

from typing import Final

STALLED_SECONDS: Final = 5.0
"""Without a block over commands that wait. A view whose leader is gone takes half a second, a few
such views in a row two or three."""


class Progress:
    """The log's commands of this service by partition, and the blocks over them. Times in seconds
    of one clock that only rises.
    """

    def __init__(self) -> None:
        self._logged: dict[int, int] = {}
        self._since: dict[int, float] = {}
        self._decided: dict[int, int] = {}

    def logged(self, partition: int, offset: int, now: float) -> None:
        """The log has a command there."""
        self._logged[partition] = max(offset, self._logged.get(partition, -1))
        if offset >= self._decided.get(partition, 0):
            self._since.setdefault(partition, now)

    def decided(self, partition: int, end: int, now: float) -> None:
        """A block covers the partition up to `end`."""
        self._decided[partition] = end
        if self._logged.get(partition, -1) < end:
            self._since.pop(partition, None)
        elif partition in self._since:
            self._since[partition] = now

    def reopened(self, partition: int, start: int) -> None:
        """The partition goes on in another log epoch, with offset `start`: no block to come covers
        what the one before had.
        """
        self._logged.pop(partition, None)
        self._since.pop(partition, None)
        self._decided[partition] = start

    def waiting_seconds(self, now: float) -> float:
        """How long the log has waited for a block; 0 when nothing waits."""
        return max((now - since for since in self._since.values()), default=0.0)

    def is_stalled(self, now: float) -> bool:
        """Whether nothing more is to be taken for now."""
        return self.waiting_seconds(now) > STALLED_SECONDS
