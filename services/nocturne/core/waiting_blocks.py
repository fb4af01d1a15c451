"""Blocks of the blocks topic that came before their turn or before their proof. Pure.

Rules: docs/spec/blocks.md §6, several publishers. Several validators publish, and whoever else may
write to the topic does: blocks come twice with other proofs, out of height order, with a pointer
in place of their proof, and in copies with a true header and a body that is not the log's. Bounded:
what finds no room is let go, and it is remembered from which offset the topic must be read again
for it, so that no height is lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from nocturne.core.blocks import Block, Disposition
from nocturne.core.certificates import CommitProof, Epoch
from nocturne.core.conflicts import Certified, conflicting_blocks
from nocturne.core.identifiers import Hash, LedgerId
from nocturne.core.modes import Degraded, DegradedFound

HELD_BLOCKS_MAX: Final = 64
"""How far ahead of its turn a block may come; a batch of blocks under one proof is shorter."""
HELD_RECORDS_MAX: Final = 256
"""Blocks that wait for their turn or their proof: of each height the block and a few forgeries."""
HELD_COPIES_MAX: Final = 4
"""Different bodies under one header; only its turn shows which is the log's."""
HELD_BYTES_MAX: Final = 64 * 1024 * 1024
"""Serialised bytes of the blocks that wait: 16 full ones of the default limits."""
LET_GO_HEIGHTS_MAX: Final = 4096
"""Heights above the next one whose offsets are remembered one by one; those beyond together."""


@dataclass(slots=True)
class Waiting:
    """A block whose body is its header's; whether the body is the log's, its turn shows.

    `body_hash` is that of all that stands behind the proof, `size` the record's length in bytes,
    `offset` where the topic first has it. `proof` is None as long as none is at hand.
    """

    block: Block
    dispositions: Sequence[Disposition]
    leaves: Sequence[bytes]
    body_hash: bytes
    size: int
    offset: int
    proof: CommitProof | None

    @property
    def height(self) -> int:
        """The block's."""
        return self.block.header.height


class Standing(Enum):
    """What is known of a block that is passed by."""

    CERTIFIED = "certified"
    PROPOSED = "proposed"
    UNKNOWN = "unknown"
    """Its validators are not decided yet."""


class _Certified(NamedTuple):
    """What is committed at a height, said by a commit proof of it or of a block after it."""

    digest: Hash
    epoch: Epoch
    proof: CommitProof
    header_bytes: bytes | None
    """None: known only as the parent of the first of the proof's headers."""

    def shown(self) -> Certified:
        """Itself, or the block after it, which names it."""
        if self.header_bytes is not None:
            return Certified(self.header_bytes, self.proof)
        headers = self.proof.headers
        return Certified(headers[0], CommitProof(self.proof.finalization, headers[1:]))


