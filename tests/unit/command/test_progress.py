"""Whether what is in the log is being certified."""

from nocturne.command.progress import STALLED_SECONDS, Progress

LONG = STALLED_SECONDS + 0.1


def test_nothing_waits_at_first_nor_when_all_is_covered() -> None:
    subject = Progress()
    assert subject.waiting_seconds(100.0) == 0
    subject.logged(0, 7, 100.0)
    assert subject.waiting_seconds(101.0) == 1.0
    subject.decided(0, 8, 101.0)
    assert (subject.waiting_seconds(200.0), subject.is_stalled(200.0)) == (0, False)


def test_without_a_block_for_too_long_it_is_stalled_until_one_comes() -> None:
    subject = Progress()
    subject.logged(0, 7, 100.0)
    subject.logged(0, 9, 104.0)
    assert not subject.is_stalled(100.0 + STALLED_SECONDS)
    assert subject.is_stalled(100.0 + LONG)
    subject.decided(0, 9, 106.0)
    assert not subject.is_stalled(106.0)
    assert subject.is_stalled(106.0 + LONG)
    subject.decided(0, 10, 112.0)
    assert not subject.is_stalled(500.0)


def test_a_block_may_be_faster_than_the_brokers_report() -> None:
    subject = Progress()
    subject.decided(0, 8, 100.0)
    subject.logged(0, 7, 100.1)
    assert not subject.is_stalled(100.0 + LONG)


def test_one_partition_that_waits_is_enough() -> None:
    subject = Progress()
    subject.logged(0, 0, 100.0)
    subject.logged(1, 0, 100.0)
    subject.decided(0, 1, 103.0)
    assert subject.is_stalled(100.0 + LONG)
