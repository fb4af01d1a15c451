"""Snapshots as files: one that was written here, and one that was fetched from others.

Rules: docs/spec/consensus.md §6, docs/spec/peers.md §5. Shell: all of it blocks.

    <height>.snapshot   magic (8), then chunks (u32 length ‖ bytes): the committed block with its
                        proof (`codec`); u64 height ‖ u64 offset of what was published, and the
                        lines of the changes of the validators; then the content, which is the
                        chunks of the state; then u32 0 and SHA-256 of all before it
    <height>.joined     the same, of a snapshot that was fetched and is proved, before the journal
                        goes on from it
    <digest>.parts      the content of one that is being fetched; a part that has not come is zeros
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final

from nocturne.consensus import codec
from nocturne.consensus.offers import (
    CHUNK_BYTES_MAX,
    PART_BYTES,
    Cutter,
    Manifest,
    Snapshot,
    content_of,
)
from nocturne.consensus.published import Published
from nocturne.consensus.quorum.messages import Committed
from nocturne.core.certified_snapshot import CHANGES_BYTES_MAX, CHANGES_MAX
from nocturne.core.errors import Malformed
from nocturne.runtime.files import sync_folder

SUFFIX: Final = ".snapshot"
JOINED: Final = ".joined"
PARTS: Final = ".parts"

_U32: Final = struct.Struct(">I")
_PUBLISHED: Final = struct.Struct(">QQ")
_MAGIC: Final = b"NOCTSNP2"
_DIGEST_BYTES: Final = 32
_COPY_BYTES: Final = 1024 * 1024


class Abandoned(Exception):  # noqa: N818
    """The process ends: a snapshot that is not finished is not needed."""


@dataclass(frozen=True, slots=True)
class Head:
    """What stands beside a state: its committed block, how far the blocks topic was complete, and
    the `validators` lines of all changes up to the block.
    """

    block: Committed
    published: Published | None
    changes: tuple[bytes, ...]

    @property
    def height(self) -> int:
        """Of the block."""
        return self.block.proposal.header.height


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """A whole snapshot on the disk, and where its content stands in the file."""

    path: Path
    head: Head
    manifest: Manifest
    start: int
    size: int

    def offer(self) -> Snapshot:
        """How others are told of it."""
        known = self.head.published or Published(0, 0)
        return Snapshot(
            self.head.block, self.head.changes, known.height, known.offset, self.manifest
        )


def write(
    path: Path, head: Head, content: Iterable[bytes], abandon: threading.Event
) -> SnapshotFile:
    """Write a snapshot down, durably; it is there whole or not at all."""
    unfinished = path.with_suffix(".tmp")
    digest, cutter = sha256(), Cutter()
    with unfinished.open("wb") as file:

        def put(data: bytes) -> int:
            digest.update(data)
            return file.write(data)

        start = sum(map(put, (_MAGIC, *content_of(_head_chunks(head)))))
        for piece in content:
            if abandon.is_set():
                raise Abandoned
            put(piece)
            cutter.update(piece)
        put(_U32.pack(0))
        file.write(digest.digest())
        file.flush()
        os.fsync(file.fileno())
        size = file.tell()
    unfinished.replace(path)
    sync_folder(path.parent)
    return SnapshotFile(path, head, cutter.manifest(), start, size)


class Reader:
    """Reads a snapshot's file from its beginning: `head`, then all `chunks`, then `end`.
    `Malformed` where it is not what was written.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path
        self._digest = sha256()
        self._cutter = Cutter()
        if self._take(len(_MAGIC)) != _MAGIC:
            raise Malformed("it is none of this format")
        self.head = _head_of(self._chunk(), self._chunk())
        self._start = file.tell()

    def chunks(self) -> Iterator[bytes]:
        """The state's."""
        while True:
            length = self._take(_U32.size)
            if not any(length):
                return
            chunk = self._take(_length(length))
            self._cutter.update(length)
            self._cutter.update(chunk)
            yield chunk

    def end(self) -> SnapshotFile:
        """After the last chunk."""
        if self._file.read(_DIGEST_BYTES + 1) != self._digest.digest():
            raise Malformed("its checksum is wrong")
        manifest = self._cutter.manifest()
        return SnapshotFile(self._path, self.head, manifest, self._start, self._file.tell())

    def _chunk(self) -> bytes:
        return self._take(_length(self._take(_U32.size)))

    def _take(self, length: int) -> bytes:
        data = self._file.read(length)
        if len(data) != length:
            raise Malformed("it is cut short")
        self._digest.update(data)
        return data


def _length(data: bytes) -> int:
    (length,) = _U32.unpack(data)
    if length > CHUNK_BYTES_MAX:
        raise Malformed("a chunk is too long")
    return int(length)


def _head_chunks(head: Head) -> tuple[bytes, bytes]:
    known = head.published or Published(0, 0)
    note = _PUBLISHED.pack(known.height, known.offset) + b"".join(head.changes)
    return codec.encode(head.block), note


def _head_of(block: bytes, note: bytes) -> Head:
    committed = codec.decode(block)
    if not isinstance(committed, Committed):
        raise Malformed("its block is not one with its proof")
    height, offset = _PUBLISHED.unpack_from(note)
    changes = tuple(note[_PUBLISHED.size :].splitlines(keepends=True))
    return Head(committed, Published(height, offset) if height else None, changes)


def is_offered(head: Head) -> bool:
    """Whether others may be told of it: its changes fit into one message."""
    return len(head.changes) <= CHANGES_MAX and sum(map(len, head.changes)) <= CHANGES_BYTES_MAX


def files(folder: Path, suffix: str = SUFFIX) -> list[Path]:
    """The snapshots in a folder, lowest height first."""
    return sorted(folder.glob(f"*{suffix}"))


# Fetching ----------------------------------------------------------------------------------------


class PartsFile:
    """The content of a snapshot that is fetched; what came before a restart is still there."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """What was fetched of others goes."""
        self._manifest = manifest
        self.path = folder / f"{manifest.digest().hex()}{PARTS}"
        for other in files(folder, PARTS):
            if other != self.path:
                other.unlink()
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._file, manifest.size)

    def present(self) -> set[int]:
        """The parts that are there, by their hashes."""
        return {
            index
            for index, expected in enumerate(self._manifest.parts)
            if sha256(os.pread(self._file, PART_BYTES, index * PART_BYTES)).digest() == expected
        }

    def put(self, index: int, data: bytes) -> None:
        """A part that came, with the hash that it is to have."""
        os.pwrite(self._file, data, index * PART_BYTES)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    def remove(self) -> None:
        """It is in its place, or is worth nothing."""
        self.path.unlink(missing_ok=True)


def drop_parts(folder: Path) -> None:
    """What was fetched of any snapshot is not needed."""
    for path in files(folder, PARTS):
        path.unlink()


def chunks_of(path: Path) -> Iterator[bytes]:
    """The chunks of a content; `Malformed` when it is none."""
    with path.open("rb") as file:
        while length := file.read(_U32.size):
            if len(length) < _U32.size or not any(length):
                raise Malformed("a chunk without a length")
            wanted = _length(length)
            chunk = file.read(wanted)
            if len(chunk) != wanted:
                raise Malformed("a chunk is cut")
            yield chunk


def pieces_of(path: Path) -> Iterator[bytes]:
    """A content's bytes."""
    with path.open("rb") as file:
        while piece := file.read(_COPY_BYTES):
            yield piece


def read_part(file: int, found: SnapshotFile, index: int) -> bytes:
    """A part of a snapshot whose file is open."""
    return os.pread(file, found.manifest.length_of(index), found.start + index * PART_BYTES)
