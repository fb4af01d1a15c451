"""A snapshot that is offered is believed for what genesis and votes prove, and for nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ledger_factory import OPERATORS, Ledger, make_genesis
from tests.mutation import mutated
from tests.unit.core.test_validator_sets import NEW, OLD, E, changed, grow

from nocturne.core import certified_snapshot as certified
from nocturne.core import snapshot
from nocturne.core.blocks import Block, BlockKind, encode_block_header, sign_proposal
from nocturne.core.certificates import (
    CommitProof,
    VoteKind,
    decode_commit_proof,
    encode_commit_proof,
)
from nocturne.core.certified_snapshot import Claim, load, prove
from nocturne.core.errors import Malformed
from nocturne.core.exports import block_line, validators_line
from nocturne.core.keys import signatures_bytes, signatures_from_bytes
from nocturne.core.state import LedgerState

reproducible = settings(derandomize=True, deadline=None, max_examples=300, print_blob=True)


def proof_of(block: Block) -> CommitProof:
    assert isinstance(block.proof, CommitProof)
    return block.proof


def changes_of(ledger: Ledger, below: int) -> tuple[bytes, ...]:
    sets = ledger.state.view.validator_sets
    found = [
        certified.change_line(one.header_bytes, proof_of(one), sets)
        for one in ledger.blocks
        if one.header.height < below
    ]
    return tuple([line for _, line in filter(None, found)])


def claim_of(ledger: Ledger, block: Block) -> Claim:
    changes = changes_of(ledger, block.header.height)
    return Claim(block.header_bytes, block.leader_signatures, proof_of(block), changes)


LEDGER = changed(through=2 * E + 2)
"""The operators changed the set in epoch 0; it certifies from epoch 2 on, where the tip is."""
TIP = LEDGER.blocks[-1]
CLAIM = claim_of(LEDGER, TIP)
CHUNKS = tuple(snapshot.encode(LEDGER.state))


def taken(claim: Claim, chunks: Sequence[bytes] = CHUNKS) -> LedgerState:
    proved = prove(claim, LEDGER.genesis, LEDGER.ledger_id)
    return load(proved, LEDGER.genesis_bytes, chunks, LEDGER.registry)


def refused(claim: Claim, words: str) -> None:
    with pytest.raises(Malformed, match=words):
        taken(claim)


def test_genesis_alone_leads_to_the_state_over_a_change_of_the_validators() -> None:
    assert len(CLAIM.changes) == 1
    state = taken(CLAIM)
    assert state.root_hash == LEDGER.state.root_hash
    assert state.positions == LEDGER.state.positions
    sets = state.view.validator_sets
    assert sets.of(2).keys == tuple(one.key for one in NEW)
    assert list(snapshot.encode(state)) == list(CHUNKS)


def test_without_a_change_the_claim_is_the_block_and_its_proof() -> None:
    ledger = Ledger(make_genesis(validators=OLD), OLD)
    grow(ledger, 2)
    claim = claim_of(ledger, ledger.blocks[-1])
    assert claim.changes == ()
    proved = prove(claim, ledger.genesis, ledger.ledger_id)
    chunks = snapshot.encode(ledger.state)
    assert load(proved, ledger.genesis_bytes, chunks, ledger.registry).root_hash == (
        ledger.state.root_hash
    )


def test_a_later_set_is_not_believed_without_the_line_that_shows_it() -> None:
    refused(replace(CLAIM, changes=()), "of another validator set than that of epoch 2")


def test_keys_that_the_block_before_did_not_name_are_refused() -> None:
    end = LEDGER.blocks[2 * E - 1]
    line = validators_line(end.header_bytes, proof_of(end), [one.key for one in OLD])
    refused(replace(CLAIM, changes=(line,)), "names others")


@pytest.mark.parametrize(
    "changes, words",
    [
        ((CLAIM.changes[0], CLAIM.changes[0]), "stand after"),
        ((block_line(TIP.header_bytes, proof_of(TIP)),), "expected a line of validators"),
        ((CLAIM.changes[0],) * (certified.CHANGES_MAX + 1), "more changes"),
        ((CLAIM.changes[0][:-1],), "line feed"),
    ],
)
def test_other_lines_are_refused(changes: tuple[bytes, ...], words: str) -> None:
    refused(replace(CLAIM, changes=changes), words)


def test_a_line_of_a_block_that_ends_no_epoch_or_lies_above_is_refused() -> None:
    inner = LEDGER.blocks[2 * E - 2]
    line = validators_line(inner.header_bytes, proof_of(inner), [one.key for one in NEW])
    refused(replace(CLAIM, changes=(line,)), "not the last of its epoch")
    early = claim_of(LEDGER, LEDGER.blocks[E])
    refused(replace(early, changes=CLAIM.changes), "not below")


def test_a_notarization_commits_no_snapshot() -> None:
    certificate = LEDGER.certificate(TIP.header, TIP.digest, VoteKind.NOTARIZE)
    refused(replace(CLAIM, proof=CommitProof(certificate, ())), "only a finalization commits")


def test_the_old_set_commits_no_snapshot_of_a_later_epoch() -> None:
    old = Ledger(LEDGER.genesis, OLD)
    grow(old, 2 * E + 2)
    refused(replace(claim_of(old, old.blocks[-1]), changes=CLAIM.changes), "another validator set")


def test_a_proposal_that_no_validator_signed_is_refused() -> None:
    signed = sign_proposal(OPERATORS[0], TIP.digest)
    refused(replace(CLAIM, leader_signatures=signed), "proposed by no validator")


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"kind": BlockKind.TAIL}, "not a ledger block"),
        ({"ledger_id": bytes(32)}, "of this ledger"),
        ({"rules_version": 2}, "another version"),
        ({"height": 3 * E + 1}, "its height is of epoch"),
    ],
)
def test_a_header_that_is_no_block_of_this_chain_is_refused(
    fields: dict[str, object], words: str
) -> None:
    header = replace(TIP.header, **fields)  # type: ignore[arg-type]
    refused(replace(CLAIM, header_bytes=encode_block_header(header)), words)


def test_a_state_of_another_height_is_refused() -> None:
    with pytest.raises(Malformed, match="its state has the root"):
        taken(claim_of(LEDGER, LEDGER.blocks[-2]))


def test_fewer_votes_than_a_quorum_commit_nothing() -> None:
    certificate = replace(CLAIM.proof.finalization, votes=CLAIM.proof.finalization.votes[:-1])
    refused(replace(CLAIM, proof=CommitProof(certificate, ())), "expected 3 votes")


def is_same(claim: Claim, chunks: Sequence[bytes]) -> bool:
    return claim == CLAIM and tuple(chunks) == CHUNKS


@given(st.integers(0, 2**32), st.integers(1, 3))
@reproducible
def test_no_changed_byte_of_claim_or_state_is_believed(seed: int, edits: int) -> None:
    dice = Random(seed)
    claim, chunks = CLAIM, list(CHUNKS)
    try:
        match dice.randrange(5):
            case 0:
                claim = replace(claim, header_bytes=mutated(dice, CLAIM.header_bytes, edits))
            case 1:
                data = mutated(dice, encode_commit_proof(CLAIM.proof), edits)
                claim = replace(claim, proof=decode_commit_proof(data))
            case 2:
                claim = replace(claim, changes=(mutated(dice, CLAIM.changes[0], edits),))
            case 3:
                data = mutated(dice, signatures_bytes(CLAIM.leader_signatures), edits)
                claim = replace(claim, leader_signatures=signatures_from_bytes(data))
            case _:
                at = dice.randrange(len(chunks))
                chunks[at] = mutated(dice, chunks[at], edits)
        state = taken(claim, chunks)
    except Malformed:
        return
    assert is_same(claim, chunks), state.root_hash.hex()


def test_a_change_that_is_not_known_any_more_has_no_line() -> None:
    end = LEDGER.blocks[2 * E - 1]
    sets = LEDGER.genesis.founding_sets
    with pytest.raises(Malformed, match="not known any more"):
        certified.change_line(end.header_bytes, proof_of(end), sets)
