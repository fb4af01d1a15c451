"""The blocks topic as a chain of folded blocks: checked, in height order, with their state. Pure.

Rules: docs/spec/services.md, projection; docs/spec/blocks.md, what a consumer checks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from nocturne.core.block_intake import BlockIntake, CheckedBlock, check_unlinked
from nocturne.core.blocks import Block, decode_block
from nocturne.core.errors import Halt, Malformed
from nocturne.core.identifiers import Hash, LedgerId
from nocturne.core.state_leaf import decode_positions, positions_key
from nocturne.core.topics import unframe
from nocturne.core.validator_sets import ValidatorSets
from nocturne.projection.fold import FoldedBlock, StateTree, fold_block

REMEMBERED_BLOCKS_MAX: Final = 4096
"""Heights at which a copy with other state changes is noticed."""


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
        self._waiting_from: int | None = None
        self._changes: OrderedDict[int, int] = OrderedDict()
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
        dropped = self._intake.dropped
        self._folded = []
        refused: str | None = None
        try:
            self._intake.offer(value)
            if not self._folded:
                self._check_silent(offset, value)
        except Malformed as malformed:
            refused = str(malformed)
        if self._intake.dropped > dropped:
            refused = refused or "blocks: some that waited were not the certified ones"
        for folded in self._folded:
            self._give(folded, offset)
        if not self._intake.holds_blocks:
            self._waiting_from = None
        return self._folded, refused

    def low_water(self, taken: int, following: int) -> int:
        """The first offset that a restart must read when `taken` is applied and `following` is the
        offset after the last record offered.
        """
        for height in [height for height in self._given_at if height <= taken]:
            del self._given_at[height]
        lowest = min(self._given_at.values(), default=following)
        return lowest if self._waiting_from is None else min(lowest, self._waiting_from)

    def _fold(self, checked: CheckedBlock) -> None:
        folded, self._tree = fold_block(self._ledger_id, self._tree, checked)
        self._folded.append(folded)

    def _give(self, folded: FoldedBlock, offset: int) -> None:
        """It may have waited since the first record that did."""
        self._height = folded.block.header.height
        self._given_at[self._height] = (
            offset if self._waiting_from is None else min(offset, self._waiting_from)
        )
        self._changes[self._height] = hash(folded.block.state_changes)
        if len(self._changes) > REMEMBERED_BLOCKS_MAX:
            self._changes.popitem(last=False)

    def _check_silent(self, offset: int, value: bytes | None) -> None:
        """A record that gave nothing out waits for its turn, or repeats a block: then it must be
        that block.
        """
        block = decode_block(unframe(value))
        if block.header.height > self._height:
            self._waiting_from = offset if self._waiting_from is None else self._waiting_from
        else:
            self._check_repeated(block)

    def _check_repeated(self, block: Block) -> None:
        """The intake has checked the body against the header, and what it remembers of the log."""
        changes = self._changes.get(block.header.height)
        if changes is None:
            check_unlinked(block.records)
        elif changes != hash(block.state_changes):
            raise Malformed(f"block {block.header.height}: its state changes are not the certified")
