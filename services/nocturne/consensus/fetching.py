"""Which snapshot a validator takes of those that are offered, and which part it asks whom for.

Rules: docs/spec/peers.md §5. Pure. Offers are claims until they are proved; whoever sent bytes with
another hash than it named, or a state that is not the block's, is asked no more.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from nocturne.consensus.offers import CONTENT_BYTES_MAX, Manifest, Part, Snapshot
from nocturne.core.certificates import ValidatorSet
from nocturne.core.choice import choose
from nocturne.core.encoding import u64
from nocturne.core.errors import PeerFault
from nocturne.core.identifiers import Hash
from nocturne.core.keys import Key

JOIN_BLOCKS_MIN: Final = 256
"""Blocks that a snapshot saves at least: fewer are executed while one would be fetched."""
BLOCK_WORTH_BYTES: Final = 64 * 1024
"""Of a snapshot may be fetched for each block that it saves: executing one takes as long."""
SIZE_FACTOR_MAX: Final = 2
"""How much larger than what a correct validator offers a snapshot may be that is fetched: its
state is known to be none only once all of it is in memory, in many times its bytes."""
ASKED_MAX: Final = 2
"""Parts that one validator is asked for at once: the next is on its way while one is written."""
PART_SECONDS_MAX: Final = 10.0
FAILURES_MAX: Final = 3
"""Parts that did not come in time, after which a validator is asked no more."""
FETCH_SECONDS: Final = 60.0
"""In which parts may be awaited of a validator beyond those that its bytes are worth."""
FETCH_BYTES_PER_SECOND_MIN: Final = 1024 * 1024
"""Of all who offer a content together; each gives its share of it, or is too slow."""


def worth(snapshot: Snapshot, height: int, urgent: bool) -> int:
    """How much a snapshot saves whoever has executed up to `height`; none is taken for 0 or less.
    `urgent`: it cannot go on otherwise, so the newest is the best whatever its size.
    """
    saved = snapshot.height - height
    if urgent:
        return saved
    if saved < JOIN_BLOCKS_MIN:
        return 0
    return saved * BLOCK_WORTH_BYTES - snapshot.manifest.size


def chosen(
    offers: Mapping[Key, Snapshot],
    height: int,
    urgent: bool,
    validators: ValidatorSet,
    lost: Container[bytes],
) -> Snapshot | None:
    """The best of what is offered by rule S5 (quorum.md §8), None when none is worth it. `lost` are
    candidates that were begun and did not come whole: each other one is better.

    None is taken that is too large beside the others (`size_max`). An offer that counts there may
    be chosen itself: whoever makes the bound small by a false one is found out, and counts no more.
    """
    worthy = {key: one for key, one in offers.items() if worth(one, height, urgent) > 0}
    bound = size_max(worthy, validators)
    small = [one for one in worthy.values() if one.manifest.size <= bound]
    fresh = [one for one in small if candidate(one) not in lost]
    found = {candidate(one): one for one in fresh or small}
    if not found:
        return None
    return found[choose(found, lambda one: worth(found[one], height, urgent))]


def size_max(offers: Mapping[Key, Snapshot], validators: ValidatorSet) -> int:
    """In bytes, of a content that is fetched: twice the (f+1)-th largest that the validators offer,
    for one of f+1 is correct. Where so few offer one, what may be offered at all.
    """
    sizes = sorted(one.manifest.size for key, one in offers.items() if key in validators.keys)
    if len(sizes) <= validators.faulty_max:
        return CONTENT_BYTES_MAX
    return SIZE_FACTOR_MAX * sizes[-1 - validators.faulty_max]


def candidate(snapshot: Snapshot) -> bytes:
    """What is offered, and stands for it in the choice: u64 height ‖ block digest ‖ the content's
    digest.
    """
    block = snapshot.block.proposal.digest
    return u64(snapshot.height) + block + snapshot.manifest.digest()


def sources(offers: Mapping[Key, Snapshot], taken: Snapshot) -> list[Key]:
    """Who offers this content as the state after this block. Who offers it for another one has
    nothing to do with it: a liar may name what others offer truly.
    """
    wanted = candidate(taken)
    return [key for key, one in offers.items() if candidate(one) == wanted]


@dataclass(slots=True)
class _Source:
    asked: dict[int, float] = field(default_factory=dict)
    """Parts, and when they were asked for."""
    failures: int = 0
    given: int = 0
    """Bytes that came in time."""
    owed: float = 0.0
    """Seconds in which parts were awaited of it."""


class Download:
    """The parts of one content: what is missing, and who was asked for it.

    Of s who offer it each has `FETCH_SECONDS` and its share of the least rate for what it gives, so
    all of it takes at most s times `FETCH_SECONDS` and its size at the least rate.
    """

    def __init__(self, manifest: Manifest, present: set[int], keys: Sequence[Key]) -> None:
        """`present` are the parts that are here; `keys` offer the content."""
        self.digest: Hash = manifest.digest()
        self._manifest = manifest
        self._missing = [one for one in range(len(manifest.parts)) if one not in present]
        self._missing.reverse()
        self._sources = {key: _Source() for key in keys}
        self._seconds_per_byte = len(keys) / FETCH_BYTES_PER_SECOND_MIN
        self._looked = 0.0
        self.slow: list[Key] = []
        """Whom nothing more is asked for, since it gave nothing in time or too little."""

    @property
    def is_done(self) -> bool:
        """Whether every part is here."""
        return not self._missing and not any(one.asked for one in self._sources.values())

    @property
    def is_lost(self) -> bool:
        """Whether nobody is left to ask."""
        return not self._sources

    def asks(self, now: float) -> list[tuple[Key, int]]:
        """Whom to ask for which part now. What was asked for and has not come in time is asked of
        another, or again; whoever is too slow is asked no more.
        """
        self._expire(now)
        self._drop_slow()
        found = []
        for key, source in self._sources.items():
            while self._missing and len(source.asked) < ASKED_MAX:
                index = self._missing.pop()
                source.asked[index] = now
                found.append((key, index))
        return found

    def take(self, key: Key, part: Part) -> bool:
        """A part came: whether it is one that is wanted. `PeerFault` when its bytes are others:
        then its sender is asked no more.
        """
        source = self._sources.get(key)
        if source is None or part.digest != self.digest or part.index not in source.asked:
            return False
        if sha256(part.data).digest() != self._manifest.parts[part.index]:
            self.drop(key)
            raise PeerFault(f"snapshot: part {part.index} has another hash than was offered")
        del source.asked[part.index]
        source.failures = 0
        source.given += len(part.data)
        return True

    def drop(self, key: Key) -> None:
        """Ask this one no more."""
        source = self._sources.pop(key, None)
        if source is not None:
            self._missing.extend(sorted(source.asked, reverse=True))

    def _drop_slow(self) -> None:
        for key, source in list(self._sources.items()):
            allowed = FETCH_SECONDS + source.given * self._seconds_per_byte
            if source.owed > allowed or source.failures >= FAILURES_MAX:
                self.slow.append(key)
                self.drop(key)

    def _expire(self, now: float) -> None:
        passed, self._looked = now - self._looked, now
        for key, source in list(self._sources.items()):
            if source.asked:
                source.owed += passed
            late = [one for one, at in source.asked.items() if now - at >= PART_SECONDS_MAX]
            for index in late:
                del source.asked[index]
                self._missing.append(index)
            source.failures += bool(late)
            if late:
                # The others come before it: who keeps silent costs a part its time once.
                self._sources[key] = self._sources.pop(key)
