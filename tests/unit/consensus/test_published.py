"""What the blocks topic has of the own chain."""

from dataclasses import replace

import pytest
from tests.unit.consensus.ledgers import NOW, VALIDATOR, Ledger

from nocturne.consensus.chain import Made
from nocturne.consensus.published import (
    EARLY_COPIES_MAX,
    EARLY_MAX,
    NEXT_MS,
    OTHERS_MS,
    PASSED_MAX,
    UNPUBLISHED_MAX,
    Published,
    Topic,
    TopicCheck,
)
from nocturne.core import topics
from nocturne.core.blocks import ProofPointer, encode_block
from nocturne.core.certificates import Ballot, VoteKind, sign_vote
from nocturne.core.errors import Halt


def chain_of(length: int, sessions: str = "abcdefgh") -> tuple[Ledger, list[Made]]:
    ledger = Ledger()
    made = []
    for session in sessions[:length]:
        ledger.write(session)
        made.append(ledger.extend())
    return ledger, made


def framed(made: Made) -> bytes:
    return topics.frame(2, made.encoded)


def check(ledger: Ledger, made: list[Made], known: Published | None = None) -> TopicCheck:
    digests = {one.block.header.height: one.block.digest for one in made}
    return TopicCheck(
        ledger.ledger_id, ledger.genesis.founding_sets, digests, ledger.chain.tip.height, known
    )


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


# The topic beside a chain that grows ---------------------------------------------------------


def topic(ledger: Ledger, published: Published | None = None) -> Topic:
    return Topic(ledger.ledger_id, ledger.genesis.founding_sets, {}, published)


def test_the_leader_publishes_at_once_and_in_order() -> None:
    ledger, made = chain_of(3)
    subject = topic(ledger)
    for one in made:
        subject.committed(one, 0, NOW)
    assert subject.due(NOW) == made
    assert (subject.due(NOW), subject.next_due) == ([], None)
    subject.acknowledged(2, 12)
    assert subject.published is None
    subject.acknowledged(1, 11)
    assert (subject.published, subject.newest) == (Published(2, 12), made[1])


def test_the_others_publish_only_what_is_not_seen_in_time_one_after_the_other() -> None:
    ledger, made = chain_of(1)
    for rank, wait in ((1, OTHERS_MS), (2, OTHERS_MS + NEXT_MS), (3, OTHERS_MS + 2 * NEXT_MS)):
        subject = topic(ledger)
        subject.committed(made[0], rank, NOW)
        assert subject.next_due == NOW + wait
        assert subject.due(NOW + wait - 1) == []
        assert subject.due(NOW + wait) == made
    seen = topic(ledger)
    seen.committed(made[0], 1, NOW)
    assert seen.offer(5, framed(made[0])) is None
    assert (seen.published, seen.due(NOW + 10_000), seen.next_due) == (Published(1, 5), [], None)


def test_an_observer_publishes_nothing() -> None:
    ledger, made = chain_of(1)
    subject = topic(ledger)
    subject.committed(made[0], None, NOW)
    assert (subject.due(NOW + 10**9), subject.next_due) == ([], None)


def test_a_leader_waits_for_the_block_before_its_own() -> None:
    ledger, made = chain_of(2)
    subject = topic(ledger)
    subject.committed(made[0], 1, NOW)
    subject.committed(made[1], 0, NOW)
    assert subject.due(NOW) == []
    subject.offer(0, framed(made[0]))
    assert subject.due(NOW) == made[1:]


def test_a_block_is_published_that_stood_in_the_topic_before_it_was_committed_here() -> None:
    ledger, made = chain_of(1)
    subject = topic(ledger)
    found = subject.offer(3, framed(made[0]))
    assert found is not None
    assert found.committed.proposal.digest == made[0].block.digest
    subject.committed(made[0], 1, NOW)
    assert subject.published == Published(1, 3)


