"""The ordered log, and what executing it gives: every block's contents follow from where it stands.

A record is its hash. Execution is a hash of the log hash, so that a block over other records, or
over the same in another order, has other roots.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from functools import lru_cache
from typing import Final, assert_never

from tests.simulation.signing import digest_of
from tests.simulation.variant import HostBug

from nocturne.consensus.quorum.machine import NO_DIGEST, NO_RECORDS_ROOT
from nocturne.consensus.quorum.messages import Contents, Proposal
from nocturne.core.blocks import Range
from nocturne.core.identifiers import Hash, LedgerId

LEDGER: Final = LedgerId(b"\x11" * 32)
TOPIC: Final = b"\x22" * 16
RECORDS_PER_BLOCK_MAX: Final = 5
OPENING: Final = Hash(digest_of(b"the operators open the next log epoch"))
"""The control hash of the operators' record."""
KEPT_MAX: Final = 1_000
"""Executions that are remembered: more than the blocks of a world in a while."""


class Showing(Enum):
    """How a log shows other things than it did."""

    OTHER = "other records"
    """From a place on that nobody had read yet."""
    REWRITTEN = "rewritten"
    """Records that were read, and may be certified, are others now."""
    TRUNCATED = "truncated"
    """They are gone."""
    RECREATED = "recreated"
    """All are gone: another topic of the same name."""
    WITHHELD = "withheld"
    """Nothing new comes."""


LOSSES: Final = (Showing.REWRITTEN, Showing.TRUNCATED, Showing.RECREATED)
"""What may befall certified records."""


class Log:
    """What the broker holds. `hashes[end]` is the log hash of all records before `end`."""

    def __init__(self) -> None:
        self.hashes = [Hash(digest_of(b"log"))]
        self.topic = 0
        """How often it was recreated."""
        self.before: Sequence[Hash] | None = None
        """What it held before certified records were lost: the truth about them."""
        self._appended = 0
        self._since: list[int] = []
        """The records that were appended since the loss."""

    def __len__(self) -> int:
        return len(self.hashes) - 1

    def append(self) -> None:
        """A record that there never was before."""
        self._appended += 1
        if self.before is not None:
            self._since.append(self._appended)
        self.hashes.append(next_hash(self.hashes[-1], self._appended))

    def truncate(self, end: int) -> None:
        """Lose every record from `end` on."""
        del self.hashes[end + 1 :]

    def lose(self, how: Showing, end: int) -> None:
        """Lose certified records from `end` on; the log goes on from there."""
        self.before = tuple(self.hashes)
        self.topic, shown = self.shown(how, end)
        self.hashes = list(shown)

    def reopen(self, end: int) -> None:
        """The operators opened the next log epoch: behind the `end` certified records, and a place
        of its own for the opening, stand the records that came since the loss.
        """
        assert self.before is not None, "nothing was lost"
        self.hashes = [*self.before[: end + 1], opened_hash(self.before[end])]
        for record in self._since:
            self.hashes.append(next_hash(self.hashes[-1], record))
        self.before, self._since = None, []

    def shown(self, how: Showing | None, end: int) -> tuple[int, Sequence[Hash]]:
        """Topic and hashes, as they are or as a broker shows them that misleads from `end` on."""
        kept, rest = self.hashes[: end + 1], self.hashes[end + 1 :]
        match how:
            case None:
                return self.topic, self.hashes
            case Showing.OTHER | Showing.REWRITTEN:
                return self.topic, [*kept, *(Hash(digest_of(b"other", one)) for one in rest)]
            case Showing.TRUNCATED | Showing.WITHHELD:
                return self.topic, kept
            case Showing.RECREATED:
                return self.topic + 1, [Hash(digest_of(b"recreated"))]
            case unreachable:
                assert_never(unreachable)


def next_hash(last: Hash, record: int) -> Hash:
    """The log hash after one more record."""
    return Hash(digest_of(last, record.to_bytes(8, "big")))


def opened_hash(last: Hash) -> Hash:
    """The log hash before the first record of the next log epoch."""
    return Hash(digest_of(b"log epoch", last))


def opens(proposal: Proposal) -> bool:
    """Whether the block carries the operators' record that opens the next log epoch."""
    return proposal.header.control_hash != NO_DIGEST


class Chains:
    """Every block that anyone made, correct or not, and where its log ends."""

    def __init__(self) -> None:
        self.proposals: dict[Hash, Proposal] = {}
        self._ends: dict[Hash, int] = {Hash(LEDGER): 0}
        self._logs: dict[Hash, Hash] = {Hash(LEDGER): Hash(digest_of(b"log"))}

    def know(self, proposal: Proposal) -> None:
        """Remember it; its end too if its parent's is known."""
        header = proposal.header
        self.proposals.setdefault(proposal.digest, proposal)
        if proposal.digest in self._ends or header.parent_digest not in self._ends:
            return
        end = self._ends[header.parent_digest]
        for one in header.ranges:
            end = max(end, one.end)
        last = self._logs[header.parent_digest]
        for one in header.ranges:
            last = one.log_hash
        if opens(proposal):
            end, last = end + 1, opened_hash(last)
        self._ends[proposal.digest] = end
        self._logs[proposal.digest] = last

    def end_of(self, digest: Hash) -> int | None:
        """Where the next block's range begins."""
        return self._ends.get(digest)

    def log_of(self, digest: Hash) -> Hash:
        """The log hash after the block, as it and those before it say."""
        return self._logs[digest]

    def is_right(
        self, proposal: Proposal, copy: Sequence[Hash], bugs: frozenset[HostBug] = frozenset()
    ) -> bool | None:
        """Whether a block says what executing it over `copy` gives; None while its parent is
        unknown.
        """
        header = proposal.header
        start = self._ends.get(header.parent_digest)
        if start is None:
            return None
        if not header.ranges and start == len(copy):
            # Behind an opening that is not committed: there are no records yet.
            copy = [*copy, self._logs[header.parent_digest]]
        if opens(proposal):
            return start < len(copy) and Contents.of(header) == opening_of(copy[start])
        if bugs and HostBug.TAKES_ANY_RANGE_START in bugs and header.ranges:
            start = header.ranges[0].start
        end = header.ranges[0].end if header.ranges else start
        if not 0 <= start <= end < len(copy):
            return False
        if end - start > RECORDS_PER_BLOCK_MAX and HostBug.TAKES_ANY_COUNT not in bugs:
            return False
        found, expected = Contents.of(header), contents(copy, start, end)
        if bugs and HostBug.TAKES_ANY_ROOT in bugs:
            return found.ranges == expected.ranges
        return found == expected


def opening_of(last: Hash) -> Contents:
    """Of the block that opens the next log epoch behind this log hash: it takes no records."""
    state = Hash(digest_of(b"state", opened_hash(last)))
    return Contents((), OPENING, 0, NO_RECORDS_ROOT, state)


def contents(copy: Sequence[Hash], start: int, end: int) -> Contents:
    """Of a block that takes the records from `start` to `end`."""
    return _executed(copy[end], start, end)


@lru_cache(KEPT_MAX)
def _executed(log_hash: Hash, start: int, end: int) -> Contents:
    """Everyone of a world executes the same."""
    state = Hash(digest_of(b"state", log_hash))
    if end == start:
        return Contents((), NO_DIGEST, 0, NO_RECORDS_ROOT, state)
    one = Range(1, TOPIC, 0, start, end, log_hash)
    root = Hash(digest_of(b"dispositions", log_hash))
    return Contents((one,), NO_DIGEST, end - start, root, state)
