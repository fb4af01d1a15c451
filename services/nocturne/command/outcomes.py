"""What became of pending commands: delivery reports, blocks, seals and receipts put together. Pure.

Rules: docs/spec/services.md, outcomes. A command is answered by the disposition of its own
position in the log, not by its hash: a stranger may have published the same command with broken
payloads before. The parts may come in any order; each is kept, bounded, for the others.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, Generic, TypeVar

from nocturne.command.changes import Changes
from nocturne.core import exports, merkle
from nocturne.core.block_intake import CheckedBlock
from nocturne.core.blocks import Range, Seal, seal_signed
from nocturne.core.conflicts import conflicting_seals
from nocturne.core.errors import Malformed
from nocturne.core.events import Position
from nocturne.core.identifiers import Hash, LedgerId
from nocturne.core.keys import Key
from nocturne.core.log_epochs import openings_of
from nocturne.core.modes import Degraded, DegradedFound
from nocturne.core.receipts import (
    Reason,
    Receipt,
    ReceiptHeader,
    decode_receipt_header,
    encode_receipt,
    receipt_signed,
)

PENDING_MAX: Final = 65_536
"""Commands without an answer: twenty seconds of the promised rate."""
RECENT_RECORDS_MAX: Final = 65_536
"""Records whose outcomes are remembered for repeated commands and late delivery reports."""
RECENT_BYTES_MAX: Final = 32 * 1024 * 1024
"""Bytes of headers in those."""
SEALS_MAX: Final = 16_384
"""Heights whose seals are remembered."""
RECEIPTS_MAX: Final = 8_192
"""Signed receipts that are remembered, about 1 kB each."""
FRESH_BLOCKS_MAX: Final = 4
"""Whole blocks kept for the proof of a command whose delivery report comes late."""
TICK_SECONDS: Final = 0.05
"""Deadlines are kept to this."""


class Level(IntEnum):
    """Finality levels in their order, as in command.proto; UNKNOWN before the log has it."""

    UNKNOWN = 0
    ACCEPTED = 1
    CERTIFIED = 2
    SIGNED = 3
    LOGGED = 4
    WITNESSED = 5
    ANCHORED = 6


REACHABLE: Final = (Level.ACCEPTED, Level.CERTIFIED, Level.SIGNED)
"""The others are "not configured" here."""


@dataclass(frozen=True, slots=True)
class BlockFacts:
    """Of a checked block, what an outcome tells."""

    height: int
    digest: Hash
    timestamp: int


@dataclass(frozen=True, slots=True)
class Decision:
    """The disposition of one record: event headers, or a receipt header."""

    position: Position
    command_hash: Hash | None
    block: BlockFacts
    events: tuple[bytes, ...]
    receipt: bytes | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a command, as far as is known.

    `position` is the command's own; `decision` the first one's when the command is `repeated` and
    the first is still known. `receipt` is signed, in Avro. `proof` is a disposition proof.
    """

    level: Level
    command_hash: Hash
    position: Position | None
    decision: Decision | None
    receipt: bytes | None
    repeated: bool
    proof: bytes


class Pending:
    """A command that waits for its outcome. `tag` is the caller's own."""

    __slots__ = (
        "command_hash",
        "decision",
        "done",
        "place",
        "position",
        "proof",
        "receipt",
        "repeated",
        "signed",
        "tag",
        "tick",
        "wait",
        "with_proof",
    )

    def __init__(
        self, command_hash: Hash, wait: Level, tag: Any, tick: int, with_proof: bool
    ) -> None:
        self.command_hash = command_hash
        self.wait = wait
        self.tag = tag
        self.tick = tick
        self.with_proof = with_proof
        self.position: Position | None = None
        self.decision: Decision | None = None
        self.receipt: bytes | None = None
        self.proof = b""
        self.repeated = False
        self.signed = False
        self.done = False
        self.place: tuple[_Shelf[Any], Any] | None = None

    def outcome(self) -> Outcome:
        """As far as is known now."""
        if self.decision is None:
            level = Level.UNKNOWN if self.position is None else Level.ACCEPTED
        else:
            level = Level.SIGNED if self.signed else Level.CERTIFIED
        return Outcome(
            level,
            self.command_hash,
            self.position,
            self.decision,
            self.receipt,
            self.repeated,
            self.proof,
        )


