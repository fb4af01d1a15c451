"""The two encodings of all that is hashed or signed: domain-separated fields and frozen Avro.

Rules: docs/spec/encoding.md. Hash and signature inputs are built from `domain`, `variable`, `u8`,
`u32`, `u64`; records are Avro in its one shortest form, and bytes that do not re-encode to
themselves are malformed.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Sequence
from hashlib import sha256 as _sha256
from typing import Any, Final, cast

from fastavro import parse_schema, schemaless_reader, schemaless_writer

from nocturne.core.errors import Malformed
from nocturne.core.schemas import SCHEMAS

HASH_BYTES: Final = 32
ZERO_HASH: Final = bytes(32)
FAULT_CHARACTERS_MAX: Final = 200
"""Of what the Avro library says of bytes that it cannot read."""
INTEGER_MAX: Final = 2**53 - 1
"""Integers in records stay exact in every JSON reader (RFC 8785 §3.2.2.3)."""

TIME_MAX: Final = 253_402_300_799_999
"""9999-12-31T23:59:59.999Z, the last millisecond that RFC 3339 can write."""

AvroRecord = dict[str, Any]

_U32: Final = struct.Struct(">I")
_U64: Final = struct.Struct(">Q")

_DECODING_FAULTS: Final = (
    EOFError,
    ValueError,
    IndexError,
    StopIteration,
    TypeError,
    OverflowError,
    KeyError,
    AttributeError,
    MemoryError,
    struct.error,
)
"""What fastavro raises on bytes that are not a record of the schema."""


def sha256(data: bytes) -> bytes:
    """SHA-256 (FIPS 180-4) of `data`, 32 bytes."""
    return _sha256(data).digest()


def domain(tag: str) -> bytes:
    """One byte of tag length, then the tag: the beginning of every hash and signature input."""
    encoded = tag.encode("ascii")
    if not 1 <= len(encoded) <= 255:
        raise ValueError(f"domain tag: expected 1 to 255 bytes, got {len(encoded)}")
    return bytes((len(encoded),)) + encoded


def variable(field: bytes) -> bytes:
    """A field of any length: four bytes of length, big-endian, then the field."""
    return _U32.pack(len(field)) + field


def take_variable(data: bytes, at: int, what: str) -> tuple[bytes, int]:
    """The variable field at `at`, and where it ends; `Malformed` when `what` has less."""
    start = at + _U32.size
    end = start + int.from_bytes(data[at:start], "big")
    if start > len(data) or end > len(data):
        raise Malformed(f"{what}: it is cut short")
    return data[start:end], end


def optional(field: bytes | None) -> bytes:
    """0x00 for null; 0x01 and the variable field otherwise: null is not empty."""
    return b"\x00" if field is None else b"\x01" + _U32.pack(len(field)) + field


def u8(number: int) -> bytes:
    """One byte, 0 to 255."""
    return bytes((number,))


def u32(number: int) -> bytes:
    """Four bytes, big-endian."""
    return _U32.pack(number)


def u64(number: int) -> bytes:
    """Eight bytes, big-endian."""
    return _U64.pack(number)


# The few encoders below write Avro directly: with them the records of the hot path are encoded in a
# third of the time that the general writer takes. Tests hold them to its bytes.


def long_to_avro(number: int) -> bytes:
    """Avro's zigzag variable-length integer in its shortest form (Avro 1.12, binary encoding)."""
    if 0 <= number < 8192:
        return _SHORT_LONGS[number]
    zigzag = (number << 1) ^ (number >> 63)
    out = bytearray()
    while zigzag > 0x7F:
        out.append((zigzag & 0x7F) | 0x80)
        zigzag >>= 7
    out.append(zigzag)
    return bytes(out)


_SHORT_LONGS: Final = tuple(
    bytes((number << 1,)) if number < 64 else bytes((number << 1 & 0x7F | 0x80, number >> 6))
    for number in range(8192)
)


def bytes_to_avro(data: bytes) -> bytes:
    """Avro `bytes`, and `string` of UTF-8: the length as a long, then the bytes."""
    return long_to_avro(len(data)) + data


def array_to_avro(items: Sequence[bytes]) -> bytes:
    """An Avro array in one block: count, the encoded items, 0; a lone 0 for no items."""
    if not items:
        return b"\x00"
    return long_to_avro(len(items)) + b"".join(items) + b"\x00"


