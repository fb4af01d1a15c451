"""The certificate core of n validators, rule by rule: what a correct one says, and never says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import pytest
from tests.unit.consensus.ledgers import NOW, signer

from nocturne.consensus.quorum import machine as machine_module
from nocturne.consensus.quorum.leaders import RoundRobin
from nocturne.consensus.quorum.machine import NO_DIGEST, NO_RECORDS_ROOT, Machine
from nocturne.consensus.quorum.messages import (
    Accuse,
    Build,
    Built,
    Cast,
    CatchUp,
    Check,
    Checked,
    Commit,
    Committed,
    Contents,
    Effect,
    Event,
    Fetch,
    Fetched,
    Fired,
    LogStands,
    Message,
    Offer,
    Persist,
    Proposal,
    Received,
    Record,
    Rules,
    Send,
    SetDecided,
    SetTimer,
    Suites,
    Vote,
)
from nocturne.consensus.quorum.pacing import Doubling
from nocturne.core.blocks import BlockKind, Range, link_of, link_to
from nocturne.core.certificates import (
    Ballot,
    Certificate,
    CommitProof,
    Epoch,
    ValidatorSet,
    VoteKind,
    check_commit_proof,
    sign_vote,
)
from nocturne.core.conflicts import check_conflict, decode_conflict, encode_conflict
from nocturne.core.errors import Halt, Malformed, PeerFault
from nocturne.core.identifiers import Hash, LedgerId
from nocturne.core.modes import DegradedFound
from nocturne.core.validator_sets import ValidatorSets

T = TypeVar("T")
LEDGER = LedgerId(b"L" * 32)
RULES = Rules(LEDGER, 3, 5_000)
FIRST = Epoch(0, 0)
SIGNERS = [signer(number + 1) for number in range(5)]
SET = ValidatorSet.of(tuple(one.key for one in SIGNERS[:4]))


def contents(number: int) -> Contents:
    one = Range(1, bytes(16), 0, number, number + 1, Hash(bytes(32)))
    root = Hash(number.to_bytes(32, "big"))
    return Contents((one,), NO_DIGEST, 1, root, root)


EMPTY = Contents((), NO_DIGEST, 0, NO_RECORDS_ROOT, Hash(bytes(32)))


USUAL = ((FIRST, SET), (Epoch(0, 1), SET))


def machine(number: int, sets: Sequence[tuple[Epoch, ValidatorSet]] = USUAL) -> Machine:
    return Machine(
        RULES,
        sets,
        Suites(SIGNERS[number]),
        RoundRobin(),
        Doubling(200),
        SIGNERS[number].key,
        None,
    )


def ballot(kind: VoteKind, view: int, digest: Hash, epoch: Epoch = FIRST) -> Ballot:
    return Ballot(kind, LEDGER, epoch, SET.hash, view, digest)


def vote(
    number: int, kind: VoteKind, view: int, digest: Hash = NO_DIGEST, epoch: Epoch = FIRST
) -> Vote:
    signatures = sign_vote(SIGNERS[number], ballot(kind, view, digest, epoch))
    return Vote(number, kind, epoch, view, digest, signatures)


def cast(
    number: int, kind: VoteKind, view: int, digest: Hash = NO_DIGEST, *, again: bool = False
) -> Received:
    return Received(number, Cast(vote(number, kind, view, digest), again))


def certificate(kind: VoteKind, view: int, digest: Hash = NO_DIGEST) -> Certificate:
    votes = tuple((one, vote(one, kind, view, digest).signatures) for one in range(3))
    return Certificate(kind, FIRST, SET.hash, view, digest, votes)


@dataclass
class Host:
    """One machine and what it said."""

    machine: Machine
    said: list[Effect] = field(default_factory=list)

    def hear(self, *events: Event, now: int = NOW) -> list[Effect]:
        """What follows from the events together."""
        said: list[Effect] = []
        for event in events:
            said.extend(self.machine.step(event, now))
        self.said.extend(said)
        return said

    def has_records(self) -> list[Effect]:
        return self.hear(LogStands(self.machine.parent, has_more=True))

    def wait(self) -> list[Effect]:
        """The newest timer's time is over."""
        timer = [one for one in self.said if isinstance(one, SetTimer)][-1]
        return self.hear(Fired(timer.timer))


def of_type(effects: Iterable[Effect], kind: type[T]) -> list[T]:
    return [one for one in effects if isinstance(one, kind)]


def votes_in(effects: Iterable[Effect]) -> list[tuple[VoteKind, int]]:
    records = [one.record for one in of_type(effects, Persist)]
    return [(one.kind, one.view) for one in records if isinstance(one, Vote)]


