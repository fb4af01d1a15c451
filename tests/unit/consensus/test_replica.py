"""Validators without I/O: several of them certify one log."""

from __future__ import annotations

import pytest
from tests.unit.consensus.committees import Committee, Member
from tests.unit.consensus.ledgers import OPERATOR, signer

from nocturne.consensus.chain import Executed
from nocturne.consensus.quorum.messages import Cast, Committed, Offer, Proposal, Record
from nocturne.consensus.replica import CONTROLS_MAX, Action, Dismiss, Keep, Publish, Say
from nocturne.core.certificates import VoteKind
from nocturne.core.control import Control, decode_control, sign_control
from nocturne.core.identifiers import Hash
from nocturne.core.keys import Ed25519Signer, prove_possession
from nocturne.core.validator_sets import ACTION, set_fields


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


def members_record(committee: Committee, number: int, signers: list[Ed25519Signer]) -> bytes:
    """The operators' record that makes these the validators."""
    fields = set_fields([(one.key, prove_possession(one)) for one in signers])
    control = Control(committee.ledger.ledger_id, number, 1000, ACTION, fields)
    return sign_control(control, (OPERATOR,))


def test_a_validator_that_joins_and_one_that_leaves_do_so_two_epochs_after_it_was_decided() -> None:
    committee = Committee(4, epoch_length=3)
    fresh = committee.join(900)
    leaving = committee.members[0]
    signers = [*[one.signer for one in committee.members[1:4]], fresh.signer]
    committee.control(members_record(committee, 1, signers))
    for number in range(14):
        committee.write(f"s{number % 3}")
        committee.run(200)
    committee.run(3_000)
    assert {records_of(one) for one in committee.members} == {14}
    agreed(committee)
    assert leaving.replica.machine.index is None
    assert fresh.replica.machine.index == 3
    (decided,) = [one.block for one in leaving.published if one.block.control]
    epochs = {one.block.header.epoch.number: one.block for one in leaving.published}
    assert decided.header.epoch.number == 0
    old, new = committee.ledger.validators.hash, fresh.replica.machine.validators.hash
    assert [epochs[one].header.validator_set_hash for one in (0, 1, 2)] == [old, old, new]
    # The new one's votes count: with one of the others away there are just three.
    committee.kill(committee.members[1])
    committee.write("more")
    committee.run(3_000)
    assert records_of(fresh) == 15


def test_one_validator_hands_over_to_another() -> None:
    committee = Committee(1, epoch_length=2)
    fresh = committee.join(901)
    committee.control(members_record(committee, 1, [fresh.signer]))
    for number in range(8):
        committee.write(f"s{number}")
        committee.run(200)
    assert {records_of(one) for one in committee.members} == {8}
    agreed(committee)
    assert (committee.members[0].replica.machine.index, fresh.replica.machine.index) == (None, 0)


def test_a_control_record_that_no_block_can_carry_any_more_is_dismissed() -> None:
    committee = Committee(1)
    (member,) = committee.members
    signers = [member.signer]
    committee.control(members_record(committee, 1, signers))
    again = members_record(committee, 1, [member.signer, signer(902)])
    actions = member.replica.add_control(again, committee.clock)
    assert [one.record for one in actions if isinstance(one, Dismiss)] == [again]
    assert len(member.published) == 1


def test_records_that_no_operator_signed_keep_none_of_theirs_out() -> None:
    committee = Committee(4)
    committee.write("a")
    committee.run(1_000)
    committee.loses = lambda sender, to, say: (
        isinstance(say.message, Cast) and say.message.vote.kind is VoteKind.FINALIZE
    )
    committee.write("b")
    committee.run(60)
    member = committee.members[0]
    assert member.replica.machine.parent != member.replica.chain.tip.digest
    signers = [one.signer for one in committee.members[1:]]
    record = members_record(committee, 1, signers)
    unsigned = sign_control(decode_control(record)[0], (signer(77),))
    for number in range(2 * CONTROLS_MAX):
        for junk in (bytes([number]), unsigned, members_record(committee, 0, signers)):
            committee.do(member, member.replica.add_control(junk, committee.clock))
    assert member.replica.has_room_for_control
    committee.loses = lambda sender, to, say: False
    committee.control(record)
    committee.run(5_000)
    assert [len(one.block.control) for one in member.published].count(1) == 1


@pytest.mark.parametrize("n", [1, 4])
def test_what_is_said_or_published_was_kept_before(n: int) -> None:
    """Whoever carries actions out in their order says nothing that a crash takes back."""
    committee = Committee(n)
    do, members = committee.do, committee.members
    said = published = 0

    def watched(member: Member, actions: list[Action]) -> None:
        nonlocal said, published
        kept = list(member.kept)
        for action in actions:
            match action:
                case Keep(record):
                    kept.append(record)
                case Say(_, Cast(vote)):
                    said += 1
                    assert vote in kept
                case Say(_, Offer(proposal)):
                    said += 1
                    assert proposal.digest in [_proposal_of(one) for one in kept]
                case Publish(made):
                    published += 1
                    of_block = [one for one in kept if _proposal_of(one) == made.block.digest]
                    assert {Executed, Committed} <= {type(one) for one in of_block}
        do(member, actions)

    committee.do = watched  # type: ignore[method-assign]
    for number in range(5):
        committee.write(f"s{number}")
        committee.run(200)
    assert published >= 5 * len(members)
    assert (said > 0) == (n > 1)
    agreed(committee)


def _proposal_of(kept: Record | Executed) -> Hash | None:
    match kept:
        case Proposal():
            return kept.digest
        case Executed() | Committed():
            return kept.proposal.digest
        case _:
            return None
