"""The blocks topic as a chain of folded blocks: checked, in height order, with their state. Pure.

Rules: docs/spec/services.md, projection; docs/spec/blocks.md, what a consumer checks.
"""

from __future__ import annotations

from collections import deque

from nocturne.core.block_intake import (
    HELD_BLOCKS_MAX,
    BlockIntake,
    CheckedBlock,
    check_unlinked,
)
from nocturne.core.blocks import check_body, decode_block
from nocturne.core.certificates import ValidatorSet
from nocturne.core.errors import Halt, Malformed
from nocturne.core.identifiers import Hash, LedgerId
from nocturne.core.intake import command_hash_of_value
from nocturne.core.state_leaf import decode_positions, positions_key
from nocturne.core.topics import unframe
from nocturne.projection.fold import FoldedBlock, StateTree, fold_block


class Chain:
    """Continues the chain after `height`, whose block has `digest` and whose state is `tree`."""

    def __init__(
        self,
        ledger_id: LedgerId,
        validators: ValidatorSet,
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
        self._silent: deque[tuple[int, int]] = deque()
        self._intake = BlockIntake(
            ledger_id, validators, height + 1, digest, decode_positions(positions), self._fold
        )

    @property
    def height(self) -> int:
        """Of the last block given out."""
        return self._height

    def offer(self, offset: int, value: bytes | None) -> list[FoldedBlock]:
        """The blocks whose turn has come with this record of the blocks topic.

        `Malformed`: the record, or one that waited for it, is a stranger's. `Halt`: what is
        certified contradicts itself.
        """
        dropped = self._intake.dropped
        self._folded = []
        given = self._intake.offer(value)
        if not given:
            self._check_silent(offset, value)
        if self._intake.dropped > dropped and not given:
            raise Malformed("blocks: some that waited were not the certified ones")
        for folded in self._folded:
            self._height = folded.block.header.height
            self._given_at[self._height] = offset
        return self._folded

    def low_water(self, taken: int, following: int) -> int:
        """The first offset that a restart must read when `taken` is applied and `following` is the
        offset after the last record offered.
        """
        for height in [height for height in self._given_at if height <= taken]:
            del self._given_at[height]
        # What waits in the intake is of a height below its bound, counted from when it came.
        while self._silent and self._silent[0][1] + HELD_BLOCKS_MAX - 1 <= taken:
            self._silent.popleft()
        lowest = min(self._given_at.values(), default=following)
        return min(lowest, self._silent[0][0]) if self._silent else lowest

    def _fold(self, checked: CheckedBlock) -> None:
        folded, self._tree = fold_block(self._ledger_id, self._tree, checked)
        self._folded.append(folded)

    def _check_silent(self, offset: int, value: bytes | None) -> None:
        """A record that gave nothing out waits for its turn, or repeats a block: then it must be
        that block.
        """
        block = decode_block(unframe(value))
        if block.header.height > self._height:
            self._silent.append((offset, self._height + 1))
            return
        check_body(block, [command_hash_of_value(record) for record in block.records])
        check_unlinked(block.records)