def offered(effects: Iterable[Effect]) -> Offer:
    (offer,) = {
        one.message.proposal.digest: one.message
        for one in of_type(effects, Send)
        if isinstance(one.message, Offer)
    }.values()
    return offer


def propose(leader: Host, number: int = 0, now: int = NOW) -> Offer:
    """What the leader of its current view offers for one record."""
    leader.has_records()
    build = of_type(leader.said, Build)[-1]
    return offered(leader.hear(Built(build.view, build.parent, contents(number)), now=now))


class Group:
    """Four machines, hosts that agree on everything, and a network that may drop messages."""

    def __init__(self) -> None:
        self.hosts = [Host(machine(number)) for number in range(4)]
        self.lost: Callable[[int, int, Message], bool] = lambda sender, to, message: False
        self.committed: list[list[Committed]] = [[] for _ in range(4)]
        self._number = 0

    def append(self) -> None:
        """A record, seen by all."""
        number = self._number
        self._number += 1
        for host in self.hosts:
            host.has_records()
        leader = next(one for one in self.hosts if (one.machine.view - 1) % 4 == one.machine.index)
        build = of_type(leader.said, Build)[-1]
        self.settle(
            [(leader, Built(build.view, build.parent, contents(number)))],
        )

    def settle(self, events: list[tuple[Host, Event]]) -> None:
        """Until nothing is on its way; timers do not fire."""
        while events:
            host, event = events.pop(0)
            number = self.hosts.index(host)
            for effect in host.hear(event):
                match effect:
                    case Send(to, message):
                        events.extend(
                            (self.hosts[one], Received(number, message))
                            for one in to
                            if not self.lost(number, one, message)
                        )
                    case Check(proposal):
                        events.append((host, Checked(proposal.digest, valid=True)))
                    case Commit(blocks):
                        self.committed[number].extend(blocks)
                    case _:
                        pass

    def wait(self) -> None:
        """Every machine's newest timer fires once."""
        events: list[tuple[Host, Event]] = []
        for host in self.hosts:
            timers = of_type(host.said, SetTimer)
            if timers:
                events.append((host, Fired(timers[-1].timer)))
        self.settle(events)

    def heights(self) -> list[int]:
        return [len(one) for one in self.committed]


# The usual way ---------------------------------------------------------------------------------


def test_a_record_is_committed_by_all_with_proofs_that_convince_anyone() -> None:
    group = Group()
    group.append()
    assert group.heights() == [1, 1, 1, 1]
    assert len({one[0].proposal.digest for one in group.committed}) == 1
    for (one,) in group.committed:
        link = link_to(one.proposal.header, one.proposal.digest)
        check_commit_proof(one.proof, link, LEDGER, SET, link_of)


def test_what_nothing_is_to_be_done_for_is_silent() -> None:
    host = Host(machine(0))
    assert host.hear(LogStands(host.machine.parent, has_more=False)) == []
    group = Group()
    group.append()
    assert not any(one.machine.busy for one in group.hosts)
    group.wait()
    said = [len(one.said) for one in group.hosts]
    group.wait()
    assert [len(one.said) for one in group.hosts] == said


def test_votes_and_proposals_are_durable_before_they_are_sent() -> None:
    group = Group()
    group.append()
    for host in group.hosts:
        durable: set[Record] = set()
        for effect in host.said:
            match effect:
                case Persist(record):
                    durable.add(record)
                case Send(_, Cast(one, _)):
                    assert one in durable
                case Send(_, Offer(proposal, _)):
                    assert proposal in durable
                case _:
                    pass


def test_a_lost_finalization_is_made_up_for_by_sending_it_again() -> None:
    group = Group()
    group.lost = lambda sender, to, message: (
        isinstance(message, Cast) and message.vote.kind is VoteKind.FINALIZE and not message.again
    )
    group.append()
    assert group.heights() == [0, 0, 0, 0]
    assert all(one.machine.busy for one in group.hosts)
    group.wait()
    assert group.heights() == [1, 1, 1, 1]


def test_a_dead_leaders_view_is_given_up_and_the_next_leader_goes_on() -> None:
    group = Group()
    group.lost = lambda sender, to, message: 0 in (sender, to)
    for host in group.hosts[1:]:
        host.has_records()
    group.wait()
    group.wait()
    assert [one.machine.view for one in group.hosts[1:]] == [2, 2, 2]
    build = of_type(group.hosts[1].said, Build)[-1]
    group.settle([(group.hosts[1], Built(2, build.parent, contents(0)))])
    assert group.heights() == [0, 1, 1, 1]


# K1, K2, K3 --------------------------------------------------------------------------------------


