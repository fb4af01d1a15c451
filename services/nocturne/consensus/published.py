"""What the blocks topic has of the chain, and who publishes what it lacks. Pure.

Rules: docs/spec/consensus.md, publishing. What the topic says is not believed: anyone might have
written there. A committed block of this ledger is, though, and one that contradicts the own chain
is a reason to halt. Blocks are published in height order; of each the leader publishes it, the
others only if it is not seen within a bound, one after the other.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from nocturne.consensus.chain import Made
from nocturne.consensus.quorum.messages import Committed, Proposal
from nocturne.core.blocks import (
    Block,
    decode_block,
    decode_block_header_prefix,
    decode_proof,
    hash_block,
)
from nocturne.core.certificates import CommitProof
from nocturne.core.conflicts import Certified
from nocturne.core.errors import Halt, Malformed
from nocturne.core.identifiers import Hash, LedgerId
from nocturne.core.topics import unframe
from nocturne.core.validator_sets import ValidatorSets

OTHERS_MS: Final = 1_000
"""How long the leader has before the validator after it publishes its block."""
NEXT_MS: Final = 300
"""How long each of the others has before the one after it."""
UNPUBLISHED_MAX: Final = 64
UNPUBLISHED_BYTES_MAX: Final = 64 * 1024 * 1024
"""Committed blocks that the topic lacks; past either no more records are taken from the log."""
EARLY_MAX: Final = 64
EARLY_BYTES_MAX: Final = 64 * 1024 * 1024
EARLY_COPIES_MAX: Final = 4
"""Heights, bytes, and records of one height that are not committed here yet, held until they are:
which of them is the block shows then.
"""
PASSED_MAX: Final = 1024
"""Heights that are not committed here yet of which it is remembered where the topic has them."""
DIGESTS_MAX: Final = 4096
"""Heights below the tip at which another committed block is noticed."""


class Contradicted(Halt):
    """The topic has another committed block of a height than the own chain: with the own one's
    proof, which the journal may have, it is proof that the ledger is DEGRADED.
    """

    def __init__(self, words: str, other: Certified) -> None:
        super().__init__(words)
        self.other = other


@dataclass(frozen=True, slots=True)
class Published:
    """The newest block that the topic has with none missing below it, and its offset there."""

    height: int
    offset: int


class TopicCheck:
    """Reads the blocks topic's records, from `known` on or from the beginning."""

    def __init__(
        self,
        ledger_id: LedgerId,
        sets: ValidatorSets,
        digests: Mapping[int, Hash],
        tip_height: int,
        known: Published | None,
    ) -> None:
        """`sets` are those as of the own tip, `digests` the own blocks', by height, as far back as
        the journal goes.
        """
        self._ledger_id = ledger_id
        self._sets = sets
        self._digests = digests
        self._tip_height = tip_height
        self._known = known
        self._offsets: dict[int, int] = {}
        self.ignored = 0
        """Records that are no committed block of this ledger."""

    def offer(self, offset: int, value: bytes | None) -> None:
        """The topic's next record. `Halt`: a committed block that the own journal contradicts."""
        try:
            block = committed_block(value, self._ledger_id, self._sets)
        except Malformed:
            self.ignored += 1
            return
        height = block.header.height
        if height > self._tip_height:
            if len(self._sets.of_block(block.header).keys) == 1:
                raise Halt(
                    f"the blocks topic has a committed block {height} of this validator's set, its "
                    f"own journal ends at {self._tip_height}: the journal is an old copy"
                )
            # The others went on: it is read again, and taken up then.
            return
        own = self._digests.get(height)
        if own is not None and own != block.digest:
            raise _contradicts(block, own)
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


def committed_block(value: bytes | None, ledger_id: LedgerId, sets: ValidatorSets) -> Block:
    """The committed block of a record of the blocks topic; `Malformed` if it is none."""
    block = decode_block(unframe(value))
    if block.header.ledger_id != ledger_id or not isinstance(block.proof, CommitProof):
        raise Malformed("block: not one of this ledger with its proof")
    sets.check_proof(block.proof, block.header, block.digest, ledger_id)
    return block


@dataclass(frozen=True, slots=True)
class Found:
    """A block that the topic has and the own chain lacks, with the body beside it: neither its
    proof nor that the body is its own is checked.
    """

    committed: Committed
    block: Block


@dataclass(slots=True)
class _Unpublished:
    made: Made
    due: int | None
    """ms since 1970; None: this validator does not publish."""
    sent: bool = False
    offset: int | None = None


