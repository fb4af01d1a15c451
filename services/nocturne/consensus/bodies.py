"""The bytes of blocks that others executed: whom to ask for which part, and what came of it.

Rules: docs/spec/peers.md §6. Pure. What is asked for is the record of a block as its giver
journalled it, after its length, in the parts of a snapshot's content (`offers`), under the block's
digest. One validator is asked for all of one block: two may have it with other signatures of its
leader. Whoever gives what is not that block is asked no more for it; who gives nothing in time
has its turn again after the others.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from nocturne.consensus.offers import PART_BYTES, AskPart, Part
from nocturne.core.blocks import BLOCK_BYTES_MAX, Block, decode_block
from nocturne.core.errors import Malformed, PeerFault
from nocturne.core.identifiers import Hash
from nocturne.core.keys import Key
from nocturne.core.recent import Recent

BLOCKS_MAX: Final = 2
"""Fetched at once: the next is on its way while one is executed; 24 MiB at most."""
ASKED_MAX: Final = 2
"""Parts of one block that are asked for at once."""
PART_MS_MAX: Final = 2_000
"""For a part to come; then the next validator has its turn."""
BLOCK_MS: Final = 5_000
BYTES_PER_MS_MIN: Final = 1_024
"""A block that takes longer than the one and its length at the other comes from nobody who helps.
"""
AGAIN_MS: Final = 2_000
"""After everybody was asked in vain."""
KNOWN_MAX: Final = 64
"""Blocks of which it is remembered who gave something else; past them the lowest goes."""
NEWEST_MAX: Final = 256
NEWEST_BYTES_MAX: Final = 32 * 1024 * 1024
"""Of the newest committed blocks, for others: who lacks more has the topic, or a snapshot."""

_LENGTH: Final = struct.Struct(">I")


def part_of(encoded: bytes, index: int) -> bytes | None:
    """The part with this number of  u32 length ‖ a block's record;  None past the last one."""
    start = index * PART_BYTES - _LENGTH.size
    part = encoded[max(0, start) : start + PART_BYTES]
    return (_LENGTH.pack(len(encoded)) + part if index == 0 else part) or None


