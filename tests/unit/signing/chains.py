"""Certified blocks for tests of the signing service."""

from __future__ import annotations

from tests.unit.consensus.ledgers import Ledger

from nocturne.core import topics
from nocturne.core.block_intake import BlockIntake, CheckedBlock
from nocturne.core.identifiers import Hash


class Source:
    """A ledger whose blocks come out checked, as the blocks topic's readers get them."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.intake = BlockIntake(
            self.ledger.ledger_id, self.ledger.genesis.founding_sets, 1, Hash(self.ledger.ledger_id)
        )

    def checked(self) -> CheckedBlock:
        """The next block, of everything that waits."""
        ledger = self.ledger
        (checked,) = self.intake.offer(topics.frame(2, ledger.extend().encoded))
        return checked

    def block(self, *sessions: str) -> CheckedBlock:
        """A block with one event for each of these sessions."""
        self.ledger.write(*sessions)
        return self.checked()
