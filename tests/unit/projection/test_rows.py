"""Rows in COPY's binary format say what the blocks say."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache

from tests.ledger_factory import record_value
from tests.unit.projection.chains import Chain, changed_validators, every_outcome
from tests.unit.projection.topics_in_memory import Message, Reader, with_offsets

from nocturne.core import topics
from nocturne.core.blocks import decode_seal
from nocturne.core.certificates import decode_commit_proof
from nocturne.core.identifiers import SessionId
from nocturne.core.keys import signatures_bytes, signatures_from_bytes
from nocturne.projection.rows import (
    COLUMNS,
    COPY_HEADER,
    KIND_EVENTS,
    KIND_GAP,
    KIND_RECEIPT,
    Batch,
    batch_of,
    copy_data,
)


def parse_copy(data: bytes) -> Iterator[list[bytes | None]]:
    """The rows of COPY's binary format, by its documentation."""
    assert data.startswith(COPY_HEADER)
    at = len(COPY_HEADER)
    while True:
        (count,) = struct.unpack_from(">h", data, at)
        at += 2
        if count == -1:
            assert at == len(data)
            return
        fields: list[bytes | None] = []
        for _ in range(count):
            (length,) = struct.unpack_from(">i", data, at)
            at += 4
            fields.append(None if length == -1 else data[at : at + length])
            at += max(length, 0)
        yield fields


def number(data: bytes | None) -> int:
    assert data is not None
    return int.from_bytes(data, "big", signed=True)


@cache
def made_batch() -> tuple[Chain, Batch]:
    return batch_from(every_outcome())


def batch_from(made: Chain) -> tuple[Chain, Batch]:
    reader = Reader(made)
    messages = [
        message
        for block, published in made.published
        for message in (
            Message(topics.BLOCKS, 0, record_value(block)),
            *map(Message.of, published.records),
            Message(topics.SEALS, 0, published.seal_value),
        )
    ]
    reader.read_all(with_offsets(messages))
    return made, batch_of(0, b"", 0, reader.signed, [], [])


def rows_of(table: str) -> list[dict[str, bytes | None]]:
    return rows_in(made_batch()[1], table)


def rows_in(batch: Batch, table: str) -> list[dict[str, bytes | None]]:
    names = [name.strip() for name in COLUMNS[table].split(",")]
    return [
        dict(zip(names, row, strict=True)) for row in parse_copy(copy_data(batch.copied[table]))
    ]


def test_changes_of_the_validators_are_rows_that_lead_to_the_same_sets() -> None:
    made, batch = batch_from(changed_validators())
    rows = rows_in(batch, "validator_changes")
    assert [(number(row["height"]), number(row["number"])) for row in rows] == [(1, 0), (4, 0)]
    sets = made.ledger.genesis.founding_sets
    for row in rows:
        assert row["record"] is not None
        sets = sets.after(number(row["height"]), (row["record"],))
    assert sets == made.ledger.state.view.validator_sets
    assert rows_in(made_batch()[1], "validator_changes") == []


def test_a_batch_counts_what_it_holds() -> None:
    made, batch = made_batch()
    assert (batch.height, batch.digest) == (4, made.published[-1][0].digest)
    assert batch.blocks == len(rows_of("blocks")) == 4
    assert batch.records == len(rows_of("records"))
    assert batch.events == len(rows_of("events")) == 7
    assert batch.receipts == len(rows_of("receipts"))


def test_every_record_has_its_disposition() -> None:
    made, _ = made_batch()
    expected = []
    for block, _ in made.published:
        for index, record in enumerate(block.records):
            kind = KIND_EVENTS if record.events else KIND_GAP
            expected.append(
                (
                    block.header.height,
                    index,
                    KIND_RECEIPT if record.receipt is not None else kind,
                    record.value,
                    record.headers if record.receipt is not None else None,
                )
            )
    assert expected == [
        (
            number(row["height"]),
            number(row["leaf_index"]),
            number(row["kind"]),
            row["value"],
            row["headers"],
        )
        for row in rows_of("records")
    ]


def test_every_event_has_its_header_and_its_own_signature() -> None:
    made, _ = made_batch()
    signatures = {
        record.record_id: signed
        for _, published in made.published
        for record, signed in zip(published.records, published.signatures, strict=True)
        if record.topic == topics.EVENTS
    }
    headers = [
        (block.header.height, leaf, index, header)
        for block, _ in made.published
        for leaf, record in enumerate(block.records)
        for index, header in enumerate(record.events)
    ]
    rows = rows_of("events")
    assert headers == [
        (
            number(row["height"]),
            number(row["leaf_index"]),
            number(row["event_index"]),
            row["header"],
        )
        for row in rows
    ]
    for row in rows:
        event_id = row["event_id"]
        assert event_id is not None
        text = event_id.hex()
        name = "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
        assert row["signatures"] == signatures_bytes(signatures[name.encode()])
        assert signatures_from_bytes(row["signatures"] or b"") == signatures[name.encode()]


def test_every_receipt_has_its_own_signature() -> None:
    made, _ = made_batch()
    expected = {
        record.record_id: signatures_bytes(signed)
        for _, published in made.published
        for record, signed in zip(published.records, published.signatures, strict=True)
        if record.topic == topics.RECEIPTS
    }
    assert expected == {
        b"%d-%d-%d"
        % (number(row["log_epoch"]), number(row["partition"]), number(row["record_offset"])): row[
            "signatures"
        ]
        for row in rows_of("receipts")
    }


def test_a_block_row_carries_proof_seal_and_leaves() -> None:
    made, _ = made_batch()
    for row, (block, published) in zip(rows_of("blocks"), made.published, strict=True):
        assert row["header"] == block.header_bytes
        assert decode_commit_proof(row["proof"] or b"") == block.proof
        assert decode_seal(row["seal"] or b"") == published.seal
        assert len(row["leaves"] or b"") == 32 * block.header.record_count


def test_ranges_lead_from_a_position_to_its_leaf() -> None:
    positions = {
        (number(row["partition"]), number(row["record_offset"])): (
            number(row["height"]),
            number(row["leaf_index"]),
        )
        for row in rows_of("records")
    }
    for row in rows_of("ranges"):
        first, end = number(row["first_offset"]), number(row["end_offset"])
        for offset in range(first, end):
            assert positions.pop((number(row["partition"]), offset)) == (
                number(row["height"]),
                number(row["first_leaf"]) + offset - first,
            )
    assert positions == {}


def test_a_session_opened_in_the_batch_is_inserted_once_with_its_last_leaf() -> None:
    made, batch = made_batch()
    assert set(batch.opened) == {"orders/1", "readings"}
    assert set(batch.changed) == {"~ledger"}
    for name, row in batch.opened.items():
        state = made.ledger.state.session(SessionId(name))
        assert state is not None
        assert row.leaf == state.leaf().encode()
        assert row.closed == state.closed
        assert (row.kind, row.kind_version) == (state.kind, state.kind_version)
        assert row.opened_at == made.published[0][0].header.time
        assert row.updated_at > row.opened_at
