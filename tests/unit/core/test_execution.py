"""Execution as a function of the log: the same for every split into blocks, within its limits.

The property tests are derandomized: the same examples at every run. With
`--hypothesis-profile=default --hypothesis-seed=N` after taking `derandomize` out they roam.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ledger_factory import (
    ALICE,
    BOB,
    CAROL,
    TOPIC_UUID,
    Draft,
    Ledger,
    answer_of,
    author_id,
    log_record,
    make_genesis,
)

from nocturne.core import merkle
from nocturne.core.blocks import (
    Disposition,
    LogRecord,
    ProofPointer,
    RecordDisposition,
    StateChange,
    disposition_leaf,
    encode_block,
    log_next,
    log_start,
    positions_of,
)
from nocturne.core.commands import Opening, SignedCommand
from nocturne.core.encoding import TIME_MAX
from nocturne.core.errors import Halt, Malformed
from nocturne.core.events import EventHeader, Position, encode_event_header, hash_event
from nocturne.core.execution import (
    EVENT_BYTES,
    GAP_BYTES,
    KEY_BYTES,
    POSITION_BYTES,
    RECEIPT_BYTES,
    RECORD_BYTES,
    SESSION_BYTES,
    Execution,
    PartitionBatch,
    execute,
)
from nocturne.core.genesis import Limits, one_record_bytes_max
from nocturne.core.identifiers import (
    LEDGER_SESSION,
    EventId,
    Hash,
    LedgerId,
    SessionId,
    session_key,
)
from nocturne.core.intake import Prepared
from nocturne.core.keys import Signature
from nocturne.core.receipts import (
    Head,
    Reason,
    ReceiptHeader,
    decode_receipt_header,
    encode_receipt_header,
    hash_receipt,
)
from nocturne.core.state import LedgerState, SessionState
from nocturne.core.state_leaf import (
    SESSION_LEAF_BYTES,
    LogPosition,
    SessionLeaf,
    encode_positions,
    positions_key,
)

reproducible = settings(derandomize=True, deadline=None, max_examples=40, print_blob=True)

PARTITIONS = 3
SESSIONS = ("a", "b", "c", "d", "e/1")
AUTHORS = (ALICE, BOB, CAROL)
SMALL = Limits(
    command_bytes_max=1024,
    record_bytes_max=2048,
    command_events_max=4,
    range_records_max=7,
    block_bytes_max=12 * 1024,
    id_window=4,
)


# Random logs ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Log:
    """A log of prepared records, None for a gap, and the ledger it is for."""

    ledger: Ledger
    partitions: Mapping[int, Sequence[Prepared | None]]

    @property
    def ends(self) -> dict[int, int]:
        return {partition: len(records) for partition, records in self.partitions.items()}

    def batches(self, state: LedgerState, ends: Mapping[int, int]) -> list[PartitionBatch]:
        batches = []
        for position in state.positions:
            end = ends[position.partition]
            if end > position.next_offset:
                records = [
                    (offset, prepared)
                    for offset in range(position.next_offset, end)
                    if (prepared := self.partitions[position.partition][offset]) is not None
                ]
                batches.append(PartitionBatch(position.partition, TOPIC_UUID, end, records))
        return batches


def random_log(seed: int, records: int, limits: Limits) -> Log:
    """Commands of three authors in a few sessions of three kinds, with every fault there is."""
    dice = Random(seed)
    ledger = Ledger(make_genesis(partitions=PARTITIONS, limits=limits))
    partitions: dict[int, list[Prepared | None]] = {number: [] for number in range(PARTITIONS)}
    for _ in range(records):
        partition, record = random_record(dice, ledger)
        partitions[partition].append(None if record is None else ledger.prepare(partition, record))
    return Log(ledger, partitions)


def random_record(dice: Random, ledger: Ledger) -> tuple[int, LogRecord | None]:
    anywhere = dice.randrange(PARTITIONS)
    match dice.randrange(20):
        case 0:
            return anywhere, None
        case 1:
            return anywhere, LogRecord(b"a", dice.randbytes(dice.randrange(60)), ())
        case 2:
            return anywhere, LogRecord(None, None, (("x", None),))
        case 3:
            return anywhere, LogRecord(b"a", bytes(ledger.genesis.limits.command_bytes_max + 1), ())
    signed = random_command(dice, ledger)
    partition = ledger.partition_of(signed.command.session)
    record = log_record(signed)
    match dice.randrange(20):
        case 0:
            return (partition + 1) % PARTITIONS, record
        case 1:
            (one,) = signed.signatures
            forged = Signature(one.suite, one.key_id, bytes(64))
            return partition, log_record(replace(signed, signatures=(forged,)))
        case 2:
            assert record.value is not None
            at = dice.randrange(len(record.value))
            damaged = bytearray(record.value)
            damaged[at] ^= 1 << dice.randrange(8)
            return partition, replace(record, value=bytes(damaged))
        case 3:
            return partition, replace(record, key=None)
        case _:
            return partition, record


def random_command(dice: Random, ledger: Ledger) -> SignedCommand:
    session = dice.choice((*SESSIONS, "~ledger", "~no"))
    author = dice.choice(AUTHORS)
    opening = None
    if dice.randrange(3) == 0:
        opening = Opening(dice.choice(("facts", "balances", "document", "chess")), 1)
    return ledger.command(
        session,
        *[random_draft(dice) for _ in range(dice.choice((1, 1, 1, 2, 3, 5)))],
        author=author,
        number=dice.randrange(12),
        expected=dice.choice((None, None, 0, 1, 2, 3)) if opening is None else None,
        opening=opening,
        identity=author_id(ALICE) if dice.randrange(15) == 0 else None,
    )


def random_draft(dice: Random) -> Draft:
    other = author_id(dice.choice(AUTHORS)).hex()
    role = dice.choice(("owner", "writer", "writer", "reader"))
    return dice.choice(
        (
            Draft("Moved", b"x:+5", "text/plain"),
            Draft("Moved", b"x:-3", "text/plain"),
            Draft("Moved", b"y:+1", "text/plain"),
            Draft(
                "nocturne.MemberAdded", f'{{"author":"sha256-{other}","role":"{role}"}}'.encode()
            ),
            Draft(
                "nocturne.MemberAdded", f'{{"author":"sha256-{other}","role":"{role}"}}'.encode()
            ),
            Draft("nocturne.MemberRemoved", f'{{"author":"sha256-{other}"}}'.encode()),
            Draft("nocturne.SessionClosed", b"{}" if dice.randrange(3) == 0 else b"{ }"),
            Draft("Sealed", b"...", "application/vnd.nocturne.sealed.v1"),
        )
    )


# The outcome of a whole log ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """What blocks over a log said: each offset's disposition, the state, `~ledger`'s receipts."""

    dispositions: Mapping[Position, RecordDisposition]
    state: LedgerState
    blocks: int

    def sessions(self) -> dict[str, SessionState]:
        return {
            one.session: one
            for _, one in self.state.tree.items()
            if one is not None and one.session != LEDGER_SESSION
        }


def run(log: Log, dice: Random | None) -> Outcome:
    """Execute the log in blocks; each takes from each partition as much as the dice say, or all."""
    state = log.ledger.founding
    dispositions: dict[Position, RecordDisposition] = {}
    blocks = 0
    while any(one.next_offset < log.ends[one.partition] for one in state.positions):
        ends = log.ends
        if dice is not None:
            ends = {
                one.partition: min(
                    log.ends[one.partition], one.next_offset + dice.choice((0, 0, 1, 2, 3, 9))
                )
                for one in state.positions
            }
        batches = log.batches(state, ends)
        if not batches:
            continue
        dice_order = list(batches)
        if dice is not None:
            dice.shuffle(dice_order)
        execution = execute(state, dice_order)
        check_execution(log, state, execution)
        for position, record in zip(positions_in(execution), execution.records, strict=True):
            assert position not in dispositions
            dispositions[position] = record
        state = execution.state
        blocks += 1
    return Outcome(dispositions, state, blocks)


def positions_in(execution: Execution) -> list[Position]:
    return [
        Position(one.log_epoch, one.partition, offset)
        for one in execution.ranges
        for offset in range(one.start, one.end)
    ]


def body_bytes(execution: Execution) -> int:
    """The serialised size of a block's records and state changes."""
    ledger = Ledger()
    block = ledger.block_of(execution)
    empty = replace(
        block, header_bytes=b"", leader_signatures=(), proof=ProofPointer(1, Hash(bytes(32)))
    )
    return len(encode_block(empty)) - len(
        encode_block(replace(empty, records=(), state_changes=()))
    )


