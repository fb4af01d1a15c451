"""The certificate core: what a validator says, in which order, and what it never says."""

from dataclasses import replace

import pytest
from tests.unit.consensus.ledgers import NOW, signer

from nocturne.consensus.machine import (
    Commit,
    Effect,
    Executed,
    Machine,
    Persist,
    Proposal,
    Rules,
    Send,
    Tip,
    Vote,
    VoteReceived,
)
from nocturne.core.blocks import Range, decode_block_header, link_of, link_to, proposal_signed
from nocturne.core.certificates import (
    Ballot,
    Epoch,
    ValidatorSet,
    VoteKind,
    check_commit_proof,
    sign_vote,
)
from nocturne.core.errors import Malformed, PeerFault
from nocturne.core.identifiers import Hash, LedgerId
from nocturne.core.keys import Ed25519Signer

LEDGER = LedgerId(b"L" * 32)
BOUND_MS = 5_000


def rules(n: int = 1, epoch_length: int = 1000) -> Rules:
    keys = tuple(signer(number + 1).key for number in range(n))
    return Rules(LEDGER, ValidatorSet.of(keys), epoch_length, BOUND_MS)


def machine(rules: Rules, committed: Tip | None = None) -> Machine:
    return Machine(rules, 0, signer(1), committed or Tip.genesis(LEDGER))


def executed(parent: Hash, number: int = 0) -> Executed:
    one = Range(1, bytes(16), 0, number, number + 1, Hash(bytes(32)))
    root = Hash(bytes(31) + bytes([number % 256]))
    return Executed(parent, (one,), Hash(bytes(32)), 1, root, root)


def propose(subject: Machine, number: int = 0, now: int = NOW) -> tuple[Effect, ...]:
    return subject.step(executed(subject.parent.digest, number), now)


def committed(effects: tuple[Effect, ...]) -> Commit:
    (commit,) = [effect for effect in effects if isinstance(effect, Commit)]
    return commit


def votes(effects: tuple[Effect, ...]) -> list[Vote]:
    return [
        effect.record
        for effect in effects
        if isinstance(effect, Persist) and isinstance(effect.record, Vote)
    ]


def vote_of(rules: Rules, validator: int, kind: VoteKind, proposal: Proposal) -> VoteReceived:
    header = proposal.header
    ballot = Ballot(kind, LEDGER, header.epoch, rules.validators.hash, header.view, proposal.digest)
    signatures = sign_vote(signer(validator + 1), ballot)
    return VoteReceived(
        Vote(validator, kind, header.epoch, header.view, proposal.digest, signatures)
    )


def test_one_validator_commits_in_one_step_after_all_that_must_be_durable() -> None:
    subject = machine(rules())
    effects = propose(subject)
    assert [type(effect) for effect in effects] == [Persist, Persist, Persist, Commit]
    assert [vote.kind for vote in votes(effects)] == [VoteKind.NOTARIZE, VoteKind.FINALIZE]
    proposal = committed(effects).proposal
    assert effects[0] == Persist(proposal)
    assert proposal_signed(signer(1).key, proposal.digest, proposal.signatures)
    link = link_to(proposal.header, proposal.digest)
    check_commit_proof(committed(effects).proof, link, LEDGER, rules().validators, link_of)


def test_the_first_block_stands_on_the_ledger_id() -> None:
    header = committed(propose(machine(rules()))).proposal.header
    assert (header.height, header.view, header.parent_view) == (1, 1, 0)
    assert header.parent_digest == Hash(LEDGER)
    assert header.epoch == Epoch(0, 0)
    assert header.leader_proof == b""
    assert header.validator_set_hash == header.next_validator_set_hash == rules().validators.hash


def test_views_and_heights_rise_by_one_and_every_view_is_notarized_once() -> None:
    subject = machine(rules())
    parent: bytes = LEDGER
    for number in range(20):
        effects = propose(subject, number)
        header = committed(effects).proposal.header
        assert (header.height, header.view, header.parent_view) == (number + 1, number + 1, number)
        assert header.parent_digest == parent
        assert [vote.view for vote in votes(effects)] == [header.view] * 2
        parent = committed(effects).proposal.digest


def test_the_header_bytes_are_the_header() -> None:
    proposal = committed(propose(machine(rules()))).proposal
    assert decode_block_header(proposal.header_bytes) == proposal.header


def test_time_never_goes_back_and_a_clock_that_does_stops_nothing() -> None:
    subject = machine(rules())
    times = [NOW, NOW + 10, NOW - 3_600_000, NOW + 11]
    headers = [committed(propose(subject, n, now)).proposal.header for n, now in enumerate(times)]
    assert [header.time for header in headers] == [NOW, NOW + 10, NOW + 10, NOW + 11]


