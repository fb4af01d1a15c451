"""Remembered states are bounded, and the nearest one is found."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from nocturne.core.identifiers import SessionId
from nocturne.query.folds import (
    CHECKPOINT_EVENTS,
    SESSION_STATES_MAX,
    STATE_OVERHEAD_BYTES,
    FoldCache,
    Folded,
    next_checkpoint,
)

A, B = SessionId("a"), SessionId("b")


def folded(sequence: int, size: int = 10) -> Folded:
    return Folded(sequence, b"", {}, b"x" * size)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 50)), max_size=60),
    st.sampled_from("abc"),
    st.integers(0, 60),
)
def test_the_nearest_state_is_the_largest_not_above(
    kept: list[tuple[str, int]], session: str, sequence: int
) -> None:
    cache = FoldCache()
    for name, at in kept:
        cache.keep(SessionId(name), folded(at))
    found = cache.nearest(SessionId(session), sequence)
    below = [at for name, at in kept if name == session and at <= sequence]
    assert (None if found is None else found.sequence) == max(below, default=None)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 99), st.integers(0, 400))))
def test_bytes_and_states_stay_within_their_bounds(kept: list[tuple[str, int, int]]) -> None:
    cache = FoldCache(bytes_max=5 * STATE_OVERHEAD_BYTES, states_max=4)
    for name, at, size in kept:
        cache.keep(SessionId(name), folded(at, size))
        assert cache.bytes <= 5 * STATE_OVERHEAD_BYTES
        assert len(cache) <= 4


def test_what_was_not_asked_for_longest_is_forgotten() -> None:
    cache = FoldCache(states_max=2)
    cache.keep(A, folded(1))
    cache.keep(B, folded(1))
    assert cache.nearest(A, 1) is not None
    cache.keep(A, folded(2))
    assert cache.nearest(B, 1) is None
    assert cache.nearest(A, 1) is not None


def test_a_state_larger_than_all_room_is_not_kept() -> None:
    cache = FoldCache(bytes_max=1000)
    cache.keep(A, folded(1, 1000))
    assert len(cache) == 0


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 99), st.integers(0, 400))))
def test_a_session_stays_within_its_share_and_keeps_what_was_just_asked(
    kept: list[tuple[str, int, int]],
) -> None:
    share = 3 * STATE_OVERHEAD_BYTES
    cache = FoldCache(session_bytes_max=share, session_states_max=4)
    for name, at, size in kept:
        cache.keep(SessionId(name), folded(at, size))
        found = cache.nearest(SessionId(name), at)
        assert found is not None
        assert found.sequence == at
        assert cache.bytes <= 2 * share
        assert len(cache) <= 8


def test_a_session_asked_state_by_state_leaves_the_others_theirs() -> None:
    cache = FoldCache(states_max=200)
    cache.keep(B, folded(7))
    for at in range(1, 1001):
        cache.keep(A, folded(at))
    assert cache.nearest(B, 7) is not None
    assert len(cache) == SESSION_STATES_MAX + 1


@given(st.integers(20, 400), st.integers(3, 30))
def test_a_share_that_is_full_keeps_states_along_the_whole_session(
    checkpoints: int, states_max: int
) -> None:
    cache = FoldCache(session_states_max=states_max)
    for at in range(1, checkpoints + 1):
        cache.keep(A, folded(at))
    known = [found.sequence for at in range(checkpoints + 1) if (found := cache.nearest(A, at))]
    distinct = [0, *sorted(set(known))]
    gaps = [after - before for before, after in pairwise(distinct)]
    assert len(distinct) == min(states_max, checkpoints) + 1
    # Evenly spread they would be this far apart; none is more than four times as far.
    assert max(gaps) <= 4 * -(-checkpoints // states_max)


def test_a_long_fold_leaves_states_behind_at_the_same_places() -> None:
    assert next_checkpoint(0) == CHECKPOINT_EVENTS
    assert next_checkpoint(CHECKPOINT_EVENTS - 1) == CHECKPOINT_EVENTS
    assert next_checkpoint(CHECKPOINT_EVENTS) == 2 * CHECKPOINT_EVENTS


def test_what_is_cleared_is_forgotten() -> None:
    cache = FoldCache()
    session = SessionId("s")
    cache.keep(session, Folded(5, b"", None, b"null"))
    cache.clear()
    assert (len(cache), cache.bytes, cache.nearest(session, 9)) == (0, 0, None)
    cache.keep(session, Folded(6, b"", None, b"null"))
    assert cache.nearest(session, 9) == Folded(6, b"", None, b"null")
