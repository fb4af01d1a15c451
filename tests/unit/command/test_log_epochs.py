"""Commands whose log was lost wait for themselves, wherever they are appended again."""

from __future__ import annotations

import pytest
from tests.ledger_factory import Ledger, make_genesis, record_value

from nocturne.command.outcomes import Level, OutcomeTable, Pending
from nocturne.core.block_intake import BlockIntake, CheckedBlock
from nocturne.core.blocks import Block
from nocturne.core.commands import SignedCommand
from nocturne.core.events import Position

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