def check_execution(log: Log, before: LedgerState, execution: Execution) -> None:
    """What holds for every block: its limits, its roots, its log hashes, and executing it again."""
    limits = log.ledger.genesis.limits
    assert execution.record_count == len(execution.records) > 0
    assert all(0 < one.end - one.start <= limits.range_records_max for one in execution.ranges)
    assert body_bytes(execution) <= limits.block_bytes_max
    assert [one.partition for one in execution.ranges] == sorted(
        {one.partition for one in execution.ranges}
    )
    check_log(log, before, execution)
    check_leaves(log, before, execution)
    ends = {one.partition: one.next_offset for one in before.positions}
    ends.update({one.partition: one.end for one in execution.ranges})
    again = execute(before, log.batches(before, ends))
    assert again.ranges == execution.ranges
    assert again.records == execution.records
    assert (again.dispositions_root, again.state_root) == (
        execution.dispositions_root,
        execution.state_root,
    )


def check_log(log: Log, before: LedgerState, execution: Execution) -> None:
    """The ranges start where the state stands, and their log hashes are those of the records."""
    positions = {one.partition: one for one in before.positions}
    leaves = []
    records = iter(execution.records)
    for one in execution.ranges:
        known = positions[one.partition]
        assert one.start == known.next_offset
        log_hash = known.log_hash
        if one.start == 0:
            log_hash = log_start(before.ledger_id, TOPIC_UUID, 1)
        for offset in range(one.start, one.end):
            prepared, record = log.partitions[one.partition][offset], next(records)
            position = Position(1, one.partition, offset)
            leaves.append(disposition_leaf(disposition(position, prepared, record)))
            if prepared is not None:
                log_hash = log_next(log_hash, offset, prepared.record_hash)
        assert one.log_hash == log_hash
        positions[one.partition] = LogPosition(one.partition, 1, TOPIC_UUID, one.end, log_hash)
    assert execution.dispositions_root == merkle.root(leaves)
    assert execution.state.positions == tuple(positions[key] for key in sorted(positions))


