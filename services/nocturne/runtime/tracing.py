"""W3C trace context (https://www.w3.org/TR/trace-context/): read it, make it.

Rules: docs/guides/observability.md, traces. The command service takes a caller's `traceparent` from
its metadata, or makes one, and writes it, or that of its own span, beside the command; from there
it is carried through every topic unchanged, so that one trace, or one search in the logs, has a
command, its block and its events.
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


_SAMPLED_DIGITS: Final = frozenset(b"13579bdf")
_FLAG_DIGIT: Final = 54
_TRACE_ID: Final = slice(3, 35)


def is_sampled(traceparent: bytes | None) -> bool:
    """Whether who began this trace records it: the lowest bit of the flags. Anything that is no
    traceparent is not.
    """
    return (
        traceparent is not None
        and len(traceparent) == _FLAG_DIGIT + 1
        and traceparent[_FLAG_DIGIT] in _SAMPLED_DIGITS
        and _TRACEPARENT.match(traceparent) is not None
    )


def unsampled(traceparent: bytes) -> bytes:
    """The same trace and parent, recorded by nobody after: flags 00."""
    return traceparent[: _FLAG_DIGIT - 1] + b"00"


def trace_id_of(traceparent: bytes | str | None) -> str | None:
    """The trace's id as logs and trace stores have it; None without a valid traceparent."""
    parsed = parse_traceparent(traceparent)
    return None if parsed is None else parsed[_TRACE_ID].decode("ascii")
