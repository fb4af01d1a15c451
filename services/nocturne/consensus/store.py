"""What a validator keeps on disk: its journal, and snapshots that let it forget the old part.

Rules: docs/spec/consensus.md, durability. Shell: all of it blocks, so it runs in a thread of its
own, one call at a time.

    journal/                    a record is  0x01 ‖ u32 length of the header ‖ block as published
                                or           0x02 ‖ u64 height ‖ u64 offset: acknowledged by the
                                             broker up to this block
    snapshots/<height>.snapshot magic (8), then chunks (u32 length ‖ bytes): the block's header,
                                what was acknowledged (empty or two u64), the state's chunks; then
                                u32 0 and SHA-256 of all before it

A snapshot is believed only beside the journalled block it names; so that block always stays.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final

from nocturne.consensus.chain import Chain, Made
from nocturne.consensus.gathering import CertifiedRange, ranges_of
from nocturne.consensus.published import Published
from nocturne.core import snapshot
from nocturne.core.blocks import BlockHeader, decode_block, decode_block_header, hash_block
from nocturne.core.errors import Halt, Malformed
from nocturne.core.identifiers import Hash
from nocturne.core.keys import Signer
from nocturne.core.kinds import KindRegistry
from nocturne.core.state import LedgerState
from nocturne.runtime import journal
from nocturne.runtime.files import sync_folder

SNAPSHOT_JOURNAL_BYTES: Final = 32 * 1024 * 1024
"""Journal since the last snapshot after which a new one is due: about three seconds of replay."""
SNAPSHOT_SHARE: Final = 4
"""And at least this many times the last snapshot's size, so that large states are not written
over and over."""
SEGMENT_BYTES: Final = 16 * 1024 * 1024
SNAPSHOT_CHUNK_BYTES_MAX: Final = 1024 * 1024 * 1024

_BLOCK: Final = 1
_PUBLISHED: Final = 2
_BLOCK_HEAD: Final = struct.Struct(">BI")
_PUBLISHED_RECORD: Final = struct.Struct(">BQQ")
_PUBLISHED_CHUNK: Final = struct.Struct(">QQ")
_U32: Final = struct.Struct(">I")
_MAGIC: Final = b"NOCTSNP1"
_SUFFIX: Final = ".snapshot"
_DIGEST_BYTES: Final = 32
_NOTHING_PUBLISHED: Final = Published(0, 0)


class Abandoned(Exception):  # noqa: N818
    """The process ends: a snapshot that is not finished is not needed."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What the disk said. `digests` and `ranges` reach as far back as the journal does."""

    chain: Chain
    published: Published | None
    digests: dict[int, Hash]
    ranges: dict[int, CertifiedRange]
    replayed: int
    torn_bytes: int


@dataclass(frozen=True, slots=True)
class _Snapshot:
    header: BlockHeader
    digest: Hash
    published: Published | None
    state: LedgerState


@dataclass(frozen=True, slots=True)
class _BlockRecord:
    segment: int
    header: BlockHeader
    digest: Hash
    encoded: bytes


