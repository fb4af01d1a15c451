"""Choosing one of several candidates, the same for everyone who has the same candidates.

Rule S5 (docs/spec/quorum.md §8): the largest utility, an integer, and among equals the smallest
SHA-256 of the candidate's bytes; the order of candidates is no input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nocturne.core.encoding import sha256


def choose(candidates: Iterable[bytes], utility: Callable[[bytes], int]) -> bytes:
    """The chosen candidate; `ValueError` when there is none."""

    def rank(candidate: bytes) -> tuple[int, bytes, bytes]:
        value = utility(candidate)
        if type(value) is not int:
            raise TypeError(f"utility: expected an integer, got {type(value).__name__}")
        return -value, bytes(sha256(candidate)), candidate

    found = min(candidates, key=rank, default=None)
    if found is None:
        raise ValueError("choose: expected at least one candidate")
    return found