def test_only_what_the_host_has_checked_gets_a_vote() -> None:
    offer = propose(Host(machine(0)))
    follower = Host(machine(1))
    assert of_type(follower.hear(Received(0, offer)), Check) == [Check(offer.proposal)]
    assert votes_in(follower.said) == []
    follower.hear(Checked(offer.proposal.digest, valid=False))
    assert votes_in(follower.said) == []
    follower.hear(Checked(offer.proposal.digest, valid=True))
    assert votes_in(follower.said) == [(VoteKind.NOTARIZE, 1)]


def test_k1_a_second_block_of_a_view_gets_evidence_instead_of_a_vote() -> None:
    one, other = propose(Host(machine(0)), 0), propose(Host(machine(0)), 1)
    follower = Host(machine(1))
    follower.hear(Received(0, one), Checked(one.proposal.digest, valid=True))
    said = follower.hear(Received(0, other), Checked(other.proposal.digest, valid=True))
    assert said == [Accuse(0, one.proposal, other.proposal)]
    assert votes_in(follower.said) == [(VoteKind.NOTARIZE, 1)]


def test_k1_holds_after_a_restart() -> None:
    one, other = propose(Host(machine(0)), 0), propose(Host(machine(0)), 1)
    before = Host(machine(1))
    before.hear(Received(0, one), Checked(one.proposal.digest, valid=True))
    after = Host(machine(1))
    after.machine.restore([effect.record for effect in of_type(before.said, Persist)])
    after.hear(Received(0, other), Checked(other.proposal.digest, valid=True))
    assert votes_in(after.said) == []


def test_a_leader_offers_after_a_restart_what_it_offered_before() -> None:
    before = Host(machine(0))
    offer = propose(before)
    after = Host(machine(0))
    after.machine.restore([effect.record for effect in of_type(before.said, Persist)])
    assert of_type(after.has_records(), Build) == []
    assert offered(after.wait()).proposal == offer.proposal


def second_offer(nullified: bool) -> Offer:
    """Of view 2, on genesis, from a leader that holds what entitles to it."""
    leader = Host(machine(1))
    leader.has_records()
    leader.hear(Received(0, certificate(VoteKind.NULLIFY, 1)))
    offer = propose(leader)
    assert [one.kind for one in offer.grounds] == [VoteKind.NULLIFY]
    return offer if nullified else replace(offer, grounds=())


def test_k2_without_the_nullification_of_every_view_between_there_is_no_vote() -> None:
    offer = second_offer(nullified=False)
    follower = Host(machine(2))
    follower.hear(Received(1, offer), Checked(offer.proposal.digest, valid=True))
    assert votes_in(follower.said) == []


def test_k2_a_proposal_brings_what_entitles_to_it() -> None:
    offer = second_offer(nullified=True)
    follower = Host(machine(2))
    follower.hear(Received(1, offer), Checked(offer.proposal.digest, valid=True))
    assert votes_in(follower.said) == [(VoteKind.NOTARIZE, 2)]


def test_k2_without_the_parents_notarization_there_is_no_vote() -> None:
    first = propose(Host(machine(0)))
    leader = Host(machine(1))
    leader.hear(Received(0, first), Checked(first.proposal.digest, valid=True))
    leader.hear(Received(0, certificate(VoteKind.NOTARIZE, 1, first.proposal.digest)))
    offer = propose(leader, 1)
    assert [one.kind for one in offer.grounds] == [VoteKind.NOTARIZE]
    follower = Host(machine(2))
    follower.hear(Received(0, first), Received(1, replace(offer, grounds=())))
    follower.hear(Checked(offer.proposal.digest, valid=True))
    assert votes_in(follower.said) == []
    follower.hear(Received(1, offer), Fetched(first.proposal))
    follower.hear(Checked(offer.proposal.digest, valid=True))
    assert votes_in(follower.said) == [(VoteKind.FINALIZE, 1), (VoteKind.NOTARIZE, 2)]


def test_k3_what_is_nullified_is_not_finalized() -> None:
    offer = propose(Host(machine(0)))
    follower = Host(machine(1))
    follower.has_records()
    follower.wait()
    follower.wait()
    assert votes_in(follower.said) == [(VoteKind.NULLIFY, 1)]
    follower.hear(Received(0, certificate(VoteKind.NOTARIZE, 1, offer.proposal.digest)))
    assert follower.machine.view == 2
    assert votes_in(follower.said) == [(VoteKind.NULLIFY, 1)]


def test_k3_what_is_finalized_is_not_nullified() -> None:
    offer = propose(Host(machine(0)))
    follower = Host(machine(1))
    follower.hear(Received(0, certificate(VoteKind.NOTARIZE, 1, offer.proposal.digest)))
    for _ in range(4):
        follower.wait()
    assert (VoteKind.FINALIZE, 1) in votes_in(follower.said)
    assert (VoteKind.NULLIFY, 1) not in votes_in(follower.said)
    assert (VoteKind.NULLIFY, 2) in votes_in(follower.said)


