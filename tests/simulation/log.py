"""The ordered log, and what executing it gives: every block's contents follow from where it stands.

A record is its hash. Execution is a hash of the log hash, so that a block over other records, or
over the same in another order, has other roots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from functools import lru_cache
from typing import Final, Protocol, assert_never

from tests.simulation.signing import digest_of
from tests.simulation.variant import CheckOpening, HostBug

from nocturne.consensus.quorum.machine import NO_DIGEST, NO_RECORDS_ROOT
from nocturne.consensus.quorum.messages import Contents, Proposal
from nocturne.core.blocks import Range
from nocturne.core.encoding import u64
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import Hash, LedgerId
from nocturne.core.log_epochs import LogOpening, check_opening, opened
from nocturne.core.state_leaf import LogPosition

LEDGER: Final = LedgerId(b"\x11" * 32)
TOPIC: Final = b"\x22" * 16
RECORDS_PER_BLOCK_MAX: Final = 5
LOG_EPOCHS_MAX: Final = 9
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
    """What the broker holds. `hashes[end]` is the log hash of all records before `end`, as they are
    counted in the newest log epoch.
    """

    def __init__(self) -> None:
        self.hashes = [Hash(digest_of(b"log"))]
        self.topic = 0
        """How often it was recreated."""
        self.before: Sequence[Hash] | None = None
        """What it held before certified records were lost: the truth about them."""
        self._appended = 0
        self._since: list[int] = []
        """The records that were appended since the loss."""
        self.kept_from = 0
        """The broker has dropped the records before: their time was over."""
        self.opened_topics = [0]
        """The topic that each log epoch began with."""
        self._over: list[tuple[int, list[Hash]]] = []
        """Topic and hashes as who is still in a log epoch that is over finds them."""

    def __len__(self) -> int:
        return len(self.hashes) - 1

    @property
    def log_epoch(self) -> int:
        """The newest."""
        return len(self.opened_topics)

    @property
    def truth(self) -> Sequence[Hash]:
        """What stood in the log before certified records were lost, or stands there."""
        return self.hashes if self.before is None else self.before

    def append(self) -> None:
        """A record that there never was before."""
        self._appended += 1
        if self.before is not None:
            self._since.append(self._appended)
        for hashes in (self.hashes, *(one for _, one in self._over)):
            hashes.append(next_hash(hashes[-1], self._appended))

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
        self._over.append((self.topic, self.hashes))
        self.opened_topics.append(self.topic)
        opening = opening_to(self.log_epoch)
        self.hashes = [*self.before[: end + 1], opened_hash(self.before[end], opening)]
        for record in self._since:
            self.hashes.append(next_hash(self.hashes[-1], record))
        self.before, self._since = None, []

    def shown(
        self, how: Showing | None, end: int, log_epoch: int | None = None
    ) -> tuple[int, Sequence[Hash]]:
        """Topic and hashes for who is in a log epoch (None: the newest), as they are or as a broker
        shows them that misleads from `end` on.
        """
        topic, hashes = self.topic, self.hashes
        if log_epoch is not None and log_epoch < self.log_epoch:
            topic, hashes = self._over[log_epoch - 1]
        kept, rest = hashes[: end + 1], hashes[end + 1 :]
        match how:
            case None:
                return topic, hashes
            case Showing.OTHER | Showing.REWRITTEN:
                return topic, [*kept, *(Hash(digest_of(b"other", one)) for one in rest)]
            case Showing.TRUNCATED | Showing.WITHHELD:
                return topic, kept
            case Showing.RECREATED:
                return topic + 1, [Hash(digest_of(b"recreated"))]
            case unreachable:
                assert_never(unreachable)


def next_hash(last: Hash, record: int) -> Hash:
    """The log hash after one more record."""
    return Hash(digest_of(last, record.to_bytes(8, "big")))


@lru_cache(LOG_EPOCHS_MAX)
def opening_to(log_epoch: int) -> LogOpening:
    """What the operators' record says that opens a log epoch."""
    return LogOpening(0, log_epoch, digest_of(b"topic", u64(log_epoch))[:16], 0)


@lru_cache(LOG_EPOCHS_MAX)
def control_hash_of(log_epoch: int) -> Hash:
    """Of that record."""
    return Hash(digest_of(b"the operators open a log epoch", u64(log_epoch)))


OPENINGS: Final[Mapping[Hash, LogOpening]] = {
    control_hash_of(one): opening_to(one) for one in range(2, LOG_EPOCHS_MAX + 1)
}
"""Of a world: by the control hash of the block that carries it."""


def opened_hash(last: Hash, opening: LogOpening) -> Hash:
    """The log hash before the first record of the next log epoch."""
    return opened(position_at(opening.log_epoch - 1, 0, last), opening).log_hash


def position_at(log_epoch: int, end: int, last: Hash) -> LogPosition:
    """Where the log stands after `end` records."""
    return LogPosition(0, log_epoch, TOPIC, end, last)


def opens(proposal: Proposal) -> bool:
    """Whether the block carries a record of the operators that opens a log epoch."""
    return proposal.header.control_hash != NO_DIGEST


