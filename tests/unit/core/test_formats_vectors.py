"""The golden vectors are what the code writes: no format changes without a file that shows it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from tests.vectors import generate
from tests.vectors.bounds import Bound, Claim, bounds, claims
from tests.vectors.edges import TAG, Edge, edges
from tests.vectors.synthetic import example_ledger

from nocturne.core.blocks import decode_block_header, link_of
from nocturne.core.certificates import check_commit_proof, decode_commit_proof
from nocturne.core.commands import decode_command
from nocturne.core.encoding import domain
from nocturne.core.errors import Malformed
from nocturne.core.genesis import decode_genesis
from nocturne.core.keys import PublicKey, Signature, key_id, verify

READERS: dict[str, Callable[[bytes], object]] = {
    "command": decode_command,
    "block_header": decode_block_header,
    "commit_proof": decode_commit_proof,
    "genesis": decode_genesis,
}


@pytest.mark.parametrize("name", generate.vectors())
def test_the_vectors_are_pinned(name: str) -> None:
    pinned = json.loads((generate.FOLDER / name).read_text(encoding="utf-8"))
    assert json.loads(json.dumps(generate.vectors()[name]())) == pinned


def test_the_generator_finds_nothing_stale(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--check"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("bound", list(bounds()), ids=lambda one: f"{one.schema}: {one.name}")
def test_a_record_is_read_up_to_its_bounds(bound: Bound) -> None:
    if bound.is_well_formed:
        READERS[bound.schema](bound.data)
    else:
        with pytest.raises(Malformed):
            READERS[bound.schema](bound.data)


@pytest.mark.parametrize("claim", list(claims()), ids=lambda one: str(one.name))
def test_a_commit_proof_holds_or_does_not(claim: Claim) -> None:
    ledger = example_ledger("of four", validators=4)
    proof, block = decode_commit_proof(claim.proof), link_of(claim.header)
    validators = ledger.genesis.validator_set
    if claim.holds:
        check_commit_proof(proof, block, ledger.state.ledger_id, validators, link_of)
    else:
        with pytest.raises(Malformed):
            check_commit_proof(proof, block, ledger.state.ledger_id, validators, link_of)


@pytest.mark.parametrize("edge", list(edges()), ids=lambda one: str(one.name))
def test_ed25519_is_the_rule_whatever_the_library(edge: Edge) -> None:
    key = (PublicKey(1, edge.public_key),)
    signatures = (Signature(1, key_id(key), edge.signature),)
    assert verify(key, domain(TAG), edge.message, signatures) is edge.verifies