class OutcomeTable:
    """Pending commands, and what is remembered to answer them.

    `register` before the command is published; then `placed` with its delivery report. Methods
    return the pending commands that are answered by what they were given: ask `outcome()`.
    """

    def __init__(self, ledger_id: LedgerId, authority: Key) -> None:
        self._ledger_id = ledger_id
        self._authority = authority
        self.changes = Changes()
        """Of the validators, for the proofs."""
        self._epochs: dict[int, int] = {}
        self._pending = 0
        self._ticks: dict[int, dict[Pending, None]] = {}
        self._tick_done = 0
        # A placed command waits on one shelf at a time: for its block, then for its signature.
        self._by_offset: _Shelf[tuple[int, int]] = _Shelf()
        self._by_hash: _Shelf[Hash] = _Shelf()
        self._by_height: _Shelf[int] = _Shelf()
        self._by_receipt: _Shelf[Position] = _Shelf()
        self._recent = _Recent()
        self._fresh: deque[CheckedBlock] = deque(maxlen=FRESH_BLOCKS_MAX)
        self._sealed: OrderedDict[int, Seal] = OrderedDict()
        self._receipts: OrderedDict[Position, list[Receipt]] = OrderedDict()
        self._receipts_forgotten_to = 0

    def __len__(self) -> int:
        """Commands without an answer."""
        return self._pending

    # Commands ----------------------------------------------------------------------------------

    def register(
        self, command_hash: Hash, wait: Level, deadline: float, tag: Any, with_proof: bool = False
    ) -> Pending | None:
        """A place in the table until `deadline` (seconds, as `expire`); None when it is full."""
        if self._pending >= PENDING_MAX:
            return None
        tick = max(int(deadline / TICK_SECONDS), self._tick_done) + 1
        pending = Pending(command_hash, wait, tag, tick, with_proof)
        self._ticks.setdefault(tick, {})[pending] = None
        self._pending += 1
        return pending

    def placed(self, pending: Pending, partition: int, offset: int) -> bool:
        """The log has the command at this offset (-1: it has it, and did not say where). True when
        that answers it.
        """
        if pending.done:
            return False
        epoch = self._epochs.get(partition, 1)
        if offset >= 0:
            pending.position = Position(epoch, partition, offset)
        if pending.wait <= Level.ACCEPTED:
            return self._finish(pending)
        if offset < 0:
            found = self._recent.find_hash(pending.command_hash)
            if found is None:
                self._by_hash.put(pending.command_hash, pending)
        else:
            found = self._recent.find(epoch, partition, offset)
            if found is None:
                self._by_offset.put((partition, offset), pending)
        return found is not None and self._decide(pending, found)

    def decided(self, partition: int, offset: int) -> Decision | None:
        """What became of a position of the partition's newest log epoch, while it is remembered."""
        return self._recent.find(self._epochs.get(partition, 1), partition, offset)

    def knows(self, command_hash: Hash) -> bool:
        """Whether the outcome of this very command is remembered; looks at all of them."""
        return self._recent.find_hash(command_hash) is not None

    def find(self, wanted: Callable[[Any], bool]) -> list[Pending]:
        """The pending commands whose tag is `wanted`; looks at all of them."""
        return [one for tick in self._ticks.values() for one in tick if wanted(one.tag)]

    def forget(self, pending: Pending) -> None:
        """Nobody waits for it any more."""
        if not pending.done:
            self._finish(pending)

    def expire(self, now: float) -> list[Pending]:
        """Those whose deadline has come."""
        current = int(now / TICK_SECONDS)
        if current - self._tick_done > len(self._ticks):
            due = sorted(tick for tick in self._ticks if tick <= current)
        else:
            due = [tick for tick in range(self._tick_done, current + 1) if tick in self._ticks]
        self._tick_done = max(current, self._tick_done)
        expired = [pending for tick in due for pending in self._ticks[tick]]
        for pending in expired:
            self._finish(pending)
        return expired

    # What the topics bring ---------------------------------------------------------------------

    def block(self, checked: CheckedBlock) -> list[Pending]:
        """Those answered by a committed block."""
        facts = BlockFacts(
            checked.block.header.height, checked.block.digest, checked.block.header.time
        )
        self._fresh.append(checked)
        self._recent.add(facts, checked)
        answered: list[Pending] = []
        index = 0
        for one in checked.block.header.ranges:
            self._epochs[one.partition] = one.log_epoch
            for offset in range(one.start, one.end):
                for pending in self._by_offset.take((one.partition, offset)):
                    if self._decide(pending, _decision(facts, checked, index)):
                        answered.append(pending)
                index += 1
        for opening in openings_of(checked.block.control):
            self._reopen(opening.partition, opening.log_epoch)
        if self._by_hash:
            for index, disposition in enumerate(checked.dispositions):
                for pending in self._by_hash.take(disposition.command_hash):
                    if self._decide(pending, _decision(facts, checked, index)):
                        answered.append(pending)
        return answered

    def _reopen(self, partition: int, log_epoch: int) -> None:
        """The operators let the partition go on in another log epoch: whatever waits for an offset
        of it waits for its command now, which may be appended again anywhere.
        """
        self._epochs[partition] = log_epoch
        for place in [one for one in self._by_offset if one[0] == partition]:
            for pending in self._by_offset.take(place):
                self._by_hash.put(pending.command_hash, pending)

    def seal(self, seal: Seal) -> list[Pending]:
        """Those answered by the authority's seal of a block; `Malformed` when it is not its,
        `DegradedFound` when it has sealed another block of that height.
        """
        if seal.ledger_id != self._ledger_id:
            raise Malformed("seal: of another ledger")
        known = self._sealed.get(seal.height)
        if known is not None and known.block_digest == seal.block_digest:
            return []
        if not seal_signed(self._authority, seal):
            raise Malformed(f"seal {seal.height}: not signed by the authority")
        if known is not None:
            raise DegradedFound(Degraded.by(conflicting_seals(self._ledger_id, known, seal)))
        self._sealed[seal.height] = seal
        if len(self._sealed) > SEALS_MAX:
            self._sealed.popitem(last=False)
        return [
            pending
            for pending in self._by_height.take(seal.height)
            if self._wait_for_signature(pending)
        ]

    def receipt(self, receipt: Receipt) -> list[Pending]:
        """Those answered by a signed receipt. It is believed only for a certified refusal, and
        checked then; until that is seen it is kept.
        """
        position = receipt.header.position
        kept = self._receipts.setdefault(position, [])
        # One is kept unchecked; after it, so that nobody fills the table, only the authority's.
        if not kept or (receipt not in kept and self._is_signed(receipt)):
            kept.append(receipt)
        if len(self._receipts) > RECEIPTS_MAX:
            _, oldest = self._receipts.popitem(last=False)
            self._receipts_forgotten_to = max(
                self._receipts_forgotten_to, *(one.height for one in oldest)
            )
        return [
            pending
            for pending in self._by_receipt.take(position)
            if self._wait_for_signature(pending)
        ]

    # Deciding ----------------------------------------------------------------------------------

    def _decide(self, pending: Pending, decision: Decision) -> bool:
        """Give `pending` its decision, or the first one's; True when that answers it."""
        header = None if decision.receipt is None else decode_receipt_header(decision.receipt)
        if not _is_of(decision, header, pending.command_hash):
            # The log was cut off and written anew: the command may have been appended again.
            self._by_hash.put(pending.command_hash, pending)
            return False
        pending.position = decision.position
        pending.decision = decision
        if header is not None and header.reason is Reason.REPEATED:
            pending.repeated = True
            pending.decision = self._first_of(header) or decision
        if pending.with_proof:
            pending.proof = self._proof_of(pending.decision)
        if pending.wait <= Level.CERTIFIED:
            return self._finish(pending)
        return self._wait_for_signature(pending)

    def _first_of(self, header: ReceiptHeader) -> Decision | None:
        """The first decision on a repeated command, while it and its signature can be had."""
        first = header.first_position
        if first is None:
            return None
        found = self._recent.find(first.log_epoch, first.partition, first.offset)
        if found is None or found.receipt is None or found.position in self._receipts:
            return found
        return found if found.block.height > self._receipts_forgotten_to else None

    def _wait_for_signature(self, pending: Pending) -> bool:
        """True when the authority's signature is at hand; else `pending` is put where it comes."""
        decision = pending.decision
        assert decision is not None
        if decision.receipt is None:
            sealed = self._sealed.get(decision.block.height)
            if sealed is None or sealed.block_digest != decision.block.digest:
                self._by_height.put(decision.block.height, pending)
                return False
        else:
            pending.receipt = self._signed_receipt(decision)
            if pending.receipt is None:
                self._by_receipt.put(decision.position, pending)
                return False
        pending.signed = True
        return self._finish(pending)

    def _signed_receipt(self, decision: Decision) -> bytes | None:
        facts = decision.block
        for one in self._receipts.get(decision.position, ()):
            if (
                one.header_bytes == decision.receipt
                and (one.height, one.timestamp) == (facts.height, facts.timestamp)
                and self._is_signed(one)
            ):
                return encode_receipt(one.header_bytes, one.signatures, one.height, one.timestamp)
        return None

    def _is_signed(self, one: Receipt) -> bool:
        return receipt_signed(
            self._authority, one.receipt_hash, one.timestamp, one.height, one.signatures
        )

    def _proof_of(self, decision: Decision) -> bytes:
        """The disposition proof while the block is at hand; else none, and query has it."""
        for checked in self._fresh:
            if checked.block.digest == decision.block.digest:
                validators = self.changes.before(checked.block.header.height)
                return _proof(checked, decision, self._authority, validators)
        return b""

    def _finish(self, pending: Pending) -> bool:
        pending.done = True
        self._pending -= 1
        if pending.place is not None:
            shelf, key = pending.place
            shelf.remove(key, pending)
        tick = self._ticks[pending.tick]
        del tick[pending]
        if not tick:
            del self._ticks[pending.tick]
        return True