class Store:
    """The disk of one validator."""

    def __init__(self, home: Path, label: bytes) -> None:
        """`JournalMissing` when there is no journal; `Halt` when it is damaged."""
        self._snapshots = home / "snapshots"
        self._snapshots.mkdir(mode=0o700, exist_ok=True)
        self._journal = journal.open_journal(
            home / journal.FOLDER, label, segment_bytes=SEGMENT_BYTES
        )
        self._firsts: dict[int, int] = {}
        """The height of the first block in each segment that has one."""
        self._note: Published | None = None
        self._bytes_since_snapshot = 0
        self._snapshot_bytes = 0

    # Starting -----------------------------------------------------------------------------

    def recover(self, genesis: bytes, registry: KindRegistry, signer: Signer) -> Recovered:
        """The chain as the disk has it: the newest snapshot, and every later block executed again.
        `Halt` when they contradict each other.
        """
        found = self._newest_snapshot(genesis, registry)
        chain = None
        if found is None:
            chain = Chain(LedgerState.founding(genesis, registry), signer, None)
        return self._replay(chain, found, signer)

    def _replay(self, chain: Chain | None, found: _Snapshot | None, signer: Signer) -> Recovered:
        published = None if found is None else found.published
        digests: dict[int, Hash] = {}
        newest: dict[int, _BlockRecord] = {}
        replayed = 0
        parent: Hash | None = None
        for entry in self._journal.read_all():
            if entry.record[0] == _PUBLISHED:
                published = _later(published, _published_of(entry.record))
                continue
            record = _block_record(entry)
            height = record.header.height
            if parent is not None and record.header.parent_digest != parent:
                raise Halt(f"journal: block {height} does not continue the block before it")
            parent = digests[height] = record.digest
            self._firsts.setdefault(entry.segment, height)
            newest.update({one.partition: record for one in record.header.ranges})
            if found is not None and record.digest == found.digest:
                chain = Chain(found.state, signer, decode_block(record.encoded))
            elif chain is not None:
                chain.replay(decode_block(record.encoded))
                self._bytes_since_snapshot += len(record.encoded)
                replayed += 1
        if chain is None:
            assert found is not None
            raise Halt(
                f"the journal lacks block {found.header.height}, of which there is a snapshot: "
                "it is an old copy, or cut short"
            )
        ranges: dict[int, CertifiedRange] = {}
        for partition, record in newest.items():
            ranges[partition] = ranges_of(decode_block(record.encoded))[partition]
        return Recovered(chain, published, digests, ranges, replayed, self._journal.torn_bytes)

    def blocks_after(self, height: int) -> Iterator[tuple[int, bytes]]:
        """(height, block as published) of every journalled block above `height`."""
        for entry in self._journal.read_all():
            if entry.record[0] == _BLOCK:
                record = _block_record(entry)
                if record.header.height > height:
                    yield record.header.height, record.encoded

    # Running ------------------------------------------------------------------------------

    def keep(self, blocks: Sequence[Made]) -> None:
        """Make the blocks durable, with one fsync for all of them."""
        records = [_encode_block_record(made) for made in blocks]
        note, self._note = self._note, None
        if note is not None:
            records.append(_PUBLISHED_RECORD.pack(_PUBLISHED, note.height, note.offset))
        self._journal.append(records)
        segment = self._journal.sync()
        self._firsts.setdefault(segment, blocks[0].block.header.height)
        self._bytes_since_snapshot += sum(map(len, records))

    def note_published(self, published: Published) -> None:
        """Written with the next block: losing it only means to look further back in the topic."""
        self._note = published

    @property
    def snapshot_due(self) -> bool:
        """Whether enough was journalled since the last snapshot."""
        return self._bytes_since_snapshot >= max(
            SNAPSHOT_JOURNAL_BYTES, SNAPSHOT_SHARE * self._snapshot_bytes
        )

    @property
    def bytes_since_snapshot(self) -> int:
        """What a start would have to execute again."""
        return self._bytes_since_snapshot

    def begin_snapshot(self) -> None:
        """Count from here on: the state to be written is the one of now."""
        self._bytes_since_snapshot = 0

    def write_snapshot(
        self,
        header_bytes: bytes,
        state: LedgerState,
        published: Published | None,
        abandon: threading.Event,
    ) -> None:
        """Write a state down, durably, beside everything else that runs: it touches no journal."""
        header = decode_block_header(header_bytes)
        path = self._snapshots / f"{header.height:012d}{_SUFFIX}"
        unfinished = path.with_suffix(".tmp")
        with unfinished.open("wb") as file:
            self._snapshot_bytes = _write_chunks(file, header_bytes, state, published, abandon)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        sync_folder(self._snapshots)
        for older in _snapshot_files(self._snapshots):
            if older != path:
                older.unlink()

    def forget_before(self, height: int) -> None:
        """Drop journal segments all of whose blocks are below `height`."""
        starts = [segment for segment, first in self._firsts.items() if first <= height]
        if not starts:
            return
        keep_from = max(starts)
        self._journal.drop_before(keep_from)
        self._firsts = {s: first for s, first in self._firsts.items() if s >= keep_from}

    def close(self) -> None:
        """Let go of the journal."""
        self._journal.close()

    def _newest_snapshot(self, genesis: bytes, registry: KindRegistry) -> _Snapshot | None:
        for leftover in self._snapshots.glob("*.tmp"):
            leftover.unlink()
        files = _snapshot_files(self._snapshots)
        if not files:
            return None
        path = files[-1]
        try:
            with path.open("rb") as file:
                found = _read_snapshot(file, genesis, registry)
        except (Malformed, struct.error) as fault:
            raise Halt(f"snapshot {path.name}: {fault}: put it back from a backup") from fault
        self._snapshot_bytes = path.stat().st_size
        return found