def disposition(
    position: Position, prepared: Prepared | None, record: RecordDisposition
) -> Disposition:
    if prepared is None:
        assert record == RecordDisposition(None, None, b"", None, (), None, 0)
        return Disposition(position, None, (), None)
    assert bool(record.events) != (record.receipt is not None)
    return Disposition(
        position,
        prepared.command_hash,
        tuple(hash_event(one) for one in record.events),
        None if record.receipt is None else hash_receipt(record.receipt),
    )


def check_leaves(log: Log, before: LedgerState, execution: Execution) -> None:
    """The state changes are exactly the leaves that changed, and lead to the state root."""
    changes = {change.key: change.value for change in execution.state_changes}
    assert list(changes) == sorted(changes)
    assert len(changes) == len(execution.state_changes)
    tree = before.tree
    ledger_id = before.ledger_id
    assert changes[positions_key(ledger_id)] == encode_positions(execution.state.positions)
    for key, value in changes.items():
        assert value is not None
        assert tree.value(key) != value
        assert execution.state.tree.value(key) == value
    updated = tree.update({key: (value, None) for key, value in changes.items() if value})
    assert updated.root_hash == execution.state_root == execution.state.root_hash


# Properties -------------------------------------------------------------------------------------


@given(st.integers(0, 2**32), st.integers(0, 2**32))
@reproducible
def test_what_a_record_becomes_does_not_depend_on_where_blocks_begin_and_end(
    seed: int, splits: int
) -> None:
    """Equal for every split of one log: each offset's event headers and receipt header, every
    session but `~ledger` (leaf, members, ids, items), the positions with their log hashes, and of
    `~ledger` everything but the order of its receipts. Nothing else about blocks is equal: their
    number, their disposition roots, and the order of `~ledger`'s receipts, which is the blocks'
    order, and with it that leaf and the state root.
    """
    log = random_log(seed, 60, replace(SMALL, range_records_max=1000, block_bytes_max=1 << 20))
    whole = run(log, None)
    dice = Random(splits)
    for _ in range(3):
        other = run(log, dice)
        assert other.dispositions == whole.dispositions
        _check_sessions(whole.sessions(), other.sessions())
        assert other.state.positions == whole.state.positions
        _check_ledger_sessions(log, whole, other)