Awaited = TypeVar("Awaited", bound=Hashable)


class _Shelf(Generic[Awaited]):
    """Pending commands by what they wait for; no key without one stays behind."""

    __slots__ = ("_items",)

    def __init__(self) -> None:
        self._items: dict[Any, dict[Pending, None]] = {}

    def __bool__(self) -> bool:
        return bool(self._items)

    def __iter__(self) -> Iterator[Awaited]:
        return iter(self._items)

    def put(self, key: Awaited, pending: Pending) -> None:
        self._items.setdefault(key, {})[pending] = None
        pending.place = (self, key)

    def take(self, key: Awaited | None) -> Iterable[Pending]:
        taken = self._items.pop(key, None)
        if taken is None:
            return ()
        for pending in taken:
            pending.place = None
        return taken

    def remove(self, key: Awaited, pending: Pending) -> None:
        items = self._items[key]
        del items[pending]
        if not items:
            del self._items[key]
        pending.place = None


class _RecentBlock:
    """A block's outcomes without its payloads."""

    __slots__ = ("facts", "outcomes", "ranges", "size")

    def __init__(self, facts: BlockFacts, checked: CheckedBlock) -> None:
        self.facts = facts
        self.ranges = checked.block.header.ranges
        self.outcomes = [
            (record.events, record.receipt, disposition.command_hash)
            for record, disposition in zip(checked.block.records, checked.dispositions, strict=True)
        ]
        self.size = sum(
            [sum(map(len, events)) + len(receipt or b"") for events, receipt, _ in self.outcomes]
        )

    def decision(self, position: Position, index: int) -> Decision:
        events, receipt, command_hash = self.outcomes[index]
        return Decision(position, command_hash, self.facts, events, receipt)


