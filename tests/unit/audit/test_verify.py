"""The offline verifier: what is true holds, and every single change to it is refused by name.

Random changes print their seed; `NOCTURNE_SEED=<seed> pytest tests/unit/audit` makes them again.
"""

from __future__ import annotations

import json
import os
import tracemalloc
from dataclasses import replace
from pathlib import Path
from random import Random, SystemRandom

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.vectors.attacks import BadExport, bad_exports, changed, index_of
from tests.vectors.changes import bad_changes
from tests.vectors.synthetic import SyntheticLedger, changing_ledger, example_ledger

from nocturne.audit import verify
from nocturne.audit.verify import Verdict, verify_disposition_proof, verify_export
from nocturne.core import exports
from nocturne.core.certificates import CommitProof
from nocturne.core.exports import (
    BlockLine,
    EventsLine,
    ReceiptLine,
    ValidatorsLine,
    block_line,
    disposition_proof,
    parse_line,
    print_line,
)
from nocturne.core.identifiers import LEDGER_SESSION, SessionId, format_hash, session_key

PINNED = json.loads(
    (Path(__file__).resolve().parents[2] / "vectors" / "exports.json").read_text("utf-8")
)
CHANGE_FAULTS = {one["name"]: one["fault"] for one in PINNED["changedValidators"]["bad"]}
FAULTS = {one["name"]: one["fault"] for one in PINNED["bad"]}
SESSIONS = ("orders/1", "readings", LEDGER_SESSION, "nobody")
RANDOM_CHANGES = 400

LEDGER = example_ledger()
TRUSTED = LEDGER.state.ledger_id


@pytest.fixture
def random() -> Random:
    """Seeded anew each time; the seed is printed if the test fails."""
    seed = int(os.environ.get("NOCTURNE_SEED") or SystemRandom().getrandbits(32))
    print(f"NOCTURNE_SEED={seed}")
    return Random(seed)


def small_ledger() -> SyntheticLedger:
    """One event, one receipt, one block."""
    ledger = SyntheticLedger("small", partitions=1)
    ledger.submit(ledger.command("s", b'{"a":1}', kind="facts"))
    ledger.submit(ledger.command("s", b'{"a":2}', expected=0))
    ledger.make_block()
    return ledger


def lines_of(data: bytes) -> list[bytes]:
    """As a file is read: every line with its line feed."""
    return data.splitlines(keepends=True)


def check(lines: list[bytes]) -> Verdict:
    return verify_export(lines, TRUSTED)


# What is true ----------------------------------------------------------------------------------


@pytest.mark.parametrize("validators", [1, 4])
@pytest.mark.parametrize("session", SESSIONS)
def test_an_export_of_a_ledger_holds(session: str, validators: int) -> None:
    ledger = example_ledger("of some", validators)
    verdict = verify_export(ledger.export(session), ledger.state.ledger_id)
    assert verdict.fault is None
    assert verdict.holds
    assert verdict.identity_checked
    assert (verdict.session, verdict.height) == (session, 3)


def test_a_verdict_says_how_much_was_checked() -> None:
    verdict = check(LEDGER.export("orders/1"))
    assert (verdict.events, verdict.receipts, verdict.signed) == (4, 3, True)
    state = LEDGER.state.session(SessionId("orders/1"))
    assert state is not None
    assert verdict.head_hash == state.head_hash
    assert verdict.sentence == (
        "verified: 4 events and 3 receipts of orders/1 as of block 3 "
        f"of ledger {format_hash(TRUSTED)}"
    )


def test_a_session_that_does_not_exist_has_a_proof_of_its_absence() -> None:
    verdict = check(LEDGER.export("nobody"))
    assert verdict.holds
    assert (verdict.events, verdict.receipts) == (0, 0)


def test_a_session_without_events_can_have_receipts() -> None:
    verdict = check(LEDGER.export(LEDGER_SESSION))
    assert verdict.holds
    assert (verdict.events, verdict.receipts) == (0, 3)


