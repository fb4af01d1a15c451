"""The table of pending commands: the parts of an outcome may come in any order."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.vectors.synthetic import MadeBlock, SyntheticLedger, signer_of

from nocturne.command import outcomes
from nocturne.command.outcomes import Level, Outcome, OutcomeTable, Pending
from nocturne.core import exports
from nocturne.core.block_intake import BlockIntake, CheckedBlock
from nocturne.core.blocks import (
    Block,
    LogRecord,
    Seal,
    encode_block,
    hash_block,
    hash_signatures,
    positions_of,
    sign_proposal,
    sign_seal,
)
from nocturne.core.commands import SignedCommand
from nocturne.core.conflicts import check_conflict
from nocturne.core.errors import Malformed
from nocturne.core.events import Position, decode_event_header
from nocturne.core.identifiers import Hash, LedgerId
from nocturne.core.modes import Cause, DegradedFound
from nocturne.core.receipts import (
    Reason,
    Receipt,
    decode_receipt,
    decode_receipt_header,
    encode_receipt,
    hash_receipt,
    sign_receipt,
)
from nocturne.core.topics import BLOCKS, FIXED_SCHEMA_IDS, frame, partition_of

HOUR = 3600.0


class World:
    """A ledger of one partition, its table, and the records that consumers would bring."""

    def __init__(self) -> None:
        self.ledger = SyntheticLedger(partitions=1)
        genesis = self.ledger.genesis
        self.ledger_id = self.ledger.state.ledger_id
        self.intake = BlockIntake(self.ledger_id, genesis.founding_sets, None)
        self.table = OutcomeTable(self.ledger_id, genesis.authority)

    def block(self) -> CheckedBlock:
        """A block of what was submitted."""
        made = self.ledger.make_block()
        (checked,) = self.intake.offer(block_value(made))
        return checked

    def seal(self, checked: CheckedBlock, authority: str = "ledger authority") -> Seal:
        header = checked.block.header
        return sign_seal(
            signer_of(authority),
            self.ledger_id,
            header.height,
            checked.block.digest,
            hash_signatures(()),
        )

    def receipt(
        self, checked: CheckedBlock, index: int, authority: str = "ledger authority"
    ) -> Receipt:
        header = checked.block.header
        data = checked.block.records[index].receipt
        assert data is not None
        signed = sign_receipt(signer_of(authority), hash_receipt(data), header.time, header.height)
        return decode_receipt(encode_receipt(data, signed, header.height, header.time))

    def open(self) -> CheckedBlock:
        self.ledger.submit(self.ledger.command("a/1", b"{}", kind="facts"))
        return self.block()

    def pend(
        self, signed: SignedCommand, wait: Level = Level.SIGNED, deadline: float = HOUR
    ) -> Pending:
        pending = self.table.register(signed.command_hash, wait, deadline, None)
        assert pending is not None
        return pending


def block_value(made: MadeBlock) -> bytes:
    digest = hash_block(made.header_bytes)
    block = Block(
        made.header,
        made.header_bytes,
        digest,
        sign_proposal(signer_of("ledger validator 0"), digest),
        made.proof,
        (),
        made.records,
        (),
    )
    return frame(FIXED_SCHEMA_IDS[BLOCKS], encode_block(block))


@pytest.fixture
def world() -> World:
    return World()


Step = Callable[[], object]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_events_are_signed_when_report_block_and_seal_are_there_in_any_order(
    world: World, order: tuple[int, ...]
) -> None:
    world.open()
    signed = world.ledger.command("a/1", b"{}", b"[]")
    world.ledger.submit(signed)
    checked = world.block()
    pending = world.pend(signed)
    answered: list[Pending] = []
    steps: list[Step] = [
        lambda: answered.extend([pending] if world.table.placed(pending, 0, 1) else []),
        lambda: answered.extend(world.table.block(checked)),
        lambda: answered.extend(world.table.seal(world.seal(checked))),
    ]
    for number in order:
        assert not answered
        steps[number]()
    assert answered == [pending]
    outcome = pending.outcome()
    assert outcome.level is Level.SIGNED
    assert outcome.position == Position(1, 0, 1)
    assert outcome.decision is not None
    assert outcome.decision.block.height == 2
    headers = [decode_event_header(one) for one in outcome.decision.events]
    assert [header.sequence for header in headers] == [2, 3]
    assert {header.command_hash for header in headers} == {signed.command_hash}
    assert len(world.table) == 0


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_refusal_is_signed_by_its_receipt_in_any_order(
    world: World, order: tuple[int, ...]
) -> None:
    world.open()
    signed = world.ledger.command("a/1", b"{}", expected=7)
    world.ledger.submit(signed)
    checked = world.block()
    pending = world.pend(signed)
    answered: list[Pending] = []
    steps: list[Step] = [
        lambda: answered.extend([pending] if world.table.placed(pending, 0, 1) else []),
        lambda: answered.extend(world.table.block(checked)),
        lambda: answered.extend(world.table.receipt(world.receipt(checked, 0))),
    ]
    for number in order:
        assert not answered
        steps[number]()
    assert answered == [pending]
    outcome = pending.outcome()
    assert outcome.level is Level.SIGNED
    assert outcome.receipt is not None
    receipt = decode_receipt(outcome.receipt)
    assert receipt.header.reason is Reason.DUPLICATE_SEQ
    assert outcome.decision is not None
    assert receipt.header_bytes == outcome.decision.receipt


@settings(deadline=None, max_examples=25)
@given(st.permutations(range(8)), st.integers(0, 2**32))
def test_many_commands_of_many_blocks_get_their_own_outcomes(order: list[int], seed: int) -> None:
    world = World()
    world.open()
    commands = [
        world.ledger.command("a/1", b"{}", expected=None if number % 3 else 0)
        for number in range(8)
    ]
    checked: list[CheckedBlock] = []
    for number in range(8):
        world.ledger.submit(commands[number])
        if seed >> number & 1 or number == 7:
            checked.append(world.block())
    pendings = [world.pend(one) for one in commands]
    split = seed % 8
    for number in order[:split]:
        world.table.placed(pendings[number], 0, number + 1)
    for one in checked:
        world.table.block(one)
    for number in order[split:]:
        world.table.placed(pendings[number], 0, number + 1)
    for one in checked:
        world.table.seal(world.seal(one))
        for index, record in enumerate(one.block.records):
            if record.receipt is not None:
                world.table.receipt(world.receipt(one, index))
    for number, pending in enumerate(pendings):
        outcome = pending.outcome()
        assert pending.done
        assert outcome.level is Level.SIGNED
        assert outcome.decision is not None
        assert outcome.decision.command_hash == commands[number].command_hash
        assert (outcome.receipt is None) == bool(number % 3)
    assert is_empty(world.table)


def is_empty(table: OutcomeTable) -> bool:
    shelves = (table._by_offset, table._by_hash, table._by_height, table._by_receipt)
    return len(table) == 0 and not table._ticks and not any(shelves)


@pytest.mark.parametrize("wait", [Level.ACCEPTED, Level.CERTIFIED, Level.SIGNED])
def test_each_level_is_answered_as_soon_as_it_is_reached(world: World, wait: Level) -> None:
    world.open()
    signed = world.ledger.command("a/1", b"{}")
    world.ledger.submit(signed)
    checked = world.block()
    pending = world.pend(signed, wait)
    reached = []
    if world.table.placed(pending, 0, 1):
        reached.append(Level.ACCEPTED)
    if world.table.block(checked):
        reached.append(Level.CERTIFIED)
    if world.table.seal(world.seal(checked)):
        reached.append(Level.SIGNED)
    assert reached == [wait]
    assert pending.outcome().level is wait
    assert (pending.outcome().decision is not None) == (wait > Level.ACCEPTED)


def test_a_repeated_command_is_answered_with_the_first_outcome(world: World) -> None:
    world.open()
    signed = world.ledger.command("a/1", b"{}")
    world.ledger.submit(signed)
    first = world.block()
    world.table.block(first)
    world.table.seal(world.seal(first))
    world.ledger.submit(signed)
    pending = world.pend(signed)
    world.table.placed(pending, 0, 2)
    assert world.table.block(world.block()) == [pending]
    outcome = pending.outcome()
    assert outcome.repeated
    assert outcome.level is Level.SIGNED
    assert outcome.position == Position(1, 0, 2)
    assert outcome.decision is not None
    assert outcome.decision.position == Position(1, 0, 1)
    assert outcome.decision.block.height == 2
    assert len(outcome.decision.events) == 1


def test_a_repeated_refusal_is_answered_with_the_first_receipt(world: World) -> None:
    world.open()
    signed = world.ledger.command("a/1", b"{}", expected=7)
    world.ledger.submit(signed)
    world.ledger.submit(signed)
    checked = world.block()
    pending = world.pend(signed)
    world.table.placed(pending, 0, 2)
    assert world.table.block(checked) == []
    assert world.table.receipt(world.receipt(checked, 1)) == []
    assert world.table.receipt(world.receipt(checked, 0)) == [pending]
    outcome = pending.outcome()
    assert outcome.repeated
    assert outcome.receipt is not None
    assert decode_receipt(outcome.receipt).header.reason is Reason.DUPLICATE_SEQ


def test_a_repeated_command_whose_first_outcome_is_forgotten_gets_its_own_receipt(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcomes, "RECENT_RECORDS_MAX", 1)
    world.open()
    signed = world.ledger.command("a/1", b"{}")
    world.ledger.submit(signed)
    world.table.block(world.block())
    world.ledger.submit(signed)
    checked = world.block()
    pending = world.pend(signed)
    world.table.placed(pending, 0, 2)
    world.table.block(checked)
    assert world.table.receipt(world.receipt(checked, 0)) == [pending]
    outcome = pending.outcome()
    assert outcome.repeated
    assert outcome.receipt is not None
    header = decode_receipt(outcome.receipt).header
    assert header.reason is Reason.REPEATED
    assert header.first_position == Position(1, 0, 1)


def test_a_receipt_that_came_and_was_forgotten_is_not_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcomes, "RECEIPTS_MAX", 1)
    world.open()
    signed = world.ledger.command("a/1", b"{}", expected=7)
    world.ledger.submit(signed)
    first = world.block()
    world.table.block(first)
    world.table.receipt(world.receipt(first, 0))
    world.ledger.submit(world.ledger.command("a/1", b"{}", expected=8))
    second = world.block()
    world.table.block(second)
    world.table.receipt(world.receipt(second, 0))
    world.ledger.submit(signed)
    third = world.block()
    pending = world.pend(signed)
    world.table.placed(pending, 0, 3)
    world.table.block(third)
    assert world.table.receipt(world.receipt(third, 0)) == [pending]
    assert pending.outcome().repeated


def test_a_stranger_with_the_same_command_and_other_payloads_does_not_answer_for_it(
    world: World,
) -> None:
    world.open()
    signed = world.ledger.command("a/1", b'{"secret":1}')
    record = world.ledger.record_of(signed)
    assert record.value is not None
    broken = LogRecord(record.key, record.value.replace(b"secret", b"public"), record.headers)
    world.ledger.append(0, broken)
    world.ledger.submit(signed)
    pending = world.pend(signed, Level.CERTIFIED)
    world.table.placed(pending, 0, 2)
    checked = world.block()
    assert checked.dispositions[0].command_hash == signed.command_hash
    assert checked.block.records[0].receipt is not None
    assert world.table.block(checked) == [pending]
    outcome = pending.outcome()
    assert outcome.decision is not None
    assert len(outcome.decision.events) == 1


def test_another_record_at_the_commands_offset_does_not_answer_for_it(world: World) -> None:
    world.open()
    lost = world.ledger.command("a/1", b"{}")
    pending = world.pend(lost, Level.CERTIFIED, deadline=1.0)
    world.table.placed(pending, 0, 1)
    world.ledger.submit(world.ledger.command("a/1", b"[]"))
    assert world.table.block(world.block()) == []
    assert world.table.expire(2.0) == [pending]
    assert pending.outcome().decision is None
    assert is_empty(world.table)


def test_a_gap_at_the_commands_offset_does_not_answer_for_it(world: World) -> None:
    world.open()
    pending = world.pend(world.ledger.command("a/1", b"{}"), Level.CERTIFIED)
    world.table.placed(pending, 0, 1)
    world.ledger.append(0, None)
    assert world.table.block(world.block()) == []


def test_a_record_too_large_is_answered_by_position(world: World) -> None:
    world.open()
    signed = world.ledger.command("a/1", b'"' + b"x" * 5000 + b'"')
    world.ledger.submit(signed)
    checked = world.block()
    assert checked.dispositions[0].command_hash != signed.command_hash
    pending = world.pend(signed, Level.CERTIFIED)
    world.table.placed(pending, 0, 1)
    assert world.table.block(checked) == [pending]
    decision = pending.outcome().decision
    assert decision is not None
    assert decision.receipt is not None
    assert decode_receipt_header(decision.receipt).reason is Reason.TOO_LARGE


@pytest.mark.parametrize("late", [False, True])
def test_without_an_offset_in_the_report_the_hash_finds_the_outcome(
    world: World, late: bool
) -> None:
    world.open()
    signed = world.ledger.command("a/1", b"{}")
    world.ledger.submit(signed)
    checked = world.block()
    pending = world.pend(signed, Level.CERTIFIED)
    if late:
        world.table.block(checked)
        assert world.table.placed(pending, 0, -1)
    else:
        assert not world.table.placed(pending, 0, -1)
        assert world.table.block(checked) == [pending]
    assert pending.outcome().position == Position(1, 0, 1)
    assert is_empty(world.table)


@pytest.mark.parametrize(
    "parts, level, decided",
    [(0, Level.UNKNOWN, False), (1, Level.ACCEPTED, False), (2, Level.CERTIFIED, True)],
)
def test_the_deadline_answers_with_what_is_known(
    world: World, parts: int, level: Level, decided: bool
) -> None:
    world.open()
    signed = world.ledger.command("a/1", b"{}")
    world.ledger.submit(signed)
    checked = world.block()
    pending = world.pend(signed, deadline=10.0)
    other = world.pend(signed, deadline=20.0)
    if parts > 0:
        world.table.placed(pending, 0, 1)
    if parts > 1:
        world.table.block(checked)
    assert world.table.expire(9.9) == []
    assert world.table.expire(10.2) == [pending]
    outcome = pending.outcome()
    assert (outcome.level, outcome.decision is not None) == (level, decided)
    assert not other.done
    # What comes after it finds nobody.
    world.table.placed(pending, 0, 1)
    world.table.block(checked)
    assert world.table.seal(world.seal(checked)) == []
    assert world.table.expire(100.0) == [other]
    assert is_empty(world.table)


def test_a_deadline_in_the_past_is_answered_at_the_next_look(world: World) -> None:
    world.table.expire(50.0)
    pending = world.pend(world.ledger.command("a/1", b"{}"), deadline=1.0)
    assert world.table.expire(50.2) == [pending]


def test_a_forgotten_command_leaves_nothing_behind(world: World) -> None:
    world.open()
    signed = world.ledger.command("a/1", b"{}", expected=9)
    world.ledger.submit(signed)
    checked = world.block()
    for parts in range(3):
        pending = world.pend(signed)
        if parts > 0:
            world.table.placed(pending, 0, 1)
        if parts > 1:
            world.table.block(checked)
        world.table.forget(pending)
        world.table.forget(pending)
        assert is_empty(world.table)


def test_the_table_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "PENDING_MAX", 2)
    signed = world.ledger.command("a/1", b"{}")
    first = world.pend(signed)
    world.pend(signed)
    assert world.table.register(signed.command_hash, Level.SIGNED, HOUR, None) is None
    world.table.forget(first)
    assert world.table.register(signed.command_hash, Level.SIGNED, HOUR, None) is not None


def test_what_is_remembered_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "RECENT_RECORDS_MAX", 3)
    monkeypatch.setattr(outcomes, "SEALS_MAX", 3)
    monkeypatch.setattr(outcomes, "RECEIPTS_MAX", 3)
    world.open()
    for _ in range(10):
        world.ledger.submit(world.ledger.command("a/1", b"{}", expected=9))
        checked = world.block()
        world.table.block(checked)
        world.table.seal(world.seal(checked))
        world.table.receipt(world.receipt(checked, 0))
    recent = world.table._recent
    assert recent._records == len(recent._blocks) == len(recent._starts[1, 0]) == 3
    assert len(world.table._sealed) == 3
    assert len(world.table._receipts) == 3
    assert recent.find(1, 0, 7) is None
    assert recent.find(1, 0, 8) is not None
    assert recent.find(1, 0, 11) is None


def test_a_seal_of_a_stranger_is_refused(world: World) -> None:
    world.open()
    signed = world.ledger.command("a/1", b"{}")
    world.ledger.submit(signed)
    checked = world.block()
    pending = world.pend(signed)
    world.table.placed(pending, 0, 1)
    world.table.block(checked)
    with pytest.raises(Malformed, match="not signed by the authority"):
        world.table.seal(world.seal(checked, authority="mallory"))
    with pytest.raises(Malformed, match="another ledger"):
        world.table.seal(
            sign_seal(
                world.ledger.authority,
                LedgerId(bytes(32)),
                2,
                checked.block.digest,
                hash_signatures(()),
            )
        )
    assert not pending.done


def test_a_seal_of_another_block_signs_nothing_and_two_of_one_height_are_a_proof(
    world: World,
) -> None:
    world.open()
    signed = world.ledger.command("a/1", b"{}")
    world.ledger.submit(signed)
    checked = world.block()
    pending = world.pend(signed)
    world.table.placed(pending, 0, 1)
    world.table.block(checked)
    other = sign_seal(
        world.ledger.authority, world.ledger_id, 2, Hash(bytes(32)), hash_signatures(())
    )
    assert world.table.seal(other) == []
    assert not pending.done
    with pytest.raises(DegradedFound, match="sealed two blocks at height 2") as found:
        world.table.seal(world.seal(checked))
    degraded = found.value.degraded
    assert degraded.cause is Cause.SIGNING_CONFLICT
    assert degraded.conflict is not None
    sets, authority = world.ledger.genesis.founding_sets, world.ledger.authority.key
    check_conflict(degraded.conflict, world.ledger_id, sets, authority)


@pytest.mark.parametrize("before", [False, True])
def test_a_receipt_of_a_stranger_is_not_believed_and_does_not_hide_the_true_one(
    world: World, before: bool
) -> None:
    world.open()
    signed = world.ledger.command("a/1", b"{}", expected=7)
    world.ledger.submit(signed)
    checked = world.block()
    pending = world.pend(signed)
    world.table.placed(pending, 0, 1)
    false, true = world.receipt(checked, 0, "mallory"), world.receipt(checked, 0)
    if before:
        for _ in range(5):
            assert world.table.receipt(false) == []
        assert world.table.receipt(true) == []
        assert world.table.block(checked) == [pending]
    else:
        assert world.table.block(checked) == []
        assert world.table.receipt(false) == []
        assert world.table.receipt(true) == [pending]
    assert len(world.table._receipts[Position(1, 0, 1)]) <= 2


@pytest.mark.parametrize("late", [False, True])
def test_a_proof_comes_with_the_outcome_when_asked_for(world: World, late: bool) -> None:
    world.open()
    signed = world.ledger.command("a/1", b"{}")
    world.ledger.submit(world.ledger.command("a/1", b"[]"))
    world.ledger.submit(signed)
    checked = world.block()
    pending = world.table.register(
        signed.command_hash, Level.CERTIFIED, HOUR, None, with_proof=True
    )
    assert pending is not None
    if late:
        world.table.block(checked)
    world.table.placed(pending, 0, 2)
    if not late:
        world.table.block(checked)
    block_line, disposition_line = exports.split_proof(pending.outcome().proof)
    block = exports.parse_line(block_line)
    line = exports.parse_line(disposition_line)
    assert isinstance(block, exports.BlockLine)
    assert isinstance(line, exports.EventsLine)
    assert block.digest == checked.block.digest
    assert line.command_hash == signed.command_hash
    assert line.placement.position == positions_of(checked.block.header)[1]


def test_partitions_do_not_mix() -> None:
    ledger = SyntheticLedger(partitions=2)
    intake = BlockIntake(ledger.state.ledger_id, ledger.genesis.founding_sets, None)
    table = OutcomeTable(ledger.state.ledger_id, ledger.genesis.authority)
    sessions = {partition_of(name.encode(), 2): name for name in map("s{}".format, range(9))}
    commands = [ledger.command(sessions[number], b"{}", kind="facts") for number in (0, 1)]
    for one in commands:
        ledger.submit(one)
    pendings = [table.register(one.command_hash, Level.CERTIFIED, HOUR, None) for one in commands]
    for number, pending in enumerate(pendings):
        assert pending is not None
        table.placed(pending, number, 0)
    (checked,) = intake.offer(block_value(ledger.make_block()))
    assert table.block(checked) == pendings
    found = [outcome_of(pending) for pending in pendings]
    assert [one.position for one in found] == [Position(1, 0, 0), Position(1, 1, 0)]
    for outcome, command in zip(found, commands, strict=True):
        assert outcome.decision is not None
        header = decode_event_header(outcome.decision.events[0])
        assert header.session == command.command.session


def outcome_of(pending: Pending | None) -> Outcome:
    assert pending is not None
    return pending.outcome()