def _check_sessions(ones: Mapping[str, SessionState], others: Mapping[str, SessionState]) -> None:
    assert ones.keys() == others.keys()
    for name, one in ones.items():
        other = others[name]
        assert one.leaf() == other.leaf()
        assert list(one.members.items()) == list(other.members.items())
        assert list(one.ids.items()) == list(other.ids.items())
        assert list(one.items.items()) == list(other.items.items())
        assert (one.kind, one.kind_version, one.closed) == (
            other.kind,
            other.kind_version,
            other.closed,
        )


def _check_ledger_sessions(log: Log, whole: Outcome, other: Outcome) -> None:
    leaves = []
    for outcome in (whole, other):
        state = outcome.state.session(LEDGER_SESSION)
        assert state is not None
        leaves.append(state.leaf())
        receipts = [
            merkle.leaf_hash(hash_receipt(record.receipt))
            for record in outcome.dispositions.values()
            if record.receipt is not None and is_the_ledgers(decode_receipt_header(record.receipt))
        ]
        # In the order of the blocks, and in them of the partitions, they make the root.
        assert leaves[-1].receipts_root == merkle.root(receipts)
        assert leaves[-1].receipt_count == len(receipts)
    same_order = list(whole.dispositions) == list(other.dispositions)
    one, two = leaves
    assert replace(one, receipts_root=two.receipts_root) == two
    if same_order:
        assert one == two
        assert whole.state.root_hash == other.state.root_hash


def is_the_ledgers(receipt: ReceiptHeader) -> bool:
    """A receipt that says a head is its session's; `~ledger` itself has one too."""
    return receipt.head is None or receipt.session == LEDGER_SESSION


@given(st.integers(0, 2**32))
@settings(reproducible, max_examples=20)
def test_small_blocks_keep_their_limits_move_on_and_say_the_same(seed: int) -> None:
    log = random_log(seed, 120, SMALL)
    limited = run(log, None)
    unlimited = run(
        Log(Ledger(make_genesis(partitions=PARTITIONS, limits=SMALL)), log.partitions), Random(seed)
    )
    assert limited.dispositions == unlimited.dispositions
    assert limited.blocks > 5


@given(st.integers(0, 2**32))
@settings(reproducible, max_examples=20)
def test_random_logs_have_every_kind_of_outcome(seed: int) -> None:
    """The logs of these tests are worth their name: together they show nearly everything."""
    outcome = run(random_log(seed, 250, SMALL), None)
    answers = [answer_of(one) for one in outcome.dispositions.values()]
    reasons = Counter(one.reason for one in answers if isinstance(one, ReceiptHeader))
    assert None in answers
    assert sum(isinstance(one, tuple) for one in answers) >= 5
    assert len(reasons) >= 8, reasons


# Gaps -------------------------------------------------------------------------------------------


def test_offsets_without_a_record_are_gaps_at_the_start_between_and_at_the_end() -> None:
    ledger = Ledger()
    partition = ledger.partition_of("s")
    for item in (None, ledger.opening("s"), None, None, ledger.command("s", number=2), None):
        ledger.append(item, partition)
    block = ledger.commit()
    (one,) = block.header.ranges
    assert (one.start, one.end, block.header.record_count) == (0, 6, 6)
    answers = [ledger.answers[partition, offset] for offset in range(6)]
    assert [answer is None for answer in answers] == [True, False, True, True, False, True]
    gap = RecordDisposition(None, None, b"", None, (), None, 0)
    assert [record == gap for record in block.records] == [answer is None for answer in answers]


