"""Read the headers of a record as a block carries them: the reverse of `blocks.headers_bytes`.

Rules: docs/spec/blocks.md, the log.
"""

from __future__ import annotations

from typing import Final

from nocturne.core.errors import Malformed

Headers = tuple[tuple[str, bytes | None], ...]

_LENGTH_BYTES: Final = 4
_TRACEPARENT: Final = b"\x00\x00\x00\x0btraceparent\x01\x00\x00\x007"
"""How the headers have it: the name's length and bytes, a value, its length of 55."""
_TRACEPARENT_BYTES: Final = 55


def parse_headers(data: bytes) -> Headers:
    """The headers of `data`, in order; `Malformed` on anything that `headers_bytes` does not write.

    >>> parse_headers(bytes.fromhex("00000001" "00000001" "61" "01" "00000002" "6263"))
    (('a', b'bc'),)
    """
    count, position = _number(data, 0)
    headers = []
    for _ in range(count):
        name, position = _field(data, position)
        if data[position : position + 1] == b"\x00":
            value, position = None, position + 1
        elif data[position : position + 1] == b"\x01":
            value, position = _field(data, position + 1)
        else:
            raise Malformed("record headers: a value is neither there nor null")
        headers.append((_text(name), value))
    if position != len(data):
        raise Malformed(f"record headers: expected {position} bytes, got {len(data)}")
    return tuple(headers)


def traceparent_of(headers: bytes) -> bytes | None:
    """The first `traceparent` in a record's encoded headers, without reading the others. It is
    carried, never believed: bytes that only look like one, within another header, are as good as
    any.
    """
    start = headers.find(_TRACEPARENT)
    if start < 0:
        return None
    start += len(_TRACEPARENT)
    return headers[start : start + _TRACEPARENT_BYTES]


def _number(data: bytes, position: int) -> tuple[int, int]:
    end = position + _LENGTH_BYTES
    if end > len(data):
        raise Malformed("record headers: cut short")
    return int.from_bytes(data[position:end], "big"), end


def _field(data: bytes, position: int) -> tuple[bytes, int]:
    length, start = _number(data, position)
    if start + length > len(data):
        raise Malformed("record headers: cut short")
    return data[start : start + length], start + length


def _text(name: bytes) -> str:
    try:
        text = name.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as fault:
        raise Malformed("record headers: a name is not UTF-8") from fault
    return text
