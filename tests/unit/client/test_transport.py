"""When the client tries again."""

import pytest

from nocturne.client import transport


@pytest.mark.parametrize("attempt", [0, 5, 10, 1_023, 1_024, 100_000])
def test_a_pause_is_bounded_after_however_many_refusals(attempt: int) -> None:
    # A stream of a thousand commands counts a thousand refusals while the broker is away.
    assert 0 < transport.backoff_seconds(attempt) <= transport.BACKOFF_SECONDS_MAX
