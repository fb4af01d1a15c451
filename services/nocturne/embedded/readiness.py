"""When what runs is enough for a ledger to be ready. Pure.

Every process is needed, but of the validators no more than a quorum: the ledger goes on without the
others, and without the quorum it does not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Need:
    """So many of these processes must be healthy."""

    names: tuple[str, ...]
    count: int


def all_of(names: Iterable[str]) -> Need:
    """Every one of these processes must be healthy."""
    needed = tuple(names)
    return Need(needed, len(needed))


def waited_for(needs: Iterable[Need], healthy: Collection[str]) -> str | None:
    """The first process that is still waited for; None when enough are healthy."""
    for need in needs:
        missing = [name for name in need.names if name not in healthy]
        if len(need.names) - len(missing) < need.count:
            return missing[0]
    return None


def is_hopeless(needs: Iterable[Need], given_up: Collection[str]) -> bool:
    """Whether too many were given up for enough ever to be healthy."""
    return any(sum(name not in given_up for name in need.names) < need.count for need in needs)
