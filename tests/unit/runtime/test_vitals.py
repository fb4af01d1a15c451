"""One truth about a process: it lives while its loop turns, it is ready while it serves."""

from __future__ import annotations

from nocturne.runtime.vitals import TURN_SECONDS_MAX, Answer, Vitals


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_process_lives_while_its_loop_turns_within_the_bound() -> None:
    clock = Clock()
    vitals = Vitals(clock)
    clock.now += TURN_SECONDS_MAX
    assert vitals.live() == Answer(True)
    clock.now += 0.1
    assert vitals.live() == Answer(False, "the event loop has not turned for 15.1 s")
    vitals.turned()
    assert vitals.live() == Answer(True)


def test_it_is_ready_when_the_service_says_so_and_says_why_it_is_not() -> None:
    vitals = Vitals()
    assert vitals.ready() == Answer(False, "starting")
    vitals.set_serving(True)
    assert vitals.ready() == Answer(True)
    vitals.set_serving(True, "but for something")
    assert vitals.ready() == Answer(True, "but for something")
    vitals.set_serving(False, "no broker answers")
    assert vitals.ready() == Answer(False, "no broker answers")
    vitals.set_serving(False)
    assert vitals.ready() == Answer(False, "not serving")


def test_once_told_to_stop_it_is_never_ready_again_and_lives_on() -> None:
    vitals = Vitals()
    told: list[str] = []
    vitals.when_stopping(lambda: told.append("first"))
    vitals.set_serving(True)
    vitals.stop()
    vitals.stop()
    vitals.when_stopping(lambda: told.append("late"))
    vitals.set_serving(True)
    assert vitals.ready() == Answer(False, "stopping")
    assert vitals.live() == Answer(True)
    assert told == ["first", "late"]


def test_a_halted_process_is_not_ready_and_is_not_started_anew_for_it() -> None:
    clock = Clock()
    vitals = Vitals(clock)
    vitals.set_serving(True)
    vitals.halt("two blocks at height 7")
    clock.now += 10 * TURN_SECONDS_MAX
    assert vitals.is_halted
    assert vitals.ready() == Answer(False, "halted: two blocks at height 7")
    assert vitals.live() == Answer(True)
