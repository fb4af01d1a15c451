"""Reading records of the log: nothing that anybody can write there raises, and each is named.

Derandomized: the same examples at every run.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ledger_factory import (
    ALICE,
    TOPIC_UUID,
    Draft,
    Ledger,
    answer_of,
    log_record,
    make_genesis,
)
from tests.mutation import mutated

from nocturne.core.blocks import LogRecord, RecordDisposition, hash_record, headers_bytes
from nocturne.core.commands import (
    decode_signed_command,
    encode_signed_command,
    hash_command,
    sign_command,
)
from nocturne.core.encoding import long_to_avro, optional
from nocturne.core.errors import Malformed
from nocturne.core.execution import PartitionBatch, execute
from nocturne.core.genesis import Limits
from nocturne.core.intake import (
    Prepared,
    command_hash_of_value,
    evidence_of,
    is_carried,
    signed_command_of,
)
from nocturne.core.receipts import Reason
from nocturne.core.topics import frame

reproducible = settings(derandomize=True, deadline=None, max_examples=300, print_blob=True)

LIMITS = Limits(
    command_bytes_max=4096,
    record_bytes_max=8192,
    command_events_max=4,
    range_records_max=512,
    block_bytes_max=256 * 1024,
)
LEDGER = Ledger(make_genesis(limits=LIMITS))
SIGNED = LEDGER.opening("s", Draft(), Draft("Other", b"x", "text/plain"))
GOOD = log_record(SIGNED)
HOME = LEDGER.partition_of("s")
VALUE = GOOD.value or b""


def read(record: LogRecord, partition: int = HOME) -> Prepared:
    return LEDGER.prepare(partition, record)


def disposition_of(prepared: Prepared) -> RecordDisposition:
    """What executing one record alone says of it: it never raises."""
    batch = PartitionBatch(HOME, TOPIC_UUID, 1, [(0, prepared)])
    (record,) = execute(LEDGER.founding, [batch]).records
    return record


def test_a_good_record_is_read_whole() -> None:
    prepared = read(GOOD)
    assert (prepared.fault, prepared.detail, prepared.carried) == (None, "", True)
    assert prepared.signed == SIGNED
    assert (prepared.key, prepared.value) == (GOOD.key, GOOD.value)
    assert prepared.headers == headers_bytes(GOOD.headers)
    assert prepared.command_hash == SIGNED.command_hash == hash_command(SIGNED.command_bytes)
    record = disposition_of(prepared)
    assert len(record.events) == 2
    assert command_hash_of_value(record) == SIGNED.command_hash
    assert signed_command_of(record) == SIGNED
    evidence = evidence_of(record)
    assert (evidence.command_bytes, evidence.signatures, evidence.payloads) == (
        SIGNED.command_bytes,
        SIGNED.signatures,
        SIGNED.payloads,
    )


# Bytes that anybody may write -------------------------------------------------------------------

header_values = st.none() | st.binary(max_size=40)
header_lists = st.lists(st.tuples(st.text(max_size=10), header_values), max_size=5)
short = st.none() | st.binary(max_size=300)


@given(key=short, value=short, headers=header_lists)
@reproducible
def test_any_record_gets_exactly_one_disposition(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    prepared = read(LogRecord(key, value, tuple(headers)))
    record = disposition_of(prepared)
    assert record.receipt is not None
    assert not record.events
    assert (record.key, record.value) == (key, value)
    assert command_hash_of_value(record) == prepared.command_hash
    assert signed_command_of(record) == prepared.signed


@given(body=st.binary(max_size=600))
@reproducible
def test_any_bytes_behind_the_prefix_are_read_or_malformed(body: bytes) -> None:
    prepared = read(LogRecord(b"s", frame(1, body), ()))
    assert prepared.fault is not None
    disposition_of(prepared)


@given(seed=st.integers(0, 2**32), edits=st.integers(1, 6))
@settings(reproducible, max_examples=800)
def test_a_mutated_command_is_refused_or_the_same_command(seed: int, edits: int) -> None:
    """Bits flipped, bytes cut out, doubled, put in: what still becomes events is what was signed,
    for only the prefix and the envelope's signature could differ, and Ed25519 signatures do not.
    """
    value = mutated(Random(seed), VALUE, edits)
    prepared = read(replace(GOOD, value=value))
    record = disposition_of(prepared)
    answer = answer_of(record)
    if prepared.fault is None:
        assert value[5:] == VALUE[5:]
        assert isinstance(answer, tuple)
    else:
        assert not record.events
        assert prepared.detail or prepared.fault is not Reason.MALFORMED
    assert command_hash_of_value(record) == prepared.command_hash


def test_every_single_byte_of_a_command_counts() -> None:
    """But for the registry's schema id, no byte can be changed without the record being refused."""
    for at in range(len(VALUE)):
        damaged = bytearray(VALUE)
        damaged[at] ^= 1
        prepared = read(replace(GOOD, value=bytes(damaged)))
        assert (prepared.fault is None) == (1 <= at < 5), at