def test_gaps_alone_move_the_position_and_not_the_log_hash() -> None:
    ledger = Ledger()
    partition = ledger.partition_of("s")
    ledger.answer(ledger.opening("s"))
    before = ledger.state.positions[partition]
    ledger.append(None, partition)
    ledger.append(None, partition)
    execution = ledger.execute()
    after = execution.state.positions[partition]
    assert (after.next_offset, after.log_hash) == (before.next_offset + 2, before.log_hash)
    assert [change.key for change in execution.state_changes] == [positions_key(ledger.ledger_id)]


def test_no_records_and_no_gaps_make_an_empty_block() -> None:
    ledger = Ledger()
    execution = execute(ledger.state, [])
    assert (execution.ranges, execution.records, execution.record_count) == ((), (), 0)
    assert execution.dispositions_root == merkle.EMPTY_ROOT
    assert execution.state_root == ledger.state.root_hash


# Limits -----------------------------------------------------------------------------------------


def test_a_range_takes_no_more_offsets_than_its_limit_gaps_counted() -> None:
    limits = replace(SMALL, range_records_max=4, block_bytes_max=1 << 20)
    ledger = Ledger(make_genesis(partitions=1, limits=limits))
    for item in (ledger.opening("s"), None, None, None, None, None, ledger.command("s", number=2)):
        ledger.append(item, 0)
    ends = []
    while any(one.next_offset < 7 for one in ledger.state.positions):
        ends.append(ledger.commit().header.ranges[0].end)
    assert ends == [4, 7]


def largest_record(ledger: Ledger, number: int, opening: bool) -> SignedCommand:
    """As many events, as long names and as many bytes as the limits allow."""
    limits = ledger.genesis.limits
    session = "s" * 128
    drafts = [Draft("T" * 128, b"", "t" * 128) for _ in range(limits.command_events_max)]
    make = ledger.opening if opening else ledger.command
    small = log_record(make(session, *drafts, number=number)).value
    assert small is not None
    room = limits.command_bytes_max - len(small)
    for length in range(room, 0, -1):
        drafts[0] = replace(drafts[0], data=bytes(length))
        signed = make(session, *drafts, number=number)
        value = log_record(signed).value
        assert value is not None
        if len(value) == limits.command_bytes_max:
            return signed
    raise AssertionError("no payload makes the record exactly as large as allowed")


@pytest.mark.parametrize("partitions", [1, 4, 256])
def test_the_largest_record_fits_the_smallest_block_that_a_genesis_may_have(
    partitions: int,
) -> None:
    limits = Limits(16 * 1024, 40 * 1024, 30, 2048, 0, 256, 5000)
    limits = replace(
        limits, block_bytes_max=max(one_record_bytes_max(limits, partitions), 80 * 1024)
    )
    ledger = Ledger(make_genesis(partitions=partitions, limits=limits))
    partition = ledger.partition_of("s" * 128)
    for number in (1, 2):
        signed = largest_record(ledger, number, opening=number == 1)
        record = log_record(signed)
        assert record.value is not None
        size = ledger.prepare(partition, replace(record, headers=(("h", b""),)))
        spare = limits.record_bytes_max - 128 - len(record.value) - len(size.headers)
        ledger.append(replace(record, headers=(("h", bytes(spare)),)), partition)
        execution = ledger.execute()
        assert execution.record_count == 1
        assert len(execution.records[0].events) == 30
        assert limits.record_bytes_max < body_bytes(execution) <= limits.block_bytes_max
        ledger.commit()


def test_a_genesis_whose_largest_record_could_overflow_a_block_is_refused() -> None:
    limits = Limits(16 * 1024, 40 * 1024, 30, 2048, 0, 256, 5000)
    enough = max(one_record_bytes_max(limits, 4), 80 * 1024)
    Ledger(make_genesis(limits=replace(limits, block_bytes_max=enough)))
    for bytes_max in (enough - 1, 8 * 1024 * 1024):
        with pytest.raises(Malformed, match="genesis: limits"):
            Ledger(make_genesis(limits=replace(limits, block_bytes_max=bytes_max)))


