"""The plan of the business case: the same for a seed, exact in number, right about the ledger."""

from __future__ import annotations

from collections import Counter

import pytest

from nocturne.core.blocks import LogRecord
from nocturne.core.commands import encode_signed_command
from nocturne.core.execution import PartitionBatch, execute
from nocturne.core.genesis import (
    FinalityPolicy,
    Genesis,
    KindEntry,
    Limits,
    OpenRule,
    encode_genesis,
    ledger_id_of,
)
from nocturne.core.identifiers import Hash
from nocturne.core.intake import IntakeContext, prepare
from nocturne.core.keys import Ed25519Signer, prove_possession
from nocturne.core.receipts import Reason, decode_receipt_header
from nocturne.core.state import LedgerState
from nocturne.core.topics import frame, partition_of
from nocturne.embedded.demo import scenario
from nocturne.embedded.demo.people import People
from nocturne.embedded.demo.purchase import DEPARTMENTS

SIGNERS = {name: Ed25519Signer(name.encode().ljust(32, b".")) for name in DEPARTMENTS}


def _genesis() -> Genesis:
    operator, authority = Ed25519Signer(b"o" * 32), Ed25519Signer(b"a" * 32)
    return Genesis(
        1,
        1,
        bytes(32),
        4,
        1_000_000,
        Limits(),
        ((operator.key, prove_possession(operator)),),
        authority.key,
        prove_possession(authority),
        (),
        (operator.key,),
        1,
        (KindEntry("document", 1, Hash(bytes(32))), KindEntry("facts", 1, Hash(bytes(32)))),
        (OpenRule(None, "", ""),),
        FinalityPolicy(),
    )


GENESIS_BYTES = encode_genesis(_genesis())
PEOPLE = People(ledger_id_of(GENESIS_BYTES), SIGNERS, bytes(32))


def test_the_same_seed_gives_the_same_plan_and_another_seed_another() -> None:
    once, again = (scenario.plan(7, 600, PEOPLE.authors) for _ in range(2))
    assert once == again
    assert once != scenario.plan(8, 600, PEOPLE.authors)


@pytest.mark.parametrize("commands", [100, 101, 777, 5000])
def test_a_plan_has_exactly_as_many_commands_as_asked(commands: int) -> None:
    assert len(scenario.plan(1, commands, PEOPLE.authors).steps) == commands


def test_a_plan_below_the_least_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 100"):
        scenario.plan(1, 99, PEOPLE.authors)


def test_a_full_plan_has_two_hundred_orders_and_every_kind_of_refusal_it_tells_of() -> None:
    plan = scenario.plan(20261121, 5000, PEOPLE.authors)
    assert plan.orders >= 190
    assert len(plan.sessions) == plan.orders + plan.suppliers
    assert set(plan.refusals) == {
        Reason.SIGNATURE_INVALID,
        Reason.SESSION_CLOSED,
        Reason.UNKNOWN_KIND,
        Reason.NOT_A_MEMBER,
        Reason.REPEATED,
        Reason.ID_REUSED,
        Reason.DUPLICATE_SEQ,
        Reason.INVARIANT_VIOLATION,
    }


@pytest.mark.slow
def test_the_ledgers_rules_make_of_every_command_what_the_plan_foresees() -> None:
    plan = scenario.plan(3, 1200, PEOPLE.authors)
    state = LedgerState.founding(GENESIS_BYTES)
    context = IntakeContext.of(state.ledger_id, state.view.genesis)
    logs: dict[int, list[LogRecord]] = {number: [] for number in range(context.partitions)}
    planned: dict[int, list[Reason | None]] = {number: [] for number in logs}
    for step in plan.steps:
        key = step.session.encode()
        partition = partition_of(key, context.partitions)
        value = frame(1, encode_signed_command(PEOPLE.signed(step)))
        logs[partition].append(LogRecord(key, value, ()))
        planned[partition].append(step.refusal)
    done = execute(
        state,
        [
            PartitionBatch(
                partition,
                bytes(16),
                len(log),
                [(offset, prepare(context, partition, one)) for offset, one in enumerate(log)],
            )
            for partition, log in logs.items()
        ],
    )
    assert done.record_count == len(plan.steps)
    became = [
        None if one.receipt is None else decode_receipt_header(one.receipt).reason
        for one in done.records
    ]
    assert became == [reason for number in sorted(planned) for reason in planned[number]]
    assert sum(len(one.events) for one in done.records) == plan.events
    assert Counter(one for one in became if one is not None) == plan.refusals


def test_a_step_that_comes_again_is_signed_to_the_same_bytes() -> None:
    plan = scenario.plan(20261121, 5000, PEOPLE.authors)
    repeated = next(step for step in plan.steps if step.refusal is Reason.REPEATED)
    first = next(
        step
        for step in plan.steps
        if (step.session, step.identity) == (repeated.session, repeated.identity)
    )
    assert first.refusal is None
    assert PEOPLE.signed(first) == PEOPLE.signed(repeated)