def test_every_cut_of_a_command_is_malformed() -> None:
    for end in range(len(VALUE)):
        assert read(replace(GOOD, value=VALUE[:end])).fault is Reason.MALFORMED, end


@pytest.mark.parametrize("count", [2**20, 2**31, 2**62])
def test_a_count_that_promises_the_moon_is_malformed_at_once(count: int) -> None:
    """The array of events claims more entries than there are bytes."""
    command = SIGNED.command_bytes
    at = command.index(b"\x08Paid") - 1
    assert command[at] == 4
    for claimed in (long_to_avro(count), long_to_avro(-count) + long_to_avro(1)):
        body = command[:at] + claimed + command[at + 1 :]
        assert read(LogRecord(b"s", frame(1, body), ())).fault is Reason.MALFORMED


def test_arrays_in_several_blocks_are_not_the_one_encoding() -> None:
    """Avro allows them; the signed bytes would decode to the same command, with another hash."""
    command = SIGNED.command_bytes
    at = command.index(b"\x08Paid") - 1
    one_by_one = command[at + 1 : at + 1 + 5 + 17 + 32]
    rest = command[at + 1 + 54 :]
    split = command[:at] + b"\x02" + one_by_one + b"\x02" + rest
    envelope = split + encode_signed_command(SIGNED)[len(command) :]
    prepared = read(LogRecord(b"s", frame(1, envelope), ()))
    assert prepared.fault is Reason.MALFORMED
    assert "one encoding" in prepared.detail
    sized = command[:at] + b"\x03" + long_to_avro(len(command) - at - 2) + command[at + 1 :]
    with pytest.raises(Malformed):
        decode_signed_command(sized + encode_signed_command(SIGNED)[len(command) :])


def test_longer_varints_are_not_the_one_encoding() -> None:
    command = SIGNED.command_bytes
    at = command.index(b"\x08Paid")
    longer = command[:at] + b"\x88\x00" + command[at + 1 :]
    envelope = longer + encode_signed_command(SIGNED)[len(command) :]
    assert read(LogRecord(b"s", frame(1, envelope), ())).fault is Reason.MALFORMED


def test_text_that_is_not_utf8_is_malformed() -> None:
    damaged = VALUE.replace(b"Paid", b"\xff\xfe\xfd\xfc")
    assert read(replace(GOOD, value=damaged)).fault is Reason.MALFORMED


