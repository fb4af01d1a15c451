"""What a validator offers of its snapshots and its log, and what others ask for of them.

Rules: docs/spec/peers.md §5, §6. Pure. A snapshot's *content* is its state's chunks, each after its
length, and is cut into parts that are asked for one by one: every validator that writes one down
after the same block has the same content.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256 as hasher
from typing import Final

from nocturne.consensus.quorum.messages import Committed
from nocturne.core.certified_snapshot import Claim
from nocturne.core.encoding import domain, sha256, u32, u64
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import Hash

PART_BYTES: Final = 256 * 1024
"""Of all parts but the last: a millisecond or two in front of a vote."""
PARTS_MAX: Final = 16_384
CONTENT_BYTES_MAX: Final = PART_BYTES * PARTS_MAX
"""4 GiB: a larger one is neither offered nor fetched."""
CHUNK_BYTES_MAX: Final = 1024 * 1024 * 1024

_PARTS: Final = domain("nocturne/snapshot-parts/v1")
_LENGTH_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Manifest:
    """The length of a content in bytes and the SHA-256 of each part."""

    size: int
    parts: tuple[Hash, ...]

    def digest(self) -> Hash:
        """SHA-256 of domain ‖ u64 size ‖ the parts' hashes: what the content is called."""
        return Hash(sha256(_PARTS + u64(self.size) + b"".join(self.parts)))

    def length_of(self, index: int) -> int:
        """Of a part, in bytes."""
        return min(PART_BYTES, self.size - index * PART_BYTES)


@dataclass(frozen=True, slots=True)
class AskSnapshot:
    """Asks for the newest snapshot after a block above `height`. `urgent`: the asker's log lacks
    records, so it cannot go on without one.
    """

    height: int
    urgent: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot that is offered: the committed block whose state it is, the lines that lead to its
    validators, and where the blocks topic had every block up to one at or above it (a hint).
    """

    block: Committed
    changes: tuple[bytes, ...]
    published_height: int
    published_offset: int
    manifest: Manifest

    @property
    def height(self) -> int:
        """Of the block."""
        return self.block.proposal.header.height

    def claim(self) -> Claim:
        """What of it is to be proved."""
        proposal = self.block.proposal
        return Claim(proposal.header_bytes, proposal.signatures, self.block.proof, self.changes)


@dataclass(frozen=True, slots=True)
class SnapshotOffer:
    """The answer to `AskSnapshot`: the height of the newest block here, and a snapshot above the
    asker's height if there is one.
    """

    height: int
    snapshot: Snapshot | None


@dataclass(frozen=True, slots=True)
class AskPart:
    """Asks for a part of the content with this digest."""

    digest: Hash
    index: int


@dataclass(frozen=True, slots=True)
class Part:
    """The answer to `AskPart`."""

    digest: Hash
    index: int
    data: bytes


def check_manifest(manifest: Manifest) -> None:
    """`Malformed` unless it has as many parts as its size needs."""
    if not 0 < manifest.size <= CONTENT_BYTES_MAX:
        raise Malformed(f"snapshot: expected 1 to {CONTENT_BYTES_MAX} bytes, got {manifest.size}")
    expected = -(-manifest.size // PART_BYTES)
    if len(manifest.parts) != expected:
        raise Malformed(f"snapshot: expected {expected} parts, got {len(manifest.parts)}")


class Cutter:
    """Makes a manifest of a content that comes piece by piece."""

    def __init__(self) -> None:
        self._size = 0
        self._room = PART_BYTES
        self._hasher = hasher()
        self._parts: list[Hash] = []

    def update(self, data: bytes) -> None:
        """The next piece."""
        self._size += len(data)
        view = memoryview(data)
        while view:
            taken = view[: self._room]
            self._hasher.update(taken)
            self._room -= len(taken)
            view = view[len(taken) :]
            if self._room == 0:
                self._cut()

    def manifest(self) -> Manifest:
        """All of it came."""
        if self._room < PART_BYTES:
            self._cut()
        return Manifest(self._size, tuple(self._parts))

    def _cut(self) -> None:
        self._parts.append(Hash(self._hasher.digest()))
        self._hasher = hasher()
        self._room = PART_BYTES


def content_of(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces of the content with these chunks."""
    for chunk in chunks:
        yield u32(len(chunk))
        yield chunk