@pytest.mark.parametrize("late", [-5_001, 5_001])
def test_a_time_outside_the_clock_bound_gets_no_vote_until_it_is_inside(late: int) -> None:
    offer = propose(Host(machine(0)), now=NOW + late)
    follower = Host(machine(1))
    follower.hear(Received(0, offer), Checked(offer.proposal.digest, valid=True))
    assert votes_in(follower.said) == []
    follower.hear(Received(0, offer), now=NOW + late)
    assert votes_in(follower.said) == [(VoteKind.NOTARIZE, 1)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"height": 2},
        {"parent_view": 1},
        {"parent_digest": Hash(b"p" * 32)},
        {"kind": BlockKind.TAIL},
        {"validator_set_hash": Hash(b"s" * 32)},
        {"next_validator_set_hash": Hash(b"s" * 32)},
        {"ledger_id": LedgerId(b"M" * 32)},
        {"format_version": 2},
        {"rules_version": 2},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_header_that_no_correct_leader_makes_gets_no_vote(wrong: dict[str, object]) -> None:
    right = propose(Host(machine(0))).proposal.header
    header = replace(right, **wrong)  # type: ignore[arg-type]
    proposal = Proposal.of(header, Suites(SIGNERS[0]).sign_proposal)
    follower = Host(machine(1))
    follower.hear(Received(0, Offer(proposal, ())), Checked(proposal.digest, valid=True))
    assert votes_in(follower.said) == []


def test_an_empty_block_gets_no_vote_while_there_is_nothing_to_carry_to_finality() -> None:
    header = replace(
        propose(Host(machine(0))).proposal.header,
        ranges=(),
        record_count=0,
        dispositions_root=NO_RECORDS_ROOT,
    )
    proposal = Proposal.of(header, Suites(SIGNERS[0]).sign_proposal)
    follower = Host(machine(1))
    follower.hear(Received(0, Offer(proposal, ())), Checked(proposal.digest, valid=True))
    assert votes_in(follower.said) == []
    follower.has_records()
    follower.hear(Checked(proposal.digest, valid=True))
    assert votes_in(follower.said) == [(VoteKind.NOTARIZE, 1)]


# What is believed --------------------------------------------------------------------------------


def test_a_quorum_is_three_of_four() -> None:
    digest = Hash(b"d" * 32)
    host = Host(machine(0))
    host.hear(*(cast(one, VoteKind.NULLIFY, 1) for one in (1, 2)))
    assert host.machine.view == 1
    host.hear(cast(1, VoteKind.NULLIFY, 1), cast(3, VoteKind.NOTARIZE, 1, digest))
    assert host.machine.view == 1
    host.hear(cast(3, VoteKind.NULLIFY, 1))
    assert host.machine.view == 2


def refused(message: Message) -> None:
    host = Host(machine(0))
    with pytest.raises(PeerFault):
        host.hear(Received(1, message))
    assert host.machine.view == 1


def test_a_vote_by_another_key_is_refused() -> None:
    right = vote(1, VoteKind.NULLIFY, 1)
    refused(Cast(replace(right, validator=2), again=False))
    refused(Cast(replace(right, validator=4), again=False))
    refused(Cast(replace(right, view=2), again=False))


def test_a_nullification_is_of_no_block_and_every_other_vote_of_one() -> None:
    refused(Cast(vote(1, VoteKind.NULLIFY, 1, Hash(b"d" * 32)), again=False))
    refused(Cast(vote(1, VoteKind.FINALIZE, 1), again=False))


def test_a_notarization_is_no_finalization() -> None:
    right = certificate(VoteKind.NOTARIZE, 1, Hash(b"d" * 32))
    refused(replace(right, kind=VoteKind.FINALIZE))


def test_a_certificate_needs_a_quorum_of_the_current_set() -> None:
    right = certificate(VoteKind.NULLIFY, 1)
    refused(replace(right, votes=right.votes[:2]))
    refused(replace(right, votes=(right.votes[0], right.votes[1], right.votes[1])))
    refused(replace(right, validator_set_hash=Hash(b"s" * 32)))


def test_a_proposal_is_its_leaders() -> None:
    proposal = propose(Host(machine(0))).proposal
    other = replace(proposal, signatures=Suites(SIGNERS[2]).sign_proposal(proposal.digest))
    refused(Offer(other, ()))