class _Recent:
    """The outcomes of the last blocks, by position."""

    def __init__(self) -> None:
        self._blocks: deque[_RecentBlock] = deque()
        # Of each partition's log epoch: where ranges start, ascending; their block; and the index
        # of the range's first record in it.
        self._starts: dict[tuple[int, int], list[int]] = {}
        self._places: dict[tuple[int, int], list[tuple[_RecentBlock, int, int]]] = {}
        self._records = 0
        self._bytes = 0

    def add(self, facts: BlockFacts, checked: CheckedBlock) -> None:
        block = _RecentBlock(facts, checked)
        self._blocks.append(block)
        self._records += len(block.outcomes)
        self._bytes += block.size
        first = 0
        for one in block.ranges:
            key = (one.log_epoch, one.partition)
            self._starts.setdefault(key, []).append(one.start)
            self._places.setdefault(key, []).append((block, first, one.end))
            first += one.end - one.start
        while len(self._blocks) > 1 and (
            self._records > RECENT_RECORDS_MAX
            or self._bytes > RECENT_BYTES_MAX
            or len(self._blocks) > SEALS_MAX
        ):
            self._drop_oldest()

    def find(self, log_epoch: int, partition: int, offset: int) -> Decision | None:
        starts = self._starts.get((log_epoch, partition), [])
        at = bisect_right(starts, offset) - 1
        if at < 0:
            return None
        block, first, end = self._places[log_epoch, partition][at]
        if offset >= end:
            return None
        position = Position(log_epoch, partition, offset)
        return block.decision(position, first + offset - starts[at])

    def find_hash(self, command_hash: Hash) -> Decision | None:
        """Rare, so it looks at all of them, the newest block first."""
        for block in reversed(self._blocks):
            for index, (_, _, known) in enumerate(block.outcomes):
                if known == command_hash:
                    return block.decision(_position(block.ranges, index), index)
        return None

    def _drop_oldest(self) -> None:
        block = self._blocks.popleft()
        self._records -= len(block.outcomes)
        self._bytes -= block.size
        for one in block.ranges:
            key = (one.log_epoch, one.partition)
            del self._starts[key][0], self._places[key][0]


