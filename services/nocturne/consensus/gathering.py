"""Gather what the log delivers into batches to execute, and compare it with what is certified.

Rules: docs/spec/consensus.md, intake. Pure. Every record comes through `admit` in the order of its
partition. Below the certified position it must be what was certified; above it waits until a block
that has it is committed, bounded by `is_full`, which asks the caller to bring no more. Until then
it may be executed more than once: blocks that exclude each other may have it.

Where the log is not the certified one any more, it *stands*: nothing of it is offered for a block
to come. Once the operators have opened the next log epoch it begins anew, with the new log.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Final

from nocturne.core.blocks import Block, Range
from nocturne.core.errors import Unavailable
from nocturne.core.execution import PartitionBatch
from nocturne.core.identifiers import Hash
from nocturne.core.intake import Prepared
from nocturne.core.log_epochs import NO_TOPIC
from nocturne.core.modes import LogRewritten
from nocturne.core.state_leaf import LogPosition

WAITING_RECORDS_MAX: Final = 8192
"""A few blocks' worth: more would only wait here instead of in the log."""
WAITING_BYTES_MAX: Final = 32 * 1024 * 1024
"""Holds a full block while the next one gathers."""
WANTED_FACTOR: Final = 4
"""So many times more is taken while a block of another validator waits for records: that one may
have gathered more of another partition."""

LATE_RECORDS_MAX: Final = 65_536
"""Hashes that are held of a partition's certified records that the log has not brought: newer ones
take the place of the oldest, which are not compared when they come after all."""

NOT_THE_LOG: Final = "this validator's log is not that of the quorum"

_OFFSET: Final = itemgetter(0)


class LogLost(LogRewritten):
    """The log is not the one that was certified. The intake stands for it, and the rest of the
    validator goes on: the operators may open a log epoch.
    """


@dataclass(frozen=True, slots=True)
class CertifiedRange:
    """The newest certified range of a partition: the hash of each record, None for a gap."""

    partition: int
    start: int
    records: tuple[Hash | None, ...]

    @property
    def end(self) -> int:
        """The offset after the range."""
        return self.start + len(self.records)


def newest_ranges(blocks: Iterable[Block]) -> dict[int, CertifiedRange]:
    """The newest range of each partition that the blocks, in height order, have."""
    newest: dict[int, CertifiedRange] = {}
    for block in blocks:
        newest.update(ranges_of(block))
    return newest


def ranges_of(block: Block) -> dict[int, CertifiedRange]:
    """The ranges of one block, by partition."""
    ranges = {}
    first = 0
    for one in block.header.ranges:
        records = block.records[first : first + one.end - one.start]
        first += len(records)
        ranges[one.partition] = CertifiedRange(
            one.partition, one.start, tuple([record.record_hash for record in records])
        )
    return ranges


@dataclass(slots=True)
class _Waiting:
    """One partition in its log epoch: the next offset to come from the log, the first that no
    committed block has, the end of what can be executed, and the records between.
    """

    log_epoch: int
    next_offset: int
    committed: int
    end: int
    records: list[tuple[int, Prepared]]

    @property
    def has_offsets(self) -> bool:
        return self.end > self.committed

    def between(self, start: int, end: int) -> tuple[tuple[int, Prepared], ...]:
        first = bisect_left(self.records, start, key=_OFFSET)
        return tuple(self.records[first : bisect_left(self.records, end, first, key=_OFFSET)])


