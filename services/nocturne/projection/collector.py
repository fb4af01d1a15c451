"""Bring certified blocks and the authority's signatures together, whoever else writes the topics.

Rules: docs/spec/services.md, projection. Pure. Content comes from blocks alone; a record of the
events or receipts topic gives one signature for one certified event or receipt, and a block's seal
says with a single signature whether all of them are the authority's. Only where something does not
fit is a record judged by itself: what the authority did not sign is a stranger's and is dropped.

A record whose block was not read yet is held. Its turn comes with the block; nothing waits for a
record whose block never comes, because `judge` tells by the authority's own signature.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from nocturne.core import modes, topics
from nocturne.core.blocks import Seal, decode_seal, hash_signatures, seal_signed
from nocturne.core.commands import author_signed_hash, payload_hash
from nocturne.core.conflicts import conflicting_seals
from nocturne.core.errors import Malformed
from nocturne.core.events import decode_event, decode_event_signatures, event_signed
from nocturne.core.identifiers import LedgerId, format_id
from nocturne.core.keys import Key, Signatures
from nocturne.core.modes import Degraded, DegradedFound
from nocturne.core.receipts import decode_receipt, decode_receipt_signatures, receipt_signed
from nocturne.projection.fold import FoldedBlock

PENDING_BYTES_MAX: Final = 32 * 1024 * 1024
"""Of records of blocks that still wait for signatures; the next block is then not read."""
HELD_BYTES_MAX: Final = 32 * 1024 * 1024
"""Of records whose block was not read yet, for each topic: some seconds ahead of the blocks."""
HELD_BYTES_LIMIT: Final = 2 * HELD_BYTES_MAX
"""Beyond it records are let go, and read again later."""
SEALS_HELD_MAX: Final = 4096
REFUSALS_MAX: Final = 10_000
"""Refused records whose count is not written yet."""
RECENT_MAX: Final = 32 * 1024
"""Applied records that are known again at once when they are published a second time."""
RECORD_OVERHEAD_BYTES: Final = 256


class Cause(StrEnum):
    """Why a record was refused; the first word is its topic."""

    BLOCK_INVALID = "blocks.invalid"
    SEAL_INVALID = "seals.invalid"
    EVENT_INVALID = "events.invalid"
    EVENT_UNKNOWN = "events.unknown"
    EVENT_SIGNATURE = "events.signature"
    RECEIPT_INVALID = "receipts.invalid"
    RECEIPT_UNKNOWN = "receipts.unknown"
    RECEIPT_SIGNATURE = "receipts.signature"


_INVALID: Final = {
    topics.BLOCKS: Cause.BLOCK_INVALID,
    topics.SEALS: Cause.SEAL_INVALID,
    topics.EVENTS: Cause.EVENT_INVALID,
    topics.RECEIPTS: Cause.RECEIPT_INVALID,
}
_UNKNOWN: Final = {topics.EVENTS: Cause.EVENT_UNKNOWN, topics.RECEIPTS: Cause.RECEIPT_UNKNOWN}
_SIGNATURE: Final = {topics.EVENTS: Cause.EVENT_SIGNATURE, topics.RECEIPTS: Cause.RECEIPT_SIGNATURE}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A record of a stranger, by where it stands."""

    topic: str
    partition: int
    offset: int
    cause: Cause


class SignatureRecord(NamedTuple):
    """A record of the events or receipts topic: its place, CloudEvents id, height, value. A tuple,
    for one is made for every event.
    """

    topic: str
    partition: int
    offset: int
    record_id: bytes
    height: int
    value: bytes

    @property
    def size(self) -> int:
        """Bytes that holding it takes."""
        return len(self.value) + RECORD_OVERHEAD_BYTES


@dataclass(frozen=True, slots=True)
class SignedBlock:
    """A block with the authority's signature of each event and receipt, in block order."""

    folded: FoldedBlock
    signatures: Sequence[Signatures]
    seal: Seal


