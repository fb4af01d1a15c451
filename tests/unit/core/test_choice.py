"""One of several candidates, the same for everyone who has the same ones."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nocturne.core.choice import choose


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_the_choice_is_the_same_for_every_order_of_the_candidates(
    candidates: list[bytes], dice: Random
) -> None:
    shuffled = list(candidates)
    dice.shuffle(shuffled)
    assert choose(candidates, len) == choose(shuffled, len)


def test_the_largest_utility_is_chosen_and_among_equals_the_smallest_hash() -> None:
    # SHA-256: "a" ca97…, "b" 3e23…, "c" 2e7d…
    assert choose((b"a", b"bb", b"c"), len) == b"bb"
    assert choose((b"a", b"b", b"c"), len) == b"c"


def test_a_utility_that_is_no_integer_is_refused() -> None:
    for value in (1.0, True, "1"):
        with pytest.raises(TypeError):
            choose((b"a",), lambda _, value=value: value)  # type: ignore[misc]


def test_there_is_no_choice_without_candidates() -> None:
    with pytest.raises(ValueError, match="candidate"):
        choose((), len)
