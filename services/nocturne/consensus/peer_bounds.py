"""What bounds the talk with one validator: the queue of what is to be said, the rate of what is
heard. Pure.

Rules: docs/spec/peers.md §4.
"""

from __future__ import annotations

from collections import deque
from typing import Final

QUEUE_VALUES_MAX: Final = 2_048
QUEUE_BYTES_MAX: Final = 16 * 1024 * 1024
"""Of what waits for one validator: seconds of a ledger under load, and room for the largest."""
AWAY_VALUES_MAX: Final = 64
"""The same while it is away: what it missed by then is said again by the machine or read from the
topic, and old votes only cost it time."""
BATCH_VALUES_MAX: Final = 256
BATCH_BYTES_MAX: Final = 1024 * 1024
"""Of one envelope, unless one value alone is longer: what is behind it does not wait for long."""

ENVELOPE_COST: Final = 5
"""In values: gRPC costs 150 µs a message in Python, a value some 30 µs without its signatures."""
VALUES_PER_SECOND: Final = 5_000
VALUES_BURST: Final = 20_000
"""What one validator may have heard, in values. At 50 blocks a second four validators say 400 a
second to each other; a flood of envelopes takes less than a fifth of a core."""


class Outgoing:
    """A queue of encoded values, in order. When it is full the oldest goes."""

    __slots__ = ("_bytes", "_values")

    def __init__(self) -> None:
        self._values: deque[bytes] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._values)

    @property
    def waiting_bytes(self) -> int:
        """Of all values."""
        return self._bytes

    def add(self, value: bytes, values_max: int) -> int:
        """Returns how many older ones went for it."""
        self._values.append(value)
        self._bytes += len(value)
        return self._bound(values_max)

    def take(self) -> list[bytes]:
        """The next envelope's values, taken out."""
        batch: list[bytes] = []
        size = 0
        while self._values and len(batch) < BATCH_VALUES_MAX:
            size += len(self._values[0])
            if batch and size > BATCH_BYTES_MAX:
                break
            batch.append(self._values.popleft())
        self._bytes -= sum(map(len, batch))
        return batch

    def put_back(self, batch: list[bytes]) -> int:
        """What was taken and not sent, before all others; returns how many had to go for it."""
        self._values.extendleft(reversed(batch))
        self._bytes += sum(map(len, batch))
        return self._bound(QUEUE_VALUES_MAX)

    def _bound(self, values_max: int) -> int:
        gone = 0
        while len(self._values) > 1 and (
            len(self._values) > values_max or self._bytes > QUEUE_BYTES_MAX
        ):
            self._bytes -= len(self._values.popleft())
            gone += 1
        return gone


class Allowance:
    """A bucket that fills by `per_second` up to `burst`. Its owner pays after the work, and waits
    while it is below zero, so that work of any cost is done and paid for.
    """

    __slots__ = ("_burst", "_left", "_per_second", "_then")

    def __init__(self, per_second: float, burst: float, now: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._left = burst
        self._then = now

    def pay(self, cost: float, now: float) -> float:
        """Seconds to wait before the next work; 0 as long as there is something left."""
        elapsed = max(0.0, now - self._then)
        self._then = now
        self._left = min(self._burst, self._left + elapsed * self._per_second) - cost
        return max(0.0, -self._left / self._per_second)