def test_an_export_shows_who_certified_each_of_its_epochs() -> None:
    ledger = changing_ledger()
    trusted = ledger.state.ledger_id
    for height in range(8, 0, -1):
        del ledger.blocks[height:]
        lines = ledger.export("log")
        verdict = verify_export(lines, trusted)
        assert verdict.holds, verdict.fault
        assert verdict.events == height
        changes = sum(isinstance(parse_line(line), ValidatorsLine) for line in lines)
        assert changes == (height > 4) + (height > 6)


def test_a_disposition_proof_shows_who_certified_its_epoch() -> None:
    ledger = changing_ledger()
    for block in ledger.blocks:
        height = block.header.height
        two = disposition_proof(
            block_line(block.header_bytes, block.proof), ledger.disposition(block, 0)
        )
        before = b"".join(ledger.validators_lines(height))
        trusted = ledger.state.ledger_id
        assert verify_disposition_proof(before + two, ledger.genesis_bytes, trusted).holds
        alone = verify_disposition_proof(two, ledger.genesis_bytes, trusted)
        assert alone.holds == (height <= 4), alone.fault


@pytest.mark.parametrize("bad", tuple(bad_changes()), ids=lambda bad: bad.name)
def test_an_export_with_something_wrong_of_its_validators_is_refused_by_name(
    bad: BadExport,
) -> None:
    verdict = verify_export(bad.lines, changing_ledger().state.ledger_id)
    assert not verdict.holds
    assert verdict.fault == CHANGE_FAULTS[bad.name]
    assert not verify_export(bad.lines, None).holds


def test_every_byte_of_a_change_counts(random: Random) -> None:
    lines = changing_ledger().export("log")
    trusted = changing_ledger().state.ledger_id
    for _ in range(RANDOM_CHANGES // 4):
        number = random.choice((1, 2))
        line = bytearray(lines[number])
        line[random.randrange(len(line))] ^= 1 << random.randrange(8)
        altered = [*lines[:number], bytes(line), *lines[number + 1 :]]
        assert not verify_export(altered, trusted).holds


def test_changes_beyond_their_bound_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "VALIDATORS_LINES_MAX", 1)
    ledger = changing_ledger()
    verdict = verify_export(ledger.export("log"), ledger.state.ledger_id)
    assert verdict.fault == "validators of epoch 3: expected at most 1 changes"


def test_without_a_trusted_ledger_nothing_more_than_consistency_is_said() -> None:
    verdict = verify_export(LEDGER.export("orders/1"), None)
    assert verdict.fault is None
    assert not verdict.holds
    assert verdict.sentence == (
        f"consistent with ledger {format_hash(TRUSTED)}, identity not checked"
    )


def test_a_block_may_be_committed_by_a_descendant() -> None:
    lines = LEDGER.export("orders/1")
    first, second, third = (
        parse_line(lines[index_of(lines, BlockLine, number)]) for number in range(3)
    )
    assert isinstance(first, BlockLine)
    assert isinstance(second, BlockLine)
    assert isinstance(third, BlockLine)
    proof = CommitProof(third.proof.finalization, (second.header_bytes, third.header_bytes))
    later = print_line(BlockLine(first.header, first.header_bytes, first.digest, proof))
    assert check([lines[0], later, *lines[2:]]).holds


def test_an_export_of_an_earlier_height_holds() -> None:
    ledger = example_ledger()
    del ledger.blocks[2:]
    verdict = check(ledger.export("orders/1"))
    assert verdict.holds
    assert (verdict.height, verdict.events) == (2, 3)


@pytest.mark.slow
def test_receipts_are_listed_a_thousand_a_line() -> None:
    ledger = SyntheticLedger("many", partitions=1)
    ledger.submit(ledger.command("s", b"{}", kind="facts"))
    again = ledger.record_of(ledger.command("s", b"{}", expected=0))
    for _ in range(exports.RECEIPTS_PER_LINE + 1):
        ledger.append(0, again)
    ledger.make_block()
    lines = ledger.export("s")
    trusted = ledger.state.ledger_id
    assert index_of(lines, exports.ReceiptsLine, 1) == len(lines) - 2
    verdict = verify_export(lines, trusted)
    assert verdict.holds
    assert verdict.receipts == exports.RECEIPTS_PER_LINE + 1
    del lines[index_of(lines, ReceiptLine, 1000)]
    fault = verify_export(lines, trusted).fault
    assert fault is not None
    assert fault.startswith("receipt 1001 of 1001 (sha256-")
    assert fault.endswith("is withheld")


