"""What a validator keeps on disk: its journal, and snapshots that let it forget the old part.

Rules: docs/spec/consensus.md, durability. Shell: all of it blocks, so it runs in a thread of its
own, one call at a time.

    journal/                    a record is  0x01 ‖ u32 length of the header ‖ block as published,
                                             with a pointer to itself for its commit proof: it was
                                             executed here, and may become committed
                                or           0x02 ‖ u64 height ‖ u64 offset: the blocks topic has
                                             every block up to this one
                                or           0x03 ‖ what the machine wants kept (`codec`): own
                                             votes, certificates, commits, tail blocks
                                or           0x04 ‖ a vote of another validator (`codec`), for
                                             when that one asks for its newest
                                or           0x05 ‖ a commit (`codec`): the chain goes on from a
                                             snapshot of this block that others gave
    snapshots/                  `snapshot_files`

A snapshot is believed only beside the journalled commit of the block that it names; so that always
stays.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nocturne.consensus import codec, snapshot_files
from nocturne.consensus.bodies import Newest
from nocturne.consensus.chain import Chain, Executed, check_journalled
from nocturne.consensus.gathering import CertifiedRange, ranges_of
from nocturne.consensus.offers import content_of
from nocturne.consensus.published import Published
from nocturne.consensus.quorum.messages import Committed, Proposal, Record, Vote
from nocturne.consensus.snapshot_files import JOINED, SUFFIX, Head, SnapshotFile
from nocturne.core import snapshot
from nocturne.core.blocks import (
    Block,
    BlockHeader,
    decode_block,
    decode_block_header,
    encode_around_proof,
    encode_proof,
    hash_block,
)
from nocturne.core.certified_snapshot import change_line
from nocturne.core.errors import Halt, Malformed
from nocturne.core.identifiers import Hash
from nocturne.core.kinds import KindRegistry
from nocturne.core.state import LedgerState
from nocturne.core.validator_sets import ValidatorSets
from nocturne.runtime import journal
from nocturne.runtime.files import sync_folder

SNAPSHOT_JOURNAL_BYTES: Final = 32 * 1024 * 1024
"""Journal since the last snapshot after which a new one is due: about three seconds of replay."""
SNAPSHOT_SHARE: Final = 4
"""And at least this many times the last snapshot's size, so that large states are not written
over and over."""
SEGMENT_BYTES: Final = 16 * 1024 * 1024
SYNC_BYTES_MAX: Final = 32 * 1024 * 1024
"""Of the records of one sync: half of what the journal's frame holds."""

_BLOCK: Final = 1
_PUBLISHED: Final = 2
_RECORD: Final = 3
_HEARD: Final = 4
_JOINED: Final = 5
_BLOCK_HEAD: Final = struct.Struct(">BI")
_PUBLISHED_RECORD: Final = struct.Struct(">BQQ")
_PUBLISHED_BODY: Final = struct.Struct(">QQ")
_U32: Final = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Heard:
    """Another validator's vote, kept for when it asks."""

    vote: Vote


Kept = Executed | Record | Heard
"""What goes to the journal."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What the disk said. `digests` and `ranges` reach as far back as the journal does; `records`
    are those above the chain's newest block, in their order.
    """

    chain: Chain
    records: tuple[Record, ...]
    heard: tuple[Vote, ...]
    published: Published | None
    digests: dict[int, Hash]
    ranges: dict[int, CertifiedRange]
    newest: Newest
    """The newest blocks that were executed again."""
    replayed: int
    torn_bytes: int

    @property
    def committed_height(self) -> int:
        """Of the newest committed block of the journal, executed or not."""
        return max(self.digests, default=0)


@dataclass(frozen=True, slots=True)
class _Snapshot:
    file: SnapshotFile
    state: LedgerState

    @property
    def header(self) -> BlockHeader:
        return self.file.head.block.proposal.header

    @property
    def digest(self) -> Hash:
        return self.file.head.block.proposal.digest


@dataclass(frozen=True, slots=True)
class _BlockRecord:
    header: BlockHeader
    digest: Hash
    encoded: bytes

    @property
    def block(self) -> Block:
        return decode_block(self.encoded)


