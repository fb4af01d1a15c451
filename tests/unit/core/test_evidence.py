"""Evidence: which two statements of a view no correct validator signs both, and that nothing else
passes for it.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ledger_factory import VALIDATORS, Ledger, make_genesis
from tests.liars import Place, evidence_about, lies_of, proposal_of, said_in, vote_of
from tests.mutation import mutated

from nocturne.core import evidence as module
from nocturne.core.certificates import Epoch, ValidatorSet, VoteKind
from nocturne.core.errors import Malformed
from nocturne.core.evidence import (
    Evidence,
    Offence,
    Pieces,
    check_evidence,
    decode_evidence,
    encode_evidence,
    name_of,
    offence_of,
)
from nocturne.core.identifiers import Hash, LedgerId

reproducible = settings(derandomize=True, deadline=None, max_examples=300, print_blob=True)

LEDGER = Ledger(validators=VALIDATORS[:4])
LEDGER.answer(LEDGER.opening("s"))
PLACE = Place.of(LEDGER)
LIAR = VALIDATORS[2]
LIES = lies_of(PLACE, LIAR, validator=2)
BY_OFFENCE = pytest.mark.parametrize("lie", LIES, ids=[one.name for one in Offence])


def check(evidence: Evidence) -> Offence:
    return check_evidence(evidence, LEDGER.ledger_id, LEDGER.validators)


@BY_OFFENCE
def test_a_lie_convinces_whoever_knows_the_set(lie: Evidence) -> None:
    data = encode_evidence(lie)
    read = decode_evidence(data)
    assert read == lie
    assert encode_evidence(read) == data
    assert check(read) is Offence(LIES.index(lie) + 1)


def test_of_all_that_can_be_said_in_a_view_four_pairs_are_lies() -> None:
    """Notarize and nullify: a correct validator gives up a view that it voted in. Notarize and
    finalize of different blocks: a quorum may have notarized the other one. A proposal and a vote
    against it: whoever led may find the clock has gone by.
    """
    names = (
        "propose A",
        "propose B",
        "notarize A",
        "notarize B",
        "nullify",
        "finalize A",
        "finalize B",
    )
    said = dict(zip(names, said_in(PLACE, LIAR, 7), strict=True))
    lies = {
        (one, other): offence
        for one, other in combinations(names, 2)
        if (offence := offence_of(said[one], said[other])) is not None
    }
    assert lies == {
        ("propose A", "propose B"): Offence.TWO_PROPOSALS,
        ("notarize A", "notarize B"): Offence.TWO_NOTARIZATIONS,
        ("nullify", "finalize A"): Offence.FINALIZED_AND_NULLIFIED,
        ("nullify", "finalize B"): Offence.FINALIZED_AND_NULLIFIED,
        ("finalize A", "finalize B"): Offence.TWO_FINALIZATIONS,
    }
    for one, other in combinations(names, 2):
        assert offence_of(said[one], said[other]) is offence_of(said[other], said[one])
        if (one, other) not in lies:
            evidence = evidence_about(PLACE, 7, said[one], said[other], 2)
            with pytest.raises(Malformed, match="correct validator"):
                check(evidence)
            with pytest.raises(Malformed):
                name_of(evidence)


@pytest.mark.parametrize("statement", said_in(PLACE, LIAR, 7))
def test_one_statement_twice_is_no_lie(statement: module.SignedVote) -> None:
    assert offence_of(statement, statement) is None
    twice = evidence_about(PLACE, 7, statement, statement, 2)
    with pytest.raises(Malformed):
        check(twice)
    with pytest.raises(Malformed, match="not two"):
        decode_evidence(encode_evidence(twice))


@BY_OFFENCE
def test_nobody_else_is_accused_with_it(lie: Evidence) -> None:
    for validator in (0, 1, 3):
        with pytest.raises(Malformed, match="did not sign"):
            check(replace(lie, validator=validator))
    for validator in (-1, 4, 2**31):
        with pytest.raises(Malformed, match="of a set of 4"):
            check(replace(lie, validator=validator))


@BY_OFFENCE
def test_of_another_ledger_or_set_it_says_nothing(lie: Evidence) -> None:
    with pytest.raises(Malformed, match="another ledger"):
        check_evidence(lie, LedgerId(bytes(32)), LEDGER.validators)
    others = ValidatorSet.of(LEDGER.validators.keys[::-1])
    with pytest.raises(Malformed, match="another validator set"):
        check_evidence(lie, LEDGER.ledger_id, others)
    with pytest.raises(Malformed, match="did not sign"):
        check_evidence(replace(lie, validator_set_hash=others.hash), LEDGER.ledger_id, others)


def test_votes_of_different_views_or_epochs_cannot_be_put_together() -> None:
    one = vote_of(PLACE, LIAR, 7, VoteKind.NOTARIZE, Hash(b"\x01" * 32))
    later = vote_of(PLACE, LIAR, 8, VoteKind.NOTARIZE, Hash(b"\x02" * 32))
    for view in (7, 8):
        with pytest.raises(Malformed, match="did not sign"):
            check(evidence_about(PLACE, view, one, later, 2))
    for epoch in (Epoch(0, 1), Epoch(1, 0)):
        with pytest.raises(Malformed, match="did not sign"):
            check(replace(LIES[1], epoch=epoch))


def test_proposals_of_another_place_are_malformed() -> None:
    first = proposal_of(PLACE, LIAR, 7, 1)
    elsewhere = Ledger(make_genesis(validators=VALIDATORS[:4], nonce=1))
    elsewhere.answer(elsewhere.opening("s"))
    for other in (proposal_of(PLACE, LIAR, 8, 2), proposal_of(Place.of(elsewhere), LIAR, 7, 2)):
        with pytest.raises(Malformed, match="another ledger, epoch"):
            decode_evidence(encode_evidence(evidence_about(PLACE, 7, first, other, 2)))


@BY_OFFENCE
def test_the_two_have_one_order(lie: Evidence) -> None:
    with pytest.raises(Malformed, match="order"):
        decode_evidence(encode_evidence(replace(lie, first=lie.second, second=lie.first)))


def test_a_proposal_and_a_vote_are_no_record() -> None:
    said = said_in(PLACE, LIAR, 7)
    with pytest.raises(Malformed, match="two votes or two proposals"):
        decode_evidence(encode_evidence(evidence_about(PLACE, 7, said[0], said[3], 2)))


@pytest.mark.parametrize(
    "changes", [{"view": 0}, {"view": -1}, {"validator": -1}, {"epoch": Epoch(-1, 0)}], ids=str
)
def test_impossible_numbers_are_malformed(changes: dict[str, int]) -> None:
    with pytest.raises(Malformed):
        decode_evidence(encode_evidence(replace(LIES[1], **changes)))  # type: ignore[arg-type]


@given(st.sampled_from(LIES), st.integers(0, 2**32), st.integers(1, 4))
@reproducible
def test_changed_evidence_is_malformed_or_the_same(lie: Evidence, seed: int, edits: int) -> None:
    data = mutated(Random(seed), encode_evidence(lie), edits)
    try:
        read = decode_evidence(data)
        check(read)
    except Malformed:
        return
    assert read == lie


def test_one_piece_of_each_place_is_enough() -> None:
    pieces = Pieces()
    assert [pieces.is_new(lie) for lie in (*LIES, *LIES)] == [True] * 4 + [False] * 4
    third = vote_of(PLACE, LIAR, 7, VoteKind.NOTARIZE, Hash(b"\x03" * 32))
    assert isinstance(LIES[1].first, module.SignedVote)
    assert not pieces.is_new(evidence_about(PLACE, 7, LIES[1].first, third, 2))
    assert all(pieces.is_new(lie) for lie in lies_of(PLACE, LIAR, view=8, validator=2))
    assert name_of(LIES[3]) == "0-0-7-2-4"


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED_MAX", 3)
    pieces = Pieces()
    assert [pieces.is_new(lie) for lie in (*LIES, LIES[3], LIES[0])] == [*[True] * 4, False, True]
