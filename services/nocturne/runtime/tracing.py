"""W3C trace context (https://www.w3.org/TR/trace-context/): read it, make it.

`traceparent` is carried from the caller's metadata through every topic, unchanged, so that one
search in the logs finds a command, its block and its events.
"""

from __future__ import annotations

import re
from typing import Final

HEADER: Final = "traceparent"
RANDOM_BYTES: Final = 24

_TRACEPARENT: Final = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}\Z")


def parse_traceparent(value: str | bytes | None) -> bytes | None:
    """`value` when it is a traceparent of version 00 with ids that are not zero; else None.

    >>> parse_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    b'00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'
    """
    if isinstance(value, str):
        value = value.encode("latin-1", "replace")
    return value if value is not None and _TRACEPARENT.match(value) else None


def make_traceparent(random: bytes) -> bytes:
    """A new traceparent, not sampled, from 24 random bytes (16 of trace id, 8 of span id)."""
    if len(random) != RANDOM_BYTES:
        raise ValueError(f"random: expected {RANDOM_BYTES} bytes, got {len(random)}")
    # An id of zeros means none; setting one bit keeps it from ever being made.
    trace = bytes((random[0] | 0x80,)) + random[1:16]
    span = bytes((random[16] | 0x80,)) + random[17:]
    return b"00-" + trace.hex().encode() + b"-" + span.hex().encode() + b"-00"
