"""Chance: Python's `Random`, with shorter ways to the same draws."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")


class Dice(Random):
    """Draws what `Random` draws from the same seed (a test holds it to that). Nearly half of what a
    world draws is a delay or one of a few, and `Random` checks their arguments anew each time.
    """

    def below(self, bound: int) -> int:
        """From 0 up to `bound` - 1; `bound` is at least 1."""
        bits = bound.bit_length()
        found = self.getrandbits(bits)
        while found >= bound:
            found = self.getrandbits(bits)
        return found

    def randint(self, a: int, b: int) -> int:
        """From `a` up to `b`, both possible."""
        return a + self.below(b - a + 1)

    def choice(self, seq: Sequence[T]) -> T:  # type: ignore[override]
        """One of `seq`, which is not empty."""
        return seq[self.below(len(seq))]
