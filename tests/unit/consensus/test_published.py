"""What the blocks topic has of the own chain."""

from dataclasses import replace

import pytest
from tests.unit.consensus.ledgers import NOW, VALIDATOR, Ledger

from nocturne.consensus.chain import Made
from nocturne.consensus.published import Published, TopicCheck
from nocturne.core import topics
from nocturne.core.blocks import ProofPointer, encode_block
from nocturne.core.certificates import Ballot, VoteKind, sign_vote
from nocturne.core.errors import Halt


def chain_of(length: int, sessions: str = "abcdefgh") -> tuple[Ledger, list[Made]]:
    ledger = Ledger()
    made = []
    for session in sessions[:length]:
        ledger.write(session)
        made.append(ledger.chain.extend(ledger.gathering.batches(), NOW))
        ledger.gathering.taken(made[-1].block.header.ranges)
    return ledger, made


def framed(made: Made) -> bytes:
    return topics.frame(2, made.encoded)


def check(ledger: Ledger, made: list[Made], known: Published | None = None) -> TopicCheck:
    digests = {one.block.header.height: one.block.digest for one in made}
    return TopicCheck(ledger.ledger_id, ledger.validators, digests, ledger.chain.tip.height, known)


def test_an_empty_topic_has_none() -> None:
    assert check(*chain_of(3)).newest() is None


def test_the_newest_is_the_last_with_none_missing_below() -> None:
    ledger, made = chain_of(4)
    subject = check(ledger, made)
    for offset, one in ((3, made[0]), (4, made[0]), (6, made[1]), (9, made[3])):
        subject.offer(offset, framed(one))
    assert subject.newest() == Published(2, 6)


def test_it_goes_on_from_the_one_that_was_acknowledged() -> None:
    ledger, made = chain_of(4)
    subject = check(ledger, made[2:], Published(3, 17))
    subject.offer(17, framed(made[2]))
    subject.offer(18, framed(made[3]))
    assert subject.newest() == Published(4, 18)


def test_an_acknowledged_block_that_is_not_where_it_was_is_looked_up() -> None:
    ledger, made = chain_of(2)
    subject = check(ledger, made, Published(1, 17))
    subject.offer(18, framed(made[0]))
    with pytest.raises(LookupError):
        subject.newest()


def test_what_anyone_may_have_written_is_counted_and_ignored() -> None:
    ledger, made = chain_of(2)
    other, others = chain_of(2, "xy")
    assert other.ledger_id == ledger.ledger_id
    block = made[0].block
    unproved = replace(block, proof=ProofPointer(2, made[1].block.digest))
    forged = replace(others[1].block, proof=made[0].block.proof)
    subject = check(ledger, made)
    for value in (None, b"", b"\x00junk", framed(made[0])[:-1]):
        subject.offer(0, value)
    for one in (unproved, forged):
        subject.offer(0, topics.frame(2, encode_block(one)))
    assert (subject.ignored, subject.newest()) == (6, None)


def test_a_committed_block_above_the_own_journal_shows_an_old_copy() -> None:
    _, made = chain_of(3)
    older, kept = chain_of(2)
    with pytest.raises(Halt, match="old copy"):
        check(older, kept).offer(0, framed(made[2]))


def test_another_committed_block_at_an_own_height_is_a_halt() -> None:
    ledger, made = chain_of(1)
    _, others = chain_of(1, "x")
    with pytest.raises(Halt, match="another committed block at height 1"):
        check(ledger, made).offer(0, framed(others[0]))


def test_a_notarization_is_not_believed() -> None:
    ledger, made = chain_of(1)
    proof = made[0].block.proof
    assert not isinstance(proof, ProofPointer)
    old = proof.finalization
    ballot = Ballot(
        VoteKind.NOTARIZE,
        ledger.ledger_id,
        old.epoch,
        old.validator_set_hash,
        old.view,
        old.digest,
    )
    votes = ((0, sign_vote(VALIDATOR, ballot)),)
    notarized = replace(proof, finalization=replace(old, kind=VoteKind.NOTARIZE, votes=votes))
    subject = check(ledger, made)
    value = encode_block(replace(made[0].block, proof=notarized))
    subject.offer(0, topics.frame(2, value))
    assert (subject.ignored, subject.newest()) == (1, None)