@pytest.mark.parametrize("size", range(100, 260, 8))
def test_a_partition_with_large_records_is_not_starved_by_busy_ones(size: int) -> None:
    """Each of four partitions always has more than a block's worth; one has only large records,
    which no share is large enough for.
    """
    limits = replace(SMALL, range_records_max=1000, block_bytes_max=9472)
    ledger = Ledger(make_genesis(partitions=4, limits=limits))
    small = LogRecord(None, bytes(size), ())
    large = LogRecord(None, bytes(1000), (("h", bytes(1000)),))
    prepared = {
        number: ledger.prepare(number, large if number == 3 else small) for number in range(4)
    }
    state = ledger.state
    for _ in range(40):
        batches = []
        for one in state.positions:
            start = one.next_offset
            records = [(start + n, prepared[one.partition]) for n in range(40)]
            batches.append(PartitionBatch(one.partition, TOPIC_UUID, start + 40, records))
        execution = execute(state, batches)
        assert body_bytes(execution) <= limits.block_bytes_max
        state = execution.state
    assert min(one.next_offset for one in state.positions) >= 5


def many_events(ledger: Ledger, number: int) -> SignedCommand:
    return ledger.command("s", *[Draft("T", b"", "t")] * 4, number=10 + number)


def many_sessions(ledger: Ledger, number: int) -> SignedCommand:
    return ledger.opening(f"s{number}", Draft("T", b"", "t"))


def many_receipts(ledger: Ledger, number: int) -> SignedCommand:
    return ledger.command("s", Draft("T", b"", "t"), number=10 + number, expected=2**40)


def many_repeated(ledger: Ledger, number: int) -> SignedCommand:
    return ledger.opening("s")


def many_large(ledger: Ledger, number: int) -> LogRecord:
    return LogRecord(b"s", bytes(3000), ())


def many_gaps(ledger: Ledger, number: int) -> None:
    return None


@pytest.mark.parametrize(
    "item, least_part",
    [
        (many_events, 0.7),
        (many_sessions, 0.7),
        (many_receipts, 0.5),
        (many_repeated, 0.5),
        (many_large, 0.2),
        (many_gaps, 0.7),
    ],
)
def test_a_block_full_of_one_thing_keeps_its_limit_and_is_full(
    item: Callable[[Ledger, int], SignedCommand | LogRecord | None], least_part: float
) -> None:
    """What is counted is the most that records can become, so a block is not always quite full."""
    limits = replace(SMALL, range_records_max=10_000, block_bytes_max=16 * 1024)
    ledger = Ledger(make_genesis(partitions=1, limits=limits))
    ledger.answer(ledger.opening("s"))
    for number in range(6000 if item is many_gaps else 200):
        ledger.append(item(ledger, number), 0)
    for _ in range(2):
        execution = ledger.execute()
        assert body_bytes(execution) <= limits.block_bytes_max
        assert body_bytes(execution) >= limits.block_bytes_max * least_part
        ledger.commit()


HUGE = 2**53 - 1
NAME = "n" * 128
LAST_PLACE = Position(2**31 - 1, 255, HUGE)


def test_no_event_header_is_larger_than_counted() -> None:
    header = EventHeader(
        LedgerId(bytes(32)),
        SessionId(NAME),
        HUGE,
        Hash(bytes(32)),
        EventId(bytes(16)),
        Hash(bytes(32)),
        LAST_PLACE,
        2**31 - 1,
        author_id(ALICE),
        ALICE.key,
        NAME,
        NAME,
        Hash(bytes(32)),
        TIME_MAX,
        Opening(NAME, 2**31 - 1),
    )
    names = 4 * len(NAME)
    size = len(encode_event_header(header))
    # Three bytes of length in the block's list.
    assert size + 3 <= EVENT_BYTES + names + KEY_BYTES + 32
    assert size + 3 >= EVENT_BYTES + names + KEY_BYTES + 32 - 32