@dataclass(slots=True)
class _Pending:
    """A block and the records found for it. A slot is one event or receipt, in block order."""

    folded: FoldedBlock
    headers: list[bytes]
    event_slots: dict[bytes, int]
    receipt_slots: dict[bytes, int]
    records: list[SignatureRecord | None]
    signatures: list[Signatures]
    missing: int
    size: int
    judged: bool = False
    first_offsets: dict[tuple[str, int], int] = field(default_factory=dict)

    @staticmethod
    def of(folded: FoldedBlock) -> _Pending:
        """The empty slots of a block."""
        slots: list[tuple[int, int, bytes]] = []
        event_slots: dict[bytes, int] = {}
        receipt_slots: dict[bytes, int] = {}
        for event in folded.events:
            slots.append((event.leaf_index, event.event_index, event.header))
        for receipt in folded.receipts:
            slots.append((receipt.leaf_index, 0, receipt.header_bytes))
        slots.sort(key=lambda slot: slot[:2])
        index = {slot[:2]: number for number, slot in enumerate(slots)}
        for event in folded.events:
            name = format_id(event.event_id).encode("ascii")
            event_slots[name] = index[event.leaf_index, event.event_index]
        for receipt in folded.receipts:
            at = receipt.header.position
            name = f"{at.log_epoch}-{at.partition}-{at.offset}".encode("ascii")
            receipt_slots[name] = index[receipt.leaf_index, 0]
        size = sum(
            len(record.value or b"") + RECORD_OVERHEAD_BYTES for record in folded.block.records
        )
        return _Pending(
            folded,
            [slot[2] for slot in slots],
            event_slots,
            receipt_slots,
            [None] * len(slots),
            [()] * len(slots),
            len(slots),
            size,
        )


@dataclass(slots=True)
class _Held:
    """A record whose block was not read yet. `tick` is when it came; None once it is judged."""

    record: SignatureRecord
    tick: int | None


@dataclass(slots=True)
class _Bucket:
    """The held records of one height, and where the first one of each partition stands."""

    records: list[_Held] = field(default_factory=list)
    first_offsets: dict[tuple[str, int], int] = field(default_factory=dict)


