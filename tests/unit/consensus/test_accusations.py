"""What the machine accuses of, as evidence."""

from __future__ import annotations

from itertools import combinations

import pytest
from tests.ledger_factory import VALIDATORS, Ledger
from tests.liars import Place, said_in

from nocturne.consensus.accusations import evidence_of
from nocturne.consensus.quorum.messages import Accuse, Proposal, Vote
from nocturne.consensus.quorum.tally import Counted, Tally
from nocturne.core.blocks import decode_block_header, hash_block
from nocturne.core.certificates import Epoch, ValidatorSet
from nocturne.core.evidence import (
    Offence,
    SignedProposal,
    SignedVote,
    check_evidence,
    decode_evidence,
    encode_evidence,
    offence_of,
)

EPOCH = Epoch(0, 0)


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    made = Ledger(validators=VALIDATORS[:4])
    made.answer(made.opening("s"))
    return made


def message_of(said: SignedVote | SignedProposal, view: int, validator: int) -> Vote | Proposal:
    if isinstance(said, SignedProposal):
        header = decode_block_header(said.header_bytes)
        return Proposal(header, said.header_bytes, hash_block(said.header_bytes), said.signatures)
    return Vote(validator, said.kind, EPOCH, view, said.digest, said.signatures)


def test_every_accusation_of_two_statements_is_evidence_in_either_order(ledger: Ledger) -> None:
    found = []
    for one, other in combinations(said_in(Place.of(ledger), VALIDATORS[1], 9), 2):
        offence = offence_of(one, other)
        if offence is None:
            continue
        records = {
            encode_evidence(
                evidence_of(
                    Accuse(1, message_of(first, 9, 1), message_of(second, 9, 1)),
                    ledger.ledger_id,
                    ledger.validators,
                )
            )
            for first, second in ((one, other), (other, one))
        }
        (data,) = records
        assert check_evidence(decode_evidence(data), ledger.ledger_id, ledger.validators) is offence
        found.append(offence)
    assert set(found) == set(Offence)


def test_the_tally_accuses_of_exactly_what_is_evidence(ledger: Ledger) -> None:
    """Whatever comes first: two votes are a conflict if and only if they convince others."""
    validators: ValidatorSet = ledger.validators
    votes = [
        one for one in said_in(Place.of(ledger), VALIDATORS[1], 9) if isinstance(one, SignedVote)
    ]
    for first in votes:
        for second in votes:
            tally = Tally(EPOCH, validators)
            results = []
            for one in (first, second):
                message = message_of(one, 9, 1)
                assert isinstance(message, Vote)
                results.append(tally.add(message))
            assert results[0] == Counted()
            assert results[1].certificate is None
            assert (results[1].conflict is not None) == (offence_of(first, second) is not None)


def test_a_vote_that_completes_a_certificate_is_an_accusation_no_less(ledger: Ledger) -> None:
    """Each pair of votes again, where two others voted as the second one does."""
    votes = {
        number: [
            one
            for one in said_in(Place.of(ledger), VALIDATORS[number], 9)
            if isinstance(one, SignedVote)
        ]
        for number in (1, 2, 3)
    }
    for first in votes[1]:
        for place, second in enumerate(votes[1]):
            if first == second:
                continue
            tally = Tally(EPOCH, ledger.validators)
            others = [(number, votes[number][place]) for number in (2, 3)]
            counted = Counted()
            for number, one in ((1, first), *others, (1, second)):
                message = message_of(one, 9, number)
                assert isinstance(message, Vote)
                counted = tally.add(message)
            assert (counted.conflict is not None) == (offence_of(first, second) is not None)
            # A second one of a kind is not counted.
            assert (counted.certificate is None) == (first.kind is second.kind)