class Store:
    """The disk of one validator."""

    def __init__(self, home: Path, label: bytes) -> None:
        """`JournalMissing` when there is no journal; `Halt` when it is damaged."""
        self._snapshots = home / "snapshots"
        self._snapshots.mkdir(mode=0o700, exist_ok=True)
        self._journal = journal.open_journal(
            home / journal.FOLDER, label, segment_bytes=SEGMENT_BYTES
        )
        self._segments: dict[int, int] = {}
        """The first segment that has something of a block of this height."""
        self._note: Published | None = None
        self._bytes_since_snapshot = 0
        self._snapshot: SnapshotFile | None = None
        self._changes: dict[int, bytes] = {}
        """Lines of the changes of the validators that the snapshot may lack, by height."""

    # Starting -----------------------------------------------------------------------------

    def recover(self, genesis: bytes, registry: KindRegistry) -> Recovered:
        """The chain as the disk has it: the newest snapshot, and every later block executed again.
        `Halt` when they contradict each other.
        """
        self._finish_joining()
        self._bytes_since_snapshot = 0
        found = self._newest_snapshot(genesis, registry)
        founding = None if found else LedgerState.founding(genesis, registry)
        replay = _Replay(found, founding, self.note_block)
        published = None if found is None else found.file.head.published
        for entry in self._journal.read_all():
            tag, body = entry.record[0], entry.record[1:]
            try:
                if tag == _PUBLISHED:
                    published = _later(published, Published(*_PUBLISHED_BODY.unpack(body)))
                elif tag == _BLOCK:
                    self._note_height(replay.take_block(_block_record(body)), entry.segment)
                elif tag == _HEARD:
                    replay.take_heard(codec.decode(body))
                elif tag == _RECORD:
                    record = codec.decode(body)
                    self._note_height(replay.take_record(record), entry.segment)
                elif tag == _JOINED:
                    height = replay.take_joined(_committed(codec.decode(body)))
                    self._note_height(height, entry.segment)
                else:
                    raise Malformed(f"unknown record {tag}")
            except (struct.error, Malformed) as fault:
                raise Halt(
                    f"journal segment {entry.segment}: not a record of this build: {fault}"
                ) from fault
        self._bytes_since_snapshot += replay.executed_bytes
        return replay.end(published, self._journal.torn_bytes)

    def blocks_after(self, height: int) -> Iterator[tuple[int, bytes]]:
        """(height, block as published) of every committed block above `height` that the journal
        has, ascending; call it after `recover`.
        """
        blocks: dict[Hash, _BlockRecord] = {}
        waiting: dict[int, Committed] = {}
        following = height + 1
        for entry in self._journal.read_all():
            tag, body = entry.record[0], entry.record[1:]
            if tag == _BLOCK:
                record = _block_record(body)
                if record.header.height >= following:
                    blocks[record.digest] = record
            elif tag == _RECORD and isinstance(value := codec.decode(body), Committed):
                waiting.setdefault(value.proposal.header.height, value)
            while (committed := waiting.get(following)) is not None:
                found = blocks.pop(committed.proposal.digest, None)
                if found is None:
                    break
                before, after = encode_around_proof(found.block)
                yield following, before + encode_proof(committed.proof) + after
                del waiting[following]
                following += 1

    # Running ------------------------------------------------------------------------------

    def keep(self, kept: Sequence[Kept]) -> None:
        """Make these durable in their order, with one fsync for all of them; with more where they
        are longer than a frame holds.
        """
        records = [(_encode(one), _height_of(one)) for one in kept]
        note, self._note = self._note, None
        if note is not None:
            records.append((_PUBLISHED_RECORD.pack(_PUBLISHED, note.height, note.offset), None))
        first, size = 0, 0
        for index, (record, _) in enumerate(records):
            if size and size + len(record) > SYNC_BYTES_MAX:
                self._keep(records[first:index])
                first, size = index, 0
            size += len(record)
        self._keep(records[first:])

    def _keep(self, records: Sequence[tuple[bytes, int | None]]) -> None:
        self._journal.append([record for record, _ in records])
        segment = self._journal.sync()
        for record, height in records:
            self._note_height(height, segment)
            self._bytes_since_snapshot += len(record)

    def note_block(self, block: Committed, sets: ValidatorSets) -> None:
        """A committed block that was executed; `sets` are those after it. One that shows a change
        of the validators is kept for the snapshots to come.
        """
        found = change_line(block.proposal.header_bytes, block.proof, sets)
        if found is not None:
            height, line = found
            self._changes[height] = line

    def note_published(self, published: Published) -> None:
        """Written with the next block: losing it only means to look further back in the topic."""
        self._note = published

    @property
    def snapshot_due(self) -> bool:
        """Whether enough was journalled since the last snapshot."""
        snapshot_bytes = 0 if self._snapshot is None else self._snapshot.size
        return self._bytes_since_snapshot >= max(
            SNAPSHOT_JOURNAL_BYTES, SNAPSHOT_SHARE * snapshot_bytes
        )

    @property
    def bytes_since_snapshot(self) -> int:
        """What a start would have to execute again."""
        return self._bytes_since_snapshot

    @property
    def journal_bytes(self) -> int:
        """Of the journal on disk."""
        return self._journal.size_bytes

    def begin_snapshot(self) -> None:
        """Count from here on: the state to be written is the one of now."""
        self._bytes_since_snapshot = 0

    @property
    def snapshot(self) -> SnapshotFile | None:
        """The newest one, once `recover` has read it."""
        return self._snapshot

    def write_snapshot(
        self,
        block: Committed,
        state: LedgerState,
        published: Published | None,
        abandon: threading.Event,
    ) -> None:
        """Write the state after `block` down, durably, beside everything else that runs: it touches
        no journal.
        """
        changes = self._changes_below(block.proposal.header.height)
        head = Head(block, published, changes)
        path = self._path_of(head.height, SUFFIX)
        content = content_of(snapshot.encode(state))
        self._snapshot = snapshot_files.write(path, head, content, abandon)
        self._drop_snapshots_but(path)

    def _changes_below(self, height: int) -> tuple[bytes, ...]:
        """The lines of the last snapshot, and of the changes since."""
        known: tuple[bytes, ...] = ()
        after = 0
        if self._snapshot is not None:
            known, after = self._snapshot.head.changes, self._snapshot.head.height
        changes = sorted(dict(self._changes).items())
        for at, _ in changes:
            if at < after:
                del self._changes[at]
        return (*known, *[line for at, line in changes if after <= at < height])

    def join(
        self,
        block: Committed,
        changes: tuple[bytes, ...],
        published: Published | None,
        content: Iterable[bytes],
        abandon: threading.Event,
    ) -> None:
        """Go on from a snapshot that others gave and that is proved. It is durable before the
        journal says so; then `recover` finds it, whatever happened in between.
        """
        head = Head(block, published, changes)
        snapshot_files.write(self._path_of(head.height, JOINED), head, content, abandon)
        self._journal.append([bytes([_JOINED]) + codec.encode(block)])
        self._note_height(head.height, self._journal.sync())
        self._finish_joining()

    def _finish_joining(self) -> None:
        """Put a snapshot that the journal goes on from in its place; another one is not needed."""
        waiting = snapshot_files.files(self._snapshots, JOINED)
        if not waiting:
            return
        heights = {
            _committed(codec.decode(entry.record[1:])).proposal.header.height
            for entry in self._journal.read_all()
            if entry.record[0] == _JOINED
        }
        for path in waiting:
            height = int(path.stem)
            if height in heights:
                path.replace(self._path_of(height, SUFFIX))
                sync_folder(self._snapshots)
                self._drop_snapshots_but(self._path_of(height, SUFFIX))
            else:
                path.unlink()

    def _path_of(self, height: int, suffix: str) -> Path:
        return self._snapshots / f"{height:012d}{suffix}"

    def _drop_snapshots_but(self, path: Path) -> None:
        for older in snapshot_files.files(self._snapshots):
            if older != path:
                older.unlink()

    @property
    def folder(self) -> Path:
        """Where snapshots are, and what is fetched of them."""
        return self._snapshots

    def forget_before(self, height: int, live: Sequence[Record]) -> None:
        """Drop journal segments that have nothing of a block at `height` or above. `live` is what
        the machine still needs of votes and certificates: those may stand there, so they are
        written again.
        """
        keep_from = min(
            (segment for at, segment in self._segments.items() if at >= height), default=0
        )
        if keep_from <= self._journal.first_segment:
            return
        if live:
            self.keep(live)
        self._journal.drop_before(keep_from)
        self._segments = {at: segment for at, segment in self._segments.items() if at >= height}

    def close(self) -> None:
        """Let go of the journal."""
        self._journal.close()

    def _note_height(self, height: int | None, segment: int) -> None:
        if height is not None:
            self._segments[height] = min(self._segments.get(height, segment), segment)

    def _newest_snapshot(self, genesis: bytes, registry: KindRegistry) -> _Snapshot | None:
        for leftover in self._snapshots.glob("*.tmp"):
            leftover.unlink()
        files = snapshot_files.files(self._snapshots)
        if not files:
            return None
        path = files[-1]
        try:
            found = _read_snapshot(path, genesis, registry)
        except (Malformed, struct.error) as fault:
            raise Halt(f"snapshot {path.name}: {fault}: put it back from a backup") from fault
        self._snapshot = found.file
        return found


