"""Read everything that a ledger has written and hold it against everything else.

Plain consumers, plain SQL and the pure core; nothing of the services' own reading paths.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import psycopg
from confluent_kafka import Consumer, KafkaError, TopicPartition

from nocturne.core.block_intake import BlockIntake, CheckedBlock
from nocturne.core.blocks import LogRecord, decode_seal, positions_of, seal_signed
from nocturne.core.errors import Malformed
from nocturne.core.events import Position, decode_event, decode_event_header, event_signed
from nocturne.core.evidence import Evidence, check_evidence, decode_evidence
from nocturne.core.execution import PartitionBatch, execute
from nocturne.core.genesis import decode_genesis, ledger_id_of
from nocturne.core.governing import ControlBatch
from nocturne.core.identifiers import Hash
from nocturne.core.intake import IntakeContext, Prepared, prepare
from nocturne.core.receipts import decode_receipt, receipt_signed
from nocturne.core.state import LedgerState
from nocturne.core.topics import BLOCKS, COMMANDS, EVENTS, EVIDENCE, RECEIPTS, SEALS, unframe

READ_SECONDS_MAX = 60.0


@dataclass(slots=True)
class Truth:
    """What the topics hold, after every signature and proof was checked."""

    state: LedgerState
    blocks: list[CheckedBlock] = field(default_factory=list)
    events: dict[tuple[str, int], bytes] = field(default_factory=dict)
    """(session, sequence) → header bytes, as published with the authority's signature."""
    receipts: dict[Position, bytes] = field(default_factory=dict)
    seals: dict[int, Hash] = field(default_factory=dict)
    offsets: dict[int, int] = field(default_factory=dict)
    """Next offset of each partition of the commands topic."""
    strangers: dict[str, int] = field(default_factory=dict)
    """Records that nobody should believe, by topic."""


def read(bootstrap: str, genesis_bytes: bytes) -> Truth:
    """Everything that is in the topics now. `AssertionError` on any contradiction."""
    genesis = decode_genesis(genesis_bytes)
    ledger_id = ledger_id_of(genesis_bytes)
    truth = Truth(LedgerState.founding(genesis_bytes))
    intake = BlockIntake(ledger_id, genesis.founding_sets, 1, Hash(ledger_id))
    for _, value, _, _, _ in _records(bootstrap, BLOCKS):
        try:
            truth.blocks += intake.offer(value)
        except Malformed:
            truth.strangers[BLOCKS] = truth.strangers.get(BLOCKS, 0) + 1
    digests = {one.block.header.height: one.block.digest for one in truth.blocks}
    for _, value, _, _, _ in _records(bootstrap, SEALS):
        try:
            seal = decode_seal(unframe(value))
            genuine = seal_signed(genesis.authority, seal)
        except Malformed:
            genuine = False
        if not genuine:
            truth.strangers[SEALS] = truth.strangers.get(SEALS, 0) + 1
            continue
        assert digests[seal.height] == seal.block_digest
        assert truth.seals.setdefault(seal.height, seal.signatures_hash) == seal.signatures_hash
    _read_events(bootstrap, truth)
    _read_receipts(bootstrap, truth)
    _execute_again(bootstrap, genesis_bytes, truth)
    return truth


def evidence(bootstrap: str, genesis_bytes: bytes) -> list[Evidence]:
    """What validators were seen to sign twice; each piece was checked as anyone can."""
    validators = decode_genesis(genesis_bytes).validator_set
    found: list[Evidence] = []
    for _, value, _, _, _ in _records(bootstrap, EVIDENCE):
        piece = decode_evidence(unframe(value))
        check_evidence(piece, ledger_id_of(genesis_bytes), validators)
        found.append(piece)
    return found


def check(truth: Truth) -> None:
    """Every offset has exactly one disposition, and each event and receipt of a block is published,
    once, and nothing else is.
    """
    disposed: dict[int, int] = dict.fromkeys(truth.offsets, 0)
    events: dict[tuple[str, int], bytes] = {}
    receipts: dict[Position, bytes] = {}
    for checked in truth.blocks:
        for one in checked.block.header.ranges:
            assert one.start == disposed[one.partition], "ranges are dense"
            disposed[one.partition] = one.end
        places = positions_of(checked.block.header)
        for position, record in zip(places, checked.block.records, strict=True):
            if record.receipt is not None:
                assert not record.events, "events or a receipt, never both"
                receipts[position] = record.receipt
            for header in record.events:
                key = _key_of(header)
                assert key not in events, f"two events at {key}"
                events[key] = header
    assert disposed == truth.offsets, "every offset of the log is disposed of"
    assert events == truth.events, "published events are those of the blocks"
    assert receipts == truth.receipts, "published receipts are those of the blocks"
    assert set(truth.seals) == {one.block.header.height for one in truth.blocks}