class Gathering:
    """The records of all partitions that are not executed yet."""

    def __init__(
        self,
        topic_uuid: bytes,
        positions: Sequence[LogPosition],
        certified: Mapping[int, CertifiedRange],
        kept_from: Mapping[int, int],
    ) -> None:
        """`certified` is compared again, from the first offset that the broker still has."""
        self._certified = dict(certified)
        self._waiting: dict[int, _Waiting] = {}
        self._starts: dict[int, int] = {}
        self._left: dict[Hash, tuple[int, Prepared]] = {}
        self._stands = False
        self.generation = 0
        """How many log epochs were opened since: what was read for an earlier one is not taken."""
        self.begin(topic_uuid, positions, kept_from)

    def begin(
        self, topic_uuid: bytes, positions: Sequence[LogPosition], kept_from: Mapping[int, int]
    ) -> None:
        """Expect the records of this topic from the positions of the newest committed block on;
        what waited is read again.
        """
        self._topic_uuid = topic_uuid
        self._stands = False
        for position in positions:
            partition, following = position.partition, position.next_offset
            again = self._certified.get(partition)
            start = following if again is None else max(again.start, kept_from.get(partition, 0))
            self._starts[partition] = start = min(start, following)
            self._waiting[partition] = _Waiting(position.log_epoch, start, following, following, [])
        self._bytes = 0
        self._records = 0

    def stand(self) -> None:
        """The log is not the certified one: nothing of it is for a block to come. What was gathered
        is still executed in the blocks of others.
        """
        self._stands = True

    def reopen(self, position: LogPosition) -> None:
        """A committed block opened a log epoch of this position's partition: what waits there is of
        the one before, and no block has it any more. Commands among it are `left`. The caller
        begins anew.
        """
        waiting = self._waiting[position.partition]
        for _, prepared in waiting.records:
            if prepared.signed is not None and prepared.fault is None:
                self._left[prepared.record_hash] = (position.partition, prepared)
        self._bytes -= sum([_bytes_of(prepared) for _, prepared in waiting.records])
        self._records -= len(waiting.records)
        following = position.next_offset
        self._waiting[position.partition] = _Waiting(
            position.log_epoch, following, following, following, []
        )
        self._certified.pop(position.partition, None)
        self.generation += 1

    @property
    def left(self) -> list[tuple[int, Prepared]]:
        """Commands of log epochs that are over, by their partitions: no block has them, and the new
        log has not shown them yet. No more of them than of what may wait.
        """
        return list(self._left.values())

    def forget_left(self) -> None:
        """They are appended again, or given up."""
        self._left.clear()

    @property
    def topic_uuid(self) -> bytes:
        """Of the topic that is read."""
        return self._topic_uuid

    @property
    def stands(self) -> bool:
        """Whether the log is not the certified one."""
        return self._stands

    @property
    def starts(self) -> Mapping[int, int]:
        """For each partition the offset of the first record that `admit` expects."""
        return self._starts

    def brought(self, positions: Sequence[LogPosition]) -> list[LogPosition]:
        """Certified positions, back to where this log has brought records: what others gave beyond
        it may be on its way.
        """
        return [
            replace(one, next_offset=min(one.next_offset, waiting.next_offset))
            for one in positions
            if (waiting := self._waiting[one.partition]).log_epoch == one.log_epoch
        ]

    @property
    def waiting(self) -> int:
        """Records that wait to be executed."""
        return self._records

    def waiting_in(self, partition: int) -> int:
        """As `waiting`, of one partition."""
        return len(self._waiting[partition].records)

    def is_full(self, wanted: bool) -> bool:
        """Whether more should stay in the log for now. `wanted`: a block waits for records."""
        factor = WANTED_FACTOR if wanted else 1
        return (
            self._records >= factor * WAITING_RECORDS_MAX
            or self._bytes >= factor * WAITING_BYTES_MAX
        )

    @property
    def has_offsets(self) -> bool:
        """Whether there is anything to execute, gaps included."""
        return any(one.has_offsets for one in self._waiting.values())

    def is_certified(self, partition: int, offset: int) -> bool:
        """Whether the offset lies below the certified position: compare it, execute nothing."""
        certified = self._certified.get(partition)
        return certified is not None and offset < certified.end

    def compare(self, partition: int, offset: int, record_hash: Hash) -> None:
        """`LogLost` unless the record is the one that is certified at this offset."""
        certified = self._certified[partition]
        self._check_gaps(partition, offset)
        skipped = offset < certified.start
        expected = record_hash if skipped else certified.records[offset - certified.start]
        if expected != record_hash:
            raise LogLost(
                f"the log was changed: of partition {partition}, offset {offset} the record "
                f"{'(none)' if expected is None else expected.hex()} is certified, the broker has "
                f"{record_hash.hex()}"
            )
        self._waiting[partition].next_offset = offset + 1

    def admit(self, partition: int, offset: int, prepared: Prepared) -> None:
        """Take the next record of a partition."""
        self._check_gaps(partition, offset)
        if self._left:
            self._left.pop(prepared.record_hash, None)
        waiting = self._waiting[partition]
        waiting.records.append((offset, prepared))
        waiting.next_offset = waiting.end = offset + 1
        self._records += 1
        self._bytes += _bytes_of(prepared)

    def reach(self, partition: int, next_offset: int) -> None:
        """The log has nothing below `next_offset` that was not delivered: what is missing are
        control markers, to be gaps.
        """
        waiting = self._waiting[partition]
        if next_offset > waiting.next_offset:
            self._check_gaps(partition, next_offset)
            waiting.next_offset = next_offset
            waiting.end = max(waiting.end, next_offset)

    def has_after(self, positions: Sequence[LogPosition]) -> bool:
        """Whether there is an offset that a state at these positions has not executed."""
        return any(self._has_after(one) for one in positions)

    def _has_after(self, position: LogPosition) -> bool:
        waiting = self._waiting[position.partition]
        return (
            not self._stands
            and waiting.log_epoch == position.log_epoch
            # A block that is not committed may have begun the partition with a topic that is gone.
            and position.topic_uuid in (NO_TOPIC, self._topic_uuid)
            and waiting.end > position.next_offset
        )

    def batches_after(self, positions: Sequence[LogPosition]) -> list[PartitionBatch]:
        """Everything here that a state at these positions has not executed, partitions ascending.
        The positions are those of the newest committed block, or of one above it.
        """
        found = []
        for position in sorted(positions, key=lambda one: one.partition):
            partition, start = position.partition, position.next_offset
            one = self._waiting[partition]
            if self._has_after(position):
                records = one.between(start, one.end)
                found.append(PartitionBatch(partition, self._topic_uuid, one.end, records))
        return found

    def batches_of(self, ranges: Sequence[Range]) -> list[PartitionBatch] | None:
        """The offsets of a block with these ranges, that no committed block has; None while some
        of them have not come.
        """
        found = []
        if self.lacks(ranges):
            return None
        for one in ranges:
            records = self._waiting[one.partition].between(one.start, one.end)
            found.append(PartitionBatch(one.partition, self._topic_uuid, one.end, records))
        return found

    def lacks(self, ranges: Sequence[Range]) -> bool:
        """Whether some offsets of a block with these ranges, that no committed block has, have not
        come.
        """
        for one in ranges:
            waiting = self._waiting.get(one.partition)
            if waiting is None or one.log_epoch != waiting.log_epoch:
                return True
            if one.end > waiting.end or one.start < waiting.committed:
                return True
        return False

    def check_gathered(self, block: Block) -> None:
        """`LogLost` unless what came of the ranges of a committed block, which others gave, is what
        the block has.
        """
        for partition, one in ranges_of(block).items():
            waiting = self._waiting[partition]
            came = {at: record.record_hash for at, record in waiting.between(one.start, one.end)}
            for offset in range(one.start, min(one.end, waiting.next_offset)):
                expected = one.records[offset - one.start]
                if expected != came.get(offset):
                    raise LogLost(
                        f"{NOT_THE_LOG}: block {block.header.height} has another record at offset "
                        f"{offset} of partition {partition} of the commands topic"
                    )

    def expect(self, block: Block) -> None:
        """A block that is about to be `taken` was executed from bytes that others gave: what the
        log brings of it later is compared.
        """
        for partition, one in ranges_of(block).items():
            if self._waiting[partition].next_offset < one.end:
                known = self._certified.get(partition)
                if known is None or known.end != one.start:
                    known = CertifiedRange(partition, one.start, ())
                records = (*known.records, *one.records)[-LATE_RECORDS_MAX:]
                self._certified[partition] = CertifiedRange(
                    partition, one.end - len(records), records
                )

    def taken(self, ranges: Sequence[Range]) -> None:
        """A committed block has these ranges: their records wait no longer."""
        for one in ranges:
            waiting = self._waiting[one.partition]
            count = bisect_left(waiting.records, one.end, key=_OFFSET)
            self._bytes -= sum([_bytes_of(prepared) for _, prepared in waiting.records[:count]])
            del waiting.records[:count]
            self._records -= count
            waiting.committed = one.end
            waiting.end = max(waiting.end, one.end)
            if waiting.next_offset >= one.end:
                # All before it was compared when the log brought it.
                self._certified.pop(one.partition, None)

    def _check_gaps(self, partition: int, offset: int) -> None:
        """What was skipped up to `offset` is a gap in the certified range too."""
        following = self._waiting[partition].next_offset
        if offset < following:
            # Offsets only rise within an assignment; a start anew reads them again in order.
            raise Unavailable(
                f"partition {partition} of the commands topic: expected offset {following} or "
                f"later, got {offset}"
            )
        certified = self._certified.get(partition)
        if certified is None:
            return
        for skipped in range(max(following, certified.start), min(offset, certified.end)):
            expected = certified.records[skipped - certified.start]
            if expected is not None:
                raise LogLost(
                    f"partition {partition}, offset {skipped} of the commands topic is certified "
                    f"with the record {expected.hex()}, the broker no longer has it"
                )


def _bytes_of(prepared: Prepared) -> int:
    return len(prepared.value or b"") + len(prepared.headers)
