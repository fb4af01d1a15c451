"""What of the own chain the blocks topic already holds. Pure.

After a restart the topic may lack blocks that the journal has; they are published again. What the
topic says is not believed: anyone might have written there. A committed block of this ledger is,
though, and if the journal does not have it, it is the journal that lost something.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nocturne.core.blocks import Block, decode_block, link_of, link_to
from nocturne.core.certificates import CommitProof, ValidatorSet, check_commit_proof
from nocturne.core.errors import Halt, Malformed
from nocturne.core.identifiers import Hash, LedgerId
from nocturne.core.topics import unframe


@dataclass(frozen=True, slots=True)
class Published:
    """The newest block that the broker has acknowledged, and its offset in the blocks topic."""

    height: int
    offset: int


class TopicCheck:
    """Reads the blocks topic's records, from `known` on or from the beginning."""

    def __init__(
        self,
        ledger_id: LedgerId,
        validators: ValidatorSet,
        digests: Mapping[int, Hash],
        tip_height: int,
        known: Published | None,
    ) -> None:
        """`digests` are the own blocks', by height, as far back as the journal goes."""
        self._ledger_id = ledger_id
        self._validators = validators
        self._digests = digests
        self._tip_height = tip_height
        self._known = known
        self._offsets: dict[int, int] = {}
        self.ignored = 0
        """Records that are no committed block of this ledger."""

    def offer(self, offset: int, value: bytes | None) -> None:
        """The topic's next record. `Halt`: a committed block that the own journal contradicts."""
        try:
            block = self._committed(value)
        except Malformed:
            self.ignored += 1
            return
        height = block.header.height
        if height > self._tip_height:
            raise Halt(
                f"the blocks topic has a committed block {height} of this validator's set, its own "
                f"journal ends at {self._tip_height}: the journal is an old copy"
            )
        own = self._digests.get(height)
        if own is not None and own != block.digest:
            raise Halt(
                f"the blocks topic has another committed block at height {height} than the own "
                f"journal: {block.digest.hex()}, {own.hex()}"
            )
        self._offsets.setdefault(height, offset)

    def newest(self) -> Published | None:
        """The newest block with none missing below it, None when the topic has none; `LookupError`
        when the one that was acknowledged is not where it was.
        """
        height, offset = 0, -1
        if self._known is not None:
            height, offset = self._known.height, self._known.offset
            if self._offsets.get(height) != offset:
                raise LookupError(f"block {height} is not at offset {offset}")
        while height + 1 in self._offsets:
            height += 1
            offset = self._offsets[height]
        return Published(height, offset) if height else None

    def _committed(self, value: bytes | None) -> Block:
        block = decode_block(unframe(value))
        if block.header.ledger_id != self._ledger_id or not isinstance(block.proof, CommitProof):
            raise Malformed("block: not one of this ledger with its proof")
        link = link_to(block.header, block.digest)
        check_commit_proof(block.proof, link, self._ledger_id, self._validators, link_of)
        return block
