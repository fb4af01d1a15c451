"""Hash inputs, numbers, identifiers, partitions: no two share bytes, no text has two meanings."""

from __future__ import annotations

import io

import pytest
from fastavro import schemaless_writer
from hypothesis import given, settings
from hypothesis import strategies as st

from nocturne.core.encoding import domain, long_to_avro, optional, u8, u32, u64, variable
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import (
    Hash,
    LedgerId,
    SessionId,
    event_id,
    format_hash,
    format_id,
    is_content_type,
    is_reserved_session,
    is_session_id,
    is_type_name,
    parse_hash,
    parse_id,
    session_key,
)
from nocturne.core.topics import (
    FIXED_SCHEMA_IDS,
    TOPICS,
    cloud_event_headers,
    frame,
    partition_of,
    unframe,
)

reproducible = settings(derandomize=True, deadline=None, max_examples=200)
LEDGER = LedgerId(bytes(32))


def test_a_domain_is_its_length_and_its_tag() -> None:
    assert domain("ab") == b"\x02ab"
    assert len(domain("x" * 255)) == 256
    for bad in ("", "x" * 256):
        with pytest.raises(ValueError, match="1 to 255"):
            domain(bad)


def test_numbers_are_big_endian_and_bounded() -> None:
    assert (u8(1), u32(1), u64(1)) == (b"\x01", b"\x00\x00\x00\x01", bytes(7) + b"\x01")
    for number, encode in ((256, u8), (2**32, u32), (2**64, u64), (-1, u8), (-1, u64)):
        with pytest.raises(Exception, match=r"range|format|int"):
            encode(number)


@given(st.lists(st.none() | st.binary(max_size=6), max_size=4), st.data())
@reproducible
def test_no_two_lists_of_fields_share_their_bytes(
    fields: list[bytes | None], data: st.DataObject
) -> None:
    others = data.draw(st.lists(st.none() | st.binary(max_size=6), max_size=4))
    joined = b"".join(map(optional, fields))
    assert (joined == b"".join(map(optional, others))) == (fields == others)


def test_null_is_not_empty() -> None:
    assert optional(None) == b"\x00"
    assert optional(b"") == b"\x01" + variable(b"")


@given(st.integers(-(2**63), 2**63 - 1))
@reproducible
def test_longs_are_those_of_avro(number: int) -> None:
    out = io.BytesIO()
    schemaless_writer(out, "long", number)
    assert long_to_avro(number) == out.getvalue()


# Identifiers -----------------------------------------------------------------------------------


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=16, max_size=16))
@reproducible
def test_hashes_and_ids_are_read_back(value: bytes, identity: bytes) -> None:
    assert parse_hash(format_hash(value)) == value
    assert parse_id(format_id(identity)) == identity


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256-",
        "00" * 32,
        "sha256-" + "0" * 63,
        "sha256-" + "0" * 65,
        "sha256-" + "0" * 63 + "A",
        "sha256-" + "0" * 64 + "\n",
        "SHA256-" + "0" * 64,
        " sha256-" + "0" * 64,
        "sha256-" + "٠" * 64,
    ],
)
def test_no_other_text_is_a_hash(text: str) -> None:
    with pytest.raises(Malformed):
        parse_hash(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0" * 32,
        "{00000000-0000-0000-0000-000000000000}",
        "00000000-0000-0000-0000-00000000000A",
        "00000000-0000-0000-0000-000000000000\n",
        "urn:uuid:00000000-0000-0000-0000-000000000000",
    ],
)
def test_no_other_text_is_an_id(text: str) -> None:
    with pytest.raises(Malformed):
        parse_id(text)


def test_names_are_of_their_letters_and_lengths() -> None:
    assert all(map(is_session_id, ("a", "orders/1", "a@b.c", "x" * 128, "~ledger", "A_z:9-")))
    assert not any(map(is_session_id, ("", "x" * 129, "a b", "a\n", "é", "a\x00", "a#b", "٠")))
    assert is_reserved_session("~ledger")
    assert not is_reserved_session("ledger")
    assert all(map(is_type_name, ("StateTransition", "a.b/c:d-e_f", "x" * 128)))
    assert not any(map(is_type_name, ("", "x" * 129, "a b", "a~b", "a@b", "a\n")))
    assert all(map(is_content_type, ("a", "application/json; charset=utf-8", "x" * 128)))
    assert not any(map(is_content_type, ("", " a", "a ", "x" * 129, "a\n", "é", "a\x7f")))


@given(st.binary(min_size=32, max_size=32), st.integers(0, 2**32 - 1))
@reproducible
def test_event_ids_are_uuids_of_version_8(command_hash: bytes, index: int) -> None:
    text = format_id(event_id(LEDGER, Hash(command_hash), index))
    assert text[14] == "8"
    assert text[19] in "89ab"


def test_event_ids_and_session_keys_differ_in_every_part() -> None:
    one, two = Hash(bytes(32)), Hash(b"\x01" * 32)
    found = {event_id(ledger, h, i) for ledger in (LEDGER, LedgerId(two)) for h in (one, two)
             for i in (0, 1)}  # fmt: skip
    assert len(found) == 8
    keys = {session_key(ledger, SessionId(s)) for ledger in (LEDGER, LedgerId(two)) for s in "ab"}
    assert len(keys) == 4


# Topics ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key, murmur2",
    [
        # From Kafka's own tests (org.apache.kafka.common.utils.UtilsTest).
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_partitions_are_those_of_kafka(key: bytes, murmur2: int) -> None:
    for partitions in (1, 2, 12, 256, 2**31):
        assert partition_of(key, partitions) == (murmur2 & 0x7FFFFFFF) % partitions


@given(st.binary(max_size=40), st.integers(0, 2**32 - 1))
@reproducible
def test_a_framed_record_is_unframed(data: bytes, schema_id: int) -> None:
    assert unframe(frame(schema_id, data)) == data


@pytest.mark.parametrize(
    "value", [None, b"", b"\x00", b"\x00\x00\x00\x01", b"\x01\x00\x00\x00\x01"]
)
def test_a_value_without_the_prefix_is_malformed(value: bytes | None) -> None:
    with pytest.raises(Malformed, match="Confluent prefix"):
        unframe(value)


def test_cloud_events_have_their_attributes_in_order() -> None:
    headers = cloud_event_headers(TOPICS[0], "id", "nocturne:x", "s", b"00-1-2-01")
    assert [name for name, _ in headers] == [
        "ce_specversion",
        "ce_id",
        "ce_source",
        "ce_type",
        "ce_subject",
        "content-type",
        "traceparent",
    ]
    assert len(cloud_event_headers(TOPICS[1], "id", "nocturne:x", "1", None)) == 6
    assert sorted(FIXED_SCHEMA_IDS.values()) == [1, 2, 3, 4, 5, 6]
