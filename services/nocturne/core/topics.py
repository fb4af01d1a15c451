"""Topics, partitions, the Confluent wire format and CloudEvents headers of every record.

Rules: docs/spec/topics.md. A registry's schema id stands in a record's first five bytes and is
never hashed in a format of ours nor signed.
"""

from __future__ import annotations

import struct
from typing import Final

from nocturne.core.errors import Malformed

COMMANDS: Final = "nocturne.commands.v1"
BLOCKS: Final = "nocturne.blocks.v1"
SEALS: Final = "nocturne.seals.v1"
EVENTS: Final = "nocturne.events.v1"
RECEIPTS: Final = "nocturne.receipts.v1"
EVIDENCE: Final = "nocturne.evidence.v1"
TOPICS: Final = (COMMANDS, BLOCKS, SEALS, EVENTS, RECEIPTS, EVIDENCE)

FIXED_SCHEMA_IDS: Final = {COMMANDS: 1, BLOCKS: 2, SEALS: 3, EVENTS: 4, RECEIPTS: 5, EVIDENCE: 6}
"""The ids in the prefix where no registry is configured."""

SCHEMA_NAMES: Final = {
    COMMANDS: "signed_command",
    BLOCKS: "block",
    SEALS: "seal",
    EVENTS: "event",
    RECEIPTS: "receipt",
    EVIDENCE: "evidence",
}

CLOUD_EVENT_TYPES: Final = {
    COMMANDS: "nocturne.command.v1",
    BLOCKS: "nocturne.block.v1",
    SEALS: "nocturne.seal.v1",
    EVENTS: "nocturne.event.v1",
    RECEIPTS: "nocturne.receipt.v1",
    EVIDENCE: "nocturne.evidence.v1",
}

PREFIX_BYTES: Final = 5
_PREFIX: Final = struct.Struct(">bI")


def frame(schema_id: int, avro: bytes) -> bytes:
    """Confluent wire format: 0x00, four bytes of schema id, the Avro bytes."""
    return _PREFIX.pack(0, schema_id) + avro


def unframe(value: bytes | None) -> bytes:
    """The Avro bytes; the id is not read: v1 schemas are frozen. `Malformed` without a prefix."""
    if value is None or len(value) < PREFIX_BYTES or value[0] != 0:
        raise Malformed("record: expected the Confluent prefix (0x00 and a schema id)")
    return value[PREFIX_BYTES:]


def partition_of(key: bytes, partitions: int) -> int:
    """(murmur2(key) & 0x7fffffff) mod partitions: Kafka's default partitioner."""
    return (_murmur2(key) & 0x7FFFFFFF) % partitions


def cloud_event_headers(
    topic: str, event_id: str, source: str, subject: str, traceparent: bytes | None
) -> list[tuple[str, bytes]]:
    """CloudEvents 1.0 attributes in Kafka's binary mode, and the W3C trace context if there is one.

    `source` is `nocturne:` and the ledger id; `subject` the session id, the height or the view.
    """
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", event_id.encode("ascii")),
        ("ce_source", source.encode("ascii")),
        ("ce_type", CLOUD_EVENT_TYPES[topic].encode("ascii")),
        ("ce_subject", subject.encode("ascii")),
        ("content-type", b"application/avro"),
    ]
    if traceparent is not None:
        headers.append(("traceparent", traceparent))
    return headers


def _murmur2(data: bytes) -> int:
    """MurmurHash2, 32 bits, seed 0x9747b28c, as in org.apache.kafka.common.utils.Utils."""
    mask = 0xFFFFFFFF
    m = 0x5BD1E995
    length = len(data)
    h = (0x9747B28C ^ length) & mask
    whole = length & ~3
    for (k,) in struct.iter_unpack("<I", data[:whole]):
        k = (k * m) & mask
        k ^= k >> 24
        h = ((h * m) & mask) ^ ((k * m) & mask)
    rest = data[whole:]
    if rest:
        h ^= int.from_bytes(rest, "little")
        h = (h * m) & mask
    h ^= h >> 13
    h = (h * m) & mask
    return h ^ (h >> 15)
