"""Blocks whose records the own log does not bring: others give their bytes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.consensus.committees import Committee, Member
from tests.unit.consensus.test_replica import agreed, records_of

from nocturne.consensus.gathering import LogLost
from nocturne.consensus.offers import Part
from nocturne.consensus.quorum.messages import Vote
from nocturne.core.certificates import VoteKind
from nocturne.core.errors import Halt


def notarized_by(member: Member) -> set[bytes]:
    """Blocks that it voted to notarize."""
    votes = [one for one in member.kept if isinstance(one, Vote)]
    return {bytes(one.digest) for one in votes if one.kind is VoteKind.NOTARIZE}


def with_ranges(member: Member) -> set[bytes]:
    return {bytes(one.block.digest) for one in member.published if one.block.header.ranges}


def withheld(committee: Committee) -> Member:
    """A member whose log stops bringing records; the others go on, and nothing is published."""
    committee.tell = lambda made: None  # type: ignore[method-assign]
    committee.write("a")
    committee.run(1_000)
    member = committee.members[3]
    member.withheld = True
    for number in range(6):
        committee.write(f"s{number % 3}", f"t{number}")
        committee.run(100)
    return member


def test_a_validator_whose_log_withholds_records_follows_by_what_others_give() -> None:
    committee = Committee(4)
    member = withheld(committee)
    committee.run(20_000)
    assert records_of(member) == 13
    assert member.fetched > 0
    assert agreed(committee) == committee.digests(member)
    own = with_ranges(member) & notarized_by(member)
    assert len(own) == len(with_ranges(member)) - member.fetched


def test_records_that_come_after_all_are_compared_and_not_executed_again() -> None:
    committee = Committee(4)
    member = withheld(committee)
    committee.run(20_000)
    before = committee.digests(member)
    member.withheld = False
    committee.read(member)
    assert member.replica.gathering.waiting == 0
    assert not member.replica.gathering.has_offsets
    assert committee.digests(member) == before
    committee.write("after")
    committee.run(2_000)
    assert {records_of(one) for one in committee.members} == {14}
    assert bytes(member.published[-1].block.digest) in notarized_by(member)


def test_records_that_come_after_all_and_are_others_mean_that_the_log_is_lost() -> None:
    committee = Committee(4)
    member = withheld(committee)
    committee.run(20_000)
    records = committee.ledger.records
    partition, offset, prepared = records[member.read]
    records[member.read] = (
        partition,
        offset,
        replace(prepared, record_hash=records[0][2].record_hash),
    )
    member.withheld = False
    with pytest.raises(LogLost, match="the log was changed"):
        committee.read(member)


def test_what_the_log_brought_of_a_block_before_is_compared_with_what_others_give() -> None:
    committee = Committee(4)
    committee.write("a")
    committee.run(1_000)
    member = committee.members[3]
    member.withheld = True
    committee.write("b", "c", "b", "c", "b", "c")
    partition, offset, prepared = committee.ledger.records[1]
    changed = replace(prepared, record_hash=committee.ledger.records[0][2].record_hash)
    member.replica.gathering.admit(partition, offset, changed)
    with pytest.raises(Halt, match="which is not that of the quorum"):
        committee.run(20_000)


def test_nobody_is_asked_while_the_own_log_brings_its_records_in_time() -> None:
    committee = Committee(4)
    asked: list[Part] = []
    committee.tampers = lambda giver, part: asked.append(part)
    for number in range(20):
        committee.write(f"s{number % 4}")
        committee.run(50)
    committee.run(5_000)
    assert {records_of(one) for one in committee.members} == {20}
    assert asked == []


def test_a_liar_costs_a_fetch_and_is_asked_no_more_for_the_block() -> None:
    committee = Committee(4)
    liars = committee.members[:2]
    given: list[tuple[Member, bytes]] = []

    def tampers(giver: Member, part: Part) -> Part:
        given.append((giver, bytes(part.digest)))
        if giver not in liars:
            return part
        return replace(part, data=part.data[:-1] + bytes([part.data[-1] ^ 1]))

    committee.tampers = tampers
    member = withheld(committee)
    committee.run(20_000)
    assert records_of(member) == 13
    agreed(committee)
    assert member.refused
    of_liars = [(one.signer.key, digest) for one, digest in given if one in liars]
    assert len(of_liars) == len(set(of_liars))
    assert {one.giver for one in member.refused} <= {one.signer.key for one in liars}


def test_while_the_intake_stands_others_are_asked_at_once() -> None:
    committee = Committee(4)
    committee.tell = lambda made: None  # type: ignore[method-assign]
    committee.write("a")
    committee.run(1_000)
    member = committee.members[3]
    member.replica.gathering.stand()
    committee.write("b", "c")
    committee.run(1_000)
    assert records_of(member) == 3
    assert member.fetched >= 1
    agreed(committee)
