"""Votes that others hold: asked for at the start."""

from __future__ import annotations

import pytest
from tests.unit.consensus.ledgers import Ledger, genesis, signer

from nocturne.consensus.own_votes import KEYS_MAX, HeardVotes, VoteCheck
from nocturne.consensus.quorum.messages import Vote
from nocturne.core.certificates import Ballot, Certificate, Epoch, ValidatorSet, VoteKind, sign_vote
from nocturne.core.errors import Halt
from nocturne.core.identifiers import Hash
from nocturne.core.keys import Ed25519Signer

SIGNERS = tuple(signer(number) for number in range(50, 54))
OWN, *OTHERS = SIGNERS
LEDGER = Ledger(genesis(validators=SIGNERS))
BLOCK = Hash(bytes(31) + b"\x01")
OTHER_BLOCK = Hash(bytes(31) + b"\x02")


def vote(
    view: int,
    kind: VoteKind = VoteKind.NOTARIZE,
    digest: Hash = BLOCK,
    epoch: int = 0,
    by: Ed25519Signer = OWN,
) -> Vote:
    of = Epoch(0, epoch)
    ballot = Ballot(kind, LEDGER.ledger_id, of, LEDGER.validators.hash, view, digest)
    return Vote(SIGNERS.index(by), kind, of, view, digest, sign_vote(by, ballot))


def check(*own: Vote, settled: tuple[Epoch, int] = (Epoch(0, 0), 0)) -> VoteCheck:
    return VoteCheck(LEDGER.ledger_id, LEDGER.validators, OWN.key, settled, own)


def test_a_quorum_of_answers_is_enough() -> None:
    subject = check()
    assert (subject.is_done, len(subject.missing)) == (False, 3)
    subject.answered(OTHERS[0].key, ())
    subject.answered(OTHERS[0].key, ())
    assert not subject.is_done
    subject.answered(OTHERS[1].key, ())
    assert (subject.is_done, subject.missing) == (True, (OTHERS[2].key,))


def test_alone_a_validator_is_its_own_quorum() -> None:
    ledger = Ledger()
    only = ledger.validators.keys[0]
    assert VoteCheck(ledger.ledger_id, ledger.validators, only, (Epoch(0, 0), 0), ()).is_done


def test_answers_of_strangers_do_not_count() -> None:
    subject = check()
    for number in range(5):
        subject.answered(signer(number).key, ())
    assert not subject.is_done


def test_a_vote_that_the_log_has_or_that_is_settled_is_no_reason_to_refuse() -> None:
    subject = check(vote(7), settled=(Epoch(0, 0), 5))
    subject.answered(OTHERS[0].key, (vote(7), vote(5, VoteKind.FINALIZE), vote(3)))
    later = check(settled=(Epoch(0, 1), 1))
    later.answered(OTHERS[0].key, (vote(900),))


def test_a_vote_of_an_epoch_with_other_validators_shows_an_older_copy_too() -> None:
    changed = ValidatorSet.of(tuple(one.key for one in (OWN, *OTHERS[:2], signer(60))))
    ballot = Ballot(VoteKind.NOTARIZE, LEDGER.ledger_id, Epoch(0, 2), changed.hash, 1, BLOCK)
    held = Vote(0, VoteKind.NOTARIZE, Epoch(0, 2), 1, BLOCK, sign_vote(OWN, ballot))
    check().answered(OTHERS[0].key, (held,))
    knows = VoteCheck(
        LEDGER.ledger_id, LEDGER.validators, OWN.key, (Epoch(0, 0), 0), (), (changed,)
    )
    with pytest.raises(Halt, match="epoch 2 that its journal lacks"):
        knows.answered(OTHERS[0].key, (held,))


def test_a_vote_of_a_set_that_is_decided_after_the_answer_shows_an_older_copy_then() -> None:
    changed = ValidatorSet.of(tuple(one.key for one in (OWN, *OTHERS[:2], signer(60))))
    ballot = Ballot(VoteKind.NOTARIZE, LEDGER.ledger_id, Epoch(0, 2), changed.hash, 1, BLOCK)
    held = Vote(0, VoteKind.NOTARIZE, Epoch(0, 2), 1, BLOCK, sign_vote(OWN, ballot))
    subject = check()
    for other in OTHERS:
        subject.answered(other.key, (held,))
    assert subject.is_done
    subject.decided(LEDGER.validators)
    with pytest.raises(Halt, match="epoch 2 that its journal lacks"):
        subject.decided(changed)


@pytest.mark.parametrize(
    "held",
    [
        vote(8),
        vote(7, digest=OTHER_BLOCK),
        vote(7, VoteKind.FINALIZE),
        vote(7, VoteKind.NULLIFY, Hash(bytes(32))),
        vote(1, epoch=1),
    ],
)
def test_a_vote_that_the_log_lacks_is_a_halt(held: Vote) -> None:
    subject = check(vote(7), settled=(Epoch(0, 0), 5))
    with pytest.raises(Halt, match="older copy"):
        subject.answered(OTHERS[0].key, (held,))


def test_a_vote_that_this_key_did_not_sign_shows_nothing() -> None:
    forged = Vote(0, VoteKind.NOTARIZE, Epoch(0, 0), 9, BLOCK, vote(9, by=OTHERS[0]).signatures)
    subject = check()
    subject.answered(OTHERS[0].key, (forged,))
    subject.answered(OTHERS[1].key, (forged,))
    assert subject.is_done


def test_the_newest_vote_of_each_kind_is_held() -> None:
    heard = HeardVotes()
    assert heard.take(OWN.key, vote(3))
    assert not heard.take(OWN.key, vote(3))
    assert not heard.take(OWN.key, vote(2))
    assert heard.take(OWN.key, vote(3, VoteKind.FINALIZE))
    assert heard.take(OWN.key, vote(1, epoch=1))
    assert set(heard.of(OWN.key)) == {vote(1, epoch=1), vote(3, VoteKind.FINALIZE)}
    assert heard.of(OTHERS[0].key) == ()


def test_certificates_tell_of_everybodys_votes() -> None:
    heard = HeardVotes()
    votes = [vote(4, by=one) for one in SIGNERS[:3]]
    certificate = Certificate(
        VoteKind.NOTARIZE,
        Epoch(0, 0),
        LEDGER.validators.hash,
        4,
        BLOCK,
        tuple((one.validator, one.signatures) for one in votes),
    )
    assert heard.take_certificate(LEDGER.genesis.founding_sets, certificate) == votes
    assert heard.take_certificate(LEDGER.genesis.founding_sets, certificate) == []
    assert heard.of(SIGNERS[2].key) == (votes[2],)


def test_what_is_held_is_bounded_in_keys() -> None:
    heard = HeardVotes()
    for number in range(KEYS_MAX + 5):
        heard.take(signer(1000 + number).key, vote(3))
    assert heard.of(signer(1000).key) == ()
    assert heard.of(signer(1000 + KEYS_MAX + 4).key) == (vote(3),)