# What is not -----------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", list(bad_exports()), ids=lambda bad: bad.name.replace(" ", "_"))
def test_a_bad_export_is_refused_and_what_is_wrong_is_named(bad: BadExport) -> None:
    verdict = check(bad.lines)
    assert not verdict.holds
    assert verdict.fault == FAULTS[bad.name]


def test_every_attack_is_pinned() -> None:
    assert {bad.name for bad in bad_exports()} == set(FAULTS)


@pytest.mark.slow
def test_every_byte_of_an_export_counts(random: Random) -> None:
    ledger = small_ledger()
    trusted = ledger.state.ledger_id
    good = b"".join(ledger.export("s"))
    assert verify_export(lines_of(good), trusted).holds
    for at in range(len(good)):
        flipped = good[at] ^ (1 << random.randrange(8))
        bad = good[:at] + bytes((flipped,)) + good[at + 1 :]
        assert not verify_export(lines_of(bad), trusted).holds, f"byte {at} made {flipped:#04x}"


@pytest.mark.parametrize("session", SESSIONS)
def test_no_random_change_of_an_export_holds(random: Random, session: str) -> None:
    good = b"".join(LEDGER.export(session))
    for _ in range(RANDOM_CHANGES // len(SESSIONS)):
        bad = _changed_somewhere(random, good)
        if bad != good:
            assert not check(lines_of(bad)).holds, bad


def _changed_somewhere(random: Random, good: bytes) -> bytes:
    at = random.randrange(len(good))
    length = random.choice((1, 1, 2, 40))
    match random.randrange(4):
        case 0:
            return good[:at] + random.randbytes(length) + good[at + length :]
        case 1:
            return good[:at] + good[at + length :]
        case 2:
            return good[:at] + good[at : at + length] + good[at:]
        case _:
            return good[:at]


def test_no_order_of_lines_but_the_one_holds(random: Random) -> None:
    good = LEDGER.export("orders/1")
    for _ in range(60):
        lines = list(good)
        match random.randrange(3):
            case 0:
                first, second = random.sample(range(len(lines)), 2)
                lines[first], lines[second] = lines[second], lines[first]
            case 1:
                del lines[random.randrange(len(lines))]
            case _:
                lines.insert(random.randrange(len(lines) + 1), random.choice(lines))
        if lines != good:
            assert not check(lines).holds


def test_no_line_of_another_ledger_fits() -> None:
    good = LEDGER.export("orders/1")
    forged = example_ledger("forged").export("orders/1")
    for index, line in enumerate(forged):
        assert not check([*good[:index], line, *good[index + 1 :]]).holds


def test_no_line_of_another_session_fits() -> None:
    good = LEDGER.export("orders/1")
    for session in SESSIONS[1:]:
        for stranger in LEDGER.export(session):
            for index, line in enumerate(good):
                if stranger not in good and stranger != line:
                    assert not check([*good[:index], stranger, *good[index + 1 :]]).holds


def test_validators_of_a_quorum_short_of_one_vote_do_not_commit() -> None:
    ledger = example_ledger("of four", validators=4)
    lines = ledger.export("orders/1")
    index = index_of(lines, BlockLine)
    line = parse_line(lines[index])
    assert isinstance(line, BlockLine)
    certificate = line.proof.finalization
    for votes in (certificate.votes[:2], (*certificate.votes[:2], certificate.votes[1])):
        proof = CommitProof(replace(certificate, votes=votes), ())
        bad = changed(lines, index, replace(line, proof=proof))
        verdict = verify_export(bad, ledger.state.ledger_id)
        assert not verdict.holds
        assert verdict.fault is not None
        assert "certificate" in verdict.fault


@given(st.lists(st.binary(max_size=200), max_size=4))
@settings(derandomize=True, deadline=None, max_examples=200)
def test_any_bytes_get_a_verdict(lines: list[bytes]) -> None:
    assert not check(lines).holds


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=8))
@settings(derandomize=True, deadline=None, max_examples=200)
def test_any_value_in_any_field_gets_a_verdict(value: object) -> None:
    for good in LEDGER.export("orders/1")[:4]:
        members = json.loads(good)
        for name in members:
            text = json.dumps({**members, name: value}, separators=(",", ":"), sort_keys=True)
            if members[name] != value:
                assert not check([text.encode() + b"\n"]).holds


