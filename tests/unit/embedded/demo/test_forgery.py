"""Forgeries are as good as they can be without the keys of others, and are refused all the same."""

from __future__ import annotations

import random

import pytest
from tests.vectors.synthetic import SyntheticLedger, example_ledger, signer_of

from nocturne.audit.verify import verify_export
from nocturne.core.block_intake import BlockIntake
from nocturne.core.blocks import decode_seal, hash_block, seal_signed
from nocturne.core.commands import Opening
from nocturne.core.errors import Malformed
from nocturne.core.events import decode_event, event_signed
from nocturne.core.genesis import Genesis, encode_genesis, ledger_id_of
from nocturne.core.identifiers import Hash, SessionId, format_hash
from nocturne.core.receipts import Head, decode_receipt, receipt_signed
from nocturne.core.topics import BLOCKS, EVENTS, RECEIPTS, SEALS, unframe
from nocturne.embedded.demo import forgery, tampering
from nocturne.embedded.demo.forgery import ForgedRecord, Forger, Target
from nocturne.embedded.demo.people import command_of
from nocturne.embedded.demo.steps import patch

LEDGER = example_ledger()
OF_FOUR = example_ledger("of four", validators=4)
LEDGER_ID = LEDGER.state.ledger_id
GOOD = b"".join(LEDGER.export("orders/1"))
FORGER = Forger(signer_of("forger a"), signer_of("forger b"), signer_of("forger c"))


def _fault(export: bytes) -> str | None:
    return verify_export(tampering.lines_of(export), LEDGER_ID).fault


def test_the_example_export_is_good() -> None:
    assert _fault(GOOD) is None


def test_a_withheld_receipt_is_named() -> None:
    tampered, withheld = tampering.without_receipt(GOOD)
    assert format_hash(withheld) in (_fault(tampered) or "")


def test_without_receipts_there_is_none_to_withhold() -> None:
    with pytest.raises(ValueError, match="no receipt"):
        tampering.without_receipt(b"".join(LEDGER.export("readings")[:2]))


def test_every_flipped_bit_is_refused() -> None:
    dice = random.Random(5)
    for _ in range(200):
        assert _fault(tampering.with_flipped_bit(GOOD, dice)) is not None


def test_another_authority_is_not_the_ledgers() -> None:
    fault = _fault(tampering.with_authority(GOOD, FORGER.authority))
    assert fault is not None
    assert "another key than the authority's" in fault


def _self_made(genesis: Genesis) -> bytes:
    ledger_id = ledger_id_of(encode_genesis(genesis))
    commands = [
        command_of(
            ledger_id,
            SessionId("orders/1"),
            FORGER.author,
            (patch("PaymentReleased", account="mine", number=number),),
            at=1_700_000_000_000 + number,
            dice=bytes([number]) * 32,
            expected=number,
            opening=Opening("document", 1) if number == 0 else None,
        )
        for number in range(5)
    ]
    return forgery.self_made_export(genesis, FORGER, commands, 1_700_000_100_000)


def test_a_self_made_ledger_is_consistent_and_refused() -> None:
    export = _self_made(forgery.found(LEDGER.genesis, FORGER, bytes(32)))
    alone = verify_export(tampering.lines_of(export), None)
    assert alone.fault is None
    assert alone.events == 5
    assert not alone.holds
    assert "not of the trusted" in (_fault(export) or "")


@pytest.mark.parametrize("ledger", [LEDGER, OF_FOUR], ids=["one validator", "four"])
def test_a_self_made_ledger_under_the_trusted_genesis_lacks_its_validators_votes(
    ledger: SyntheticLedger,
) -> None:
    """It has as many votes as it takes: only whose they are is wrong."""
    export = _self_made(ledger.genesis)
    fault = verify_export(tampering.lines_of(export), ledger.state.ledger_id).fault
    assert fault is not None
    assert "the vote of validator 0 does not verify" in fault


def _records() -> dict[str, ForgedRecord]:
    last = LEDGER.blocks[-1]
    session = LEDGER.state.session(SessionId("orders/1"))
    assert session is not None
    target = Target(
        LEDGER.genesis,
        LEDGER_ID,
        last.header,
        hash_block(last.header_bytes),
        session.session,
        Head(session.sequence, session.head_hash),
    )
    signed = command_of(
        LEDGER_ID,
        session.session,
        FORGER.author,
        (patch("PaymentReleased", account="mine"),),
        at=1_700_000_000_000,
        dice=bytes(32),
        expected=session.sequence,
    )
    return {one.topic: one for one in forgery.forged_records(target, FORGER, signed)}


def test_a_forged_block_fails_at_nothing_but_its_commit_proof() -> None:
    parent = hash_block(LEDGER.blocks[-1].header_bytes)
    intake = BlockIntake(LEDGER_ID, LEDGER.genesis.founding_sets, 4, parent, LEDGER.state.positions)
    with pytest.raises(Malformed, match="the vote of validator 0 does not verify"):
        intake.offer(_records()[BLOCKS].value)


def test_a_forged_seal_event_and_receipt_are_well_formed_and_signed_by_the_wrong_key() -> None:
    records = _records()
    seal = decode_seal(unframe(records[SEALS].value))
    event = decode_event(unframe(records[EVENTS].value))
    receipt = decode_receipt(unframe(records[RECEIPTS].value))
    for key, holds in ((FORGER.authority.key, True), (LEDGER.authority.key, False)):
        assert seal_signed(key, seal) is holds
        assert (
            event_signed(key, event.event_hash, event.timestamp, event.height, event.signatures)
            is holds
        )
        signed = receipt_signed(
            key, receipt.receipt_hash, receipt.timestamp, receipt.height, receipt.signatures
        )
        assert signed is holds
    assert event.header.previous_hash == Hash(
        LEDGER.state.session(SessionId("orders/1")).head_hash  # type: ignore[union-attr]
    )
