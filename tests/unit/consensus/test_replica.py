"""Validators without I/O: several of them certify one log."""

from __future__ import annotations

import pytest
from tests.unit.consensus.committees import Committee, Member


def agreed(committee: Committee, members: list[Member] | None = None) -> list[bytes]:
    """The digests that the members published: one is the beginning of the other."""
    found = [committee.digests(one) for one in members or committee.members]
    longest = max(found, key=len)
    for one in found:
        assert longest[: len(one)] == one
    return longest


def records_of(member: Member) -> int:
    return sum(one.block.header.record_count for one in member.published)


@pytest.mark.parametrize("n", [1, 2, 4, 7])
def test_all_certify_the_same_blocks(n: int) -> None:
    committee = Committee(n)
    for number in range(30):
        committee.write(f"s{number % 5}")
        committee.run(20)
    committee.run(1_000)
    assert {records_of(one) for one in committee.members} == {30}
    assert len(agreed(committee)) == len(committee.members[0].published)


def test_an_idle_committee_is_silent() -> None:
    committee = Committee(4)
    committee.write("a")
    committee.run(5_000)
    assert {records_of(one) for one in committee.members} == {1}
    before = committee._count
    committee.run(60_000)
    assert committee._count == before


def test_without_one_of_four_the_others_go_on() -> None:
    committee = Committee(4)
    committee.kill(committee.members[1])
    living = [one for one in committee.members if one.alive]
    for number in range(20):
        committee.write(f"s{number % 3}")
        committee.run(100)
    committee.run(3_000)
    assert {records_of(one) for one in living} == {20}
    agreed(committee, living)


def test_without_two_of_four_nothing_is_certified_and_all_is_once_one_is_back() -> None:
    committee = Committee(4)
    away = committee.members[2:]
    lost = True
    committee.loses = lambda sender, to, _: lost and (sender in away or to in away)
    committee.write("a", "b")
    committee.run(5_000)
    assert all(not one.published for one in committee.members)
    lost = False
    committee.run(20_000)
    assert {records_of(one) for one in committee.members} == {2}
    agreed(committee)


def test_a_validator_whose_log_comes_late_follows_once_it_has_the_records() -> None:
    committee = Committee(4)
    late = committee.members[3]
    late.alive = False
    for number in range(5):
        committee.write(f"s{number}")
        committee.run(200)
    late.alive = True
    for made in committee.members[0].published:
        committee.bring(late, made)
    assert late.published == []
    assert late.replica.height == committee.members[0].replica.height
    committee.read(late)
    assert committee.digests(late) == committee.digests(committee.members[0])
    committee.write("more")
    committee.run(1_000)
    assert {records_of(one) for one in committee.members} == {6}


def test_epochs_end_and_begin() -> None:
    committee = Committee(4, epoch_length=3)
    for number in range(12):
        committee.write(f"s{number % 2}")
        committee.run(150)
    committee.run(3_000)
    assert {records_of(one) for one in committee.members} == {12}
    assert agreed(committee)
    assert committee.members[0].published[-1].block.header.epoch.number >= 2
