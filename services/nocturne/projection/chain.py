"""The blocks topic as a chain of folded blocks: checked, in height order, with their state. Pure.

Rules: docs/spec/services.md, projection; docs/spec/blocks.md, what a consumer checks.
"""

from __future__ import annotations

from collections.abc import Sequence

from nocturne.core.block_intake import BlockIntake, CheckedBlock
from nocturne.core.errors import Halt, Malformed
from nocturne.core.identifiers import Hash, LedgerId
from nocturne.core.state_leaf import decode_positions, positions_key
from nocturne.core.validator_sets import ValidatorSets
from nocturne.projection.fold import FoldedBlock, StateTree, fold_block


class Chain:
    """Continues the chain after `height`, whose block has `digest`; `sets` and `tree` are the
    validators and the state after it.
    """

    def __init__(
        self,
        ledger_id: LedgerId,
        sets: ValidatorSets,
        height: int,
        digest: Hash,
        tree: StateTree,
    ) -> None:
        positions = tree.value(positions_key(ledger_id))
        if positions is None:
            raise Halt("the read model has no leaf of the log positions")
        self._ledger_id = ledger_id
        self._tree = tree
        self._height = height
        self._folded: list[FoldedBlock] = []
        self._given_at: dict[int, int] = {}
        self._intake = BlockIntake(
            ledger_id, sets, height + 1, digest, decode_positions(positions), self._fold
        )

    @property
    def height(self) -> int:
        """Of the last block given out."""
        return self._height

    def offer(self, offset: int, value: bytes | None) -> tuple[Sequence[FoldedBlock], str | None]:
        """The blocks whose turn has come with this record of the blocks topic; and why it, or one
        that waited for it, was refused as a stranger's. `Halt`: what is certified contradicts
        itself.
        """
        intake = self._intake
        dropped = intake.dropped
        # A block may have waited since the first record that did, and so may its proof.
        first = intake.low_water(offset)
        self._folded = []
        refused: str | None = None
        try:
            intake.offer(value, offset)
        except Malformed as malformed:
            refused = str(malformed)
        if intake.dropped > dropped:
            refused = refused or "blocks: some that waited were not the certified ones"
        for folded in self._folded:
            self._height = folded.block.header.height
            self._given_at[self._height] = first
        return self._folded, refused

    @property
    def read_again_from(self) -> int | None:
        """The offset from which the topic must be read again, if a block found no place to wait."""
        return self._intake.read_again_from

    def read_again(self, offset: int) -> None:
        """The next record offered is the one at `offset`, which `read_again_from` named."""
        self._intake.read_again(offset)

    def low_water(self, taken: int, following: int) -> int:
        """The first offset that a restart must read when `taken` is applied and `following` is the
        offset after the last record offered.
        """
        for height in [height for height in self._given_at if height <= taken]:
            del self._given_at[height]
        lowest = min(self._given_at.values(), default=following)
        return min(lowest, self._intake.low_water(following))

    def _fold(self, checked: CheckedBlock) -> None:
        folded, self._tree = fold_block(self._ledger_id, self._tree, checked)
        self._folded.append(folded)