def test_two_votes_that_exclude_each_other_are_evidence_once() -> None:
    one, other = Hash(b"1" * 32), Hash(b"2" * 32)
    host = Host(machine(0))
    host.hear(cast(1, VoteKind.FINALIZE, 1, one))
    said = host.hear(cast(1, VoteKind.NULLIFY, 1), cast(1, VoteKind.FINALIZE, 1, other))
    assert of_type(said, Accuse) == [
        Accuse(1, vote(1, VoteKind.FINALIZE, 1, one), vote(1, VoteKind.NULLIFY, 1))
    ]


@pytest.mark.parametrize(
    "first, second",
    [
        ((VoteKind.NULLIFY, NO_DIGEST), (VoteKind.FINALIZE, Hash(b"1" * 32))),
        ((VoteKind.FINALIZE, Hash(b"1" * 32)), (VoteKind.NULLIFY, NO_DIGEST)),
    ],
)
def test_a_vote_that_completes_a_certificate_and_excludes_an_earlier_one_is_evidence_too(
    first: tuple[VoteKind, Hash], second: tuple[VoteKind, Hash]
) -> None:
    host = Host(machine(0))
    host.hear(cast(1, first[0], 1, first[1]))
    host.hear(cast(2, second[0], 1, second[1]), cast(3, second[0], 1, second[1]))
    said = host.hear(cast(1, second[0], 1, second[1]))
    votes = [vote(1, kind, 1, digest) for kind, digest in (first, second)]
    assert of_type(said, Accuse) == [Accuse(1, *votes)]
    made = [one.record for one in of_type(said, Persist)]
    assert [one.kind for one in made if isinstance(one, Certificate)] == [second[0]]


def test_a_second_finalize_vote_completes_no_certificate() -> None:
    one, other = Hash(b"1" * 32), Hash(b"2" * 32)
    host = Host(machine(0))
    host.hear(cast(1, VoteKind.FINALIZE, 1, one))
    host.hear(cast(2, VoteKind.FINALIZE, 1, other), cast(3, VoteKind.FINALIZE, 1, other))
    said = host.hear(cast(1, VoteKind.FINALIZE, 1, other))
    assert said == [
        Accuse(1, vote(1, VoteKind.FINALIZE, 1, one), vote(1, VoteKind.FINALIZE, 1, other))
    ]


CERTIFYING = (VoteKind.NOTARIZE, VoteKind.FINALIZE)


@pytest.mark.parametrize("second", CERTIFYING)
@pytest.mark.parametrize("first", CERTIFYING)
def test_two_blocks_certified_in_one_view_halt(first: VoteKind, second: VoteKind) -> None:
    host = Host(machine(0))
    host.hear(Received(1, certificate(first, 1, Hash(b"1" * 32))))
    other = certificate(second, 1, Hash(b"2" * 32))
    with pytest.raises(PeerFault):
        host.hear(Received(1, replace(other, votes=other.votes[:2])))
    with pytest.raises(Halt):
        host.hear(Received(1, other))


def test_votes_far_ahead_are_not_kept() -> None:
    host = Host(machine(0))
    assert host.hear(*(cast(one, VoteKind.NULLIFY, 10_000) for one in (1, 2, 3))) == []
    assert host.machine.view == 1


# Being behind ------------------------------------------------------------------------------------


def test_a_vote_that_is_sent_again_is_answered_with_what_ended_its_view() -> None:
    ended = certificate(VoteKind.NULLIFY, 1)
    host = Host(machine(0))
    host.hear(Received(1, ended))
    assert host.hear(cast(2, VoteKind.NULLIFY, 1)) == []
    assert host.hear(cast(2, VoteKind.NULLIFY, 1, again=True)) == [Send((2,), ended)]


def test_a_vote_of_a_committed_view_is_answered_with_the_commit_proof() -> None:
    group = Group()
    group.append()
    said = group.hosts[0].hear(cast(2, VoteKind.NULLIFY, 1, again=True))
    assert said == [Send((2,), group.committed[0][0])]


def test_whoever_is_busy_while_all_is_settled_here_is_told_what_settled_it() -> None:
    """It holds the Not alone and has given the view up; nobody else has a reason to speak."""
    group = Group()
    group.append()
    (block,) = group.committed[0]
    for view in (2, 3, 17):
        said = group.hosts[0].hear(cast(2, VoteKind.NULLIFY, view, again=True))
        assert of_type(said, Send) == [Send((2,), block)]
    group.hosts[0].has_records()
    assert of_type(group.hosts[0].hear(cast(2, VoteKind.NULLIFY, 2, again=True)), Send) == []