def test_another_proof_is_as_good_and_a_wrong_one_or_another_body_is_not_the_block() -> None:
    ledger, made = chain_of(2)
    block = made[0].block
    wrong = replace(block, proof=made[1].block.proof)
    body = replace(block, records=block.records * 2)
    pointer = replace(block, proof=ProofPointer(1, block.digest))
    for one in (wrong, body, pointer):
        subject = topic(ledger)
        subject.committed(made[0], 1, NOW)
        subject.offer(0, topics.frame(2, encode_block(one)))
        assert (subject.published, subject.ignored) == (None, 1)
    for value in (None, b"", framed(made[0])[:-1], framed(made[0]) + b"\x00"):
        subject = topic(ledger)
        subject.committed(made[0], 1, NOW)
        subject.offer(0, value)
        assert (subject.published, subject.ignored) == (None, 1)


def test_a_body_with_another_byte_is_not_the_block() -> None:
    ledger, made = chain_of(1)
    behind = len(made[0].after)
    for at in range(-behind, 0):
        value = bytearray(framed(made[0]))
        value[at] ^= 1
        subject = topic(ledger)
        subject.committed(made[0], 1, NOW)
        subject.offer(0, bytes(value))
        assert (subject.published, subject.ignored) == (None, 1), at


def test_a_contradiction_to_the_own_chain_in_the_topic_is_a_halt() -> None:
    ledger, made = chain_of(1)
    _, others = chain_of(1, "x")
    subject = topic(ledger)
    subject.committed(made[0], 0, NOW)
    with pytest.raises(Halt, match="another committed block at height 1"):
        subject.offer(0, framed(others[0]))


def test_a_header_of_a_forger_at_an_own_height_is_ignored() -> None:
    ledger, made = chain_of(1)
    _, others = chain_of(1, "x")
    subject = topic(ledger)
    subject.committed(made[0], 0, NOW)
    forged = replace(others[0].block, proof=made[0].block.proof)
    assert subject.offer(0, topics.frame(2, encode_block(forged))) is None
    assert subject.ignored == 1


def test_what_waits_for_the_topic_is_bounded() -> None:
    ledger, made = chain_of(1)
    subject = topic(ledger)
    for number in range(UNPUBLISHED_MAX):
        assert not subject.is_full
        header = replace(made[0].block.header, height=number + 1)
        subject.committed(replace(made[0], block=replace(made[0].block, header=header)), 0, NOW)
    assert subject.is_full


def test_an_observer_that_reads_the_topic_far_ahead_misses_nothing_when_it_catches_up() -> None:
    ledger, made = chain_of(EARLY_MAX + 20, "".join(map(chr, range(48, 48 + EARLY_MAX + 20))))
    subject = topic(ledger)
    header = made[0].block.header
    for number in range(2 * PASSED_MAX):
        # Anyone may have written blocks of heights that will not be for long.
        strange = replace(made[0].block, header=replace(header, height=10_000 + number))
        subject.offer(number, topics.frame(2, encode_block(strange)))
    for offset, one in enumerate(made, 5_000):
        assert subject.offer(offset, framed(one)) is not None
    for one in made:
        subject.committed(one, None, NOW)
        assert not subject.is_full
    assert subject.published == Published(len(made), 5_000 + len(made) - 1)
    assert subject.newest == made[-1]


def test_a_forgery_that_was_there_before_the_block_is_ignored_once_the_block_is_committed() -> None:
    ledger, made = chain_of(1)
    block = made[0].block
    forged = topics.frame(2, encode_block(replace(block, records=block.records * 2)))
    subject = topic(ledger)
    subject.offer(3, forged)
    subject.committed(made[0], 1, NOW)
    assert (subject.published, subject.ignored) == (None, 1)
    assert subject.due(NOW + OTHERS_MS) == made
    both = topic(ledger)
    both.offer(3, forged)
    both.offer(4, framed(made[0]))
    both.committed(made[0], 1, NOW)
    assert (both.published, both.ignored) == (Published(1, 4), 1)


def test_of_one_height_a_few_records_are_held_before_its_block_is_committed() -> None:
    ledger, made = chain_of(1)
    block = made[0].block
    subject = topic(ledger)
    for number in range(2, 2 + 2 * EARLY_COPIES_MAX):
        subject.offer(
            number, topics.frame(2, encode_block(replace(block, records=block.records * number)))
        )
    subject.offer(99, framed(made[0]))
    subject.committed(made[0], 1, NOW)
    assert subject.published is None
    assert subject.ignored == EARLY_COPIES_MAX
    subject.offer(100, framed(made[0]))
    assert subject.published == Published(1, 100)
