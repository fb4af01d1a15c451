"""Random logs in which authors also rotate and revoke keys, in blocks cut anywhere; and a model of
what `~ledger` means that knows nothing of the code: it applies acts at block ends.

`python -m tests.unit.core.governed_logs SEED` prints one hash over everything a log became, for
comparing machines, Python versions and hash seeds.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from tests.ledger_factory import OPERATORS, Draft, Ledger, author_id, make_genesis, signer

from nocturne.core import snapshot
from nocturne.core.author_keys import (
    AUTHOR_KEY_REVOKED,
    AUTHOR_KEY_ROTATED,
    revoked_payload,
    rotated_payload,
)
from nocturne.core.blocks import RecordDisposition
from nocturne.core.commands import SignedCommand
from nocturne.core.events import Position
from nocturne.core.execution import PartitionBatch, execute
from nocturne.core.identifiers import LEDGER_SESSION
from nocturne.core.keys import Ed25519Signer
from nocturne.core.state import LedgerState

PARTITIONS = 3
AUTHORS = 4
KEYS = 3

Ends = tuple[int, ...]
"""Where a block stops in each partition."""


def key_of(author: int, key: int) -> Ed25519Signer:
    """Key number `key` of an author; number 0 is the first."""
    return signer(100 + author * KEYS + key)


@dataclass(frozen=True, slots=True)
class Wish:
    """What one command asks: `act` is append, rotate, revoke, or operators' revoke."""

    act: str
    author: int
    key: int
    other: int


@dataclass(frozen=True, slots=True)
class Log:
    """Signed commands of a ledger by partition, and what each asks; all sessions are opened by
    the first block, which ends at `opened`.
    """

    ledger: Ledger
    opened: Ends
    wishes: Mapping[int, Sequence[Wish | None]]


def random_log(seed: int, commands: int) -> Log:
    """Openings first; then appends, rotations and revocations by right and wrong keys."""
    dice = Random(seed)
    ledger = Ledger(make_genesis(partitions=PARTITIONS))
    wishes: dict[int, list[Wish | None]] = {number: [] for number in range(PARTITIONS)}

    def add(signed: SignedCommand, wish: Wish | None) -> None:
        wishes[ledger.append(signed).partition].append(wish)

    for author in range(AUTHORS):
        add(ledger.opening(f"of/{author}", author=key_of(author, 0)), None)
    opened = tuple(len(wishes[number]) for number in range(PARTITIONS))
    for number in range(2, commands + 2):
        wish = Wish(
            dice.choice(("append",) * 12 + ("rotate",) * 4 + ("revoke", "operator")),
            dice.randrange(AUTHORS),
            dice.choice((0, 0, 1, 2)),
            dice.randrange(AUTHORS * KEYS),
        )
        add(_command(ledger, wish, number), wish)
    return Log(ledger, opened, wishes)


def _command(ledger: Ledger, wish: Wish, number: int) -> SignedCommand:
    first = author_id(key_of(wish.author, 0))
    author, session = key_of(wish.author, wish.key), LEDGER_SESSION
    match wish.act:
        case "rotate":
            draft = Draft(
                AUTHOR_KEY_ROTATED, rotated_payload(first, key_of(wish.author, new(wish)))
            )
        case "revoke":
            named = author_id(key_of(wish.other % AUTHORS, 0))
            draft = Draft(AUTHOR_KEY_REVOKED, revoked_payload(named))
        case "operator":
            author = OPERATORS[wish.other % len(OPERATORS)]
            draft = Draft(AUTHOR_KEY_REVOKED, revoked_payload(first))
            first = author_id(author)
        case _:
            draft, session = Draft(), f"of/{wish.author}"  # type: ignore[assignment]
    return ledger.command(session, draft, author=author, identity=first, number=number)


def new(wish: Wish) -> int:
    """The key that a rotation asks for."""
    return wish.other % KEYS


def whole(log: Log) -> Ends:
    """The end of the log."""
    return tuple(len(log.wishes[number]) for number in range(PARTITIONS))


def random_blocks(log: Log, dice: Random) -> list[Ends]:
    """Blocks over all of the log, the openings first."""
    return [log.opened, *blocks_between(log.opened, whole(log), dice)]