class Collector:
    """Takes folded blocks, seals and signature records in any order; gives signed blocks in height
    order. `applied` is the height that the read model has already.
    """

    def __init__(self, ledger_id: LedgerId, authority: Key, applied: int) -> None:
        self._ledger_id = ledger_id
        self._authority = authority
        self._taken = applied
        self._read = applied
        self._pending: OrderedDict[int, _Pending] = OrderedDict()
        self._seals: dict[int, list[Seal]] = {}
        self._seal_offsets: dict[int, int] = {}
        self._held: dict[int, _Bucket] = {}
        self._held_bytes = {topics.EVENTS: 0, topics.RECEIPTS: 0}
        self._shed: dict[tuple[str, int], int] = {}
        self._recent: set[int] = set()
        self._recent_order: deque[int] = deque()
        self._refusals: list[Refusal] = []
        self._tick = 0
        self.pending_bytes = 0

    # What the shell asks ----------------------------------------------------------------------

    @property
    def taken(self) -> int:
        """The height of the last block given out."""
        return self._taken

    @property
    def waiting(self) -> int:
        """Blocks that were read and wait for signatures or seals."""
        return len(self._pending)

    @property
    def held(self) -> int:
        """Records whose block was not read yet."""
        return sum(len(bucket.records) for bucket in self._held.values())

    def wants_blocks(self) -> bool:
        """There is room for one more block."""
        return self.pending_bytes < PENDING_BYTES_MAX and self._has_room_for_refusals()

    def wants_seals(self) -> bool:
        """There is room for more seals; they come in height order, so none needed is kept out."""
        return len(self._seals) < SEALS_HELD_MAX and self._has_room_for_refusals()

    def wants(self, topic: str) -> bool:
        """There is room for more records of `topic`, or none may be kept out: while no block is
        read, the signatures that its place waits for may be any of them.
        """
        if not self._has_room_for_refusals():
            return False
        return self._held_bytes[topic] < HELD_BYTES_MAX or not self.wants_blocks()

    def _has_room_for_refusals(self) -> bool:
        return len(self._refusals) < REFUSALS_MAX

    def shed(self, topic: str) -> bool:
        """Records of `topic` were let go that must be read again, which now makes sense."""
        return self.wants_blocks() and any(place[0] == topic for place in self._shed)

    def low_water(self, topic: str, partition: int, following: int) -> int:
        """The first offset that a restart must read, for the blocks not yet given out, where
        `following` is the one after the last record offered.
        """
        place = (topic, partition)
        lowest = self._shed.get(place, following)
        for pending in self._pending.values():
            lowest = min(lowest, pending.first_offsets.get(place, lowest))
        for bucket in self._held.values():
            lowest = min(lowest, bucket.first_offsets.get(place, lowest))
        return lowest

    def seals_low_water(self, following: int) -> int:
        """As `low_water`, for the seals topic."""
        return min(self._seal_offsets.values(), default=following)

    def reread(self, topic: str) -> None:
        """The shell reads `topic` again from `low_water`, what is held of it included."""
        for place in [place for place in self._shed if place[0] == topic]:
            del self._shed[place]
        self._keep_held(lambda held: held.record.topic != topic)
        self._held_bytes[topic] = 0

    def take_refusals(self) -> list[Refusal]:
        """What was refused since the last call."""
        refusals, self._refusals = self._refusals, []
        return refusals

    # What the shell brings --------------------------------------------------------------------

    def offer_block(self, folded: FoldedBlock) -> None:
        """The next block, in height order."""
        height = folded.block.header.height
        assert height == self._read + 1
        self._read = height
        pending = _Pending.of(folded)
        self._pending[height] = pending
        self.pending_bytes += pending.size
        for seal in self._seals.get(height, ()):
            self._check_seal(seal, pending)
        bucket = self._held.pop(height, None)
        for held in () if bucket is None else bucket.records:
            self._held_bytes[held.record.topic] -= held.record.size
            self._match(pending, held.record)

    def offer_seal(self, partition: int, offset: int, value: bytes | None) -> None:
        """A record of the seals topic. `DegradedFound`: the authority sealed two blocks of one
        height, or another one than the certified.
        """
        try:
            seal = decode_seal(topics.unframe(value))
        except Malformed:
            seal = None
        if (
            seal is None
            or seal.ledger_id != self._ledger_id
            or not seal_signed(self._authority, seal)
        ):
            self.refuse(topics.SEALS, partition, offset)
            return
        if seal.height <= self._taken:
            return
        pending = self._pending.get(seal.height)
        if pending is not None:
            self._check_seal(seal, pending)
        self._seal_offsets.setdefault(seal.height, offset)
        known = self._seals.setdefault(seal.height, [])
        if known and known[0].block_digest != seal.block_digest:
            raise DegradedFound(Degraded.by(conflicting_seals(self._ledger_id, known[0], seal)))
        if seal not in known:
            known.append(seal)

    def offer(self, record: SignatureRecord) -> None:
        """A record of the events or receipts topic."""
        height = record.height
        if height > self._read:
            self._hold(record)
        elif height > self._taken:
            self._match(self._pending[height], record)
        elif hash((height, record.record_id, record.value)) not in self._recent:
            # Applied long ago, or never the authority's.
            self._refuse_unless_signed(record)

    def refuse(self, topic: str, partition: int, offset: int) -> None:
        """A record that does not even say what it is."""
        self._refusals.append(Refusal(topic, partition, offset, _INVALID[topic]))

    def judge(self, limit: int) -> int:
        """Verify records that were held for a whole tick, at most `limit`; drop what the authority
        did not sign. Returns how many were verified.
        """
        self._tick += 1
        judged = 0

        def stays(held: _Held) -> bool:
            nonlocal judged
            if held.tick is None or held.tick >= self._tick - 1 or judged == limit:
                return True
            judged += 1
            held.tick = None
            if not self._refuse_unless_signed(held.record):
                return True
            self._held_bytes[held.record.topic] -= held.record.size
            return False

        self._keep_held(stays)
        return judged

    # Blocks that are whole --------------------------------------------------------------------

    def take(self, records_max: int, through: int | None = None) -> list[SignedBlock]:
        """The signed blocks that come next, of at least one and about `records_max` records; with
        `through`, none above that height.
        """
        taken: list[SignedBlock] = []
        size = 0
        while self._pending and (not taken or size < records_max):
            height, pending = next(iter(self._pending.items()))
            if through is not None and height > through:
                break
            seal = self._seal_of(height, pending)
            if seal is None:
                break
            size += pending.folded.block.header.record_count
            taken.append(SignedBlock(pending.folded, pending.signatures, seal))
            self._forget(height, pending)
        return taken

    def _seal_of(self, height: int, pending: _Pending) -> Seal | None:
        """The seal of all signatures found, None as long as one is missing or false."""
        seals = self._seals.get(height)
        if pending.missing or not seals:
            return None
        signatures_hash = hash_signatures(pending.signatures)
        for seal in seals:
            if seal.signatures_hash == signatures_hash:
                return seal
        if not pending.judged:
            self._judge_slots(pending)
        return None

    def _judge_slots(self, pending: _Pending) -> None:
        """The seal is of other signatures: some record is a stranger's; or the authority has signed
        twice, and the newer records are still to come.
        """
        pending.judged = True
        for slot, record in enumerate(pending.records):
            if record is not None and self._refuse_unless_signed(record):
                self._empty(pending, slot)

    def _forget(self, height: int, pending: _Pending) -> None:
        del self._pending[height]
        self.pending_bytes -= pending.size
        self._seals.pop(height, None)
        self._seal_offsets.pop(height, None)
        self._taken = height
        for record in pending.records:
            if record is not None:
                self._remember(hash((height, record.record_id, record.value)))

    def _remember(self, record_hash: int) -> None:
        self._recent.add(record_hash)
        self._recent_order.append(record_hash)
        if len(self._recent_order) > RECENT_MAX:
            self._recent.discard(self._recent_order.popleft())

    # Records ----------------------------------------------------------------------------------

    def _check_seal(self, seal: Seal, pending: _Pending) -> None:
        if seal.block_digest != pending.folded.block.digest:
            text = (
                f"the authority sealed {seal.block_digest.hex()} at height {seal.height}, where "
                f"{pending.folded.block.digest.hex()} is certified"
            )
            raise DegradedFound(Degraded(modes.Cause.SIGNING_CONFLICT, text))

    def _match(self, pending: _Pending, record: SignatureRecord) -> None:
        topic = record.topic
        slots = pending.event_slots if topic == topics.EVENTS else pending.receipt_slots
        slot = slots.get(record.record_id)
        if slot is None:
            self._refuse(record, _UNKNOWN[topic])
            return
        found = pending.records[slot]
        if found is None:
            self._fill(pending, slot, record)
        elif found.value != record.value:
            self._replace(pending, slot, found, record)
        elif self._refuse_unless_signed(record):
            # The same bytes twice, and a stranger's: so was the first.
            self._refuse_unless_signed(found)
            self._empty(pending, slot)

    def _fill(self, pending: _Pending, slot: int, record: SignatureRecord) -> None:
        try:
            pending.signatures[slot] = decode_signatures(record, pending.headers[slot])
        except Malformed:
            self._refuse(record, _INVALID[record.topic])
            return
        pending.records[slot] = record
        pending.missing -= 1
        pending.judged = False
        pending.size += len(record.value)
        self.pending_bytes += len(record.value)
        pending.first_offsets.setdefault((record.topic, record.partition), record.offset)

    def _replace(
        self, pending: _Pending, slot: int, found: SignatureRecord, record: SignatureRecord
    ) -> None:
        """Two different records for one slot: of two that the authority signed, the newer counts,
        because a block that is signed again is signed in full and sealed anew.
        """
        if self._refuse_unless_signed(record):
            return
        self._refuse_unless_signed(found)
        self._empty(pending, slot)
        self._fill(pending, slot, record)

    def _empty(self, pending: _Pending, slot: int) -> None:
        """The slot waits for another record."""
        pending.records[slot] = None
        pending.missing += 1

    def _hold(self, record: SignatureRecord) -> None:
        bucket = self._held.get(record.height)
        if bucket is None:
            bucket = self._held[record.height] = _Bucket()
        bucket.records.append(_Held(record, self._tick))
        bucket.first_offsets.setdefault((record.topic, record.partition), record.offset)
        self._held_bytes[record.topic] += record.size
        if self._held_bytes[record.topic] > HELD_BYTES_LIMIT:
            self._let_go(record.topic)

    def _let_go(self, topic: str) -> None:
        """Drop what is not the authority's; then the records of the highest heights, until half is
        left, remembering where to read them again.
        """

        def stays(held: _Held) -> bool:
            record = held.record
            if record.topic != topic or self._held_bytes[topic] <= HELD_BYTES_MAX:
                return True
            self._held_bytes[topic] -= record.size
            if not self._refuse_unless_signed(record):
                place = (topic, record.partition)
                self._shed[place] = min(record.offset, self._shed.get(place, record.offset))
            return False

        self._keep_held(stays)

    def _keep_held(self, stays: Callable[[_Held], bool]) -> None:
        """Keep only the held records that `stays` says, asked for the highest heights first."""
        for height in sorted(self._held, reverse=True):
            bucket = self._held[height]
            bucket.records = [held for held in bucket.records if stays(held)]
            if not bucket.records:
                del self._held[height]

    def _refuse_unless_signed(self, record: SignatureRecord) -> bool:
        """Whether the record was refused, for it is not, to the last byte, the authority's."""
        try:
            signed = is_signed(self._ledger_id, self._authority, record)
        except Malformed:
            self._refuse(record, _INVALID[record.topic])
            return True
        if not signed:
            self._refuse(record, _SIGNATURE[record.topic])
        return not signed

    def _refuse(self, record: SignatureRecord, cause: Cause) -> None:
        self._refusals.append(Refusal(record.topic, record.partition, record.offset, cause))


