"""Commands whose log was lost wait for themselves, wherever they are appended again, and nobody
else waits for them.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.ledger_factory import Ledger, make_genesis, record_value

from nocturne.command.limits import RateLimits, SessionCounts
from nocturne.command.outcomes import Level, OutcomeTable, Pending
from nocturne.command.progress import STALLED_SECONDS
from nocturne.command.service import Commands
from nocturne.core.block_intake import BlockIntake, CheckedBlock
from nocturne.core.blocks import Block
from nocturne.core.commands import SignedCommand
from nocturne.core.events import Position
from nocturne.runtime.degraded import LedgerMode
from nocturne.runtime.settings import Founding
from nocturne.runtime.telemetry import Metrics

HOUR = 3600.0


class World:
    """A ledger of one partition in which a session is open, and the table of its commands."""

    def __init__(self) -> None:
        self.ledger = Ledger(make_genesis(partitions=1))
        self.table = OutcomeTable(self.ledger.ledger_id, self.ledger.genesis.authority)
        self.intake = BlockIntake(self.ledger.ledger_id, self.ledger.genesis.founding_sets, None)
        self.ledger.append(self.ledger.opening("a"))
        self.see(self.ledger.commit())

    def see(self, block: Block) -> list[Pending]:
        checked: CheckedBlock
        (checked,) = self.intake.offer(record_value(block))
        return self.table.block(checked)

    def pend(self, signed: SignedCommand) -> Pending:
        pending = self.table.register(signed.command_hash, Level.CERTIFIED, HOUR, None)
        assert pending is not None
        return pending

    def reopen(self, start: int = 0) -> list[Pending]:
        self.ledger.lose_log(0)
        self.ledger.log[0].clear()
        return self.see(self.ledger.commit(control=[self.ledger.opening_of_log(0, start=start)]))


@pytest.fixture
def world() -> World:
    return World()


def test_a_command_that_was_lost_with_its_log_is_answered_where_it_is_appended_again(
    world: World,
) -> None:
    lost = world.ledger.command("a", number=2)
    pending = world.pend(lost)
    assert not world.table.placed(pending, 0, 7)
    assert world.reopen() == []
    world.ledger.append(lost)
    assert world.see(world.ledger.commit()) == [pending]
    assert pending.outcome().position == Position(2, 0, 0)
    assert len(world.table) == 0


def test_a_command_appended_to_the_new_topic_before_the_log_epoch_is_open_is_not_mistaken(
    world: World,
) -> None:
    """Its offset is one that the log epoch before had too, for another command."""
    early = world.ledger.command("a", number=2)
    pending = world.pend(early)
    assert not world.table.placed(pending, 0, 0)
    assert world.reopen() == []
    world.ledger.append(early)
    assert world.see(world.ledger.commit()) == [pending]
    assert pending.outcome().position == Position(2, 0, 0)


def test_after_a_log_epoch_is_open_commands_are_found_at_their_offsets_in_it(world: World) -> None:
    world.reopen()
    signed = world.ledger.command("a", number=2)
    position = world.ledger.append(signed)
    block = world.ledger.commit()
    pending = world.pend(signed)
    assert not world.table.placed(pending, 0, position.offset)
    assert world.see(block) == [pending]
    later = world.pend(signed)
    assert world.table.placed(later, 0, position.offset)
    assert later.outcome().position == Position(2, 0, 0)


def test_commands_that_a_log_epoch_left_behind_do_not_stall_the_service(
    world: World, tmp_path: Path
) -> None:
    ledger = world.ledger
    commands = Commands(
        Founding(ledger.genesis_bytes, ledger.genesis, ledger.ledger_id),
        None,  # type: ignore[arg-type]
        1,
        RateLimits(0, 0),
        SessionCounts(0),
        Metrics("command"),
        LedgerMode(tmp_path, ledger.ledger_id),
    )
    for offset in (1, 2, 50):
        commands._progress.logged(0, offset, 100.0)
    commands._sent.note(0, 0, "somebody")
    ledger.lose_log(0)
    ledger.log[0].clear()
    block = ledger.commit(control=[ledger.opening_of_log(0, start=0)])
    (checked,) = world.intake.offer(record_value(block))
    commands.take_block(checked)
    assert not commands._progress.is_stalled(100.0 + 2 * STALLED_SECONDS)
    assert (commands._decided_to, len(commands._sent)) == ([0], 0)
    commands._progress.logged(0, 0, 200.0)
    assert commands._progress.is_stalled(200.0 + 2 * STALLED_SECONDS)
    ledger.append(ledger.command("a", number=2))
    (checked,) = world.intake.offer(record_value(ledger.commit()))
    commands.take_block(checked)
    assert not commands._progress.is_stalled(1_000.0)
