"""The wall clock, as what is signed and sent has it."""

from __future__ import annotations

import time


def now_ms() -> int:
    """ms since 1970 UTC."""
    return time.time_ns() // 1_000_000