def test_a_commit_that_a_restart_makes_possible_is_durable_before_it_is_told() -> None:
    alone = ValidatorSet.of((SIGNERS[0].key,))
    before = Host(machine(0, sets=[(FIRST, alone)]))
    before.has_records()
    build = of_type(before.said, Build)[-1]
    before.hear(Built(build.view, build.parent, contents(0)))
    records = [one.record for one in of_type(before.said, Persist)]
    votes = [one for one in records if not isinstance(one, Committed)]
    after = machine(0, sets=[(FIRST, alone)])
    persisted, commit = [one for one in after.restore(votes) if isinstance(one, Persist | Commit)]
    assert isinstance(commit, Commit)
    assert persisted == Persist(commit.blocks[-1])


def test_a_final_block_that_is_not_here_is_fetched_with_its_ancestors() -> None:
    group = Group()
    group.append()
    group.append()
    one, two = group.committed[0]
    late = Host(machine(3))
    said = late.hear(Received(0, two))
    assert of_type(said, Fetch) == [Fetch(one.proposal.digest)]
    assert of_type(late.hear(Fetched(propose(Host(machine(0)), 7).proposal)), Commit) == []
    (commit,) = of_type(late.hear(Fetched(one.proposal)), Commit)
    assert [block.proposal for block in commit.blocks] == [one.proposal, two.proposal]
    assert commit.blocks[0].proof.headers == (two.proposal.header_bytes,)


def _two_histories() -> tuple[list[Committed], list[Committed]]:
    """What the same validators committed twice, of which more than f would have to lie."""
    one, other = Group(), Group()
    other._number = 50
    for group in (one, other):
        for _ in range(2):
            group.append()
    return one.committed[0], other.committed[0]


def _proves_two_histories(host: Host, event: Event) -> None:
    with pytest.raises(DegradedFound) as found:
        host.hear(event)
    conflict = found.value.degraded.conflict
    assert conflict is not None
    sets = ValidatorSets.founding(RULES.epoch_length, SET)
    check_conflict(decode_conflict(encode_conflict(conflict)), LEDGER, sets, SIGNERS[0].key)


def test_a_committed_block_on_another_parent_than_the_committed_one_is_proof() -> None:
    own, others = _two_histories()
    host = Host(machine(3))
    host.hear(Received(0, own[0]))
    _proves_two_histories(host, Received(0, others[1]))


def test_a_finalization_beside_the_committed_block_is_proof_once_its_block_is_here() -> None:
    own, others = _two_histories()
    host = Host(machine(3))
    host.hear(Received(0, own[1]), Fetched(own[0].proposal))
    late = Group()
    late._number = 50
    for _ in range(4):
        late.append()
    third = late.committed[0][2]
    assert [one.proposal.digest for one in others] == [
        one.proposal.digest for one in late.committed[0][:2]
    ]
    _proves_two_histories(host, Received(0, third))


def test_a_finalized_block_whose_ancestors_lead_past_the_committed_one_is_proof() -> None:
    own, _ = _two_histories()
    late = Group()
    late._number = 50
    for _ in range(3):
        late.append()
    host = Host(machine(3))
    host.hear(Received(0, own[0]))
    host.hear(Received(0, late.committed[0][2]))
    host.hear(Fetched(late.committed[0][1].proposal))
    _proves_two_histories(host, Fetched(late.committed[0][0].proposal))


def test_a_committed_block_with_a_false_proof_is_refused() -> None:
    group = Group()
    group.append()
    block = group.committed[0][0]
    notarized = certificate(VoteKind.NOTARIZE, 1, block.proposal.digest)
    for false in (
        replace(block.proof, finalization=notarized),
        replace(block.proof, finalization=replace(notarized, kind=VoteKind.FINALIZE)),
    ):
        with pytest.raises(Malformed):
            machine(3).step(Received(0, replace(block, proof=false)), NOW)


def finalizes_the_third_view(_sender: int, _to: int, message: Message) -> bool:
    """A vote without which an epoch's last block, of that view, is not committed by itself."""
    return (
        isinstance(message, Cast)
        and message.vote.kind is VoteKind.FINALIZE
        and message.vote.view == 3
    )


def past_an_epochs_end() -> tuple[list[Committed], Proposal]:
    """Three blocks, the last of them an epoch's, and the tail block that is finalized past it."""
    group = Group()
    group.append()
    group.append()
    group.lost = finalizes_the_third_view
    group.append()
    group.wait()
    return group.committed[0], offered(group.hosts[3].said).proposal


def test_a_tail_block_is_no_committed_block_though_it_is_final() -> None:
    """It has the height of the block that it commits, and another parent."""
    blocks, tail = past_an_epochs_end()
    late = Host(machine(3))
    late.hear(*(Received(None, block) for block in blocks[:2]))
    final = blocks[2].proof.finalization
    assert final.digest == tail.digest
    with pytest.raises(PeerFault):
        late.hear(Received(0, Committed(tail, CommitProof(final, ()))))
    assert of_type(late.hear(Received(0, blocks[2])), Commit) == [Commit((blocks[2],))]