def blocks_between(start: Ends, end: Ends, dice: Random) -> list[Ends]:
    """Blocks from `start` to `end`, each of a little of some partitions."""
    at = start
    blocks = []
    while at != end:
        step = [dice.choice((0, 0, 1, 2, 5)) for _ in range(PARTITIONS)]
        ends = tuple(min(last, one + more) for one, more, last in zip(at, step, end, strict=True))
        if ends != at:
            blocks.append(ends)
            at = ends
    return blocks


@dataclass(slots=True)
class Outcome:
    """What a log became in given blocks, and which blocks changed the items of `~ledger`."""

    state: LedgerState
    dispositions: dict[Position, RecordDisposition] = field(default_factory=dict)
    changing: list[int] = field(default_factory=list)


def run(log: Log, blocks: Sequence[Ends], restart: Random | None = None) -> Outcome:
    """Execute the log in these blocks; with `restart` now and then from a snapshot."""
    ledger = log.ledger
    outcome = Outcome(ledger.founding)
    for number, ends in enumerate(blocks):
        before = outcome.state
        batches = []
        for position in before.positions:
            end = ends[position.partition]
            if end > position.next_offset:
                records = ledger.log[position.partition][position.next_offset : end]
                prepared = [
                    (position.next_offset + index, ledger.prepare(position.partition, record))
                    for index, record in enumerate(records)
                    if record is not None
                ]
                batches.append(PartitionBatch(position.partition, bytes(range(16)), end, prepared))
        done = execute(before, batches)
        at = [
            Position(one.log_epoch, one.partition, offset)
            for one in done.ranges
            for offset in range(one.start, one.end)
        ]
        outcome.dispositions.update(zip(at, done.records, strict=True))
        if done.state.view.items.root_hash != before.view.items.root_hash:
            outcome.changing.append(number)
        outcome.state = done.state
        if restart is not None and restart.randrange(4) == 0:
            outcome.state = snapshot.decode(
                ledger.genesis_bytes, snapshot.encode(done.state), ledger.registry
            )
            assert outcome.state.root_hash == done.state.root_hash
    return outcome


# The model -----------------------------------------------------------------------------------


def expected(log: Log, blocks: Sequence[Ends]) -> dict[tuple[int, int], str]:
    """What becomes of each command, by (partition, offset): `ok`, or why not."""
    current: dict[int, int | None] = dict.fromkeys(range(AUTHORS), 0)
    said: dict[int, set[int]] = {author: set() for author in range(AUTHORS)}
    answers: dict[tuple[int, int], str] = {}
    at = [0] * PARTITIONS
    for ends in blocks:
        running = dict(current)
        for partition in range(PARTITIONS):
            for offset in range(at[partition], ends[partition]):
                wish = log.wishes[partition][offset]
                answers[partition, offset] = (
                    "ok" if wish is None else _become(wish, current, running, said)
                )
        at = list(ends)
        current = running
    return answers


def _become(
    wish: Wish,
    current: Mapping[int, int | None],
    running: dict[int, int | None],
    said: dict[int, set[int]],
) -> str:
    if wish.act == "operator":
        if running[wish.author] is None:
            return "author_key.revoked"
        said[wish.author].add(wish.other % len(OPERATORS))
        if len(said[wish.author]) >= 2:
            running[wish.author] = None
        return "ok"
    if current[wish.author] != wish.key:
        return "UNKNOWN_AUTHOR"
    if wish.act == "append":
        return "ok"
    if wish.act == "revoke" and wish.other % AUTHORS != wish.author:
        return "author_key.own"
    if running[wish.author] is None:
        return "author_key.revoked"
    running[wish.author] = None if wish.act == "revoke" else new(wish)
    said[wish.author].clear()
    return "ok"


def digest(seed: int) -> str:
    """One hash over blocks' outcome: dispositions, session leaves and the state root."""
    log = random_log(seed, 150)
    outcome = run(log, random_blocks(log, Random(seed)))
    sha = hashlib.sha256(outcome.state.root_hash)
    for position, one in sorted(outcome.dispositions.items(), key=lambda item: str(item[0])):
        sha.update(repr((position, one.events, one.receipt)).encode())
    return sha.hexdigest()


if __name__ == "__main__":
    print(digest(int(sys.argv[1])))