@pytest.mark.slow
def test_memory_does_not_grow_with_events() -> None:
    ledger = SyntheticLedger("long", partitions=1)
    ledger.submit(ledger.command("s", b"{}", kind="facts"))
    for _ in range(400):
        ledger.submit(ledger.command("s", b'"' + b"x" * 500 + b'"'))
    ledger.make_block()
    lines = ledger.export("s")
    trusted = ledger.state.ledger_id
    verify_export(lines[:10], trusted)
    tracemalloc.start()
    try:
        assert verify_export(iter(lines), trusted).holds
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < sum(map(len, lines)) / 5


# Disposition proofs ------------------------------------------------------------------------------


def proof_of(index: int, *, signed: bool) -> bytes:
    block = LEDGER.blocks[0]
    line = LEDGER.disposition(block, index, signed=signed)
    return disposition_proof(block_line(block.header_bytes, block.proof), line)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("index, events", [(0, 1), (1, 2), (2, 0)])
def test_a_disposition_proof_holds_before_and_after_the_signature(
    index: int, events: int, signed: bool
) -> None:
    verdict = verify_disposition_proof(
        proof_of(index, signed=signed), LEDGER.genesis_bytes, TRUSTED
    )
    assert verdict.fault is None
    assert verdict.holds
    assert (verdict.signed, verdict.events, verdict.receipts) == (
        signed,
        events,
        0 if events else 1,
    )
    assert (verdict.session, verdict.height) == ("orders/1", 1)


def test_a_disposition_proof_of_a_stranger_is_refused() -> None:
    proof = proof_of(0, signed=True)
    other = example_ledger("forged")
    verdict = verify_disposition_proof(proof, other.genesis_bytes, other.state.ledger_id)
    assert verdict.fault == f"block 1: it is of ledger {format_hash(TRUSTED)}"
    verdict = verify_disposition_proof(proof, other.genesis_bytes, TRUSTED)
    assert verdict.fault is not None
    assert "not of the trusted" in verdict.fault


def test_every_byte_of_a_disposition_proof_counts(random: Random) -> None:
    good = proof_of(2, signed=True)
    for at in range(0, len(good), 3):
        bad = good[:at] + bytes((good[at] ^ (1 << random.randrange(8)),)) + good[at + 1 :]
        assert not verify_disposition_proof(bad, LEDGER.genesis_bytes, TRUSTED).holds, at


def test_a_disposition_proof_is_two_lines_of_the_right_kinds() -> None:
    lines = LEDGER.export("orders/1")
    block, events = lines[1], lines[2]
    for bad in (b"", block, events, events + block, block + block, block + events + events):
        assert not verify_disposition_proof(bad, LEDGER.genesis_bytes, TRUSTED).holds


def test_the_root_of_an_export_is_its_sessions_key() -> None:
    """A leaf stands under the key of its session, not under what the line says."""
    key = session_key(TRUSTED, SessionId("orders/1"))
    other = session_key(TRUSTED, SessionId("readings"))
    assert key != other
    line = exports.state_line(SessionId("readings"), 3, key, LEDGER.state.tree.prove(key))
    lines = LEDGER.export("readings")
    verdict = check([*lines[:-1], line])
    assert verdict.fault == "state: it is not what block 3 certifies of readings"


def test_an_events_line_does_not_pass_for_a_receipt() -> None:
    lines = LEDGER.export("orders/1")
    index = index_of(lines, EventsLine)
    bad = [*lines[:index], lines[index].replace(b'"type":"events"', b'"type":"receipt"')]
    assert not check(bad).holds
