"""Merkle trees over a list of leaves: roots, inclusion, consistency, and the frontier that grows.

Rules: docs/spec/blocks.md §3, RFC 6962 §2.1. A leaf hashes as SHA-256(0x00 ‖ data), a node as
SHA-256(0x01 ‖ left ‖ right), the tree without leaves as SHA-256 of nothing. A root binds the
order and the number of its leaves only together with its size: whoever keeps a root keeps both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import ClassVar, Final

from nocturne.core.errors import Malformed

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = sha256(b"").digest()
"""The root of no leaves. RFC 6962 §2.1."""


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 ‖ data). RFC 6962 §2.1."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right). RFC 6962 §2.1."""
    return sha256(b"\x01" + left + right).digest()


def root(leaf_hashes: Sequence[bytes]) -> bytes:
    """The root over leaf hashes, in order. RFC 6962 §2.1."""
    if not leaf_hashes:
        return EMPTY_ROOT
    level = list(leaf_hashes)
    while len(level) > 1:
        level = _parents(level)
    return level[0]


def inclusion_path(leaf_hashes: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """The siblings of leaf `index`, from the leaf up. RFC 6962 §2.1.1."""
    _check_index(index, len(leaf_hashes))
    level = list(leaf_hashes)
    path = []
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        level = _parents(level)
        index >>= 1
    return tuple(path)


def root_from_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """The root of a tree of `size` leaves that has the leaf hash `leaf` at `index`.

    `Malformed` when `index` is not below `size`, when `path` has not exactly the length that
    (index, size) asks for, or when a hash has not 32 bytes. RFC 9162 §2.1.3.2.
    """
    _check_index(index, size)
    _check_hashes("inclusion path", (leaf, *path))
    expected = _inclusion_length(index, size)
    if len(path) != expected:
        raise Malformed(
            f"inclusion path of leaf {index} of {size}: expected {expected} hashes, got {len(path)}"
        )
    node = leaf
    last = size - 1
    siblings = iter(path)
    while last:
        if index & 1:
            node = node_hash(next(siblings), node)
        elif index < last:
            node = node_hash(node, next(siblings))
        index >>= 1
        last >>= 1
    return node


def consistency_path(leaf_hashes: Sequence[bytes], old_size: int) -> tuple[bytes, ...]:
    """What shows that the first `old_size` leaves were only appended to. RFC 6962 §2.1.2.

    Empty for `old_size` 0 and for `old_size` equal to the number of leaves.
    """
    if not 0 <= old_size <= len(leaf_hashes):
        raise Malformed(f"old size: expected 0 to {len(leaf_hashes)}, got {old_size}")
    if old_size == 0:
        return ()
    path: list[bytes] = []
    first, end, whole = 0, len(leaf_hashes), True
    # RFC 6962's SUBPROOF from the root down; the path is written from the bottom up.
    while old_size != end - first:
        split = _split(end - first)
        if old_size <= split:
            path.append(root(leaf_hashes[first + split : end]))
            end = first + split
        else:
            path.append(root(leaf_hashes[first : first + split]))
            first += split
            old_size -= split
            whole = False
    if not whole:
        path.append(root(leaf_hashes[first:end]))
    return tuple(reversed(path))


def verify_consistency(
    old_root: bytes, old_size: int, new_root: bytes, new_size: int, path: Sequence[bytes]
) -> bool:
    """The tree (new_root, new_size) begins with the leaves of (old_root, old_size).

    Only the exact path is right: an empty one for equal sizes and for old size 0, whose root must
    be `EMPTY_ROOT`. RFC 9162 §2.1.4.2.
    """
    if not 0 <= old_size <= new_size or any(
        len(part) != HASH_BYTES for part in (old_root, new_root, *path)
    ):
        return False
    if old_size == 0:
        return not path and old_root == EMPTY_ROOT and (new_size > 0 or new_root == EMPTY_ROOT)
    if old_size == new_size:
        return not path and old_root == new_root
    return _verify_growth(old_root, old_size, new_root, new_size, path)


@dataclass(frozen=True, slots=True)
class Frontier:
    """All that appending to a tree needs: the roots of its perfect subtrees, largest first.

    A tree of 6 leaves has the peaks (root of leaves 0–3, root of leaves 4–5). `Malformed` when
    their number is not the number of ones in `size`, or one has not 32 bytes.
    """

    size: int
    peaks: tuple[bytes, ...]

    EMPTY: ClassVar[Frontier]

    def __post_init__(self) -> None:
        if self.size < 0 or self.size.bit_count() != len(self.peaks):
            raise Malformed(
                f"frontier: expected one peak per one in the size {self.size}, "
                f"got {len(self.peaks)} peaks"
            )
        for peak in self.peaks:
            if len(peak) != HASH_BYTES:
                raise Malformed(f"frontier peak: expected {HASH_BYTES} bytes, got {len(peak)}")

    def append(self, leaf: bytes) -> Frontier:
        """The frontier with one more leaf hash."""
        return self.extend((leaf,))

    def extend(self, leaves: Iterable[bytes]) -> Frontier:
        """The frontier with more leaf hashes, in order."""
        size = self.size
        peaks = list(self.peaks)
        for leaf in leaves:
            node = leaf
            carry = size
            # Each one at the end of the size is a perfect subtree as large as `node`'s.
            while carry & 1:
                node = sha256(b"\x01" + peaks.pop() + node).digest()
                carry >>= 1
            peaks.append(node)
            size += 1
        return Frontier(size, tuple(peaks))

    def root(self) -> bytes:
        """The same root as `root` over all leaf hashes appended so far."""
        if not self.peaks:
            return EMPTY_ROOT
        node = self.peaks[-1]
        for peak in self.peaks[-2::-1]:
            node = sha256(b"\x01" + peak + node).digest()
        return node


Frontier.EMPTY = Frontier(0, ())


def _parents(level: list[bytes]) -> list[bytes]:
    """One level up; an odd last node rises as it is, which makes RFC 6962's unbalanced tree."""
    above = [
        sha256(b"\x01" + left + right).digest()
        for left, right in zip(level[0::2], level[1::2], strict=False)
    ]
    if len(level) & 1:
        above.append(level[-1])
    return above


def _split(size: int) -> int:
    """The largest power of two below `size`. RFC 6962 §2.1."""
    return 1 << ((size - 1).bit_length() - 1)


def _inclusion_length(index: int, size: int) -> int:
    """Siblings below the point where leaf and last leaf part, then one per left subtree."""
    inner = (index ^ (size - 1)).bit_length()
    return inner + (index >> inner).bit_count()


def _check_index(index: int, size: int) -> None:
    if not 0 <= index < size:
        raise Malformed(f"leaf index: expected 0 to {size - 1}, got {index}")


def _check_hashes(what: str, hashes: Iterable[bytes]) -> None:
    for value in hashes:
        if len(value) != HASH_BYTES:
            raise Malformed(f"{what}: expected hashes of {HASH_BYTES} bytes, got {len(value)}")


def _verify_growth(
    old_root: bytes, old_size: int, new_root: bytes, new_size: int, path: Sequence[bytes]
) -> bool:
    """RFC 9162 §2.1.4.2, for 0 < old_size < new_size."""
    # A perfect old tree is itself the first hash and is left out of the path.
    steps = [old_root, *path] if old_size & (old_size - 1) == 0 else list(path)
    if not steps:
        return False
    index, last = old_size - 1, new_size - 1
    while index & 1:
        index >>= 1
        last >>= 1
    old = new = steps[0]
    for step in steps[1:]:
        if last == 0:
            return False
        if index & 1 or index == last:
            old = node_hash(step, old)
            new = node_hash(step, new)
            while index and not index & 1:
                index >>= 1
                last >>= 1
        else:
            new = node_hash(new, step)
        index >>= 1
        last >>= 1
    return last == 0 and old == old_root and new == new_root