class States(Protocol):
    """What the state is once the records up to a place in the log are executed."""

    def root_after(self, end: int, log_hash: Hash) -> Hash:
        """The state root after the `end` records that this is the log hash of."""


class HashedStates:
    """A state is the hash of the log before it."""

    def root_after(self, end: int, log_hash: Hash) -> Hash:
        """As `States` says."""
        return Hash(digest_of(b"state", log_hash))


HASHED_STATES: Final = HashedStates()


class Chains:
    """Every block that anyone made, correct or not, and where its log ends; and what executing
    records gives.
    """

    def __init__(self, states: States = HASHED_STATES) -> None:
        self.states = states
        self.proposals: dict[Hash, Proposal] = {}
        self._ends: dict[Hash, int] = {Hash(LEDGER): 0}
        self._logs: dict[Hash, Hash] = {Hash(LEDGER): Hash(digest_of(b"log"))}
        self._log_epochs: dict[Hash, int] = {Hash(LEDGER): 1}

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
        log_epoch = self._log_epochs[header.parent_digest]
        opening = OPENINGS.get(header.control_hash)
        if opening is not None:
            end, last, log_epoch = end + 1, opened_hash(last, opening), opening.log_epoch
        self._ends[proposal.digest] = end
        self._logs[proposal.digest] = last
        self._log_epochs[proposal.digest] = log_epoch

    def end_of(self, digest: Hash) -> int | None:
        """Where the next block's range begins."""
        return self._ends.get(digest)

    def log_of(self, digest: Hash) -> Hash:
        """The log hash after the block, as it and those before it say."""
        return self._logs[digest]

    def log_epoch_of(self, digest: Hash) -> int:
        """The log epoch after the block."""
        return self._log_epochs[digest]

    def may_open(self, parent: Hash, opening: LogOpening, check: CheckOpening) -> bool:
        """Whether a block on `parent` may open this log epoch."""
        end, last = self._ends[parent], self._logs[parent]
        try:
            check(position_at(self._log_epochs[parent], end, last), opening)
        except Malformed:
            return False
        return True

    def is_right(
        self,
        proposal: Proposal,
        copy: Sequence[Hash],
        bugs: frozenset[HostBug] = frozenset(),
        check: CheckOpening = check_opening,
    ) -> bool | None:
        """Whether a block says what executing it over `copy` gives; None while its parent is
        unknown.
        """
        header = proposal.header
        start = self._ends.get(header.parent_digest)
        if start is None:
            return None
        parent, last = header.parent_digest, self._logs[header.parent_digest]
        if opens(proposal):
            opening = OPENINGS.get(header.control_hash)
            return (
                opening is not None
                and self.may_open(parent, opening, check)
                and Contents.of(header) == self.opening_of(start, last, opening)
            )
        if not header.ranges and self._log_epochs[parent] > 1:
            # The opening may not be committed yet: the own records are of the log epoch before.
            return self.is_empty_right(proposal)
        if bugs and HostBug.TAKES_ANY_RANGE_START in bugs and header.ranges:
            start = header.ranges[0].start
        end = header.ranges[0].end if header.ranges else start
        if not 0 <= start <= end < len(copy):
            return False
        if end - start > RECORDS_PER_BLOCK_MAX and HostBug.TAKES_ANY_COUNT not in bugs:
            return False
        found, expected = Contents.of(header), self.contents(copy, start, end)
        if bugs and HostBug.TAKES_ANY_ROOT in bugs:
            return found.ranges == expected.ranges
        return found == expected

    def is_empty_right(self, proposal: Proposal) -> bool:
        """Whether a block without anything says what executing it on its parent gives."""
        parent = proposal.header.parent_digest
        expected = self.empty_after(self._ends[parent], self._logs[parent])
        return Contents.of(proposal.header) == expected

    def opening_of(self, end: int, last: Hash, opening: LogOpening) -> Contents:
        """Of the block that opens a log epoch behind `end` records: it takes none."""
        state = self.states.root_after(end + 1, opened_hash(last, opening))
        return Contents((), control_hash_of(opening.log_epoch), 0, NO_RECORDS_ROOT, state)

    def empty_after(self, end: int, last: Hash) -> Contents:
        """Of a block without anything, behind `end` records."""
        return _executed(self.states, last, end, end)

    def contents(self, copy: Sequence[Hash], start: int, end: int) -> Contents:
        """Of a block that takes the records from `start` to `end`."""
        return _executed(self.states, copy[end], start, end)


@lru_cache(KEPT_MAX)
def _executed(states: States, log_hash: Hash, start: int, end: int) -> Contents:
    """Everyone of a world executes the same."""
    state = states.root_after(end, log_hash)
    if end == start:
        return Contents((), NO_DIGEST, 0, NO_RECORDS_ROOT, state)
    one = Range(1, TOPIC, 0, start, end, log_hash)
    root = Hash(digest_of(b"dispositions", log_hash))
    return Contents((one,), NO_DIGEST, end - start, root, state)