# Journal records -----------------------------------------------------------------------------


class _Replay:
    """The journal's records, oldest first, on top of a snapshot or of genesis."""

    def __init__(
        self,
        found: _Snapshot | None,
        founding: LedgerState | None,
        note: Callable[[Committed, ValidatorSets], None],
    ) -> None:
        """`note` is told of each block that was executed, and of the snapshot's."""
        self._snapshot = found
        self._note = note
        self._chain = None if founding is None else Chain(founding, None)
        self._blocks: dict[Hash, _BlockRecord] = {}
        self._committed: dict[int, Committed] = {}
        self._newest: int | None = None
        self._ranges: dict[int, CertifiedRange] = {}
        self._digests: dict[int, Hash] = {}
        self._records: list[Record] = []
        self._heard: list[Vote] = []
        self._newest_blocks = Newest()
        self._replayed = 0
        self.executed_bytes = 0

    def take_block(self, record: _BlockRecord) -> int:
        """A block that may become committed; its height."""
        height = record.header.height
        if self._is_open(height) or height not in self._digests:
            self._blocks[record.digest] = record
            self._execute()
        elif self._digests[height] == record.digest:
            # Committed before its records came, and part of the snapshot.
            self._take_ranges(record.block)
        return height

    def take_record(self, record: codec.Value) -> int | None:
        """What the machine wanted kept; the height of a block that it commits."""
        if not isinstance(record, Record):
            raise Malformed(f"expected a record of the machine, got {type(record).__name__}")
        self._records.append(record)
        if not isinstance(record, Committed):
            return None
        proposal = record.proposal
        height = proposal.header.height
        if height in self._digests:
            return height
        parent = self._digests.get(height - 1)
        if self._newest is None and self._snapshot is None and height != 1:
            raise Halt(
                f"journal: expected block 1 first, got block {height}: its beginning is gone"
            )
        if (self._newest is not None and height != self._newest + 1) or (
            parent is not None and parent != proposal.header.parent_digest
        ):
            raise Halt(f"journal: block {height} does not continue the block before it")
        self._newest = height
        self._digests[height] = proposal.digest
        if self._snapshot is not None and proposal.digest == self._snapshot.digest:
            self._begin(self._snapshot, record)
        if self._is_open(height):
            self._committed[height] = record
            self._execute()
        else:
            found = self._blocks.pop(proposal.digest, None)
            if found is not None:
                self._take_ranges(found.block)
        return height

    def take_joined(self, committed: Committed) -> int:
        """The chain goes on from a snapshot of this block; its height."""
        proposal = committed.proposal
        height = proposal.header.height
        if self._snapshot is None or self._snapshot.header.height < height:
            raise Halt(
                f"the snapshot of block {height}, from which the journal goes on, is gone: put it "
                "back from a backup"
            )
        self._newest = height
        self._digests = {height: proposal.digest}
        self._ranges = {}
        self._committed = {}
        self._chain = None
        if proposal.digest == self._snapshot.digest:
            self._begin(self._snapshot, committed)
        return height

    def _begin(self, found: _Snapshot, committed: Committed) -> None:
        check_journalled(committed, found.state)
        self._chain = Chain(found.state, committed)
        self._note(committed, self._chain.sets)

    def take_heard(self, vote: codec.Value) -> None:
        """Another validator's vote."""
        if not isinstance(vote, Vote):
            raise Malformed(f"expected a vote, got {type(vote).__name__}")
        self._heard.append(vote)

    def _take_ranges(self, block: Block) -> None:
        for partition, one in ranges_of(block).items():
            known = self._ranges.get(partition)
            if known is None or known.end < one.end:
                self._ranges[partition] = one

    def _is_open(self, height: int) -> bool:
        """Whether the block is above what was executed so far."""
        if self._chain is not None:
            return height > self._chain.tip.height
        assert self._snapshot is not None
        return height > self._snapshot.header.height

    def _execute(self) -> None:
        while self._chain is not None:
            committed = self._committed.get(self._chain.tip.height + 1)
            found = None if committed is None else self._blocks.pop(committed.proposal.digest, None)
            if committed is None or found is None:
                return
            block = found.block
            self._chain.replay(block, committed)
            self._note(committed, self._chain.sets)
            self._take_ranges(block)
            self._newest_blocks.add(found.digest, found.encoded)
            del self._committed[found.header.height]
            self._replayed += 1
            self.executed_bytes += len(found.encoded)
            self._blocks = {
                digest: one
                for digest, one in self._blocks.items()
                if one.header.height > found.header.height
            }

    def end(self, published: Published | None, torn_bytes: int) -> Recovered:
        """All records are taken."""
        if self._chain is None:
            assert self._snapshot is not None
            raise Halt(
                f"the journal lacks block {self._snapshot.header.height}, of which there is a "
                "snapshot: it is an old copy, or cut short"
            )
        height = self._chain.tip.height
        for one in sorted(self._blocks.values(), key=lambda one: one.header.view):
            if one.header.height > height:
                self._chain.take_up(one.block)
        proposals = [_proposal_of(one.block) for one in self._blocks.values()]
        records = [
            one
            for one in self._records
            if not isinstance(one, Committed) or one.proposal.header.height > height
        ]
        return Recovered(
            self._chain,
            (*[one for one in proposals if one.header.height > height], *records),
            tuple(self._heard),
            published,
            self._digests,
            self._ranges,
            self._newest_blocks,
            self._replayed,
            torn_bytes,
        )


