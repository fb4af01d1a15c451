"""What operators decide: only the next record, of this ledger, in time, signed by a threshold."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.ledger_factory import ALICE, BOB, OPERATORS, Ledger, author_id, make_genesis

from nocturne.core import snapshot
from nocturne.core.control import Control, sign_control
from nocturne.core.encoding import AvroRecord
from nocturne.core.errors import Malformed
from nocturne.core.execution import Execution, execute
from nocturne.core.genesis import Limits, OpenRule
from nocturne.core.governing import (
    CONTROL_RECORDS_MAX,
    OPEN_RULES_MAX,
    ControlBatch,
    control_number,
    policy_fields,
)
from nocturne.core.identifiers import LEDGER_SESSION, LedgerId
from nocturne.core.keys import Ed25519Signer
from nocturne.core.receipts import Reason, ReceiptHeader

ALICE_ONLY = (OpenRule(author_id(ALICE), "facts", "alice/"),)
HEIGHT_MAX = 100


def record(
    ledger: Ledger,
    rules: Sequence[OpenRule] = ALICE_ONLY,
    *,
    number: int = 1,
    last_valid_height: int = HEIGHT_MAX,
    signers: Sequence[Ed25519Signer] = OPERATORS[:2],
    action: str = "OpenPolicyChanged",
    fields: AvroRecord | None = None,
    ledger_id: LedgerId | None = None,
) -> bytes:
    control = Control(
        ledger_id or ledger.ledger_id,
        number,
        last_valid_height,
        action,
        policy_fields(rules) if fields is None else fields,
    )
    return sign_control(control, tuple(signers))


def govern(ledger: Ledger, *records: bytes) -> Execution:
    """A block with these control records over what waits."""
    height = len(ledger.blocks) + 1
    done = execute(ledger.state, ledger.waiting(), ControlBatch(height, records))
    ledger.blocks.append(ledger.block_of(done))
    ledger.state = done.state
    return done


def test_a_new_policy_decides_from_the_next_block_on() -> None:
    ledger = Ledger()
    early = ledger.append(ledger.opening("bob/1", author=BOB))
    done = govern(ledger, record(ledger))
    assert done.records[0].receipt is None, f"opened under the policy of the parent: {early}"
    late = ledger.answer(ledger.opening("bob/2", author=BOB))
    assert isinstance(late, ReceiptHeader)
    assert late.reason is Reason.NOT_PERMITTED_TO_OPEN
    assert isinstance(ledger.answer(ledger.opening("alice/1")), tuple)


def test_a_block_may_carry_control_alone_and_the_roots_bind_it() -> None:
    ledger = Ledger()
    before = ledger.state
    one = record(ledger)
    done = govern(ledger, one)
    assert done.ranges == ()
    assert done.control == (one,)
    assert done.control_hash != bytes(32)
    assert done.state_root != before.root_hash
    own = ledger.state.session(LEDGER_SESSION)
    assert own is not None
    assert (own.sequence, control_number(own.items)) == (0, 1)


def test_records_follow_each_other_within_a_block_and_across_blocks() -> None:
    ledger = Ledger()
    everyone = (OpenRule(None, "", ""),)
    govern(ledger, record(ledger, number=1), record(ledger, everyone, number=2))
    assert ledger.state.view.open_policy == everyone
    govern(ledger, record(ledger, (), number=3))
    assert ledger.state.view.open_policy == ()
    answer = ledger.answer(ledger.opening("alice/1"))
    assert isinstance(answer, ReceiptHeader)
    assert answer.reason is Reason.NOT_PERMITTED_TO_OPEN


def test_a_snapshot_keeps_what_the_operators_decided() -> None:
    ledger = Ledger()
    govern(ledger, record(ledger))
    again = snapshot.decode(ledger.genesis_bytes, snapshot.encode(ledger.state), ledger.registry)
    assert again.root_hash == ledger.state.root_hash
    assert again.view.open_policy == ALICE_ONLY
    assert again.view.items.root_hash == ledger.state.view.items.root_hash


def test_an_invalid_record_makes_the_block_invalid() -> None:
    ledger = Ledger()
    stranger = record(ledger, signers=(ALICE, BOB))
    wrong = {
        "number 1, got 2": record(ledger, number=2),
        "number 1, got 0": record(ledger, number=0),
        "of another ledger": record(ledger, ledger_id=LedgerId(bytes(32))),
        "valid up to height 0": record(ledger, last_valid_height=0),
        "signatures of 2 of 3 operators": record(ledger, signers=OPERATORS[:1]),
        "and of nobody else": stranger,
        "not executed": record(ledger, action="EpochEnded", fields={}),
        "at most 1024 rules": record(ledger, ALICE_ONLY * (OPEN_RULES_MAX + 1)),
        "not a kind": record(ledger, (OpenRule(None, "no kind", ""),)),
        "not the beginning of a session id": record(ledger, (OpenRule(None, "", "no session"),)),
        "control": record(ledger)[:-1],
    }
    for message, bad in wrong.items():
        with pytest.raises(Malformed, match=message):
            govern(ledger, bad)
    with pytest.raises(Malformed, match="number 2, got 1"):
        govern(ledger, record(ledger), record(ledger))
    many = [record(ledger, number=number + 1) for number in range(CONTROL_RECORDS_MAX + 1)]
    with pytest.raises(Malformed, match="at most 16"):
        govern(ledger, *many)
    assert not ledger.blocks
    govern(ledger, *many[:-1])


def test_a_stranger_beside_a_threshold_of_operators_spoils_the_record() -> None:
    ledger = Ledger()
    with pytest.raises(Malformed, match="nobody else"):
        govern(ledger, record(ledger, signers=(*OPERATORS[:2], ALICE)))


def test_a_record_too_long_to_be_a_policy_is_refused_unread() -> None:
    ledger = Ledger()
    rules = (OpenRule(None, "", ""),) * 200_000
    with pytest.raises(Malformed, match="at most 393216 bytes"):
        govern(ledger, record(ledger, rules))


def test_control_that_fills_a_block_leaves_the_log_for_the_next_one() -> None:
    limits = Limits(
        command_bytes_max=4096,
        record_bytes_max=8192,
        command_events_max=4,
        range_records_max=64,
        block_bytes_max=32 * 1024,
        id_window=3,
    )
    ledger = Ledger(make_genesis(limits=limits))
    waiting = ledger.append(ledger.opening("s"))
    rules = tuple(OpenRule(author_id(ALICE), "facts", "x" * 128) for _ in range(185))
    done = govern(ledger, record(ledger, rules))
    assert (done.ranges, len(done.control)) == ((), 1)
    ledger.commit()
    assert isinstance(ledger.answers[waiting.partition, waiting.offset], ReceiptHeader)
    with pytest.raises(Malformed, match="at most 32768 bytes in a block"):
        govern(ledger, record(ledger, rules, number=2), record(ledger, rules, number=3))


def test_control_takes_its_room_from_the_block() -> None:
    ledger = Ledger()
    for number in range(200):
        ledger.append(ledger.opening(f"s/{number}"))
    rules = tuple(OpenRule(author_id(ALICE), "facts", "x" * 128) for _ in range(1000))
    done = govern(ledger, *(record(ledger, rules, number=number) for number in range(1, 5)))
    assert len(done.control) == 4
    assert done.record_count == 200
