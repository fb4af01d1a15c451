from hypothesis import given
from hypothesis import strategies as st

from nocturne.embedded.restarts import (
    DELAY_SECONDS_MAX,
    GIVE_UP_DEATHS,
    GIVE_UP_DEATHS_UNBORN,
    GIVE_UP_SECONDS,
    GiveUp,
    RestartAfter,
    after_death,
)


def test_the_first_restart_is_immediate() -> None:
    assert after_death([100.0], was_healthy=True) == RestartAfter(0.0)


def test_delays_double_while_deaths_are_close() -> None:
    deaths = [100.0, 101.0, 102.0, 103.0]
    delays = [after_death(deaths[: n + 1], was_healthy=True) for n in range(4)]
    assert delays == [RestartAfter(0.0), RestartAfter(0.1), RestartAfter(0.2), RestartAfter(0.4)]


def test_an_old_death_is_forgotten() -> None:
    assert after_death([0.0, 1.0, 200.0], was_healthy=True) == RestartAfter(0.0)


def test_twenty_deaths_within_two_minutes_end_the_tries() -> None:
    deaths = [float(second * 6) for second in range(GIVE_UP_DEATHS)]
    assert isinstance(after_death(deaths[:-1], was_healthy=True), RestartAfter)
    assert after_death(deaths, was_healthy=True) == GiveUp("it ended 20 times within 120 s")


def test_a_process_that_never_came_up_is_given_up_sooner() -> None:
    deaths = [float(second) for second in range(GIVE_UP_DEATHS_UNBORN)]
    assert isinstance(after_death(deaths[:-1], was_healthy=False), RestartAfter)
    assert isinstance(after_death(deaths, was_healthy=False), GiveUp)


def test_a_process_that_says_its_end_is_final_is_not_started_again() -> None:
    assert after_death([100.0], was_healthy=True, final="it halted") == GiveUp("it halted")


@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=60))
def test_every_delay_is_bounded_and_crowds_are_given_up(times: list[float]) -> None:
    deaths = sorted(times)
    crowded = sum(deaths[-1] - death < GIVE_UP_SECONDS for death in deaths) >= GIVE_UP_DEATHS
    match after_death(deaths, was_healthy=True):
        case GiveUp():
            assert crowded
        case RestartAfter(seconds):
            assert not crowded
            assert 0.0 <= seconds <= DELAY_SECONDS_MAX
