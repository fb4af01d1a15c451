"""The votes of one epoch, counted: at most one of a kind from each validator in a view.

Rules: docs/spec/quorum.md §4. A second, different vote of a kind is no vote but evidence. Of a
nullify and a finalize vote each is counted, and both are evidence: another validator may have heard
one of them alone, so a certificate with it exists all the same. Views outside a window are not
counted: whoever is that far ahead is asked for its certificates instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from nocturne.consensus.quorum.messages import Vote
from nocturne.core.certificates import Certificate, Epoch, ValidatorSet, VoteKind
from nocturne.core.identifiers import Hash

VIEWS_AHEAD_MAX: Final = 256

_EXCLUDE: Final = {VoteKind.FINALIZE: VoteKind.NULLIFY, VoteKind.NULLIFY: VoteKind.FINALIZE}
"""K3: a validator that cast both in one view lies."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two votes of one validator that exclude each other."""

    first: Vote
    second: Vote


@dataclass(frozen=True, slots=True)
class Counted:
    """What a vote leads to: the certificate that it completes; its conflict with an earlier one,
    once for each validator and view.
    """

    certificate: Certificate | None = None
    conflict: Conflict | None = None


@dataclass(slots=True)
class _View:
    votes: dict[tuple[VoteKind, int], Vote] = field(default_factory=dict)
    counts: dict[tuple[VoteKind, Hash], int] = field(default_factory=dict)
    accused: set[int] = field(default_factory=set)


class Tally:
    """Votes of `epoch` by `validators`."""

    def __init__(self, epoch: Epoch, validators: ValidatorSet) -> None:
        self._epoch = epoch
        self._validators = validators
        self._quorum = validators.quorum
        self._views: dict[int, _View] = {}

    def known(self, vote: Vote) -> bool:
        """This very vote was counted before."""
        view = self._views.get(vote.view)
        found = None if view is None else view.votes.get((vote.kind, vote.validator))
        return found is not None and found.digest == vote.digest

    def add(self, vote: Vote) -> Counted:
        """Count a vote whose signature verifies."""
        view = self._views.setdefault(vote.view, _View())
        place = (vote.kind, vote.validator)
        found = view.votes.get(place)
        if found is None:
            excluded = _EXCLUDE.get(vote.kind)
            other = None if excluded is None else view.votes.get((excluded, vote.validator))
            view.votes[place] = vote
            key = (vote.kind, vote.digest)
            view.counts[key] = view.counts.get(key, 0) + 1
            is_quorum = view.counts[key] == self._quorum
            certificate = self._certificate(view, vote) if is_quorum else None
            conflict = None if other is None else _accused(view, other, vote)
            return Counted(certificate, conflict)
        if found.digest == vote.digest:
            return Counted()
        return Counted(conflict=_accused(view, found, vote))

    def forget_through(self, last: int) -> None:
        """Views up to `last` are settled."""
        for view in [view for view in self._views if view <= last]:
            del self._views[view]

    def _certificate(self, view: _View, vote: Vote) -> Certificate:
        votes = sorted(
            (other.validator, other.signatures)
            for (kind, _), other in view.votes.items()
            if kind is vote.kind and other.digest == vote.digest
        )
        return Certificate(
            vote.kind, self._epoch, self._validators.hash, vote.view, vote.digest, tuple(votes)
        )


def _accused(view: _View, first: Vote, second: Vote) -> Conflict | None:
    if second.validator in view.accused:
        return None
    view.accused.add(second.validator)
    return Conflict(first, second)
