"""Leaders, routes and waits: what safety does not depend on, and everyone agrees about."""

from __future__ import annotations

import pytest

from nocturne.consensus.quorum.leaders import RoundRobin, recipients
from nocturne.consensus.quorum.pacing import Doubling
from nocturne.core.certificates import Epoch, VoteKind

EPOCH = Epoch(0, 0)
KINDS = tuple(VoteKind)


def test_leaders_take_turns_from_the_first_view_on() -> None:
    assert [RoundRobin().leader(EPOCH, view, 4) for view in range(1, 6)] == [0, 1, 2, 3, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_up_to_sixteen_validators_hear_every_vote(kind: VoteKind) -> None:
    for n in (1, 4, 16):
        assert recipients(RoundRobin(), EPOCH, kind, 7, n, 0) == set(range(n))


def test_above_sixteen_votes_go_to_leaders_until_they_are_not_answered() -> None:
    def to(kind: VoteKind, resends: int) -> frozenset[int]:
        return recipients(RoundRobin(), EPOCH, kind, 3, 17, resends)

    assert to(VoteKind.NOTARIZE, 0) == to(VoteKind.FINALIZE, 2) == {2, 3}
    assert to(VoteKind.NULLIFY, 0) == {3, 4, 5, 6}
    for kind in KINDS:
        assert to(kind, 3) == set(range(17))


def test_a_view_takes_twice_as_long_for_each_one_given_up_within_a_bound() -> None:
    waits = Doubling(200)
    assert [waits.delay_ms(stage, 0) for stage in range(5)] == [100, 100, 200, 200, 400]
    assert [waits.delay_ms(0, failures) for failures in (0, 1, 2, 6, 1000)] == [
        100, 200, 400, 6400, 6400,
    ]  # fmt: skip
