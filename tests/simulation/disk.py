"""A node's disk: what is synced, what is not yet, and what becomes of both."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from nocturne.consensus.quorum.messages import Record


class DiskFull(Exception):  # noqa: N818
    """An append was refused. A host crashes then; it does not try again."""


@dataclass
class Disk:
    """The write-ahead log; a record is whole or not there, because each has its checksum."""

    synced: list[Record] = field(default_factory=list)
    loose: list[Record] = field(default_factory=list)
    old: list[Record] | None = None
    """A copy that somebody made, and may restore."""
    rotten: bool = False

    def append(self, record: Record, full: bool) -> None:
        """Write, not sync."""
        if full:
            raise DiskFull
        self.loose.append(record)

    def sync(self) -> None:
        """All that was written survives a crash."""
        self.synced.extend(self.loose)
        self.loose.clear()

    def lose_tail(self, dice: Random, torn: float) -> tuple[int, int]:
        """A crash: of what was not synced nothing is left, or a beginning. How many records of it
        are there still, and how many are lost.
        """
        kept = dice.randint(0, len(self.loose)) if dice.random() < torn else 0
        lost = len(self.loose) - kept
        self.synced.extend(self.loose[:kept])
        self.loose.clear()
        return kept, lost

    def copy(self) -> Disk:
        """Another disk that holds what is synced here."""
        return Disk(list(self.synced))