def test_a_finalization_of_a_later_epoch_is_no_commit_proof_in_this_one() -> None:
    """Its view is counted anew: here it would be another block's."""
    group = Group()
    for _ in range(3):
        group.append()
    leader = group.hosts[0]
    (build,) = of_type(leader.wait(), Build)
    group.settle([(leader, Built(1, build.parent, EMPTY))])
    one, two, three, four = group.committed[0]
    headers = tuple(block.proposal.header_bytes for block in (two, three, four))
    for number, block in enumerate((one, two, three)):
        late = Host(machine(3))
        proof = CommitProof(four.proof.finalization, headers[number:])
        with pytest.raises(PeerFault):
            late.hear(Received(0, Committed(block.proposal, proof)))
        assert late.machine.view == 1


def test_who_hears_of_a_later_epoch_asks_for_what_lies_between() -> None:
    host = Host(machine(0))
    later = vote(1, VoteKind.NULLIFY, 1, epoch=Epoch(0, 5))
    assert host.hear(Received(1, Cast(later, again=False))) == [CatchUp(1)]


def test_nullifications_that_nobody_has_all_of_are_brought_together() -> None:
    """Each view was given up by three of four, and another one jumped over it."""
    group = Group()
    for number, host in enumerate(group.hosts):
        host.has_records()
        host.hear(
            *(
                Received(None, certificate(VoteKind.NULLIFY, view))
                for view in (1, 2, 3, 4, 5)
                if view != number + 1
            )
        )
    assert [host.machine.view for host in group.hosts] == [6, 6, 6, 6]
    group.wait()
    assert 6 not in [one.view for one in of_type(group.hosts[1].said, Build)]
    group.wait()
    assert [host.machine.view for host in group.hosts] == [7, 7, 7, 7]
    leader = group.hosts[2]
    build = of_type(leader.said, Build)[-1]
    group.settle([(leader, Built(build.view, build.parent, contents(0)))])
    assert group.heights() == [1, 1, 1, 1]


def test_a_view_jumped_over_is_nullified_anew_if_nobody_knows_what_ended_it() -> None:
    host = Host(machine(0))
    host.has_records()
    host.hear(Received(None, certificate(VoteKind.NULLIFY, 2)))
    host.wait()
    assert votes_in(host.said) == []
    host.wait()
    assert votes_in(host.said) == [(VoteKind.NULLIFY, 1), (VoteKind.NULLIFY, 3)]
    host.hear(cast(1, VoteKind.NULLIFY, 1), cast(2, VoteKind.NULLIFY, 1))
    assert of_type(host.wait(), Send)[-1].message == Cast(vote(0, VoteKind.NULLIFY, 3), True)


def test_a_long_time_without_blocks_does_not_make_proposals_too_large_to_be_taken() -> None:
    leader, follower = Host(machine(0)), Host(machine(1))
    ended = [certificate(VoteKind.NULLIFY, view) for view in range(1, 301)]
    for host in (leader, follower):
        host.hear(*(Received(None, one) for one in ended))
    offer = propose(leader)
    assert [one.view for one in offer.grounds] == list(range(45, 301))
    follower.hear(Received(0, offer), Checked(offer.proposal.digest, valid=True))
    assert votes_in(follower.said) == [(VoteKind.NOTARIZE, 301)]


def test_more_blocks_than_a_commit_proof_reaches_over_are_caught_up_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine_module, "COMMIT_PROOF_HEADERS_MAX", 1)
    group = Group()
    group.append()
    group.append()
    one, two = group.committed[0]
    late = Host(machine(3))
    late.hear(Received(0, two))
    said = late.hear(Fetched(one.proposal))
    assert of_type(said, Commit) == []
    assert of_type(said, CatchUp) == [CatchUp(1)]
    said = late.hear(Received(0, one))
    assert of_type(said, Commit) == [Commit((one,)), Commit((two,))]


# Epochs ------------------------------------------------------------------------------------------


def test_after_an_epochs_last_block_views_begin_again_and_an_empty_block_proves_the_new_set() -> (
    None
):
    group = Group()
    for _ in range(3):
        group.append()
    assert group.heights() == [3, 3, 3, 3]
    assert {one.machine.epoch for one in group.hosts} == {Epoch(0, 1)}
    assert {one.machine.view for one in group.hosts} == {1}
    assert all(one.machine.busy for one in group.hosts)
    for host in group.hosts:
        host.hear(SetDecided(Epoch(0, 2), SET))
    leader = group.hosts[0]
    said = leader.wait()
    (build,) = of_type(said, Build)
    assert build.empty
    group.settle([(leader, Built(1, build.parent, EMPTY))])
    assert group.heights() == [4, 4, 4, 4]
    first = group.committed[0][3].proposal.header
    assert (first.epoch, first.view, first.parent_view) == (Epoch(0, 1), 1, 0)
    assert not any(one.machine.busy for one in group.hosts)


