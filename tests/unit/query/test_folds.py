"""Remembered states are bounded, and the nearest one is found."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nocturne.core.identifiers import SessionId
from nocturne.query.folds import STATE_OVERHEAD_BYTES, FoldCache, Folded

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
