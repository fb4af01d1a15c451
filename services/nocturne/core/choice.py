"""Choosing one of several candidates, the same for everyone who has the same candidates.

Rule S5 (docs/spec/quorum.md §8): the largest utility, an integer, and among equals the smallest
SHA-256 of the candidate's bytes; the order of candidates is no input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nocturne.core.encoding import sha256


def rank(utility: int, digest: bytes) -> tuple[int, bytes]:
    """The smallest rank is chosen; `digest` is the SHA-256 of the candidate's bytes."""
    if type(utility) is not int:
        raise TypeError(f"utility: expected an integer, got {type(utility).__name__}")
    return -utility, digest


def choose(candidates: Iterable[bytes], utility: Callable[[bytes], int]) -> bytes:
    """The chosen candidate; `ValueError` when there is none."""
    found = min(candidates, key=lambda one: (rank(utility(one), sha256(one)), one), default=None)
    if found is None:
        raise ValueError("choose: expected at least one candidate")
    return found