# Journal records -----------------------------------------------------------------------------


def _encode_block_record(made: Made) -> bytes:
    return _BLOCK_HEAD.pack(_BLOCK, len(made.block.header_bytes)) + made.encoded


def _block_record(entry: journal.Entry) -> _BlockRecord:
    try:
        tag, length = _BLOCK_HEAD.unpack_from(entry.record)
        if tag != _BLOCK:
            raise Malformed(f"unknown record {tag}")
        encoded = entry.record[_BLOCK_HEAD.size :]
        header_bytes = encoded[:length]
        header = decode_block_header(header_bytes)
    except (struct.error, Malformed) as fault:
        raise Halt(f"journal segment {entry.segment}: not a record of this build: {fault}") from (
            fault
        )
    return _BlockRecord(entry.segment, header, hash_block(header_bytes), encoded)


def _published_of(record: bytes) -> Published:
    _, height, offset = _PUBLISHED_RECORD.unpack(record)
    return Published(height, offset)


def _later(known: Published | None, other: Published) -> Published:
    return other if known is None or other.height > known.height else known


# Snapshots -----------------------------------------------------------------------------------


def _snapshot_files(directory: Path) -> list[Path]:
    return sorted(directory.glob(f"*{_SUFFIX}"))


def _write_chunks(
    file: BinaryIO,
    header_bytes: bytes,
    state: LedgerState,
    published: Published | None,
    abandon: threading.Event,
) -> int:
    """Write all chunks and the end; returns the file's size in bytes."""
    known = _NOTHING_PUBLISHED if published is None else published
    size = 0
    digest = sha256()
    for part in (
        _MAGIC,
        *_chunk(header_bytes),
        *_chunk(_PUBLISHED_CHUNK.pack(known.height, known.offset)),
    ):
        digest.update(part)
        size += file.write(part)
    for chunk in snapshot.encode(state):
        if abandon.is_set():
            raise Abandoned
        for part in _chunk(chunk):
            digest.update(part)
            size += file.write(part)
    end = _U32.pack(0)
    digest.update(end)
    return size + file.write(end + digest.digest())


def _chunk(data: bytes) -> tuple[bytes, bytes]:
    return _U32.pack(len(data)), data


def _read_snapshot(file: BinaryIO, genesis: bytes, registry: KindRegistry) -> _Snapshot:
    chunks = _chunks(file)
    header_bytes = next(chunks, b"")
    header = decode_block_header(header_bytes)
    published = _PUBLISHED_CHUNK.unpack(next(chunks, b""))
    state = snapshot.decode(genesis, chunks, registry)
    if state.root_hash != header.state_root:
        raise Malformed(f"its state has the root {state.root_hash.hex()}, not its block's")
    return _Snapshot(
        header,
        hash_block(header_bytes),
        Published(*published) if published[0] else None,
        state,
    )


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    """The chunks of a snapshot file; `Malformed` at its end when it is not what was written."""
    digest = sha256()

    def read(length: int) -> bytes:
        data = file.read(length)
        if len(data) != length:
            raise Malformed("it is cut short")
        digest.update(data)
        return data

    if read(len(_MAGIC)) != _MAGIC:
        raise Malformed("it is none of this format")
    while length := _U32.unpack(read(_U32.size))[0]:
        if length > SNAPSHOT_CHUNK_BYTES_MAX:
            raise Malformed("a chunk is too long")
        yield read(length)
    if file.read(_DIGEST_BYTES + 1) != digest.digest():
        raise Malformed("its checksum is wrong")