def check_postgres(truth: Truth, dsn: str) -> None:
    """Postgres holds exactly the fold: rows, counts, heads and state leaves."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT session, sequence, header FROM nocturne_v1.events"
        ).fetchall()
        assert {(session, sequence): header for session, sequence, header in rows} == truth.events
        rows = connection.execute(
            "SELECT log_epoch, partition, record_offset, header FROM nocturne_v1.receipts"
        ).fetchall()
        found = {Position(epoch, part, offset): header for epoch, part, offset, header in rows}
        assert found == truth.receipts
        rows = connection.execute(
            "SELECT height, digest FROM nocturne_v1.blocks ORDER BY height"
        ).fetchall()
        assert rows == [(one.block.header.height, one.block.digest) for one in truth.blocks]
        rows = connection.execute("SELECT key, leaf FROM nocturne_v1.sessions").fetchall()
        sessions: dict[bytes, bytes] = dict(rows)
        expected = {
            key: truth.state.tree.value(key)
            for key, state in truth.state.tree.items()
            if state is not None
        }
        assert {**expected, **sessions} == expected, "no session that the fold does not have"
        missing = set(expected) - set(sessions)
        assert all(_is_untouched(truth, key) for key in missing)
        progress = connection.execute(
            "SELECT height, events, receipts, records FROM nocturne_v1.progress"
        ).fetchone()
    records = sum(one.block.header.record_count for one in truth.blocks)
    assert progress == (len(truth.blocks), len(truth.events), len(truth.receipts), records)


def _is_untouched(truth: Truth, key: bytes) -> bool:
    """`~ledger` before its first receipt has no row that anything would need."""
    state = truth.state.tree.get(key)
    return state is not None and state.sequence == 0 and state.receipts.size == 0


def _key_of(header_bytes: bytes) -> tuple[str, int]:
    header = decode_event_header(header_bytes)
    return header.session, header.sequence


def _read_events(bootstrap: str, truth: Truth) -> None:
    authority = truth.state.view.genesis.authority
    for _, value, _, _, _ in _records(bootstrap, EVENTS):
        try:
            event = decode_event(unframe(value))
        except Malformed:
            truth.strangers[EVENTS] = truth.strangers.get(EVENTS, 0) + 1
            continue
        if not event_signed(
            authority, event.event_hash, event.timestamp, event.height, event.signatures
        ):
            truth.strangers[EVENTS] = truth.strangers.get(EVENTS, 0) + 1
            continue
        key = (event.header.session, event.header.sequence)
        known = truth.events.setdefault(key, event.header_bytes)
        assert known == event.header_bytes, f"two signed events at {key}"


def _read_receipts(bootstrap: str, truth: Truth) -> None:
    authority = truth.state.view.genesis.authority
    for _, value, _, _, _ in _records(bootstrap, RECEIPTS):
        try:
            receipt = decode_receipt(unframe(value))
        except Malformed:
            truth.strangers[RECEIPTS] = truth.strangers.get(RECEIPTS, 0) + 1
            continue
        if not receipt_signed(
            authority, receipt.receipt_hash, receipt.timestamp, receipt.height, receipt.signatures
        ):
            truth.strangers[RECEIPTS] = truth.strangers.get(RECEIPTS, 0) + 1
            continue
        position = receipt.header.position
        known = truth.receipts.setdefault(position, receipt.header_bytes)
        assert known == receipt.header_bytes, f"two signed receipts at {position}"


def _execute_again(bootstrap: str, genesis_bytes: bytes, truth: Truth) -> None:
    """A fresh fold of the commands topic, block by block, must give every root again."""
    genesis = decode_genesis(genesis_bytes)
    context = IntakeContext.of(ledger_id_of(genesis_bytes), genesis)
    log: dict[int, list[tuple[int, Prepared]]] = {p: [] for p in range(genesis.partitions)}
    truth.offsets = dict.fromkeys(log, 0)
    for key, value, headers, partition, offset in _records(bootstrap, COMMANDS):
        log[partition].append((offset, prepare(context, partition, LogRecord(key, value, headers))))
    truth.offsets = _ends(bootstrap, COMMANDS, genesis.partitions)
    for checked in truth.blocks:
        batches = [
            PartitionBatch(
                one.partition,
                one.topic_uuid,
                one.end,
                _between(log[one.partition], one.start, one.end),
            )
            for one in checked.block.header.ranges
        ]
        control = ControlBatch(checked.block.header.height, checked.block.control)
        result = execute(truth.state, batches, control)
        assert result.ranges == checked.block.header.ranges
        assert result.dispositions_root == checked.block.header.dispositions_root
        assert result.state_root == checked.block.header.state_root
        assert result.records == checked.block.records
        truth.state = result.state


def _between(
    entries: list[tuple[int, Prepared]], start: int, end: int
) -> list[tuple[int, Prepared]]:
    """The entries of offsets [start, end), found by bisection: there are many blocks."""
    first = bisect_left(entries, start, key=lambda entry: entry[0])
    return entries[first : bisect_left(entries, end, key=lambda entry: entry[0])]


Headers = tuple[tuple[str, bytes | None], ...]


def _records(
    bootstrap: str, topic: str
) -> Iterator[tuple[bytes | None, bytes | None, Headers, int, int]]:
    consumer = _consumer(bootstrap)
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        waiting = set(partitions)
        deadline = time.monotonic() + READ_SECONDS_MAX
        while waiting:
            assert time.monotonic() < deadline, f"{topic} could not be read to its end"
            for message in consumer.consume(5000, timeout=0.2):
                error = message.error()
                if error is not None:
                    assert error.code() == KafkaError._PARTITION_EOF, error
                    waiting.discard(message.partition())
                    continue
                partition, offset = message.partition(), message.offset()
                assert partition is not None
                assert offset is not None
                yield (
                    message.key(),
                    message.value(),
                    tuple(cast("list[tuple[str, bytes | None]]", message.headers() or [])),
                    partition,
                    offset,
                )
    finally:
        consumer.close()


def _ends(bootstrap: str, topic: str, partitions: int) -> dict[int, int]:
    consumer = _consumer(bootstrap)
    try:
        return {
            number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10)[1]
            for number in range(partitions)
        }
    finally:
        consumer.close()


def _consumer(bootstrap: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "truth",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            # As validators read the log: what a hung transaction left counts.
            "isolation.level": "read_uncommitted",
        }
    )