def _encode(kept: Kept) -> bytes:
    match kept:
        case Executed():
            return _BLOCK_HEAD.pack(_BLOCK, len(kept.block.header_bytes)) + kept.encoded
        case Heard(vote):
            return bytes([_HEARD]) + codec.encode(vote)
        case _:
            return bytes([_RECORD]) + codec.encode(kept)


def _height_of(kept: Kept) -> int | None:
    match kept:
        case Executed():
            return kept.block.header.height
        case Committed(proposal):
            return proposal.header.height
        case _:
            return None


def _block_record(body: bytes) -> _BlockRecord:
    (length,) = _U32.unpack_from(body)
    encoded = body[_U32.size :]
    header_bytes = encoded[:length]
    return _BlockRecord(decode_block_header(header_bytes), hash_block(header_bytes), encoded)


def _proposal_of(block: Block) -> Proposal:
    return Proposal(block.header, block.header_bytes, block.digest, block.leader_signatures)


def _committed(value: codec.Value) -> Committed:
    if not isinstance(value, Committed):
        raise Malformed(f"expected a committed block, got {type(value).__name__}")
    return value


def _later(known: Published | None, other: Published) -> Published:
    return other if known is None or other.height > known.height else known


# Snapshots -----------------------------------------------------------------------------------


def _read_snapshot(path: Path, genesis: bytes, registry: KindRegistry) -> _Snapshot:
    with path.open("rb") as file:
        reader = snapshot_files.Reader(file, path)
        state = snapshot.decode(genesis, reader.chunks(), registry)
        found = reader.end()
    header = found.head.block.proposal.header
    if state.root_hash != header.state_root:
        raise Malformed(f"its state has the root {state.root_hash.hex()}, not its block's")
    return _Snapshot(found, state)