def _is_of(decision: Decision, header: ReceiptHeader | None, command_hash: Hash) -> bool:
    """Whether the disposition is the command's. A record too large is not looked into: its receipt
    has the record's hash, not the command's.
    """
    if not decision.events and header is None:
        return False
    too_large = header is not None and header.reason is Reason.TOO_LARGE
    return too_large or decision.command_hash == command_hash


def _decision(facts: BlockFacts, checked: CheckedBlock, index: int) -> Decision:
    record = checked.block.records[index]
    disposition = checked.dispositions[index]
    return Decision(
        disposition.position, disposition.command_hash, facts, record.events, record.receipt
    )


def _position(ranges: tuple[Range, ...], index: int) -> Position:
    for one in ranges:
        size = one.end - one.start
        if index < size:
            return Position(one.log_epoch, one.partition, one.start + index)
        index -= size
    raise AssertionError("a record outside of its block's ranges")


def _proof(checked: CheckedBlock, decision: Decision, authority: Key, validators: bytes) -> bytes:
    """The block's line and the disposition's, as yet without the authority's signatures, after the
    lines of the `validators`' changes.
    """
    block = checked.block
    index = next(
        index
        for index, disposition in enumerate(checked.dispositions)
        if disposition.position == decision.position
    )
    placement = exports.Placement(
        block.header.height,
        block.header.time,
        decision.position,
        index,
        merkle.inclusion_path(checked.leaves, index),
    )
    return exports.disposition_proof(
        exports.block_line(block.header_bytes, checked.proof),
        exports.disposition_line(placement, block.records[index], authority, ()),
        validators,
    )
