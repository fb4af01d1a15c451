"""The state tree as of a snapshot, kept up block by block, checked against the certified root."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from nocturne.core.blocks import decode_block_header
from nocturne.core.errors import Malformed
from nocturne.core.sparse_tree import SparseTree
from nocturne.query.records import unpack_state_changes
from nocturne.query.store import Snapshot, Store

BLOCKS_PER_FETCH: Final = 256
BLOCKS_CAUGHT_UP_MAX: Final = 20_000
"""Further behind, reading every leaf anew is cheaper."""

Tree = SparseTree[None]


class StateAltered(Malformed):
    """The rows do not make the state root that the block certifies: somebody changed them."""


@dataclass(frozen=True, slots=True)
class _At:
    model: int
    height: int
    tree: Tree


class StateTrees:
    """Gives the tree of the newest snapshot; trees are values, so an older one stays right."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = asyncio.Lock()
        self._at: _At | None = None

    async def newest(self) -> tuple[int, Tree]:
        """(height, tree) as of now. `StateAltered` when it has not the certified root."""
        async with self._lock:
            # The snapshot is taken with the lock held: no later one was asked for before it.
            self._at = await self._store.ask(self._advance)
            return self._at.height, self._at.tree

    async def _advance(self, snapshot: Snapshot) -> _At:
        height = snapshot.applied.height
        at = self._at
        if (
            at is None
            or at.model != snapshot.model
            or not at.height <= height <= at.height + BLOCKS_CAUGHT_UP_MAX
        ):
            leaves = await snapshot.leaves()
            empty: Tree = SparseTree()
            tree = await asyncio.to_thread(
                empty.update, {key: (value, None) for key, value in leaves}
            )
        else:
            tree = await self._caught_up(snapshot, at)
        await _check(snapshot, tree)
        return _At(snapshot.model, height, tree)

    async def _caught_up(self, snapshot: Snapshot, at: _At) -> Tree:
        tree, above = at.tree, at.height
        while above < snapshot.applied.height:
            blocks = await snapshot.state_changes(above, BLOCKS_PER_FETCH)
            changes: dict[bytes, bytes | None] = {}
            for height, packed in blocks:
                changes.update(unpack_state_changes(packed))
                above = height
            tree = tree.update(
                {key: None if value is None else (value, None) for key, value in changes.items()}
            )
        return tree


async def _check(snapshot: Snapshot, tree: Tree) -> None:
    height = snapshot.applied.height
    if height == 0:
        return
    block = await snapshot.block(height)
    if block is None:
        raise StateAltered(f"the read model stands at block {height}, which it does not have")
    certified = decode_block_header(block.header).state_root
    if tree.root_hash != certified:
        raise StateAltered(
            f"the sessions' rows make the state root {tree.root_hash.hex()}, block {height} "
            f"certifies {certified.hex()}: somebody altered the read model"
        )
