"""States folded from events, and a bounded memory of them. Pure.

Rules: docs/spec/ledger.md, session kinds. Events never change, so a state once folded stays right;
a later one is folded from the nearest earlier one that is remembered. A session that takes more
than its share keeps states at wider distances, and leaves other sessions' theirs.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from nocturne.core.identifiers import SessionId
from nocturne.core.strict_json import JsonValue

CACHE_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of the states' JSON; the objects in memory are a few times that."""
CACHE_STATES_MAX: Final = 4096
STATE_OVERHEAD_BYTES: Final = 512
SESSION_BYTES_MAX: Final = CACHE_BYTES_MAX // 4
"""One session's share."""
SESSION_STATES_MAX: Final = 128
"""Of one session: whoever asks for each of its states in turn leaves room for other sessions."""
CHECKPOINT_EVENTS: Final = 2000
"""A long fold leaves a state behind each time so many events are folded."""


def next_checkpoint(sequence: int) -> int:
    """The next sequence after this one at which a long fold leaves a state behind."""
    return sequence - sequence % CHECKPOINT_EVENTS + CHECKPOINT_EVENTS


@dataclass(frozen=True, slots=True)
class Folded:
    """A session's state after `sequence`, whose event has `head_hash`, and its JSON."""

    sequence: int
    head_hash: bytes
    state: JsonValue
    state_json: bytes


class FoldCache:
    """The states asked for most recently, by session and sequence."""

    def __init__(
        self,
        bytes_max: int = CACHE_BYTES_MAX,
        states_max: int = CACHE_STATES_MAX,
        session_bytes_max: int = SESSION_BYTES_MAX,
        session_states_max: int = SESSION_STATES_MAX,
    ) -> None:
        self._bytes_max = bytes_max
        self._states_max = states_max
        self._session_bytes_max = session_bytes_max
        self._session_states_max = session_states_max
        self._states: OrderedDict[tuple[SessionId, int], Folded] = OrderedDict()
        self._shares: dict[SessionId, _Share] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._states)

    def clear(self) -> None:
        """Forget every state."""
        self._states.clear()
        self._shares.clear()
        self.bytes = 0

    def nearest(self, session: SessionId, sequence: int) -> Folded | None:
        """The remembered state of the largest sequence that is not above `sequence`."""
        share = self._shares.get(session)
        index = 0 if share is None else bisect_right(share.sequences, sequence)
        if share is None or index == 0:
            return None
        key = (session, share.sequences[index - 1])
        self._states.move_to_end(key)
        return self._states[key]

    def keep(self, session: SessionId, folded: Folded) -> None:
        """Remember a state. Of its session, the ones nearest to others go when its share is full;
        of all, the ones not asked for longest.
        """
        key = (session, folded.sequence)
        size = _size(folded)
        if key in self._states or size > min(self._bytes_max, self._session_bytes_max):
            return
        self._states[key] = folded
        share = self._shares.setdefault(session, _Share())
        insort(share.sequences, folded.sequence)
        share.bytes += size
        self.bytes += size
        while (
            share.bytes > self._session_bytes_max or len(share.sequences) > self._session_states_max
        ):
            self._forget((session, share.most_crowded(folded.sequence)))
        while self.bytes > self._bytes_max or len(self._states) > self._states_max:
            self._forget(next(iter(self._states)))

    def _forget(self, key: tuple[SessionId, int]) -> None:
        session, sequence = key
        size = _size(self._states.pop(key))
        share = self._shares[session]
        share.sequences.remove(sequence)
        share.bytes -= size
        self.bytes -= size
        if not share.sequences:
            del self._shares[session]


@dataclass(slots=True)
class _Share:
    """What one session has in the cache; sequences ascend."""

    sequences: list[int] = field(default_factory=list)
    bytes: int = 0

    def most_crowded(self, spared: int) -> int:
        """The sequence whose neighbours are nearest to each other, so that what is left without it
        has the shortest way to fold; never `spared`, which was just asked for. Below the first is
        the empty session, 0; above the last is nothing, and nothing is folded from it.
        """
        known = self.sequences
        gaps = (
            (known[index + 1] - (known[index - 1] if index else 0), known[index])
            for index in range(len(known) - 1)
            if known[index] != spared
        )
        return min(gaps, default=(0, known[-1] if known[-1] != spared else known[0]))[1]


def _size(folded: Folded) -> int:
    return len(folded.state_json) + STATE_OVERHEAD_BYTES