def union_to_avro(branch: bytes | None) -> bytes:
    """An Avro union of null and a type, whose value is encoded already."""
    return b"\x00" if branch is None else b"\x02" + branch


class Codec:
    """Encode and strictly decode one frozen schema of `proto/nocturne/ledger/v1`."""

    __slots__ = ("_schema", "bytes_max", "name")

    def __init__(self, name: str, bytes_max: int, schema: AvroRecord | None = None) -> None:
        self.name = name
        self.bytes_max = bytes_max
        self._schema = schema or parse_schema(json.loads(SCHEMAS[name]), named_schemas={})

    def encode(self, record: AvroRecord) -> bytes:
        """The record's one encoding."""
        out = io.BytesIO()
        schemaless_writer(out, self._schema, record)
        return out.getvalue()

    def decode(self, data: bytes) -> AvroRecord:
        """The record of `data`; `Malformed` when too long, cut, continued, or not canonical."""
        record, length = self.decode_prefix(data)
        if length != len(data):
            raise Malformed(f"{self.name}: expected {length} bytes, got {len(data)}")
        return record

    def decode_prefix(self, data: bytes) -> tuple[AvroRecord, int]:
        """The record that `data` begins with, and its length in bytes; `Malformed` as `decode`."""
        record, length = self.read(data)
        try:
            encoded = self.encode(record)
        except _DECODING_FAULTS as fault:
            raise self._no_record(fault) from fault
        if not data.startswith(encoded) or len(encoded) != length:
            raise self.not_canonical()
        return record, length

    def read(self, data: bytes) -> tuple[AvroRecord, int]:
        """As `decode_prefix`, for a caller who encodes the record again and compares, or whose
        bytes' hash is already proved.
        """
        if len(data) > self.bytes_max:
            raise Malformed(
                f"{self.name}: expected at most {self.bytes_max} bytes, got {len(data)}"
            )
        source = io.BytesIO(data)
        try:
            record = schemaless_reader(source, self._schema, None)
        except _DECODING_FAULTS as fault:
            raise self._no_record(fault) from fault
        return cast("AvroRecord", record), source.tell()

    def _no_record(self, fault: Exception) -> Malformed:
        # Of a union the library shows the whole record and every branch.
        return Malformed(
            f"{self.name}: not a record of the schema ({str(fault)[:FAULT_CHARACTERS_MAX]})"
        )

    def not_canonical(self) -> Malformed:
        """What to raise when bytes do not re-encode to themselves."""
        return Malformed(f"{self.name}: not in its one encoding")


def codecs_of_parts(name: str, bytes_max: int, *parts: slice) -> tuple[Codec, ...]:
    """A codec for each run of the fields of the record schema `name`.

    A record's encoding is its fields' encodings in order, so an envelope can be put together from
    the bytes of a hashed record and of the rest, and read without encoding the former again.
    """
    schema = json.loads(SCHEMAS[name])
    known: dict[str, AvroRecord] = {}
    parse_schema(json.loads(SCHEMAS[name]), named_schemas=known)
    codecs = []
    for number, part in enumerate(parts):
        whole = cast("AvroRecord", parse_schema(json.loads(SCHEMAS[name]), named_schemas={}))
        run = {
            "type": "record",
            "name": f"{schema['namespace']}.{schema['name']}Part{number}",
            "fields": _with_names(whole["fields"][part], known, set()),
        }
        parsed = cast("AvroRecord", parse_schema(run, named_schemas={}))
        codecs.append(Codec(name, bytes_max, parsed))
    return tuple(codecs)


def _with_names(schema: Any, known: dict[str, AvroRecord], seen: set[str]) -> Any:
    """The schema with every named type written out where it is first used."""
    if isinstance(schema, list):
        return [_with_names(one, known, seen) for one in schema]
    if isinstance(schema, str):
        if schema not in known or schema in seen:
            return schema
        return _with_names(known[schema], known, seen)
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") in ("record", "fixed") and "name" in schema:
        name = schema["name"]
        if name in seen:
            return name
        seen.add(name)
    plain = {key: value for key, value in schema.items() if not key.startswith("__")}
    return {
        key: _with_names(value, known, seen) if key in ("type", "items", "fields") else value
        for key, value in plain.items()
    }