class WaitingBlocks:
    """The room. `following` is always the height that comes next: what is below does not wait."""

    def __init__(self, ledger_id: LedgerId) -> None:
        self._ledger_id = ledger_id
        self._held: dict[int, list[Waiting]] = {}
        self._records = 0
        self._bytes = 0
        self._certified: dict[int, _Certified] = {}
        self._newest_certified = 0
        self._unknown: set[int] = set()
        self._let_go: dict[int, int] = {}
        self._worth_reading = False
        self._offset = 0
        self.let_go = 0
        """Records that found no place."""

    def __len__(self) -> int:
        return self._records

    def add(self, one: Waiting, following: int) -> bool:
        """Take a block in, with its own proof already checked; False when it is here already.
        `DegradedFound`: two blocks of one height are certified. Call `make_room` when the blocks
        whose turn has come are taken out.
        """
        self._offset = one.offset
        if one.proof is not None:
            block = one.block
            found = _Certified(block.digest, block.header.epoch, one.proof, block.header_bytes)
            self._learn(one.height, found)
        copies = self._held.get(one.height, [])
        of_digest = [copy for copy in copies if copy.block.digest == one.block.digest]
        for copy in of_digest:
            if copy.body_hash == one.body_hash:
                copy.offset = min(copy.offset, one.offset)
                self._prove(one.height, following)
                return False
        if len(of_digest) == HELD_COPIES_MAX:
            self._prove(one.height, following)
            self._forget(one)
            return False
        self._held.setdefault(one.height, []).append(one)
        self._records += 1
        self._bytes += one.size
        self._prove(one.height, following)
        return True

    def make_room(self) -> None:
        """Let go what is too much: what no proof stands for first, and the farthest first."""
        while self._records > HELD_RECORDS_MAX or self._bytes > HELD_BYTES_MAX:
            farthest = max(self._all(), key=lambda one: (one.proof is None, one.height))
            # The newest of its height: those before it were there when it came.
            copies = [
                one
                for one in self._held[farthest.height]
                if (one.proof is None) == (farthest.proof is None)
            ]
            self._remove(copies[-1])
            self._forget(copies[-1])

    def pass_by(self, height: int, offset: int, standing: Standing, following: int) -> None:
        """A record too far ahead to wait."""
        self.let_go += 1
        self._offset = offset
        if standing is Standing.CERTIFIED:
            self._newest_certified = max(self._newest_certified, height)
        elif standing is Standing.UNKNOWN:
            self._unknown.add(height)
        self._remember(min(height, following + LET_GO_HEIGHTS_MAX), offset)

    def proved(self, height: int) -> Waiting | None:
        """A block of this height with its proof."""
        return next((one for one in self._held.get(height, ()) if one.proof is not None), None)

    def drop(self, one: Waiting, has_waited: bool) -> None:
        """It is not the log's. If it has waited, its place is free for what found none."""
        self._remove(one)
        self._worth_reading = self._worth_reading or has_waited

    def take(self, height: int) -> list[Waiting]:
        """All of a height that was given out; nothing of it waits any more."""
        taken = list(self._held.get(height, ()))
        for one in taken:
            self._remove(one)
        self._certified.pop(height, None)
        self._let_go.pop(height, None)
        self._unknown.discard(height)
        self._worth_reading = True
        return taken

    def low_water(self, offset: int) -> int:
        """The first offset that a reader who starts anew must read, when `offset` is the one after
        all that is done with: of what waits and of what was let go.
        """
        lowest = min((one.offset for one in self._all()), default=offset)
        return min(lowest, offset, *self._let_go.values())

    def read_again_from(self, following: int) -> int | None:
        """The offset from which the topic must be read again; None when that would help nothing:
        no certified block is waited for in vain, nothing near was let go, or there is no more room
        and no more knowledge than the last time.
        """
        if not self._let_go or not self._worth_reading:
            return None
        if max((self._newest_certified, *self._unknown)) < following:
            return None
        near = range(following, following + HELD_BLOCKS_MAX)
        return min((at for height, at in self._let_go.items() if height in near), default=None)

    def read_again(self, offset: int) -> None:
        """The topic is now read from `offset` on: what was let go there comes again."""
        self._let_go = {height: at for height, at in self._let_go.items() if at < offset}
        self._unknown &= self._let_go.keys()
        self._worth_reading = False

    def _all(self) -> Iterator[Waiting]:
        return (one for copies in self._held.values() for one in copies)

    def _learn(self, height: int, found: _Certified) -> None:
        known = self._certified.get(height)
        if known is not None and known.digest != found.digest:
            conflict = conflicting_blocks(self._ledger_id, known.shown(), found.shown())
            raise DegradedFound(Degraded.by(conflict))
        self._newest_certified = max(self._newest_certified, height)
        if known is None and height in self._let_go:
            # It may have been let go for want of this proof.
            self._worth_reading = True
        if known is None or known.epoch != found.epoch:
            self._certified[height] = found

    def _prove(self, height: int, following: int) -> None:
        """Give the copies of a certified block its proof, and each block before it one through it:
        a pointer says that there is such a proof, and not which.
        """
        while (certified := self._certified.get(height)) is not None:
            block = None
            for one in self._held.get(height, ()):
                # A finalization commits blocks of its own epoch.
                if (one.block.digest, one.block.header.epoch) == certified[:2]:
                    one.proof = one.proof or certified.proof
                    block = one.block
            if block is None or height == following:
                return
            final, headers = certified.proof.finalization, certified.proof.headers
            height -= 1
            before = CommitProof(final, (block.header_bytes, *headers))
            parent = block.header.parent_digest
            self._learn(height, _Certified(parent, block.header.epoch, before, None))

    def _forget(self, one: Waiting) -> None:
        self.let_go += 1
        self._remember(one.height, one.offset)

    def _remember(self, height: int, offset: int) -> None:
        if offset > self._offset:
            # It was taken in when the topic was read before, and is still to be read this time.
            return
        self._let_go[height] = min(self._let_go.get(height, offset), offset)

    def _remove(self, one: Waiting) -> None:
        copies = [copy for copy in self._held[one.height] if copy is not one]
        if copies:
            self._held[one.height] = copies
        else:
            del self._held[one.height]
        self._records -= 1
        self._bytes -= one.size
