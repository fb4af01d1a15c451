"""Rows put together are the ledger's own records."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.projection.chains import every_outcome

from nocturne.core import merkle, topics
from nocturne.core.blocks import positions_of
from nocturne.core.errors import Malformed
from nocturne.core.events import hash_event
from nocturne.core.keys import signatures_bytes
from nocturne.core.receipts import hash_receipt
from nocturne.query.records import (
    EventRecords,
    EventRow,
    LeafTree,
    ReceiptRow,
    receipt_record,
    unpack_state_changes,
)

HASH = st.binary(min_size=32, max_size=32)


@given(st.lists(HASH, min_size=1, max_size=70))
def test_a_path_is_the_one_of_rfc_6962(leaves: list[bytes]) -> None:
    tree = LeafTree(b"".join(leaves))
    for index in range(len(leaves)):
        assert tree.path(index) == merkle.inclusion_path(leaves, index)


def test_a_leaf_that_is_not_there_has_no_path() -> None:
    with pytest.raises(Malformed):
        LeafTree(bytes(64)).path(2)


@given(st.dictionaries(HASH, st.binary(max_size=200) | st.none(), max_size=20))
def test_state_changes_are_read_as_they_are_written(changes: dict[bytes, bytes | None]) -> None:
    packed = b"".join(
        key + (b"\xff" * 4 if value is None else len(value).to_bytes(4, "big") + value)
        for key, value in changes.items()
    )
    assert unpack_state_changes(packed) == changes


@pytest.mark.parametrize("data", [bytes(33), bytes(32) + b"\x00\x00\x00\x02x", bytes(35)])
def test_state_changes_that_are_cut_off_are_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        unpack_state_changes(data)


def test_envelopes_are_byte_for_byte_what_was_published() -> None:
    made = every_outcome()
    for block, published in made.published:
        header = block.header
        rebuilt = []
        signatures = iter(published.signatures)
        records = EventRecords()
        for leaf, (position, record) in enumerate(
            zip(positions_of(header), block.records, strict=True)
        ):
            for index, data in enumerate(record.events):
                assert record.value is not None
                row = EventRow(
                    0,
                    hash_event(data),
                    header.height,
                    leaf,
                    index,
                    data,
                    signatures_bytes(next(signatures)),
                    header.time,
                    record.value,
                    record.command_length,
                )
                rebuilt.append(topics.frame(4, records.encode(row)))
            if record.receipt is not None:
                receipt = ReceiptRow(
                    position,
                    0,
                    header.height,
                    leaf,
                    hash_receipt(record.receipt),
                    record.receipt,
                    signatures_bytes(next(signatures)),
                    header.time,
                )
                rebuilt.append(topics.frame(5, receipt_record(receipt)))
        assert rebuilt == [record.value for record in published.records]


def test_a_row_that_somebody_spoiled_is_malformed() -> None:
    row = EventRow(1, b"", 1, 0, 0, b"header", b"", 5, b"\x00\x00\x00\x00\x01spoiled", 4)
    with pytest.raises(Malformed):
        EventRecords().encode(row)
    with pytest.raises(Malformed):
        EventRecords().fold_input(row)