# Names and numbers ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"session": ""},
        {"session": "a b"},
        {"session": "é"},
        {"session": "x" * 129},
        {"occurred_at": -1},
        {"occurred_at": 253_402_300_800_000},
        {"expected_sequence": 1},
        {"expected_sequence": -1},
        {"expected_sequence": 2**53 - 1},
        {"key": ()},
        {"key": ALICE.key * 2},
        {"events": ()},
    ],
    ids=str,
)
def test_a_command_of_another_form_is_malformed(changes: dict[str, object]) -> None:
    command = replace(SIGNED.command, **changes)  # type: ignore[arg-type]
    signed = sign_command(command, SIGNED.payloads[: len(command.events)], ALICE)
    record = replace(log_record(SIGNED), value=frame(1, encode_signed_command(signed)))
    prepared = read(replace(record, key=command.session.encode("utf-8")))
    assert prepared.fault is Reason.MALFORMED
    assert prepared.signed is None


# Size -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "record, fits",
    [
        (LogRecord(b"s", bytes(4096), ()), True),
        (LogRecord(b"s", bytes(4097), ()), False),
        (LogRecord(b"s", bytes(8193), ()), False),
        (LogRecord(bytes(8188), None, ()), True),
        (LogRecord(bytes(8189), None, ()), False),
        (LogRecord(b"", bytes(4096), (("h", bytes(4082)),)), True),
        (LogRecord(b"", bytes(4096), (("h", bytes(4083)),)), False),
        (LogRecord(None, None, (("h", None),) * 1364), True),
        (LogRecord(None, None, (("h", None),) * 1365), False),
    ],
)
def test_a_record_over_a_limit_is_too_large_and_not_carried(record: LogRecord, fits: bool) -> None:
    prepared = read(record)
    assert (prepared.fault is Reason.MALFORMED) == fits
    assert prepared.carried == fits
    disposition = disposition_of(prepared)
    assert is_carried(disposition) == fits
    record_hash = hash_record(record.key, record.value, headers_bytes(record.headers))
    assert disposition.record_hash == record_hash == prepared.command_hash
    if not fits:
        assert prepared.fault is Reason.TOO_LARGE
        assert (disposition.key, disposition.value, disposition.headers) == (None, None, b"")
        assert disposition.command_length == 0


def test_too_large_a_record_says_both_limits() -> None:
    detail = read(LogRecord(b"s", bytes(4097), ())).detail
    for number in ("4096", "4097", "8192", "4102"):
        assert number in detail


# The record hash --------------------------------------------------------------------------------


def test_null_and_empty_and_every_boundary_make_other_hashes() -> None:
    records = [
        LogRecord(None, None, ()),
        LogRecord(b"", None, ()),
        LogRecord(None, b"", ()),
        LogRecord(b"", b"", ()),
        LogRecord(b"a", b"b", ()),
        LogRecord(b"ab", b"", ()),
        LogRecord(b"", b"ab", ()),
        LogRecord(None, None, (("", None),)),
        LogRecord(None, None, (("", b""),)),
        LogRecord(None, None, (("a", b""),)),
        LogRecord(None, None, (("", b"a"),)),
        LogRecord(None, None, (("a", b"b"), ("c", None))),
        LogRecord(None, None, (("c", None), ("a", b"b"))),
        LogRecord(None, None, (("\ud800", None),)),
    ]
    hashes = {read(record).record_hash for record in records}
    assert len(hashes) == len(records)


def test_headers_bytes_are_count_names_and_optional_values() -> None:
    assert headers_bytes(()) == bytes(4)
    assert headers_bytes((("é", None), ("b", b"c"))) == bytes.fromhex(
        "0000000200000002c3a9000000000162010000000163"
    )
    assert optional(b"") == b"\x01\x00\x00\x00\x00" != optional(None)


# What a block says of a record ------------------------------------------------------------------


def test_a_record_may_state_no_command_that_it_does_not_carry() -> None:
    record = disposition_of(read(GOOD))
    for length in (len(VALUE) - 4, len(VALUE) + 100, -1):
        with pytest.raises(Malformed, match="does not carry"):
            command_hash_of_value(replace(record, command_length=length))
    with pytest.raises(Malformed, match="does not carry"):
        command_hash_of_value(replace(record, value=None))
    gap = RecordDisposition(None, None, b"", None, (), None, 0)
    assert command_hash_of_value(gap) is None