def test_no_receipt_header_is_larger_than_counted() -> None:
    header = ReceiptHeader(
        LedgerId(bytes(32)),
        Hash(bytes(32)),
        Reason.INVARIANT_VIOLATION,
        NAME,
        NAME,
        HUGE,
        True,
        Head(HUGE, Hash(bytes(32))),
        LAST_PLACE,
        LAST_PLACE,
    )
    assert RECEIPT_BYTES - 64 <= len(encode_receipt_header(header)) <= RECEIPT_BYTES


def test_no_list_entry_of_a_block_is_larger_than_counted() -> None:
    ledger = Ledger()
    empty = execute(ledger.state, [])
    nothing = body_bytes(replace(empty, state_changes=()))
    value = bytes(2**21)
    record = RecordDisposition(value, value, value, Hash(bytes(32)), (), value, 2**31 - 1)
    one = replace(empty, state_changes=(), records=(record,))
    assert body_bytes(one) - nothing <= RECORD_BYTES + 4 * len(value)
    gap = RecordDisposition(None, None, b"", None, (), None, 0)
    gaps = replace(empty, state_changes=(), records=(gap,) * 100)
    assert body_bytes(gaps) - nothing <= 100 * GAP_BYTES
    leaf = StateChange(Hash(bytes(32)), bytes(SESSION_LEAF_BYTES))
    assert body_bytes(replace(empty, state_changes=(leaf,))) - nothing <= SESSION_BYTES
    assert body_bytes(empty) - nothing <= SESSION_BYTES + 4 * POSITION_BYTES


def test_a_lower_bound_of_the_caller_is_kept_too() -> None:
    ledger = Ledger()
    for number in range(20):
        ledger.append(ledger.opening(f"s{number}"))
    execution = execute(ledger.state, ledger.waiting(), body_bytes_max=5000)
    assert 0 < execution.record_count < 20
    assert body_bytes(execution) <= 5000


# What a caller must not do ----------------------------------------------------------------------


def test_a_topic_made_anew_halts() -> None:
    ledger = Ledger()
    ledger.answer(ledger.opening("s"))
    ledger.append(ledger.command("s", number=2))
    (batch,) = ledger.waiting()
    with pytest.raises(Halt, match="made anew"):
        execute(ledger.state, [replace(batch, topic_uuid=bytes(15) + b"\x01")])


def test_records_out_of_order_are_our_own_bug() -> None:
    ledger = Ledger()
    ledger.append(ledger.opening("s"))
    ledger.append(ledger.command("s", number=2))
    (batch,) = ledger.waiting()
    with pytest.raises(AssertionError):
        execute(ledger.state, [replace(batch, records=list(reversed(batch.records)))])


# The leaf of a session --------------------------------------------------------------------------


def test_a_sessions_leaf_is_the_roots_over_its_events_and_receipts() -> None:
    ledger = Ledger()
    ledger.answer(ledger.opening("s", Draft(), Draft()))
    ledger.answer(ledger.command("s", number=2, expected=7))
    ledger.answer(ledger.command("s", number=3))
    ledger.answer(ledger.command("s", author=BOB))
    events = [
        hash_event(one)
        for block in ledger.blocks
        for record in block.records
        for one in record.events
    ]
    receipts = [
        hash_receipt(record.receipt)
        for block in ledger.blocks
        for record in block.records
        if record.receipt is not None
    ]
    value = ledger.state.tree.value(session_key(ledger.ledger_id, SessionId("s")))
    assert value is not None
    leaf = SessionLeaf.decode(value)
    assert (leaf.sequence, leaf.head_hash) == (3, events[-1])
    assert leaf.events_root == merkle.root([merkle.leaf_hash(one) for one in events])
    assert leaf.receipt_count == len(receipts) == 2
    assert leaf.receipts_root == merkle.root([merkle.leaf_hash(one) for one in receipts])


def test_a_receipt_names_the_reason_of_its_record_at_its_position() -> None:
    ledger = Ledger()
    ledger.answer(ledger.opening("s"))
    ledger.answer(ledger.command("s", number=1))
    block = ledger.blocks[-1]
    (record,) = block.records
    assert record.receipt is not None
    receipt = decode_receipt_header(record.receipt)
    (position,) = positions_of(block.header)
    assert (receipt.reason, receipt.position) == (Reason.ID_REUSED, position)
