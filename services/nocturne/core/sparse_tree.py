"""A map of 32-byte keys with a Merkle root: persistent, and proving presence and absence alike.

Rules: docs/spec/blocks.md, state tree. A key's bits, from the highest of its first byte, lead from
the root down: 0 left, 1 right.

- A subtree without leaves hashes to 32 zero bytes.
- A subtree with exactly one leaf hashes, at whatever depth, to that leaf's hash
  SHA-256(0x00 ‖ key ‖ value).
- Any other hashes to SHA-256(0x01 ‖ left ‖ right), though one side may be without leaves.

The root therefore depends on the pairs alone, not on their order or history. Every update makes
a new tree that shares what did not change; old trees stay valid, so a fork costs nothing. Beside
each value the tree keeps the object it encodes: the state of a ledger lives in its own tree.

A proof has one encoding. On the way down from the root it holds each sibling's hash, and then
what is there: the leaf, or nothing. A leaf beside a subtree without leaves would itself have been
the subtree above, and nothing beside nothing, or beside one leaf, likewise: so the last
sibling of a proof is never 32 zero bytes; siblings above it may be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, Generic, TypeAlias, TypeVar

from nocturne.core.errors import Malformed

KEY_BYTES: Final = 32
DEPTH_MAX: Final = 256
"""One level for each bit of a key."""
EMPTY_HASH: Final = bytes(32)
"""The hash of a subtree without leaves; no SHA-256 input is known to give it."""

T = TypeVar("T")

# Nodes are plain tuples told apart by length, hash first: ten of them are made and read for each
# touched key, and a tuple is the cheapest object there is.
_Empty: TypeAlias = tuple[bytes]
_Inner: TypeAlias = "tuple[bytes, _Node, _Node]"
_Leaf: TypeAlias = tuple[bytes, bytes, bytes, Any]
_Node: TypeAlias = "_Empty | _Inner | _Leaf"

_EMPTY: Final[_Empty] = (EMPTY_HASH,)
_MASKS: Final = (0x80, 0x40, 0x20, 0x10, 0x08, 0x04, 0x02, 0x01)


@dataclass(frozen=True, slots=True)
class Proof:
    """What stands on the way of one key: siblings from the root down, then the leaf met there.

    `leaf` is (key, value): the asked key's own, which shows its value; another's, or None for an
    empty place, which show that the asked key is absent.
    """

    siblings: tuple[bytes, ...]
    leaf: tuple[bytes, bytes] | None


class SparseTree(Generic[T]):
    """An immutable map from 32-byte keys to (value, item); the root hash binds keys and values.

    `item` is any object the caller wants to find again under the key. `SparseTree()` is empty.
    """

    __slots__ = ("_root", "_size")

    _root: _Node
    _size: int

    def __init__(self) -> None:
        self._root = _EMPTY
        self._size = 0

    @property
    def root_hash(self) -> bytes:
        """32 bytes that bind every key and value; 32 zero bytes for the empty tree."""
        return self._root[0]

    @property
    def size(self) -> int:
        """The number of keys."""
        return self._size

    def get(self, key: bytes) -> T | None:
        """The item under `key`, None if there is none."""
        leaf = self._leaf(key)
        return None if leaf is None else leaf[3]

    def value(self, key: bytes) -> bytes | None:
        """The hashed value under `key`, None if there is none."""
        leaf = self._leaf(key)
        return None if leaf is None else leaf[2]

    def update(self, changes: Mapping[bytes, tuple[bytes, T] | None]) -> SparseTree[T]:
        """The tree with each key set to its (value, item), or taken out where that is None.

        One pass over the sorted keys: a node on the way of several keys is hashed once.
        """
        if not changes:
            return self
        batch = _Batch(changes)
        tree: SparseTree[T] = SparseTree()
        tree._root = batch.apply(self._root, 0, len(batch.keys), 0)
        tree._size = self._size + batch.added
        return tree

    def prove(self, key: bytes) -> Proof:
        """The one proof of what stands, or does not stand, under `key`."""
        _check_key(key)
        node = self._root
        siblings = []
        depth = 0
        while len(node) == 3:
            if _bit(key, depth):
                siblings.append(node[1][0])
                node = node[2]
            else:
                siblings.append(node[2][0])
                node = node[1]
            depth += 1
        return Proof(tuple(siblings), (node[1], node[2]) if len(node) == 4 else None)

    def items(self) -> Iterator[tuple[bytes, T]]:
        """Every (key, item), keys ascending."""
        pending = [self._root]
        while pending:
            node = pending.pop()
            if len(node) == 3:
                pending.append(node[2])
                pending.append(node[1])
            elif len(node) == 4:
                yield node[1], node[3]

    def _leaf(self, key: bytes) -> _Leaf | None:
        _check_key(key)
        node = self._root
        depth = 0
        while len(node) == 3:
            node = node[2] if key[depth >> 3] & _MASKS[depth & 7] else node[1]
            depth += 1
        return node if len(node) == 4 and node[1] == key else None


EMPTY: Final[SparseTree[Any]] = SparseTree()


def root_from_proof(key: bytes, proof: Proof) -> tuple[bytes, bytes | None]:
    """The root hash that `proof` speaks of, and the value it has there under `key`, or None.

    `Malformed` unless the proof is the one encoding: at most 256 siblings of 32 bytes, the last of
    them not the empty hash, and at its end nothing (below 256 siblings), or a leaf whose key
    begins with the bits of the way taken. The caller compares the root with one it trusts.
    """
    siblings, leaf = proof.siblings, proof.leaf
    _check_key(key)
    _check_siblings(siblings)
    depth = len(siblings)
    if leaf is None:
        if depth == DEPTH_MAX:
            raise Malformed(f"proof of absence: expected below {DEPTH_MAX} siblings, got {depth}")
        node = EMPTY_HASH
    else:
        _check_key(leaf[0])
        if shared_bits(key, leaf[0]) < depth:
            raise Malformed(
                f"proof leaf: expected a key with the first {depth} bits of {key.hex()}, "
                f"got {leaf[0].hex()}"
            )
        node = sha256(b"\x00" + leaf[0] + leaf[1]).digest()
    for level in range(depth - 1, -1, -1):
        sibling = siblings[level]
        pair = sibling + node if _bit(key, level) else node + sibling
        node = sha256(b"\x01" + pair).digest()
    return node, leaf[1] if leaf is not None and leaf[0] == key else None


def shared_bits(left: bytes, right: bytes) -> int:
    """How many bits two keys have in common from the highest down, 0 to 256."""
    return DEPTH_MAX - (int.from_bytes(left) ^ int.from_bytes(right)).bit_length()


class _Batch:
    """One update on its way through the tree: the keys, sorted, and how many it adds."""

    __slots__ = ("added", "changes", "keys")

    def __init__(self, changes: Mapping[bytes, tuple[bytes, Any] | None]) -> None:
        for key in changes:
            _check_key(key)
        self.changes = changes
        self.keys = sorted(changes)
        self.added = 0

    def apply(self, node: _Node, first: int, end: int, depth: int) -> _Node:
        """The subtree at `depth` after the changes of keys[first:end], at least one."""
        if end - first == 1:
            key = self.keys[first]
            change = self.changes[key]
            if change is None:
                return self._take_out(node, key, depth)
            return self._put(node, key, change, depth)
        middle = self._first_right(first, end, depth)
        left, right = _children(node, depth)
        new_left = self.apply(left, first, middle, depth + 1) if first < middle else left
        new_right = self.apply(right, middle, end, depth + 1) if middle < end else right
        if new_left is left and new_right is right:
            return node
        return _join(new_left, new_right)

    def _first_right(self, first: int, end: int, depth: int) -> int:
        """The index of the first of keys[first:end] that goes right at `depth`."""
        keys, byte, mask = self.keys, depth >> 3, _MASKS[depth & 7]
        while first < end:
            middle = (first + end) >> 1
            if keys[middle][byte] & mask:
                end = middle
            else:
                first = middle + 1
        return first

    def _put(self, node: _Node, key: bytes, change: tuple[bytes, Any], depth: int) -> _Node:
        """Set one key. No subtree loses a leaf, so none of those above collapses."""
        # Written flat: this is the innermost loop of a block's state root.
        value, item = change
        unchanged = node
        siblings = []
        while len(node) == 3:
            if key[depth >> 3] & _MASKS[depth & 7]:
                siblings.append(node[1])
                node = node[2]
            else:
                siblings.append(node[2])
                node = node[1]
            depth += 1
        leaf: _Leaf = (sha256(b"\x00" + key + value).digest(), key, value, item)
        new: _Node = leaf
        if len(node) == 1:
            self.added += 1
        elif node[1] != key:
            self.added += 1
            new = _fork(node, leaf, depth)
        elif node[3] is item and node[2] == value:
            return unchanged
        while siblings:
            sibling = siblings.pop()
            depth -= 1
            if key[depth >> 3] & _MASKS[depth & 7]:
                new = (sha256(b"\x01" + sibling[0] + new[0]).digest(), sibling, new)
            else:
                new = (sha256(b"\x01" + new[0] + sibling[0]).digest(), new, sibling)
        return new

    def _take_out(self, node: _Node, key: bytes, depth: int) -> _Node:
        """Delete one key; a leaf that is left alone rises to where it stands for its subtree."""
        if len(node) == 4 and node[1] == key:
            self.added -= 1
            return _EMPTY
        if len(node) != 3:
            return node
        _, left, right = node
        if _bit(key, depth):
            below = self._take_out(right, key, depth + 1)
            return node if below is right else _join(left, below)
        below = self._take_out(left, key, depth + 1)
        return node if below is left else _join(below, right)


def _children(node: _Node, depth: int) -> tuple[_Node, _Node]:
    """The two halves of a subtree; a lone leaf lies in the half of its key's bit."""
    if len(node) == 3:
        return node[1], node[2]
    if len(node) == 4:
        return (_EMPTY, node) if _bit(node[1], depth) else (node, _EMPTY)
    return _EMPTY, _EMPTY


