"""States folded from events, and a bounded memory of them. Pure.

Rules: docs/spec/ledger.md, session kinds. Events never change, so a state once folded stays right;
a later one is folded from the nearest earlier one that is remembered.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from nocturne.core.identifiers import SessionId
from nocturne.core.strict_json import JsonValue

CACHE_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of the states' JSON; the objects in memory are a few times that."""
CACHE_STATES_MAX: Final = 4096
STATE_OVERHEAD_BYTES: Final = 512
CHECKPOINT_EVENTS: Final = 2000
"""A long fold leaves a state behind each time so many events are folded."""


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
        self, bytes_max: int = CACHE_BYTES_MAX, states_max: int = CACHE_STATES_MAX
    ) -> None:
        self._bytes_max = bytes_max
        self._states_max = states_max
        self._states: OrderedDict[tuple[SessionId, int], Folded] = OrderedDict()
        self._sequences: dict[SessionId, list[int]] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._states)

    def nearest(self, session: SessionId, sequence: int) -> Folded | None:
        """The remembered state of the largest sequence that is not above `sequence`."""
        sequences = self._sequences.get(session, [])
        index = bisect_right(sequences, sequence)
        if index == 0:
            return None
        key = (session, sequences[index - 1])
        self._states.move_to_end(key)
        return self._states[key]

    def keep(self, session: SessionId, folded: Folded) -> None:
        """Remember a state; the ones not asked for longest are forgotten."""
        key = (session, folded.sequence)
        if key in self._states or _size(folded) > self._bytes_max:
            return
        self._states[key] = folded
        insort(self._sequences.setdefault(session, []), folded.sequence)
        self.bytes += _size(folded)
        while self.bytes > self._bytes_max or len(self._states) > self._states_max:
            (other, sequence), forgotten = self._states.popitem(last=False)
            self.bytes -= _size(forgotten)
            self._sequences[other].remove(sequence)
            if not self._sequences[other]:
                del self._sequences[other]


def _size(folded: Folded) -> int:
    return len(folded.state_json) + STATE_OVERHEAD_BYTES
