"""Commands of one partition on their way to Kafka: one batch in flight, the next one gathering.

Each batch costs the broker a request, an append and a flush to disk, whatever its size. So what
comes while a batch is in flight, or soon after one was sent, goes together in the next: without
load a command leaves at once, under load batches grow by themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from nocturne.command.outcomes import Pending
from nocturne.core.errors import Unavailable
from nocturne.runtime.kafka import Delivery, ProducedRecord, Undelivered

DISTANCE_SECONDS: Final = 0.005
"""Between two batches of a partition: an eighth of the promised latency, under load only. Without
it 3 000 commands/s over four partitions went in batches of two or three.
"""


class Producer(Protocol):
    """Of `runtime.kafka.AckedProducer` what an outbox needs."""

    def deliver(self, records: Sequence[ProducedRecord]) -> asyncio.Future[list[Delivery]]:
        """Append `records` in their order; the future never fails."""


Report = Callable[[Sequence[Pending], Sequence[Delivery]], None]


class Outbox:
    """The outbox of one partition. `report` gets what became of a batch's records."""

    def __init__(self, producer: Producer, report: Report) -> None:
        self._producer = producer
        self._report = report
        self._records: list[ProducedRecord] = []
        self._pending: list[Pending] = []
        self._in_flight = False
        self._timer: asyncio.TimerHandle | None = None
        self._next_at = 0.0

    def put(self, record: ProducedRecord, pending: Pending) -> None:
        """Add a command; `flush` when no more is to come at once."""
        self._records.append(record)
        self._pending.append(pending)

    def flush(self) -> None:
        """Send what is gathered, now or as soon as it may be sent."""
        if self._in_flight or self._timer is not None or not self._records:
            return
        loop = asyncio.get_running_loop()
        if loop.time() < self._next_at:
            self._timer = loop.call_at(self._next_at, self._send)
        else:
            self._send()

    def _send(self) -> None:
        self._timer = None
        self._next_at = asyncio.get_running_loop().time() + DISTANCE_SECONDS
        records, self._records = self._records, []
        pending, self._pending = self._pending, []
        self._in_flight = True
        try:
            delivered = self._producer.deliver(records)
        except Unavailable as fault:
            self._in_flight = False
            self._report(pending, [Undelivered(str(fault))] * len(pending))
            return
        delivered.add_done_callback(lambda future: self._delivered(pending, future.result()))

    def _delivered(self, pending: list[Pending], deliveries: list[Delivery]) -> None:
        self._in_flight = False
        self.flush()
        self._report(pending, deliveries)