class Topic:
    """The blocks topic as it grows beside the own chain."""

    def __init__(
        self,
        ledger_id: LedgerId,
        sets: ValidatorSets,
        digests: Mapping[int, Hash],
        published: Published | None,
    ) -> None:
        """`sets` and `digests` as of `TopicCheck`; from `published` on the topic has no block of
        the chain.
        """
        self._ledger_id = ledger_id
        self._sets = sets
        self._digests = OrderedDict(sorted(digests.items())[-DIGESTS_MAX:])
        self._published = published
        self._unpublished: OrderedDict[int, _Unpublished] = OrderedDict()
        self._unpublished_bytes = 0
        self._early: dict[int, list[tuple[int, bytes]]] = {}
        self._early_bytes = 0
        self._passed: dict[int, dict[Hash, int]] = {}
        """Of heights that are not committed here yet, the offsets of blocks by their digests."""
        self._newest: Made | None = None
        self.ignored = 0
        """Records that are no committed block of this ledger, or one that the topic has already."""

    @property
    def published(self) -> Published | None:
        """The newest block that the topic has with none missing below it; None at first."""
        return self._published

    @property
    def newest(self) -> Made | None:
        """The same block, if it was committed since this process began."""
        return self._newest

    @property
    def is_full(self) -> bool:
        """Whether the chain has to wait for the topic."""
        return (
            len(self._unpublished) >= UNPUBLISHED_MAX
            or self._unpublished_bytes >= UNPUBLISHED_BYTES_MAX
        )

    def committed(self, made: Made, rank: int | None, now: int) -> None:
        """The next block of the chain; `rank` as in `replica.Publish`, `now` in ms."""
        height = made.block.header.height
        self._sets = made.state.view.validator_sets
        self._digests[height] = made.block.digest
        if len(self._digests) > DIGESTS_MAX:
            self._digests.popitem(last=False)
        wait = None if rank is None else OTHERS_MS + NEXT_MS * (rank - 1) if rank else 0
        self._unpublished[height] = _Unpublished(made, None if wait is None else now + wait)
        self._unpublished_bytes += _size_of(made)
        for offset, data in self._early.pop(height, ()):
            self._early_bytes -= len(data)
            try:
                self._see(offset, data, height)
            except Malformed:
                # A stranger was faster than the leader.
                self.ignored += 1
        passed = self._passed.pop(height, {})
        one = self._unpublished[height]
        if rank is None and one.offset is None:
            # Whoever publishes nothing never sees again what was not held until it was committed.
            one.offset = passed.get(made.block.digest)
        self._advance()

    def due(self, now: int) -> list[Made]:
        """The blocks that are to be published now, in height order: all below each are published,
        or on their way from here.
        """
        found = []
        for one in self._unpublished.values():
            if one.sent or one.offset is not None:
                continue
            if one.due is None or one.due > now:
                break
            one.sent = True
            found.append(one.made)
        return found

    @property
    def next_due(self) -> int | None:
        """When to ask `due` again, in ms; None: not before something else happens."""
        for one in self._unpublished.values():
            if not one.sent and one.offset is None:
                return one.due
        return None

    def acknowledged(self, height: int, offset: int) -> None:
        """The broker has the own record of this block, at `offset`."""
        one = self._unpublished.get(height)
        if one is not None and one.offset is None:
            one.offset = offset
        self._advance()

    def offer(self, offset: int, value: bytes | None) -> Found | None:
        """The topic's next record. A block above the chain's tip, whose proof is not checked yet.
        `Halt`: a committed block that the own chain contradicts.
        """
        try:
            data = unframe(value)
            header, header_bytes = decode_block_header_prefix(data)
            height = header.height
            if header.ledger_id != self._ledger_id:
                raise Malformed("block: of another ledger")
            own = self._digests.get(height)
            if own is None:
                if self._published is not None and height <= self._published.height:
                    raise Malformed("block: the topic has it already")
                return self._take_early(offset, data, height)
            if own != hash_block(header_bytes):
                found = committed_block(value, self._ledger_id, self._sets)
                raise _contradicts(found, own)
            self._see(offset, data, height)
            self._advance()
        except Malformed:
            self.ignored += 1
        return None

    def _take_early(self, offset: int, data: bytes, height: int) -> Found:
        block = decode_block(data)
        if not isinstance(block.proof, CommitProof):
            raise Malformed("block: its proof stands elsewhere")
        passed = self._passed.setdefault(height, {})
        if len(passed) < EARLY_COPIES_MAX:
            passed.setdefault(block.digest, offset)
        if len(self._passed) > PASSED_MAX:
            # What is committed next is the lowest; anyone may have written the highest.
            del self._passed[max(self._passed)]
        copies = self._early.setdefault(height, [])
        if len(copies) < EARLY_COPIES_MAX:
            copies.append((offset, data))
            self._early_bytes += len(data)
        while len(self._early) > EARLY_MAX or self._early_bytes > EARLY_BYTES_MAX:
            # Not seen, then: it may be published a second time.
            dropped = self._early.pop(max(self._early))
            self._early_bytes -= sum(len(one) for _, one in dropped)
        proposal = Proposal(block.header, block.header_bytes, block.digest, block.leader_signatures)
        return Found(Committed(proposal, block.proof), block)

    def _see(self, offset: int, data: bytes, height: int) -> None:
        """A record with the header of an own block: whether consumers take it for the block."""
        one = self._unpublished.get(height)
        if one is None or one.offset is not None:
            return
        made = one.made
        start, end = len(made.before), len(data) - len(made.after)
        if start > end or not data.startswith(made.before) or not data.endswith(made.after):
            raise Malformed("block: another body than its header's")
        proof = decode_proof(data[start:end])
        if not isinstance(proof, CommitProof):
            raise Malformed("block: its proof stands elsewhere")
        self._sets.check_proof(proof, made.block.header, made.block.digest, self._ledger_id)
        one.offset = offset

    def _advance(self) -> None:
        while self._unpublished:
            height, one = next(iter(self._unpublished.items()))
            if one.offset is None:
                return
            del self._unpublished[height]
            self._unpublished_bytes -= _size_of(one.made)
            self._published = Published(height, one.offset)
            self._newest = one.made


def _size_of(made: Made) -> int:
    return len(made.before) + len(made.after)


def _contradicts(other: Block, own: Hash) -> Contradicted:
    assert isinstance(other.proof, CommitProof)
    return Contradicted(
        f"the blocks topic has another committed block at height {other.header.height} than the "
        f"own journal: {other.digest.hex()}, {own.hex()}",
        Certified(other.header_bytes, other.proof),
    )