def decode_signatures(record: SignatureRecord, header_bytes: bytes) -> Signatures:
    """The signatures in a record that must be of the certified header; `Malformed` otherwise."""
    data = topics.unframe(record.value)
    if record.topic == topics.EVENTS:
        return decode_event_signatures(data, header_bytes)
    return decode_receipt_signatures(data, header_bytes)


def is_signed(ledger_id: LedgerId, authority: Key, record: SignatureRecord) -> bool:
    """The authority signed what the record says, and the record is whole: for events also the
    command, its author's signature and the payload. `Malformed` when it is no event or receipt.
    """
    data = topics.unframe(record.value)
    if record.topic == topics.EVENTS:
        return _is_signed_event(ledger_id, authority, record, data)
    receipt = decode_receipt(data)
    at = receipt.header.position
    return (
        receipt.header.ledger_id == ledger_id
        and record.record_id == f"{at.log_epoch}-{at.partition}-{at.offset}".encode("ascii")
        and record.height == receipt.height
        and receipt_signed(
            authority, receipt.receipt_hash, receipt.timestamp, receipt.height, receipt.signatures
        )
    )


def _is_signed_event(
    ledger_id: LedgerId, authority: Key, record: SignatureRecord, data: bytes
) -> bool:
    event = decode_event(data)
    header = event.header
    return (
        header.ledger_id == ledger_id
        and record.record_id == format_id(header.event_id).encode("ascii")
        and record.height == event.height
        and payload_hash(event.payload) == header.payload_hash
        and event_signed(
            authority, event.event_hash, event.timestamp, event.height, event.signatures
        )
        and author_signed_hash(header.command_hash, header.key, event.author_signatures)
    )


def low_waters(
    collector: Collector, following: Iterable[tuple[str, int, int]]
) -> list[tuple[str, int, int]]:
    """(topic, partition, first offset a restart must read) for (topic, partition, next offset)."""
    return [
        (
            topic,
            partition,
            collector.seals_low_water(offset)
            if topic == topics.SEALS
            else collector.low_water(topic, partition, offset),
        )
        for topic, partition, offset in following
    ]
