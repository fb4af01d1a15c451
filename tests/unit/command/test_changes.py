"""Proofs of later epochs begin with the changes of the validators that the service has seen."""

from __future__ import annotations

from random import Random

import pytest
from tests.ledger_factory import record_value
from tests.mutation import mutated
from tests.unit.projection.chains import Chain, changed_validators

from nocturne.audit.verify import verify_disposition_proof
from nocturne.command.changes import Changes
from nocturne.command.outcomes import Level, OutcomeTable
from nocturne.core.block_intake import BlockIntake, CheckedBlock
from nocturne.core.errors import Malformed
from nocturne.core.intake import signed_command_of
from nocturne.core.validator_sets import ValidatorSets

MADE = changed_validators()


def checked_of(made: Chain = MADE) -> tuple[list[CheckedBlock], ValidatorSets]:
    ledger = made.ledger
    intake = BlockIntake(ledger.ledger_id, ledger.genesis.founding_sets, None)
    checked = [one for block in ledger.blocks for one in intake.offer(record_value(block))]
    return checked, intake.sets


def test_each_proof_holds_by_what_was_seen_before_its_block() -> None:
    ledger = MADE.ledger
    intake = BlockIntake(ledger.ledger_id, ledger.genesis.founding_sets, None)
    table = OutcomeTable(ledger.ledger_id, ledger.genesis.authority)
    for height, block in enumerate(ledger.blocks, start=1):
        record = block.records[0]
        signed = signed_command_of(record)
        assert signed is not None
        pending = table.register(signed.command_hash, Level.CERTIFIED, 60.0, None, with_proof=True)
        assert pending is not None
        partition, offset = block.header.ranges[0].partition, block.header.ranges[0].start
        table.placed(pending, partition, offset)
        for checked in intake.offer(record_value(block)):
            table.changes.take(checked, intake.sets)
            assert table.block(checked) == [pending]
        proof = pending.outcome().proof
        assert len(proof.splitlines()) == 2 + (height > 4) + (height > 6)
        verdict = verify_disposition_proof(proof, ledger.genesis_bytes, ledger.ledger_id)
        assert verdict.fault is None
        assert verdict.height == height


def test_what_was_seen_comes_back_as_it_was_and_blocks_may_come_again() -> None:
    checked, sets = checked_of()
    changes = Changes()
    assert changes.encode() == b""
    for one in checked:
        changes.take(one, sets)
    kept = changes.encode()
    again = Changes.decoded(kept)
    for one in checked:
        again.take(one, sets)
    assert again.encode() == kept
    for height in range(1, 9):
        assert again.before(height) == changes.before(height)


def test_altered_bytes_of_what_was_seen_are_refused() -> None:
    checked, sets = checked_of()
    changes = Changes()
    for one in checked:
        changes.take(one, sets)
    kept = changes.encode()
    lines = kept.splitlines(keepends=True)
    for bad in (kept[:-1], lines[1] + lines[0], kept + lines[0], kept + b"{}\n"):
        with pytest.raises(Malformed):
            Changes.decoded(bad)
    dice = Random(7)
    for _ in range(50):
        bad = mutated(dice, kept, 1)
        if bad != kept:
            with pytest.raises(Malformed):
                Changes.decoded(bad)