def _join(left: _Node, right: _Node) -> _Node:
    """The subtree of two halves; a lone leaf stands for it."""
    if len(left) == 1 and len(right) != 3:
        return right
    if len(right) == 1 and len(left) != 3:
        return left
    return (sha256(b"\x01" + left[0] + right[0]).digest(), left, right)


def _fork(old: _Leaf, new: _Leaf, depth: int) -> _Node:
    """The subtree at `depth` of two leaves, whose keys part at or below it."""
    parting = shared_bits(old[1], new[1])
    node: _Node = _join(old, new) if _bit(new[1], parting) else _join(new, old)
    for level in range(parting - 1, depth - 1, -1):
        node = _join(_EMPTY, node) if _bit(new[1], level) else _join(node, _EMPTY)
    return node


def _bit(key: bytes, depth: int) -> int:
    """Not zero if `key` goes right at `depth`."""
    return key[depth >> 3] & _MASKS[depth & 7]


def _check_key(key: bytes) -> None:
    if len(key) != KEY_BYTES:
        raise Malformed(f"key: expected {KEY_BYTES} bytes, got {len(key)}")


def _check_siblings(siblings: tuple[bytes, ...]) -> None:
    if len(siblings) > DEPTH_MAX:
        raise Malformed(f"proof: expected at most {DEPTH_MAX} siblings, got {len(siblings)}")
    for sibling in siblings:
        if len(sibling) != KEY_BYTES:
            raise Malformed(f"proof sibling: expected {KEY_BYTES} bytes, got {len(sibling)}")
    if siblings and siblings[-1] == EMPTY_HASH:
        raise Malformed("proof: expected a last sibling with leaves, got the empty hash")
