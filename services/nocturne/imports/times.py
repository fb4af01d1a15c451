"""Times as sources write them, in ms since 1970 UTC. Pure.

Rules: docs/guides/importing.md, times. Only digits (and a minus) are ms since 1970; anything else
is ISO 8601, and UTC where it names no zone. Fractions of a ms are cut.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from nocturne.core.encoding import TIME_MAX
from nocturne.core.errors import Malformed

TEXT_CHARACTERS_MAX: Final = 64

_EPOCH_MS: Final = re.compile(r"-?\d{1,18}\Z", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)


def parse_time(text: str) -> int:
    """ms since 1970 UTC, before that negative; `Malformed` for what is no time."""
    shown = ascii(text[:TEXT_CHARACTERS_MAX])
    if len(text) > TEXT_CHARACTERS_MAX:
        raise Malformed(f"time: expected at most {TEXT_CHARACTERS_MAX} characters, got {shown}…")
    if _EPOCH_MS.match(text):
        return int(text)
    try:
        time = datetime.fromisoformat(text)
        zoned = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
        return (zoned - _EPOCH) // _MS
    except (ValueError, OverflowError) as fault:
        raise Malformed(
            f"time: expected ISO 8601, or ms since 1970 in digits, got {shown}"
        ) from fault


def occurred_at(text: str) -> int:
    """As `parse_time`, of an event: within what a ledger can say, 1970 to 9999."""
    ms = parse_time(text)
    if not 0 <= ms <= TIME_MAX:
        raise Malformed(f"time: expected one from 1970 to 9999, got {text!a}")
    return ms


def nearest(text: str) -> int:
    """As `occurred_at`, moved into its range: for a source whose own words are in the payload."""
    return min(max(parse_time(text), 0), TIME_MAX)