class Newest(Recent[Hash, bytes]):
    """The records of the newest committed blocks by digest, for whoever lacks theirs."""

    def __init__(self) -> None:
        super().__init__(len, NEWEST_BYTES_MAX, NEWEST_MAX)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A block whose bytes are missing: whom to ask, first to last, and from when on, in ms."""

    digest: Hash
    height: int
    givers: tuple[Key, ...]
    from_ms: int


@dataclass(slots=True)
class _Fetch:
    height: int
    from_ms: int
    givers: tuple[Key, ...]
    resting_until: int = 0
    """Everybody was asked in vain."""
    refused: set[Key] = field(default_factory=set)
    tried: set[Key] = field(default_factory=set)
    """Those who had their turn since everybody had it."""
    giver: Key | None = None
    began: int = 0
    asked: dict[int, int] = field(default_factory=dict)
    """Parts, and when they were asked for, in ms."""
    parts: dict[int, bytes] = field(default_factory=dict)
    length: int | None = None
    """Of the content in bytes, once its first part came."""
    is_held: bool = False
    """Whether a whole block came, of which is not known yet whether it is the one."""

    def let_go(self) -> None:
        """Of whoever is asked now, and of what it gave."""
        self.giver = None
        self.asked.clear()
        self.parts.clear()
        self.length = None
        self.is_held = False

    @property
    def not_before(self) -> int:
        """When somebody is asked, in ms."""
        return max(self.from_ms, self.resting_until)

    @property
    def late_at(self) -> int:
        """When whoever is asked now has had its time."""
        whole = self.began + BLOCK_MS + (self.length or 0) // BYTES_PER_MS_MIN
        return min([whole, *[at + PART_MS_MAX for at in self.asked.values()]])

    def missing(self) -> list[int]:
        """Parts that may be asked for, in their order; of a block of unknown length the first."""
        count = 1 if self.length is None else -(-self.length // PART_BYTES)
        return [one for one in range(count) if one not in self.parts and one not in self.asked]


class Bodies:
    """One validator's fetches of blocks from others."""

    def __init__(self) -> None:
        self._fetches: dict[Hash, _Fetch] = {}
        self._wanted: list[Hash] = []
        self._gave: Key | None = None
        """Who gave the last block, and is asked for the next one first: others may be away."""

    def want(self, wanted: Sequence[Wanted], tip_height: int, now: int) -> None:
        """These are missing now, first the one that is needed first; `tip_height` is that of the
        newest block that needs no bytes any more. `now` in ms, of any beginning.
        """
        for one in wanted[:BLOCKS_MAX]:
            fetch = self._fetches.get(one.digest)
            if fetch is None:
                fetch = _Fetch(one.height, one.from_ms, one.givers)
                self._fetches[one.digest] = fetch
            fetch.from_ms, fetch.givers = one.from_ms, one.givers
            # A clock that was put back makes nobody wait for longer.
            fetch.resting_until = min(fetch.resting_until, now + AGAIN_MS)
        self._wanted = [one.digest for one in wanted[:BLOCKS_MAX]]
        for digest, fetch in list(self._fetches.items()):
            if digest in self._wanted:
                continue
            if not fetch.is_held:
                fetch.let_go()
            if fetch.height <= tip_height or not (fetch.refused or fetch.is_held):
                del self._fetches[digest]
        while len(self._fetches) > KNOWN_MAX:
            others = [one for one in self._fetches if one not in self._wanted]
            del self._fetches[min(others, key=lambda one: self._fetches[one].height)]

    def asks(self, now: int) -> list[tuple[Key, AskPart]]:
        """Whom to ask for what now."""
        found: list[tuple[Key, AskPart]] = []
        for digest in self._wanted:
            fetch = self._fetches[digest]
            if fetch.is_held or now < fetch.not_before:
                continue
            if fetch.giver is not None and now >= fetch.late_at:
                if fetch.giver == self._gave:
                    self._gave = None
                fetch.let_go()
            if fetch.giver is None and not self._next_giver(fetch, now):
                continue
            assert fetch.giver is not None
            for index in fetch.missing()[: ASKED_MAX - len(fetch.asked)]:
                fetch.asked[index] = now
                found.append((fetch.giver, AskPart(digest, index)))
        return found

    def _next_giver(self, fetch: _Fetch, now: int) -> bool:
        first = [key for key in fetch.givers if key == self._gave]
        for key in (*first, *fetch.givers):
            if key not in fetch.refused and key not in fetch.tried:
                fetch.tried.add(key)
                fetch.giver, fetch.began = key, now
                return True
        fetch.tried.clear()
        fetch.resting_until = now + AGAIN_MS
        return False

    def next_at(self) -> int | None:
        """When `asks` is to be called again, if nothing happens before; None: not at all."""
        times = []
        for digest in self._wanted:
            fetch = self._fetches[digest]
            if fetch.is_held:
                continue
            if fetch.giver is not None:
                times.append(fetch.late_at)
            elif any(key not in fetch.refused for key in fetch.givers):
                times.append(fetch.not_before)
        return min(times, default=None)

    def take(self, key: Key, part: Part) -> Block | None:
        """A part came: the block, if it was the last one that was missing. Whether its bytes are
        what its header says shows when they are executed. `PeerFault` for what is not of it: then
        its sender is asked no more for this block.
        """
        if part.digest not in self._wanted:
            return None
        fetch = self._fetches[part.digest]
        if key != fetch.giver or part.index not in fetch.asked:
            return None
        try:
            return self._take(fetch, part)
        except Malformed as fault:
            self.refuse(part.digest, key)
            raise PeerFault(f"bytes of block {fetch.height}: {fault}") from fault

    def _take(self, fetch: _Fetch, part: Part) -> Block | None:
        if fetch.length is None:
            fetch.length = _length_of(part.data)
        expected = min(PART_BYTES, fetch.length - part.index * PART_BYTES)
        if len(part.data) != expected:
            raise Malformed(f"part {part.index}: expected {expected} bytes, got {len(part.data)}")
        del fetch.asked[part.index]
        fetch.parts[part.index] = part.data
        if fetch.asked or fetch.missing():
            return None
        content = b"".join([fetch.parts[one] for one in sorted(fetch.parts)])
        block = decode_block(content[_LENGTH.size :])
        if block.digest != part.digest:
            raise Malformed("it is another block")
        fetch.parts.clear()
        fetch.is_held = True
        self._gave = fetch.giver
        return block

    def refuse(self, digest: Hash, key: Key) -> None:
        """What this one gave is not the block with this digest."""
        fetch = self._fetches.get(digest)
        if fetch is not None:
            fetch.refused.add(key)
            if key == self._gave:
                self._gave = None
            if fetch.giver == key:
                fetch.let_go()

    def lose(self, digest: Hash) -> None:
        """What came of this block is not held any more."""
        fetch = self._fetches.get(digest)
        if fetch is not None:
            fetch.let_go()


def _length_of(data: bytes) -> int:
    """Of the content whose first part this is."""
    if len(data) < _LENGTH.size:
        raise Malformed(f"part 0: expected at least {_LENGTH.size} bytes, got {len(data)}")
    (length,) = _LENGTH.unpack_from(data)
    if not 0 < length <= BLOCK_BYTES_MAX:
        raise Malformed(f"expected a length of 1 to {BLOCK_BYTES_MAX} bytes, got {length}")
    return _LENGTH.size + int(length)