def test_past_an_epochs_last_block_only_tail_blocks_commit_it() -> None:
    group = Group()
    for _ in range(2):
        group.append()
    group.lost = finalizes_the_third_view
    group.append()
    assert group.heights() == [2, 2, 2, 2]
    assert {one.machine.view for one in group.hosts} == {4}
    for host in group.hosts:
        host.has_records()
    group.wait()
    tail = offered(group.hosts[3].said).proposal.header
    assert (tail.kind, tail.height, tail.ranges, tail.view) == (BlockKind.TAIL, 3, (), 4)
    assert group.heights() == [3, 3, 3, 3]
    proof = group.committed[0][2].proof
    assert proof.finalization.view == 4
    assert len(proof.headers) == 1
    assert {one.machine.epoch for one in group.hosts} == {Epoch(0, 1)}


def test_a_validator_that_leaves_the_set_becomes_an_observer_and_a_new_one_votes() -> None:
    changed = ValidatorSet.of(tuple(one.key for one in (*SIGNERS[1:4], SIGNERS[4])))
    sets = [(FIRST, SET), (Epoch(0, 1), changed), (Epoch(0, 2), changed)]
    group = Group()
    group.hosts = [Host(machine(number, sets=sets)) for number in range(4)]
    for _ in range(3):
        group.append()
    leaving, coming = group.hosts[0], Host(machine(4, sets=sets))
    for block in group.committed[0]:
        coming.hear(Received(None, block))
    assert (leaving.machine.index, coming.machine.index) == (None, 3)
    for host in (leaving, coming):
        host.has_records()
        host.wait()
        host.wait()
    assert votes_in(coming.said) == [(VoteKind.NULLIFY, 1)]
    assert votes_in(leaving.said)[-1] == (VoteKind.FINALIZE, 3)


def test_votes_of_an_epoch_that_a_restart_does_not_come_to_halt_it() -> None:
    """They bind, so they must not be forgotten: the final block given was not the log's newest."""
    later = vote(0, VoteKind.NULLIFY, 1, epoch=Epoch(0, 1))
    with pytest.raises(Halt):
        machine(0).restore([later])


def test_a_finalization_that_a_restart_goes_past_is_forgotten() -> None:
    group = Group()
    group.append()
    group.append()
    one, two = group.committed[0]
    late = Host(machine(3))
    said = late.machine.restore([one.proof.finalization, one, two])
    assert of_type(said, Fetch) == []
    assert late.machine.final == two


def test_validators_that_the_chain_does_not_name_do_not_begin_an_epoch() -> None:
    other = ValidatorSet.of(tuple(one.key for one in SIGNERS[1:5]))
    group = Group()
    for _ in range(3):
        group.append()
    late = Host(machine(3, sets=[(FIRST, SET), (Epoch(0, 1), other)]))
    late.hear(*(Received(None, block) for block in group.committed[0][:2]))
    with pytest.raises(Halt, match="names other validators"):
        late.hear(Received(None, group.committed[0][2]))


def test_one_validator_alone_begins_an_epoch_with_an_empty_block_and_is_silent() -> None:
    alone = ValidatorSet.of((SIGNERS[0].key,))
    host = Host(machine(0, sets=[(FIRST, alone), (Epoch(0, 1), alone)]))
    for number in range(RULES.epoch_length):
        assert host.machine.epoch == FIRST
        (build,) = of_type(host.has_records(), Build)
        host.hear(Built(build.view, build.parent, contents(number)))
    assert host.machine.epoch == Epoch(0, 1)
    assert host.machine.busy
    (build,) = of_type(host.wait(), Build)
    assert build.empty
    said = host.hear(Built(build.view, build.parent, EMPTY))
    assert len(of_type(said, Commit)) == 1
    assert of_type(host.said, Send) == []
    assert not host.machine.busy


def test_one_validator_alone_commits_at_once() -> None:
    alone = ValidatorSet.of((SIGNERS[0].key,))
    host = Host(machine(0, sets=[(FIRST, alone)]))
    (build,) = of_type(host.has_records(), Build)
    said = host.hear(Built(build.view, build.parent, contents(0)))
    assert len(of_type(said, Commit)) == 1
    assert of_type(said, Send) == []
    assert votes_in(said) == [(VoteKind.NOTARIZE, 1), (VoteKind.FINALIZE, 1)]
