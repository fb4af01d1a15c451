"""The queue to a validator, and the allowance of one, keep their bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nocturne.consensus import peer_bounds
from nocturne.consensus.peer_bounds import (
    BATCH_BYTES_MAX,
    BATCH_VALUES_MAX,
    QUEUE_BYTES_MAX,
    QUEUE_VALUES_MAX,
    Allowance,
    Outgoing,
)


def filled(values: list[bytes], values_max: int = QUEUE_VALUES_MAX) -> tuple[Outgoing, int]:
    queue = Outgoing()
    return queue, sum(queue.add(one, values_max) for one in values)


def drained(queue: Outgoing) -> list[bytes]:
    found: list[bytes] = []
    while batch := queue.take():
        found += batch
    return found


def test_the_oldest_values_go_when_there_are_too_many() -> None:
    values = [b"%d" % number for number in range(QUEUE_VALUES_MAX + 7)]
    queue, gone = filled(values)
    assert gone == 7
    assert drained(queue) == values[7:]
    assert queue.waiting_bytes == 0


def test_the_oldest_values_go_when_there_are_too_many_bytes() -> None:
    size = QUEUE_BYTES_MAX // 3
    values = [bytes([number]) * size for number in range(5)]
    queue, gone = filled(values)
    assert gone == 2
    assert drained(queue) == values[2:]


def test_a_value_alone_is_never_dropped_for_its_own_sake() -> None:
    queue, gone = filled([bytes(QUEUE_BYTES_MAX + 1)])
    assert (gone, len(queue)) == (0, 1)


def test_a_batch_is_bounded_by_count_and_by_bytes() -> None:
    queue, _ = filled([b"x"] * (BATCH_VALUES_MAX + 1))
    assert [len(queue.take()), len(queue.take())] == [BATCH_VALUES_MAX, 1]
    queue, _ = filled([bytes(BATCH_BYTES_MAX - 1), b"x", b"y"])
    assert list(map(len, queue.take())) == [BATCH_BYTES_MAX - 1, 1]
    queue, _ = filled([b"x", bytes(BATCH_BYTES_MAX + 5)])
    assert [len(queue.take()), len(queue.take())] == [1, 1]


def test_what_was_not_sent_comes_first_again() -> None:
    queue, _ = filled([b"%d" % number for number in range(BATCH_VALUES_MAX * 2)])
    batch = queue.take()
    assert queue.put_back(batch) == 0
    assert drained(queue) == [b"%d" % number for number in range(BATCH_VALUES_MAX * 2)]


@given(
    st.lists(st.tuples(st.sampled_from(["add", "take", "back"]), st.integers(0, 9)), max_size=60)
)
def test_bytes_are_counted_and_order_is_kept(steps: list[tuple[str, int]]) -> None:
    queue, model, number = Outgoing(), list[bytes](), 0
    for step, size in steps:
        if step == "add":
            number += 1
            value = number.to_bytes(4, "big") + bytes(size)
            model.append(value)
            gone = queue.add(value, 10)
            model = model[gone:]
        else:
            batch = queue.take()
            assert model[: len(batch)] == batch
            if step == "take":
                model = model[len(batch) :]
            else:
                queue.put_back(batch)
        assert len(queue) == len(model) <= 10
        assert queue.waiting_bytes == sum(map(len, model))
    assert drained(queue) == model


def test_who_says_more_than_its_allowance_waits_until_it_has_filled() -> None:
    allowance = Allowance(100.0, 50.0, 0.0)
    assert allowance.pay(50, 0.0) == 0
    assert allowance.pay(10, 0.0) == 0.1
    assert allowance.pay(0, 0.1) == 0
    assert allowance.pay(50, 10.0) == 0, "it fills to the burst and no further"
    assert allowance.pay(1, 10.0) > 0


def test_a_clock_that_does_not_move_gives_nothing() -> None:
    allowance = Allowance(100.0, 1.0, 5.0)
    allowance.pay(1, 5.0)
    assert allowance.pay(1, 4.0) == 0.01


def test_a_queue_to_a_validator_that_is_away_stays_short() -> None:
    queue, gone = filled([b"x"] * 100, peer_bounds.AWAY_VALUES_MAX)
    assert (len(queue), gone) == (peer_bounds.AWAY_VALUES_MAX, 100 - peer_bounds.AWAY_VALUES_MAX)