@pytest.mark.parametrize("length", [1, 2, 3])
def test_an_epoch_ends_after_its_heights_and_views_restart(length: int) -> None:
    subject = machine(rules(epoch_length=length))
    seen = []
    for number in range(7):
        header = committed(propose(subject, number)).proposal.header
        seen.append((header.epoch.number, header.view, header.parent_view, header.height))
    assert seen == [(n // length, n % length + 1, n % length, n + 1) for n in range(7)]


@pytest.mark.parametrize("blocks", range(1, 8))
def test_a_machine_made_anew_goes_on_as_the_old_one(blocks: int) -> None:
    subject = machine(rules(epoch_length=3))
    for number in range(blocks):
        last = committed(propose(subject, number)).proposal
    again = machine(rules(epoch_length=3), Tip.of(last.header, last.digest))
    assert propose(again, blocks) == propose(subject, blocks)


def test_without_an_event_nothing_happens() -> None:
    subject = machine(rules())
    assert subject.view == 1
    with pytest.raises(AssertionError, match="empty block"):
        subject.step(replace(executed(Hash(LEDGER)), ranges=()), NOW)


def test_what_was_executed_on_another_block_is_not_proposed() -> None:
    subject = machine(rules())
    propose(subject)
    with pytest.raises(AssertionError, match="another block"):
        subject.step(executed(Hash(LEDGER)), NOW)


def test_a_key_that_is_not_in_the_set_is_refused() -> None:
    with pytest.raises(ValueError, match="not the one in the set"):
        Machine(rules(), 0, Ed25519Signer(bytes(32)), Tip.genesis(LEDGER))


# With more validators: the leader's side of the same rules --------------------------------------


def test_every_send_comes_after_its_persist() -> None:
    given = rules(4)
    subject = machine(given)
    effects = list(propose(subject))
    proposal = next(e.record for e in effects if isinstance(e, Persist))
    assert isinstance(proposal, Proposal)
    for validator in (1, 2):
        for kind in (VoteKind.NOTARIZE, VoteKind.FINALIZE):
            effects += subject.step(vote_of(given, validator, kind, proposal), NOW)
    sent = [effect.message for effect in effects if isinstance(effect, Send)]
    persisted = [effect.record for effect in effects if isinstance(effect, Persist)]
    assert sent == persisted
    for message in sent:
        assert effects.index(Persist(message)) < effects.index(Send(message))


def test_nothing_is_finalized_without_a_quorum_of_notarizations_nor_committed_without_one() -> None:
    given = rules(4)
    subject = machine(given)
    effects = propose(subject)
    proposal = next(e.record for e in effects if isinstance(e, Persist))
    assert isinstance(proposal, Proposal)
    assert [vote.kind for vote in votes(effects)] == [VoteKind.NOTARIZE]
    assert subject.step(vote_of(given, 2, VoteKind.NOTARIZE, proposal), NOW) == ()
    assert subject.step(vote_of(given, 2, VoteKind.NOTARIZE, proposal), NOW) == ()
    assert subject.step(vote_of(given, 1, VoteKind.FINALIZE, proposal), NOW) == ()
    third = subject.step(vote_of(given, 1, VoteKind.NOTARIZE, proposal), NOW)
    assert [vote.kind for vote in votes(third)] == [VoteKind.FINALIZE]
    assert subject.view == 2
    last = subject.step(vote_of(given, 3, VoteKind.FINALIZE, proposal), NOW)
    proof = committed(last).proof
    assert [validator for validator, _ in proof.finalization.votes] == [0, 1, 3]
    link = link_to(proposal.header, proposal.digest)
    check_commit_proof(proof, link, LEDGER, given.validators, link_of)


def test_a_leader_of_another_view_proposes_nothing() -> None:
    given = rules(4)
    subject = machine(given)
    effects = propose(subject)
    proposal = next(e.record for e in effects if isinstance(e, Persist))
    assert isinstance(proposal, Proposal)
    for validator in (1, 2):
        subject.step(vote_of(given, validator, VoteKind.NOTARIZE, proposal), NOW)
    assert not subject.may_propose


def test_past_the_last_height_only_the_commit_helps() -> None:
    given = rules(4, epoch_length=4)
    start = Tip(3, Hash(bytes(32)), Epoch(0, 0), 4, NOW)
    subject = machine(given, start)
    effects = propose(subject)
    proposal = next(e.record for e in effects if isinstance(e, Persist))
    assert isinstance(proposal, Proposal)
    for validator in (1, 2):
        subject.step(vote_of(given, validator, VoteKind.NOTARIZE, proposal), NOW)
    assert not subject.may_propose
    for validator in (1, 2):
        subject.step(vote_of(given, validator, VoteKind.FINALIZE, proposal), NOW)
    assert (subject.view, subject.may_propose) == (1, True)


@pytest.mark.parametrize("change", ["signature", "stranger", "self", "view", "kind", "digest"])
def test_a_vote_that_is_none_is_the_peers_fault_or_counts_nothing(change: str) -> None:
    given = rules(4)
    subject = machine(given)
    effects = propose(subject)
    proposal = next(e.record for e in effects if isinstance(e, Persist))
    assert isinstance(proposal, Proposal)
    good = vote_of(given, 1, VoteKind.NOTARIZE, proposal).vote
    bad = {
        "signature": replace(good, validator=2),
        "stranger": replace(good, validator=4),
        "self": replace(good, validator=0),
        "view": replace(good, view=2),
        "kind": replace(good, kind=VoteKind.FINALIZE),
        "digest": replace(good, digest=Hash(bytes(32))),
    }[change]
    with pytest.raises(PeerFault):
        subject.step(VoteReceived(bad), NOW)
    assert subject.step(VoteReceived(good), NOW) == ()


def test_a_nullification_of_a_peer_counts_nothing() -> None:
    given = rules(4)
    subject = machine(given)
    propose(subject)
    ballot = Ballot(
        VoteKind.NULLIFY, LEDGER, Epoch(0, 0), given.validators.hash, 1, Hash(bytes(32))
    )
    vote = Vote(1, VoteKind.NULLIFY, Epoch(0, 0), 1, Hash(bytes(32)), sign_vote(signer(2), ballot))
    assert subject.step(VoteReceived(vote), NOW) == ()


def test_a_notarization_is_no_commit_proof() -> None:
    commit = committed(propose(machine(rules())))
    notarized = replace(
        commit.proof, finalization=replace(commit.proof.finalization, kind=VoteKind.NOTARIZE)
    )
    link = link_to(commit.proposal.header, commit.proposal.digest)
    with pytest.raises(Malformed, match="only a finalization"):
        check_commit_proof(notarized, link, LEDGER, rules().validators, link_of)
